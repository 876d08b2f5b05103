// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"vault-plugin-secrets-portkey/internal/apierror"
	"vault-plugin-secrets-portkey/internal/relay"
)

// selectRole says on which virtual key a request is to run: the path's, else
// that of x-portkey-virtual-key, of x-portkey-provider: @<role>, of an
// x-portkey-config that names one and nothing else, of the model
// @<role>/<model>, or of the leased key. model is the one in the request's body,
// empty for none; plainModel is what to send in its place. leased is the virtual
// key of the leased key that the request carries, empty for a Vault token: a
// leased key works on its own virtual key only. A role that is returned has a
// valid name; whether it exists isn't known here.
func selectRole(rt route, h http.Header, model, leased string) (role, plainModel string, err *apierror.Error) {
	if role, err = roleInHeaders(h); err != nil {
		return "", "", err
	}
	if rt.role != "" {
		role = rt.role
	}
	inModel, plainModel := splitModel(model)
	switch {
	case inModel != "" && plainModel == "":
		return "", "", badRequest("model", fmt.Sprintf("model %q names a virtual key and no model; write @<virtual key>/<model>", clip(model)))
	case role == "":
		role = inModel
	case inModel != "" && inModel != role:
		return "", "", badRequest("model", fmt.Sprintf("model %q names the virtual key %q, but the request is on %q; name one of them, "+
			"or write @%s/%s if all of it is the model's name", clip(model), clip(inModel), clip(role), clip(role), clip(model)))
	}
	if role == "" {
		role = leased
	}
	if err := checkRole(role, leased); err != nil {
		return "", "", err
	}
	return role, plainModel, nil
}

func checkRole(role, leased string) *apierror.Error {
	switch {
	case role == "":
		return &apierror.Error{
			Status: http.StatusBadRequest, Type: apierror.TypeInvalidRequest, Code: apierror.CodeVirtualKeyRequired,
			Message: "the request names no virtual key; use the path /v1/<mount>/proxy/<virtual key>/<provider path>, " +
				"the header x-portkey-virtual-key: <virtual key>, the header x-portkey-provider: @<virtual key>, or the model @<virtual key>/<model>",
		}
	case !isRoleName(role):
		return notFound(role)
	case leased != "" && role != leased:
		return &apierror.Error{
			Status: http.StatusForbidden, Type: apierror.TypeInvalidRequest, Code: apierror.CodeVirtualKeyMismatch,
			Message: fmt.Sprintf("the leased key is of virtual key %q, and the request names %q; name none, or use a key of that one: `vault read <mount>/creds/%s`",
				leased, clip(role), clip(role)),
		}
	}
	return nil
}

// splitModel takes the virtual key out of @<role>/<model>. The model itself may
// hold slashes and begin with an @. Role is empty where the model names none.
func splitModel(model string) (role, plain string) {
	if rest, found := strings.CutPrefix(model, "@"); found {
		if role, plain, found = strings.Cut(rest, "/"); found && role != "" {
			return role, plain
		}
	}
	return "", model
}

// roleInHeaders is the virtual key that Portkey's headers name; empty for none.
// A provider without @ is how Portkey's SDKs name the kind of a provider, which
// the virtual key decides here.
func roleInHeaders(h http.Header) (string, *apierror.Error) {
	role, err := onlyOne(h["X-Portkey-Virtual-Key"], "header x-portkey-virtual-key")
	if err != nil {
		return "", err
	}
	provider, err := onlyOne(h["X-Portkey-Provider"], "header x-portkey-provider")
	if err != nil {
		return "", err
	}
	config, err := onlyOne(h["X-Portkey-Config"], "header x-portkey-config")
	if err != nil {
		return "", err
	}
	inConfig, ok := roleInConfig(config)
	if !ok {
		return "", &apierror.Error{
			Status: http.StatusBadRequest, Type: apierror.TypeInvalidRequest, Code: apierror.CodeConfigNotSupported,
			Message: `the header x-portkey-config may only name a virtual key, as {"virtual_key": "<virtual key>"} or {"provider": "@<virtual key>"}; ` +
				"what else a config can hold is not supported: routing and models are set on the virtual key in Vault",
		}
	}
	if role == "" {
		if named, found := strings.CutPrefix(provider, "@"); found {
			role = named
		}
	}
	if role == "" {
		role = inConfig
	}
	return role, nil
}

// roleInConfig reads a config of Portkey's, which must be a JSON object of one
// member that names a virtual key. An empty one names none.
func roleInConfig(config string) (role string, ok bool) {
	if config == "" {
		return "", true
	}
	decoder := json.NewDecoder(strings.NewReader(config))
	var tokens [4]json.Token // a brace, the key, the value, a brace
	for i := range tokens {
		token, err := decoder.Token()
		if err != nil {
			return "", false
		}
		tokens[i] = token
	}
	value, isString := tokens[2].(string)
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) || !isString || tokens[3] != json.Delim('}') {
		return "", false
	}
	switch tokens[1] {
	case "virtual_key":
		return value, value != ""
	case "provider":
		role, found := strings.CutPrefix(value, "@")
		return role, found && role != ""
	}
	return "", false
}

// effectiveModel is the model that a request is for, from wherever it names it:
// its body, its path or the query string; empty for none. bodyModel is without
// the virtual key's name (see selectRole). Places that name different models
// are an error: which one counts would be the provider's choice.
func effectiveModel(path, rawQuery, bodyModel string) (string, *apierror.Error) {
	inPath := modelInPath(path)
	inQuery := ""
	if rawQuery != "" {
		// checkTarget has seen that it can be parsed.
		query, _ := url.ParseQuery(rawQuery)
		var err *apierror.Error
		if inQuery, err = onlyOne(query["model"], "query parameter model"); err != nil {
			return "", err
		}
	}
	switch {
	case bodyModel == relay.DefaultModel && inPath+inQuery != "":
		bodyModel = ""
	case inPath != "" && bodyModel == "models/"+inPath:
		// Gemini's SDKs give it in both places, and the resource's name in the
		// body (https://ai.google.dev/api/embeddings).
		bodyModel = inPath
	}
	model, where := "", ""
	for _, named := range [...]struct{ where, model string }{{"body", bodyModel}, {"path", inPath}, {"query string", inQuery}} {
		switch {
		case named.model == "" || named.model == model:
		case model == "":
			model, where = named.model, named.where
		default:
			return "", badRequest("model", fmt.Sprintf("the %s names the model %q and the %s %q; name the same one, or leave one out",
				where, clip(model), named.where, clip(named.model)))
		}
	}
	return model, nil
}

// modelInPath is the model that a provider path names; empty for none.
//
//	models/<model>, v1beta/models/<model>:<method>, openai/v1/models/<model>  OpenAI, Gemini
//	openai/deployments/<model>/…                                             Azure
//	model/<model>/converse                                                   Bedrock
//	…/publishers/<publisher>/models/<model>:<method>                         Vertex AI
func modelInPath(path string) string {
	if rest, found := strings.CutPrefix(path, "openai/deployments/"); found {
		model, _, _ := strings.Cut(rest, "/")
		return model
	}
	if rest, found := strings.CutPrefix(path, "model/"); found {
		model, _, _ := strings.Cut(rest, "/")
		return model
	}
	rest, found := strings.CutPrefix(path, "publishers/")
	if !found {
		_, rest, found = strings.Cut(path, "/publishers/")
	}
	if found {
		_, rest, _ = strings.Cut(rest, "/")
		if rest, found = strings.CutPrefix(rest, "models/"); found {
			model, _, _ := strings.Cut(rest, "/")
			return withoutMethod(model, true)
		}
	}
	googles := false
	for rest := path; ; {
		if model, found := strings.CutPrefix(rest, "models/"); found {
			return withoutMethod(model, googles)
		}
		segment, below, found := strings.Cut(rest, "/")
		if !found || segment != "openai" && !isVersion(segment) {
			return ""
		}
		googles = googles || strings.HasPrefix(segment, "v1beta") || strings.HasPrefix(segment, "v1alpha")
		rest = below
	}
}

// isVersion says whether a segment is like v1, v2 or v1beta3.
func isVersion(segment string) bool {
	return len(segment) > 1 && segment[0] == 'v' && '0' <= segment[1] && segment[1] <= '9'
}

// withoutMethod takes the method off that Google's APIs put behind a model
// (https://google.aip.dev/136). Models of others may hold colons too; where the
// path doesn't tell whose it is, only the methods of Gemini's API are known
// (https://ai.google.dev/api).
func withoutMethod(model string, googles bool) string {
	i := strings.LastIndexByte(model, ':')
	if i < 0 {
		return model
	}
	if !googles {
		switch model[i+1:] {
		case "generateContent", "streamGenerateContent", "batchGenerateContent", "countTokens",
			"embedContent", "batchEmbedContents", "asyncBatchEmbedContent", "predict", "predictLongRunning":
		default:
			return model
		}
	}
	return model[:i]
}

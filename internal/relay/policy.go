// SPDX-License-Identifier: MPL-2.0

package relay

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/ryanuber/go-glob"

	"vault-plugin-secrets-portkey/internal/apierror"
	"vault-plugin-secrets-portkey/internal/provider"
	"vault-plugin-secrets-portkey/internal/wire"
)

func (r *Relay) checkVirtualKey(vk *VirtualKey) *apierror.Error {
	if vk.Disabled {
		return &apierror.Error{
			Status: http.StatusForbidden, Type: apierror.TypeInvalidRequest, Code: apierror.CodeVirtualKeyDisabled,
			Message: fmt.Sprintf("virtual key %q is disabled", vk.Name),
		}
	}
	if !vk.ExpiresAt.IsZero() && !r.now().Before(vk.ExpiresAt) {
		return &apierror.Error{
			Status: http.StatusForbidden, Type: apierror.TypeInvalidRequest, Code: apierror.CodeVirtualKeyExpired,
			Message: fmt.Sprintf("virtual key %q expired at %s", vk.Name, vk.ExpiresAt.UTC().Format(time.RFC3339)),
		}
	}
	return nil
}

// hasBody says whether requests of this method carry parameters in a body.
func hasBody(method string) bool {
	return method == http.MethodPost || method == http.MethodPut || method == http.MethodPatch
}

// checkRequest reads what policy and metering need from the request, applies
// policy, and returns the body for the provider, nil for none: the caller's
// bytes but for the members that the virtual key sets, and the wish for usage
// in a stream.
func (x *exchange) checkRequest() (*wire.Object, *apierror.Error) {
	req, vk := x.req, x.req.VirtualKey
	x.params.Kind = wire.KindOf(req.Method, req.Path)
	if givesCredentials(req.Path) {
		return nil, &apierror.Error{
			Status: http.StatusForbidden, Type: apierror.TypeInvalidRequest, Code: apierror.CodeRouteNotAllowed,
			Message: fmt.Sprintf("%s gives out credentials of the provider, with which an app would need no virtual key; it is never passed on", req.Path),
		}
	}
	if !hasBody(req.Method) {
		return nil, nil
	}
	if req.Upload != nil {
		return nil, x.checkUpload()
	}
	body := req.Object
	if body == nil && len(bytes.TrimSpace(req.Body)) == 0 {
		if len(vk.Models) > 0 || wire.NeedsModel(req.Path) {
			return nil, modelRequired(vk)
		}
		x.params, _ = wire.ReadParams(req.Path, nil) // nothing in it can be wrong
		return nil, nil
	}
	var err error
	if body == nil {
		if body, err = wire.ParseObject(req.Body); err != nil {
			return nil, badRequest("", err.Error())
		}
	}
	if err := body.CheckKeys(policyKeys(vk)); err != nil {
		return nil, badRequest("", err.Error())
	}
	setParams(body, vk)
	if x.params, err = wire.ReadParams(req.Path, body); err != nil {
		var param *wire.ParamError
		if errors.As(err, &param) {
			return nil, badRequest(param.Param, err.Error())
		}
		return nil, badRequest("", err.Error())
	}
	if vk.Target.Provider().IgnoresMaxCompletionTokens {
		x.params.IgnoreCap(provider.CapMaxCompletionTokens)
	}
	if err := checkModels(vk, &x.params, req.Path); err != nil {
		return nil, err
	}
	if err := checkEscapes(vk, body, x.params.Kind, req.Path); err != nil {
		return nil, err
	}
	x.price, _ = x.find(x.params.Model)
	x.body = body
	x.askForUsage(body)
	return body, nil
}

// checkUpload applies policy to a request whose body isn't JSON. What it costs
// isn't known, nor what else it says.
func (x *exchange) checkUpload() *apierror.Error {
	req, vk := x.req, x.req.VirtualKey
	if x.params.Kind != wire.Unmetered {
		return badRequest("", fmt.Sprintf("the body for %s must be JSON; send it with Content-Type: application/json", req.Path))
	}
	kind := x.params.Kind
	x.params, _ = wire.ReadParams(req.Path, nil) // nothing in it can be wrong
	x.params.Kind, x.params.Model = kind, req.Upload.Model
	if len(vk.Forced) > 0 {
		return &apierror.Error{
			Status: http.StatusForbidden, Type: apierror.TypeInvalidRequest, Code: apierror.CodeInvalidRequest,
			Message: fmt.Sprintf("virtual key %q sets parameters of its own (%s), which can't be done in an upload; use a virtual key without forced_params",
				vk.Name, strings.Join(sortedKeys(vk.Forced), ", ")),
		}
	}
	if err := checkModels(vk, &x.params, req.Path); err != nil {
		return err
	}
	if len(vk.Models) > 0 && !wire.RunsItsModel(req.Path) {
		return escape(vk, "", req.Path)
	}
	x.price, _ = x.find(x.params.Model)
	return nil
}

// givesCredentials says whether a route makes, or shows, credentials for the
// provider itself: OpenAI's ephemeral keys for realtime sessions and ChatKit, its
// administration of keys (https://platform.openai.com/docs/api-reference), and
// OpenRouter's of its own (https://openrouter.ai/docs/api-reference).
func givesCredentials(path string) bool {
	_, route, _ := strings.Cut(strings.ToLower(path), "/")
	for _, prefix := range []string{"realtime", "chatkit/sessions", "organization", "keys", "auth"} {
		if rest, found := strings.CutPrefix(route, prefix); found && (rest == "" || rest[0] == '/') {
			return true
		}
	}
	return false
}

// askForUsage makes a stream report its usage where the caller didn't ask for
// it; the chunk that does so is taken out again on the way back.
func (x *exchange) askForUsage(body *wire.Object) {
	chat := x.params.Kind == wire.Chat || x.params.Kind == wire.Completions
	if chat && x.params.Stream && !x.params.IncludeUsage && !x.req.VirtualKey.Target.Provider().NoStreamOptions {
		wire.EnableStreamUsage(body)
		x.dropUsage = true
	}
}

// policyKeys are the members that two readers must agree on: those that policy
// reads, and those that the virtual key sets.
func policyKeys(vk *VirtualKey) []string {
	keys := wire.PolicyKeys()
	if len(vk.Defaults)+len(vk.Forced) == 0 {
		return keys
	}
	keys = slices.Clone(keys)
	for key := range vk.Defaults {
		keys = append(keys, key)
	}
	for key := range vk.Forced {
		keys = append(keys, key)
	}
	return keys
}

// checkModels judges the models that the request names, those that the provider
// may fall back to included.
func checkModels(vk *VirtualKey, params *wire.Params, path string) *apierror.Error {
	if params.Model == "" || params.Model == DefaultModel {
		if params.Model != "" || len(vk.Models) > 0 || wire.NeedsModel(path) {
			return modelRequired(vk)
		}
		return nil
	}
	for _, model := range append([]string{params.Model}, params.OtherModels...) {
		if !Allows(vk.Models, model) {
			return &apierror.Error{
				Status: http.StatusForbidden, Type: apierror.TypeInvalidRequest, Code: apierror.CodeModelNotAllowed, Param: "model",
				Message: fmt.Sprintf("model %q is not allowed on virtual key %q, which allows %s", model, vk.Name, strings.Join(vk.Models, ", ")),
			}
		}
	}
	return nil
}

// escapes are top-level members by which some providers let a request name
// further models: OpenRouter's presets and plugins, LiteLLM's fallbacks, and
// what some SDKs wrap in extra_body.
var escapes = []string{"preset", "plugins", "fallbacks", "extra_body"}

// checkEscapes refuses, on a virtual key that restricts models, requests that
// may run another model than the one they name.
func checkEscapes(vk *VirtualKey, body *wire.Object, kind wire.Kind, path string) *apierror.Error {
	if len(vk.Models) == 0 {
		return nil
	}
	refuse := func(param, what string) *apierror.Error { return escape(vk, param, what) }
	if kind == wire.Unmetered && !wire.RunsItsModel(path) {
		return refuse("", path)
	}
	if err := body.CheckKeys(append([]string{"tools"}, escapes...)); err != nil {
		return badRequest("", err.Error())
	}
	for _, key := range escapes {
		if _, given := body.Get(key); given {
			return refuse(key, fmt.Sprintf("%q", key))
		}
	}
	raw, given := body.Get("tools")
	if !given {
		return nil
	}
	var tools []map[string]json.RawMessage
	if err := json.Unmarshal(raw, &tools); err != nil {
		return badRequest("tools", "\"tools\" must be a list of objects")
	}
	for _, tool := range tools {
		for key, value := range tool {
			var model string
			if strings.EqualFold(key, "model") && (json.Unmarshal(value, &model) != nil || !Allows(vk.Models, model)) {
				return refuse("tools", "a tool with a model of its own")
			}
		}
	}
	return nil
}

// escape is the answer for what may run other models than the one it names.
func escape(vk *VirtualKey, param, what string) *apierror.Error {
	return &apierror.Error{
		Status: http.StatusForbidden, Type: apierror.TypeInvalidRequest, Code: apierror.CodeModelNotAllowed, Param: param,
		Message: fmt.Sprintf("%s may run models other than the one that the request names, and virtual key %q allows only %s",
			what, vk.Name, strings.Join(vk.Models, ", ")),
	}
}

// DefaultModel is the model that Portkey's SDK for Python sends where it was given
// none (portkey_ai/api_resources/apis/chat_complete.py); it counts as left out.
const DefaultModel = "portkey-default"

// setParams fills in the default parameters that the caller left out (null
// counts as given) and sets the forced ones, in a fixed order.
func setParams(body *wire.Object, vk *VirtualKey) {
	for _, key := range sortedKeys(vk.Defaults) {
		if _, given := body.Get(key); !given || key == "model" && unset(body) {
			body.Set(key, vk.Defaults[key])
		}
	}
	for _, key := range sortedKeys(vk.Forced) {
		body.Set(key, vk.Forced[key])
	}
}

// unset says whether the request names a model that counts as none.
func unset(body *wire.Object) bool {
	model, _, err := body.String("model")
	return err == nil && model == DefaultModel
}

func sortedKeys(params map[string]json.RawMessage) []string {
	if len(params) == 0 {
		return nil
	}
	keys := make([]string, 0, len(params))
	for key := range params {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}

// Allows says whether the allow-list models, of globs in which * stands for
// any text, admits model. An empty list admits every model.
func Allows(models []string, model string) bool {
	if len(models) == 0 {
		return true
	}
	return slices.ContainsFunc(models, func(pattern string) bool { return glob.Glob(pattern, model) })
}

// locate finds the provider's URL for the request.
func locate(req *Request) (*provider.Endpoint, *apierror.Error) {
	endpoint, err := req.VirtualKey.Target.Locate(req.Path, req.RawQuery)
	if err == nil {
		return endpoint, nil
	}
	var noRoute *provider.NoRouteError
	if errors.As(err, &noRoute) {
		return nil, &apierror.Error{
			Status: http.StatusNotFound, Type: apierror.TypeInvalidRequest, Code: apierror.CodeRouteNotFound, Message: err.Error(),
		}
	}
	return nil, badRequest("", err.Error())
}

func badRequest(param, message string) *apierror.Error {
	return &apierror.Error{
		Status: http.StatusBadRequest, Type: apierror.TypeInvalidRequest, Code: apierror.CodeInvalidRequest,
		Param: param, Message: message,
	}
}

func modelRequired(vk *VirtualKey) *apierror.Error {
	message := "the request names no model; set \"model\""
	if len(vk.Models) > 0 {
		message = fmt.Sprintf("the request names no model; set \"model\" to one that virtual key %q allows: %s",
			vk.Name, strings.Join(vk.Models, ", "))
	}
	return &apierror.Error{
		Status: http.StatusBadRequest, Type: apierror.TypeInvalidRequest, Code: apierror.CodeModelRequired,
		Param: "model", Message: message,
	}
}

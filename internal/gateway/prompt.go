// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"vault-plugin-secrets-portkey/internal/apierror"
)

// What can be done with a prompt template, as its path in Vault ends.
const (
	PromptCompletions = "completions"
	PromptRender      = "render"
)

// promptCall is what the path of a call of a prompt says.
type promptCall struct {
	// ref is the template's name, or <name>@<version>.
	ref string
	// action is PromptCompletions or PromptRender.
	action string
}

// PromptCall is one call of a prompt template, at whichever door.
type PromptCall struct {
	// Ref is the template's name, or <name>@<version>, as the path has it; there may
	// be no such template.
	Ref string
	// Render asks for the filled-in request rather than for its completion.
	Render bool
	// Fields are the members of the body.
	Fields map[string]json.RawMessage
	// VirtualKey is the one that the request names elsewhere than in the body's own
	// virtual_key; empty for none.
	VirtualKey string
	// Leased is the virtual key of the caller's leased key; empty for who came with
	// a Vault token.
	Leased string
	Caller
}

// parsePromptCall reads a path below the mount, or below /v1/ as Portkey has it;
// found is false for one that is no call of a prompt. Prompts are called by POST
// alone.
func parsePromptCall(method, below string) (call promptCall, found bool) {
	rest, isPrompts := strings.CutPrefix(below, promptsPrefix)
	ref, action, _ := strings.Cut(rest, "/")
	if method != http.MethodPost || !isPrompts || ref == "" || action != PromptCompletions && action != PromptRender {
		return promptCall{}, false
	}
	return promptCall{ref: ref, action: action}, true
}

func promptRoute(call promptCall) (route, *apierror.Error) {
	if _, _, ok := SplitPromptRef(call.ref); !ok {
		return route{}, PromptNotFound(call.ref)
	}
	return route{kind: kindPrompt, prompt: call}, nil
}

// maxVersion bounds a version in a path, in bytes.
const maxVersion = 32

// SplitPromptRef takes <name> or <name>@<version> apart. ok says whether a prompt
// template can have that name, and a version that one.
func SplitPromptRef(ref string) (name, version string, ok bool) {
	name, version, versioned := strings.Cut(ref, "@")
	for i := range len(version) {
		if !isWord(version[i]) {
			return name, version, false
		}
	}
	return name, version, isRoleName(name) && len(version) <= maxVersion && versioned == (version != "")
}

// PromptNotFound is the answer for a prompt template, or a version of one, that
// doesn't exist.
func PromptNotFound(ref string) *apierror.Error {
	return &apierror.Error{
		Status: http.StatusNotFound, Type: apierror.TypeInvalidRequest, Code: apierror.CodePromptNotFound,
		Message: fmt.Sprintf("there is no prompt template %q; `vault list <mount>/prompts` shows those that there are, and `vault list <mount>/prompts/<name>/versions` their versions", clip(ref)),
	}
}

// servePrompt answers a call of a prompt template. Which virtual key it runs on is
// the template's to say, and Vault is asked about the template alone.
func (c *call) servePrompt(ctx context.Context) *apierror.Error {
	if c.body.upload() != nil {
		return unsupported("a prompt is called with a JSON object, such as {\"variables\":{…}}; send application/json")
	}
	caller, err := c.identify(ctx)
	if err != nil {
		return err
	}
	text, req, err := c.gateway.mount.Prompt(ctx, &PromptCall{
		Ref: c.route.prompt.ref, Render: c.route.prompt.action == PromptRender,
		Fields: c.body.fields(), VirtualKey: c.role, Leased: c.leased, Caller: caller,
	})
	if err != nil {
		return err
	}
	if err := c.share.take(int64(len(text))); err != nil {
		return err
	}
	c.live.cors.apply(c.answer.Header(), c.http)
	if req == nil {
		c.answer.json(text)
		return nil
	}
	req.Body, req.Header = text, c.http.Header
	req.Timeout, req.Idle, req.Cancel = c.live.UpstreamTimeout, c.live.IdleTimeout, c.cancel
	c.gateway.relay.Serve(ctx, c.answer, req)
	return nil
}

// namedBeside is the virtual key that Portkey's headers or the model name; empty for
// none. Its name is taken out of the model.
func (c *call) namedBeside() (string, *apierror.Error) {
	named, err := roleInHeaders(c.http.Header)
	if err != nil {
		return "", err
	}
	inModel, plain := splitModel(c.body.model)
	c.model = plain
	switch {
	case inModel == "":
		return named, nil
	case plain == "":
		return "", badRequest("model", fmt.Sprintf("model %q names a virtual key and no model", clip(c.body.model)))
	case named != "" && named != inModel:
		return "", badRequest("model", fmt.Sprintf("model %q names the virtual key %q, and a header %q; name none, for the prompt template does", clip(c.body.model), clip(inModel), clip(named)))
	}
	c.setModel(plain)
	return inModel, nil
}

// fields are the members of a JSON body.
func (b *body) fields() map[string]json.RawMessage {
	if b.object == nil {
		return nil
	}
	fields := map[string]json.RawMessage{}
	for key, value := range b.object.All() {
		fields[string(key)] = value
	}
	return fields
}

// json writes a whole answer of the gateway's own.
func (a *answer) json(text []byte) {
	a.own()
	h := a.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(text)))
	a.WriteHeader(http.StatusOK)
	_, _ = a.Write(text) // a caller that went away can't be told more
}

// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-portkey/internal/apierror"
	"vault-plugin-secrets-portkey/internal/gateway"
	"vault-plugin-secrets-portkey/internal/prompt"
	"vault-plugin-secrets-portkey/internal/relay"
)

// pathPromptsRun are the calls of prompt templates, which answer as Portkey does.
func (b *backend) pathPromptsRun() []*framework.Path {
	path := func(action, summary, description, synopsis string, callback framework.OperationFunc) *framework.Path {
		return &framework.Path{
			// The name is whatever stands there, so that a wrong one is answered in
			// the shape that SDKs read.
			Pattern: promptPrefix + `(?P<prompt_ref>[^/]+)/` + action,
			Fields: map[string]*framework.FieldSchema{
				"prompt_ref": {Type: framework.TypeString, Description: "Name of the prompt template, or <name>@<version>."},
			},
			TakesArbitraryInput: true,
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.UpdateOperation: &framework.PathOperation{
					Callback: callback, Summary: summary, ForwardPerformanceStandby: true,
					Responses: map[int][]framework.Response{http.StatusOK: {{Description: description, MediaType: "application/json"}}},
					DisplayAttrs: &framework.DisplayAttributes{
						OperationPrefix: operationPrefix, OperationVerb: "write", OperationSuffix: "prompt-template-" + action,
					},
				},
			},
			HelpSynopsis:    synopsis,
			HelpDescription: promptsRunHelp,
		}
	}
	return []*framework.Path{
		path(gateway.PromptCompletions, "Get a completion of a prompt template.", "The provider's answer, byte for byte, with the provider's status.",
			"A completion of a prompt template.", b.completePrompt),
		path(gateway.PromptRender, "Fill in a prompt template.", `{"success":true,"data":{…}}, with the request that a completion would send.`,
			"A prompt template, filled in.", b.renderPrompt),
	}
}

// promptCallOf reads a call at Vault's own address. path is below the mount.
func promptCallOf(req *logical.Request, action string) (*gateway.PromptCall, error) {
	ref := strings.TrimSuffix(strings.TrimPrefix(req.Path, promptPrefix), "/"+action)
	call := &gateway.PromptCall{Ref: ref, Render: action == gateway.PromptRender, Fields: make(map[string]json.RawMessage, len(req.Data)), Caller: callerOf(req)}
	for name, value := range req.Data {
		var err error
		if call.Fields[name], err = plainJSON(value); err != nil {
			return nil, fmt.Errorf("the field %.60q can't be read: %w", name, err)
		}
	}
	return call, nil
}

func (b *backend) completePrompt(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	if nonce, given := nonceOf(req); given {
		return b.testify(req, nonce), nil
	}
	if elsewhere := b.redirect(req); elsewhere != nil {
		return elsewhere, nil
	}
	answer := b.serveInline(ctx, req, func(settings *settings, outcome *relay.Outcome) (*relay.Request, *apierror.Error) {
		call, err := promptCallOf(req, gateway.PromptCompletions)
		if err != nil {
			return nil, badPromptCall("", err.Error())
		}
		text, r, refusal := b.runPrompt(ctx, req.Storage, settings, call, outcome)
		if refusal == nil {
			r.Body = text
		}
		return r, refusal
	})
	return answer.response(), nil
}

func (b *backend) renderPrompt(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	if nonce, given := nonceOf(req); given {
		return b.testify(req, nonce), nil
	}
	answer := newBufferedAnswer(0) // never by redirect: it is small, and at once
	text, refusal := b.renderedPrompt(ctx, req)
	if refusal != nil {
		refusal.Write(answer)
		return answer.response(), nil
	}
	answer.header.Set("Content-Type", "application/json")
	answer.header.Set(relay.TraceHeader, rand.Text())
	_, _ = answer.Write(text) // which has no bound
	return answer.response(), nil
}

func (b *backend) renderedPrompt(ctx context.Context, req *logical.Request) ([]byte, *apierror.Error) {
	if err := b.activity.await(ctx); err != nil {
		return nil, notActive(err)
	}
	settings, err := b.readSettings(ctx, req.Storage)
	if err != nil {
		return nil, storageUnavailable(err)
	}
	call, err := promptCallOf(req, gateway.PromptRender)
	if err != nil {
		return nil, badPromptCall("", err.Error())
	}
	text, _, refusal := b.runPrompt(ctx, req.Storage, settings, call, nil)
	return text, refusal
}

// runPrompt does for both doors what gateway.Mount says of Prompt. outcome, if given,
// takes what comes of a completion.
func (b *backend) runPrompt(ctx context.Context, storage logical.Storage, settings *settings, call *gateway.PromptCall, outcome *relay.Outcome) (text []byte, req *relay.Request, refusal *apierror.Error) {
	found, err := b.prompts.find(ctx, storage, call.Ref)
	if err != nil {
		return nil, nil, storageUnavailable(err)
	}
	if found == nil {
		return nil, nil, gateway.PromptNotFound(call.Ref)
	}
	if refusal := found.checkNamed(call); refusal != nil {
		return nil, nil, refusal
	}
	if call.Render {
		if text, refusal = found.fillIn(call.Fields); refusal != nil {
			return nil, nil, refusal
		}
		return enclosed(`{"success":true,"data":`, text, `}`), nil, nil
	}
	from := payer{entity: call.Entity, prompt: found.Name}
	if req, refusal = b.relayRequest(ctx, storage, settings, found.VirtualKey, from, outcome); refusal != nil {
		if refusal.Code == apierror.CodeVirtualKeyNotFound {
			refusal = &apierror.Error{
				Status: refusal.Status, Type: refusal.Type, Code: refusal.Code,
				Message: fmt.Sprintf("prompt template %q (version %d) runs on virtual key %q, which does not exist", found.Name, found.number, found.VirtualKey),
			}
		}
		return nil, nil, refusal
	}
	if text, refusal = found.fillIn(call.Fields); refusal == nil {
		refusal = found.checkModel(text, req.VirtualKey)
	}
	if refusal != nil {
		b.spend(settings, from, relay.Outcome{VirtualKey: found.VirtualKey, Result: relay.Refused, Code: refusal.Code, Started: b.now()})
		return nil, nil, refusal
	}
	req.Method, req.Path = http.MethodPost, "v1/chat/completions"
	if found.Prompt != "" {
		req.Path = "v1/completions"
	}
	return text, req, nil
}

func enclosed(before string, text []byte, behind string) []byte {
	return append(append(append(make([]byte, 0, len(before)+len(text)+len(behind)), before...), text...), behind...)
}

// checkNamed refuses a call that names another virtual key than the template's:
// Vault has judged that the caller may use the template, and not that virtual key.
func (f *foundPrompt) checkNamed(call *gateway.PromptCall) *apierror.Error {
	if call.Leased != "" && call.Leased != f.VirtualKey {
		return &apierror.Error{
			Status: http.StatusForbidden, Type: apierror.TypeInvalidRequest, Code: apierror.CodeVirtualKeyMismatch,
			Message: fmt.Sprintf("the leased key is of virtual key %q, on which prompt template %q doesn't run; use a Vault token whose policies allow the template", call.Leased, f.Name),
		}
	}
	named := []string{call.VirtualKey, ""}
	if raw := call.Fields["virtual_key"]; len(raw) > 0 && !bytes.Equal(raw, []byte("null")) {
		if json.Unmarshal(raw, &named[1]) != nil {
			return badPromptCall("virtual_key", `"virtual_key" must be a string`)
		}
	}
	for _, name := range named {
		if name != "" && name != f.VirtualKey {
			return &apierror.Error{
				Status: http.StatusForbidden, Type: apierror.TypeInvalidRequest, Code: apierror.CodeVirtualKeyMismatch, Param: "virtual_key",
				Message: fmt.Sprintf("prompt template %q runs on virtual key %q, and the request names %.64q; name none", f.Name, f.VirtualKey, name),
			}
		}
	}
	return nil
}

// notOverrides are members of a call that are none of the provider's request: those
// for the call itself, and the id that Portkey's SDKs leave in the body.
var notOverrides = []string{"variables", "virtual_key", "promptID", "prompt_id"}

// fillIn makes the provider's request of the members of a call.
func (f *foundPrompt) fillIn(fields map[string]json.RawMessage) ([]byte, *apierror.Error) {
	in := prompt.Input{Overrides: make(map[string]json.RawMessage, len(fields))}
	for name, value := range fields {
		in.Overrides[name] = value
	}
	for _, name := range notOverrides {
		delete(in.Overrides, name)
	}
	var model string
	if json.Unmarshal(in.Overrides["model"], &model) == nil && model == relay.DefaultModel {
		delete(in.Overrides, "model")
	}
	var refusal *apierror.Error
	if in.Variables, refusal = variablesOf(fields["variables"]); refusal != nil {
		return nil, refusal
	}
	text, err := f.compiled.Render(in)
	var problem *prompt.Error
	switch {
	case err == nil:
		return text, nil
	case !errors.As(err, &problem):
		return nil, badPromptCall("", err.Error())
	}
	refusal = badPromptCall(problem.Param, fmt.Sprintf("prompt template %q (version %d): %s", f.Name, f.number, problem.Message))
	if refusal.Code = problem.Code; problem.Code == prompt.CodeTooLarge {
		refusal.Status = http.StatusRequestEntityTooLarge
	}
	return nil, refusal
}

// variablesOf reads the variables of a call: an object, or text with one in it, which
// is all that the command line can send.
func variablesOf(raw json.RawMessage) (map[string]json.RawMessage, *apierror.Error) {
	var variables map[string]json.RawMessage
	var text string
	if json.Unmarshal(raw, &text) == nil && strings.TrimSpace(text) != "" {
		raw = json.RawMessage(text)
	}
	if len(raw) > 0 && string(raw) != `""` && json.Unmarshal(raw, &variables) != nil {
		return nil, badPromptCall("variables", `"variables" must be a JSON object, such as {"name":"Ann"}`)
	}
	return variables, nil
}

// checkModel refuses a request without a model before the relay does, which can't
// say whose it would be to name one.
func (f *foundPrompt) checkModel(text []byte, vk *relay.VirtualKey) *apierror.Error {
	given := bytes.HasPrefix(text, []byte(`{"model":`)) // where Render puts it
	if given || vk.Defaults["model"] != nil || vk.Forced["model"] != nil {
		return nil
	}
	return &apierror.Error{
		Status: http.StatusBadRequest, Type: apierror.TypeInvalidRequest, Code: apierror.CodeModelRequired, Param: "model",
		Message: fmt.Sprintf("prompt template %q (version %d) has no model and the request names none; send \"model\", or set it in the template", f.Name, f.number),
	}
}

func badPromptCall(param, message string) *apierror.Error {
	return &apierror.Error{
		Status: http.StatusBadRequest, Type: apierror.TypeInvalidRequest, Code: apierror.CodeInvalidRequest, Param: param, Message: message,
	}
}

const promptsRunHelp = `
The body has the variables, and any other field of the provider's request, which
wins over the template's own unless that locks it:

    {"variables": {"name": "Ann"}, "max_tokens": 100, "stream": true}

render answers with the request that a completion would send, and sends nothing.

    vault write -field=messages <mount>/prompts/greeting/render variables='{"name":"Ann"}'
    echo '{"variables":{"name":"Ann"},"max_tokens":100}' | vault write -format=json <mount>/prompts/greeting/completions -

Portkey's SDKs call this with <vault address>/v1/<mount> as base URL. The policy
needs "update" on the path, and nothing on the virtual key behind it. One on
prompts/greeting/completions lets callers use the published version; with
prompts/greeting@* they choose.
`

// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-portkey/internal/apierror"
	"vault-plugin-secrets-portkey/internal/relay"
)

// pathProxyCLI is the door for people: `vault write portkey/proxy/team-a …`.
func (b *backend) pathProxyCLI() *framework.Path {
	return &framework.Path{
		Pattern: proxyPrefix + `(?P<virtual_key>[^/]+)/?`,
		Fields: map[string]*framework.FieldSchema{
			"virtual_key": {Type: framework.TypeString, Description: "Name of the virtual key."},
			"model":       {Type: framework.TypeString, Description: "The model; may be left out if the virtual key has a default."},
			"prompt":      {Type: framework.TypeString, Required: true, Description: "What to say to the model."},
			"system":      {Type: framework.TypeString, Description: "A system message to put before the prompt."},
			"max_tokens":  {Type: framework.TypeInt, Description: "Output tokens at the most."},
			"temperature": {Type: framework.TypeFloat, Description: "Sampling temperature."},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: &framework.PathOperation{
				Callback: b.proxyCLI, Summary: "Get one chat completion.", ForwardPerformanceStandby: true,
				DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationVerb: "prompt", OperationSuffix: "virtual-key"},
				Responses: ok("The completion.", map[string]*framework.FieldSchema{
					"content":       {Type: framework.TypeString, Required: true, Description: "What the model said."},
					"model":         {Type: framework.TypeString, Required: true, Description: "The model that answered."},
					"finish_reason": {Type: framework.TypeString, Required: true, Description: "Why it stopped: stop, length, …"},
					"usage":         {Type: framework.TypeMap, Required: true, Description: "Tokens, as the provider reports them."},
					"cost_usd":      {Type: framework.TypeString, Required: true, Description: "What it cost, in USD; empty if the model has no price."},
					"trace_id":      {Type: framework.TypeString, Required: true, Description: "Identifies this exchange."},
				}),
			},
		},
		HelpSynopsis:    "One chat completion on a virtual key, for the command line.",
		HelpDescription: proxyCLIHelp,
	}
}

func (b *backend) proxyCLI(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := strings.TrimSuffix(strings.TrimPrefix(req.Path, proxyPrefix), "/")
	answer := b.serveInline(ctx, req, b.onVirtualKey(ctx, req, name, func(r *relay.Request) error {
		if err := unknownFields(req, d); err != nil {
			return err
		}
		body, err := chatRequest(d)
		r.Method, r.Path, r.Body = http.MethodPost, "v1/chat/completions", body
		return err
	}))
	if answer.status != http.StatusOK {
		return answer.response(), nil
	}
	data, err := completionData(answer, answer.redactions)
	if err != nil {
		refusal := newBufferedAnswer(0)
		err.Write(refusal)
		return refusal.response(), nil
	}
	// What these say of the provider's body isn't true of this one.
	answer.header.Del("Content-Type")
	answer.header.Del("Content-Length")
	resp := &logical.Response{Data: data, Headers: answer.header}
	if capped := answer.outcome.Capped; capped > 0 {
		resp.AddWarning(fmt.Sprintf("the request was sent with a cap of %d output tokens, because of the virtual key's limits", capped))
	}
	return resp, nil
}

// chatRequest makes an OpenAI chat request of the fields.
func chatRequest(d *framework.FieldData) ([]byte, error) {
	prompt := d.Get("prompt").(string)
	if strings.TrimSpace(prompt) == "" {
		return nil, fmt.Errorf("prompt is missing: prompt=\"Hello\"")
	}
	type message struct {
		Role    string `json:"role"`
		Content string `json:"content"`
	}
	var messages []message
	if system := d.Get("system").(string); system != "" {
		messages = append(messages, message{"system", system})
	}
	body := map[string]any{"messages": append(messages, message{"user", prompt})}
	for _, name := range []string{"model", "max_tokens", "temperature"} {
		if v, ok := d.GetOk(name); ok && v != "" {
			body[name] = v
		}
	}
	return json.Marshal(body)
}

// completionData is what people want to see of an OpenAI chat completion.
//
// The relay has masked the provider key in the answer as it came; a spelling
// that only decoding brings out is masked here.
func completionData(answer *bufferedAnswer, redactions []string) (map[string]any, *apierror.Error) {
	var completion struct {
		Model   string `json:"model"`
		Choices []struct {
			Message struct {
				Content string `json:"content"`
			} `json:"message"`
			FinishReason string `json:"finish_reason"`
		} `json:"choices"`
		Usage map[string]any `json:"usage"`
	}
	if err := json.Unmarshal(answer.body.Bytes(), &completion); err != nil || len(completion.Choices) == 0 {
		return nil, &apierror.Error{
			Status: http.StatusBadGateway, Type: apierror.TypeAPI, Code: apierror.CodeUnreachable,
			Message: "the provider's answer is not a chat completion; call proxy/<name>/v1/chat/completions to see it as it is",
		}
	}
	cost := ""
	if !answer.outcome.Unpriced {
		cost = answer.outcome.Cost.Total.String()
		if answer.outcome.Basis == relay.Unconfirmed {
			cost += " (unconfirmed: the provider reported no usage)"
		}
	}
	redact := func(text string) string {
		for _, secret := range redactions {
			text = strings.ReplaceAll(text, secret, strings.Repeat("*", len(secret)))
		}
		return text
	}
	if completion.Usage == nil {
		completion.Usage = map[string]any{}
	}
	return map[string]any{
		"content": redact(completion.Choices[0].Message.Content), "model": redact(completion.Model),
		"finish_reason": redact(completion.Choices[0].FinishReason), "usage": completion.Usage, "cost_usd": cost,
		"trace_id": answer.header.Get(relay.TraceHeader),
	}, nil
}

const proxyCLIHelp = `
    vault write <mount>/proxy/demo model=sandbox-small prompt="Hello"

For anything else, call the provider's own API at proxy/<name>/v1/….
`

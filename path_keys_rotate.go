// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/helper/locksutil"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-portkey/internal/relay"
)

// verifyTimeout bounds the check of a key, its control request included.
const verifyTimeout = 8 * time.Second

func (b *backend) pathKeyRotate(shown map[string]*framework.FieldSchema, attrs *framework.DisplayAttributes) *framework.Path {
	return &framework.Path{
		Pattern: keyPrefix + framework.GenericNameRegex("name") + "/rotate",
		Fields: map[string]*framework.FieldSchema{
			"name": {Type: framework.TypeString, Description: "Name of the provider key."},
			"api_key": {
				Type: framework.TypeString, Required: true, Description: "The new API key.",
				DisplayAttrs: &framework.DisplayAttributes{Name: "API key", Sensitive: true},
			},
			"verify": {Type: framework.TypeBool, Description: "Ask the provider first, and keep the old key unless it accepts the new one."},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: &framework.PathOperation{
				Callback: b.rotateKey, Summary: "Replace the API key of a provider key.",
				ForwardPerformanceStandby: true,
				Responses:                 ok("The provider key as it is now.", shown),
			},
		},
		DisplayAttrs:    &framework.DisplayAttributes{OperationPrefix: attrs.OperationPrefix, OperationVerb: "rotate", OperationSuffix: attrs.OperationSuffix},
		HelpSynopsis:    "Replace the API key without any app noticing.",
		HelpDescription: rotateHelp,
	}
}

func (b *backend) pathKeyVerify(attrs *framework.DisplayAttributes) *framework.Path {
	return &framework.Path{
		Pattern: keyPrefix + framework.GenericNameRegex("name") + "/verify",
		Fields: map[string]*framework.FieldSchema{
			"name": {Type: framework.TypeString, Description: "Name of the provider key."},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: &framework.PathOperation{
				Callback: b.verifyKey, Summary: "Ask the provider whether it accepts the API key.",
				ForwardPerformanceStandby: true,
				Responses: ok("What the provider says.", map[string]*framework.FieldSchema{
					"result":      {Type: framework.TypeString, Required: true, Description: "valid, refused, unreachable, or inconclusive where the endpoint answers anybody."},
					"detail":      {Type: framework.TypeString, Required: true, Description: "How that was found out."},
					"http_status": {Type: framework.TypeInt, Required: true, Description: "The provider's status; 0 if there was no answer."},
				}),
			},
		},
		DisplayAttrs:    &framework.DisplayAttributes{OperationPrefix: attrs.OperationPrefix, OperationVerb: "verify", OperationSuffix: attrs.OperationSuffix},
		HelpSynopsis:    "Ask the provider whether it accepts the API key.",
		HelpDescription: verifyHelp,
	}
}

func (b *backend) rotateKey(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	if err := unknownFields(req, d); err != nil {
		return logical.ErrorResponse(err.Error()), nil
	}
	name := d.Get("name").(string)
	lock := locksutil.LockForKey(b.keyLocks, name)
	lock.Lock()
	defer lock.Unlock()

	old, err := b.keys.get(ctx, req.Storage, name)
	if err != nil {
		return nil, err
	}
	if old == nil {
		return respond(errNoEntry)
	}
	k := *old
	k.APIKey = ""
	if setString(d, "api_key", &k.APIKey); k.APIKey == "" {
		return logical.ErrorResponse("api_key is missing: give the new one"), nil
	}
	if k.APIKey == old.APIKey {
		return logical.ErrorResponse("api_key is the one already stored; nothing was changed"), nil
	}
	if err := b.prepareKey(&k); err != nil {
		return logical.ErrorResponse(err.Error()), nil
	}
	resp := &logical.Response{}
	if err := b.succeedKey(ctx, req, &k, old, d, resp); err != nil {
		return respond(err)
	}
	if d.Get("verify").(bool) {
		verdict := b.probe(ctx, &k)
		switch verdict.Result {
		case relay.ProbeValid:
		case relay.ProbeInconclusive:
			resp.AddWarning("the new key could not be checked: " + verdict.Detail)
		default:
			return logical.ErrorResponse("the old key stays, because the new one is %s: %s", verdict.Result, verdict.Detail), nil
		}
	}
	if err := b.keys.put(ctx, req.Storage, name, &k); err != nil {
		return nil, err
	}
	resp.Data = k.responseData()
	return resp, nil
}

func (b *backend) verifyKey(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	k, err := b.keys.get(ctx, req.Storage, d.Get("name").(string))
	if err != nil {
		return nil, err
	}
	if k == nil {
		return respond(errNoEntry)
	}
	settings, err := b.readSettings(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	if err := settings.permits(k.target.Base()); err != nil {
		return logical.ErrorResponse(err.Error()), nil
	}
	verdict := b.probe(ctx, k)
	return &logical.Response{Data: map[string]any{
		"result": string(verdict.Result), "detail": verdict.Detail, "http_status": verdict.Status,
	}}, nil
}

func (b *backend) probe(ctx context.Context, k *providerKey) relay.Verdict {
	if err := b.activity.await(ctx); err != nil {
		return relay.Verdict{Result: relay.ProbeUnreachable, Detail: fmt.Sprintf("not asked: %s", err)}
	}
	ctx, cancel := context.WithTimeout(ctx, verifyTimeout)
	defer cancel()
	return b.relay.Probe(ctx, k.target)
}

const rotateHelp = `
The next request uses the new key; those under way finish on the old one. With
verify=true the provider is asked first, and the old key stays unless the new
one is accepted.

    vault write <mount>/keys/openai/rotate api_key=- verify=true
`

const verifyHelp = `
Calls the provider's cheapest endpoint that needs a key, and calls it again
without the key: where both are answered alike, the key was never looked at and
the result is inconclusive.
`

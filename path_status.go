// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"context"
	"net/http"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

func (b *backend) pathStatus() []*framework.Path {
	return []*framework.Path{
		{
			Pattern: "status",
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.ReadOperation: &framework.PathOperation{
					Callback: b.readStatus, Summary: "Read version and state of the engine.", ForwardPerformanceStandby: true,
					Responses: ok("Version and state.", map[string]*framework.FieldSchema{
						"version":      {Type: framework.TypeString, Required: true, Description: "The plugin's version."},
						"state":        {Type: framework.TypeString, Required: true, Description: "active, starting, standby or ended. Only an active instance takes requests."},
						"state_since":  {Type: framework.TypeTime, Required: true, Description: "Since when."},
						"problem":      {Type: framework.TypeString, Required: true, Description: "Why it is not active; empty when it is."},
						"gateway":      {Type: framework.TypeMap, Required: true, Description: "State of the gateway: on, address, url, problem, draining, streams, connections, refused_connections, certificate_expires, mount_path."},
						"inline_calls": {Type: framework.TypeInt64, Required: true, Description: "Inline calls under way."},
					}),
				},
			},
			DisplayAttrs:    &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "status", Navigation: true},
			HelpSynopsis:    "Version and state of the engine.",
			HelpDescription: "Needs a token. A standby forwards it to the active node.",
		},
		{
			Pattern: "healthz",
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.ReadOperation: &framework.PathOperation{
					Callback: b.readHealth, Summary: "Ask whether the engine takes requests.", ForwardPerformanceStandby: true,
					Responses: map[int][]framework.Response{http.StatusOK: {{Description: "The text ok.", MediaType: "text/plain"}}},
				},
			},
			DisplayAttrs:    &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "health"},
			HelpSynopsis:    "Says ok, to anybody, when the engine takes requests; 503 when not.",
			HelpDescription: "For load balancers. Asking it also makes Vault start a plugin process that died.",
		},
	}
}

func (b *backend) readStatus(context.Context, *logical.Request, *framework.FieldData) (*logical.Response, error) {
	state, problem, since := b.activity.status()
	if l := b.ledger.Load(); l != nil && l.Fenced() {
		problem = "another instance keeps the limits now; this one refuses requests on virtual keys with limits"
	}
	return &logical.Response{Data: map[string]any{
		"version":      b.version,
		"state":        state,
		"state_since":  since.UTC().Format(time.RFC3339),
		"problem":      problem,
		"inline_calls": b.inline.n.Load(),
		"gateway":      b.gatewayStatus(),
	}}, nil
}

// readHealth says no more than ok: it answers callers without a token.
func (b *backend) readHealth(ctx context.Context, _ *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	status, text := http.StatusOK, "ok\n"
	if b.activity.await(ctx) != nil {
		status, text = http.StatusServiceUnavailable, "unavailable\n"
	}
	return &logical.Response{Data: map[string]any{
		logical.HTTPStatusCode: status, logical.HTTPContentType: "text/plain; charset=utf-8", logical.HTTPRawBody: []byte(text),
	}}, nil
}

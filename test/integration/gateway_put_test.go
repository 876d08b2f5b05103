// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"net/http"
	"testing"
)

// TestGateway_TakesPutForPostAsVaultDoes: an app that goes from Vault's address to the
// gateway's changes host and port alone.
func TestGateway_TakesPutForPostAsVaultDoes(t *testing.T) {
	g := startGateway(t, gatewayOptions{settings: map[string]any{"redirect": "off"}})
	g.role(t, "demo", nil)
	token := g.token(t, "demo")
	put := errand{method: http.MethodPut, body: hello("up-ok")}.complete()
	for _, d := range doors()[:2] { // the two of the same path
		before := g.up.Received()
		wantCompletion(t, d.send(caller{g, "127.0.0.1", token}, t, "demo", put))
		if n := g.up.Received() - before; n != 1 && d.gateway {
			t.Errorf("%s: the provider was asked %d times", d.name, n)
		}
	}
	// What may not be written by POST may not be by PUT.
	resp := do(t, g.atGateway(t, token), http.MethodPut, g.chatOf("another"), hello("up-ok"))
	wantError(t, resp, http.StatusForbidden, "permission_denied")
	// A provider's own paths mean by PUT what the provider says, who has none.
	native := errand{method: http.MethodPut, body: hello("up-ok"), header: http.Header{"X-Portkey-Virtual-Key": {"demo"}}}
	wantError(t, native.send(t, g.atGateway(t, token), "chat/completions"), http.StatusMethodNotAllowed, "method_not_allowed")
}

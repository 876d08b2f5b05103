// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"net/http"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/test/vaulttest"
)

// TestGateway_LeasedKeyWorksAsLongAsItsLease: without a word with Vault, and not a
// moment longer.
func TestGateway_LeasedKeyWorksAsLongAsItsLease(t *testing.T) {
	tune := map[string]any{"default_lease_ttl": "1h", "max_lease_ttl": "2h"}
	n := &credsTests{startGateway(t, gatewayOptions{tune: tune}), &sources{}}
	t.Run("WorksWithoutACallToVault", n.works)
	t.Run("WorksWhereverASDKPutsItsKey", n.places)
	t.Run("IsForItsVirtualKeyAlone", n.own)
	t.Run("EndsWhen", n.ends)
	t.Run("EndsAtItsTTLUnlessRenewed", n.renewed)
	t.Run("IsRefusedByVaultItself", n.notAToken)
	t.Run("PolicyOnCredsDecidesWhoGetsOne", n.policy)
}

type credsTests struct {
	*gatewayRig
	addresses *sources
}

// lease is a leased key with its lease.
type lease struct {
	key, id string
	*vaulttest.Response
}

// lease reads creds/<role> with a token.
func (n *credsTests) lease(t *testing.T, token, role, query string) lease {
	t.Helper()
	resp := n.atVault(t, token).Read(t, n.mount+"/creds/"+role+query)
	key, _ := resp.Data()["api_key"].(string)
	id, _ := resp.JSON()["lease_id"].(string)
	if key == "" || id == "" {
		t.Fatalf("no leased key: %s", resp)
	}
	return lease{key, id, resp}
}

// leaser returns a token that may lease keys of a virtual key, which it makes.
func (n *credsTests) leaser(t *testing.T, role string) string {
	t.Helper()
	n.role(t, role, nil)
	n.vault.Policy(t, "lease-"+role, `path "`+n.mount+"/creds/"+role+`" { capabilities = ["read"] }`)
	return n.vault.Token(t, "lease-"+role)
}

// ask asks for a completion with a leased key, as a caller of whom nothing is
// known.
func (n *credsTests) ask(t *testing.T, key, role string) *vaulttest.Response {
	t.Helper()
	return post(t, from(t, n.addresses.next(), n.url, key), n.chatOf(role), hello("up-ok"))
}

// wantEnded fails the test unless the key is refused, at the latest when Vault has
// done what it does behind its answer.
func (n *credsTests) wantEnded(t *testing.T, key, role string, status int, code string) {
	t.Helper()
	began := time.Now()
	eventually(t, "the leased key to end", func() bool { return n.ask(t, key, role).Status != http.StatusOK })
	t.Logf("it ended %d ms after Vault's answer", time.Since(began).Milliseconds())
	unasked(t, n.up, func() {
		for range 3 {
			wantError(t, n.ask(t, key, role), status, code)
		}
	})
}

func (n *credsTests) works(t *testing.T) {
	l := n.lease(t, n.leaser(t, "works"), "works", "")
	if got := l.Data()["base_url"]; got != n.url+"/v1" {
		t.Errorf("base_url is %v, and the gateway is at %s", got, n.url)
	}
	before := len(n.asks(t, ""))
	for range 100 {
		wantCompletion(t, n.ask(t, l.key, "works"))
	}
	if got := len(n.asks(t, "")) - before; got != 0 {
		t.Errorf("100 requests with a leased key made %d entries in the audit log", got)
	}
}

// places: without a path of Vault, for the key names its virtual key.
func (n *credsTests) places(t *testing.T) {
	key := n.lease(t, n.leaser(t, "places"), "places", "").key
	wantCompletion(t, errand{}.complete().send(t, n.atGateway(t, ""), "chat/completions?key="+key))
	for name, value := range map[string]string{
		"X-Vault-Token": key, "X-Portkey-Api-Key": key, "Authorization": "Bearer " + key, "X-Api-Key": key, "Api-Key": key, "X-Goog-Api-Key": key,
	} {
		e := errand{header: http.Header{name: {value}}}.complete()
		wantCompletion(t, e.send(t, n.atGateway(t, ""), "chat/completions"))
	}
}

func (n *credsTests) own(t *testing.T) {
	key := n.lease(t, n.leaser(t, "own"), "own", "").key
	n.role(t, "foreign", nil)
	unasked(t, n.up, func() {
		wantError(t, n.ask(t, key, "foreign"), http.StatusForbidden, "virtual_key_mismatch", "own", "foreign")
		e := errand{header: http.Header{"X-Portkey-Virtual-Key": {"foreign"}}}.complete()
		wantError(t, e.send(t, n.atGateway(t, key), "chat/completions"), http.StatusForbidden, "virtual_key_mismatch")
		e = errand{body: hello("@foreign/up-ok")}.complete()
		wantError(t, e.send(t, n.atGateway(t, key), "chat/completions"), http.StatusForbidden, "virtual_key_mismatch")
	})
	wantCompletion(t, n.ask(t, key, "own"))
}

// ends: each way in which a lease, or what it is for, comes to its end.
func (n *credsTests) ends(t *testing.T) {
	put := func(t *testing.T, path string, body map[string]any) { n.root.Write(t, path, body) }
	invalid, gone := http.StatusUnauthorized, "credential_invalid"
	for name, row := range map[string]struct {
		end    func(t *testing.T, role, token string, l lease)
		status int
		code   string
	}{
		"LeaseIsRevoked": {func(t *testing.T, _, _ string, l lease) {
			put(t, "sys/leases/revoke", map[string]any{"lease_id": l.id, "sync": true})
		}, invalid, gone},
		"LeaseIsRevokedBehindTheAnswer": {func(t *testing.T, _, _ string, l lease) {
			put(t, "sys/leases/revoke", map[string]any{"lease_id": l.id})
		}, invalid, gone},
		"PrefixIsRevoked": {func(t *testing.T, role, _ string, _ lease) {
			put(t, "sys/leases/revoke-prefix/"+n.mount+"/creds/"+role, map[string]any{"sync": true})
		}, invalid, gone},
		"TokenIsRevoked": {func(t *testing.T, _, token string, _ lease) {
			put(t, "auth/token/revoke", map[string]any{"token": token})
		}, invalid, gone},
		"RoleIsDeleted": {func(t *testing.T, role, _ string, _ lease) {
			n.root.Delete(t, n.mount+"/roles/"+role)
		}, invalid, gone},
		"RoleIsMadeAnew": {func(t *testing.T, role, _ string, _ lease) {
			n.root.Delete(t, n.mount+"/roles/"+role)
			n.role(t, role, nil)
		}, invalid, gone},
		"RoleIsDisabled": {func(t *testing.T, role, _ string, _ lease) {
			n.root.Patch(t, n.mount+"/roles/"+role, map[string]any{"enabled": false})
		}, http.StatusForbidden, "virtual_key_disabled"},
	} {
		t.Run(name, func(t *testing.T) {
			role := "ends-" + randomHex(4)
			token := n.leaser(t, role)
			l, other := n.lease(t, token, role, ""), n.lease(t, n.vault.RootToken, role, "")
			wantCompletion(t, n.ask(t, l.key, role))
			row.end(t, role, token, l)
			n.wantEnded(t, l.key, role, row.status, row.code)
			if name == "LeaseIsRevoked" || name == "TokenIsRevoked" {
				wantCompletion(t, n.ask(t, other.key, role))
			}
		})
	}
	t.Run("ParentOfTheTokenIsRevoked", func(t *testing.T) {
		n.leaser(t, "family")
		p := parentToken(t, n.gatewayRig, "lease-family")
		for _, kind := range []string{"service", "batch"} {
			token := newToken(t, p, "create", map[string]any{"policies": []string{"lease-family"}, "type": kind})
			l := n.lease(t, token, "family", "")
			wantCompletion(t, n.ask(t, l.key, "family"))
			defer n.wantEnded(t, l.key, "family", invalid, gone)
		}
		put(t, "auth/token/revoke", map[string]any{"token": p.Token})
	})
}

// renewed: leases of 3 s, one of which is renewed.
func (n *credsTests) renewed(t *testing.T) {
	token := n.leaser(t, "renewed")
	kept, lost := n.lease(t, token, "renewed", "?ttl=3s"), n.lease(t, token, "renewed", "?ttl=3s")
	wantCompletion(t, n.ask(t, lost.key, "renewed"))
	resp := n.root.Write(t, "sys/leases/renew", map[string]any{"lease_id": kept.id, "increment": "1h"})
	if left, _ := resp.JSON()["lease_duration"].(float64); left < 3000 {
		t.Errorf("the renewed lease lasts %v s: %s", left, resp)
	}
	time.Sleep(3500 * time.Millisecond)
	unasked(t, n.up, func() {
		wantError(t, n.ask(t, lost.key, "renewed"), http.StatusUnauthorized, "credential_invalid")
	})
	wantCompletion(t, n.ask(t, kept.key, "renewed"))
	resp = n.root.Write(t, "sys/leases/renew", map[string]any{"lease_id": kept.id, "increment": "24h"})
	if left, _ := resp.JSON()["lease_duration"].(float64); left > 7200 {
		t.Errorf("a lease can be renewed to %v s, beyond the mount's maximum of 2 h: %s", left, resp)
	}
	n.root.Write(t, "sys/leases/revoke", map[string]any{"lease_id": kept.id, "sync": true})
	n.wantEnded(t, kept.key, "renewed", http.StatusUnauthorized, "credential_invalid")
	wantStatus(t, post(t, n.root, "sys/leases/renew", map[string]any{"lease_id": kept.id}), http.StatusBadRequest)
}

func (n *credsTests) notAToken(t *testing.T) {
	key := n.lease(t, n.leaser(t, "not-a-token"), "not-a-token", "").key
	wantVaults403(t, post(t, n.atVault(t, key), n.chatOf("not-a-token"), hello("up-ok")))
	wantVaults403(t, do(t, n.atVault(t, key), http.MethodGet, n.mount+"/creds/not-a-token", nil))
}

func (n *credsTests) policy(t *testing.T) {
	n.leaser(t, "policy")
	app := n.atVault(t, n.token(t, "policy"))
	wantVaults403(t, do(t, app, http.MethodGet, n.mount+"/creds/policy", nil))
	leaser := n.vault.Token(t, "lease-policy")
	wantVaults403(t, do(t, n.atVault(t, leaser), http.MethodGet, n.mount+"/creds/own", nil))
	unasked(t, n.up, func() {
		wantError(t, n.ask(t, leaser, "policy"), http.StatusForbidden, "permission_denied")
	})
}

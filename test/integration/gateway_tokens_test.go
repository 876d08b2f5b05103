// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"strings"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/test/vaulttest"
)

// newToken makes a token; where is "create", or one of its relatives.
func newToken(t *testing.T, parent *vaulttest.Client, where string, fields map[string]any) string {
	t.Helper()
	resp := parent.Write(t, "auth/token/"+where, fields)
	auth, _ := resp.JSON()["auth"].(map[string]any)
	token, _ := auth["client_token"].(string)
	if token == "" {
		t.Fatalf("no token: %s", resp)
	}
	return token
}

// tokenBy returns what makes a token with these fields and the policy.
func tokenBy(where string, fields map[string]any) func(*testing.T, *gatewayRig, string) string {
	return func(t *testing.T, g *gatewayRig, policy string) string {
		t.Helper()
		return newToken(t, g.root, where, with(map[string]any{"policies": []string{policy}, "no_default_policy": true}, fields))
	}
}

// parentToken makes a token that may make others with the policy.
func parentToken(t *testing.T, g *gatewayRig, policy string) *vaulttest.Client {
	t.Helper()
	g.vault.Policy(t, "parent", `path "auth/token/create*" { capabilities = ["update", "sudo"] }`)
	return g.atVault(t, newToken(t, g.root, "create", map[string]any{"policies": []string{policy, "parent"}, "ttl": "1h"}))
}

// childOf makes a child of such a token.
func childOf(fields map[string]any) func(*testing.T, *gatewayRig, string) string {
	return func(t *testing.T, g *gatewayRig, policy string) string {
		t.Helper()
		return newToken(t, parentToken(t, g, policy), "create", with(map[string]any{"policies": []string{policy}}, fields))
	}
}

// spoilt makes a token with mint, and then does something to it.
func spoilt(mint func(*testing.T, *gatewayRig, string) string, spoil func(*testing.T, *gatewayRig, string)) func(*testing.T, *gatewayRig, string) string {
	return func(t *testing.T, g *gatewayRig, policy string) string {
		t.Helper()
		token := mint(t, g, policy)
		spoil(t, g, token)
		return token
	}
}

// expired makes a token with mint, once, and waits until its second is over.
func expired(mint func(*testing.T, *gatewayRig, string) string) func(*testing.T, *gatewayRig, string) string {
	token := ""
	return func(t *testing.T, g *gatewayRig, policy string) string {
		t.Helper()
		if token == "" {
			token = mint(t, g, policy)
			time.Sleep(2500 * time.Millisecond)
		}
		return token
	}
}

// boundTo makes a token that counts only from some addresses.
func boundTo(cidr string) func(*testing.T, *gatewayRig, string) string {
	return func(t *testing.T, g *gatewayRig, policy string) string {
		t.Helper()
		name := "bound-" + strings.NewReplacer("/", "-", ".", "-").Replace(cidr)
		g.root.Write(t, "auth/token/roles/"+name, map[string]any{"token_bound_cidrs": []string{cidr}, "allowed_policies_glob": []string{"*"}})
		return newToken(t, g.root, "create/"+name, map[string]any{"policies": []string{policy}, "no_default_policy": true})
	}
}

// entityOf logs somebody in, and then does something to the entity.
func entityOf(then func(t *testing.T, g *gatewayRig, login vaulttest.Login)) func(*testing.T, *gatewayRig, string) string {
	return func(t *testing.T, g *gatewayRig, policy string) string {
		t.Helper()
		login := g.vault.Userpass(t, "user-"+policy+"-"+randomHex(3), policy)
		then(t, g, login)
		return login.Token
	}
}

// tokenRows are rows on who asks.
func tokenRows() []judged {
	nothing := func(*testing.T, *gatewayRig, vaulttest.Login) {}
	revoke := func(t *testing.T, g *gatewayRig, token string) {
		g.root.Write(t, "auth/token/revoke", map[string]any{"token": token})
	}
	useOnce := func(t *testing.T, g *gatewayRig, token string) { g.atVault(t, token).Read(t, "auth/token/lookup-self") }
	self := updateChat + ` path "auth/token/lookup-self" { capabilities = ["read"] }`
	const identity = `path "MOUNT/proxy/{{identity.entity.metadata.key}}/*" { capabilities = ["update"] }`
	named := entityOf(func(t *testing.T, g *gatewayRig, l vaulttest.Login) {
		g.root.Write(t, "identity/entity/id/"+l.EntityID, map[string]any{"metadata": map[string]string{"key": "identityinthepolicy"}})
	})
	return []judged{
		{name: "RootToken", policy: `path "sys/health" { capabilities = ["read"] }`, in: true,
			token: func(_ *testing.T, g *gatewayRig, _ string) string { return g.vault.RootToken }},
		{name: "Orphan", policy: updateChat, in: true, token: tokenBy("create-orphan", nil)},
		{name: "Periodic", policy: updateChat, in: true, token: tokenBy("create", map[string]any{"period": "1h"})},
		{name: "Batch", policy: updateChat, in: true, token: childOf(map[string]any{"type": "batch"})},
		{name: "BatchWithoutPolicy", policy: `path "sys/health" { capabilities = ["read"] }`, token: tokenBy("create-orphan", map[string]any{"type": "batch"})},
		{name: "BatchOrphan", policy: updateChat, in: true, token: tokenBy("create-orphan", map[string]any{"type": "batch"})},
		{name: "BatchOfARevokedParent", policy: updateChat, token: func(t *testing.T, g *gatewayRig, policy string) string {
			p := parentToken(t, g, policy)
			token := newToken(t, p, "create", map[string]any{"policies": []string{policy}, "type": "batch"})
			revoke(t, g, p.Token)
			return token
		}},
		{name: "Child", policy: updateChat, in: true, token: childOf(nil)},
		{name: "Revoked", policy: updateChat, token: spoilt(tokenBy("create", nil), revoke)},
		{name: "Expired", policy: updateChat, token: expired(tokenBy("create", map[string]any{"ttl": "1s"}))},
		{name: "BatchExpired", policy: updateChat, token: expired(tokenBy("create-orphan", map[string]any{"ttl": "1s", "type": "batch"}))},
		{name: "NoSuchToken", policy: updateChat, token: func(*testing.T, *gatewayRig, string) string { return "hvs.CAESIJ" + randomHex(40) }},
		{name: "Forged", policy: updateChat, token: func(t *testing.T, g *gatewayRig, policy string) string {
			return tokenBy("create", nil)(t, g, policy) + "A"
		}},
		{name: "UsesLeft", policy: updateChat, in: true, token: tokenBy("create", map[string]any{"num_uses": 9})},
		{name: "UsesUsedUp", policy: self, token: spoilt(tokenBy("create", map[string]any{"num_uses": 1}), useOnce)},
		{name: "BoundToTheCallersAddress", policy: updateChat, in: true, source: "127.0.0.1", token: boundTo("127.0.0.1/32")},
		{name: "BoundToTheCallersNetwork", policy: updateChat, in: true, source: "127.9.8.7", token: boundTo("127.9.0.0/16")},
		{name: "BoundToAnotherAddress", policy: updateChat, source: "127.9.8.8", token: boundTo("127.0.0.1/32")},
		{name: "BoundToAnotherNetwork", policy: updateChat, source: "127.0.0.1", token: boundTo("127.9.0.0/16")},
		{name: "BoundAndForwardedForAnother", policy: updateChat, source: "127.9.8.9", token: boundTo("127.0.0.1/32"),
			errand: errand{header: map[string][]string{"X-Forwarded-For": {"127.0.0.1"}, "Forwarded": {"for=127.0.0.1"}, "X-Real-Ip": {"127.0.0.1"}}}},
		{name: "Entity", policy: updateChat, in: true, token: entityOf(nothing)},
		{name: "EntityDisabled", policy: updateChat, token: entityOf(func(t *testing.T, g *gatewayRig, l vaulttest.Login) {
			g.root.Write(t, "identity/entity/id/"+l.EntityID, map[string]any{"disabled": true})
		})},
		{name: "EntityDeleted", policy: updateChat, token: entityOf(func(t *testing.T, g *gatewayRig, l vaulttest.Login) {
			g.root.Delete(t, "identity/entity/id/"+l.EntityID)
		})},
		{name: "IdentityInThePolicy", policy: identity, token: named, in: true},
		{name: "AnotherIdentityInThePolicy", policy: identity, token: named},
	}
}

// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/test/vaulttest"
)

// TestGateway_RevokedTokenIsRefusedThoughItsGrantHasTimeLeft: grants last an hour
// here.
func TestGateway_RevokedTokenIsRefusedThoughItsGrantHasTimeLeft(t *testing.T) {
	n := &revocationTests{gatewayRig: startGateway(t, gatewayOptions{settings: map[string]any{"grant_ttl": "1h"}}), addresses: &sources{}}
	n.role(t, "demo", nil)
	n.token(t, "demo") // for its policy
	t.Run("EachWayToRevoke", n.ways)
	t.Run("OthersAreNotTouched", n.others)
	t.Run("LeaseAloneRevokedAsksVaultAgain", n.leaseAlone)
	t.Run("RevokedWhileItIsAsked", n.meanwhile)
	t.Run("UnderLoad", n.underLoad)
}

type revocationTests struct {
	*gatewayRig
	addresses *sources
}

// granted is a token with a grant at an address.
type granted struct {
	token string
	at    *vaulttest.Client
}

// grant has a token granted.
func (n *revocationTests) grant(t *testing.T, token string) granted {
	t.Helper()
	c := granted{token, from(t, n.addresses.next(), n.url, token)}
	for range 2 { // the second is for a grant that is kept
		wantCompletion(t, n.ask(t, c))
	}
	return c
}

func (n *revocationTests) ask(t *testing.T, c granted) *vaulttest.Response {
	t.Helper()
	return post(t, c.at, n.chatOf("demo"), hello("up-ok"))
}

// wantEnd fails the test unless the grant ends with what revoke does, or with what
// Vault does behind its answer, and stays so.
func (n *revocationTests) wantEnd(t *testing.T, c granted, revoke func()) {
	t.Helper()
	revoke()
	began := time.Now()
	eventually(t, "the grant to end", func() bool { return n.ask(t, c).Status != http.StatusOK })
	t.Logf("it ended %d ms after Vault's answer", time.Since(began).Milliseconds())
	unasked(t, n.up, func() {
		for range 3 {
			wantError(t, n.ask(t, c), http.StatusForbidden, "permission_denied")
		}
	})
}

func (n *revocationTests) create(t *testing.T, fields map[string]any) string {
	t.Helper()
	return tokenBy("create", fields)(t, n.gatewayRig, "app-demo")
}

func (n *revocationTests) write(t *testing.T, path string, body map[string]any) func() {
	return func() { n.root.Write(t, path, body) }
}

func (n *revocationTests) accessor(t *testing.T, token string) string {
	t.Helper()
	accessor, _ := n.root.Write(t, "auth/token/lookup", map[string]any{"token": token}).Data()["accessor"].(string)
	return accessor
}

func (n *revocationTests) ways(t *testing.T) {
	t.Run("Token", func(t *testing.T) {
		c := n.grant(t, n.create(t, nil))
		n.wantEnd(t, c, n.write(t, "auth/token/revoke", map[string]any{"token": c.token}))
	})
	t.Run("Accessor", func(t *testing.T) {
		c := n.grant(t, n.create(t, nil))
		n.wantEnd(t, c, n.write(t, "auth/token/revoke-accessor", map[string]any{"accessor": n.accessor(t, c.token)}))
	})
	t.Run("Self", func(t *testing.T) {
		n.vault.Policy(t, "self", `path "auth/token/revoke-self" { capabilities = ["update"] }`)
		c := n.grant(t, n.create(t, map[string]any{"policies": []string{"app-demo", "self"}}))
		n.wantEnd(t, c, func() { n.atVault(t, c.token).Write(t, "auth/token/revoke-self", nil) })
	})
	for _, kind := range []string{"service", "batch"} {
		t.Run("ParentOf/"+kind, func(t *testing.T) {
			p := parentToken(t, n.gatewayRig, "app-demo")
			c := n.grant(t, newToken(t, p, "create", map[string]any{"policies": []string{"app-demo"}, "type": kind}))
			n.wantEnd(t, c, n.write(t, "auth/token/revoke", map[string]any{"token": p.Token}))
		})
	}
	t.Run("Grandparent", func(t *testing.T) {
		p := parentToken(t, n.gatewayRig, "app-demo")
		child := newToken(t, p, "create", map[string]any{"policies": []string{"app-demo", "parent"}})
		c := n.grant(t, newToken(t, n.atVault(t, child), "create", map[string]any{"policies": []string{"app-demo"}}))
		n.wantEnd(t, c, n.write(t, "auth/token/revoke", map[string]any{"token": p.Token}))
	})
	t.Run("Prefix", func(t *testing.T) {
		login := n.vault.Userpass(t, "prefix", "app-demo")
		n.wantEnd(t, n.grant(t, login.Token), n.write(t, "sys/leases/revoke-prefix/auth/userpass/login/prefix", nil))
	})
	t.Run("AuthMethodIsDisabled", func(t *testing.T) {
		login := n.vault.Userpass(t, "gone", "app-demo")
		n.wantEnd(t, n.grant(t, login.Token), func() { n.root.Delete(t, "sys/auth/userpass") })
	})
	t.Run("Expiry", func(t *testing.T) {
		n.wantEnd(t, n.grant(t, n.create(t, map[string]any{"ttl": "2s"})), func() {})
	})
	t.Run("ExpiryOfABatchToken", func(t *testing.T) {
		n.wantEnd(t, n.grant(t, tokenBy("create-orphan", map[string]any{"ttl": "2s", "type": "batch"})(t, n.gatewayRig, "app-demo")), func() {})
	})
}

// others: a sibling, and an orphan whose parent goes.
func (n *revocationTests) others(t *testing.T) {
	p := parentToken(t, n.gatewayRig, "app-demo")
	child := func(fields map[string]any) granted {
		return n.grant(t, newToken(t, p, "create", with(map[string]any{"policies": []string{"app-demo"}}, fields)))
	}
	a, b, orphan := child(nil), child(nil), child(map[string]any{"no_parent": true})
	n.wantEnd(t, a, n.write(t, "auth/token/revoke", map[string]any{"token": a.token}))
	asked := len(n.asks(t, n.mount+"/proxy/demo/"))
	wantCompletion(t, n.ask(t, b))
	if got := len(n.asks(t, n.mount+"/proxy/demo/")) - asked; got != 0 {
		t.Error("the grant of its sibling has ended with it")
	}
	n.wantEnd(t, b, n.write(t, "auth/token/revoke", map[string]any{"token": p.Token}))
	wantCompletion(t, n.ask(t, orphan))
}

// leaseAlone: a lease that ends with its token alive ends grants, and no more.
func (n *revocationTests) leaseAlone(t *testing.T) {
	c := n.grant(t, n.create(t, nil))
	for range 3 {
		n.root.Write(t, "sys/leases/revoke-prefix/"+n.mount+"/proxy/demo", map[string]any{"sync": true})
		before := len(n.asks(t, n.mount+"/proxy/demo/"))
		for range 3 {
			wantCompletion(t, n.ask(t, c))
		}
		if got := len(n.asks(t, n.mount+"/proxy/demo/")) - before; got < 1 || got > 2 {
			t.Errorf("after its lease Vault was asked %d times", got)
		}
	}
	n.wantEnd(t, c, n.write(t, "auth/token/revoke", map[string]any{"token": c.token}))
}

// meanwhile: the token is revoked while Vault is asked about it. What is granted
// at that moment doesn't outlive it.
func (n *revocationTests) meanwhile(t *testing.T) {
	left := 0
	for i := range rounds(60, 1000) {
		token := n.create(t, nil)
		c := granted{token, from(t, n.addresses.next(), n.url, token)}
		var both sync.WaitGroup
		both.Go(func() { _, _ = c.at.Do(t.Context(), http.MethodPost, n.chatOf("demo"), hello("up-ok")) })
		both.Go(func() {
			time.Sleep(time.Duration(i%15) * 400 * time.Microsecond)
			_, _ = n.root.Do(t.Context(), http.MethodPost, "auth/token/revoke", map[string]any{"token": token})
		})
		both.Wait()
		if !n.endsSoon(t, c) {
			left++
		}
	}
	if left > 0 {
		t.Errorf("of the tokens that were revoked while they were asked about, %d are let in still", left)
	}
}

// endsSoon says whether the grant ends within 2 s.
func (n *revocationTests) endsSoon(t *testing.T, c granted) bool {
	t.Helper()
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if n.ask(t, c).Status != http.StatusOK {
			return true
		}
	}
	return false
}

// underLoad: a token that is in use all the time ends, too.
func (n *revocationTests) underLoad(t *testing.T) {
	var took []time.Duration
	for range rounds(5, 50) {
		c := n.grant(t, n.create(t, nil))
		var last atomic.Int64 // when the last was sent that was let in, in ns
		var all sync.WaitGroup
		end := time.Now().Add(patience) // of a token that isn't refused
		for range 8 {
			all.Go(func() {
				for refused := 0; refused < 10 && time.Now().Before(end); {
					sent := time.Now().UnixNano()
					resp, err := c.at.Do(t.Context(), http.MethodPost, n.chatOf("demo"), hello("up-ok"))
					if err != nil || resp.Status != http.StatusOK {
						refused++
						continue
					}
					last.Store(max(last.Load(), sent)) // a few ns either way don't matter
				}
			})
		}
		time.Sleep(100 * time.Millisecond)
		n.root.Write(t, "auth/token/revoke", map[string]any{"token": c.token})
		revoked := time.Now().UnixNano()
		all.Wait()
		took = append(took, time.Duration(max(last.Load()-revoked, 0)))
	}
	slices.Sort(took)
	t.Logf("requests were let in for up to %s after Vault's answer to the revocation, half the time %s", took[len(took)-1], took[len(took)/2])
	if took[len(took)-1] > 10*time.Second {
		t.Errorf("a token is let in %s after its revocation", took[len(took)-1])
	}
}

// TestGateway_ShortLeasesBreakNothing: the mount's max_lease_ttl cuts sentinel
// leases to 2 s, and their end is no one's loss.
func TestGateway_ShortLeasesBreakNothing(t *testing.T) {
	g := startGateway(t, gatewayOptions{tune: map[string]any{"default_lease_ttl": "2s", "max_lease_ttl": "2s"}})
	n := &revocationTests{gatewayRig: g, addresses: &sources{}}
	n.role(t, "demo", nil)
	n.token(t, "demo") // for its policy
	c := n.grant(t, n.create(t, nil))
	for end := time.Now().Add(7 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		wantCompletion(t, n.ask(t, c))
	}
	if asked := len(n.asks(t, n.mount+"/proxy/demo/")); asked < 3 || asked > 12 {
		t.Errorf("in 7 s of leases of 2 s Vault was asked %d times", asked)
	}
	n.wantEnd(t, c, n.write(t, "auth/token/revoke", map[string]any{"token": c.token}))
}

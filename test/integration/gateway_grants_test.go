// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/test/vaulttest"
)

// TestGateway_AsksVaultOncePerGrant: how often Vault is asked shows in its audit
// log, and its leases are few. A token's first grant may be asked for twice, so
// that one that is kept was given when the token's lease was there already.
func TestGateway_AsksVaultOncePerGrant(t *testing.T) {
	n := &grantTests{startGateway(t, gatewayOptions{})}
	t.Run("HundredRequestsAreOneQuestion", n.hundred)
	t.Run("HundredAtOnceAreOneQuestion", n.atOnce)
	t.Run("AnotherQuestionIsAsked", n.others)
	t.Run("OneLeasePerTokenWhateverItAsks", n.leases)
	t.Run("TTLZeroAsksEveryTimeAndTakesNoLease", n.always)
	t.Run("OverAfterItsTTL", n.over)
	t.Run("ChangedPolicyTakesEffectWithinTheTTL", n.changedPolicy)
	t.Run("DisabledEntityIsRefusedWithinTheTTL", n.disabledEntity)
	t.Run("UseLimitCountsGrants", n.uses)
}

type grantTests struct{ *gatewayRig }

// during counts the questions on the virtual key that Vault was asked while f runs.
func (n *grantTests) during(t *testing.T, role string, f func()) int {
	t.Helper()
	prefix := n.mount + "/proxy/" + role + "/"
	before := len(n.asks(t, prefix))
	f()
	return len(n.asks(t, prefix)) - before
}

// leasesBelow counts the leases of the mount's proxy path.
func (n *grantTests) leasesBelow(t *testing.T, path string) int {
	t.Helper()
	count := 0
	for _, key := range n.root.List(t, "sys/leases/lookup/"+path) {
		if strings.HasSuffix(key, "/") {
			count += n.leasesBelow(t, path+key)
		} else {
			count++
		}
	}
	return count
}

func (n *grantTests) hundred(t *testing.T) {
	n.role(t, "hundred", nil)
	c := n.atGateway(t, n.token(t, "hundred"))
	asked := n.during(t, "hundred", func() {
		for i := range 100 {
			body := hello("up-ok")
			body["messages"].([]any)[0].(map[string]any)["content"] = fmt.Sprint("Hi ", i)
			wantCompletion(t, post(t, c, n.chatOf("hundred"), body))
		}
	})
	if asked < 1 || asked > 2 {
		t.Errorf("for 100 requests Vault was asked %d times", asked)
	}
}

func (n *grantTests) atOnce(t *testing.T) {
	n.role(t, "at-once", nil)
	c := n.atGateway(t, n.token(t, "at-once"))
	asked := n.during(t, "at-once", func() {
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				resp, err := c.Do(t.Context(), http.MethodPost, n.chatOf("at-once"), hello("up-ok"))
				if err != nil || resp.Status != http.StatusOK {
					t.Errorf("%v, %v", resp, err)
				}
			})
		}
		all.Wait()
	})
	if asked < 1 || asked > 2 {
		t.Errorf("for 100 requests at once Vault was asked %d times", asked)
	}
}

// others: a grant is for one token, address, method, path, model and values.
func (n *grantTests) others(t *testing.T) {
	n.role(t, "others", nil)
	token, second := n.token(t, "others"), n.token(t, "others")
	home := caller{n.gatewayRig, "127.0.0.1", token}
	// What the provider makes of the request doesn't matter here.
	ask := func(c caller, e errand) func() {
		return func() {
			if resp := c.samePath(t, "others", e.complete()); resp.Status == http.StatusForbidden {
				t.Errorf("the answer is %s", resp)
			}
		}
	}
	for range 2 {
		ask(home, chatWith(map[string]any{"user": "a"}))()
		ask(caller{n.gatewayRig, "127.0.0.1", second}, errand{})()
	}
	for name, question := range map[string]func(){
		"Token":     ask(caller{n.gatewayRig, "127.0.0.1", second}, chatWith(map[string]any{"user": "a"})),
		"Address":   ask(caller{n.gatewayRig, "127.0.0.2", token}, chatWith(map[string]any{"user": "a"})),
		"Path":      ask(home, errand{path: "v1/completions", body: with(hello("up-ok"), map[string]any{"user": "a"})}),
		"Method":    ask(home, errand{method: http.MethodGet, path: "v1/models"}),
		"Query":     ask(home, errand{method: http.MethodGet, path: "v1/models?limit=3"}),
		"Model":     ask(home, errand{body: with(hello("up-echo"), map[string]any{"user": "a"})}),
		"Value":     ask(home, chatWith(map[string]any{"user": "b"})),
		"TypeOfIt":  ask(home, chatWith(map[string]any{"user": nil})),
		"FieldMore": ask(home, chatWith(map[string]any{"user": "a", "seed": 1})),
		"FieldLess": ask(home, errand{}),
	} {
		for i, want := range []int{1, 0} {
			if asked := n.during(t, "others", question); asked != want {
				t.Errorf("%s, time %d: Vault was asked %d times, expected %d", name, i+1, asked, want)
			}
		}
	}
	if asked := n.during(t, "others", ask(home, chatWith(map[string]any{"user": "a"}))); asked != 0 {
		t.Error("the first grant is gone")
	}
	// It may read this, and not delete it.
	wantError(t, home.samePath(t, "others", errand{method: http.MethodDelete, path: "v1/models"}), http.StatusForbidden, "permission_denied")
}

func (n *grantTests) leases(t *testing.T) {
	n.role(t, "leases", nil)
	n.role(t, "leases-2", nil)
	before := n.leasesBelow(t, n.mount+"/")
	tokens := []string{n.token(t, "leases", "leases-2"), n.token(t, "leases", "leases-2")}
	for i := range 10 {
		for _, token := range tokens {
			for _, role := range []string{"leases", "leases-2"} {
				c := n.atGateway(t, token)
				wantCompletion(t, post(t, c, n.chatOf(role), with(hello("up-ok"), map[string]any{"seed": i})))
				wantStatus(t, do(t, c, http.MethodGet, proxyPath(n.mount, role, fmt.Sprint("v1/models?limit=", i)), nil), http.StatusOK)
			}
		}
	}
	if got := n.leasesBelow(t, n.mount+"/") - before; got != len(tokens) {
		t.Errorf("%d tokens hold %d leases", len(tokens), got)
	}
}

func (n *grantTests) always(t *testing.T) {
	n.open(t, map[string]any{"grant_ttl": 0})
	defer n.open(t, map[string]any{"grant_ttl": 60})
	n.role(t, "always", nil)
	before := n.leasesBelow(t, n.mount+"/")
	token := n.token(t, "always")
	c := n.atGateway(t, token)
	asked := n.during(t, "always", func() {
		for range 20 {
			wantCompletion(t, post(t, c, n.chatOf("always"), hello("up-ok")))
		}
	})
	if asked != 20 {
		t.Errorf("for 20 requests Vault was asked %d times", asked)
	}
	if got := n.leasesBelow(t, n.mount+"/") - before; got != 0 {
		t.Errorf("there are %d leases", got)
	}
	n.root.Write(t, "auth/token/revoke", map[string]any{"token": token})
	unasked(t, n.up, func() {
		wantError(t, post(t, c, n.chatOf("always"), hello("up-ok")), http.StatusForbidden, "permission_denied")
	})
}

func (n *grantTests) over(t *testing.T) {
	n.open(t, map[string]any{"grant_ttl": 1})
	defer n.open(t, map[string]any{"grant_ttl": 60})
	n.role(t, "over", nil)
	c := n.atGateway(t, n.token(t, "over"))
	for i := range 3 {
		asked := n.during(t, "over", func() { wantCompletion(t, post(t, c, n.chatOf("over"), hello("up-ok"))) })
		if asked != 1 {
			t.Errorf("request %d: Vault was asked %d times", i+1, asked)
		}
		time.Sleep(1100 * time.Millisecond)
	}
	if got := n.leasesBelow(t, n.mount+"/proxy/over/"); got != 1 {
		t.Errorf("three grants of a token hold %d leases", got)
	}
}

// wantChange fails the test unless a change turns the answer to that status within
// the TTL, which is 1 s. A slow machine gets more.
func (n *grantTests) wantChange(t *testing.T, role, token string, status int, change func()) {
	t.Helper()
	c := n.atGateway(t, token)
	ask := func() int { return post(t, c, n.chatOf(role), hello("up-ok")).Status }
	before := ask()
	ask() // for a grant that is kept
	change()
	changed := time.Now()
	eventually(t, "the change to take effect", func() bool { return ask() != before })
	took := time.Since(changed)
	t.Logf("it took %d ms", took.Milliseconds())
	if got := ask(); got != status || took > 6*time.Second {
		t.Errorf("after %s the status is %d, expected %d within the TTL", took, got, status)
	}
}

func (n *grantTests) changedPolicy(t *testing.T) {
	n.open(t, map[string]any{"grant_ttl": 1})
	defer n.open(t, map[string]any{"grant_ttl": 60})
	n.role(t, "changed", nil)
	token := n.token(t, "changed")
	allowed := policyFile(t, "app.hcl", n.mount, "changed")
	n.wantChange(t, "changed", token, http.StatusForbidden, func() { n.vault.Policy(t, "app-changed", `path "a" { capabilities = ["read"] }`) })
	n.wantChange(t, "changed", token, http.StatusOK, func() { n.vault.Policy(t, "app-changed", allowed) })
	n.wantChange(t, "changed", token, http.StatusForbidden, func() { n.root.Delete(t, "sys/policies/acl/app-changed") })
}

func (n *grantTests) disabledEntity(t *testing.T) {
	n.open(t, map[string]any{"grant_ttl": 1})
	defer n.open(t, map[string]any{"grant_ttl": 60})
	n.role(t, "entity", nil)
	n.token(t, "entity") // for its policy
	login := n.vault.Userpass(t, "somebody", "app-entity")
	set := func(disabled bool) func() {
		return func() {
			n.root.Write(t, "identity/entity/id/"+login.EntityID, map[string]any{"disabled": disabled})
		}
	}
	n.wantChange(t, "entity", login.Token, http.StatusForbidden, set(true))
	n.wantChange(t, "entity", login.Token, http.StatusOK, set(false))
}

// uses: a token of n uses makes n grants; whose first is its last can't have one
// that is kept.
func (n *grantTests) uses(t *testing.T) {
	n.role(t, "uses", nil)
	n.token(t, "uses") // for its policy
	addresses := &sources{n: 1000}
	ask := func(token string) *vaulttest.Response {
		c := caller{n.gatewayRig, addresses.next(), token}
		return c.samePath(t, "uses", errand{}.complete())
	}
	newUses := func(uses int) string {
		return tokenBy("create", map[string]any{"num_uses": uses})(t, n.gatewayRig, "app-uses")
	}

	once := newUses(1)
	unasked(t, n.up, func() {
		wantError(t, ask(once), http.StatusForbidden, "permission_denied", "last use", "Vault's own address")
	})
	n.open(t, map[string]any{"grant_ttl": 0})
	wantCompletion(t, ask(newUses(1))) // no lease, and so no reason to refuse
	n.open(t, map[string]any{"grant_ttl": 60})

	tally := map[string]int{}
	for range 10 {
		for uses := 2; uses <= 4; uses++ {
			token, granted := newUses(uses), 0
			for range uses + 2 {
				if ask(token).Status == http.StatusOK {
					granted++
				}
			}
			if tally[fmt.Sprintf("%d of %d", granted, uses)]++; granted != uses {
				t.Errorf("a token of %d uses made %d grants", uses, granted)
			}
		}
	}
	t.Log(tally)
}

// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/test/vaulttest"
)

// TestGateway_NonceCountsOnceForOneRequest has a tap between gateway and Vault do
// what an attacker would like to.
func TestGateway_NonceCountsOnceForOneRequest(t *testing.T) {
	g := startGateway(t, gatewayOptions{})
	n := &nonceTests{gatewayRig: g, tap: startTap(t, g, nil), addresses: &sources{}}
	for _, role := range []string{"mine", "other"} {
		g.role(t, role, nil)
	}
	n.token = g.token(t, "mine", "other")
	t.Run("ReplayedIsRefused", n.replayed)
	t.Run("GuessedIsRefused", n.guessed)
	t.Run("ForAnotherRequestIsRefused", n.changed)
	t.Run("UsedAtOnceCountsOnce", n.atOnce)
	t.Run("UsedByAnotherFirstGrantsNothing", n.overtaken)
	t.Run("OfACallerIsRefusedAtEveryDoor", n.callersOwn)
	t.Run("AnswersThatAreNotVaultsGrantNothing", n.answers)
	t.Run("ExpiredIsRefused", n.expired)
}

// nonceTests share a gateway behind a tap.
type nonceTests struct {
	*gatewayRig
	tap       *tap
	token     string
	addresses *sources
}

// ask asks for a completion at the gateway, as a caller of whom nothing is known.
func (n *nonceTests) ask(t *testing.T) *vaulttest.Response {
	t.Helper()
	return post(t, from(t, n.addresses.next(), n.url, n.token), n.chatOf("mine"), hello("up-ok"))
}

// wantNoGrant fails the test unless the gateway refuses with that status and code
// while the tap does something, and grants nothing by it.
func (n *nonceTests) wantNoGrant(t *testing.T, status int, code string, act func(w http.ResponseWriter, q tapped)) {
	t.Helper()
	n.tap.meddle(act)
	defer n.tap.meddle(nil)
	c := from(t, n.addresses.next(), n.url, n.token)
	unasked(t, n.up, func() {
		wantError(t, post(t, c, n.chatOf("mine"), hello("up-ok")), status, code)
		n.tap.meddle(func(http.ResponseWriter, tapped) { panic(http.ErrAbortHandler) })
		if resp := post(t, c, n.chatOf("mine"), hello("up-ok")); resp.Status == http.StatusOK {
			t.Errorf("it is let in later, without Vault's word: %s", resp)
		}
	})
}

func sendTapped(t *testing.T, q tapped, to string) *vaulttest.Response {
	t.Helper()
	resp, err := q.send(to)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func (n *nonceTests) replayed(t *testing.T) {
	wantCompletion(t, n.ask(t))
	posted := n.tap.last(t)
	c := from(t, n.addresses.next(), n.url, n.token)
	wantStatus(t, do(t, c, http.MethodGet, proxyPath(n.mount, "mine", "v1/models"), nil), http.StatusOK)
	got := n.tap.last(t)
	unasked(t, n.up, func() {
		for range 3 {
			for _, q := range []tapped{posted, got} {
				wantError(t, sendTapped(t, q, n.believing), http.StatusForbidden, "gateway_nonce_invalid")
			}
			wantError(t, sendTapped(t, posted.with(map[string]any{"stream": true}), n.believing), http.StatusForbidden, "gateway_nonce_invalid")
		}
	})
}

func (n *nonceTests) guessed(t *testing.T) {
	wantCompletion(t, n.ask(t))
	q := n.tap.last(t)
	nonce := q.nonce()
	unasked(t, n.up, func() {
		for _, guess := range []any{
			strings.Repeat("A", len(nonce)), nonce[1:] + nonce[:1], nonce[:len(nonce)-1], nonce + "A", strings.ToUpper(nonce),
			"", "*", true, 0, []any{nonce}, map[string]any{}, strings.Repeat("A", 1<<19),
		} {
			wantError(t, sendTapped(t, q.with(map[string]any{"gateway_nonce": guess}), n.believing), http.StatusForbidden, "gateway_nonce_invalid")
		}
		null := q
		null.body = []byte(strings.Replace(string(q.body), `"`+nonce+`"`, "null", 1))
		wantError(t, sendTapped(t, null, n.believing), http.StatusForbidden, "gateway_nonce_invalid")
	})
}

// changed: the nonce arrives at Vault with another request than it was made for.
func (n *nonceTests) changed(t *testing.T) {
	inQuery := func(q tapped, method string) tapped {
		q.method, q.uri, q.body = method, q.uri+"?gateway_nonce="+url.QueryEscape(q.nonce()), nil
		return q
	}
	for name, change := range map[string]func(q tapped) tapped{
		"Model":       func(q tapped) tapped { return q.with(map[string]any{"model": "up-echo"}) },
		"FieldMore":   func(q tapped) tapped { return q.with(map[string]any{"user": "u"}) },
		"FieldLess":   func(q tapped) tapped { return q.with(map[string]any{"model": nil}) },
		"FieldFilled": func(q tapped) tapped { return q.with(map[string]any{"messages": []any{}}) },
		"Role":        func(q tapped) tapped { return q.at("POST", "proxy/mine", "proxy/other") },
		"Path":        func(q tapped) tapped { return q.at("POST", "chat/completions", "completions") },
		"Get":         func(q tapped) tapped { return inQuery(q, "GET") },
		"Delete": func(q tapped) tapped {
			q.header.Set("X-Vault-Token", n.vault.RootToken) // the other may not delete
			return inQuery(q, "DELETE")
		},
	} {
		t.Run(name, func(t *testing.T) {
			n.wantNoGrant(t, http.StatusForbidden, "gateway_nonce_invalid", func(w http.ResponseWriter, q tapped) { n.tap.pass(w, change(q)) })
			// Nor if the gateway is told that all went well.
			n.wantNoGrant(t, http.StatusForbidden, "gateway_nonce_invalid", func(w http.ResponseWriter, q tapped) {
				_, _ = change(q).send(n.believing)
				w.WriteHeader(http.StatusOK)
			})
		})
	}
	// A GET and a DELETE differ in their method alone.
	n.tap.meddle(func(w http.ResponseWriter, q tapped) {
		q.method = http.MethodDelete
		q.header.Set("X-Vault-Token", n.vault.RootToken)
		n.tap.pass(w, q)
	})
	unasked(t, n.up, func() {
		c := from(t, n.addresses.next(), n.url, n.token)
		wantError(t, do(t, c, http.MethodGet, proxyPath(n.mount, "mine", "v1/models"), nil), http.StatusForbidden, "gateway_nonce_invalid")
	})
	n.wantNoGrant(t, http.StatusForbidden, "caller_address_unknown", func(w http.ResponseWriter, q tapped) {
		q.header.Set("X-Forwarded-For", "127.200.0.1")
		n.tap.pass(w, q)
	})
}

// atOnce: of 32 who bring the same nonce at the same time, one is heard.
func (n *nonceTests) atOnce(t *testing.T) {
	for range rounds(5, 100) {
		var accepted, refused atomic.Int64
		n.tap.meddle(func(w http.ResponseWriter, q tapped) {
			answers := make(chan *vaulttest.Response, 32)
			var all sync.WaitGroup
			for range cap(answers) {
				all.Go(func() {
					resp, err := q.send(n.believing)
					switch {
					case err != nil:
					case resp.Status == http.StatusOK:
						accepted.Add(1)
						answers <- resp
					case resp.Status == http.StatusForbidden && strings.Contains(resp.String(), "gateway_nonce_invalid"):
						refused.Add(1)
					}
				})
			}
			all.Wait()
			answer(w, <-answers)
		})
		wantCompletion(t, n.ask(t))
		if accepted.Load() != 1 || refused.Load() != 31 {
			t.Fatalf("of 32 that brought one nonce, %d were accepted and %d refused", accepted.Load(), refused.Load())
		}
	}
	n.tap.meddle(nil)
}

// overtaken: someone else brings the nonce to Vault before the gateway does.
func (n *nonceTests) overtaken(t *testing.T) {
	thief := n.vault.Token(t, "app-mine")
	n.wantNoGrant(t, http.StatusForbidden, "permission_denied", func(w http.ResponseWriter, q tapped) {
		stolen := q
		stolen.header = q.header.Clone()
		stolen.header.Set("X-Vault-Token", thief)
		if resp, err := stolen.send(n.believing); err != nil || resp.Status != http.StatusOK {
			t.Errorf("the thief got %s, %v", resp, err)
		}
		n.tap.pass(w, q)
	})
}

// callersOwn: a caller's request has no nonce, whoever made it.
func (n *nonceTests) callersOwn(t *testing.T) {
	body := with(hello("up-ok"), map[string]any{"gateway_nonce": "a-nonce"})
	for _, d := range doors() {
		t.Run(d.name, func(t *testing.T) {
			n.open(t, map[string]any{"vault_address": n.tap.url, "redirect": d.redirect})
			unasked(t, n.up, func() {
				for _, e := range []errand{
					{body: body}, {body: streamed(body)},
					{method: http.MethodGet, path: "v1/models?gateway_nonce=a-nonce"},
					{method: http.MethodDelete, path: "v1/models/up-ok?gateway_nonce=a-nonce"},
				} {
					c := caller{n.gatewayRig, n.addresses.next(), n.vault.RootToken}
					wantError(t, d.send(c, t, "mine", e.complete()), http.StatusForbidden, "gateway_nonce_invalid")
				}
			})
		})
	}
	n.open(t, map[string]any{"vault_address": n.tap.url})
}

// answers: what comes from vault_address isn't Vault's word without the plugin's.
func (n *nonceTests) answers(t *testing.T) {
	var strayed atomic.Int64
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { strayed.Add(1) }))
	defer elsewhere.Close()
	status := func(status int) func(w http.ResponseWriter, q tapped) {
		return func(w http.ResponseWriter, _ tapped) {
			w.Header().Set("Location", elsewhere.URL+"/v1/sys/health")
			w.WriteHeader(status)
			_, _ = w.Write([]byte(`{"data":{"granted":true}}`))
		}
	}
	for _, code := range []int{200, 201, 204, 301, 302, 307, 308, 500, 503} {
		t.Run(fmt.Sprintf("Status%d", code), func(t *testing.T) {
			n.wantNoGrant(t, http.StatusServiceUnavailable, "vault_unavailable", status(code))
		})
	}
	n.wantNoGrant(t, http.StatusBadRequest, "invalid_request", status(http.StatusNotFound))
	n.wantNoGrant(t, http.StatusServiceUnavailable, "vault_unavailable", func(http.ResponseWriter, tapped) { panic(http.ErrAbortHandler) })
	if strayed.Load() != 0 {
		t.Errorf("the gateway followed %d redirects", strayed.Load())
	}
	// Vault said yes, and its answer didn't arrive as such.
	for _, code := range []int{403, 500} {
		n.tap.meddle(func(w http.ResponseWriter, q tapped) { _, _ = q.send(n.believing); w.WriteHeader(code) })
		unasked(t, n.up, func() {
			if resp := n.ask(t); resp.Status != code && resp.Status != http.StatusServiceUnavailable {
				t.Errorf("after Vault's %d: %s", code, resp)
			}
		})
		n.tap.meddle(nil)
	}
	// Something between the two gave up, and Vault says yes later.
	n.wantNoGrant(t, http.StatusServiceUnavailable, "vault_unavailable", func(w http.ResponseWriter, q tapped) {
		go func() { _, _ = q.send(n.believing) }()
		w.WriteHeader(http.StatusGatewayTimeout)
	})
	// A slow answer is one still.
	n.tap.meddle(func(w http.ResponseWriter, q tapped) { time.Sleep(2 * time.Second); n.tap.pass(w, q) })
	wantCompletion(t, n.ask(t))
	n.tap.meddle(nil)
}

// expired: the gateway stops waiting for Vault, and the nonce counts no more.
func (n *nonceTests) expired(t *testing.T) {
	asked := make(chan tapped, 1)
	release := make(chan struct{})
	let := sync.OnceFunc(func() { close(release) })
	defer let()
	n.tap.meddle(func(_ http.ResponseWriter, q tapped) { asked <- q; <-release; panic(http.ErrAbortHandler) })
	unasked(t, n.up, func() {
		wantError(t, n.ask(t), http.StatusServiceUnavailable, "vault_unavailable")
		wantError(t, sendTapped(t, <-asked, n.believing), http.StatusForbidden, "gateway_nonce_invalid")
	})
	let()
	n.tap.meddle(nil)
	wantCompletion(t, n.ask(t))
}

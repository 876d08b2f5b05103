// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"vault-plugin-secrets-portkey/test/upstream"
)

// fewHeaders are all that the provider may get of a usual request.
var fewHeaders = []string{"Accept", "Accept-Encoding", "Accept-Language", "Authorization", "Content-Length", "Content-Type", "User-Agent"}

// wantFewHeaders fails the test if the provider got a header that it shouldn't, or its
// own key not at all.
func (a *attacked) wantFewHeaders(t *testing.T, what string, r upstream.Request) {
	t.Helper()
	for name, values := range r.Header {
		if !slices.Contains(fewHeaders, name) || len(values) != 1 {
			t.Errorf("%s: the provider got the header %s: %q", what, name, values)
		}
	}
	if !strings.HasPrefix(r.Key, a.marker) {
		t.Errorf("%s: the provider got the key %q", what, r.Key)
	}
}

// headers bring line breaks and NULs to where the gateway might repeat them.
func (a *attacked) headers(t *testing.T) {
	for _, b := range []string{"\r", "\n X: y\r", "\x00", "\x01", "\x7f", "\v"} {
		for _, name := range []string{"X-Portkey-Virtual-Key", "User-Agent", "Accept", "X-Portkey-Provider", "Content-Type", "X-Client-Request-Id", "X-Vault-Token"} {
			text := strings.Replace(a.usual(), "\r\n", fmt.Sprintf("\r\n%s: open%sInjected: yes\r\n", name, b), 1)
			a.reached(t, 0, func() {
				if answers, _ := a.raw(t, text); len(answers) != 1 || answers[0].status < 400 || answers[0].status > 499 {
					t.Errorf("%s with %q: %v", name, b, answers)
				}
			})
		}
	}
	for name, c := range map[string]struct {
		text   string
		served int
	}{
		"a role in the path":      {a.line("GET", "/v1/"+a.mount+"/proxy/open%0d%0aInjected:%20yes/v1/models"), 0},
		"a role in a header":      {a.line("GET", "/v1/models", "X-Portkey-Virtual-Key: open%0d%0aInjected:%20yes"), 0},
		"a role, folded":          {a.line("GET", "/v1/models", "X-Portkey-Virtual-Key: open\r\n Injected: yes"), 0},
		"a role in the model":     {a.posting("/v1/chat/completions", `{"model":"@open\r\nInjected: yes/up-ok","messages":[]}`), 0},
		"a role in a config":      {a.line("GET", "/v1/models", `X-Portkey-Config: {"virtual_key":"open\r\nInjected: yes"}`), 0},
		"the model":               {a.posting(a.chatAt("open"), `{"model":"up-ok\r\nInjected: yes","messages":[]}`), 1},
		"the model, line breaks":  {a.posting(a.chatAt("open"), `{"model":"up-404\u2028\u0085\u0000Injected: yes","messages":[]}`), 1},
		"the query":               {a.line("GET", "/v1/"+a.mount+"/proxy/open/v1/models?a=%0d%0aInjected:%20yes"), 1},
		"a browser's origin":      {a.usual("Origin: https://evil.example.com%0d%0aInjected: yes"), 1},
		"a header with tabs":      {a.usual("User-Agent: a\tInjected: yes"), 1},
		"what isn't ASCII":        {a.usual("User-Agent: caf\xe9 \xe2\x80\xa8Injected: yes"), 1},
		"names with underscores":  {a.usual("X_Vault_Token: x", "Content_Length: 1", "Injected_: yes"), 1},
		"a provider's own header": {a.usual("Injected: yes", "X-Upstream-Echo: yes", "Cookie: a=b", "Proxy-Authorization: Basic eDp5", "Api-Key: placeholder"), 1},
	} {
		got := a.reached(t, c.served, func() {
			answers, _ := a.raw(t, c.text)
			if len(answers) != 1 {
				t.Fatalf("%s: %v", name, answers)
			}
			if answers[0].header.Get("Injected") != "" || answers[0].status >= 500 {
				t.Errorf("%s: the answer is %v", name, answers[0])
			}
		})
		for _, r := range got {
			a.wantFewHeaders(t, name, r)
		}
	}
	a.serves(t)
}

// posting is a request with this body.
func (a *attacked) posting(target, body string, more ...string) string {
	return a.line("POST", target, append(more, "Content-Type: application/json", fmt.Sprintf("Content-Length: %d", len(body)))...) + body
}

// oversize sends more headers than fit.
func (a *attacked) oversize(t *testing.T) {
	var many []string
	for i := range 5000 {
		many = append(many, fmt.Sprintf("X-Header-%d: a-value-of-some-length", i))
	}
	for name, c := range map[string]struct {
		text   string
		status int
	}{
		"one":            {a.usual("X: " + strings.Repeat("a", 128<<10)), 431},
		"many":           {a.usual(many...), 431},
		"a name":         {a.usual(strings.Repeat("a", 128<<10) + ": x"), 431},
		"the path":       {a.line("GET", "/v1/models/"+strings.Repeat("a", 128<<10)), 431},
		"a longish path": {a.line("GET", "/v1/models/"+strings.Repeat("a", 8<<10)), 414},
		"the token":      {strings.Replace(a.usual(), a.token, strings.Repeat("a", 32<<10), 1), 401},
		"the role":       {a.line("GET", "/v1/models", "X-Portkey-Virtual-Key: "+strings.Repeat("a", 32<<10)), 404},
	} {
		a.reached(t, 0, func() {
			if answers, _ := a.raw(t, c.text); len(answers) != 1 || answers[0].status != c.status || len(answers[0].body) > 4096 {
				t.Errorf("%s: %.300v, want %d", name, answers, c.status)
			}
		})
	}
	a.reached(t, 1, func() {
		if answers, _ := a.raw(t, a.usual("X: "+strings.Repeat("a", 30<<10))); len(answers) != 1 || answers[0].status != 200 {
			t.Errorf("one that fits: %.300v", answers)
		}
	})
	a.serves(t)
}

// connectionListed names, as headers of the connection alone, those that the gateway
// itself needs to send on.
func (a *attacked) connectionListed(t *testing.T) {
	all := "Authorization, Content-Type, Content-Length, Accept, User-Agent, Host, X-Vault-Token, X-Forwarded-For, X-Portkey-Virtual-Key, X-Vault-Namespace, Transfer-Encoding"
	for i, connection := range []string{all, "close, " + all, "keep-alive", "Authorization", "X-Forwarded-For, close"} {
		// A body that no grant covers yet, so that Vault is asked.
		body := fmt.Sprintf(`{"model":"up-ok","user":"connection-%d","messages":[{"role":"user","content":"Hi."}]}`, i)
		before := len(a.asks(t, a.mount+"/proxy/open/v1/chat/completions"))
		got := a.reached(t, 1, func() {
			answers, _ := a.raw(t, a.posting(a.chatAt("open"), body, "Connection: "+connection, "Keep-Alive: timeout=1", "Te: trailers", "Proxy-Connection: X-Vault-Token"))
			if len(answers) != 1 || answers[0].status != http.StatusOK {
				t.Errorf("%q: %v", connection, answers)
			}
		})
		for _, r := range got {
			a.wantFewHeaders(t, connection, r)
			if r.Header.Get("Content-Type") != "application/json" || string(r.Body) != body {
				t.Errorf("%q: the provider got %q as %q", connection, r.Body, r.Header.Get("Content-Type"))
			}
		}
		asked := a.asks(t, a.mount+"/proxy/open/v1/chat/completions")
		if len(asked) != before+1 || asked[before].Request.Remote != "127.0.0.1" {
			t.Errorf("%q: Vault was asked %d times", connection, len(asked)-before)
		}
	}
	a.serves(t)
}

// trailers bring, behind the body, what decides who may do what.
func (a *attacked) trailers(t *testing.T) {
	chunks := fmt.Sprintf("%x\r\n%s\r\n0\r\n", len(usualBody), usualBody)
	trailer := "X-Vault-Token: " + a.token + "\r\nAuthorization: Bearer " + a.token + "\r\nX-Portkey-Virtual-Key: shut\r\nX-Portkey-Provider: @shut\r\n" +
		"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\nHost: other\r\nModel: other\r\n\r\n"
	announced := "Trailer: X-Vault-Token, Authorization, X-Portkey-Virtual-Key, X-Portkey-Provider, Content-Type, Model"
	for _, headers := range []string{"Transfer-Encoding: chunked", "Transfer-Encoding: chunked\r\n" + announced} {
		text := strings.Replace(a.line("POST", a.chatAt("open"), headers), "X-Vault-Token", "X-None", 1) + chunks + trailer
		a.reached(t, 0, func() {
			if answers, _ := a.raw(t, text); len(answers) == 0 || answers[0].status < 400 || answers[0].status > 499 {
				t.Errorf("the trailer's credential was taken: %v", answers)
			}
		})
		for _, target := range []string{a.chatAt("open"), "/v1/chat/completions"} {
			before := a.up.Received()
			answers, _ := a.raw(t, a.line("POST", target, headers, "X-Portkey-Virtual-Key: open")+chunks+trailer)
			if len(answers) == 0 {
				t.Fatal("there was no answer")
			}
			if n := a.up.Received() - before; n > 1 || (n == 1) != (answers[0].status == 200) {
				t.Errorf("%d requests reached the provider: %v", n, answers)
			} else if n == 1 {
				a.wantFewHeaders(t, "trailers", lastRequest(t, a.up))
			}
		}
	}
	a.serves(t)
}

// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"vault-plugin-secrets-portkey/test/vaulttest"
)

// tap stands between the gateway and Vault: it sees what passes, and may do
// something else with it. It is safe for concurrent use.
type tap struct {
	url string
	to  string // Vault's listener that believes X-Forwarded-For

	mu   sync.Mutex
	seen []tapped
	act  func(w http.ResponseWriter, p tapped) // nil passes it on
}

// tapped is a question on its way to Vault.
type tapped struct {
	method, uri string
	header      http.Header
	body        []byte
}

// startTap starts a tap before Vault, and has the gateway ask there.
func startTap(t *testing.T, g *gatewayRig, settings map[string]any) *tap {
	t.Helper()
	p := &tap{to: g.believing}
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	p.url = server.URL
	g.open(t, with(map[string]any{"vault_address": p.url}, settings))
	return p
}

// ServeHTTP implements http.Handler.
func (p *tap) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	q := tapped{r.Method, r.URL.RequestURI(), r.Header.Clone(), body}
	p.mu.Lock()
	p.seen = append(p.seen, q)
	act := p.act
	p.mu.Unlock()
	if act == nil {
		p.pass(w, q)
	} else {
		act(w, q)
	}
}

// meddle has the tap do something else with questions from now on; nil passes
// them on again. act may be called by many goroutines.
func (p *tap) meddle(act func(w http.ResponseWriter, q tapped)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.act = act
}

// count is how many questions there were.
func (p *tap) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.seen)
}

// last is the latest question.
func (p *tap) last(t *testing.T) tapped {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.seen) == 0 {
		t.Fatal("the gateway has asked nothing")
	}
	return p.seen[len(p.seen)-1]
}

// pass passes a question on to Vault, and the answer back.
func (p *tap) pass(w http.ResponseWriter, q tapped) {
	resp, err := q.send(p.to)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	answer(w, resp)
}

func answer(w http.ResponseWriter, resp *vaulttest.Response) {
	w.Header().Set("Content-Type", resp.Header.Get("Content-Type"))
	w.WriteHeader(resp.Status)
	_, _ = w.Write(resp.Body) // the gateway may have gone
}

// send sends a question to Vault at the URL to.
func (q tapped) send(to string) (*vaulttest.Response, error) {
	req, err := http.NewRequest(q.method, to+q.uri, bytes.NewReader(q.body))
	if err != nil {
		return nil, err
	}
	req.Header = q.header.Clone()
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	return &vaulttest.Response{Status: resp.StatusCode, Header: resp.Header, Body: text}, err
}

// fields is the body of a question.
func (q tapped) fields() map[string]any {
	var fields map[string]any
	if json.Unmarshal(q.body, &fields) != nil {
		return map[string]any{}
	}
	return fields
}

// nonce is the question's, wherever it is.
func (q tapped) nonce() string {
	if nonce, ok := q.fields()["gateway_nonce"].(string); ok {
		return nonce
	}
	u, err := url.Parse(q.uri)
	if err != nil {
		return ""
	}
	return u.Query().Get("gateway_nonce")
}

// with is the question with other fields; nil as value takes one out.
func (q tapped) with(fields map[string]any) tapped {
	all := q.fields()
	for name, value := range fields {
		if all[name] = value; value == nil {
			delete(all, name)
		}
	}
	q.body, _ = json.Marshal(all) // it was JSON before
	return q
}

// at is the question at another path below the mount, with another method.
func (q tapped) at(method, from, to string) tapped {
	q.method, q.uri = method, strings.Replace(q.uri, from, to, 1)
	return q
}

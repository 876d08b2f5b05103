// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
)

// fakeProvider keeps what it is sent. It answers with a completion unless it is
// told otherwise.
type fakeProvider struct {
	server *httptest.Server
	mu     sync.Mutex
	got    []sent
	answer http.HandlerFunc
	first  http.HandlerFunc // answers before anything of the body is read
}

// sent is a request that reached the provider.
type sent struct {
	method, path, query, body string
	header                    http.Header
	err                       error // of reading the body
}

const completion = `{"id":"c","model":"gpt-4o","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}`

func newFakeProvider(t testing.TB) *fakeProvider {
	p := &fakeProvider{}
	p.server = httptest.NewServer(http.HandlerFunc(p.serve))
	t.Cleanup(p.server.Close)
	return p
}

func (p *fakeProvider) serve(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	first := p.first
	p.mu.Unlock()
	if first != nil {
		first(w, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	p.mu.Lock()
	p.got = append(p.got, sent{r.Method, r.URL.EscapedPath(), r.URL.RawQuery, string(body), r.Header.Clone(), err})
	answer := p.answer
	p.mu.Unlock()
	if answer != nil {
		answer(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, completion)
}

// answers says what the provider does from now on.
func (p *fakeProvider) answers(f http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = f
}

// early says that the provider does this from now on, and reads no body before.
func (p *fakeProvider) early(f http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.first = f
}

func (p *fakeProvider) requests() []sent {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]sent(nil), p.got...)
}

func (p *fakeProvider) last(t testing.TB) sent {
	t.Helper()
	all := p.requests()
	if len(all) == 0 {
		t.Fatal("nothing reached the provider")
	}
	return all[len(all)-1]
}

// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/internal/apierror"
	"vault-plugin-secrets-portkey/internal/provider"
	"vault-plugin-secrets-portkey/internal/relay"
)

// Where the tests of the gateway's core are: the mount with a slash in its path, the
// path of a chat, and the address of most callers.
const (
	testMount  = "team/portkey/"
	chatPath   = "/v1/" + testMount + "proxy/team-a/v1/chat/completions"
	testSource = "192.0.2.7"
)

// clock is a clock that stands still until it is moved.
type clock struct{ passed atomic.Int64 }

// clockStart is about the real time, by which certificates of these tests are made.
var clockStart = time.Now().Truncate(time.Second)

func (c *clock) now() time.Time          { return clockStart.Add(time.Duration(c.passed.Load())) }
func (c *clock) advance(d time.Duration) { c.passed.Add(int64(d)) }

// rig is a gateway with a Vault, a mount and a provider that a test controls.
type rig struct {
	*Gateway
	clock    *clock
	vault    *fakeVault
	mount    *fakeMount
	provider *fakeProvider
	settings Settings

	relayTransport *http.Transport
}

// newRig turns a gateway on, with settings that change may change. At the test's end
// it holds nothing any more.
func newRig(t testing.TB, change ...func(*Settings)) *rig {
	t.Helper()
	r := &rig{clock: &clock{}, vault: newFakeVault(t), provider: newFakeProvider(t)}
	r.mount = newFakeMount(t, r.provider)
	r.relayTransport = relay.NewTransport(http.DefaultTransport)
	t.Cleanup(r.relayTransport.CloseIdleConnections)
	r.Gateway = New(Options{Mount: r.mount, Relay: relay.New(relay.Options{Transport: r.relayTransport}), Now: r.clock.now})
	r.vault.gateway = r.Gateway
	r.settings = Settings{
		Listen: ListenConfig{Address: "127.0.0.1:0", MaxConnections: 1000}, VaultAddress: r.vault.server.URL, GrantTTL: time.Minute, Redirect: RedirectStream,
		MaxBodyBytes: 1 << 20, MaxStreams: 1000, UpstreamTimeout: 10 * soon, IdleTimeout: soon,
	}
	t.Cleanup(func() { r.finish(t) })
	r.apply(t, change...)
	return r
}

// apply changes the settings.
func (r *rig) apply(t testing.TB, change ...func(*Settings)) {
	t.Helper()
	for _, f := range change {
		f(&r.settings)
	}
	s := r.settings
	if err := r.Apply(&s); err != nil {
		t.Fatal(err)
	}
}

// finish ends the gateway and looks for what was not given back.
func (r *rig) finish(t testing.TB) {
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	r.Close(ctx)
	until(t, "no request is under way", func() bool { return r.calls.count() == 0 })
	r.wantNothingHeld(t, "at the end")
	r.nonces.mu.Lock()
	defer r.nonces.mu.Unlock()
	if n := len(r.nonces.pending); n != 0 {
		t.Errorf("%d nonces are left", n)
	}
}

// wantNothingHeld fails the test if bodies hold anything of their budget.
func (r *rig) wantNothingHeld(t testing.TB, when string) {
	t.Helper()
	b := &r.bodies
	b.mu.Lock()
	defer b.mu.Unlock()
	if used := b.used.Load(); used != 0 || b.strangers != 0 || len(b.sources) != 0 {
		t.Errorf("%s: %d bytes are in use, %d of them by strangers from %v", when, used, b.strangers, b.sources)
	}
}

// reply is what a caller got.
type reply struct {
	status  int
	header  http.Header
	body    string
	code    string // of an error in the gateway's shape
	message string // of that error
	aborted bool   // the connection was broken instead of ended
}

// send hands a request to the gateway as its listener would. It comes from testSource
// unless it says otherwise.
func (r *rig) send(req *http.Request) (got reply) {
	if req.RemoteAddr == httptest.NewRequest("GET", "/", nil).RemoteAddr {
		req.RemoteAddr = testSource + ":4711"
	}
	w := httptest.NewRecorder()
	func() {
		defer func() {
			if v := recover(); v != nil {
				if err, ok := v.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
					panic(v)
				}
				got.aborted = true
			}
		}()
		r.ServeHTTP(w, req)
	}()
	got.status, got.header, got.body = w.Code, w.Result().Header, w.Body.String()
	var e struct {
		Error struct{ Code, Message string }
	}
	if json.Unmarshal(w.Body.Bytes(), &e) == nil {
		got.code, got.message = e.Error.Code, e.Error.Message
	}
	return got
}

// chatRequest is a request with a token, a body of JSON, and further headers as
// pairs of name and value.
func chatRequest(token, body string, headers ...string) *http.Request {
	return request(http.MethodPost, chatPath, token, body, headers...)
}

func request(method, target, token, body string, headers ...string) *http.Request {
	var from io.Reader
	if body != "" {
		from = strings.NewReader(body)
	}
	req := httptest.NewRequest(method, target, from)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	return req
}

// chat asks for a completion.
func (r *rig) chat(token, body string, headers ...string) reply {
	return r.send(chatRequest(token, body, headers...))
}

// hello is the body of most requests.
const hello = `{"model":"gpt-4o","messages":[{"role":"user","content":"Hi."}],"temperature":0.5}`

// fakeMount is a mount whose every virtual key runs on one provider.
type fakeMount struct {
	target *provider.Target

	mu      sync.Mutex
	path    string
	refusal *apierror.Error // of Admits
	leased  map[string]Lease
	cached  map[string]bool // leased keys that were found before
	looked  int             // how often storage was asked for one
	slow    time.Duration   // how long it takes then
	storage *apierror.Error // its answer then
	unknown map[string]bool
	callers []Caller // whom Request and Prompt were called for
	prompts map[string]fakePrompt
	calls   []PromptCall // of prompts
}

// fakePrompt is a prompt template, or the answer for who calls it.
type fakePrompt struct {
	text    string // what it is filled in to
	refusal *apierror.Error
}

var _ Mount = (*fakeMount)(nil)

func newFakeMount(t testing.TB, p *fakeProvider) *fakeMount {
	t.Helper()
	catalogue, err := provider.Load()
	if err != nil {
		t.Fatal(err)
	}
	kind, ok := catalogue.Get("openai-compatible")
	if !ok {
		t.Fatal("the catalogue has no openai-compatible")
	}
	target, err := kind.Resolve(provider.Config{BaseURL: p.server.URL + "/v1", Secret: "sk-a-provider-key"})
	if err != nil {
		t.Fatal(err)
	}
	return &fakeMount{target: target, path: testMount, leased: map[string]Lease{}, cached: map[string]bool{}, unknown: map[string]bool{}}
}

func (m *fakeMount) Path() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.path
}

func (m *fakeMount) Admits(context.Context) *apierror.Error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.refusal
}

func (m *fakeMount) LeasedKey(_ context.Context, key string, lookUp bool) (*Lease, *apierror.Error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !lookUp && !m.cached[key] {
		return nil, nil
	}
	if lookUp {
		m.looked++
		m.mu.Unlock()
		time.Sleep(m.slow)
		m.mu.Lock()
	}
	if m.storage != nil {
		return nil, m.storage
	}
	if l, ok := m.leased[key]; ok {
		m.cached[key] = true
		return &l, nil
	}
	return nil, nil
}

func (m *fakeMount) Request(_ context.Context, role string, caller Caller) (*relay.Request, *apierror.Error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.unknown[role] {
		return nil, relay.NotFound(role)
	}
	m.callers = append(m.callers, caller)
	return &relay.Request{VirtualKey: &relay.VirtualKey{Name: role, Target: m.target}}, nil
}

func (m *fakeMount) Prompt(_ context.Context, call *PromptCall) ([]byte, *relay.Request, *apierror.Error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.callers, m.calls = append(m.callers, call.Caller), append(m.calls, *call)
	p, found := m.prompts[call.Ref]
	switch {
	case !found:
		return nil, nil, PromptNotFound(call.Ref)
	case p.refusal != nil:
		return nil, nil, p.refusal
	case call.Render:
		return []byte(p.text), nil, nil
	}
	return []byte(p.text), &relay.Request{
		VirtualKey: &relay.VirtualKey{Name: "behind", Target: m.target}, Method: http.MethodPost, Path: "v1/chat/completions",
	}, nil
}

// set changes the mount.
func (m *fakeMount) set(f func(*fakeMount)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(m)
}

// lastCaller is whom the last request was let in for.
func (m *fakeMount) lastCaller(t testing.TB) Caller {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.callers) == 0 {
		t.Fatal("nobody was let in")
	}
	return m.callers[len(m.callers)-1]
}

// wantOK ends the test unless the provider's answer came.
func wantOK(t testing.TB, got reply) {
	t.Helper()
	if got.status != http.StatusOK || got.body != completion || got.aborted {
		t.Fatalf("got %d %s (broken off: %t), want the provider's answer", got.status, got.body, got.aborted)
	}
}

// wantRefusal ends the test unless the gateway refused with this status and code, in
// words that hold each of says.
func wantRefusal(t testing.TB, got reply, status int, code string, says ...string) {
	t.Helper()
	if got.status != status || got.code != code || got.aborted {
		t.Fatalf("got %d %s, want %d %s", got.status, got.body, status, code)
	}
	for _, text := range says {
		if !strings.Contains(got.message, text) {
			t.Errorf("the message %q doesn't say %q", got.message, text)
		}
	}
}

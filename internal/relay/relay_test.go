// SPDX-License-Identifier: MPL-2.0

package relay

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/internal/apierror"
	"vault-plugin-secrets-portkey/internal/provider"
)

const secret = "sk-test/very+distinctive=0123456789"

// recorder is an Answer that keeps what it got.
type recorder struct {
	*httptest.ResponseRecorder
	aborted *apierror.Error
}

func newRecorder() *recorder { return &recorder{ResponseRecorder: httptest.NewRecorder()} }

func (r *recorder) Abort(err *apierror.Error) { r.aborted = err }

func target(t testing.TB, baseURL string) *provider.Target {
	t.Helper()
	catalogue, err := provider.Load()
	if err != nil {
		t.Fatal(err)
	}
	p, ok := catalogue.Get("openai-compatible")
	if !ok {
		t.Fatal("the catalogue has no openai-compatible")
	}
	got, err := p.Resolve(provider.Config{BaseURL: baseURL, Secret: secret, Headers: map[string]string{"X-Team": "platform"}})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// upstream starts a provider that handler plays, and returns a relay and a
// request for it.
func upstream(t testing.TB, handler http.HandlerFunc) (*Relay, *Request) {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	transport := NewTransport(http.DefaultTransport)
	t.Cleanup(transport.CloseIdleConnections)
	return New(Options{Transport: transport}), request(t, server.URL+"/v1")
}

func request(t testing.TB, baseURL string) *Request {
	return &Request{
		VirtualKey: &VirtualKey{Name: "team-a", Target: target(t, baseURL)},
		Method:     http.MethodPost, Path: "v1/chat/completions", Timeout: 10 * time.Second,
		Body: []byte(`{"model":"gpt-4o-mini","big":9007199254740993,"messages":[]}`),
	}
}

func code(t testing.TB, r *recorder) string {
	t.Helper()
	var e struct{ Error struct{ Code string } }
	if err := json.Unmarshal(r.Body.Bytes(), &e); err != nil {
		t.Fatalf("%d %q: %v", r.Code, r.Body, err)
	}
	return e.Error.Code
}

func TestRelay_UpstreamGetsTheCallersBytesAndOnlyAllowListedHeaders(t *testing.T) {
	var got *http.Request
	var body []byte
	relay, req := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
		w.Header().Set("X-Request-Id", "up-1")
		w.Header().Set("Set-Cookie", "a=b")
		w.Header().Set("Connection", "X-Hop")
		w.Header().Set("X-Hop", "1")
		w.Header().Set(TraceHeader, "forged")
		w.WriteHeader(418)
		_, _ = io.WriteString(w, `{"answer": 1e400}`)
	})
	req.Header = http.Header{
		"Authorization": {"Bearer s.vaulttoken"}, "X-Vault-Token": {"s.vaulttoken"}, "X-Portkey-Api-Key": {"s.vaulttoken"},
		"Cookie": {"session=1"}, "X-Api-Key": {"s.vaulttoken"}, "Idempotency-Key": {"1"}, "X-Forwarded-For": {"10.1.2.3"},
		"Openai-Beta": {"assistants=v2"}, "User-Agent": {"OpenAI/Python"}, "X-Stainless-Lang": {"python"}, "X-Team": {"forged"},
	}
	w := newRecorder()
	relay.Serve(t.Context(), w, req)
	if w.Code != 418 || w.Body.String() != `{"answer": 1e400}` {
		t.Fatalf("the provider's answer came as %d %q", w.Code, w.Body)
	}
	if string(body) != string(req.Body) || got.URL.Path != "/v1/chat/completions" {
		t.Fatalf("the provider got %s %q", got.URL, body)
	}
	for name := range got.Header {
		switch name {
		case "Authorization", "Content-Type", "Content-Length", "User-Agent", "Accept-Encoding", "Openai-Beta", "X-Team":
		default:
			t.Errorf("the provider got header %s: %q", name, got.Header[name])
		}
	}
	if got.Header.Get("Authorization") != "Bearer "+secret || got.Header.Get("X-Team") != "platform" || got.Header.Get("Openai-Beta") == "" {
		t.Errorf("headers: %v", got.Header)
	}
	h := w.Result().Header
	if h.Get("Set-Cookie") != "" || h.Get("X-Hop") != "" || h.Get("X-Request-Id") != "up-1" {
		t.Errorf("answer headers: %v", h)
	}
	if trace := h.Values(TraceHeader); len(trace) != 1 || trace[0] == "forged" || trace[0] == "" {
		t.Errorf("trace id: %q", trace)
	}
}

func TestRelay_PolicyDecidesBeforeAnythingIsSent(t *testing.T) {
	var sent atomic.Int32
	relay, base := upstream(t, func(http.ResponseWriter, *http.Request) { sent.Add(1) })
	past := time.Now().Add(-time.Second)
	for name, c := range map[string]struct {
		change func(*Request)
		status int
		code   string
	}{
		"disabled":            {func(r *Request) { r.VirtualKey.Disabled = true }, 403, apierror.CodeVirtualKeyDisabled},
		"expired":             {func(r *Request) { r.VirtualKey.ExpiresAt = past }, 403, apierror.CodeVirtualKeyExpired},
		"model":               {func(r *Request) { r.VirtualKey.Models = []string{"gpt-4o", "o1*"} }, 403, apierror.CodeModelNotAllowed},
		"model in other case": {func(r *Request) { r.Body = []byte(`{"Model":"gpt-4o"}`) }, 400, apierror.CodeInvalidRequest},
		"model twice":         {func(r *Request) { r.Body = []byte(`{"model":"a","model":"b"}`) }, 400, apierror.CodeInvalidRequest},
		"model no string":     {func(r *Request) { r.Body = []byte(`{"model":["a"]}`) }, 400, apierror.CodeInvalidRequest},
		"no model":            {func(r *Request) { r.Body = []byte(`{}`) }, 400, apierror.CodeModelRequired},
		"null model":          {func(r *Request) { r.Body = []byte(`{"model":null}`) }, 400, apierror.CodeModelRequired},
		"no body":             {func(r *Request) { r.Body = nil }, 400, apierror.CodeModelRequired},
		"no model, restricted": {func(r *Request) {
			r.Path, r.Body, r.VirtualKey.Models = "v1/batches", []byte(`{"input_file_id":"f"}`), []string{"a"}
		}, 400, apierror.CodeModelRequired},
		"no body, restricted": {func(r *Request) {
			r.Path, r.Body, r.VirtualKey.Models = "v1/batches/b/cancel", nil, []string{"a"}
		}, 400, apierror.CodeModelRequired},
		"forced model not allowed": {func(r *Request) {
			r.VirtualKey.Models, r.VirtualKey.Forced = []string{"gpt-4o-mini"}, map[string]json.RawMessage{"model": []byte(`"gpt-5"`)}
		}, 403, apierror.CodeModelNotAllowed},
		"not JSON":  {func(r *Request) { r.Body = []byte(`{"model":"a"} trailing`) }, 400, apierror.CodeInvalidRequest},
		"an array":  {func(r *Request) { r.Body = []byte(`[]`) }, 400, apierror.CodeInvalidRequest},
		"dot dot":   {func(r *Request) { r.Path = "v1/../admin" }, 400, apierror.CodeInvalidRequest},
		"two slash": {func(r *Request) { r.Path = "v1//models" }, 400, apierror.CodeInvalidRequest},
		"encoded":   {func(r *Request) { r.Path = "v1/%2e%2e/admin" }, 400, apierror.CodeInvalidRequest},
		"no route":  {func(r *Request) { r.Path = "v2/chat" }, 404, apierror.CodeRouteNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			req, vk := *base, *base.VirtualKey
			req.VirtualKey = &vk
			c.change(&req)
			w := newRecorder()
			relay.Serve(t.Context(), w, &req)
			if w.Code != c.status || code(t, w) != c.code {
				t.Errorf("got %d %s", w.Code, w.Body)
			}
		})
	}
	if sent.Load() != 0 {
		t.Errorf("%d refused requests reached the provider", sent.Load())
	}
}

func TestRelay_DefaultAndForcedParametersAreSetInPlace(t *testing.T) {
	var body string
	relay, req := upstream(t, func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		body = string(b)
	})
	req.VirtualKey.Defaults = map[string]json.RawMessage{"temperature": []byte("0.2"), "model": []byte(`"default"`), "user": []byte(`"x"`)}
	req.VirtualKey.Forced = map[string]json.RawMessage{"user": []byte(`"team-a"`), "store": []byte("false")}
	req.Body = []byte("{\"store\" : true,\n \"temperature\":null, \"messages\":[] }")
	relay.Serve(t.Context(), newRecorder(), req)
	want := "{\"store\" : false,\n \"temperature\":null, \"messages\":[] ,\"model\":\"default\",\"user\":\"team-a\"}"
	if body != want {
		t.Errorf("got  %s\nwant %s", body, want)
	}
}

func TestRelay_RedirectsAreNeverFollowed(t *testing.T) {
	var reached atomic.Bool
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Store(true) }))
	defer elsewhere.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		relay, req := upstream(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, status) })
		w := newRecorder()
		relay.Serve(t.Context(), w, req)
		if w.Code != 502 || code(t, w) != apierror.CodeUnreachable || w.Header().Get("Location") != "" {
			t.Errorf("%d: got %d %s %v", status, w.Code, w.Body, w.Header())
		}
	}
	if reached.Load() {
		t.Error("a redirect was followed")
	}
}

func TestRelay_AnEchoedKeyIsMaskedInBodyAndHeaders(t *testing.T) {
	relay, req := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		auth := r.Header.Get("Authorization")
		w.Header().Set("X-Echo", auth)
		escaped, _ := json.Marshal(auth)
		for _, part := range []string{auth, strings.ReplaceAll(string(escaped), "/", `\/`)} {
			for i := range len(part) { // one byte at a time
				_, _ = io.WriteString(w, part[i:i+1])
				w.(http.Flusher).Flush()
			}
		}
		_, _ = io.WriteString(w, " sk-test/very+disti") // only the beginning of the key
	})
	w := newRecorder()
	relay.Serve(t.Context(), w, req)
	answer := w.Body.String() + fmt.Sprint(w.Header())
	if strings.Contains(answer, "distinctive") {
		t.Errorf("the key is in the answer: %s", answer)
	}
	if !strings.HasSuffix(w.Body.String(), " sk-test/very+disti") || !strings.HasPrefix(w.Body.String(), "Bearer ***") {
		t.Errorf("what is no key was changed: %s", w.Body)
	}
}

func TestRelay_TimeoutBeforeTheAnswerIs504(t *testing.T) {
	gone := make(chan struct{})
	relay, req := upstream(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
		close(gone)
	})
	req.Timeout = 50 * time.Millisecond
	w := newRecorder()
	relay.Serve(t.Context(), w, req)
	if w.Code != 504 || code(t, w) != apierror.CodeTimeout {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	<-gone
}

func TestRelay_CallerGoneCancelsTheUpstreamRequest(t *testing.T) {
	arrived, gone := make(chan struct{}), make(chan struct{})
	relay, req := upstream(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		close(arrived)
		<-r.Context().Done()
		close(gone)
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	w := newRecorder()
	relay.Serve(ctx, w, req)
	<-gone
	if w.Code != 499 {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}

// broken is a provider that sends head and part of a body, then ends as end
// says.
func broken(t *testing.T, contentType, part string, end func(net.Conn)) (*Relay, *Request) {
	return upstream(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: 1000\r\n\r\n%s", contentType, part)
		end(conn)
	})
}

func TestRelay_AnAnswerThatBreaksOffIsAborted(t *testing.T) {
	// One that ends before its header has gone out is answered by the error.
	relay, req := broken(t, "application/json", `{"half":`, func(c net.Conn) { _ = c.Close() })
	w := newRecorder()
	relay.Serve(t.Context(), w, req)
	if w.aborted != nil || w.Code != 502 || code(t, w) != apierror.CodeUnreachable || w.Header().Get("Content-Length") != strconv.Itoa(w.Body.Len()) {
		t.Errorf("aborted with %+v after %d %v %q", w.aborted, w.Code, w.Header(), w.Body)
	}
	relay, req = broken(t, "audio/mpeg", "half", func(c net.Conn) { _ = c.Close() })
	req.Path = "v1/audio/speech"
	w = newRecorder()
	relay.Serve(t.Context(), w, req)
	if w.aborted == nil || w.aborted.Code != apierror.CodeUnreachable || w.aborted.Status != 502 {
		t.Errorf("aborted with %+v after %q", w.aborted, w.Body)
	}
}

func TestRelay_AStreamThatBreaksOffEndsWithAnErrorEvent(t *testing.T) {
	for name, end := range map[string]func(net.Conn){
		"closed": func(c net.Conn) { _ = c.Close() },
		"hangs":  func(c net.Conn) { _, _ = bufio.NewReader(c).ReadByte(); _ = c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			relay, req := broken(t, "text/event-stream; charset=utf-8", "data: {\"a\":1}\n\ndata: {\"b", end)
			req.Timeout = 200 * time.Millisecond
			w := newRecorder()
			relay.Serve(t.Context(), w, req)
			if w.aborted == nil {
				t.Fatal("not aborted")
			}
			before, event, found := strings.Cut(w.Body.String(), "\n\nevent: error\ndata: ")
			if !found || !strings.HasPrefix(before, "data: {\"a\":1}\n\n") {
				t.Fatalf("got %q", w.Body)
			}
			var data struct {
				Message string
				Error   struct{ Message, Code string }
			}
			if err := json.Unmarshal([]byte(event), &data); err != nil || data.Message == "" || data.Error.Message == "" || data.Error.Code != w.aborted.Code {
				t.Errorf("event %q: %v", event, err)
			}
		})
	}
}

func TestRelay_UnreachableProviderIs502AndNamesTheHost(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := listener.Addr().String()
	_ = listener.Close()
	transport := NewTransport(http.DefaultTransport)
	w := newRecorder()
	New(Options{Transport: transport}).Serve(t.Context(), w, request(t, "http://"+addr+"/v1"))
	if w.Code != 502 || code(t, w) != apierror.CodeUnreachable || !strings.Contains(w.Body.String(), addr) {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}

type panicking struct{}

func (panicking) RoundTrip(r *http.Request) (*http.Response, error) {
	panic("with the key in it: " + r.Header.Get("Authorization"))
}

func TestRelay_APanicIsAnsweredAndReportedWithoutItsValue(t *testing.T) {
	var reported string
	relay := New(Options{Transport: panicking{}, Panicked: func(stack string) { reported = stack }})
	w := newRecorder()
	relay.Serve(t.Context(), w, request(t, "http://127.0.0.1/v1"))
	if w.Code != 500 || code(t, w) != apierror.CodeInternal {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	if !strings.Contains(reported, "RoundTrip") || strings.Contains(reported+w.Body.String(), "distinctive") {
		t.Errorf("reported: %s", reported)
	}
}

func TestRelay_ConnectionsAreReused(t *testing.T) {
	var connections atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") }))
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connections.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	relay := New(Options{Transport: NewTransport(http.DefaultTransport)})
	for range 20 {
		relay.Serve(t.Context(), newRecorder(), request(t, server.URL+"/v1"))
	}
	if n := connections.Load(); n != 1 {
		t.Errorf("%d connections for 20 requests in a row", n)
	}
}

// refusing is a door that takes no more than what it was made with.
type refusing struct {
	*recorder
	verdict error
}

func (r refusing) Write([]byte) (int, error) { return 0, r.verdict }

func TestRelay_TheDoorsVerdictEndsTheAnswer(t *testing.T) {
	relay, req := upstream(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") })
	tooLarge := &apierror.Error{Status: 502, Code: apierror.CodeAnswerTooLarge}
	w := refusing{newRecorder(), tooLarge}
	relay.Serve(t.Context(), w, req)
	if w.aborted != tooLarge {
		t.Errorf("aborted with %+v", w.aborted)
	}
	w = refusing{newRecorder(), errors.New("broken pipe")}
	relay.Serve(t.Context(), w, req)
	if w.aborted == nil || w.aborted.Code != apierror.CodeCallerGone {
		t.Errorf("aborted with %+v", w.aborted)
	}
}

func TestProbe_TellsValidRefusedUnreachableAndInconclusiveApart(t *testing.T) {
	for want, handler := range map[ProbeResult]http.HandlerFunc{
		ProbeValid: func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "Bearer "+secret {
				w.WriteHeader(401)
			}
		},
		ProbeRefused:      func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) },
		ProbeUnreachable:  func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) },
		ProbeInconclusive: func(http.ResponseWriter, *http.Request) {},
	} {
		relay, req := upstream(t, handler)
		if got := relay.Probe(t.Context(), req.VirtualKey.Target); got.Result != want || strings.Contains(got.Detail, secret) {
			t.Errorf("got %+v, want %s", got, want)
		}
	}
	got := New(Options{Transport: NewTransport(nil)}).Probe(t.Context(), target(t, "http://127.0.0.1:1/v1"))
	if got.Result != ProbeUnreachable || got.Status != 0 {
		t.Errorf("nobody there: %+v", got)
	}
}

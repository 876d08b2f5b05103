// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
)

// scriptedKey is the provider key of scripted providers.
const scriptedKey = "a-scripted-provider-key"

// scripted is a provider that answers, byte for byte, what the test says next, on
// every path. test/upstream answers like OpenAI, and so only what OpenAI does.
type scripted struct {
	role   string // the virtual key on it, without limits
	mu     sync.Mutex
	answer func(http.ResponseWriter, *http.Request)
	early  func(http.ResponseWriter, *http.Request) // answers before anything of the body is read
	got    []sentRequest
}

// sentRequest is what the provider received.
type sentRequest struct {
	URI    string
	Header http.Header
	Body   []byte
	Length int64 // by its Content-Length, -1 for none
	Err    error // what cut the body short
}

// scripted starts a scripted provider and makes a virtual key of that name on it,
// with fields.
func (g *gatewayRig) scripted(t *testing.T, role string, fields map[string]any) *scripted {
	t.Helper()
	s := &scripted{role: role, answer: func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") }}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	g.root.Write(t, g.mount+"/keys/"+role, map[string]any{
		"provider": "openai-compatible", "base_url": server.URL + "/v1", "api_key": scriptedKey,
	})
	g.role(t, role, with(map[string]any{"key": role}, fields))
	return s
}

// ServeHTTP implements http.Handler.
func (s *scripted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	early := s.early
	s.mu.Unlock()
	if early != nil {
		early(w, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	s.mu.Lock()
	s.got = append(s.got, sentRequest{URI: r.RequestURI, Header: r.Header, Body: body, Length: r.ContentLength, Err: err})
	answer := s.answer
	s.mu.Unlock()
	answer(w, r)
}

// play makes f answer from now on.
func (s *scripted) play(f func(http.ResponseWriter, *http.Request)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = f
}

// playEarly makes f answer from now on, before anything of the body is read; nil ends
// that.
func (s *scripted) playEarly(f func(http.ResponseWriter, *http.Request)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.early = f
}

// pieces answers with status 200 and the type, and the body in pieces that are sent
// one by one.
func (s *scripted) pieces(contentType string, pieces ...string) {
	s.play(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		for _, piece := range pieces {
			_, _ = io.WriteString(w, piece)
			_ = http.NewResponseController(w).Flush()
		}
	})
}

// received returns what arrived since the last call, whole or not, and forgets it.
func (s *scripted) received() []sentRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	got := s.got
	s.got = nil
	return got
}

// one ends the test unless exactly one whole request arrived since the last call.
// One that was broken off earlier may be noticed late.
func (s *scripted) one(t *testing.T) sentRequest {
	t.Helper()
	got := slices.DeleteFunc(s.received(), func(r sentRequest) bool { return r.Err != nil })
	if len(got) != 1 {
		t.Fatalf("the provider received %d requests, expected one", len(got))
	}
	return got[0]
}

// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"vault-plugin-secrets-portkey/test/vaulttest"
)

// bodies: what the provider receives is what the app sent.
func (s *suite) bodies(t *testing.T) {
	app := s.app(t, mount, "bodies", nil)
	methods := `path "portkey/proxy/bodies/*" { capabilities = ["read", "update", "delete"] }`
	s.vault.Policy(t, "all-methods", methods)
	all := s.client(s.vault.Token(t, "all-methods"))

	t.Run("EveryMemberArrivesAsItWasSent", func(t *testing.T) { s.membersArrive(t, app) })
	t.Run("NumbersBeyond2To53LosePrecisionAsDocumented", func(t *testing.T) { s.bigNumbers(t, app) })
	t.Run("DefaultParametersFillInAndForcedOnesWin", s.parameters)
	t.Run("MethodsAndQueriesArrive", func(t *testing.T) { s.methods(t, all) })
	t.Run("OnlyHarmlessHeadersArrive", s.headers)
	t.Run("PathsThatTheProviderHasNotAre404", func(t *testing.T) {
		unasked(t, s.up, func() {
			wantError(t, post(t, all, mount+"/proxy/bodies/v2/chat/completions", s.chat("up-ok")), http.StatusNotFound, "route_not_found", "v1")
			wantError(t, post(t, all, mount+"/proxy/bodies/v1/chat%5Ccompletions", s.chat("up-ok")), http.StatusBadRequest, "invalid_request")
		})
	})
	t.Run("EmbeddingsAndResponses", func(t *testing.T) {
		for path, body := range map[string]map[string]any{
			"v1/embeddings":  {"model": "up-ok", "input": []any{s.prompt, "b"}, "encoding_format": "base64", "dimensions": 64},
			"v1/completions": {"model": "up-ok", "prompt": s.prompt},
			"v1/responses":   {"model": "up-ok", "input": s.prompt},
		} {
			resp := post(t, app, proxyPath(mount, "bodies", path), body)
			wantSame(t, resp, direct(t, s.up, lastRequest(t, s.up).Key, http.MethodPost, path, body))
		}
	})
}

func (s *suite) membersArrive(t *testing.T, app *vaulttest.Client) {
	body := s.chat("up-ok")
	body["messages"] = []any{
		map[string]any{"role": "system", "content": "größtenteils 👩‍👩‍👧 \u202e עברית \u2028 \\u0041 \" </script> &amp; \x7f"},
		map[string]any{"role": "user", "content": []any{map[string]any{"type": "text", "text": s.prompt}}, "name": nil},
	}
	// Some of these are what the plugin's paths capture.
	for k, v := range map[string]any{
		"virtual_key": "mine", "provider_path": "v1/other", "name": "n", "path": "p", "key": "k", "list": true, "help": 1.0,
		"temperature": 0.0, "top_p": 0.3, "seed": float64(1 << 53), "stop": []any{}, "tools": nil, "logit_bias": map[string]any{},
		"user": "", "größe": "ß", "a.b/c": 1e-7, "TOP": []any{1.0, "x", nil, true, map[string]any{"deep": []any{[]any{}}}},
	} {
		body[k] = v
	}
	wantCompletion(t, post(t, app, chatPath(mount, "bodies"), body))
	got := lastRequest(t, s.up)
	var received map[string]any
	if err := json.Unmarshal(got.Body, &received); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(received, body) {
		t.Errorf("the provider received\n%s\nthe app sent\n%v", got.Body, body)
	}

	// Nothing that the app didn't send.
	wantCompletion(t, post(t, app, chatPath(mount, "bodies"), s.chat("up-ok")))
	received = nil
	if err := json.Unmarshal(lastRequest(t, s.up).Body, &received); err != nil || len(received) != 2 {
		t.Errorf("the provider received %v (%v), expected model and messages alone", received, err)
	}
}

func (s *suite) bigNumbers(t *testing.T, app *vaulttest.Client) {
	text := `{"model":"up-ok","seed":9007199254740993,"n":1,"temperature":0.1,"messages":[]}`
	wantCompletion(t, post(t, app, chatPath(mount, "bodies"), text))
	body := lastRequest(t, s.up).Body
	// The nearest float64. Not 9.007e15, which some providers refuse.
	if !bytes.Contains(body, []byte(`"seed":9007199254740992`)) || !bytes.Contains(body, []byte(`"temperature":0.1`)) || !bytes.Contains(body, []byte(`"n":1,`)) {
		t.Errorf("the provider received %s", body)
	}
}

func (s *suite) parameters(t *testing.T) {
	app := s.app(t, mount, "params", map[string]any{
		"models":         "up-ok",
		"default_params": map[string]any{"model": "up-ok", "temperature": 0.5, "top_p": 0.9},
		"forced_params":  map[string]any{"user": "team", "max_tokens": 3},
	})
	wantStatus(t, post(t, app, chatPath(mount, "params"), map[string]any{
		"messages": []any{}, "temperature": 1, "user": "somebody", "max_tokens": 1000,
	}), http.StatusOK)
	var received map[string]any
	if err := json.Unmarshal(lastRequest(t, s.up).Body, &received); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"model": "up-ok", "messages": []any{}, "temperature": 1.0, "top_p": 0.9, "user": "team", "max_tokens": 3.0}
	if !reflect.DeepEqual(received, want) {
		t.Errorf("the provider received %v, expected %v", received, want)
	}
}

func (s *suite) methods(t *testing.T, all *vaulttest.Client) {
	resp := do(t, all, http.MethodGet, proxyPath(mount, "bodies", "v1/models?limit=5&after=gpt%2F4&tag=a%26b"), nil)
	got := lastRequest(t, s.up)
	wantSame(t, resp, direct(t, s.up, got.Key, http.MethodGet, "v1/models", nil))
	if got.Method != http.MethodGet || got.Path != "/v1/models" || len(got.Body) != 0 ||
		got.Query.Get("limit") != "5" || got.Query.Get("after") != "gpt/4" || got.Query.Get("tag") != "a&b" || len(got.Query) != 3 {
		t.Errorf("the provider received %s %s?%s %q", got.Method, got.Path, got.RawQuery, got.Body)
	}

	resp = do(t, all, http.MethodDelete, proxyPath(mount, "bodies", "v1/models/gpt-4o"), nil)
	got = lastRequest(t, s.up)
	wantSame(t, resp, direct(t, s.up, got.Key, http.MethodDelete, "v1/models/gpt-4o", nil))
	if got.Method != http.MethodDelete || got.Path != "/v1/models/gpt-4o" || len(got.Body) != 0 {
		t.Errorf("the provider received %s %s %q", got.Method, got.Path, got.Body)
	}

	// Vault doesn't tell a plugin PUT from POST.
	wantCompletion(t, do(t, all, http.MethodPut, chatPath(mount, "bodies"), s.chat("up-ok")))
	if got := lastRequest(t, s.up); got.Method != http.MethodPost {
		t.Errorf("a PUT arrived as %s", got.Method)
	}
}

// headers asks on the mount whose tuning hands the plugin headers that it must
// keep to itself.
func (s *suite) headers(t *testing.T) {
	app := s.app(t, tuned, "headers", nil)
	text, err := json.Marshal(s.chat("up-ok"))
	if err != nil {
		t.Fatal(err)
	}
	req, err := app.NewRequest(t.Context(), http.MethodPost, chatPath(tuned, "headers"), bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"Authorization": "Bearer " + app.Token, "Cookie": "session=" + app.Token, "X-Portkey-Api-Key": app.Token,
		"User-Agent": "an-sdk/1.0", "OpenAI-Beta": "assistants=v2", "X-Forwarded-For": "192.0.2.1", "X-Anything": "else",
	} {
		req.Header.Set(name, value)
	}
	resp, err := app.HTTP.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("status %d", resp.StatusCode)
	}
	got := lastRequest(t, s.up)
	if !strings.HasPrefix(got.Key, s.marker) || got.Header.Get("User-Agent") != "an-sdk/1.0" || got.Header.Get("OpenAI-Beta") != "assistants=v2" {
		t.Errorf("the provider received headers %v", slices.Sorted(headerNames(got.Header)))
	}
	known := []string{"Accept-Encoding", "Authorization", "Content-Length", "Content-Type", "Openai-Beta", "User-Agent"}
	if names := slices.Sorted(headerNames(got.Header)); !slices.Equal(names, known) {
		t.Errorf("the provider received the headers %v, expected %v", names, known)
	}
}

// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"vault-plugin-secrets-portkey/test/upstream"
)

// keyedProvider is test/upstream with what that doesn't have: images, speech,
// moderations, and calls of tools. Each virtual key has a provider key of its own
// there, by which it is told apart.
type keyedProvider struct {
	up  *upstream.Server
	url string // the base URL of provider keys

	mu     sync.Mutex
	got    map[string][]keyedArrival     // by provider key, in order
	billed map[string]upstream.Delivered // by provider key, of what isn't up's
}

// keyedArrival is a request that reached the provider.
type keyedArrival struct {
	Method, Path string
	Header       http.Header
	Body         []byte
}

func startKeyedProvider(t *testing.T) *keyedProvider {
	t.Helper()
	p := &keyedProvider{up: upstream.Start(t, upstream.Options{Seed: 1}), got: map[string][]keyedArrival{}, billed: map[string]upstream.Delivered{}}
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	p.url = server.URL + "/v1"
	return p
}

// keyOfRole is the provider key of a virtual key.
func keyOfRole(role string) string { return "a-provider-key-of-" + role }

// virtualKeys makes virtual keys on the provider at a mount, with the fields of
// roles, and prices their models.
func (p *keyedProvider) virtualKeys(t *testing.T, g *gatewayRig, mount string, fields map[string]any, names ...string) {
	t.Helper()
	g.root.Write(t, mount+"/prices/openai-compatible/*", map[string]any{"input": exactInput, "output": exactOutput})
	for _, name := range names {
		g.root.Write(t, mount+"/keys/"+name, map[string]any{
			"provider": "openai-compatible", "base_url": p.url, "api_key": keyOfRole(name),
		})
		g.root.Write(t, mount+"/roles/"+name, with(map[string]any{"key": name}, fields))
	}
}

// ServeHTTP implements http.Handler.
func (p *keyedProvider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // whoever sent it is gone
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	key := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	p.mu.Lock()
	p.got[key] = append(p.got[key], keyedArrival{Method: r.Method, Path: r.URL.Path, Header: r.Header.Clone(), Body: body})
	p.mu.Unlock()
	if r.URL.Path == "/v1/models" {
		p.bill(key, upstream.Delivered{Requests: 1}) // the ledger counts it, for nothing
	}
	if text, contentType, cost := keyedAnswer(r.URL.Path, body); text != nil {
		p.bill(key, cost)
		w.Header().Set("Content-Type", contentType)
		_, _ = w.Write(text)
		return
	}
	p.up.ServeHTTP(w, r)
}

// keyedAnswer is an answer that test/upstream hasn't, and what it costs; nil for none.
func keyedAnswer(path string, body []byte) (text []byte, contentType string, cost upstream.Delivered) {
	const jsonType = "application/json"
	var asked struct {
		Tools    []any
		Messages []struct{ Role string }
	}
	if strings.Contains(path, "/audio/transcriptions") || len(body) > 0 && json.Unmarshal(body, &asked) != nil {
		return nil, "", cost
	}
	switch path {
	case "/v1/images/generations":
		return []byte(`{"created":1700000000,"data":[{"b64_json":"aW1hZ2U="}],"usage":{"input_tokens":3,"output_tokens":7,"total_tokens":10,"input_tokens_details":{"text_tokens":3,"image_tokens":0}}}`),
			jsonType, upstream.Delivered{Requests: 1} // images aren't metered
	case "/v1/audio/speech":
		speech, err := hex.DecodeString("fffb90640000ff00") // no UTF-8
		if err != nil {
			panic(err)
		}
		return speech, "audio/mpeg", upstream.Delivered{Requests: 1}
	case "/v1/moderations":
		return []byte(`{"id":"modr-1","model":"up-ok","results":[{"flagged":false,"categories":{},"category_scores":{}}],"usage":{"prompt_tokens":2,"total_tokens":2}}`),
			jsonType, upstream.Delivered{Requests: 1, PromptTokens: 2}
	case "/v1/chat/completions":
		if n := len(asked.Messages); len(asked.Tools) == 0 || n > 0 && asked.Messages[n-1].Role == "tool" {
			return nil, "", cost
		}
		return []byte(`{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"up-ok","choices":[{"index":0,"finish_reason":"tool_calls","message":{"role":"assistant","content":null,"tool_calls":[{"id":"call_1","type":"function","function":{"name":"weather","arguments":"{\"city\":\"Paris\"}"}}]}}],"usage":{"prompt_tokens":11,"completion_tokens":9,"total_tokens":20}}`),
			jsonType, upstream.Delivered{Requests: 1, PromptTokens: 11, CompletionTokens: 9}
	}
	return nil, "", cost
}

func (p *keyedProvider) bill(key string, cost upstream.Delivered) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.billed[key] = sumDelivered(p.billed[key], cost)
}

func sumDelivered(a, b upstream.Delivered) upstream.Delivered {
	return upstream.Delivered{Requests: a.Requests + b.Requests, PromptTokens: a.PromptTokens + b.PromptTokens, CompletionTokens: a.CompletionTokens + b.CompletionTokens}
}

// arrived are the requests of a virtual key, in the order in which they came.
func (p *keyedProvider) arrived(role string) []keyedArrival {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]keyedArrival(nil), p.got[keyOfRole(role)]...)
}

// delivered is what the provider bills for a virtual key.
func (p *keyedProvider) delivered(t *testing.T, role string) upstream.Delivered {
	t.Helper()
	p.up.WaitIdle(t)
	p.mu.Lock()
	total := p.billed[keyOfRole(role)]
	p.mu.Unlock()
	for k, d := range p.up.Delivered() {
		if k.Key == keyOfRole(role) {
			total = sumDelivered(total, d)
		}
	}
	return total
}

// unmetered is how many requests of a virtual key came on routes that aren't metered.
func (p *keyedProvider) unmetered(role string) (n int64) {
	for _, a := range p.arrived(role) {
		if strings.HasPrefix(a.Path, "/v1/images/") || strings.HasPrefix(a.Path, "/v1/audio/") {
			n++
		}
	}
	return n
}

// wantLedger fails the test unless the virtual key's record and its limits have
// exactly what the provider bills for it, in requests, tokens and money, and the
// record names what isn't metered.
func (p *keyedProvider) wantLedger(t *testing.T, g *gatewayRig, mount, role string) {
	t.Helper()
	var answer struct{ Data standing }
	if err := g.root.Read(t, mount+"/usage/"+role).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	s, want := answer.Data, p.delivered(t, role)
	if got := (upstream.Delivered{Requests: int(s.Total.Requests), PromptTokens: int(s.Total.Input), CompletionTokens: int(s.Total.Output)}); got != want {
		t.Errorf("%s: the record is %+v, and the provider bills %+v", role, got, want)
	}
	n := p.unmetered(role)
	if got := s.cost(t); got != in("usd", want) || s.Total.Unconfirmed != n || s.Total.Unpriced != n || s.Total.UncertainIn != "0" {
		t.Errorf("%s: the record has a cost of %d nano-dollars (%+v), and the provider bills %d", role, got, s.Total, in("usd", want))
	}
	for _, row := range s.Limits {
		if int64(row.Used) != in(row.Unit, want) || row.Reserved != 0 {
			t.Errorf("%s: the limit %s has %d used and %d reserved, and the provider bills %d", role, row.Limit, row.Used, row.Reserved, in(row.Unit, want))
		}
	}
}

// wantOnlyProviderKey fails the test unless a request carries its provider key, and
// nothing that names the caller's credential or virtual key.
func (a keyedArrival) wantOnlyProviderKey(t *testing.T, what, role string, secrets ...string) {
	t.Helper()
	if got := a.Header["Authorization"]; len(got) != 1 || got[0] != "Bearer "+keyOfRole(role) {
		t.Errorf("%s: the provider received the credential %q", what, got)
	}
	for name, values := range a.Header {
		if strings.HasPrefix(name, "X-Portkey") || strings.HasPrefix(name, "X-Vault") || name == "Cookie" || name == "Api-Key" || name == "X-Api-Key" {
			t.Errorf("%s: the provider received the header %s", what, name)
		}
		for _, secret := range secrets {
			if strings.Contains(strings.Join(values, " "), secret) || bytes.Contains(a.Body, []byte(secret)) {
				t.Errorf("%s: the provider received the caller's credential", what)
			}
		}
	}
}

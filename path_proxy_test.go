// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// newProxyMount has the provider key a of OpenAI and the virtual key r.
func newProxyMount(t *testing.T, role map[string]any) (*mount, *upstream, *clock) {
	t.Helper()
	up, c := &upstream{}, newClock()
	m := newMount(t, Options{Transport: up, Now: c.now})
	m.write("keys/a", openaiKey(secretA))
	data := map[string]any{"key": "a"}
	for name, v := range role {
		data[name] = v
	}
	m.write("roles/r", data)
	return m, up, c
}

func wantNothingSent(t *testing.T, up *upstream) {
	t.Helper()
	if sent := up.requests(); len(sent) != 0 {
		t.Errorf("a refused request reached the provider: %+v", sent)
	}
}

func wantJSON(t *testing.T, got string, want map[string]any) {
	t.Helper()
	var decoded map[string]any
	if err := json.Unmarshal([]byte(got), &decoded); err != nil {
		t.Fatalf("%q: %v", got, err)
	}
	if !reflect.DeepEqual(decoded, overJSON(t, want)) {
		t.Errorf("the provider got %s, want %v", got, want)
	}
}

func TestProxy_SendsTheRequestWithTheProviderKeyAndReturnsTheAnswer(t *testing.T) {
	m, up, _ := newProxyMount(t, nil)
	answer := m.chat("r", "gpt-4o")
	answer.want(t, http.StatusOK, "")
	if answer.Type != "application/json" || !strings.Contains(answer.Body, `"content":"Hi"`) || answer.Header.Get("X-Portkey-Trace-Id") == "" {
		t.Errorf("answered %+v", answer)
	}
	sent := up.last(t)
	if sent.Method != http.MethodPost || sent.URL != "https://api.openai.com/v1/chat/completions" || sent.Header.Get("Authorization") != "Bearer "+secretA {
		t.Errorf("sent %+v", sent)
	}
	wantJSON(t, sent.Body, chatBody("gpt-4o"))
}

func TestProxy_OnlyAllowedModelsPass(t *testing.T) {
	m, up, _ := newProxyMount(t, map[string]any{"models": "gpt-4o*,o3"})
	for _, model := range []string{"gpt-4", "o3-mini", "GPT-4o", "xgpt-4o", "", " gpt-4o"} {
		answer := m.chat("r", model)
		if model == "" {
			answer.want(t, http.StatusBadRequest, "model_required")
			continue
		}
		answer.want(t, http.StatusForbidden, "model_not_allowed")
		if !strings.Contains(answer.Body, "gpt-4o*, o3") {
			t.Errorf("the refusal doesn't name the models allowed: %s", answer.Body)
		}
	}
	wantNothingSent(t, up)
	for _, model := range []string{"gpt-4o", "gpt-4o-mini", "o3"} {
		m.chat("r", model).want(t, http.StatusOK, "")
	}
	// A forced model is judged too.
	m.patch("roles/r", map[string]any{"forced_params": map[string]any{"model": "o4"}})
	m.chat("r", "o3").want(t, http.StatusForbidden, "model_not_allowed")
}

func TestProxy_DefaultsFillInAndForcedParamsWin(t *testing.T) {
	m, up, _ := newProxyMount(t, map[string]any{
		"models":         "gpt-4o",
		"default_params": map[string]any{"model": "gpt-4o", "temperature": 0.2, "user": "default"},
		"forced_params":  `{"max_tokens": 100, "metadata": {"team": "blue"}}`,
	})
	body := chatBody("")
	body["user"], body["max_tokens"], body["metadata"] = "caller", 5000, nil
	m.proxyAs("", "r", "v1/chat/completions", body).want(t, http.StatusOK, "")
	wantJSON(t, up.last(t).Body, map[string]any{
		"model": "gpt-4o", "messages": body["messages"], "temperature": 0.2, "user": "caller",
		"max_tokens": 100, "metadata": map[string]any{"team": "blue"},
	})
}

func TestProxy_BodyFieldsNamedLikeThePathReachTheProviderUnchanged(t *testing.T) {
	m, up, _ := newProxyMount(t, nil)
	body := chatBody("m")
	body["virtual_key"], body["provider_path"], body["name"] = map[string]any{"a": 1}, "elsewhere", "n"
	body["html"] = "<b>&amp;</b>"
	m.proxyAs("", "r", "v1/chat/completions", body).want(t, http.StatusOK, "")
	wantJSON(t, up.last(t).Body, body)
	if !strings.Contains(up.last(t).Body, "<b>&amp;</b>") {
		t.Errorf("the text was escaped: %s", up.last(t).Body)
	}
	m.chat("r", "m").want(t, http.StatusOK, "")
	wantJSON(t, up.last(t).Body, chatBody("m")) // and none is added
}

func TestProxy_GetAndDeletePassTheirQuery(t *testing.T) {
	m, up, _ := newProxyMount(t, map[string]any{"default_params": map[string]any{"n": 1}})
	for _, c := range []struct {
		op     logical.Operation
		method string
		data   map[string]any
		query  string
	}{
		{logical.ReadOperation, http.MethodGet, nil, ""},
		{logical.ReadOperation, http.MethodGet, map[string]any{"limit": "5", "after": "a&b=c", "include[]": []any{"x", "y"}}, "?after=a%26b%3Dc&include%5B%5D=x&include%5B%5D=y&limit=5"},
		{logical.DeleteOperation, http.MethodDelete, map[string]any{"force": "true"}, "?force=true"},
	} {
		answer, err := m.proxyRequest(c.op, "", "r/v1/files/file-1", c.data)
		if err != nil {
			t.Fatal(err)
		}
		answer.want(t, http.StatusOK, "")
		sent := up.last(t)
		if sent.Method != c.method || sent.URL != "https://api.openai.com/v1/files/file-1"+c.query || sent.Body != "" {
			t.Errorf("sent %+v", sent)
		}
	}
}

func TestProxy_VirtualKeysThatMayNotBeUsedAreRefused(t *testing.T) {
	m, up, c := newProxyMount(t, map[string]any{"ttl": "1h"})
	m.write("roles/off", map[string]any{"key": "a", "enabled": false})
	for _, name := range []string{"none", "schlüssel", "a b", "..", "%2e"} {
		answer := m.chat(name, "m")
		answer.want(t, http.StatusNotFound, "virtual_key_not_found")
	}
	m.chat("off", "m").want(t, http.StatusForbidden, "virtual_key_disabled")
	c.advance(time.Hour)
	m.chat("r", "m").want(t, http.StatusForbidden, "virtual_key_expired")
	wantNothingSent(t, up)
	c.advance(-time.Second)
	m.chat("r", "m").want(t, http.StatusOK, "")
	m.patch("roles/off", map[string]any{"enabled": true})
	m.chat("off", "m").want(t, http.StatusOK, "")
}

func TestProxy_PathsTheProviderDoesNotHaveAreRefused(t *testing.T) {
	m, up, _ := newProxyMount(t, nil)
	for path, want := range map[string]struct {
		status int
		code   string
	}{
		"v2/chat/completions":     {http.StatusNotFound, "route_not_found"},
		"v1/../../admin":          {http.StatusBadRequest, "invalid_request"},
		"v1//chat/completions":    {http.StatusBadRequest, "invalid_request"},
		"v1/chat/completions?a=b": {http.StatusBadRequest, "invalid_request"},
		"v1/%2e%2e/x":             {http.StatusBadRequest, "invalid_request"},
	} {
		t.Run(path, func(t *testing.T) {
			m.t = t
			m.proxyAs("", "r", path, chatBody("m")).want(t, want.status, want.code)
		})
	}
	m.t = t
	wantNothingSent(t, up)
}

func TestProxy_ProviderErrorsPassThroughUnchanged(t *testing.T) {
	m, up, _ := newProxyMount(t, nil)
	for _, status := range []int{400, 401, 404, 429, 500, 503} {
		const body = `{"error":{"message":"the provider's own words"}}`
		up.answer = func(*http.Request) (*http.Response, error) {
			resp := answerWith(status, "application/json; charset=utf-8", body)
			resp.Header.Set("Retry-After", "7")
			return resp, nil
		}
		answer := m.chat("r", "m")
		if answer.Status != status || answer.Body != body || answer.Type != "application/json; charset=utf-8" || answer.Header.Get("Retry-After") != "7" {
			t.Errorf("%d became %+v", status, answer)
		}
	}
	up.answer = unreachable
	m.chat("r", "m").want(t, http.StatusBadGateway, "upstream_unreachable")
}

func TestProxy_AnEchoedProviderKeyIsMasked(t *testing.T) {
	m, up, _ := newProxyMount(t, nil)
	up.answer = func(r *http.Request) (*http.Response, error) {
		resp := answerWith(http.StatusOK, "text/plain", "you sent "+r.Header.Get("Authorization"))
		resp.Header.Set("X-Echo", r.Header.Get("Authorization"))
		return resp, nil
	}
	answer := m.chat("r", "m") // the harness looks for the secret
	if !strings.HasPrefix(answer.Body, "you sent Bearer ***") {
		t.Errorf("answered %q", answer.Body)
	}
}

func TestProxy_AStreamArrivesWhole(t *testing.T) {
	m, up, _ := newProxyMount(t, nil)
	const stream = "data: {\"choices\":[]}\n\ndata: [DONE]\n\n"
	up.answer = func(*http.Request) (*http.Response, error) {
		return answerWith(http.StatusOK, "text/event-stream", stream), nil
	}
	body := chatBody("m")
	body["stream"] = true
	answer := m.proxyAs("", "r", "v1/chat/completions", body)
	if answer.Status != http.StatusOK || answer.Type != "text/event-stream" || answer.Body != stream {
		t.Errorf("answered %+v", answer)
	}
	if answer.Header.Get("Content-Length") != "" {
		t.Error("a Content-Length is passed on, which is Vault's to set")
	}
}

func TestProxy_AnswersPastTheCapAreRefusedWhole(t *testing.T) {
	m, up, _ := newProxyMount(t, nil)
	m.write("config", map[string]any{"inline_max_answer_bytes": 1024})
	for _, contentType := range []string{"application/json", "text/event-stream"} {
		for size, status := range map[int]int{1024: http.StatusOK, 1025: http.StatusBadGateway} {
			up.answer = func(*http.Request) (*http.Response, error) {
				return answerWith(http.StatusOK, contentType, strings.Repeat("x", size)), nil
			}
			answer := m.chat("r", "m")
			if status == http.StatusOK {
				if answer.Status != status || len(answer.Body) != size {
					t.Errorf("%d bytes: answered %d with %d bytes", size, answer.Status, len(answer.Body))
				}
				continue
			}
			answer.want(t, status, "upstream_answer_too_large")
			if answer.Type != "application/json" || !strings.Contains(answer.Body, "inline_max_answer_bytes") {
				t.Errorf("answered %+v", answer)
			}
		}
	}
}

// blocking makes up's answers wait. arrived gets one value per request.
func (u *upstream) blocking() (arrived <-chan struct{}, release func()) {
	in, gate := make(chan struct{}, 16), make(chan struct{})
	u.answer = func(r *http.Request) (*http.Response, error) {
		in <- struct{}{}
		select {
		case <-gate:
			return answerWith(http.StatusOK, "application/json", "{}"), nil
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
	return in, func() { close(gate) }
}

// inBackground makes a chat request that may take long.
func (m *mount) inBackground(role string) <-chan inlineAnswer {
	done := make(chan inlineAnswer, 1)
	go func() {
		answer, err := m.proxyRequest(logical.UpdateOperation, "", role+"/v1/chat/completions", chatBody("m"))
		if err != nil {
			m.t.Error(err)
		}
		done <- answer
	}()
	return done
}

func TestProxy_CallsPastTheCapGet429AndAreNotSent(t *testing.T) {
	m, up, _ := newProxyMount(t, nil)
	m.write("config", map[string]any{"inline_max_concurrent": 2})
	arrived, release := up.blocking()
	running := []<-chan inlineAnswer{m.inBackground("r"), m.inBackground("r")}
	<-arrived
	<-arrived
	wantFields(t, m.read("status"), map[string]any{"inline_calls": 2})
	answer := m.chat("r", "m")
	answer.want(t, http.StatusTooManyRequests, "rate_limit_exceeded")
	if answer.Header.Get("Retry-After") != "1" || !strings.Contains(answer.Body, "inline_max_concurrent") {
		t.Errorf("answered %+v", answer)
	}
	if n := len(up.requests()); n != 2 {
		t.Errorf("%d requests were sent", n)
	}
	release()
	for _, done := range running {
		if a := <-done; a.Status != http.StatusOK {
			t.Errorf("a call within the cap got %+v", a)
		}
	}
	m.chat("r", "m").want(t, http.StatusOK, "")
	m.chat("none", "m").want(t, http.StatusNotFound, "virtual_key_not_found")
	wantFields(t, m.read("status"), map[string]any{"inline_calls": 0})
}

func TestProxy_TheEndOfTheMountCancelsWhatIsUnderWay(t *testing.T) {
	m, up, _ := newProxyMount(t, nil)
	arrived, _ := up.blocking()
	done := m.inBackground("r")
	<-arrived
	m.Cleanup(t.Context())
	soon(t, "the call", func() {
		if a := <-done; a.Status < 400 {
			t.Errorf("answered %+v", a)
		}
	})
	m.chat("r", "m").want(t, http.StatusServiceUnavailable, "not_active")
}

func TestProxy_ABodyThatIsNoRequestIsRefused(t *testing.T) {
	m, up, _ := newProxyMount(t, nil)
	m.proxyAs("", "r", "v1/chat/completions", nil).want(t, http.StatusBadRequest, "model_required")
	m.proxyAs("", "r", "v1/chat/completions", map[string]any{"model": 5}).want(t, http.StatusBadRequest, "invalid_request")
	m.proxyAs("", "r", "v1/chat/completions", map[string]any{"model": "m", "Model": "x"}).want(t, http.StatusBadRequest, "invalid_request")
	wantNothingSent(t, up)
}

func TestProxy_TheSandboxNeedsNoKeyAndNoNetwork(t *testing.T) {
	m := newMount(t, Options{})
	m.write("keys/test", map[string]any{"provider": "sandbox"})
	m.write("roles/demo", map[string]any{"key": "test"})
	data := m.write("proxy/demo", map[string]any{"model": "sandbox-small", "prompt": "Hello"}).Data
	if data["content"] == "" || data["model"] != "sandbox-small" {
		t.Errorf("answered %v", data)
	}
	wantFields(t, m.write("keys/test/verify", nil).Data, map[string]any{"result": "inconclusive"})
}

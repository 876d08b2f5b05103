// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"net/http"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

func (m *mount) cli(data map[string]any) inlineAnswer {
	m.t.Helper()
	resp, err := m.call(logical.UpdateOperation, "proxy/r", data)
	if err != nil {
		m.t.Fatal(err)
	}
	answer, err := rawAnswer(resp)
	if err != nil {
		m.t.Fatalf("%v: %v", err, resp.Data)
	}
	return answer
}

func TestProxyCLI_AnswersInVaultsShape(t *testing.T) {
	m, up, _ := newProxyMount(t, nil)
	resp := m.write("proxy/r", map[string]any{"model": "gpt-4o", "prompt": "Hello", "system": "Be brief.", "max_tokens": "5", "temperature": "0.5"})
	data := overJSON(t, resp.Data)
	wantFields(t, data, map[string]any{"content": "Hi", "model": "gpt-4o", "finish_reason": "stop", "usage": map[string]any{"total_tokens": 3}})
	if data["trace_id"] == "" || data["trace_id"] != http.Header(resp.Headers).Get("X-Portkey-Trace-Id") {
		t.Errorf("trace id %v, header %v", data["trace_id"], resp.Headers)
	}
	for _, name := range []string{"Content-Type", "Content-Length"} {
		if v := http.Header(resp.Headers).Get(name); v != "" {
			t.Errorf("%s: %s is the provider's, and Vault's answer is another", name, v)
		}
	}
	wantJSON(t, up.last(t).Body, map[string]any{
		"model": "gpt-4o", "max_tokens": 5, "temperature": 0.5,
		"messages": []any{map[string]any{"role": "system", "content": "Be brief."}, map[string]any{"role": "user", "content": "Hello"}},
	})
	m.write("proxy/r/", map[string]any{"model": "gpt-4o", "prompt": "Hello"}) // as Vault may spell it
}

func TestProxyCLI_SaysWhatItCostAndHowThatIsKnown(t *testing.T) {
	m, up, _ := newPricedMount(t, &logical.InmemStorage{})
	m.write("prices/openai/m", map[string]any{"input": 1, "output": 10})
	if got := m.costOf("m"); got != "0.002" {
		t.Errorf("with usage: %q", got)
	}
	if got := m.costOf("unknown"); got != "" {
		t.Errorf("without a price: %q", got)
	}
	up.answer = func(*http.Request) (*http.Response, error) {
		return answerWith(http.StatusOK, "application/json", `{"choices":[{"message":{"content":"Hi"}}]}`), nil
	}
	if got := m.costOf("m"); !strings.HasPrefix(got, "0.") || !strings.Contains(got, "unconfirmed") {
		t.Errorf("without usage: %q", got)
	}
}

func TestProxyCLI_UsesTheRolesModelWhenNoneIsGiven(t *testing.T) {
	m, up, _ := newProxyMount(t, map[string]any{"default_params": map[string]any{"model": "gpt-4o"}})
	m.write("proxy/r", map[string]any{"prompt": "Hello"})
	wantJSON(t, up.last(t).Body, chatBody("gpt-4o"))
}

func TestProxyCLI_ErrorsAreWhatTheCLIPrints(t *testing.T) {
	m, up, _ := newProxyMount(t, map[string]any{"models": "gpt-4o"})
	for _, c := range []struct {
		data   map[string]any
		status int
		code   string
	}{
		{map[string]any{"model": "gpt-4o"}, http.StatusBadRequest, "invalid_request"},
		{map[string]any{"model": "gpt-4o", "prompt": "  "}, http.StatusBadRequest, "invalid_request"},
		{map[string]any{"model": "gpt-4o", "promt": "Hello", "prompt": "x"}, http.StatusBadRequest, "invalid_request"},
		{map[string]any{"prompt": "Hello"}, http.StatusBadRequest, "model_required"},
		{map[string]any{"model": "o3", "prompt": "Hello"}, http.StatusForbidden, "model_not_allowed"},
	} {
		m.cli(c.data).want(t, c.status, c.code)
	}
	wantNothingSent(t, up)
	m.refused(logical.UpdateOperation, "proxy/r", map[string]any{"model": "gpt-4o", "prompt": "Hello", "max_tokens": "many"}, "max_tokens")

	hello := map[string]any{"model": "gpt-4o", "prompt": "Hello"}
	up.answer = always(http.StatusTooManyRequests)
	if got := m.cli(hello); got.Status != http.StatusTooManyRequests || got.Body != `{"error":{"message":"no"}}` {
		t.Errorf("the provider's error became %+v", got)
	}
	for _, garbage := range []string{"<html>", `{"choices":[]}`, `[]`, ""} {
		up.answer = func(*http.Request) (*http.Response, error) { return answerWith(200, "text/html", garbage), nil }
		m.cli(hello).want(t, http.StatusBadGateway, "upstream_unreachable")
	}
	m.delete("roles/r")
	m.cli(hello).want(t, http.StatusNotFound, "virtual_key_not_found")
}

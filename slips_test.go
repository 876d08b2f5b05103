// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

func TestWrite_ABlankAPIKeyKeepsTheStoredOne(t *testing.T) {
	m := newMount(t, Options{})
	m.write("keys/a", map[string]any{"provider": "openai-compatible", "base_url": "https://llm.example.com/v1", "api_key": secretA})
	before := m.read("keys/a")
	for _, op := range []logical.Operation{logical.UpdateOperation, logical.PatchOperation} {
		for _, blank := range []string{"", "  ", "\n"} {
			m.refused(op, "keys/a", map[string]any{"api_key": blank}, "api_key is empty")
		}
	}
	if now := m.read("keys/a"); !reflect.DeepEqual(now, before) {
		t.Errorf("now %v", now)
	}
	m.patch("keys/a", map[string]any{"api_key": nil})
	if now := m.read("keys/a"); now["fingerprint"] != "" {
		t.Errorf("PATCH with null left %v", now)
	}
}

func TestWrite_NullOpensNoRestriction(t *testing.T) {
	m := newMount(t, Options{})
	m.write("keys/a", map[string]any{"provider": "sandbox"})
	m.write("roles/r", map[string]any{"key": "a", "models": "x", "allowed_group_names": "g"})
	before := m.read("roles/r")
	for _, field := range []string{"models", "allowed_group_names", "enabled", "ttl"} {
		m.refused(logical.UpdateOperation, "roles/r", map[string]any{field: nil}, field, "null")
	}
	if now := m.read("roles/r"); !reflect.DeepEqual(now, before) {
		t.Errorf("now %v", now)
	}
}

func TestWrite_NameValuePairsCanBeClearedAndGivenAsJSONText(t *testing.T) {
	m := newMount(t, Options{})
	m.write("keys/a", map[string]any{"provider": "sandbox", "headers": "X-A=1", "metadata": `{"team":"a","x":"y=z"}`})
	if now := m.read("keys/a"); !reflect.DeepEqual(now["metadata"], map[string]any{"team": "a", "x": "y=z"}) {
		t.Errorf("metadata %v", now["metadata"])
	}
	m.write("keys/a", map[string]any{"headers": "", "metadata": "{}"})
	if now := m.read("keys/a"); len(now["metadata"].(map[string]any))+len(now["headers"].(map[string]any)) != 0 {
		t.Errorf("now %v", now)
	}
}

func TestWrite_NamesThatStorageRefusesAreTheCallersFault(t *testing.T) {
	m := newMount(t, Options{})
	m.refused(logical.UpdateOperation, "roles/a..b", map[string]any{"key": "a"}, "two dots")
	m.refused(logical.ReadOperation, "keys/a..b", nil, "two dots")
}

func TestRole_ParametersThatDifferInCaseOnlyAreRefused(t *testing.T) {
	m := newMount(t, Options{})
	m.write("keys/a", map[string]any{"provider": "sandbox"})
	m.refused(logical.UpdateOperation, "roles/r", map[string]any{"key": "a", "forced_params": map[string]any{"User": 1, "user": 2}}, "differ in case only")
}

// empty answers with a status and no body.
type empty int

func (e empty) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: int(e), Header: http.Header{}, Body: io.NopCloser(strings.NewReader("")), Request: r}, nil
}

func TestProxy_AnEmptyAnswerIsABodyOfNoBytesAndNotNone(t *testing.T) {
	for _, status := range []int{http.StatusOK, http.StatusNotFound, http.StatusServiceUnavailable} {
		m := newMount(t, Options{Transport: empty(status)})
		m.write("keys/a", openaiKey(secretA))
		m.write("roles/r", map[string]any{"key": "a"})
		resp, err := m.HandleRequest(t.Context(), &logical.Request{
			Operation: logical.ReadOperation, Path: "proxy/r/v1/models", Storage: m.storage, MountPoint: "portkey/",
		})
		if err != nil {
			t.Fatal(err)
		}
		if body := resp.Data[logical.HTTPRawBody].([]byte); body == nil || len(body) != 0 || resp.Data[logical.HTTPStatusCode] != status {
			t.Errorf("%d: %v", status, resp.Data)
		}
	}
}

func TestByteBudget_HoldsAndIsGivenBack(t *testing.T) {
	var budget byteBudget
	a, b := newBufferedAnswer(0), newBufferedAnswer(0)
	a.budget, b.budget = &budget, &budget
	budget.used.Store(inlineBudget - 10)
	if _, err := a.Write(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Write(make([]byte, 1)); err == nil {
		t.Error("more was taken than the budget holds")
	}
	a.release()
	a.release()
	if _, err := b.Write(make([]byte, 10)); err != nil {
		t.Error("what was released can't be taken:", err)
	}
}

func TestCLI_AKeyThatOnlyDecodingBringsOutIsMasked(t *testing.T) {
	answer := newBufferedAnswer(0)
	var spelt strings.Builder
	for _, c := range secretA {
		spelt.WriteString(`\u00`)
		spelt.WriteString(strings.ToLower(hexByte(byte(c))))
	}
	_, _ = answer.Write([]byte(`{"model":"m","choices":[{"message":{"content":"it is ` + spelt.String() + `"},"finish_reason":"stop"}]}`))
	data, err := completionData(answer, []string{secretA})
	if err != nil || strings.Contains(data["content"].(string), secretA) || !strings.HasPrefix(data["content"].(string), "it is ***") {
		t.Errorf("%v %v", data, err)
	}
}

func hexByte(b byte) string {
	const digits = "0123456789abcdef"
	return string([]byte{digits[b>>4], digits[b&15]})
}

// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

// upstream stands for every provider: it records what it is sent, and answers.
type upstream struct {
	// answer answers a request; nil gives a chat completion of the model that
	// was asked for. It is set before requests are made.
	answer func(*http.Request) (*http.Response, error)

	mu   sync.Mutex
	seen []sentRequest
}

// sentRequest is what reached the provider.
type sentRequest struct {
	Method, URL string
	Header      http.Header
	Body        string
}

var _ http.RoundTripper = (*upstream)(nil)

func (u *upstream) RoundTrip(r *http.Request) (*http.Response, error) {
	sent := sentRequest{Method: r.Method, URL: r.URL.String(), Header: r.Header.Clone()}
	if r.Body != nil {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		sent.Body = string(body)
	}
	u.mu.Lock()
	u.seen = append(u.seen, sent)
	u.mu.Unlock()
	if u.answer != nil {
		return u.answer(r)
	}
	var asked struct{ Model string }
	if sent.Body != "" {
		if err := json.Unmarshal([]byte(sent.Body), &asked); err != nil {
			return nil, err
		}
	}
	return answerWith(http.StatusOK, "application/json", `{"model":"`+asked.Model+`","choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}],"usage":{"total_tokens":3}}`), nil
}

// requests returns what has been sent so far.
func (u *upstream) requests() []sentRequest {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]sentRequest(nil), u.seen...)
}

// last returns the latest request.
func (u *upstream) last(t *testing.T) sentRequest {
	t.Helper()
	all := u.requests()
	if len(all) == 0 {
		t.Fatal("nothing was sent to the provider")
	}
	return all[len(all)-1]
}

func answerWith(status int, contentType, body string) *http.Response {
	return &http.Response{
		StatusCode: status, Header: http.Header{"Content-Type": {contentType}, "Content-Length": {strconv.Itoa(len(body))}},
		Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
	}
}

// always answers every request with this status.
func always(status int) func(*http.Request) (*http.Response, error) {
	return func(*http.Request) (*http.Response, error) {
		return answerWith(status, "application/json", `{"error":{"message":"no"}}`), nil
	}
}

func unreachable(*http.Request) (*http.Response, error) {
	return nil, errors.New("connection refused")
}

// inlineAnswer is a raw answer of the proxy path.
type inlineAnswer struct {
	Status int
	Type   string
	Body   string
	Header http.Header
}

// proxy makes a request on the proxy path, as the caller with this entity id.
func (m *mount) proxyRequest(op logical.Operation, entity, path string, data map[string]any) (inlineAnswer, error) {
	resp, err := m.HandleRequest(m.t.Context(), &logical.Request{
		Operation: op, Path: proxyPrefix + path, Data: overJSON(m.t, data),
		Storage: m.storage, MountPoint: "portkey/", EntityID: entity,
	})
	m.noSecret(op, proxyPrefix+path, resp, err)
	if err != nil {
		return inlineAnswer{}, err
	}
	return rawAnswer(resp)
}

func rawAnswer(resp *logical.Response) (inlineAnswer, error) {
	status, hasStatus := resp.Data[logical.HTTPStatusCode].(int)
	// As bytes: Vault would decode a string that happens to be base64.
	body, isBytes := resp.Data[logical.HTTPRawBody].([]byte)
	contentType, hasType := resp.Data[logical.HTTPContentType].(string)
	if !hasStatus || !isBytes || !hasType {
		return inlineAnswer{}, errors.New("not a raw answer")
	}
	return inlineAnswer{Status: status, Type: contentType, Body: string(body), Header: resp.Headers}, nil
}

func (m *mount) proxyAs(entity, role, path string, body map[string]any) inlineAnswer {
	m.t.Helper()
	answer, err := m.proxyRequest(logical.UpdateOperation, entity, role+"/"+path, body)
	if err != nil {
		m.t.Fatalf("proxy/%s/%s: %v", role, path, err)
	}
	return answer
}

// chatBody is a minimal chat completion request; no model where it is empty.
func chatBody(model string) map[string]any {
	body := map[string]any{"messages": []any{map[string]any{"role": "user", "content": "Hello"}}}
	if model != "" {
		body["model"] = model
	}
	return body
}

func (m *mount) chat(role, model string) inlineAnswer {
	m.t.Helper()
	return m.proxyAs("", role, "v1/chat/completions", chatBody(model))
}

// want fails the test unless the answer has this status, and this code if it
// is an error.
func (a inlineAnswer) want(t *testing.T, status int, code string) {
	t.Helper()
	got := ""
	if a.Status >= 400 {
		got = a.code(t)
	}
	if a.Status != status || got != code {
		t.Fatalf("answered %d %q, want %d %q: %s", a.Status, got, status, code, a.Body)
	}
}

func (a inlineAnswer) code(t *testing.T) string {
	t.Helper()
	var e struct {
		Error struct {
			Message, Type, Code string
		}
		Errors []string
	}
	if err := json.Unmarshal([]byte(a.Body), &e); err != nil || len(e.Errors) != 1 || e.Errors[0] != e.Error.Message || e.Error.Type == "" {
		t.Fatalf("not an error in the documented shape: %q", a.Body)
	}
	return e.Error.Code
}

// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// virtualClock passes time only while somebody sleeps, and at once.
type virtualClock struct {
	mu  sync.Mutex
	now time.Time
}

var _ Clock = (*virtualClock)(nil)

func newVirtualClock() *virtualClock { return &virtualClock{now: time.Unix(1_800_000_000, 0)} }

func (c *virtualClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *virtualClock) Sleep(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	return ctx.Err()
}

func request(t testing.TB, method, path, body string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "sandbox://sandbox"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	return req
}

// do returns the status, the header and the body of an answer.
func do(t testing.TB, s *Sandbox, req *http.Request) (int, http.Header, string) {
	t.Helper()
	resp, err := s.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(body)
}

// post expects status 200.
func post(t testing.TB, s *Sandbox, path, body string) string {
	t.Helper()
	status, _, answer := do(t, s, request(t, "POST", path, body))
	if status != http.StatusOK {
		t.Fatalf("POST %s %s: status %d: %s", path, body, status, answer)
	}
	return answer
}

// minimal is the smallest request that path takes, with more members after it.
func minimal(path, model, more string) string {
	input := map[string]string{
		pathChat: `"messages":[{"role":"user","content":"x"}]`, pathCompletions: `"prompt":"x"`,
		pathResponses: `"input":"x"`, pathEmbeddings: `"input":"x"`,
	}
	return fmt.Sprintf(`{"model":%q,%s%s}`, model, input[path], more)
}

func object(t testing.TB, text string) map[string]any {
	t.Helper()
	var o map[string]any
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	return o
}

// at follows keys and indexes into decoded JSON.
func at(t testing.TB, v any, path ...any) any {
	t.Helper()
	for _, p := range path {
		switch p := p.(type) {
		case string:
			o, _ := v.(map[string]any)
			v = o[p]
		case int:
			l, _ := v.([]any)
			if p >= len(l) {
				t.Fatalf("no element %d of %v in %v", p, path, l)
			}
			v = l[p]
		}
	}
	return v
}

func TestSandbox_ServesATransportUnderItsScheme(t *testing.T) {
	transport := &http.Transport{}
	transport.RegisterProtocol("sandbox", New(Options{}))
	client := &http.Client{Transport: transport}
	resp, err := client.Post("sandbox://sandbox/v1/chat/completions", "application/json",
		strings.NewReader(`{"model":"sandbox-small:tokens=5","messages":[{"role":"user","content":"hi"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 200 || resp.ContentLength != int64(len(body)) || at(t, object(t, string(body)), "usage", "completion_tokens") != 5.0 {
		t.Errorf("status %d, length %d: %s", resp.StatusCode, resp.ContentLength, body)
	}
}

// sampleRequests are requests of every kind, as path and body.
func sampleRequests() [][2]string {
	return [][2]string{
		{pathChat, `{"model":"sandbox-small","messages":[{"role":"user","content":"hi"}]}`},
		{pathChat, `{"model":"sandbox-small","messages":[{"role":"user","content":"hi"}],"stream":true,"stream_options":{"include_usage":true}}`},
		{pathChat, `{"model":"sandbox-reasoning","messages":[{"role":"user","content":"hi"}],"n":3,"stream":true}`},
		{pathCompletions, `{"model":"sandbox-large","prompt":["a","b"],"n":2}`},
		{pathCompletions, `{"model":"sandbox-small","prompt":"a","stream":true}`},
		{pathResponses, `{"model":"sandbox-reasoning","input":"hi"}`},
		{pathResponses, `{"model":"sandbox-small","input":"hi","stream":true}`},
		{pathEmbeddings, `{"model":"sandbox-embedding","input":["a","b"]}`},
		{pathChat, `{"model":"nothing","messages":[]}`},
	}
}

func TestSandbox_SameRequestGetsTheSameAnswerFromAnotherSandbox(t *testing.T) {
	for _, r := range sampleRequests() {
		one, _, first := do(t, New(Options{Clock: newVirtualClock()}), request(t, "POST", r[0], r[1]))
		two, _, second := do(t, New(Options{Clock: newVirtualClock()}), request(t, "POST", r[0], r[1]))
		if one != two || first != second {
			t.Errorf("%s %s:\n%s\n%s", r[0], r[1], first, second)
		}
	}
}

func TestSandbox_AnswerDependsOnPromptSeedModelAndEndpointAlone(t *testing.T) {
	s := New(Options{})
	say := func(path, body string) string {
		o := object(t, post(t, s, path, body))
		if path == pathChat {
			return at(t, o, "choices", 0, "message", "content").(string)
		}
		return at(t, o, "choices", 0, "text").(string)
	}
	chat := func(model, text, more string) string {
		return say(pathChat, fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":%q}]%s}`, model, text, more))
	}
	first := chat("sandbox-small", "hi", "")
	for name, same := range map[string]string{
		"modifiers that don't change the text": chat("sandbox-small:cached=1:no-usage", "hi", ""),
		"sampling":                             chat("sandbox-small", "hi", `,"temperature":0.5,"user":"x"`),
	} {
		if same != first {
			t.Errorf("%s changed the answer", name)
		}
	}
	for name, other := range map[string]string{
		"prompt":   chat("sandbox-small", "hi!", ""),
		"model":    chat("sandbox-large:tokens=32", "hi", ""),
		"seed":     chat("sandbox-small", "hi", `,"seed":7`),
		"endpoint": say(pathCompletions, `{"model":"sandbox-small","prompt":["user","hi"]}`),
	} {
		if other == first {
			t.Errorf("%s made no difference", name)
		}
	}
	if say(pathCompletions, `{"model":"sandbox-small","prompt":["a","bc"]}`) == say(pathCompletions, `{"model":"sandbox-small","prompt":["ab","c"]}`) {
		t.Error("where one prompt ends and the next begins made no difference")
	}
}

func TestSandbox_BothDoorsGiveTheSameAnswer(t *testing.T) {
	s := New(Options{Clock: newVirtualClock()})
	for _, r := range sampleRequests() {
		status, header, body := do(t, s, request(t, "POST", r[0], r[1]))
		w := httptest.NewRecorder()
		s.ServeHTTP(w, request(t, "POST", r[0], r[1]))
		if w.Code != status || w.Body.String() != body || w.Header().Get("Content-Type") != header.Get("Content-Type") {
			t.Errorf("%s %s: handler says %d %s, round trip %d %s", r[0], r[1], w.Code, w.Body, status, body)
		}
		if stream := header.Get("Content-Type") == "text/event-stream; charset=utf-8"; stream && !w.Flushed {
			t.Errorf("%s %s: the stream was not flushed", r[0], r[1])
		}
	}
}

func TestSandbox_ManyRequestsAtOnceDontDisturbEachOther(t *testing.T) {
	s := New(Options{Clock: newVirtualClock()})
	var wait sync.WaitGroup
	for _, r := range sampleRequests() {
		_, _, want := do(t, s, request(t, "POST", r[0], r[1]))
		for range 16 {
			wait.Go(func() {
				for range 8 {
					resp, err := s.RoundTrip(request(t, "POST", r[0], r[1]))
					if err != nil {
						t.Error(err)
						return
					}
					got, err := io.ReadAll(resp.Body)
					resp.Body.Close()
					if err != nil || string(got) != want {
						t.Errorf("%s %s: %v\n%s\n%s", r[0], r[1], err, got, want)
						return
					}
				}
			})
		}
	}
	wait.Wait()
}

// closeRecorder tells whether a request's body was closed.
type closeRecorder struct {
	io.Reader
	closed bool
}

func (c *closeRecorder) Close() error { c.closed = true; return nil }

func TestSandbox_ClosesTheRequestsBody(t *testing.T) {
	for _, path := range []string{pathChat, "/nowhere"} {
		body := &closeRecorder{Reader: strings.NewReader("{}")}
		req := request(t, "POST", path, "")
		req.Body = body
		do(t, New(Options{}), req)
		if !body.closed {
			t.Errorf("%s: not closed", path)
		}
	}
}

// failingReader is a body that can't be read.
type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestSandbox_BodyThatCannotBeReadIsAnError(t *testing.T) {
	req := request(t, "POST", pathChat, "")
	req.Body, req.ContentLength = io.NopCloser(failingReader{}), -1
	if resp, err := New(Options{}).RoundTrip(req); err == nil {
		resp.Body.Close()
		t.Error("no error")
	}
}

func TestSandbox_RefusesBodiesOverTheBoundWith413(t *testing.T) {
	s := New(Options{})
	said := request(t, "POST", pathChat, "")
	said.ContentLength = maxBodyBytes + 1
	unsaid := request(t, "POST", pathChat, "")
	unsaid.Body, unsaid.ContentLength = io.NopCloser(bytes.NewReader(make([]byte, maxBodyBytes+1))), -1
	for name, req := range map[string]*http.Request{"length said": said, "length unsaid": unsaid} {
		if status, _, body := do(t, s, req); status != http.StatusRequestEntityTooLarge || !strings.Contains(body, "33554432 bytes") {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
	fits := `{"model":"sandbox-embedding","input":"` + strings.Repeat("x", 1000) + `"` + strings.Repeat(" ", maxBodyBytes-1040)
	fits += strings.Repeat(" ", maxBodyBytes-1-len(fits)) + "}"
	if status, _, body := do(t, s, request(t, "POST", pathEmbeddings, fits)); status != 200 {
		t.Errorf("a body of %d bytes: %d %.200s", len(fits), status, body)
	}
}

// SPDX-License-Identifier: MPL-2.0

package upstream

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestParseBehaviour_BoundsEveryArgument(t *testing.T) {
	for name, want := range map[string]behaviour{
		"up-slow:50":                      {kind: kindSlow, delay: 50 * time.Millisecond},
		"up-stream:3:20":                  {kind: kindStream, events: 3, interval: 20 * time.Millisecond},
		"up-random:2:7":                   {kind: kindRandom, fewest: 2, events: 7},
		"up-random:0:0:30":                {kind: kindRandom, delay: 30 * time.Millisecond},
		"up-big:1024":                     {kind: kindBig, bytes: 1024},
		"up-503":                          {kind: kindStatus, status: 503},
		"up-garbage:http":                 {kind: kindGarbage, variant: "http"},
		"up-redirect:http://a:1/v1?q=2":   {kind: kindRedirect, status: 307, target: "http://a:1/v1?q=2"},
		"up-redirect:302:https://b/v1/x":  {kind: kindRedirect, status: 302, target: "https://b/v1/x"},
		"up-redirect:/v1/somewhere:else":  {kind: kindRedirect, status: 307, target: "/v1/somewhere:else"},
		"up-error-event":                  {kind: kindErrorEvent},
		"up-redirect:301:http://a/%41?é":  {kind: kindRedirect, status: 301, target: "http://a/%41?é"},
		"up-stream:0:0":                   {kind: kindStream},
		"up-redirect:308:http://[::1]:1/": {kind: kindRedirect, status: 308, target: "http://[::1]:1/"},
	} {
		got, ok, err := parseBehaviour(name)
		if got != want || !ok || err != nil {
			t.Errorf("%s: %+v, %t, %v", name, got, ok, err)
		}
	}
	for _, name := range []string{
		"up-slow", "up-slow:", "up-slow:-1", "up-slow:600001", "up-slow:1e3", "up-slow:٣", "up-stream:5", "up-stream:100001:0",
		"up-random", "up-random:5", "up-random:5:", "up-random:5:4", "up-random:-1:4", "up-random:1:100001", "up-random:1:2:", "up-random:1:2:600001", "up-random:1:2:3:4",
		"up-big:268435457", "up-big:99999999999999999999", "up-garbage:x", "up-redirect:", "up-redirect:200:http://a", "up-redirect:http://a/\r\nX: y", "up-ok:1", "up-hang:",
	} {
		if _, ok, err := parseBehaviour(name); !ok || err == nil {
			t.Errorf("%q was let through", name)
		}
	}
	for _, name := range []string{"", "up", "up-", "up-200", "up-399", "up-600", "up-nonsense", "UP-ok", "up-400:1"} {
		if _, ok, err := parseBehaviour(name); ok || err != nil {
			t.Errorf("%q is no behaviour, but: %t, %v", name, ok, err)
		}
	}
}

func TestStatus_HasOpenAIsErrorBody(t *testing.T) {
	s := Start(t, Options{})
	for _, c := range []struct {
		model, code string
		status      int
	}{
		{"up-400", "refused_by_upstream", 400},
		{"up-401", "invalid_api_key", 401},
		{"up-403", "model_not_allowed", 403},
		{"up-404", "model_not_found", 404},
		{"up-429", "rate_limit_exceeded", 429},
		{"up-500", "", 500},
		{"up-503", "engine_overloaded", 503},
		{"up-599", "", 599},
	} {
		r := post(t, s, "/chat/completions", chatCall(c.model, `,"stream":true`))
		e := decode[errorBody](t, r.body).Error
		code := ""
		if e.Code != nil {
			code = *e.Code
		}
		if r.status != c.status || code != c.code || e.Message == "" || e.Type == "" {
			t.Errorf("%s: %d %s", c.model, r.status, r.body)
		}
		if got := r.header.Get("Retry-After"); (got != "") != (c.status == 429) {
			t.Errorf("%s: Retry-After %q", c.model, got)
		}
	}
}

func TestWrongKey_Is401WithAMaskedKeyAndKeysRotateAtOnce(t *testing.T) {
	const old, renewed = "sk-old-0123456789-wxyz", "sk-new-0123456789-wxyz"
	s := Start(t, Options{Keys: []string{old}})
	c := client(t)
	ask := func(authorization string) reply {
		r := newRequest(t, http.MethodGet, s.URL()+"/models", "")
		r.Header.Set("Authorization", authorization)
		return roundTrip(c, r)
	}
	ask("Bearer " + old).ok(t)
	s.SetKeys(renewed)
	ask("Bearer " + renewed).ok(t)
	r := ask("Bearer " + old)
	message := decode[errorBody](t, r.body).Error.Message
	if r.status != 401 || strings.Contains(message, old) || !strings.Contains(message, "sk-old-0**********wxyz") {
		t.Errorf("old key: %d %s", r.status, r.body)
	}
	for _, authorization := range []string{"", "Basic " + renewed, renewed} {
		if r := ask(authorization); r.status != 401 || !strings.Contains(string(r.body), "You didn't provide an API key") {
			t.Errorf("Authorization %q: %d %s", authorization, r.status, r.body)
		}
	}
	if got := s.Requests()[2].Key; got != old {
		t.Errorf("recorded key %q", got)
	}
}

func TestKeyHeader_CarriesTheBareKey(t *testing.T) {
	s := Start(t, Options{Keys: []string{"k"}, KeyHeader: "api-key"})
	r := newRequest(t, http.MethodGet, s.URL()+"/models", "")
	r.Header.Set("Authorization", "Bearer k")
	if got := roundTrip(client(t), r.Clone(r.Context())).status; got != 401 {
		t.Errorf("Authorization was taken: %d", got)
	}
	r.Header.Set("Api-Key", "k")
	roundTrip(client(t), r).ok(t)
}

func TestReset_BreaksTheConnection(t *testing.T) {
	s := Start(t, Options{})
	if r := post(t, s, "/chat/completions", chatCall("up-reset", "")); !errors.Is(r.err, syscall.ECONNRESET) {
		t.Errorf("up-reset: %d, %v", r.status, r.err)
	}
	for _, extra := range []string{"", `,"stream":true`} {
		// How much of it arrives before the RST is the kernel's to say.
		if r := post(t, s, "/chat/completions", chatCall("up-reset-mid", extra)); r.err == nil {
			t.Errorf("up-reset-mid%s: a whole answer: %q", extra, r.body)
		}
	}
	for _, r := range s.Requests() {
		if r.Cancelled {
			t.Errorf("%s counts as cancelled by the client", r.Model)
		}
	}
}

func TestGarbage_CantBeRead(t *testing.T) {
	s := Start(t, Options{})
	r := post(t, s, "/chat/completions", chatCall("up-garbage", "")).ok(t)
	if !strings.HasPrefix(string(r.body), "<html>") || r.header.Get("Content-Type") != "application/json" {
		t.Errorf("body %q", r.body)
	}
	if r := post(t, s, "/chat/completions", chatCall("up-garbage:http", "")); r.err == nil || !strings.Contains(r.err.Error(), "malformed HTTP") {
		t.Errorf("http: %d, %v", r.status, r.err)
	}
	if r := post(t, s, "/chat/completions", chatCall("up-garbage:short", "")); !errors.Is(r.err, io.ErrUnexpectedEOF) {
		t.Errorf("short: %q, %v", r.body, r.err)
	}
}

func TestRedirect_GoesWhereTheModelSays(t *testing.T) {
	s := Start(t, Options{})
	r := post(t, s, "/chat/completions", chatCall("up-redirect:302:http://127.0.0.1:9/v1/x", ""))
	if r.status != 302 || r.header.Get("Location") != "http://127.0.0.1:9/v1/x" {
		t.Errorf("%d to %q, %v", r.status, r.header.Get("Location"), r.err)
	}
}

func TestBig_IsExactlyThatLarge(t *testing.T) {
	s := Start(t, Options{})
	for _, path := range []string{"/chat/completions", "/completions", "/responses"} {
		r := post(t, s, path, `{"model":"up-big:1000003","messages":[],"prompt":"","input":""}`).ok(t)
		if len(r.body) != 1000003 {
			t.Errorf("%s: %d bytes", path, len(r.body))
		}
		decode[object](t, r.body)
	}
	_, text := readChunks(t, post(t, s, "/chat/completions", chatCall("up-big:100000", `,"stream":true`)).ok(t).body)
	if len(text) != 100000 {
		t.Errorf("stream: %d bytes of text", len(text))
	}
}

func TestEcho_SaysTheKeyInContentAndHeader(t *testing.T) {
	s := Start(t, Options{})
	for _, extra := range []string{"", `,"stream":true`} {
		r := post(t, s, "/chat/completions", chatCall("up-echo", extra)).ok(t)
		for what, text := range map[string]string{"body": string(r.body), "header": r.header.Get("X-Upstream-Echo")} {
			if !strings.Contains(text, "Bearer sk-test") || !strings.Contains(text, "12345678") {
				t.Errorf("%s%s: %q", what, extra, text)
			}
		}
	}
}

func TestErrorEvent_ComesInMidStream(t *testing.T) {
	s := Start(t, Options{})
	events := readEvents(t, post(t, s, "/chat/completions", chatCall("up-error-event", `,"stream":true`)).ok(t).body)
	last := events[len(events)-1]
	if len(events) < 2 || !strings.Contains(last.data, `"server_error"`) {
		t.Errorf("chat: %+v", events)
	}
	events = readEvents(t, post(t, s, "/responses", `{"model":"up-error-event","input":"1","stream":true}`).ok(t).body)
	if last := events[len(events)-1]; last.name != "error" || !strings.Contains(last.data, `"type":"error"`) {
		t.Errorf("responses: %+v", events)
	}
	if r := post(t, s, "/chat/completions", chatCall("up-error-event", "")); r.status != 500 {
		t.Errorf("not streamed: %d", r.status)
	}
}

func TestComments_AreReadAsTheSameStream(t *testing.T) {
	s := Start(t, Options{})
	r := post(t, s, "/chat/completions", chatCall("up-comments", `,"stream":true`)).ok(t)
	if !bytes.HasPrefix(r.body, []byte(": ping\r\n\r\ndata: {")) || bytes.Count(r.body, []byte("\n")) != bytes.Count(r.body, []byte("\r\n")) {
		t.Errorf("stream: %q", r.body)
	}
	if _, text := readChunks(t, r.body); text != AnswerText {
		t.Errorf("text %q", text)
	}
}

func TestComments_SplitTheStreamEverywhere(t *testing.T) {
	s := Start(t, Options{})
	for _, model := range []string{"up-comments", "up-echo"} {
		conn, err := net.Dial("tcp", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		sendRaw(t, conn, chatCall(model, `,"stream":true`))
		raw := bufio.NewReader(conn)
		for line := ""; line != "\r\n"; { // the headers
			if line, err = raw.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
		}
		for range 10 {
			// A chunk is its length in hexadecimal, CRLF, that many bytes, CRLF.
			var length int
			if _, err := fmt.Fscanf(raw, "%x\r\n", &length); err != nil || length == 0 || length > oddSplit {
				t.Fatalf("%s: a chunk of %d bytes, %v", model, length, err)
			}
			if _, err := raw.Discard(length + 2); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestNoUsage_HasNoneAnywhere(t *testing.T) {
	s := Start(t, Options{})
	for _, path := range []string{"/chat/completions", "/completions", "/embeddings"} {
		for _, stream := range []string{"false", "true"} {
			r := post(t, s, path, `{"model":"up-no-usage","messages":[],"prompt":"1","input":"1","stream":`+stream+`,"stream_options":{"include_usage":true}}`).ok(t)
			if strings.Contains(string(r.body), "usage\":") {
				t.Errorf("%s stream=%s: %.500s", path, stream, r.body)
			}
		}
	}
}

func TestGzip_OnlyIfAccepted(t *testing.T) {
	s := Start(t, Options{})
	for _, extra := range []string{"", `,"stream":true`} {
		for _, accept := range []string{"gzip", "identity"} {
			req := newRequest(t, http.MethodPost, s.URL()+"/chat/completions", chatCall("up-gzip", extra))
			req.Header.Set("Accept-Encoding", accept) // set by hand, so Go leaves the answer alone
			r := roundTrip(client(t), req).ok(t)
			if (r.header.Get("Content-Encoding") == "gzip") != (accept == "gzip") {
				t.Fatalf("accepts %s, got %q", accept, r.header.Get("Content-Encoding"))
			}
			if accept == "gzip" {
				z, err := gzip.NewReader(bytes.NewReader(r.body))
				if err != nil {
					t.Fatal(err)
				}
				if r.body, err = io.ReadAll(z); err != nil {
					t.Fatal(err)
				}
			}
			if !strings.Contains(string(r.body), "Hello") {
				t.Errorf("accepts %s%s: %q", accept, extra, r.body)
			}
		}
	}
}

func TestBehave_OverridesTheModelUntilItIsCleared(t *testing.T) {
	s := Start(t, Options{})
	s.Behave("up-429")
	if r := get(t, s, "/models"); r.status != 429 {
		t.Errorf("models: %d", r.status)
	}
	if r := post(t, s, "/chat/completions", chatCall("up-ok", "")); r.status != 429 {
		t.Errorf("chat: %d", r.status)
	}
	s.Behave("")
	get(t, s, "/models").ok(t)

	defer func() {
		if recover() == nil {
			t.Error("a name that is no behaviour was taken")
		}
	}()
	s.Behave("up-nonsense")
}

func TestSlowAndDelay_ComeBeforeTheAnswer(t *testing.T) {
	s := Start(t, Options{Delay: 20 * time.Millisecond})
	begin := time.Now()
	post(t, s, "/chat/completions", chatCall("up-slow:30", "")).ok(t)
	if took := time.Since(begin); took < 50*time.Millisecond {
		t.Errorf("answered after %v", took)
	}
	begin = time.Now()
	post(t, s, "/chat/completions", chatCall("up-stream:3:20", `,"stream":true`)).ok(t)
	if took := time.Since(begin); took < 80*time.Millisecond { // Delay, and three tokens 20 ms apart
		t.Errorf("streamed in %v", took)
	}
}

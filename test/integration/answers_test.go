// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"bytes"
	"fmt"
	"iter"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func headerNames(h http.Header) iter.Seq[string] { return maps.Keys(h) }

// answers: what the app gets is what the provider answered.
func (s *suite) answers(t *testing.T) {
	app := s.app(t, mount, "answers", nil)
	for _, status := range []int{400, 401, 403, 404, 409, 422, 429, 500, 503} {
		t.Run(fmt.Sprintf("ProvidersError%dPassesThroughWithBodyAndStatus", status), func(t *testing.T) {
			body := s.chat(fmt.Sprintf("up-%d", status))
			before := s.up.Received()
			resp := post(t, app, chatPath(mount, "answers"), body)
			if n := s.up.Received() - before; n != 1 {
				t.Errorf("the provider received %d requests: errors are the caller's to retry", n)
			}
			wantStatus(t, resp, status)
			wantSame(t, resp, direct(t, s.up, lastRequest(t, s.up).Key, http.MethodPost, "v1/chat/completions", body))
		})
	}
	for _, model := range []string{"up-ok", "up-garbage", "up-no-usage", "up-gzip", "gpt-4o", "no-such-model"} {
		t.Run("AnswerOf_"+model+"_IsTheProvidersByteForByte", func(t *testing.T) {
			body := s.chat(model)
			resp := post(t, app, chatPath(mount, "answers"), body)
			wantSame(t, resp, direct(t, s.up, lastRequest(t, s.up).Key, http.MethodPost, "v1/chat/completions", body))
		})
	}
	t.Run("HeadersComeOnlyWithTheMountsTuning", s.answerHeaders)
	t.Run("32MiBPassAndOneByteMoreIs502", s.largeAnswers)
}

func (s *suite) answerHeaders(t *testing.T) {
	plain, open := s.app(t, mount, "plain", nil), s.app(t, tuned, "open", nil)
	without, with := post(t, plain, chatPath(mount, "plain"), s.chat("up-429")), post(t, open, chatPath(tuned, "open"), s.chat("up-429"))
	wantStatus(t, without, http.StatusTooManyRequests)
	wantStatus(t, with, http.StatusTooManyRequests)
	for _, name := range []string{"X-Portkey-Trace-Id", "Retry-After"} {
		if without.Header.Get(name) != "" || with.Header.Get(name) == "" {
			t.Errorf("%s: %q without tuning, %q with", name, without.Header.Get(name), with.Header.Get(name))
		}
	}
	if got := with.Header.Get("Retry-After"); got != "7" {
		t.Errorf("the provider's Retry-After arrived as %q", got)
	}
	// The tuning lets it pass; the plugin doesn't: callers would share it.
	if got := with.Header.Get("Set-Cookie"); got != "" {
		t.Errorf("the provider's cookie %q arrived", got)
	}
	again := post(t, open, chatPath(tuned, "open"), s.chat("up-ok"))
	if a, b := with.Header.Get("X-Portkey-Trace-Id"), again.Header.Get("X-Portkey-Trace-Id"); a == b || b == "" {
		t.Errorf("trace ids %q and %q", a, b)
	}
	// The plugin's own errors carry it too.
	refused := post(t, open, chatPath(tuned, "open"), map[string]any{"messages": []any{}})
	if refused.Status != http.StatusBadRequest || refused.Header.Get("X-Portkey-Trace-Id") == "" {
		t.Errorf("an error has the headers %v", refused.Header)
	}
}

func (s *suite) largeAnswers(t *testing.T) {
	app := s.app(t, mount, "large", nil)
	const most = 32 << 20
	resp := post(t, app, chatPath(mount, "large"), s.chat(fmt.Sprintf("up-big:%d", most)))
	wantStatus(t, resp, http.StatusOK)
	if len(resp.Body) != most || !bytes.HasSuffix(resp.Body, []byte("}")) {
		t.Errorf("%d bytes arrived, expected %d", len(resp.Body), most)
	}
	resp = post(t, app, chatPath(mount, "large"), s.chat(fmt.Sprintf("up-big:%d", most+1)))
	wantError(t, resp, http.StatusBadGateway, "upstream_answer_too_large", "inline_max_answer_bytes")
	stream := s.chat(fmt.Sprintf("up-big:%d", most+1))
	stream["stream"] = true
	wantError(t, post(t, app, chatPath(mount, "large"), stream), http.StatusBadGateway, "upstream_answer_too_large")
}

// streams: a streamed request works, and arrives when it is complete.
func (s *suite) streams(t *testing.T) {
	app := s.app(t, tuned, "streams", nil)
	var key string // of the provider
	for name, body := range map[string]map[string]any{
		"Plain":         {"model": "up-stream:5:1"},
		"WithUsage":     {"model": "up-ok", "stream_options": map[string]any{"include_usage": true}},
		"CommentsCRLF":  {"model": "up-comments"},
		"ErrorEvent":    {"model": "up-error-event"},
		"Gzip":          {"model": "up-gzip"},
		"ProvidersA429": {"model": "up-429"},
	} {
		t.Run(name+"_ArrivesByteForByte", func(t *testing.T) {
			body["messages"], body["stream"] = s.chat("")["messages"], true
			resp := post(t, app, chatPath(tuned, "streams"), body)
			key = lastRequest(t, s.up).Key
			// The provider is asked for the stream's usage, and what it says of
			// that alone is taken out unless the caller asked too.
			asked := maps.Clone(body)
			asked["stream_options"] = map[string]any{"include_usage": true}
			want := direct(t, s.up, key, http.MethodPost, "v1/chat/completions", asked)
			if body["stream_options"] == nil {
				want.Body = withoutUsageChunk(want.Body)
			}
			wantSame(t, resp, want)
		})
	}
	for model, code := range map[string]string{"up-hang-mid": "upstream_timeout", "up-reset-mid": "upstream_unreachable"} {
		t.Run("OneThatBreaksOff_"+model+"_KeepsWhatCameAndEndsWithAnErrorEvent", func(t *testing.T) {
			body := s.chat(model)
			body["stream"] = true
			resp := post(t, app, chatPath(tuned, "streams"), body)
			wantStatus(t, resp, http.StatusOK)
			text := string(resp.Body)
			if !strings.Contains(text, `"content":"Hello"`) || strings.Contains(text, "[DONE]") {
				t.Errorf("the stream is\n%s", text)
			}
			if !strings.Contains(text, "\n\nevent: error\ndata: {") || !strings.Contains(text, code) || !strings.HasSuffix(text, "}\n\n") {
				t.Errorf("the stream doesn't end with an error event with %s:\n%s", code, text)
			}
		})
	}
}

// withoutUsageChunk is a stream without the event that has usage and nothing
// else.
func withoutUsageChunk(stream []byte) []byte {
	blank := []byte("\n\n")
	if bytes.Contains(stream, []byte("\r\n\r\n")) {
		blank = []byte("\r\n\r\n")
	}
	events := bytes.SplitAfter(stream, blank)
	return bytes.Join(slices.DeleteFunc(events, func(event []byte) bool {
		return bytes.Contains(event, []byte(`"choices":[]`)) && bytes.Contains(event, []byte(`"usage":{`))
	}), nil)
}

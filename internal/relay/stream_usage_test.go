// SPDX-License-Identifier: MPL-2.0

package relay

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
)

// sentAndServed serves req and returns what the provider got and the caller.
func sentAndServed(t *testing.T, req *Request, status int, contentType, text string) (string, *recorder) {
	t.Helper()
	var sent string
	w := newRecorder()
	settled(t.Context(), t, script(func(r *http.Request) (*http.Response, error) {
		all, err := io.ReadAll(r.Body)
		sent = string(all)
		h := http.Header{"Content-Type": {contentType}, "Content-Length": {strconv.Itoa(len(text))}}
		return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(text))}, err
	}), w, req)
	return sent, w
}

func TestStreamUsage_IsAskedForAndTakenOutForCallersWhoDidNotAsk(t *testing.T) {
	const whole, without = chunkText + chunkStop + chunkUsage + chunkDone, chunkText + chunkStop + chunkDone
	const withOption = `,"stream_options":{"include_usage":true}}`
	for name, c := range map[string]struct {
		provider, path, text string
		status               int
		contentType, answer  string
		wantSent, wantBody   string
		wantLength           bool
	}{
		"not asked": {"", "", streamed, 200, streamType, whole, strings.TrimSuffix(streamed, "}") + withOption, without, false},
		"declined": {"", "", strings.Replace(chatAsked, "true}", "false}", 1), 200, streamType, whole,
			chatAsked, without, false},
		"asked":       {"", "", chatAsked, 200, streamType, whole, chatAsked, whole, false},
		"no stream":   {"", "", chatText, 200, jsonType, answerText, chatText, answerText, true},
		"no option":   {"mistral-ai", "", streamed, 200, streamType, whole, streamed, whole, false},
		"answered":    {"", "", streamed, 200, jsonType, answerText, strings.TrimSuffix(streamed, "}") + withOption, answerText, true},
		"error":       {"", "", streamed, 400, streamType, whole, strings.TrimSuffix(streamed, "}") + withOption, whole, true},
		"responses":   {"", "v1/responses", `{"model":"m","stream":true,"input":"x"}`, 200, streamType, whole, `{"model":"m","stream":true,"input":"x"}`, whole, false},
		"unmetered":   {"", "v1/images/generations", streamed, 200, streamType, whole, streamed, whole, true},
		"completions": {"", "v1/completions", `{"model":"m","stream":true,"prompt":"x"}`, 200, streamType, whole, `{"model":"m","stream":true,"prompt":"x"` + withOption, without, false},
	} {
		t.Run(name, func(t *testing.T) {
			req := chatRequest(t, c.text)
			if c.provider != "" {
				req.VirtualKey.Target = targetAt(t, c.provider, "http://127.0.0.1:1/v1")
			}
			if c.path != "" {
				req.Path = c.path
			}
			sent, w := sentAndServed(t, req, c.status, c.contentType, c.answer)
			if sent != c.wantSent {
				t.Errorf("the provider got %s\nwant %s", sent, c.wantSent)
			}
			if w.Body.String() != c.wantBody {
				t.Errorf("the caller got %q\nwant %q", w.Body, c.wantBody)
			}
			// A length that may be wrong is worse than none, and a trailer comes
			// only where there is none.
			want := ""
			if c.wantLength {
				want = strconv.Itoa(len(c.answer))
			}
			if got := w.Header().Get("Content-Length"); got != want {
				t.Errorf("Content-Length %q, want %q", got, want)
			}
		})
	}
}

func TestStreamUsage_AForcedStreamReportsItsUsageToo(t *testing.T) {
	req := chatRequest(t, chatText)
	req.VirtualKey.Forced = map[string]json.RawMessage{"stream": []byte("true")}
	sent, w := sentAndServed(t, req, 200, streamType, chunkText+chunkStop+chunkUsage+chunkDone)
	if !strings.Contains(sent, `"include_usage":true`) || strings.Contains(w.Body.String(), `"usage"`) {
		t.Errorf("sent %s, got %s", sent, w.Body)
	}
}

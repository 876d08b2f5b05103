// SPDX-License-Identifier: MPL-2.0

package relay

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/internal/apierror"
)

// uploadRequest is a request with a body that isn't JSON.
func uploadRequest(t testing.TB, path, model, text string) *Request {
	req := chatRequest(t, "")
	req.Path, req.Header = path, http.Header{"Content-Type": {"multipart/form-data; boundary=x"}}
	req.Upload = &Upload{Body: strings.NewReader(text), Length: int64(len(text)), Model: model}
	return req
}

func TestUpload_GoesToTheProviderAsItIs(t *testing.T) {
	const text = "--x\r\nany \x00\xff bytes\r\n--x--"
	for name, length := range map[string]int64{"known length": int64(len(text)), "unknown length": -1} {
		var got, contentType string
		var announced int64
		transport := script(func(r *http.Request) (*http.Response, error) {
			b, err := io.ReadAll(r.Body)
			got, contentType, announced = string(b), r.Header.Get("Content-Type"), r.ContentLength
			if err != nil {
				t.Error(err)
			}
			return answers(200, jsonType, `{"text":"hi"}`)(&http.Request{})
		})
		req := uploadRequest(t, "v1/audio/transcriptions", "whisper-1", text)
		req.Upload.Length = length
		w := newRecorder()
		o := settled(t.Context(), t, transport, w, req)
		if got != text || contentType != "multipart/form-data; boundary=x" || announced != length {
			t.Errorf("%s: the provider got %q as %q, %d bytes announced", name, got, contentType, announced)
		}
		if w.Body.String() != `{"text":"hi"}` || o.Model != "whisper-1" || o.Result != Succeeded {
			t.Errorf("%s: %q %+v", name, w.Body, o)
		}
	}
}

func TestUpload_IsHeldToTheVirtualKeysModels(t *testing.T) {
	for name, c := range map[string]struct {
		path, model string
		models      []string
		forced      map[string]json.RawMessage
		want        string
	}{
		"allowed":                    {"v1/audio/transcriptions", "whisper-1", []string{"whisper-*"}, nil, ""},
		"another":                    {"v1/audio/transcriptions", "gpt-4o-transcribe", []string{"whisper-*"}, nil, apierror.CodeModelNotAllowed},
		"none":                       {"v1/audio/transcriptions", "", []string{"whisper-*"}, nil, apierror.CodeModelRequired},
		"a route that runs others":   {"v1/files", "whisper-1", []string{"whisper-*"}, nil, apierror.CodeModelNotAllowed},
		"any model":                  {"v1/files", "", nil, nil, ""},
		"forced parameters":          {"v1/files", "", nil, map[string]json.RawMessage{"user": json.RawMessage(`"u"`)}, apierror.CodeInvalidRequest},
		"a route whose body is JSON": {"v1/chat/completions", "m", nil, nil, apierror.CodeInvalidRequest},
		"credentials":                {"v1/realtime/client_secrets", "", nil, nil, apierror.CodeRouteNotAllowed},
	} {
		t.Run(name, func(t *testing.T) {
			req := uploadRequest(t, c.path, c.model, "text")
			req.VirtualKey.Models, req.VirtualKey.Forced = c.models, c.forced
			w := newRecorder()
			o := settled(t.Context(), t, answers(200, jsonType, `{}`), w, req)
			if c.want == "" {
				if w.Code != http.StatusOK {
					t.Errorf("%d %s", w.Code, w.Body)
				}
				return
			}
			if code(t, w) != c.want || o.Result != Refused {
				t.Errorf("%d %s %+v", w.Code, w.Body, o)
			}
		})
	}
}

// brokenReader gives text, and then err.
type brokenReader struct {
	text io.Reader
	err  error
}

func (b brokenReader) Read(p []byte) (int, error) {
	n, err := b.text.Read(p)
	if errors.Is(err, io.EOF) {
		err = b.err
	}
	return n, err
}

func TestUpload_ThatTheDoorBreaksOffIsAnsweredByTheDoorAndCostsNothing(t *testing.T) {
	arrived := make(chan error, 1)
	relay, req := upstream(t, func(_ http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		arrived <- err
	})
	verdict := &apierror.Error{Status: 403, Code: apierror.CodePermissionDenied, Message: "no"}
	req.Path, req.Body = "v1/files", nil
	req.Upload = &Upload{Body: brokenReader{strings.NewReader(strings.Repeat("x", 1<<20)), verdict}, Length: -1}
	var o Outcome
	req.Settled = func(got Outcome) { o = got }
	w := newRecorder()
	relay.Serve(t.Context(), w, req)
	if w.Code != 403 || code(t, w) != apierror.CodePermissionDenied {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if err := <-arrived; err == nil {
		t.Error("the provider got a body with a proper end")
	}
	if o.Basis != Free || o.Result != Failed {
		t.Errorf("%+v", o)
	}
}

func TestIdle_ASilentProviderIsGivenUpAndASlowCallerIsNot(t *testing.T) {
	for name, c := range map[string]struct {
		slowDoor time.Duration
		pause    time.Duration
		ended    bool
	}{
		"silent provider": {0, time.Minute, true},
		"slow caller":     {300 * time.Millisecond, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			relay, req := upstream(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/event-stream")
				for range 2 {
					_, _ = io.WriteString(w, "data: {}\n\n")
					w.(http.Flusher).Flush()
					select {
					case <-time.After(c.pause):
					case <-r.Context().Done():
						return
					}
				}
			})
			req.Idle = 100 * time.Millisecond
			w := &door{newRecorder(), 1 << 30, nil}
			slow := slowDoor{w, c.slowDoor}
			relay.Serve(t.Context(), slow, req)
			if aborted := w.aborted; (aborted != nil) != c.ended || aborted != nil && (aborted.Code != apierror.CodeTimeout || !strings.Contains(aborted.Message, "idle_timeout")) {
				t.Errorf("ended with %+v after %q", aborted, w.Body)
			}
		})
	}
}

// slowDoor takes its time for each write.
type slowDoor struct {
	*door
	pause time.Duration
}

func (d slowDoor) Write(p []byte) (int, error) {
	time.Sleep(d.pause)
	return d.door.Write(p)
}

func TestUse_IsInTheHeaderWhereItIsKnownAndElseInATrailer(t *testing.T) {
	for name, c := range map[string]struct {
		text, contentType, answer string
		prefix, usage, cost       string
	}{
		"JSON":               {chatText, jsonType, answerText, "", "input=10, output=5, cached=4, reasoning=2", "0.00001"},
		"JSON, long":         {chatText, jsonType, strings.Repeat(" ", 70<<10) + answerText, http.TrailerPrefix, "input=10, output=5, cached=4, reasoning=2", "0.00001"},
		"stream":             {chatAsked, streamType, chunkText + chunkStop + chunkUsage + chunkDone, http.TrailerPrefix, "input=10, output=5, cached=4, reasoning=2", "0.00001"},
		"JSON without usage": {chatText, jsonType, noUsage, "", "", ""},
		"error":              {chatText, jsonType, `{"error":{}}`, "", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			status := 200
			if name == "error" {
				status = 500
			}
			w := newRecorder()
			settled(t.Context(), t, answers(status, c.contentType, c.answer), w, chatRequest(t, c.text))
			h := w.HeaderMap
			if got := h.Get(c.prefix + UsageHeader); got != c.usage {
				t.Errorf("usage %q, want %q", got, c.usage)
			}
			if got := h.Get(c.prefix + CostHeader); (got == "") != (c.cost == "") || !strings.HasPrefix(got, "0.00001") && c.cost != "" {
				t.Errorf("cost %q", got)
			}
		})
	}
}

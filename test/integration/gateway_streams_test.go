// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// What the provider of these tests streams: that many events, one each so often.
const (
	sdkEvents = 20
	sdkEvery  = 50 * time.Millisecond
)

// TestGateway_SDKsSeeStreamsAsTheyCome: each package sees each event when the
// provider sends it, at every door. Where the machine stood still meanwhile, the
// stream is asked for again: what holds answers back does so every time.
func TestGateway_SDKsSeeStreamsAsTheyCome(t *testing.T) {
	t.Parallel()
	g := startGateway(t, gatewayOptions{})
	g.role(t, "streams", nil)
	token := g.token(t, "streams")
	for _, language := range sdkLanguages {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			calls := g.sdkDoors(language, "streams", token)
			for i := range calls {
				calls[i].Do, calls[i].Params = "stream", params(t, hello(fmt.Sprintf("up-stream:%d:%d", sdkEvents, sdkEvery.Milliseconds())))
			}
			for try := 1; len(calls) > 0; try++ {
				ends := runCalls(t, language, calls)
				calls = slices.DeleteFunc(calls, func(c sdkCall) bool {
					end := ends[c.Name]
					if want := numberedText(sdkEvents); end.Error != nil || end.Text != want {
						t.Errorf("%s: got %q, %+v", c.Name, end.Text, end.Error)
						return true
					}
					late := heldBack(end.Arrivals)
					if late != "" && try == 3 {
						t.Errorf("%s: %s: %.0f", c.Name, late, end.Arrivals)
					}
					return late == "" || try == 3
				})
			}
		})
	}
}

// numberedText is the text of up-stream.
func numberedText(events int) string {
	var b strings.Builder
	for i := range events {
		fmt.Fprintf(&b, "t%d ", i)
	}
	return b.String()
}

// heldBack says what shows that events were held back; empty for nothing. From the
// first to the last it should be 950 ms, each on its own.
func heldBack(arrivals []float64) string {
	if len(arrivals) != sdkEvents {
		return fmt.Sprintf("%d pieces came, expected %d", len(arrivals), sdkEvents)
	}
	whole := float64((sdkEvents - 1) * sdkEvery.Milliseconds())
	if spread := arrivals[sdkEvents-1] - arrivals[0]; spread < whole/2 {
		return fmt.Sprintf("all came within %.0f ms, the provider took %.0f", spread, whole)
	}
	for i := range arrivals {
		if end := i + sdkEvents/4; end < sdkEvents && arrivals[end]-arrivals[i] < 10 {
			return fmt.Sprintf("events %d to %d came all at once", i, end)
		}
	}
	return ""
}

// TestGateway_HoldsNothingBack: the provider sends each piece only when the caller
// has the one before, so that an answer of which anything is held back stands still.
func TestGateway_HoldsNothingBack(t *testing.T) {
	t.Parallel()
	g := startGateway(t, gatewayOptions{})
	g.root.Write(t, g.mount+"/prices/openai-compatible/up-*", map[string]any{"input": exactInput, "output": exactOutput})
	plain := g.scripted(t, "plain", nil)
	limited := g.scripted(t, "limited", map[string]any{"limits": []string{"usd=1000/day", "concurrent=4"}})
	token := g.token(t, "plain", "limited")

	const chat = "v1/chat/completions"
	asking := `{"model":"up-ok","messages":[],"max_tokens":100,"stream":true`
	events := []string{
		": a comment\n\n", chunkEvent("one"), "event: ping\ndata: {}\n\n", chunkEvent("two"),
		strings.ReplaceAll(chunkEvent("three"), "\n", "\r\n"), "id: 5\nretry: 10\n" + chunkEvent("four"), "data: [DONE]\n\n",
	}
	check := func(name string, from *exactCaller, s *scripted, path, body, contentType string, pieces []string) {
		t.Run(name, func(t *testing.T) { s.inLockstep(t, from, g.proxied(s.role, path), body, contentType, pieces) })
	}
	from := g.exactly(t, token)
	check("Stream", from, plain, chat, asking+"}", "text/event-stream", events)
	check("StreamWithUsage", from, plain, chat, asking+`,"stream_options":{"include_usage":true}}`, "text/event-stream; charset=utf-8", events)
	check("StreamWithLimits", from, limited, chat, asking+"}", "text/event-stream", events)
	check("StreamOfResponses", from, plain, "v1/responses", `{"model":"up-ok","input":"","stream":true}`, "text/event-stream", events)
	check("Audio", from, plain, "v1/audio/speech", `{"model":"up-ok","input":"x","voice":"y"}`, "audio/pcm", []string{"\x00", "\xff\xfe", "a\n\nb", "\x00"})
	check("ByRedirect", from.to(g.vault.Addr), plain, chat, asking+"}", "text/event-stream", events)
	from = g.overTLS(t, token)
	check("HTTP2", from, plain, chat, asking+"}", "text/event-stream", events)
	check("ByRedirectToHTTP2", from.to(g.vault.Addr), plain, chat, asking+"}", "text/event-stream", events)
}

// chunkEvent is an event of a stream of chat.
func chunkEvent(text string) string {
	return `data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"up-ok","choices":[{"index":0,"delta":{"content":"` + text + `"},"finish_reason":null}]}` + "\n\n"
}

// inLockstep makes one request, of whose answer the provider sends a piece only
// when the caller has the one before.
func (s *scripted) inLockstep(t *testing.T, from *exactCaller, path, body, contentType string, pieces []string) {
	t.Helper()
	seen := make(chan struct{}, len(pieces))
	var late atomic.Bool
	s.play(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		for _, piece := range pieces {
			_, _ = io.WriteString(w, piece)
			_ = http.NewResponseController(w).Flush()
			select {
			case <-seen:
			case <-time.After(10 * time.Second):
				late.Store(true)
				return // what was held back comes now
			}
		}
	})
	resp := from.open(t, http.MethodPost, path, nil, strings.NewReader(body))
	defer func() { _ = resp.Body.Close() }()
	if proto := map[bool]string{false: "HTTP/1.1", true: "HTTP/2.0"}[resp.TLS != nil]; resp.StatusCode != http.StatusOK || resp.Proto != proto {
		t.Fatalf("%s %s, expected 200 and %s", resp.Proto, resp.Status, proto)
	}
	for i, piece := range pieces {
		got := make([]byte, len(piece))
		if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != piece {
			t.Fatalf("piece %d came as %q, expected %q (%v)", i, got, piece, err)
		}
		if late.Load() {
			t.Fatalf("piece %d was held back until the answer ended", i)
		}
		seen <- struct{}{}
	}
	if rest, err := io.ReadAll(resp.Body); len(rest) > 0 || err != nil {
		t.Errorf("after the last piece came %q (%v)", rest, err)
	}
}

// TestGateway_CallerWhoStopsEndsTheProvidersWork: an SDK that is told to stop in
// mid-stream has the provider's answer cancelled, though nothing more comes that
// could not be written to it.
func TestGateway_CallerWhoStopsEndsTheProvidersWork(t *testing.T) {
	t.Parallel()
	g := startGateway(t, gatewayOptions{})
	g.role(t, "stopped", nil)
	token := g.token(t, "stopped")
	var stopped atomic.Int64
	t.Run("SDKs", func(t *testing.T) {
		for _, language := range sdkLanguages {
			t.Run(language, func(t *testing.T) {
				t.Parallel()
				calls := g.sdkDoors(language, "stopped", token)
				for i := range calls {
					calls[i].Do, calls[i].StopAfter, calls[i].Params = "stream", 3, params(t, hello("up-hang-mid"))
				}
				for name, end := range runCalls(t, language, calls) {
					if end.Error != nil || len(end.Arrivals) != 3 {
						t.Errorf("%s: %d pieces, %+v", name, len(end.Arrivals), end.Error)
					}
				}
				stopped.Add(int64(len(calls)))
			})
		}
	})
	g.up.WaitCancelled(t, int(stopped.Load()))
}

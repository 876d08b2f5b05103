// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestGateway_AnswersComeByteForByte: the caller receives what the provider sent,
// whatever it is, but for a usage chunk that it didn't ask for.
func TestGateway_AnswersComeByteForByte(t *testing.T) {
	t.Parallel()
	g := startGateway(t, gatewayOptions{})
	a := &answerRig{gatewayRig: g, dice: jsonDice{Rand: rand.New(rand.NewPCG(seed(t), 2))}}
	a.provider = g.scripted(t, "answers", nil)
	a.from = g.exactly(t, g.token(t, "answers"))
	t.Run("Bodies", a.bodies)
	t.Run("Errors", a.errors)
	t.Run("Streams", a.streams)
	t.Run("UsageChunks", a.usageChunks)
	t.Run("Encodings", a.encodings)
}

// answerRig is a virtual key on a scripted provider.
type answerRig struct {
	*gatewayRig
	dice     jsonDice
	provider *scripted
	from     *exactCaller
}

// The routes that answers are tried on: one that is metered, and one that isn't.
var answerRoutes = []string{chatRoute, "v1/audio/speech"}

// ask makes a request; more is added to its members.
func (a *answerRig) ask(t *testing.T, path, more string) *exactAnswer {
	t.Helper()
	return a.from.json(t, a.proxied(a.provider.role, path), []byte(`{"model":"up-ok","messages":[]`+more+"}"))
}

// split cuts a text into at most n pieces.
func (a *answerRig) split(text string, n int) []string {
	var pieces []string
	for len(text) > 0 && n > 1 {
		cut := 1 + a.dice.IntN(min(len(text), 2*len(text)/n+1))
		pieces, text, n = append(pieces, text[:cut]), text[cut:], n-1
	}
	return append(pieces, text)
}

func (a *answerRig) bodies(t *testing.T) {
	for name, body := range map[string]string{
		"nothing": "", "one byte": "\xff", "noise": string(a.dice.noise(100_000)), "5 MiB of noise": string(a.dice.noise(5 << 20)),
		"JSON":       "\n {\"usage\" :{ \"prompt_tokens\":1e0,\"completion_tokens\":2,\"total_tokens\":3},\"big\":9007199254740993,\"s\":\"\\u0041\\ud800\"} \r\n",
		"5 MiB JSON": `{"choices":[{"message":{"content":"` + strings.Repeat(`\u00e9 `, 5<<20/7) + `"}}]}`,
		"32 KiB":     strings.Repeat("x", 32<<10), "4 KiB and one": strings.Repeat("y", 4<<10+1),
		"two values": `{"a":1}{"b":2}`, "half a value": `{"a":[`,
	} {
		for _, path := range answerRoutes {
			for _, length := range []bool{true, false} {
				a.provider.play(func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", "application/json")
					if length {
						w.Header().Set("Content-Length", strconv.Itoa(len(body)))
					}
					for _, piece := range a.split(body, 5) {
						_, _ = io.WriteString(w, piece)
						_ = http.NewResponseController(w).Flush()
					}
				})
				got := a.ask(t, path, "")
				if got.wantBody(t, http.StatusOK, body); got.Header.Get("Content-Type") != "application/json" {
					t.Errorf("%s on %s: the type is %q", name, path, got.Header.Get("Content-Type"))
				}
				if n := got.Header.Get("Content-Length"); n != "" && n != strconv.Itoa(len(body)) {
					t.Errorf("%s on %s: Content-Length is %s for %d bytes", name, path, n, len(body))
				}
			}
		}
	}
}

func (a *answerRig) errors(t *testing.T) {
	for _, status := range []int{400, 401, 402, 403, 404, 405, 408, 409, 413, 415, 418, 422, 429, 451, 500, 501, 502, 503, 504, 529, 599} {
		for _, body := range []string{
			"", `{"error":{"message":"no","type":"x","code":9007199254740993}}`, "<html>\x00\xff</html>\r\n", strings.Repeat("e", 100_000),
			"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1}}\n\n",
		} {
			path := answerRoutes[a.dice.IntN(2)]
			a.provider.play(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", []string{"application/json", "text/event-stream", "text/html"}[status%3])
				w.WriteHeader(status)
				_, _ = io.WriteString(w, body)
			})
			got := a.ask(t, path, []string{"", `,"stream":true`}[a.dice.IntN(2)])
			got.wantBody(t, status, body)
		}
	}
}

// streams: streams that are as odd as the standard allows, and odder.
func (a *answerRig) streams(t *testing.T) {
	for range rounds(40, 2000) {
		var b strings.Builder
		if a.dice.IntN(4) == 0 {
			b.WriteString("\ufeff")
		}
		end := []string{"\n", "\r\n", "\r"}[a.dice.IntN(3)]
		for range 1 + a.dice.IntN(12) {
			b.WriteString(strings.ReplaceAll(a.event(), "\n", end))
		}
		if a.dice.IntN(2) == 0 {
			b.WriteString("data: [DONE]" + []string{"", "\n", "\n\n", "\n\n\n: bye\n"}[a.dice.IntN(4)])
		}
		stream := b.String()
		a.provider.pieces("text/event-stream; charset=utf-8", a.split(stream, 1+a.dice.IntN(30))...)
		more := []string{"", `,"stream":true`, `,"stream":true,"stream_options":{"include_usage":true}`}[a.dice.IntN(3)]
		if got := a.ask(t, answerRoutes[a.dice.IntN(2)], more); got.Status != http.StatusOK || string(got.Body) != stream {
			t.Errorf("of\n%q", stream)
			got.wantBody(t, http.StatusOK, stream)
		}
	}
}

// event is an event of a stream, or what stands between events.
func (a *answerRig) event() string {
	switch a.dice.IntN(10) {
	case 0:
		return ": " + strings.Trim(a.dice.text(), `"`) + "\n\n"
	case 1:
		return "event: ping\ndata: {}\n\n"
	case 2:
		return "id: 7\nretry: 100\ndata\ndata:" + a.dice.value(2) + "\nunknown: field\n\n"
	case 3:
		return "data: " + a.dice.value(4) + "\n\n"
	case 4: // like the usage-only chunk, but with something to tell
		return `data: {"choices":[{"index":0,"delta":{}}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}` + "\n\n"
	case 5:
		return "data: {\"choices\":[],\"usage\":{\"prompt_tok\n\n"
	case 6:
		return "\n\n"
	}
	return chunkEvent(strings.Trim(a.dice.text(), `"`))
}

// usageChunks: one is taken out of a stream, and nothing else, where it wasn't asked
// for.
func (a *answerRig) usageChunks(t *testing.T) {
	chunks := []string{
		`data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"up-ok","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}` + "\n\n",
		"data:{ \"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2,\"total_tokens\":5} ,\r\ndata: \"choices\" : [ ] }\r\n\r\n",
	}
	for range rounds(20, 500) {
		chunk := chunks[a.dice.IntN(2)]
		before := ": hi\n\n" + chunkEvent("a") + `data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}` + "\n\n"
		after := []string{"data: [DONE]\n\n", "", ": bye\n\ndata: [DONE]\n\n"}[a.dice.IntN(3)]
		a.provider.pieces("text/event-stream", a.split(before+chunk+after, 1+a.dice.IntN(20))...)
		a.ask(t, chatRoute, `,"stream":true`).wantBody(t, http.StatusOK, before+after)
		a.ask(t, chatRoute, `,"stream":true,"stream_options":{"include_usage":true}`).wantBody(t, http.StatusOK, before+chunk+after)
	}
}

// encodings: an answer that the provider has compressed reaches callers so that
// what its header says of it is right, whether they take gzip or not.
func (a *answerRig) encodings(t *testing.T) {
	plain := `{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2},"x":"` + strings.Repeat("gzip ", 20_000) + `"}`
	packed := gzipped(t, plain)
	for _, path := range answerRoutes {
		for _, accepts := range [][]string{nil, {"identity"}, {"gzip"}, {"gzip, deflate, br, zstd"}, {"br"}} {
			a.provider.play(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				body := plain
				if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
					w.Header().Set("Content-Encoding", "gzip")
					body = packed
				}
				w.Header().Set("Content-Length", strconv.Itoa(len(body)))
				_, _ = io.WriteString(w, body)
			})
			header := http.Header{}
			if accepts != nil {
				header["Accept-Encoding"] = accepts
			}
			got := a.from.do(t, http.MethodPost, a.proxied(a.provider.role, path), header, strings.NewReader(`{"model":"up-ok","messages":[]}`))
			switch encoding := got.Header.Get("Content-Encoding"); encoding {
			case "":
				got.wantBody(t, http.StatusOK, plain)
			case "gzip":
				if len(accepts) == 0 || !strings.Contains(accepts[0], "gzip") {
					t.Errorf("%v got gzip", accepts)
				}
				got.wantBody(t, http.StatusOK, packed)
			default:
				t.Errorf("%v got %q", accepts, encoding)
			}
			if n := got.Header.Get("Content-Length"); n != "" && n != strconv.Itoa(len(got.Body)) {
				t.Errorf("Content-Length is %s for %d bytes", n, len(got.Body))
			}
		}
		// An encoding that nobody asked for goes through as it is.
		a.provider.play(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "br")
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte{0x0b, 0x02, 0x80, 0xff, 0x00, 0x03})
		})
		got := a.ask(t, path, "")
		if got.wantBody(t, http.StatusOK, "\x0b\x02\x80\xff\x00\x03"); !slices.Equal(got.Header["Content-Encoding"], []string{"br"}) {
			t.Errorf("Content-Encoding is %q", got.Header["Content-Encoding"])
		}
	}
	// A compressed stream comes event by event, without its usage chunk.
	events := []string{chunkEvent("one"), chunkEvent("two"), fmt.Sprintf("data: %s\n\n", `{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}`)}
	a.provider.play(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("Content-Type", "text/event-stream")
		z := gzip.NewWriter(w)
		for _, e := range events {
			_, _ = io.WriteString(z, e)
			_ = z.Flush()
			_ = http.NewResponseController(w).Flush()
		}
		_ = z.Close()
	})
	if got := a.ask(t, chatRoute, `,"stream":true`); got.Header.Get("Content-Encoding") == "" {
		got.wantBody(t, http.StatusOK, events[0]+events[1])
	} else {
		t.Errorf("a compressed stream came as %v", got.Header)
	}
}

func gzipped(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := io.WriteString(z, text); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

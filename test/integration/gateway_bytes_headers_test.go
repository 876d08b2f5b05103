// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The names of the headers that the gateway itself adds.
const (
	traceHeader = "X-Portkey-Trace-Id"
	costHeader  = "X-Portkey-Cost"
	usageHeader = "X-Portkey-Usage"
)

// usedBody is an answer that used 400 tokens of input, 100 of them cached, and 7 of
// output, 5 of them for reasoning; that at exactInput and exactOutput.
const (
	usedChunk = `{"id":"c","model":"up-ok","choices":[],"usage":{"prompt_tokens":400,"completion_tokens":7,"total_tokens":407,` +
		`"prompt_tokens_details":{"cached_tokens":100},"completion_tokens_details":{"reasoning_tokens":5}}}`
	usedText = "input=400, output=7, cached=100, reasoning=5"
	usedCost = "0.001070449" // 400 * 2.501 + 7 * 10.007 millionths: no price says that cached tokens are cheaper
)

// TestGateway_AnswersHaveTheHeadersThatTheyShould: the provider's, without those of
// its connection and its cookies, and the gateway's own.
func TestGateway_AnswersHaveTheHeadersThatTheyShould(t *testing.T) {
	t.Parallel()
	g := startGateway(t, gatewayOptions{})
	g.root.Write(t, g.mount+"/prices/openai-compatible/up-*", map[string]any{"input": exactInput, "output": exactOutput})
	a := &answerRig{gatewayRig: g, dice: jsonDice{Rand: rand.New(rand.NewPCG(seed(t), 3))}}
	a.provider = g.scripted(t, "headers", nil)
	a.from = g.exactly(t, g.token(t, "headers"))
	t.Run("OfTheProvider", a.providersHeaders)
	t.Run("TraceOnEverything", a.traces)
	t.Run("UsageAndCost", a.use)
	t.Run("BrokenAnswersLookBroken", a.broken)
	t.Run("HTTP2", func(t *testing.T) {
		a.from = g.overTLS(t, a.from.token)
		a.providersHeaders(t)
		a.use(t)
		a.broken(t)
	})
}

func (a *answerRig) providersHeaders(t *testing.T) {
	pass := http.Header{
		"Content-Type": {"application/json"}, "Retry-After": {"7"}, "Retry-After-Ms": {"6500"}, "X-Should-Retry": {"false"},
		"X-Ratelimit-Limit-Requests": {"10000"}, "X-Ratelimit-Remaining-Tokens": {"0"}, "X-Ratelimit-Reset-Requests": {"6m0s"},
		"Anthropic-Ratelimit-Requests-Remaining": {"3"}, "X-Request-Id": {"req_1"}, "Openai-Processing-Ms": {"12"},
		"Cache-Control": {"no-store"}, "X-Twice": {"1", "2"}, "Date": {"Thu, 01 Jan 1970 00:00:00 GMT"},
	}
	drop := http.Header{
		"Connection": {"X-Hop, x-hop-too"}, "X-Hop-Too": {"2"}, "X-Hop": {"1"}, "Keep-Alive": {"timeout=5"}, "Proxy-Authenticate": {"Basic"}, "Proxy-Connection": {"close"},
		"Te": {"trailers"}, "Trailer": {"X-After"}, "Upgrade": {"h2c"}, "Alt-Svc": {`h3=":443"`}, "Set-Cookie": {"a=b; HttpOnly"}, "Location": {"http://192.0.2.1/"},
		"Strict-Transport-Security": {"max-age=1"}, traceHeader: {"forged"}, costHeader: {"0"}, usageHeader: {"input=0"}, "X-Portkey-Capped": {"1"},
	}
	for _, path := range answerRoutes {
		for _, status := range []int{http.StatusOK, http.StatusTooManyRequests} {
			a.provider.play(func(w http.ResponseWriter, _ *http.Request) {
				for _, set := range []http.Header{pass, drop} {
					for name, values := range set {
						w.Header()[name] = values
					}
				}
				w.Header().Set("X-Echo", "the key "+scriptedKey+".")
				w.WriteHeader(status)
				_, _ = io.WriteString(w, "{}")
			})
			got := a.ask(t, path, "")
			got.wantBody(t, status, "{}")
			for name, values := range pass {
				if !slices.Equal(got.Header[name], values) {
					t.Errorf("%s is %q, the provider's is %q", name, got.Header[name], values)
				}
			}
			for name, values := range drop {
				if strings.Join(got.Header[name], "") == strings.Join(values, "") {
					t.Errorf("%s came through: %q", name, values)
				}
			}
			want := "the key " + strings.Repeat("*", len(scriptedKey)) + "."
			if echo := got.Header.Get("X-Echo"); echo != want || len(got.Header[traceHeader]) != 1 {
				t.Errorf("the headers are %v", got.Header)
			}
		}
	}
	// Nor is a type made up where the provider gave none.
	a.provider.play(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = nil
		_, _ = io.WriteString(w, "<html>")
	})
	if got := a.ask(t, answerRoutes[1], ""); got.Header.Get("Content-Type") != "" {
		t.Errorf("the provider gave no type, the gateway said %q", got.Header.Get("Content-Type"))
	}
}

// traces: also those who get no further than the door have an id to ask about.
func (a *answerRig) traces(t *testing.T) {
	seen := map[string]bool{}
	a.provider.pieces("application/json", "{}")
	nobody := &exactCaller{url: a.from.url, http: a.from.http}
	for want, got := range map[int]*exactAnswer{
		http.StatusOK:                   a.ask(t, chatRoute, ""),
		http.StatusUnauthorized:         nobody.json(t, "/v1/"+chatRoute[3:], []byte("{}")),
		http.StatusBadRequest:           a.from.json(t, a.proxied("headers", chatRoute), []byte("[]")),
		http.StatusForbidden:            a.from.json(t, a.proxied("another", chatRoute), []byte(`{"model":"m"}`)),
		http.StatusNotFound:             a.from.do(t, http.MethodGet, "/v1/sys/health", nil, nil),
		http.StatusMethodNotAllowed:     a.from.do(t, http.MethodPatch, a.proxied("headers", chatRoute), nil, strings.NewReader("{}")),
		http.StatusUnsupportedMediaType: a.from.do(t, http.MethodPost, a.proxied("headers", chatRoute), http.Header{"Content-Encoding": {"gzip"}}, strings.NewReader("{}")),
	} {
		trace := got.Header.Get(traceHeader)
		if got.Status != want || trace == "" || seen[trace] {
			t.Errorf("status %d, expected %d; trace %q: %.300s", got.Status, want, trace, got.Body)
		}
		seen[trace] = true
	}
}

// use: what an answer used, in the header if it is known in time, else in a trailer.
func (a *answerRig) use(t *testing.T) {
	const withUsage = `,"stream":true,"stream_options":{"include_usage":true}`
	large := usedChunk[:len(usedChunk)-1] + `,"padding":"` + strings.Repeat("p", 100_000) + `"}`
	for _, c := range []struct {
		name, more, contentType, body string
		length, trails, untold        bool
	}{
		{name: "JSON", contentType: "application/json", body: usedChunk},
		{name: "JSON of known length", contentType: "application/json", body: usedChunk, length: true},
		{name: "large JSON", contentType: "application/json", body: large, trails: true},
		{name: "large JSON of known length", contentType: "application/json", body: large, length: true, trails: true},
		{name: "stream", more: `,"stream":true`, contentType: "text/event-stream", body: "data: " + usedChunk + "\n\ndata: [DONE]\n\n", trails: true},
		{name: "stream with usage", more: withUsage, contentType: "text/event-stream", body: "data: " + usedChunk + "\n\ndata: [DONE]\n\n", trails: true},
		{name: "no usage", contentType: "application/json", body: `{"choices":[]}`, untold: true},
	} {
		a.provider.play(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", c.contentType)
			if c.length {
				w.Header().Set("Content-Length", strconv.Itoa(len(c.body)))
			}
			_, _ = io.WriteString(w, c.body)
			_ = http.NewResponseController(w).Flush()
		})
		got := a.ask(t, chatRoute, c.more)
		if got.Status != http.StatusOK || got.Err != nil {
			t.Fatalf("%s: %d %v", c.name, got.Status, got.Err)
		}
		at, not := got.Header, got.Trailer
		if c.trails {
			at, not = not, at
		}
		cost, usage := usedCost, usedText
		if c.untold {
			cost, usage = "", ""
		}
		if at.Get(usageHeader) != usage || at.Get(costHeader) != cost || not.Get(usageHeader)+not.Get(costHeader) != "" {
			t.Errorf("%s: the header has %q, %q, the trailer %q, %q", c.name,
				got.Header.Get(usageHeader), got.Header.Get(costHeader), got.Trailer.Get(usageHeader), got.Trailer.Get(costHeader))
		}
	}
}

// broken: an answer that the provider breaks off isn't taken for whole. In a stream,
// an event says so.
func (a *answerRig) broken(t *testing.T) {
	for _, c := range []struct{ more, contentType, sent string }{
		{"", "application/json", `{"choices":[` + strings.Repeat(" ", 100_000)},
		{`,"stream":true`, "text/event-stream", chunkEvent("a") + `data: {"choi`},
	} {
		a.provider.play(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", c.contentType)
			_, _ = io.WriteString(w, c.sent)
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		})
		got := a.ask(t, chatRoute, c.more)
		if c.more == "" {
			if got.Err == nil {
				t.Errorf("half an answer of JSON came as a whole one: %d bytes", len(got.Body))
			}
			continue
		}
		rest, whole := strings.CutPrefix(string(got.Body), chunkEvent("a"))
		if !whole || !strings.Contains(rest, "event: error\ndata: {") || !strings.Contains(rest, `"upstream_unreachable"`) || strings.Contains(rest, "[DONE]") {
			t.Errorf("a stream that broke off ended with %q (%v)", rest, got.Err)
		}
	}
}

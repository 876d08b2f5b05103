// SPDX-License-Identifier: MPL-2.0

package relay

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/internal/price"
	"vault-plugin-secrets-portkey/internal/provider"
)

// The prices of model "m" in these tests, in nano-USD per token. Model "other"
// has none; "dear" costs twice as much and reads ten times as much; "o3" costs
// the same and reasons.
const (
	inputRate, cachedRate, outputRate = 1000, 500, 2000
)

// loadTable reads the price table once, which takes a while.
var loadTable = sync.OnceValues(price.Load)

func testBook(t testing.TB) *price.Book {
	t.Helper()
	table, err := loadTable()
	if err != nil {
		t.Fatal(err)
	}
	const perMillion = 1_000_000
	prices := func(times price.NanoUSD) map[price.Unit]price.NanoUSD {
		return map[price.Unit]price.NanoUSD{
			price.Input: times * inputRate * perMillion, price.CacheRead: times * cachedRate * perMillion, price.Output: times * outputRate * perMillion,
		}
	}
	return price.NewBook(table, nil, []price.Override{
		{Provider: "*", Model: "m", ContextWindow: 100_000, Prices: prices(1)},
		{Provider: "*", Model: "dear", ContextWindow: 1_000_000, Prices: prices(2)},
		{Provider: "*", Model: "o3", ContextWindow: 100_000, Prices: prices(1)},
	})
}

// A request of these tests, and the most that it can use: a token a byte of
// messages, 64 and 16 for what frames the prompt and its one message, and the
// cap.
const (
	messages  = `[{"role":"user","content":"Hello"}]`
	outputCap = 50
	chatText  = `{"model":"m","max_tokens":50,"messages":` + messages + `}`
	chatAsked = `{"model":"m","max_tokens":50,"stream":true,"stream_options":{"include_usage":true},"messages":` + messages + `}`
	streamed  = `{"model":"m","max_tokens":50,"stream":true,"messages":` + messages + `}`

	worstInput = len(messages) + 64 + 16
	worstCost  = worstInput*inputRate + outputCap*outputRate + rounding
	rounding   = 1 // cached input is rounded up apart, so the worst case has room for it
)

// Answers of these tests, and what the usage in them costs.
const (
	usageText  = `{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15,"prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":2}}`
	usageCost  = 6*inputRate + 4*cachedRate + 5*outputRate
	answerText = `{"model":"m","choices":[{"index":0,"message":{"content":"Hi"},"finish_reason":"stop"}],"usage":` + usageText + `}`
	noUsage    = `{"model":"m","choices":[{"index":0,"message":{"content":"Hi"},"finish_reason":"stop"}]}`

	chunkText  = "data: {\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}]}\n\n"
	chunkStop  = "data: {\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"
	chunkUsage = "data: {\"model\":\"m\",\"choices\":[],\"usage\":" + usageText + "}\n\n"
	chunkError = "data: {\"error\":{\"message\":\"overloaded\",\"code\":503}}\n\n"
	chunkDone  = "data: [DONE]\n\n"
)

// reported is the usage of these answers, worst that of the request's bound.
func reported() price.Usage {
	return price.Usage{price.Input: 10, price.CacheRead: 4, price.Output: 5, price.OutputReasoning: 2, price.Requests: 1}
}

func worst() price.Usage {
	return price.Usage{price.Input: int64(worstInput), price.Output: outputCap, price.Requests: 1}
}

// script is a provider that a test plays.
type script func(*http.Request) (*http.Response, error)

func (s script) RoundTrip(r *http.Request) (*http.Response, error) { return s(r) }

// body is an answer's body: text, then end; nil means io.EOF.
type body struct {
	text io.Reader
	end  func() error
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.text.Read(p)
	if errors.Is(err, io.EOF) && b.end != nil {
		err = b.end()
	}
	return n, err
}

func (b *body) Close() error { return nil }

// received reads the request, as a provider does before it answers.
func received(r *http.Request) {
	if r.Body != nil {
		_, _ = io.Copy(io.Discard, r.Body)
	}
}

const (
	jsonType   = "application/json"
	streamType = "text/event-stream; charset=utf-8"
)

// answers is a provider that receives the request, and answers with text.
func answers(status int, contentType, text string) script {
	return ends(status, contentType, text, nil)
}

// ends is answers with an end of the body that isn't the proper one.
func ends(status int, contentType, text string, end func(*http.Request) error) script {
	return func(r *http.Request) (*http.Response, error) {
		received(r)
		b := &body{text: strings.NewReader(text)}
		if end != nil {
			b.end = func() error { return end(r) }
		}
		return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {contentType}}, Body: b}, nil
	}
}

var errReset = errors.New("connection reset by peer")

func reset(*http.Request) error { return errReset }

// hang waits for the end of the exchange.
func hang(r *http.Request) error {
	<-r.Context().Done()
	return r.Context().Err()
}

// targetAt is a target of a provider of the catalogue.
func targetAt(t testing.TB, id, baseURL string) *provider.Target {
	t.Helper()
	catalogue, err := provider.Load()
	if err != nil {
		t.Fatal(err)
	}
	p, found := catalogue.Get(id)
	if !found {
		t.Fatalf("the catalogue has no %s", id)
	}
	config := provider.Config{BaseURL: baseURL, Secret: secret}
	if id == "sandbox" {
		config = provider.Config{}
	}
	resolved, err := p.Resolve(config)
	if err != nil {
		t.Fatal(err)
	}
	return resolved
}

// chatRequest is a request with this body, on a virtual key without limits.
func chatRequest(t testing.TB, text string) *Request {
	t.Helper()
	req := request(t, "http://127.0.0.1:1/v1")
	req.Body, req.Book, req.DefaultOutputCap = []byte(text), testBook(t), 1000
	return req
}

// settled serves req and returns its outcome; there must be exactly one, and it
// must be there when Serve returns. What limits count must agree with it: where
// the virtual key has none, it gets some that only count.
func settled(ctx context.Context, t testing.TB, transport http.RoundTripper, w Answer, req *Request) Outcome {
	t.Helper()
	unlimited := req.VirtualKey.Limits == nil
	if unlimited {
		req = countOnly(t, req)
	}
	var outcomes []Outcome
	req.Settled = func(o Outcome) { outcomes = append(outcomes, o) }
	New(Options{Transport: transport}).Serve(ctx, w, req)
	if len(outcomes) != 1 {
		t.Fatalf("settled %d times: %+v", len(outcomes), outcomes)
	}
	o := outcomes[0]
	if o.VirtualKey != req.VirtualKey.Name || o.Started.IsZero() || o.Ended.Before(o.Started) {
		t.Errorf("the outcome is of %q, from %s to %s", o.VirtualKey, o.Started, o.Ended)
	}
	if o.FirstByte.IsZero() != (o.Status == 0) {
		t.Errorf("status %d, first byte at %s", o.Status, o.FirstByte)
	}
	if unlimited {
		wantCounted(t, req, countOf(o))
	}
	return o
}

// verdict is what settlement decides.
type verdict struct {
	Result   Result
	Basis    Basis
	Status   int
	Code     string
	Usage    price.Usage
	Cost     price.NanoUSD
	Unpriced bool
}

func (v verdict) check(t testing.TB, o Outcome) {
	t.Helper()
	got := verdict{o.Result, o.Basis, o.Status, o.Code, o.Usage, o.Cost.Total, o.Unpriced}
	if got != v {
		t.Errorf("settled as\n%+v, want\n%+v", got, v)
	}
}

// expiring makes the exchange time out, when it has to.
func expiring(r *Request) { r.Timeout = 20 * time.Millisecond }

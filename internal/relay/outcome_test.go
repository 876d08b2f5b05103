// SPDX-License-Identifier: MPL-2.0

package relay

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/internal/apierror"
	"vault-plugin-secrets-portkey/internal/ledger"
	"vault-plugin-secrets-portkey/internal/price"
)

func TestSettle_ARefusedRequestIsChargedNothing(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Request)
		code   string
	}{
		"disabled":      {func(r *Request) { r.VirtualKey.Disabled = true }, apierror.CodeVirtualKeyDisabled},
		"expired":       {func(r *Request) { r.VirtualKey.ExpiresAt = time.Unix(1, 0) }, apierror.CodeVirtualKeyExpired},
		"model":         {func(r *Request) { r.VirtualKey.Models = []string{"x*"} }, apierror.CodeModelNotAllowed},
		"no model":      {func(r *Request) { r.Body = []byte(`{"messages":[]}`) }, apierror.CodeModelRequired},
		"no body":       {func(r *Request) { r.Body = nil }, apierror.CodeModelRequired},
		"no JSON":       {func(r *Request) { r.Body = []byte(`{"model"`) }, apierror.CodeInvalidRequest},
		"model twice":   {func(r *Request) { r.Body = []byte(`{"model":"m","Model":"m"}`) }, apierror.CodeInvalidRequest},
		"bad parameter": {func(r *Request) { r.Body = []byte(`{"model":"m","max_tokens":"x"}`) }, apierror.CodeInvalidRequest},
		"bad path":      {func(r *Request) { r.Path = "v1/../v1/chat/completions" }, apierror.CodeInvalidRequest},
		"no such route": {func(r *Request) { r.Path = "v9/chat/completions" }, apierror.CodeRouteNotFound},
		"fallback model": {func(r *Request) {
			r.Body = []byte(`{"model":"m","models":["m","x"]}`)
			r.VirtualKey.Models = []string{"m"}
		}, apierror.CodeModelNotAllowed},
		"forced model": {func(r *Request) {
			r.VirtualKey.Models, r.VirtualKey.Forced = []string{"m"}, map[string]json.RawMessage{"model": []byte(`"x"`)}
		}, apierror.CodeModelNotAllowed},
		"forced fallback": {func(r *Request) {
			r.VirtualKey.Models, r.VirtualKey.Forced = []string{"m"}, map[string]json.RawMessage{"models": []byte(`["x"]`)}
		}, apierror.CodeModelNotAllowed},
	} {
		t.Run(name, func(t *testing.T) {
			req := chatRequest(t, chatText)
			c.change(req)
			provider := script(func(*http.Request) (*http.Response, error) {
				t.Error("sent to the provider")
				return nil, errReset
			})
			verdict{Result: Refused, Basis: Free, Code: c.code}.check(t, settled(t.Context(), t, provider, newRecorder(), req))
		})
	}
}

// ending is a request, a provider that makes an end of it, and what it is
// settled as.
type ending struct {
	text     string
	change   func(*Request)
	provider script
	want     verdict
}

// endings are the rule: nothing is charged where the request wasn't fully sent
// or the provider answered with an error; what the provider reports, where it
// does; else the worst case.
func endings() map[string]ending {
	free := func(result Result, status int, code string) verdict {
		return verdict{Result: result, Basis: Free, Status: status, Code: code}
	}
	byReport := func(result Result, code string) verdict {
		return verdict{result, Reported, 200, code, reported(), usageCost, false}
	}
	byBound := func(result Result, status int, code string) verdict {
		return verdict{result, Unconfirmed, status, code, worst(), price.NanoUSD(worstCost), false}
	}
	return map[string]ending{
		"nobody there": {text: chatText, want: free(Failed, 0, apierror.CodeUnreachable), provider: func(*http.Request) (*http.Response, error) {
			return nil, errors.New("connection refused")
		}},
		"not fully sent": {text: chatText, want: free(Failed, 0, apierror.CodeUnreachable), provider: func(r *http.Request) (*http.Response, error) {
			_, _ = io.ReadFull(r.Body, make([]byte, len(chatText)-1))
			return nil, errReset
		}},
		"reset before the answer":      {text: chatText, want: byBound(Failed, 0, apierror.CodeUnreachable), provider: func(r *http.Request) (*http.Response, error) { received(r); return nil, errReset }},
		"timeout before it was sent":   {text: chatText, change: expiring, want: free(Failed, 0, apierror.CodeTimeout), provider: func(r *http.Request) (*http.Response, error) { return nil, hang(r) }},
		"timeout before the answer":    {text: chatText, change: expiring, want: byBound(Failed, 0, apierror.CodeTimeout), provider: func(r *http.Request) (*http.Response, error) { received(r); return nil, hang(r) }},
		"panic before it was sent":     {text: chatText, want: free(Failed, 0, apierror.CodeInternal), provider: func(*http.Request) (*http.Response, error) { panic(secret) }},
		"panic after it was sent":      {text: chatText, want: byBound(Failed, 0, apierror.CodeInternal), provider: func(r *http.Request) (*http.Response, error) { received(r); panic(secret) }},
		"redirect":                     {text: chatText, want: free(Failed, 307, apierror.CodeUnreachable), provider: answers(307, jsonType, "")},
		"refused by the provider":      {text: chatText, want: free(Failed, 400, ""), provider: answers(400, jsonType, `{"error":{}}`)},
		"provider's rate limit":        {text: chatText, want: free(Failed, 429, ""), provider: answers(429, jsonType, answerText)},
		"provider's error":             {text: streamed, want: free(Failed, 500, ""), provider: answers(500, streamType, chunkUsage)},
		"error that breaks off":        {text: chatText, want: free(Failed, 503, apierror.CodeUnreachable), provider: ends(503, jsonType, `{"er`, reset)},
		"usage":                        {text: chatText, want: byReport(Succeeded, ""), provider: answers(200, jsonType, answerText)},
		"usage in another 2xx":         {text: chatText, want: verdict{Succeeded, Reported, 201, "", reported(), usageCost, false}, provider: answers(201, jsonType, answerText)},
		"no usage":                     {text: chatText, want: byBound(Succeeded, 200, ""), provider: answers(200, jsonType, noUsage)},
		"no JSON":                      {text: chatText, want: byBound(Succeeded, 200, ""), provider: answers(200, "text/html", "<html>")},
		"half a JSON":                  {text: chatText, want: byBound(Failed, 200, ""), provider: answers(200, jsonType, answerText[:len(answerText)-1])},
		"an error with status 200":     {text: chatText, want: byBound(Failed, 200, ""), provider: answers(200, jsonType, `{"error":{"message":"no"}}`)},
		"reset in the answer":          {text: chatText, want: byBound(Failed, 200, apierror.CodeUnreachable), provider: ends(200, jsonType, answerText[:20], reset)},
		"timeout in the answer":        {text: chatText, change: expiring, want: byBound(Failed, 200, apierror.CodeTimeout), provider: ends(200, jsonType, answerText[:20], hang)},
		"stream, usage asked by us":    {text: streamed, want: byReport(Succeeded, ""), provider: answers(200, streamType, chunkText+chunkStop+chunkUsage+chunkDone)},
		"stream, usage asked by app":   {text: chatAsked, want: byReport(Succeeded, ""), provider: answers(200, streamType, chunkText+chunkStop+chunkUsage+chunkDone)},
		"stream without usage":         {text: streamed, want: byBound(Succeeded, 200, ""), provider: answers(200, streamType, chunkText+chunkStop+chunkDone)},
		"stream that just stops":       {text: streamed, want: byBound(Failed, 200, ""), provider: answers(200, streamType, chunkText)},
		"stream, error event":          {text: streamed, want: byBound(Failed, 200, ""), provider: answers(200, streamType, chunkText+chunkError)},
		"stream, error event in usage": {text: streamed, want: byReport(Failed, ""), provider: answers(200, streamType, chunkText+chunkStop+chunkUsage+chunkError)},
		"stream reset at once":         {text: streamed, want: byBound(Failed, 200, apierror.CodeUnreachable), provider: ends(200, streamType, "", reset)},
		"stream reset":                 {text: streamed, want: byBound(Failed, 200, apierror.CodeUnreachable), provider: ends(200, streamType, chunkText+chunkStop, reset)},
		"stream reset behind usage":    {text: streamed, want: byReport(Failed, apierror.CodeUnreachable), provider: ends(200, streamType, chunkText+chunkStop+chunkUsage, reset)},
		"stream times out":             {text: streamed, change: expiring, want: byBound(Failed, 200, apierror.CodeTimeout), provider: ends(200, streamType, chunkText, hang)},
		"stream, running usage only": {text: chatAsked, want: byBound(Failed, 200, apierror.CodeUnreachable), provider: ends(200, streamType,
			"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}],\"usage\":"+usageText+"}\n\n", reset)},
		"stream nobody asked for": {text: chatText, want: byReport(Succeeded, ""), provider: answers(200, streamType, chunkText+chunkStop+chunkUsage+chunkDone)},
		"panic in the answer":     {text: chatText, want: byBound(Failed, 200, apierror.CodeInternal), provider: ends(200, jsonType, answerText[:20], func(*http.Request) error { panic(secret) })},
		"answered before the request was read": {text: chatText, want: byReport(Succeeded, ""), provider: func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(answerText))}, nil
		}},
		"no cap: the default, for each choice": {
			text: `{"model":"m","n":3,"messages":` + messages + `}`, provider: answers(200, jsonType, noUsage),
			want: verdict{Succeeded, Unconfirmed, 200, "", price.Usage{price.Input: int64(worstInput), price.Output: 3000, price.Requests: 1},
				price.NanoUSD(worstInput*inputRate + 3000*outputRate + rounding), false},
		},
		"an image: the context window": {
			text:     `{"model":"m","max_tokens":50,"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://example.com/a"}}]}]}`,
			provider: answers(200, jsonType, noUsage),
			want: verdict{Succeeded, Unconfirmed, 200, "", price.Usage{price.Input: 100_000, price.Output: outputCap, price.Requests: 1},
				100_000*inputRate + outputCap*outputRate + rounding, false},
		},
		"no price": {
			text: `{"model":"other","max_tokens":50,"messages":` + messages + `}`, provider: answers(200, jsonType, answerText),
			want: verdict{Succeeded, Reported, 200, "", reported(), 0, true},
		},
		"no price, no usage": {
			text: `{"model":"other","max_tokens":50,"messages":` + messages + `}`, provider: answers(200, jsonType, noUsage),
			want: verdict{Succeeded, Unconfirmed, 200, "", worst(), 0, true},
		},
		"no book": {text: chatText, change: func(r *Request) { r.Book = nil }, provider: answers(200, jsonType, answerText), want: verdict{Succeeded, Reported, 200, "", reported(), 0, true}},
		"usage above the bound is charged in full": {
			text: chatText, provider: answers(200, jsonType, `{"choices":[{}],"usage":{"prompt_tokens":1000,"completion_tokens":1000}}`),
			want: verdict{Succeeded, Reported, 200, "", price.Usage{price.Input: 1000, price.Output: 1000, price.Requests: 1}, 1000 * (inputRate + outputRate), false},
		},
	}
}

func TestSettle_EachEndingIsChargedByTheRule(t *testing.T) {
	for name, c := range endings() {
		t.Run(name, func(t *testing.T) {
			req := chatRequest(t, c.text)
			if c.change != nil {
				c.change(req)
			}
			c.want.check(t, settled(t.Context(), t, c.provider, newRecorder(), req))
		})
	}
}

func TestSettle_RoutesThatCostNothingAndThoseThatNobodyCanPrice(t *testing.T) {
	unpriced := verdict{Succeeded, Unconfirmed, 200, "", price.Usage{price.Requests: 1}, 0, true}
	free := verdict{Result: Succeeded, Basis: Free, Status: 200}
	for route, want := range map[string]verdict{
		"GET v1/models": free, "GET v1/models/m": free, "GET v1/files": free, "DELETE v1/files/f": free,
		"GET v1/responses/r": free, "POST v1/responses/r/cancel": free,
		"POST v1/images/generations": unpriced, "POST v1/batches": unpriced, "POST v1/batches/b/resume": unpriced,
	} {
		t.Run(route, func(t *testing.T) {
			req := chatRequest(t, `{"model":"m","prompt":"a cat"}`)
			req.Method, req.Path, _ = strings.Cut(route, " ")
			if !hasBody(req.Method) || strings.HasSuffix(route, "resume") {
				req.Body = nil
			}
			want.check(t, settled(t.Context(), t, answers(200, jsonType, answerText), newRecorder(), req))
		})
	}
}

// door is an Answer that goes wrong at the n-th write and at all that follow.
type door struct {
	*recorder
	n    int
	fail func() error
}

func (d *door) Write(p []byte) (int, error) {
	if d.n--; d.n <= 0 {
		return 0, d.fail()
	}
	return d.recorder.Write(p)
}

func TestSettle_WhatGoesWrongAtTheDoorIsChargedByWhatTheProviderSaid(t *testing.T) {
	tooLarge := &apierror.Error{Status: 502, Code: apierror.CodeAnswerTooLarge}
	stream := chunkText + chunkStop + chunkUsage + chunkDone
	for name, c := range map[string]struct {
		text, answer, contentType string
		fail                      func() error
		code                      string
	}{
		"caller gone":           {chatText, answerText, jsonType, func() error { return io.ErrClosedPipe }, apierror.CodeCallerGone},
		"too large":             {chatText, answerText, jsonType, func() error { return tooLarge }, apierror.CodeAnswerTooLarge},
		"panic":                 {chatText, answerText, jsonType, func() error { panic(secret) }, apierror.CodeInternal},
		"stream, caller gone":   {chatAsked, stream, streamType, func() error { return io.ErrClosedPipe }, apierror.CodeCallerGone},
		"stream, panics always": {chatAsked, stream, streamType, func() error { panic(secret) }, apierror.CodeInternal},
	} {
		t.Run(name, func(t *testing.T) {
			// All of the answer has been read when the door fails.
			w := &door{newRecorder(), 1, c.fail}
			o := settled(t.Context(), t, answers(200, c.contentType, c.answer), w, chatRequest(t, c.text))
			verdict{Failed, Reported, 200, c.code, reported(), usageCost, false}.check(t, o)

			// Only a part of it has: one that isn't a stream is longer than what
			// is read before its header goes out.
			part := c.answer[:60]
			if c.contentType == jsonType {
				part = strings.Repeat(" ", 64<<10)
			}
			first := &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {c.contentType}}}
			first.Body = &body{text: io.MultiReader(strings.NewReader(part), strings.NewReader(c.answer[60:]))}
			w = &door{newRecorder(), 1, c.fail}
			o = settled(t.Context(), t, script(func(r *http.Request) (*http.Response, error) { received(r); return first, nil }), w, chatRequest(t, c.text))
			verdict{Failed, Unconfirmed, 200, c.code, worst(), price.NanoUSD(worstCost), false}.check(t, o)
		})
	}
}

func TestSettle_ADoorThatPanicsBeforeTheAnswerDoesNotEscapeSettlement(t *testing.T) {
	w := &door{newRecorder(), 1, func() error { panic(secret) }}
	o := settled(t.Context(), t, answers(307, jsonType, ""), w, chatRequest(t, chatText))
	verdict{Result: Failed, Basis: Free, Status: 307, Code: apierror.CodeUnreachable}.check(t, o)
}

func TestSettle_ACallerThatGoesIsChargedByWhatWasSent(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	transport := NewTransport(http.DefaultTransport)
	defer transport.CloseIdleConnections()
	unlimited := chatRequest(t, chatText)
	unlimited.VirtualKey.Limits = ledger.NewPolicy(ledger.PolicyOptions{}) // which ask no storage
	o := settled(ctx, t, transport, newRecorder(), unlimited)
	verdict{Result: Failed, Basis: Free, Code: apierror.CodeCallerGone}.check(t, o)
	o = settled(ctx, t, transport, newRecorder(), chatRequest(t, chatText))
	verdict{Result: Refused, Basis: Free, Code: apierror.CodeCallerGone}.check(t, o)

	for name, c := range map[string]struct {
		text   string
		status int
	}{"before the answer": {"", 0}, "in the answer": {chunkText, 200}} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			w := newRecorder()
			provider := ends(200, streamType, c.text, func(r *http.Request) error { cancel(); return hang(r) })
			if c.status == 0 {
				provider = func(r *http.Request) (*http.Response, error) { received(r); cancel(); return nil, hang(r) }
			}
			o := settled(ctx, t, provider, w, chatRequest(t, streamed))
			verdict{Failed, Unconfirmed, c.status, apierror.CodeCallerGone, worst(), price.NanoUSD(worstCost), false}.check(t, o)
		})
	}
}

func TestSettle_OverARealConnection(t *testing.T) {
	byBound := func(status int) verdict {
		return verdict{Failed, Unconfirmed, status, apierror.CodeUnreachable, worst(), price.NanoUSD(worstCost), false}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	hijack := func(answer string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			received(r)
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.WriteString(conn, answer)
			_ = conn.Close()
		}
	}
	for name, c := range map[string]struct {
		handler http.HandlerFunc // nil: nobody is there
		padding int
		want    verdict
	}{
		"nobody there":            {nil, 0, verdict{Result: Failed, Basis: Free, Code: apierror.CodeUnreachable}},
		"reset before the answer": {hijack(""), 0, byBound(0)},
		"reset in the answer":     {hijack("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n{"), 0, byBound(200)},
		"reset in a big request": {func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_ = conn.Close()
		}, 32 << 20, verdict{Result: Failed, Basis: Free, Code: apierror.CodeUnreachable}},
	} {
		t.Run(name, func(t *testing.T) {
			relay, served := upstream(t, c.handler)
			req := chatRequest(t, chatText)
			req.VirtualKey = served.VirtualKey
			if c.handler == nil {
				req.VirtualKey.Target = target(t, "http://"+nobody+"/v1")
			}
			req.Body = append(req.Body, strings.Repeat(" ", c.padding)...)
			c.want.check(t, settled(t.Context(), t, relay.transport, newRecorder(), req))
		})
	}
}

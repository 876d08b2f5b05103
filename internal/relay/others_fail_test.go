// SPDX-License-Identifier: MPL-2.0

package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/internal/apierror"
	"vault-plugin-secrets-portkey/internal/ledger"
)

// These are the failures of other gateways that are the relay's business, by
// their number in the list that the project keeps of them.

// 5. A client that disconnects in mid-stream is billed nothing, or the upstream
// is left running.
func TestOthersFail05_AClientThatLeavesInMidStreamPaysAndStopsTheUpstream(t *testing.T) {
	gone := make(chan struct{})
	relay, served := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		received(r)
		w.Header().Set("Content-Type", streamType)
		_, _ = w.Write([]byte(chunkText))
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		close(gone)
	})
	req := chatRequest(t, streamed)
	req.VirtualKey.Target = served.VirtualKey.Target
	limit(t, req, "usd=1/month", "tokens=1000/day", "requests=10/day", "concurrent=1")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	leaving := &leaver{newRecorder(), cancel}
	o := settled(ctx, t, relay.transport, leaving, req)
	select {
	case <-gone:
	case <-time.After(10 * time.Second):
		t.Fatal("the upstream request goes on")
	}
	if o.Code != apierror.CodeCallerGone || o.Basis != Unconfirmed {
		t.Errorf("settled as %+v", o)
	}
	wantCounted(t, req, counted{ledger.USD: int64(worstCost), ledger.Tokens: int64(worstInput) + outputCap, ledger.Requests: 1})
}

// leaver goes away with the first byte that it gets.
type leaver struct {
	*recorder
	leave func()
}

func (l *leaver) Write(p []byte) (int, error) {
	l.leave()
	return l.recorder.Write(p)
}

// 6. A streamed call is priced 0 while its tokens are right.
func TestOthersFail06_AStreamedCallCostsWhatAPlainOneCosts(t *testing.T) {
	for text, answer := range map[string]script{
		chatText:  answers(200, jsonType, answerText),
		streamed:  answers(200, streamType, chunkText+chunkStop+chunkUsage+chunkDone),
		chatAsked: answers(200, streamType, chunkText+chunkStop+chunkUsage+chunkDone),
	} {
		req := chatRequest(t, text)
		limit(t, req, "usd=1/month", "tokens=1000/day")
		if s := serve(t, req, answer); s.Cost.Total != usageCost {
			t.Errorf("%s cost %s", text, s.Cost.Total)
		}
		wantCounted(t, req, counted{ledger.USD: usageCost, ledger.Tokens: 15})
	}
}

// 10. A refused request keeps its reserved tokens.
func TestOthersFail10_ARefusedRequestHoldsNothing(t *testing.T) {
	req := chatRequest(t, chatText)
	limit(t, req, "tokens=100000/day", "usd=1/month", "output_tokens=1000/minute", "requests=1/day")
	spend(t, req, ledger.Requests, 1)
	for range 100 { // more than the tokens would allow, were they kept
		serve(t, req, nil).wantRefused(t, 402, apierror.TypeInsufficientQuota, apierror.CodeBudgetExceeded)
	}
	wantCounted(t, req, counted{ledger.Requests: 1})
}

// 11. A floor on reservations larger than the limit makes a small limit
// unusable.
func TestOthersFail11_ASmallLimitIsUsableToItsEnd(t *testing.T) {
	req := capped(t, 10) // below the least that a lowered cap leaves
	limit(t, req, "output_tokens=30/month")
	for range 3 {
		serve(t, req, answers(200, jsonType, noUsage)).wantAnswered(t)
	}
	wantCounted(t, req, counted{ledger.OutputTokens: 30})
}

// 12. A concurrency slot isn't released after a timeout.
func TestOthersFail12_ATimeoutGivesItsPlaceBack(t *testing.T) {
	for name, provider := range map[string]script{
		"before the answer": func(r *http.Request) (*http.Response, error) { received(r); return nil, hang(r) },
		"in the answer":     ends(200, streamType, chunkText, hang),
	} {
		t.Run(name, func(t *testing.T) {
			req := chatRequest(t, streamed)
			limit(t, req, "concurrent=1")
			for range 3 {
				expiring(req)
				if s := serve(t, req, provider); s.Code != apierror.CodeTimeout {
					t.Fatalf("settled as %+v", s.Outcome)
				}
			}
			wantCounted(t, req, counted{})
		})
	}
}

// 13. A refusal for concurrency still uses up a request of the rate limit.
func TestOthersFail13_ARefusalForConcurrencyCostsNoRequest(t *testing.T) {
	for _, limits := range [][]string{{"requests=2/minute", "concurrent=1"}, {"concurrent=1", "requests=2/minute"}} {
		req := chatRequest(t, chatText)
		limit(t, req, limits...)
		busy := reserve(t, req, ledger.Concurrent, 1)
		for range 5 {
			serve(t, req, nil).wantRefused(t, 429, apierror.TypeRequests, apierror.CodeRateLimitExceeded, "concurrent=1")
		}
		busy.Settle(ledger.Charge{})
		serve(t, req, nil).wantAnswered(t)
		serve(t, req, nil).wantAnswered(t)
		serve(t, req, nil).wantRefused(t, 429, apierror.TypeRequests, apierror.CodeRateLimitExceeded, "requests=2/minute")
	}
}

// 16. Cached tokens billed twice.
func TestOthersFail16_CachedTokensAreBilledOnceAtTheirOwnRate(t *testing.T) {
	req := chatRequest(t, chatText)
	limit(t, req, "usd=1/month", "tokens=1000/day", "input_tokens=1000/day", "output_tokens=1000/day")
	serve(t, req, answers(200, jsonType, answerText)).wantAnswered(t) // 10 in, 4 of them cached; 5 out, 2 of them reasoning
	wantCounted(t, req, counted{ledger.USD: 6*inputRate + 4*cachedRate + 5*outputRate, ledger.Tokens: 15, ledger.InputTokens: 10, ledger.OutputTokens: 5})
}

// 17. Other routes bypass the budget.
func TestOthersFail17_NoRouteBypassesTheBudget(t *testing.T) {
	const usage = `"usage":{"prompt_tokens":10,"completion_tokens":0,"total_tokens":10}`
	for _, c := range []struct {
		path, body, answer string
		cost               int64
	}{
		{"v1/chat/completions", chatText, answerText, usageCost},
		{"v1/completions", `{"model":"m","max_tokens":5,"prompt":"a"}`, `{"choices":[{"text":"x","finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":5}}`, 10*inputRate + 5*outputRate},
		{"v1/embeddings", `{"model":"m","input":"a"}`, `{"data":[],` + usage + `}`, 10 * inputRate},
		{"v1/moderations", `{"model":"m","input":"a"}`, `{"results":[],` + usage + `}`, 10 * inputRate},
		{"v1/responses", `{"model":"m","max_output_tokens":5,"input":"a"}`, `{"status":"completed","usage":{"input_tokens":10,"output_tokens":5}}`, 10*inputRate + 5*outputRate},
	} {
		req := chatRequest(t, c.body)
		req.Path = c.path
		limit(t, req, "usd=1/month")
		serve(t, req, answers(200, jsonType, c.answer)).wantAnswered(t)
		wantCounted(t, req, counted{ledger.USD: c.cost})
		spend(t, req, ledger.USD, 1_000_000_000-c.cost)
		serve(t, req, nil).wantRefused(t, 402, apierror.TypeInsufficientQuota, apierror.CodeBudgetExceeded)
	}
	for _, path := range []string{
		"v1/images/generations", "v1/images/edits", "v1/audio/speech", "v1/audio/transcriptions", "v1/files", "v1/uploads", "v1/batches",
		"v1/assistants", "v1/threads", "v1/responses/compact", "v1/videos", "v1/messages", "v1/anything/else",
	} {
		req := chatRequest(t, `{"model":"m"}`)
		req.Path = path
		limit(t, req, "usd=1/month")
		serve(t, req, nil).wantRefused(t, 403, apierror.TypeInvalidRequest, apierror.CodeRouteNotMetered)
	}
}

// 18. A deleted or disabled key still works from a cache.
func TestOthersFail18_ADisabledOrExpiredKeyIsRefusedAtOnce(t *testing.T) {
	req := chatRequest(t, chatText)
	limit(t, req, "requests=10/day")
	serve(t, req, nil).wantAnswered(t)
	for code, change := range map[string]func(*VirtualKey){
		apierror.CodeVirtualKeyDisabled: func(vk *VirtualKey) { vk.Disabled = true },
		apierror.CodeVirtualKeyExpired:  func(vk *VirtualKey) { vk.ExpiresAt = time.Now() },
	} {
		ended, vk := *req, *req.VirtualKey
		change(&vk)
		ended.VirtualKey = &vk
		serve(t, &ended, nil).wantRefused(t, 403, apierror.TypeInvalidRequest, code)
	}
	wantCounted(t, req, counted{ledger.Requests: 1})
}

// 18, between a request's finding its virtual key and its reservation.
func TestOthersFail18_AKeyThatIsDeletedMeanwhileIsNotFound(t *testing.T) {
	req := chatRequest(t, chatText)
	limit(t, req, "requests=10/day")
	if err := req.Ledger.Drop(t.Context(), "id-1"); err != nil {
		t.Fatal(err)
	}
	serve(t, req, nil).wantRefused(t, 404, apierror.TypeInvalidRequest, apierror.CodeVirtualKeyNotFound, `"team-a"`)
}

// 22. An unpriced model costs 0 and bypasses the budget.
func TestOthersFail22_AModelWithoutAPriceIsRefused(t *testing.T) {
	for _, model := range []string{"other", "M-2", "gpt-99-unheard-of"} {
		req := chatRequest(t, fmt.Sprintf(`{"model":%q,"messages":%s}`, model, messages))
		limit(t, req, "usd=1/month")
		serve(t, req, nil).wantRefused(t, 403, apierror.TypeInvalidRequest, apierror.CodeModelNotPriced, "vault write <mount>/prices/")
		wantCounted(t, req, counted{})
	}
}

// 23. A ping comment in an SSE stream breaks the proxy.
func TestOthersFail23_PingCommentsPassAndTheStreamIsMetered(t *testing.T) {
	stream := ": ping\n\n" + chunkText + ": ping\n\n:\n\n" + chunkStop + ": OPENROUTER PROCESSING\n\n" + chunkUsage + ": ping\n\n" + chunkDone
	req := chatRequest(t, chatAsked)
	limit(t, req, "usd=1/month")
	s := serve(t, req, answers(200, streamType, stream))
	if s.Body.String() != stream || s.Result != Succeeded || s.Basis != Reported {
		t.Errorf("%s as %+v", s.Body, s.Outcome)
	}
	wantCounted(t, req, counted{ledger.USD: usageCost})
}

// 24. An error in mid-stream is swallowed.
func TestOthersFail24_AnErrorInMidStreamReachesTheCallerAndIsCharged(t *testing.T) {
	req := chatRequest(t, streamed)
	limit(t, req, "usd=1/month")
	s := serve(t, req, answers(200, streamType, chunkText+chunkError))
	if !bytes.Contains(s.Body.Bytes(), []byte(strings.TrimSpace(chunkError))) || s.Result != Failed {
		t.Errorf("%s as %+v", s.Body, s.Outcome)
	}
	wantCounted(t, req, counted{ledger.USD: int64(worstCost)})
	s = serve(t, req, ends(200, streamType, chunkText, reset))
	if !strings.Contains(s.Body.String(), "event: error\ndata: ") || s.aborted == nil {
		t.Errorf("a stream that broke off: %s", s.Body)
	}
}

// 25. No retry-after.
func TestOthersFail25_EveryRefusalThatEndsByItselfSaysWhen(t *testing.T) {
	limitOf := func(text string) ledger.Limit {
		l, err := ledger.ParseLimit(text)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	for _, text := range []string{"usd=1/month", "tokens=1/minute", "requests=1/hour", "concurrent=1"} {
		for _, reason := range []ledger.Reason{ledger.Reserved, ledger.Busy, ledger.Rate, ledger.Unavailable} {
			for _, after := range []time.Duration{0, time.Millisecond, 90 * time.Minute} {
				w := newRecorder()
				limitError(t.Context(), &ledger.Refusal{Reason: reason, Limit: limitOf(text), RetryAfter: after, Cause: errors.New("x")}).Write(w)
				if got := w.Header().Get("Retry-After"); w.Code != 429 && w.Code != 503 || got == "" || got == "0" {
					t.Errorf("%s, reason %d, %s: %d, Retry-After %q", text, reason, after, w.Code, got)
				}
			}
		}
	}
}

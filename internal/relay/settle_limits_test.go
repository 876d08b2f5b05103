// SPDX-License-Identifier: MPL-2.0

package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/internal/apierror"
	"vault-plugin-secrets-portkey/internal/ledger"
	"vault-plugin-secrets-portkey/internal/price"
)

// everyUnit limits all units but money, in all kinds of windows.
var everyUnit = []string{
	"requests=1000/day", "requests=900/minute per entity", "tokens=9000000/month", "input_tokens=9000000/week", "output_tokens=9000000/total",
	"output_tokens=9000000/hour on m*", "output_tokens=9000000/hour on o*", "tokens=9000000/30d", "concurrent=1",
}

// TestLimits_EachEndingIsCountedOnceAsItsOutcomeSays runs every ending that is
// tested without limits on hard limits: the outcome is the same, and what is
// counted is what the outcome says, to the nano-dollar.
func TestLimits_EachEndingIsCountedOnceAsItsOutcomeSays(t *testing.T) {
	for name, c := range endings() {
		t.Run(name, func(t *testing.T) {
			req := chatRequest(t, c.text)
			if c.change != nil {
				c.change(req)
			}
			limits := everyUnit
			if !c.want.Unpriced {
				limits = append([]string{"usd=1000/month", "usd=1000/minute", "usd=1000/total per entity"}, limits...)
			}
			limit(t, req, limits...)
			for round := int64(1); round <= 2; round++ { // concurrent=1 lets the second pass only if the first has ended
				o := settled(t.Context(), t, c.provider, newRecorder(), req)
				c.want.check(t, o)
				want := countOf(o)
				for i := range want {
					want[i] *= round
				}
				for _, s := range statuses(t, req) {
					unit := s.Limit.Unit
					wanted := want[unit]
					if s.Limit.Models != "" && !s.Limit.Applies(o.Model) {
						wanted = 0
					}
					if s.Used != wanted || s.Reserved != 0 {
						t.Errorf("%s counts %s and holds %s, want %s", s.Limit, unit.Format(s.Used), unit.Format(s.Reserved), unit.Format(wanted))
					}
					if unconfirmed := wanted * b2i(o.Basis == Unconfirmed); s.Unconfirmed != unconfirmed {
						t.Errorf("%s has %s unconfirmed, want %s", s.Limit, unit.Format(s.Unconfirmed), unit.Format(unconfirmed))
					}
				}
			}
		})
	}
}

func b2i(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func TestLimits_WhatGoesWrongAtTheDoorIsCountedToo(t *testing.T) {
	tooLarge := &apierror.Error{Status: 502, Code: apierror.CodeAnswerTooLarge}
	for name, fail := range map[string]func() error{
		"caller gone": func() error { return errors.New("broken pipe") }, "too large": func() error { return tooLarge }, "panic": func() error { panic(secret) },
	} {
		t.Run(name, func(t *testing.T) {
			req := chatRequest(t, chatText)
			limit(t, req, append([]string{"usd=1/month"}, everyUnit[:5]...)...)
			o := settled(t.Context(), t, answers(200, jsonType, answerText), &door{newRecorder(), 1, fail}, req)
			if o.Basis != Reported || o.Cost.Total != usageCost {
				t.Errorf("settled as %+v", o)
			}
			wantCounted(t, req, countOf(o))
		})
	}
}

func TestLimits_ACallerThatGoesFreesItsPlaceAndIsChargedTheWorstCase(t *testing.T) {
	req := chatRequest(t, streamed)
	limit(t, req, "usd=1/month", "concurrent=1", "requests=10/day")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	provider := ends(200, streamType, chunkText, func(r *http.Request) error { cancel(); return hang(r) })
	o := settled(ctx, t, provider, newRecorder(), req)
	wantCounted(t, req, counted{ledger.USD: int64(worstCost), ledger.Requests: 1})
	if o.Basis != Unconfirmed || o.Cost.Total != price.NanoUSD(worstCost) {
		t.Errorf("settled as %+v", o)
	}
}

// A panic in what decides the charge leaves nothing held, and charges all that
// was.
func TestLimits_APanicInSettlementChargesAllThatIsHeld(t *testing.T) {
	req := chatRequest(t, chatText)
	limit(t, req, "usd=1/month", "tokens=100000/day", "concurrent=1")
	var clock atomic.Int32
	// An error that breaks off costs nothing, and nothing is charged before its end.
	refusal := ends(400, jsonType, `{"error":`, func(*http.Request) error { return io.ErrUnexpectedEOF })
	relay := New(Options{Transport: refusal, Now: func() time.Time {
		if clock.Add(1) == 3 { // admission, first byte, settlement
			panic(secret)
		}
		return time.Now()
	}})
	req.Settled = func(Outcome) { t.Error("settled after all") }
	relay.Serve(t.Context(), newRecorder(), req)
	wantCounted(t, req, counted{ledger.USD: int64(worstCost), ledger.Tokens: int64(worstInput) + outputCap})
}

// A panic of the door when it is told comes after the charge.
func TestLimits_APanicOfTheOneWhoIsToldChargesNothingTwice(t *testing.T) {
	req := chatRequest(t, chatText)
	limit(t, req, "usd=1/month", "requests=10/day", "concurrent=1")
	req.Settled = func(Outcome) { panic(secret) }
	New(Options{Transport: answers(200, jsonType, answerText)}).Serve(t.Context(), newRecorder(), req)
	wantCounted(t, req, counted{ledger.USD: usageCost, ledger.Requests: 1})
}

func TestLimits_UseAboveTheReservationIsChargedInFullAndTold(t *testing.T) {
	req := chatRequest(t, chatText)
	limit(t, req, "usd=1/month", "output_tokens=1000/day", "input_tokens=1000/day")
	over := `{"choices":[{}],"usage":{"prompt_tokens":20,"completion_tokens":90}}`
	s := serve(t, req, answers(200, jsonType, over))
	if !s.BoundExceeded {
		t.Error("nobody is told")
	}
	const cost = 20*inputRate + 90*outputRate
	wantCounted(t, req, counted{ledger.USD: cost, ledger.OutputTokens: 90, ledger.InputTokens: 20})
	exceeded := map[ledger.Unit]int64{ledger.USD: max(0, cost-int64(worstCost)), ledger.OutputTokens: 90 - outputCap}
	for _, status := range statuses(t, req) {
		if status.Exceeded != exceeded[status.Limit.Unit] {
			t.Errorf("%s is exceeded by %d, want %d", status.Limit, status.Exceeded, exceeded[status.Limit.Unit])
		}
	}
	req = chatRequest(t, chatText)
	limit(t, req, "usd=1/month")
	if s := serve(t, req, nil); s.BoundExceeded {
		t.Error("told of use within the reservation")
	}
}

func TestLimits_ReadsCountAsRequestsAndPassWithASpentBudget(t *testing.T) {
	for _, route := range [][2]string{{"GET", "v1/models"}, {"GET", "v1/files"}, {"DELETE", "v1/files/f"}, {"GET", "v1/responses/r"}} {
		req := chatRequest(t, "")
		req.Method, req.Path, req.Body = route[0], route[1], nil
		limit(t, req, "usd=0.01/month", "tokens=10/day", "requests=2/day on m", "requests=3/day", "concurrent=1", "output_tokens=0/day")
		spend(t, req, ledger.USD, 10_000_000)
		spend(t, req, ledger.Tokens, 10)
		serve(t, req, answers(200, jsonType, "{}")).wantAnswered(t)
		serve(t, req, answers(200, jsonType, "{}")).wantAnswered(t)
		for _, s := range statuses(t, req) {
			want := map[string]int64{"usd/month": 10_000_000, "tokens/day": 10, "requests/day": 2}[s.Limit.ID()]
			if s.Used != want || s.Reserved != 0 {
				t.Errorf("%s: %s counts %d, want %d", route, s.Limit, s.Used, want)
			}
		}
		serve(t, req, answers(200, jsonType, "{}")).wantAnswered(t)
		serve(t, req, nil).wantRefused(t, 402, apierror.TypeInsufficientQuota, apierror.CodeBudgetExceeded, "requests=3/day")
	}
}

// Of a request without a body nobody sees when it has been sent.
func TestLimits_ARequestWithoutABodyThatFailsCountsUnlessNobodyWasThere(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want int64
	}{
		"reset": {errReset, 1}, "timeout": {errDeadline, 1},
		"nobody there": {&net.OpError{Op: "dial", Err: errReset}, 0}, "no such host": {&net.DNSError{Name: "x"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			req := chatRequest(t, "")
			req.Path, req.Body = "v1/responses", nil
			limit(t, req, "requests=10/day", "output_tokens=9000/day", "concurrent=1")
			serve(t, req, func(*http.Request) (*http.Response, error) { return nil, c.err })
			wantCounted(t, req, counted{ledger.Requests: c.want, ledger.OutputTokens: 1000 * c.want})
		})
	}
}

func TestLimits_ReadsPassWhereNoMoneyIsAllowedAtAll(t *testing.T) {
	req := chatRequest(t, chatText)
	limit(t, req, "usd=0/total")
	serve(t, req, nil).wantRefused(t, 403, apierror.TypeInvalidRequest, apierror.CodeRequestExceedsLimit)
	req.Method, req.Path, req.Body = "GET", "v1/models", nil
	serve(t, req, answers(200, jsonType, "{}")).wantAnswered(t)
}

// What can't be metered is one request, and no more is unknown of it.
func TestLimits_AnUnmeteredRequestIsOneRequestForSure(t *testing.T) {
	req := chatRequest(t, `{"model":"m","prompt":"a cat"}`)
	req.Path, req.VirtualKey.AllowUnmetered = "v1/images/generations", true
	limit(t, req, "requests=10/day", "usd=1/month", "tokens=1000/day", "concurrent=1")
	serve(t, req, nil).wantAnswered(t)
	wantCounted(t, req, counted{ledger.Requests: 1})
	for _, s := range statuses(t, req) {
		if s.Unconfirmed != 0 {
			t.Errorf("%s has %d unconfirmed", s.Limit, s.Unconfirmed)
		}
	}
}

// Tokens of a kind that has no price can't make a request cheaper than what was
// held for it.
func TestLimits_UseWithoutAPriceIsChargedAtLeastWhatWasHeld(t *testing.T) {
	table, err := loadTable()
	if err != nil {
		t.Fatal(err)
	}
	req := chatRequest(t, `{"model":"m","input":"a"}`)
	req.Path = "v1/embeddings"
	req.Book = price.NewBook(table, nil, []price.Override{{Provider: "*", Model: "m", Prices: map[price.Unit]price.NanoUSD{price.Input: inputRate * 1_000_000}}})
	limit(t, req, "usd=1/month")
	s := serve(t, req, answers(200, jsonType, `{"data":[],"usage":{"prompt_tokens":1,"completion_tokens":7}}`))
	if !s.Unpriced {
		t.Errorf("settled as %+v", s.Outcome)
	}
	wantCounted(t, req, counted{ledger.USD: int64(len(`"a"`)+perRequest+perMessage) * inputRate})
}

func TestLimits_WindowsBeginInTheRequestsZone(t *testing.T) {
	zone := time.FixedZone("", 5*3600+1800)
	req := chatRequest(t, chatText)
	req.Zone = zone
	limit(t, req, "requests=1/day", "usd=1/month")
	serve(t, req, nil).wantAnswered(t)
	serve(t, req, nil).wantRefused(t, 402, apierror.TypeInsufficientQuota, apierror.CodeBudgetExceeded, "T18:30:00Z")
}

// A name in capitals is no way around a limit: providers may take it.
func TestLimits_OnModelsHoldWhateverTheCase(t *testing.T) {
	for _, text := range []string{"output_tokens=50/day on m", "output_tokens=50/day on M*"} {
		for _, model := range []string{"m", "M"} {
			req := chatRequest(t, strings.Replace(chatText, `"m"`, `"`+model+`"`, 1))
			limit(t, req, text)
			serve(t, req, answers(200, jsonType, noUsage)).wantAnswered(t)
			serve(t, req, nil).wantRefused(t, 402, apierror.TypeInsufficientQuota, apierror.CodeBudgetExceeded)
		}
	}
}

func TestLimits_ARequestWithoutABodyHasTheDefaultCap(t *testing.T) {
	req := chatRequest(t, "")
	req.Path, req.Body = "v1/responses", nil
	limit(t, req, "output_tokens=5000/day")
	serve(t, req, answers(200, jsonType, "{}")).wantAnswered(t)
	wantCounted(t, req, counted{ledger.OutputTokens: 1000})
}

// TestLimits_ConcurrentRequestsNeverSpendMoreThanTheLimit has many callers and
// random ends, to exhaustion.
func TestLimits_ConcurrentRequestsNeverSpendMoreThanTheLimit(t *testing.T) {
	req := chatRequest(t, chatText)
	limitWith(t, req, ledger.PolicyOptions{}, ledger.Options{QueueWait: 5 * time.Second}, "usd=0.02/month", "concurrent=20")
	const most = 20_000_000
	var spent, n atomic.Int64
	provider := script(func(r *http.Request) (*http.Response, error) {
		received(r)
		switch n.Add(1) % 4 {
		case 0:
			return answers(500, jsonType, "{}")(r)
		case 1:
			return nil, errReset
		}
		return answers(200, jsonType, answerText)(r)
	})
	relay := New(Options{Transport: provider})
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for {
				own, w := *req, newRecorder()
				own.Settled = func(o Outcome) { spent.Add(int64(o.Cost.Total)) }
				relay.Serve(t.Context(), w, &own)
				if w.Code == 402 {
					return
				}
				if w.Code != 200 && w.Code != 500 && w.Code != 502 {
					t.Errorf("answered %d %s", w.Code, w.Body)
					return
				}
			}
		})
	}
	all.Wait()
	if got := spent.Load(); got > most || got < most-int64(worstCost) {
		t.Errorf("spent %d of %d; a request's worst case is %d", got, most, worstCost)
	}
	wantCounted(t, req, counted{ledger.USD: spent.Load()})
}

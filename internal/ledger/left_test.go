// SPDX-License-Identifier: MPL-2.0

package ledger

import (
	"testing"
	"time"
)

func TestReservation_TightestIsTheLimitOfWhichTheSmallestPartIsLeft(t *testing.T) {
	l, err := Open(t.Context(), Options{Storage: newDisk(), Prefix: "ledger/", Owner: "o"})
	if err != nil {
		t.Fatal(err)
	}
	var limits []Limit
	for _, text := range []string{"requests=100/minute", "requests=20/day", "tokens=1000/hour", "output_tokens=500/total", "usd=1/month"} {
		limit, err := ParseLimit(text)
		if err != nil {
			t.Fatal(err)
		}
		limits = append(limits, limit)
	}
	p := NewPolicy(PolicyOptions{Account: "a", Name: "a", Limits: limits})
	amounts := Amounts{}
	amounts[Requests], amounts[Tokens], amounts[OutputTokens], amounts[USD] = 1, 300, 100, 1
	var first, second Reservation
	for _, r := range []*Reservation{&first, &second} {
		if refusal := l.Reserve(t.Context(), p, &Request{Amounts: amounts}, r); refusal != nil {
			t.Fatal(refusal)
		}
	}
	left, ok := second.Tightest(Requests)
	if !ok || left.Limit.String() != "requests=20/day" || left.Amount != 18 || left.Resets <= 0 || left.Resets > 24*time.Hour {
		t.Errorf("requests: %+v %v", left, ok)
	}
	left, ok = second.Tightest(Tokens, InputTokens, OutputTokens)
	if !ok || left.Limit.String() != "tokens=1000/hour" || left.Amount != 400 || left.Resets != time.Hour {
		t.Errorf("tokens: %+v %v", left, ok)
	}
	if left, ok = second.Tightest(OutputTokens); !ok || left.Amount != 300 || left.Resets != 0 {
		t.Errorf("output tokens: %+v %v", left, ok)
	}
	if _, ok = second.Tightest(Concurrent); ok {
		t.Error("a unit without a limit has one")
	}
	second.Settle(Charge{})
	if _, ok = second.Tightest(Requests); ok {
		t.Error("a reservation that has ended is held against limits")
	}
	if left, _ = first.Tightest(Requests); left.Amount != 19 {
		t.Errorf("after the second was settled with nothing, %d are left", left.Amount)
	}
	first.Settle(Charge{})
}

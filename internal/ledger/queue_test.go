// SPDX-License-Identifier: MPL-2.0

package ledger

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestQueue_WaitsForReservationsAndIsAdmittedWhenTheyEnd(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=0.0000001/month") // 100
		first := b.admit(p, usd(100))
		x := b.begin(p, usd(60))
		if b.pass(1900 * time.Millisecond); !x.pending() {
			t.Fatalf("decided: %v", x.refusal)
		}
		first.Settle(cost(40))
		b.admitted(x).Settle(cost(60))
		b.wantUsed(p, 100, 0)
	})
}

func TestQueue_IsFirstComeFirstServed(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=0.0000001/month")
		holder := b.admit(p, usd(100))
		var waiting []*attempt
		for range 5 {
			waiting = append(waiting, b.begin(p, usd(80)))
		}
		for i, x := range waiting {
			holder.Settle(Charge{})
			holder = b.admitted(x)
			for _, later := range waiting[i+1:] {
				if !later.pending() {
					t.Fatal("another came first")
				}
			}
		}
		holder.Settle(cost(0))
	})
}

func TestQueue_EndsAfterItsTimeWithReserved(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=0.0000001/month")
		first := b.admit(p, usd(100))
		x := b.begin(p, usd(60))
		if b.pass(1999 * time.Millisecond); !x.pending() {
			t.Fatalf("decided too early: %v", x.refusal)
		}
		b.pass(time.Millisecond)
		refusal := b.refusalIn(x, Reserved)
		if refusal.Used != 0 || refusal.Reserved != 100 || refusal.Amount != 60 || refusal.RetryAfter <= 0 {
			t.Errorf("%+v", refusal)
		}
		first.Settle(cost(100))
		b.wantUsed(p, 100, 0)
	})
}

func TestQueue_IsToldAtOnceWhenTheBudgetIsSpent(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=0.0000001/month")
		first := b.admit(p, usd(100))
		x := b.begin(p, usd(60))
		first.Settle(cost(41))
		if refusal := b.refusalIn(x, Spent); refusal.Used != 41 {
			t.Errorf("%+v", refusal)
		}
	})
}

func TestQueue_IsBounded(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		b.queueLength = 3
		p := b.policy("usd=0.0000001/month")
		first := b.admit(p, usd(100))
		var waiting []*attempt
		for range 3 {
			waiting = append(waiting, b.begin(p, usd(20)))
		}
		if x := b.begin(p, usd(20)); x.pending() {
			t.Fatal("a fourth waits")
		} else {
			b.refused(x, Reserved)
		}
		first.Settle(cost(0))
		for _, x := range waiting {
			b.admitted(x).Settle(cost(0))
		}
	})
}

func TestQueue_ACallerThatGoesAwayLeavesIt(t *testing.T) {
	onBench(t, func(_ *testing.T, b *bench) {
		p := b.policy("usd=0.0000001/month")
		first := b.admit(p, usd(100))
		gone, stays := b.begin(p, usd(100)), b.begin(p, usd(100))
		gone.cancel()
		b.refused(gone, Gone)
		first.Settle(cost(0))
		b.admitted(stays).Settle(cost(0))
		b.wantUsed(p, 0, 0)
	})
}

func TestQueue_WaitersAreServedWhenAWindowEnds(t *testing.T) {
	onBench(t, func(_ *testing.T, b *bench) {
		b.clock.set(time.Date(2026, 3, 31, 23, 59, 59, 0, time.UTC))
		p := b.policy("usd=0.0000001/month")
		first := b.admit(p, usd(100))
		x := b.begin(p, usd(60))
		b.pass(time.Second)
		b.Sweep()
		b.admitted(x).Settle(cost(60))
		first.Settle(cost(100))
		b.wantUsed(p, 60, 0)
	})
}

func TestQueue_ARequestThatFitsOtherLimitsOnlyHoldsNothingWhileItWaits(t *testing.T) {
	onBench(t, func(_ *testing.T, b *bench) {
		p := b.policy("tokens=1000/month", "usd=0.0000001/month")
		first := b.admit(p, usd(100))
		req := usd(60)
		req.Amounts[Tokens] = 900
		x := b.begin(p, req)
		b.wantUsed(p, 0, 0) // of tokens
		b.spend(p, tokens(900))
		first.Settle(cost(0))
		b.refused(x, Spent)
	})
}

func TestQueue_EndsWithTheLedger(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=0.0000001/month")
		first := b.admit(p, usd(100))
		x := b.begin(p, usd(60))
		done := make(chan error, 1)
		go func() { done <- b.Close(t.Context(), time.Second) }()
		synctest.Wait()
		b.refused(x, Unavailable)
		first.Settle(cost(7))
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		b.open()
		b.wantUsed(p, 7, 0)
	})
}

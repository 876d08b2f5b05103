// SPDX-License-Identifier: MPL-2.0

package ledger

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// How others fail: each line of the list that is the ledger's business, by its
// number. Elsewhere are 5, 6, 16, 17, 22, 23 and 24 (internal/relay, which
// meters, prices and bounds), 19 (parse_list_test.go and the roles' tests), and
// what 2, 7, 14, 18 and 20 mean for a real Vault (test).

func TestOthersFail01_ConcurrentCallsAllPassTheCheckBeforeAnySpendLands(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=0.00000001/month") // 10
		var calls []*attempt
		for range 50 {
			calls = append(calls, b.begin(p, usd(1)))
		}
		admitted := 0
		for _, x := range calls {
			if !x.pending() && x.refusal == nil {
				admitted++
			}
		}
		if admitted != 10 {
			t.Errorf("%d of 50 calls passed, want 10", admitted)
		}
		b.pass(b.queueWait)
	})
}

func TestOthersFail02_AKeyOverItsBudgetIsStillServed(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=0.00000001/total")
		b.admit(p, usd(10)).Settle(cost(11)) // above what was reserved
		refusal := b.refusalOf(p, usd(1), Spent)
		if refusal.Used != 11 || refusal.RetryAfter != 0 {
			t.Errorf("%+v", refusal)
		}
		b.crash()
		b.refuse(p, usd(1), Spent)
		b.refuse(b.softPolicy("usd=0.00000001/total"), usd(1), Spent)
	})
}

func TestOthersFail03_ACounterDoublesOrLeaksUnderLoad(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=1/month", "requests=1000000/day", "tokens=1000000/minute", "concurrent=4")
		for i := range int64(3000) {
			r := b.admit(p, usd(1000))
			charge := cost(1)
			if i%3 == 0 {
				charge = Charge{} // a provider's error
			}
			r.Settle(charge)
			r.Settle(charge)
			if i%7 == 0 {
				b.pass(300 * time.Millisecond)
				b.Sweep()
			}
		}
		b.wantUsed(p, 2000, 0)
		b.sweepFor(2 * time.Minute)
		if mark, used := b.storedMark("usd/month"); mark != 2000 || used != 2000 {
			t.Errorf("%d stored, and a mark of %d", used, mark)
		}
	})
}

func TestOthersFail04_ACancelledRequestKeepsItsHoldForEver(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=0.0000001/month", "concurrent=2")
		first := b.admit(p, usd(100))
		queued := b.begin(p, usd(100))
		queued.cancel()
		b.refused(queued, Gone)
		first.Settle(cost(0))

		b.view.puts(hangs)
		b.pass(10 * time.Millisecond)
		stored := b.begin(b.policy("usd=0.0000001/day", "concurrent=2"), usd(100))
		stored.cancel()
		b.refused(stored, Gone)
		if sum := holdings(b.Ledger); sum != 0 {
			t.Errorf("%d stay reserved", sum)
		}
		b.view.weather(nil)
		b.view.free(works)
		b.spend(p, usd(100))
	})
}

func TestOthersFail07_TheResetJobFailsAndARefusalNeverEnds(t *testing.T) {
	onBench(t, func(_ *testing.T, b *bench) {
		b.clock.set(time.Date(2026, 3, 31, 23, 59, 58, 0, time.UTC))
		p := b.policy("usd=0.00000001/month", "requests=1/day", "tokens=10/36h", "usd=0.00000001/90s")
		b.spend(p, usd(10))
		b.refuse(p, usd(1), Spent)
		b.crash() // what is stored resets as what is in memory does
		refusal := b.refusalOf(p, usd(1), Spent)
		b.clock.set(refusal.ResetsAt)
		b.pass(100 * time.Second)
		b.spend(p, usd(10))
		b.refuse(p, usd(1), Spent)
	})
}

func TestOthersFail08_OneLevelNeverResets(t *testing.T) {
	onBench(t, func(_ *testing.T, b *bench) {
		limits := []string{"requests=1/day", "requests=1/day per entity", "requests=1/day on gpt-*", "requests=1/day per entity on gpt-*"}
		p := b.policy(limits...)
		req := &Request{Entity: "entity-1", Model: "gpt-4o", Amounts: Amounts{Requests: 1}}
		for range 3 {
			b.spend(p, req)
			for _, limit := range limits {
				b.refuse(b.policy(limit), req, Spent)
			}
			b.pass(day)
		}
	})
}

func TestOthersFail09_TokenLimitsArePassedByConcurrentRequests(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		for _, limit := range []string{"tokens=100/minute", "tokens=100/hour", "tokens=100/day", "tokens=100/30m"} {
			p := b.policy(limit)
			a := b.admit(p, tokens(60))
			x := b.begin(p, tokens(60))
			b.pass(b.queueWait)
			if x.refusal == nil || x.refusal.Reason != Rate && x.refusal.Reason != Reserved {
				t.Errorf("%s: a second request passed: %v", limit, x.refusal)
			}
			a.Settle(Charge{Amounts: Amounts{Tokens: 60}})
			b.spend(p, tokens(40))
		}
	})
}

func TestOthersFail10_ARefusedRequestKeepsItsReservedTokens(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("tokens=100/day", "requests=10/minute", "usd=0.00000001/month")
		req := tokens(100)
		req.Amounts[USD] = 11
		for range 20 {
			b.refuse(p, req, TooLarge)
		}
		if sum := holdings(b.Ledger); sum != 0 {
			t.Errorf("%d stay reserved", sum)
		}
		req.Amounts[USD] = 10
		b.spend(p, req)
	})
}

func TestOthersFail11_AFloorLargerThanTheLimitMakesASmallLimitUnusable(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		for _, limit := range []string{"requests=1/day", "requests=2/hour", "requests=3/week", "requests=65/month", "requests=1/minute"} {
			p := b.policy(limit)
			for range p.limits[0].Max {
				b.spend(p, usd(1))
			}
			if x := b.begin(p, usd(1)); x.refusal == nil || x.refusal.Used != p.limits[0].Max {
				t.Errorf("%s: %v", limit, x.refusal)
			}
		}
	})
}

func TestOthersFail12_AConcurrencySlotIsntReleasedAfterATimeout(t *testing.T) {
	onBench(t, func(_ *testing.T, b *bench) {
		p := b.policy("concurrent=1", "usd=1/month")
		b.spend(p, usd(1))
		for range 3 {
			b.admit(p, usd(1)).Settle(Charge{Unconfirmed: true, Amounts: Amounts{USD: 1}}) // the provider's
		}
		b.view.puts(hangs) // storage's
		x := b.begin(b.policy("concurrent=1", "usd=1/day"), usd(1))
		b.refuse(p, usd(1), Busy)
		b.pass(b.storageWait)
		b.refused(x, Unavailable)
		b.view.weather(nil)
		b.view.free(works)
		b.spend(p, usd(1))
	})
}

func TestOthersFail13_ARefusalForConcurrencyUsesUpARequestOfTheRateLimit(t *testing.T) {
	onBench(t, func(_ *testing.T, b *bench) {
		p := b.policy("requests=2/minute", "concurrent=1")
		r := b.admit(p, usd(1))
		for range 100 {
			b.refuse(p, usd(1), Busy)
		}
		b.wantUsed(p, 0, 1)
		r.Settle(cost(1))
		b.spend(p, usd(1))
		b.refuse(p, usd(1), Rate)
	})
}

func TestOthersFail14_ShutdownLosesBufferedSpend(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=1/month", "usd=1/month per entity", "tokens=1000/hour")
		for i := range int64(100) {
			b.admit(p, usd(1000)).Settle(cost(i))
		}
		if err := b.Close(t.Context(), time.Second); err != nil {
			t.Fatal(err)
		}
		b.open()
		if s := b.status(p, ""); s.Used != 99*100/2 || s.Unattributed != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestOthersFail15_AFlushThatFailsDropsWhatItHeld(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=0.00001/month")
		for range 20 {
			b.spend(p, usd(10))
		}
		b.view.puts(refused)
		b.sweepFor(2 * time.Minute) // it is to be written exactly, and can't be
		if err := b.Close(t.Context(), time.Second); err == nil {
			t.Error("nobody is told that figures couldn't be written")
		}
		b.crash()
		if s := b.status(p, ""); s.Used < 200 {
			t.Errorf("%d used, want 200", s.Used)
		}
	})
}

func TestOthersFail18_ADeletedKeyStillWorksFromACache(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=0.0000001/month", "usd=0.0000001/month per entity")
		first := b.admit(p, usd(60))
		waits := b.begin(p, usd(60))
		if err := b.Drop(t.Context(), testAccount); err != nil {
			t.Fatal(err)
		}
		b.refused(waits, Unavailable)
		b.refuse(p, usd(1), Unavailable)
		first.Settle(cost(60))
		synctest.Wait()
		walk(t, b.disk, "ledger/accounts/", func(key string, _ []byte) { t.Errorf("%s is left", key) })
		walk(t, b.disk, "ledger/dropped/", func(key string, _ []byte) { t.Errorf("%s is left", key) })
	})
}

func TestOthersFail20_ReplicasMultiplyTheCap(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=0.000001/month")
		b.spend(p, usd(600))
		first := b.Ledger
		b.open()
		b.spend(p, usd(300))
		if refusal := first.Reserve(context.Background(), p, usd(300), &Reservation{}); refusal == nil || refusal.Reason != Unavailable {
			t.Errorf("the first goes on: %v", refusal)
		}
		if !first.Fenced() {
			t.Error("the first doesn't know that there is another")
		}
		b.refuse(p, usd(101), Spent)
	})
}

func TestOthersFail21_EditingALimitResetsItsUse(t *testing.T) {
	onBench(t, func(_ *testing.T, b *bench) {
		p := b.policy("usd=0.0000001/month")
		b.spend(p, usd(80))
		b.refuse(p, usd(30), Spent)
		b.spend(b.policy("usd=0.0000002/month"), usd(30)) // works at once, and counts on
		b.refuse(b.policy("usd=0.0000001/month"), usd(1), Spent)
		b.spend(b.policy("requests=5/day"), usd(1)) // removed, and added again
		b.wantUsed(p, 110, 0)
		b.sweepFor(10 * time.Minute) // also if it has left memory meanwhile
		b.spend(b.policy("requests=5/day"), usd(1))
		b.crash()
		b.spend(b.policy("requests=5/day"), usd(1))
		b.wantUsed(p, 110, 0)
	})
}

func TestOthersFail25_NoRetryAfter(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("requests=1/minute", "concurrent=1")
		r := b.admit(p, usd(1))
		if refusal := b.refusalOf(b.policy("concurrent=1"), usd(1), Busy); refusal.RetryAfter <= 0 {
			t.Errorf("busy: %s", refusal.RetryAfter)
		}
		r.Settle(cost(1))
		refusal := b.refusalOf(p, usd(1), Rate)
		b.pass(refusal.RetryAfter)
		b.spend(p, usd(1))

		fixed := b.policy("tokens=10/30m")
		b.spend(fixed, tokens(10))
		refusal = b.refusalOf(fixed, tokens(1), Rate)
		b.pass(refusal.RetryAfter)
		b.spend(fixed, tokens(10))
	})
}

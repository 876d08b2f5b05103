// SPDX-License-Identifier: MPL-2.0

package ledger

import (
	"math"
	"testing"
	"time"
)

func TestReset_MakesTheRunningWindowZeroForGood(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=0.0000001/month", "tokens=100/hour", "requests=5/day per entity")
		req := &Request{Amounts: Amounts{USD: 60, Tokens: 60, Requests: 1}}
		b.spend(p, req)
		under := b.admit(p, &Request{Amounts: Amounts{USD: 40, Tokens: 40}})
		if err := b.Reset(t.Context(), p, Selection{}); err != nil {
			t.Fatal(err)
		}
		b.wantUsed(p, 0, 40) // what is reserved stays, and counts when it is settled
		under.Settle(Charge{Amounts: Amounts{USD: 40, Tokens: 40}})
		b.wantUsed(p, 40, 0)
		b.spend(p, req)
		b.refuse(p, usd(1), Spent)
		if s := standing(t, b.Ledger, p, Selection{PerEntity: true}); s[0].Used != 2 {
			t.Errorf("what wasn't selected: %+v", s)
		}
		if err := b.Reset(t.Context(), p, Selection{Limit: "usd/month"}); err != nil {
			t.Fatal(err)
		}
		b.refuse(p, tokens(1), Rate)
		b.crash()
		b.wantUsed(p, 0, 0)
	})
}

func TestWriteOff_TakesOutWhatIsUnattributedForGood(t *testing.T) {
	for _, limit := range []string{"usd=0.00001/month", "usd=0.00001/hour", "usd=0.00001/total"} {
		onBench(t, func(t *testing.T, b *bench) {
			p := b.policy(limit)
			b.spend(p, usd(1000))
			b.sweepFor(2 * time.Minute) // exact, so that nobody forgives what is known
			b.admit(p, usd(5000))
			b.crash()
			if s := b.status(p, ""); s.Used != 6000+10_000/64 || s.Unattributed != s.Used-1000 {
				t.Fatalf("%+v", s)
			}
			r := b.admit(p, usd(500))
			if err := b.WriteOff(t.Context(), p, Selection{}, false); err != nil {
				t.Fatal(err)
			}
			if s := b.status(p, ""); s.Used != 1000 || s.Unattributed != 0 || s.Reserved != 500 {
				t.Errorf("%+v", s)
			}
			r.Settle(cost(500))
			b.spend(p, usd(600)) // which makes a write
			b.crash()
			if s := b.status(p, ""); s.Used < 2100 || s.Used > 2100+10_000/64 {
				t.Errorf("%s: %+v, want 2100 used and headroom", limit, s)
			}
			if err := b.WriteOff(t.Context(), p, Selection{}, false); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// In a sliding window, what was unattributed before a restart can't be told from
// what is used now.
func TestWriteOff_ForgivesNothingThatIsKnown(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("tokens=10000/hour")
		b.spend(p, tokens(100))
		b.admit(p, tokens(1000))
		b.crash()
		b.spend(p, tokens(1))
		b.sweepFor(2 * time.Minute)
		b.crash()
		b.spend(p, tokens(2000))
		b.sweepFor(2 * time.Minute)
		before := b.status(p, "")
		if err := b.WriteOff(t.Context(), p, Selection{}, true); err != nil {
			t.Fatal(err)
		}
		if s := b.status(p, ""); s.Used < before.Used-before.Unattributed || s.Used < 3100 {
			t.Errorf("%+v became %+v", before, s)
		}
	})
}

func TestWriteOff_OfWhatIsUnconfirmedIsAskedFor(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=0.00001/month")
		b.admit(p, usd(1000)).Settle(Charge{Amounts: Amounts{USD: 1000}, Unconfirmed: true})
		b.spend(p, usd(10))
		for _, c := range []struct {
			unconfirmed bool
			want        int64
		}{{false, 1010}, {true, 10}} {
			if err := b.WriteOff(t.Context(), p, Selection{}, c.unconfirmed); err != nil {
				t.Fatal(err)
			}
			if s := b.status(p, ""); s.Used != c.want || s.Unconfirmed != c.want-10 {
				t.Errorf("%+v, want %d used", s, c.want)
			}
		}
	})
}

func TestAlerts_TellEachThresholdOnceAndAgainInTheNextWindow(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := NewPolicy(PolicyOptions{Account: testAccount, Name: "team-a", Limits: mustLimits(t, "usd=0.0000001/day", "requests=2/minute"), Thresholds: []int{50, 80, 100}})
		spend := func(amount int64, want ...int) {
			t.Helper()
			b.alerts = nil
			b.spend(p, &Request{Amounts: Amounts{USD: amount}})
			if len(b.alerts) != len(want) || len(want) > 0 && b.alerts[0].Percent != want[0] {
				t.Errorf("%+v, want %v", b.alerts, want)
			}
		}
		spend(49)
		spend(1, 50)
		spend(1)
		spend(48, 80) // the highest of those crossed
		if a := b.alerts[0]; a.Name != "team-a" || a.Account != testAccount || a.Used != 99 || a.ResetsAt != at(t, "2026-03-12T00:00:00Z") {
			t.Errorf("%+v", a)
		}
		if s := b.status(p, ""); s.Threshold != 80 {
			t.Errorf("%+v", s)
		}
		b.sweepFor(10 * time.Minute)
		b.crash()
		spend(1, 100)
		b.pass(day)
		spend(100, 100)
	})
}

func TestStatus_SaysWhatStands(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=0.00001/month", "tokens=100/hour", "concurrent=3", "requests=9/total")
		b.admit(p, &Request{Amounts: Amounts{USD: 100, Tokens: 10, Requests: 1, Concurrent: 1}}).Settle(cost(150))
		b.admit(p, &Request{Amounts: Amounts{USD: 200, Tokens: 20, Requests: 1, Concurrent: 1}})
		list := standing(t, b.Ledger, p, Selection{})
		for i, want := range []Status{
			{Used: 150, Exceeded: 50, Reserved: 200, Remaining: 9650, StartedAt: at(t, "2026-03-01T00:00:00Z"), ResetsAt: at(t, "2026-04-01T00:00:00Z")},
			{Used: 0, Reserved: 20, Remaining: 80},
			{Used: 0, Reserved: 1, Remaining: 2},
			{Used: 1, Reserved: 1, Remaining: 7},
		} {
			want.Limit = p.limits[i]
			if list[i] != want {
				t.Errorf("%+v, want %+v", list[i], want)
			}
		}
	})
}

func TestSoft_CountsAndNeverDelays(t *testing.T) {
	onBench(t, func(_ *testing.T, b *bench) {
		p := b.softPolicy("usd=0.0000001/month", "requests=10/minute")
		for range 4 { // far more than the limit, before any is settled
			b.admit(p, usd(1000)).Settle(cost(25))
		}
		b.refuse(p, usd(1), Spent)
		b.crash()
		b.refuse(p, usd(1), Spent)
		b.refuse(b.softPolicy("usd=0/month"), usd(1), TooLarge)
	})
}

func TestSoft_AmountsDontOverflow(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.softPolicy("usd=1000000000/month", "tokens=1000000000000000/minute", "usd=1000000000/hour")
		var open []*Reservation
		for range 20 {
			open = append(open, b.admit(p, &Request{Amounts: Amounts{USD: math.MaxInt64, Tokens: math.MaxInt64}}))
		}
		for _, s := range standing(t, b.Ledger, p, Selection{}) {
			if s.Reserved < 0 || s.Remaining != 0 {
				t.Errorf("%+v", s)
			}
		}
		for _, r := range open {
			r.Settle(Charge{Amounts: Amounts{USD: math.MaxInt64, Tokens: math.MaxInt64}})
		}
		if sum := holdings(b.Ledger); sum != 0 {
			t.Errorf("%d stay reserved", sum)
		}
		b.refuse(p, usd(1), Spent)
		b.crash()
		b.refuse(p, usd(1), Spent)
	})
}

// size is a request that can be made as small as it may.
type size struct {
	amounts  Amounts
	refined  int
	lowered  []int64
	smallest int64
}

func (s *size) Refine() (Amounts, bool) {
	s.refined++
	return s.amounts, true
}

func (s *size) Lower(unit Unit, most int64, _ bool) (Amounts, bool) {
	if s.lowered = append(s.lowered, most); most < s.smallest {
		return s.amounts, false
	}
	s.amounts[unit] = most
	return s.amounts, true
}

func TestSize_IsRefinedOnlyIfItDoesntFitAndLoweredToWhatIsLeft(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=0.000001/month")
		reserve := func(worst int64, s *size) *attempt {
			req := usd(worst)
			req.Size = s
			return b.begin(p, req)
		}
		fits := &size{amounts: Amounts{USD: 100}}
		b.admitted(reserve(500, fits)).Settle(cost(500))
		if fits.refined != 0 {
			t.Error("refined although it fits")
		}
		tighter := &size{amounts: Amounts{USD: 400}}
		r := b.admitted(reserve(600, tighter))
		if tighter.refined != 1 || len(tighter.lowered) != 0 || r.Amounts[USD] != 400 || r.Lowered {
			t.Errorf("%+v, %v reserved", tighter, r.Amounts)
		}
		r.Settle(cost(400)) // 900 are used
		lower := &size{amounts: Amounts{USD: 300}, smallest: 50}
		r = b.admitted(reserve(600, lower))
		if r.Amounts[USD] != 100 || !r.Lowered || len(lower.lowered) != 1 {
			t.Errorf("%+v, %v reserved", lower, r.Amounts)
		}
		r.Settle(cost(60)) // 960
		b.refused(reserve(600, &size{amounts: Amounts{USD: 300}, smallest: 50}), Spent)
		whole := &size{amounts: Amounts{USD: 3000}, smallest: 30}
		r = b.admitted(reserve(5000, whole)) // first to all that the limit allows
		if r.Amounts[USD] != 40 || len(whole.lowered) != 2 || whole.lowered[0] != 1000 {
			t.Errorf("%+v, %v reserved", whole, r.Amounts)
		}
		r.Settle(cost(0))
	})
}

// stubborn grows in one unit when it is lowered in another, which it must not.
type stubborn struct{ amounts Amounts }

func (s *stubborn) Refine() (Amounts, bool) { return s.amounts, true }

func (s *stubborn) Lower(unit Unit, most int64, _ bool) (Amounts, bool) {
	s.amounts = Amounts{USD: 1000, Tokens: 1000}
	s.amounts[unit] = most
	return s.amounts, true
}

func TestSize_LoweringEnds(t *testing.T) {
	onBench(t, func(_ *testing.T, b *bench) {
		p := b.policy("usd=0.0000001/month", "tokens=100/day")
		req := &Request{Amounts: Amounts{USD: 1000, Tokens: 1000}, Size: &stubborn{Amounts{USD: 1000, Tokens: 1000}}}
		b.refuse(p, req, TooLarge)
	})
}

func TestSize_IsntLoweredForWhatIsOnlyReservedNorForShortWindows(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=0.000001/month")
		first := b.admit(p, usd(900))
		s := &size{amounts: Amounts{USD: 500}}
		req := usd(500)
		req.Size = s
		x := b.begin(p, req)
		if !x.pending() || len(s.lowered) != 0 {
			t.Errorf("%+v", s)
		}
		first.Settle(cost(700))
		if r := b.admitted(x); r.Amounts[USD] != 300 || !r.Lowered { // now it is used
			t.Errorf("%v reserved", r.Amounts)
		}
		minute := b.policy("tokens=100/minute")
		b.spend(minute, tokens(60))
		req = tokens(50)
		req.Size = &size{amounts: Amounts{Tokens: 50}}
		b.refused(b.begin(minute, req), Rate)
	})
}

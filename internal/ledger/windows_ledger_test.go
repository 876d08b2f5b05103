// SPDX-License-Identifier: MPL-2.0

package ledger

import (
	"slices"
	"testing"
	"time"
)

// at is a time of the tests.
func at(t *testing.T, text string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// in is a request for money in a time zone.
func in(zone *time.Location, amount int64) *Request {
	req := usd(amount)
	req.Zone = zone
	return req
}

// boundary is a pair of instants of which the second is the first of another
// window.
type boundary struct{ limit, zone, before, after string }

var boundaries = []boundary{
	{"usd=0.0000001/month", "UTC", "2026-01-31T23:59:59Z", "2026-02-01T00:00:00Z"},
	{"usd=0.0000001/month", "America/New_York", "2026-02-01T04:59:59Z", "2026-02-01T05:00:00Z"},
	{"usd=0.0000001/month", "UTC", "2024-02-29T23:59:59Z", "2024-03-01T00:00:00Z"},
	{"usd=0.0000001/day", "UTC", "2024-02-28T23:59:59Z", "2024-02-29T00:00:00Z"},
	{"usd=0.0000001/day", "UTC", "2024-02-29T23:59:59Z", "2024-03-01T00:00:00Z"},
	{"usd=0.0000001/week", "UTC", "2026-03-08T23:59:59Z", "2026-03-09T00:00:00Z"},
	{"usd=0.0000001/day", "Europe/Berlin", "2026-03-28T22:59:59Z", "2026-03-28T23:00:00Z"}, // 23 hours long
	{"usd=0.0000001/day", "Europe/Berlin", "2026-03-29T21:59:59Z", "2026-03-29T22:00:00Z"},
	{"usd=0.0000001/day", "Europe/Berlin", "2026-10-25T22:59:59Z", "2026-10-25T23:00:00Z"}, // 25 hours
	{"usd=0.0000001/day", "America/Santiago", "2026-09-06T03:59:59Z", "2026-09-06T04:00:00Z"},
	{"usd=0.0000001/90s", "UTC", "1970-01-01T00:01:29Z", "1970-01-01T00:01:30Z"},
	{"usd=0.0000001/30d", "UTC", "1970-01-30T23:59:59Z", "1970-01-31T00:00:00Z"},
}

func TestLedgerWindows_EachRequestCountsInOneWindow(t *testing.T) {
	for _, c := range boundaries {
		t.Run(c.limit+" "+c.zone+" "+c.after, func(t *testing.T) {
			onBench(t, func(t *testing.T, b *bench) {
				p, zone := b.policy(c.limit), loadZone(t, c.zone)
				before, after := at(t, c.before), at(t, c.after)
				b.clock.set(before)
				b.spend(p, in(zone, 70))
				b.clock.set(after)
				b.spend(p, in(zone, 60))
				for range 3 { // a clock that steps back and forth
					b.clock.set(before)
					if s := b.statusIn(p, "", zone); s.Used != 70 || s.ResetsAt != after {
						t.Fatalf("before: %+v", s)
					}
					b.clock.set(after)
					if s := b.statusIn(p, "", zone); s.Used != 60 || s.StartedAt != after {
						t.Fatalf("after: %+v", s)
					}
				}
				b.crash()
				b.clock.set(before)
				b.refuse(p, in(zone, 31), reasonOf(p))
				b.clock.set(after)
				b.spend(p, in(zone, 39)) // one is headroom
			})
		})
	}
}

// reasonOf is how a request is refused when the first limit is used up.
func reasonOf(p *Policy) Reason {
	if p.limits[0].Window.Short() {
		return Rate
	}
	return Spent
}

func TestLedgerWindows_ARequestSettledInTheNextWindowCountsInTheFirst(t *testing.T) {
	for _, c := range boundaries {
		t.Run(c.limit+" "+c.zone+" "+c.after, func(t *testing.T) {
			onBench(t, func(t *testing.T, b *bench) {
				p, zone := b.policy(c.limit), loadZone(t, c.zone)
				b.clock.set(at(t, c.before))
				r := b.admit(p, in(zone, 70))
				b.clock.set(at(t, c.after))
				b.spend(p, in(zone, 100)) // the reservation isn't in its way
				r.Settle(cost(50))
				if s := b.statusIn(p, "", zone); s.Used != 100 || s.Reserved != 0 {
					t.Fatalf("after: %+v", s)
				}
				b.clock.set(at(t, c.before))
				if s := b.statusIn(p, "", zone); s.Used != 50 || s.Reserved != 0 {
					t.Fatalf("before: %+v", s)
				}
			})
		})
	}
}

func TestLedgerWindows_ARequestThatWaitsForStorageCountsWhenItIsAdmitted(t *testing.T) {
	for _, c := range []struct {
		name string
		op   operation
		idle time.Duration
	}{{"to be confirmed", opGet, 10 * time.Second}, {"to be loaded", opList, 0}} {
		onBench(t, func(t *testing.T, b *bench) {
			p := b.policy("requests=5/1m", "usd=1/day")
			b.clock.set(at(t, "2026-03-11T23:59:48Z"))
			if c.op == opGet {
				b.spend(p, usd(1)) // so that it is loaded
			}
			b.view.only(c.op, hangs)
			b.pass(c.idle)
			x := b.begin(p, usd(1))
			b.pass(4 * time.Second)
			b.clock.set(at(t, "2026-03-12T00:00:01Z"))
			b.view.weather(nil)
			b.view.free(works)
			b.admitted(x).Settle(cost(1))
			if s := b.status(p, ""); s.Used != 1 || s.StartedAt != at(t, "2026-03-12T00:00:00Z") {
				t.Errorf("%s: %+v", c.name, s)
			}
		})
	}
}

func TestLedgerWindows_SlidingOnesForgetLittleByLittleByTheMonotonicClock(t *testing.T) {
	for _, c := range []struct {
		limit string
		width time.Duration
	}{{"tokens=100/minute", time.Minute}, {"tokens=100/hour", time.Hour}} {
		onBench(t, func(t *testing.T, b *bench) {
			p := b.policy(c.limit)
			for range 5 {
				b.spend(p, tokens(20))
				b.pass(c.width / 10)
			}
			b.clock.set(b.clock.now().Add(300 * day)) // the wall clock is none of its business
			b.refuse(p, tokens(1), Rate)
			b.clock.set(b.clock.now().Add(-600 * day))
			refusal := b.refusalOf(p, tokens(20), Rate)
			if least := c.width / 2; refusal.RetryAfter < least || refusal.RetryAfter > least+c.width/20 {
				t.Errorf("%s: try again in %s, want about %s", c.limit, refusal.RetryAfter, least)
			}
			b.pass(c.width/2 - 1)
			b.refuse(p, tokens(1), Rate)
			b.pass(c.width / 20)
			b.spend(p, tokens(20))
			b.refuse(p, tokens(1), Rate)
		})
	}
}

func TestLedgerWindows_ARequestThatOutlivesItsSlidingWindowIsForgottenWhenItEnds(t *testing.T) {
	onBench(t, func(_ *testing.T, b *bench) {
		p := b.policy("tokens=100/minute")
		r := b.admit(p, tokens(60))
		b.pass(2 * time.Minute)
		b.refuse(p, tokens(41), Reserved) // it is still under way
		r.Settle(Charge{Amounts: Amounts{Tokens: 60}})
		b.wantUsed(p, 0, 0)
		b.spend(p, tokens(100))
	})
}

func TestLedgerWindows_SlidingOnesSurviveARestart(t *testing.T) {
	onBench(t, func(_ *testing.T, b *bench) {
		p := b.policy("tokens=100/hour")
		b.spend(p, tokens(60))
		b.pass(30 * time.Minute)
		b.spend(p, tokens(40))
		b.sweepFor(2 * time.Minute)
		b.crash()
		b.wantUsed(p, 100, 0)
		b.pass(29 * time.Minute) // 61 minutes after the first
		b.pass(time.Minute)
		b.wantUsed(p, 40, 0)
		b.spend(p, tokens(60))
	})
}

func TestLedgerWindows_AnotherZoneAppliesFromTheNextWindow(t *testing.T) {
	for _, c := range []struct {
		limit, from, to, start string
		want                   []string // where windows begin after that
	}{
		// New York's day ends 4 h after UTC's: 20 of 24 hours are a window of their own.
		{"usd=0.0000001/day", "UTC", "America/New_York", "2026-06-10T12:00:00Z", []string{"2026-06-11T00:00:00Z", "2026-06-12T04:00:00Z", "2026-06-13T04:00:00Z"}},
		// Tokyo's ended 9 h before, so that 15 h of it are left.
		{"usd=0.0000001/day", "UTC", "Asia/Tokyo", "2026-06-10T12:00:00Z", []string{"2026-06-11T00:00:00Z", "2026-06-11T15:00:00Z", "2026-06-12T15:00:00Z"}},
		// Kiritimati's ended 14 h before: 10 h are a stub, which the next has.
		{"usd=0.0000001/day", "UTC", "Pacific/Kiritimati", "2026-06-10T12:00:00Z", []string{"2026-06-11T00:00:00Z", "2026-06-12T10:00:00Z", "2026-06-13T10:00:00Z"}},
		{"usd=0.0000001/day", "Asia/Tokyo", "UTC", "2026-06-10T12:00:00Z", []string{"2026-06-10T15:00:00Z", "2026-06-12T00:00:00Z"}},
		{"usd=0.0000001/month", "UTC", "America/New_York", "2026-06-10T12:00:00Z", []string{"2026-07-01T00:00:00Z", "2026-08-01T04:00:00Z", "2026-09-01T04:00:00Z"}},
		{"usd=0.0000001/month", "UTC", "Asia/Tokyo", "2026-06-10T12:00:00Z", []string{"2026-07-01T00:00:00Z", "2026-07-31T15:00:00Z"}},
		{"usd=0.0000001/week", "Asia/Tokyo", "UTC", "2026-06-10T12:00:00Z", []string{"2026-06-14T15:00:00Z", "2026-06-22T00:00:00Z"}},
	} {
		onBench(t, func(t *testing.T, b *bench) {
			p, from, to := b.policy(c.limit), loadZone(t, c.from), loadZone(t, c.to)
			b.clock.set(at(t, c.start))
			b.spend(p, in(from, 100))
			first := b.statusIn(p, "", from)
			if s := b.statusIn(p, "", to); s.StartedAt != first.StartedAt || s.ResetsAt != first.ResetsAt || s.Used != 100 {
				t.Errorf("%s from %s to %s: the running window became %s to %s", c.limit, c.from, c.to, s.StartedAt, s.ResetsAt)
			}
			b.refuse(p, in(to, 1), Spent)
			var got []string
			for range c.want {
				ends := b.statusIn(p, "", to).ResetsAt
				b.clock.set(ends.Add(-time.Second))
				b.refuse(p, in(to, 1), Spent)
				b.clock.set(ends)
				b.spend(p, in(to, 100))
				got = append(got, ends.Format(time.RFC3339))
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%s from %s to %s: windows begin at %v, want %v", c.limit, c.from, c.to, got, c.want)
			}
		})
	}
}

func TestLedgerWindows_CountersStay48HoursAndAreThenPruned(t *testing.T) {
	for _, limit := range []string{"usd=0.0000001/day", "tokens=100/30m"} { // in storage, and in memory alone
		onBench(t, func(t *testing.T, b *bench) {
			p := b.policy(limit)
			counters := func(now string, want int) {
				t.Helper()
				b.clock.set(at(t, now))
				b.spend(p, &Request{Amounts: Amounts{USD: 70, Tokens: 70}})
				if n := len(b.account(testAccount, "").shared.series[p.ids[0]].counters); n != want {
					t.Errorf("%s at %s: %d counters, want %d", limit, now, n, want)
				}
			}
			counters("2026-03-11T23:59:00Z", 1)
			counters("2026-03-12T00:00:00Z", 2)
			counters("2026-03-13T23:59:59Z", 3)
			b.clock.set(at(t, "2026-03-11T23:59:30Z"))
			b.wantUsed(p, 70, 0)
			counters("2026-03-14T00:00:01Z", 3)
		})
	}
}

func TestLedgerWindows_ARemovedLimitCountsToItsEndAndThenLeavesTheEntry(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		hour, other := b.policy("tokens=100/hour"), b.policy("usd=1/month")
		b.spend(hour, tokens(100))
		b.spend(other, usd(10_000_000))
		b.sweepFor(2 * time.Minute) // for an exact write, which leaves nothing out
		b.refuse(hour, tokens(1), Rate)
		b.spend(other, usd(1))
		b.pass(62 * time.Minute)
		b.spend(other, usd(100_000_000))
		b.sweepFor(2 * time.Minute) // for an exact write
		if n := len(b.account(testAccount, "").shared.series); n != 1 {
			t.Errorf("%d series in memory, want 1", n)
		}
		b.spend(hour, tokens(100))
		b.crash()
		b.refuse(hour, tokens(1), Rate)
	})
}

// SPDX-License-Identifier: MPL-2.0

package ledger

import (
	"testing"
	"testing/synctest"
	"time"
)

// load is steady traffic: so many requests a second for so long, with a sweep
// each second, of which some are always under way.
type load struct {
	perSecond, seconds, inFlight int
	request                      *Request
	charge                       Charge
}

// run returns how many puts each second had.
func (x load) run(b *bench, p *Policy) (puts []int) {
	b.t.Helper()
	flight := make([]*Reservation, x.inFlight)
	gap := time.Second / time.Duration(x.perSecond)
	for range x.seconds {
		before := b.view.count(opPut)
		for i := range x.perSecond {
			slot := i % x.inFlight
			if flight[slot] != nil {
				flight[slot].Settle(x.charge)
			}
			flight[slot] = b.admit(p, x.request)
			b.clock.advance(gap)
			synctest.Wait()
		}
		b.Sweep()
		synctest.Wait()
		puts = append(puts, b.view.count(opPut)-before)
	}
	for _, r := range flight {
		r.Settle(x.charge)
	}
	return puts
}

func sumOf(list []int) (sum int) {
	for _, n := range list {
		sum += n
	}
	return sum
}

func TestWrites_SteadyLoadMakesAboutOneASecond(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=100000/month", "requests=100000000/day")
		x := load{perSecond: 1000, seconds: 60, inFlight: 50, request: usd(30_000_000), charge: cost(5_000_000)}
		puts := x.run(b, p)
		t.Logf("%d writes for %d requests, by second: %v", sumOf(puts), x.perSecond*x.seconds, puts)
		if sum := sumOf(puts[5:]); sum > 2*len(puts[5:]) {
			t.Errorf("%d writes in %d s, want about one a second", sum, len(puts[5:]))
		}
		if sum := sumOf(puts); sum > x.perSecond*x.seconds/100 {
			t.Errorf("%d writes for %d requests, want fewer than one per 100", sum, x.perSecond*x.seconds)
		}
	})
}

func TestWrites_LoadThatGrowsMakesFew(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=100000/month")
		for _, rate := range []int{1, 10, 100, 1000} {
			x := load{perSecond: rate, seconds: 10, inFlight: 1, request: usd(30_000_000), charge: cost(5_000_000)}
			puts := x.run(b, p)
			t.Logf("%d a second: %v", rate, puts)
			if sum := sumOf(puts[2:]); sum > 3*len(puts[2:]) {
				t.Errorf("%d writes in %d s at %d requests a second", sum, len(puts[2:]), rate)
			}
		}
	})
}

func TestWrites_NoStormNearTheEndOfALimit(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=1/month")
		b.spend(p, usd(980_000_000)) // 2 % are left, 1,000 requests
		x := load{perSecond: 100, seconds: 9, inFlight: 4, request: usd(20_000), charge: cost(20_000)}
		puts := x.run(b, p)
		t.Logf("by second: %v", puts)
		if sum := sumOf(puts); sum > 27 {
			t.Errorf("%d writes for 900 requests near the end", sum)
		}
		if mark, _ := b.storedMark("usd/month"); mark > 1_000_000_000 {
			t.Errorf("the mark is %d, above the limit", mark)
		}
	})
}

func TestWrites_ARefusalMakesNone(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=0.0000001/month", "concurrent=1")
		b.spend(p, usd(100))
		before := b.view.total()
		for range 100 {
			b.refuse(p, usd(1), Spent)
			b.refuse(p, usd(101), TooLarge)
		}
		if n := b.view.total() - before; n != 0 {
			t.Errorf("200 refusals asked storage %d times", n)
		}
	})
}

func TestWrites_UnderTheWatermarkThereAreNone(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=1/month")
		b.spend(p, usd(1_000_000)) // headroom is a request
		before := b.view.total()
		for range 9 {
			b.spend(p, usd(50_000))
		}
		if n := b.view.total() - before; n != 0 {
			t.Errorf("storage was asked %d times", n)
		}
	})
}

func TestWrites_OnlyMinutesAndConcurrencyMakeNone(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("requests=1000/minute", "concurrent=5", "tokens=100000/30m")
		b.spend(p, usd(1))
		puts := b.view.count(opPut)
		for range 100 {
			b.spend(p, usd(1))
			b.pass(100 * time.Millisecond)
		}
		b.sweepFor(time.Minute)
		if n := b.view.count(opPut) - puts; n != 0 {
			t.Errorf("%d writes", n)
		}
	})
}

func TestWrites_AnIdleAccountMakesNone(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=1/month")
		b.spend(p, usd(1_000_000))
		b.sweepFor(70 * time.Second) // until its figures are exact
		if mark, used := b.storedMark("usd/month"); mark != 1_000_000 || used != 1_000_000 {
			t.Errorf("%d stored, and a mark of %d", used, mark)
		}
		before := b.view.total()
		b.sweepFor(20 * time.Minute)
		if n := b.view.total() - before; n != 0 {
			t.Errorf("storage was asked %d times", n)
		}
	})
}

func TestWrites_AfterABurstTheWatermarkComesBackInSeconds(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=1/month")
		var burst []*Reservation
		for range 100 {
			burst = append(burst, b.admit(p, usd(1_000_000)))
		}
		for _, r := range burst {
			r.Settle(cost(1000))
		}
		b.sweepFor(6 * time.Second)
		mark, used := b.storedMark("usd/month")
		if over := mark - 100_000; over > 2*(1_000_000_000/64) {
			t.Errorf("%d more than what is used are under the mark", over)
		}
		b.crash()
		if s := b.status(p, ""); s.Used != mark || s.Unattributed != mark-used {
			t.Errorf("%+v, with a mark of %d over %d", s, mark, used)
		}
	})
}

func TestWrites_ConcurrentWaitersShareOne(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=1/month", "requests=1000000/week")
		b.spend(p, usd(1))
		b.view.puts(hangs)
		calls := []*attempt{b.begin(p, usd(1_000_000))}
		for range 200 { // while that write is under way
			calls = append(calls, b.begin(p, usd(100_000)))
		}
		b.view.weather(nil)
		before := b.view.count(opPut)
		b.view.free(works)
		for _, x := range calls {
			b.admitted(x)
		}
		if n := b.view.count(opPut) - before; n != 1 {
			t.Errorf("%d writes for 200 waiters, want 1", n)
		}
	})
}

func TestWrites_TheWatermarkIsRaisedAheadOfNeed(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=1/month")
		x := load{perSecond: 100, seconds: 3, inFlight: 1, request: usd(100_000), charge: cost(100_000)}
		x.run(b, p)
		b.view.puts(hangs)
		for range 200 {
			under := b.view.hanging()
			x := b.begin(p, usd(100_000))
			if x.pending() {
				if under == 0 {
					t.Error("a request waits for a write that it began itself")
				}
				return
			}
			x.Settle(cost(100_000))
			b.pass(10 * time.Millisecond)
		}
		t.Error("nothing waits for storage")
	})
}

func TestWrites_SharedAndEntityScopesAreWrittenApart(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=1/month", "requests=1000/day per entity")
		for _, entity := range []string{"", "entity-1", "entity-2"} {
			b.spend(p, &Request{Entity: entity, Amounts: Amounts{USD: 1, Requests: 1}})
		}
		keys := stored(t, b.disk, b.Ledger)
		for _, dir := range []string{"shared/", "entity/anonymous/", "entity/entity-1/", "entity/entity-2/"} {
			if e := keys["ledger/accounts/"+testAccount+"/"+dir]; e == nil || len(e.Counters) != 1 {
				t.Errorf("%s has %+v", dir, e)
			}
		}
		if len(keys) != 4 {
			t.Errorf("%d entries, want 4", len(keys))
		}
		list, err := b.Entities(t.Context(), testAccount)
		if err != nil || len(list) != 3 || list[0] != "" || list[1] != "entity-1" || list[2] != "entity-2" {
			t.Errorf("%q, %v", list, err)
		}
	})
}

func TestWrites_AMarkIsNeverAboveWhatIsHeldAndHeadroom(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		for _, limit := range []string{"usd=1/month", "usd=0.000001/day", "usd=0.01/total"} {
			p := b.policy(limit)
			most := p.limits[0].Max
			peak := int64(0)
			for i := int64(1); ; i++ {
				amount := 1 + most/(20+i%17)
				x := b.begin(p, usd(amount))
				if x.refusal != nil {
					break
				}
				peak = max(peak, b.status(p, "").Used+b.status(p, "").Reserved)
				x.Settle(cost(amount))
				synctest.Wait()
				if mark, _ := b.storedMark(p.ids[0]); mark > min(peak+most/64, most) || mark < b.status(p, "").Used {
					t.Fatalf("%s: mark %d, peak %d, used %d", limit, mark, peak, b.status(p, "").Used)
				}
			}
		}
	})
}

func TestWrites_TheFirstOfAProcessReplacesTheEntryOfTheOneBefore(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=1/month")
		for range 5 {
			b.spend(p, usd(1_000_000))
			b.crash()
		}
		b.spend(p, usd(1_000_000))
		n := 0
		walk(t, b.disk, "ledger/accounts/", func(string, []byte) { n++ })
		if n != 1 {
			t.Errorf("%d entries, want 1", n)
		}
	})
}

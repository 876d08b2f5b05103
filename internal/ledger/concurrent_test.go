// SPDX-License-Identifier: MPL-2.0

package ledger

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// realLedger is one on the machine's clock.
func realLedger(t *testing.T, storage logical.Storage, owner string) *Ledger {
	t.Helper()
	l, err := Open(t.Context(), Options{Storage: storage, Prefix: "ledger/", Owner: owner})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// storm runs f in so many goroutines at once, each with randomness of its own.
func storm(n int, f func(i int, rng *rand.Rand)) {
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() { f(i, rand.New(rand.NewPCG(uint64(i), 7))) })
	}
	group.Wait()
}

// peak is a sum of which the highest is kept.
type peak struct{ sum, most atomic.Int64 }

func (p *peak) add(n int64) {
	sum := p.sum.Add(n)
	for {
		most := p.most.Load()
		if sum <= most || p.most.CompareAndSwap(most, sum) {
			return
		}
	}
}

// exhaust sends random requests until a limit is spent, and settles each with
// less than it reserved. held counts what is used or under way.
func exhaust(t *testing.T, l *Ledger, p *Policy, rng *rand.Rand, req Request, held, used *peak) {
	for waited := 0; waited < 5; {
		worst := 1 + rng.Int64N(1000)
		req.Amounts = Amounts{USD: worst, Tokens: worst, Requests: 1, Concurrent: 1}
		var r Reservation
		if refusal := l.Reserve(context.Background(), p, &req, &r); refusal != nil {
			switch {
			case refusal.Reason == Busy:
				runtime.Gosched()
				continue
			case refusal.Reason == Reserved:
				waited++
				continue
			case refusal.Reason != Spent:
				t.Errorf("reason %d: %v", refusal.Reason, refusal)
			case refusal.Used+refusal.Amount <= refusal.Limit.Max:
				t.Errorf("spent, but %d of %d are used, and %d are wanted", refusal.Used, refusal.Limit.Max, refusal.Amount)
			}
			return
		}
		held.add(worst)
		cost := rng.Int64N(worst + 1)
		held.add(cost - worst)
		used.add(cost)
		if r.Settle(Charge{Amounts: Amounts{USD: cost, Tokens: cost, Requests: 1}}) {
			t.Error("exceeded")
		}
	}
	t.Error("reservations never end")
}

// standing is what stands on each limit of a policy.
func standing(t *testing.T, l *Ledger, p *Policy, by Selection) []Status {
	t.Helper()
	list, err := l.Status(t.Context(), p, by)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestConcurrent_ReservationsNeverExceedALimitAndUseAllOfIt(t *testing.T) {
	l := realLedger(t, newDisk(), "one")
	p := NewPolicy(PolicyOptions{Account: testAccount, Limits: mustLimits(t, "usd=0.005/month")})
	var held, used peak
	storm(500, func(_ int, rng *rand.Rand) { exhaust(t, l, p, rng, Request{}, &held, &used) })
	limit, got := p.limits[0].Max, standing(t, l, p, Selection{})[0]
	if most := held.most.Load(); most > limit {
		t.Errorf("%d of %d were used or reserved", most, limit)
	}
	if got.Used != used.sum.Load() || got.Used > limit || got.Used < limit-1000 || got.Reserved != 0 || got.Exceeded != 0 {
		t.Errorf("%+v, want %d used", got, used.sum.Load())
	}
}

func TestConcurrent_ThreeLimitsAreAllOrNothing(t *testing.T) {
	l := realLedger(t, newDisk(), "one")
	p := NewPolicy(PolicyOptions{Account: testAccount, Limits: mustLimits(t, "usd=0.0004/month", "tokens=1500000/total", "requests=3000/day", "concurrent=50")})
	var held, used peak
	storm(200, func(_ int, rng *rand.Rand) { exhaust(t, l, p, rng, Request{}, &held, &used) })
	if most := held.most.Load(); most > p.limits[0].Max {
		t.Errorf("%d were used or reserved", most)
	}
	list := standing(t, l, p, Selection{})
	for _, s := range list {
		if s.Reserved != 0 || s.Used > s.Limit.Max {
			t.Errorf("%+v", s)
		}
	}
	if sum := used.sum.Load(); list[0].Used != sum || list[1].Used != sum {
		t.Errorf("%d and %d used, want both %d", list[0].Used, list[1].Used, sum)
	}
}

func TestConcurrent_EntitiesAreCountedApart(t *testing.T) {
	l := realLedger(t, newDisk(), "one")
	p := NewPolicy(PolicyOptions{Account: testAccount, Limits: mustLimits(t, "usd=0.0002/month per entity")})
	const entities = 10
	var held, used [entities]peak
	storm(100, func(i int, rng *rand.Rand) {
		i %= entities
		exhaust(t, l, p, rng, Request{Entity: fmt.Sprint("entity-", i)}, &held[i], &used[i])
	})
	for i := range entities {
		s := standing(t, l, p, Selection{PerEntity: true, Entity: fmt.Sprint("entity-", i)})[0]
		if s.Used != used[i].sum.Load() || s.Reserved != 0 || held[i].most.Load() > s.Limit.Max || s.Used < s.Limit.Max-1000 {
			t.Errorf("%+v, want %d used", s, used[i].sum.Load())
		}
	}
}

func TestConcurrent_ConcurrencyIsNeverAboveItsLimitAndFreedOnEveryWayOut(t *testing.T) {
	v := newView(newDisk())
	l := realLedger(t, v, "one")
	p := NewPolicy(PolicyOptions{Account: testAccount, Limits: mustLimits(t, "concurrent=8", "usd=0.000001/month", "requests=1000000/month")})
	var under peak
	storm(64, func(i int, rng *rand.Rand) {
		for n := range 200 {
			if i == 0 && n%50 == 10 { // now and then storage fails
				v.puts(refused)
				time.Sleep(time.Millisecond)
				v.puts(works)
			}
			ctx, cancel := context.WithCancel(context.Background())
			if rng.IntN(4) == 0 { // the caller goes away at some time
				time.AfterFunc(time.Duration(rng.IntN(100))*time.Microsecond, cancel)
			}
			var r Reservation
			if l.Reserve(ctx, p, usd(1+rng.Int64N(300)), &r) == nil {
				under.add(1)
				under.add(-1)
				r.Settle(Charge{Unconfirmed: rng.IntN(4) == 0, Amounts: Amounts{Requests: rng.Int64N(2)}})
				r.Settle(Charge{})
			}
			cancel()
		}
	})
	if most := under.most.Load(); most > 8 {
		t.Errorf("%d at once", most)
	}
	if sum := holdings(l); sum != 0 {
		t.Errorf("%d stay reserved", sum)
	}
	for range 8 {
		if refusal := l.Reserve(t.Context(), p, usd(1), &Reservation{}); refusal != nil {
			t.Errorf("reason %d: %v", refusal.Reason, refusal)
		}
	}
	if refusal := l.Reserve(t.Context(), p, usd(1), &Reservation{}); refusal == nil || refusal.Reason != Busy {
		t.Errorf("the ninth: %v", refusal)
	}
}

// TestConcurrent_CrashesInAStorm kills a process amid many requests, again and
// again, until the limit is spent.
func TestConcurrent_CrashesInAStorm(t *testing.T) {
	disk := newDisk()
	p := NewPolicy(PolicyOptions{Account: testAccount, Limits: mustLimits(t, "usd=0.01/month")})
	limit := p.limits[0].Max
	var truth int64 // what was used, or may have been
	for process := range 6 {
		v := newView(disk)
		l := realLedger(t, v, fmt.Sprint("process-", process))
		before := standing(t, l, p, Selection{})[0]
		if before.Used < truth {
			t.Fatalf("%d used after a crash, want at least %d", before.Used, truth)
		}
		// In flight were 50 requests of 1,000, and headroom is a 64th.
		if more := before.Used - truth; more > int64(process)*(50*1000+limit/64) {
			t.Fatalf("%d counted too much after %d crashes", more, process)
		}
		truth += stormUntilCrash(v, l, p)
		if truth > limit {
			t.Fatalf("%d used of %d", truth, limit)
		}
	}
}

// stormUntilCrash returns what the requests used that were admitted. Those under
// way when the process died used all that they had reserved.
func stormUntilCrash(v *view, l *Ledger, p *Policy) int64 {
	var used atomic.Int64
	var dead atomic.Bool
	time.AfterFunc(time.Duration(1+rand.IntN(15))*time.Millisecond, func() {
		dead.Store(true)
		v.kill()
	})
	storm(50, func(_ int, rng *rand.Rand) {
		for range 100_000 {
			var r Reservation
			worst := 1 + rng.Int64N(1000)
			refusal := l.Reserve(context.Background(), p, usd(worst), &r)
			if dead.Load() {
				if refusal == nil {
					used.Add(worst)
				}
				return
			}
			if refusal != nil {
				if refusal.Reason == Spent {
					return
				}
				continue
			}
			cost := rng.Int64N(worst + 1)
			used.Add(cost)
			r.Settle(Charge{Amounts: Amounts{USD: cost}})
		}
	})
	return used.Load()
}

func TestConcurrent_NothingIsAdmittedAfterCloseAndFiguresAreExact(t *testing.T) {
	disk := newDisk()
	l := realLedger(t, disk, "one")
	policies := make([]*Policy, 40)
	for i := range policies {
		policies[i] = NewPolicy(PolicyOptions{Account: fmt.Sprint("account-", i), Limits: mustLimits(t, "usd=1/month", "requests=1000000/day", "concurrent=100")})
	}
	var closed atomic.Bool
	used := make([]atomic.Int64, len(policies))
	go func() {
		time.Sleep(20 * time.Millisecond)
		if err := l.Close(context.Background(), time.Minute); err != nil {
			t.Errorf("close: %v", err)
		}
		closed.Store(true)
	}()
	storm(100, func(i int, rng *rand.Rand) {
		for n := 0; ; n++ {
			// New accounts come up all the time, also while the ledger closes.
			k := min(n/10, len(policies)-1)
			var r Reservation
			refusal := l.Reserve(context.Background(), policies[k], usd(1000), &r)
			if refusal != nil {
				if refusal.Reason != Unavailable {
					t.Errorf("reason %d: %v", refusal.Reason, refusal)
				}
				if closed.Load() {
					return
				}
				time.Sleep(time.Millisecond)
				continue
			}
			if closed.Load() {
				t.Errorf("goroutine %d: admitted after the end", i)
			}
			cost := rng.Int64N(1001)
			used[k].Add(cost)
			r.Settle(Charge{Amounts: Amounts{USD: cost, Requests: 1}})
		}
	})
	next := realLedger(t, disk, "two")
	for i, p := range policies {
		if s := standing(t, next, p, Selection{})[0]; s.Used != used[i].Load() || s.Unattributed != 0 {
			t.Errorf("account %d: %+v, want %d used", i, s, used[i].Load())
		}
	}
}

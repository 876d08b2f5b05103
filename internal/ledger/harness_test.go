// SPDX-License-Identifier: MPL-2.0

package ledger

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// noon is when the tests begin that don't care.
var noon = time.Date(2026, time.March, 11, 12, 0, 0, 0, time.UTC)

const testAccount = "6f9619ff-8b86-d011-b42d-00cf4fc964ff"

// bench is a ledger on faulty storage with a clock that stands still.
type bench struct {
	t     *testing.T
	disk  logical.Storage
	clock *fakeClock
	view  *view
	*Ledger
	opened   int
	views    []*view
	attempts []*attempt
	alerts   []Alert
}

// onBench runs f in a bubble, in which synctest.Wait waits until the ledger's
// goroutines have done what they can.
func onBench(t *testing.T, f func(t *testing.T, b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, disk: newDisk(), clock: newFakeClock(noon)}
		defer b.end()
		b.open()
		f(t, b)
	})
}

// end ends all that still runs.
func (b *bench) end() {
	for _, x := range b.attempts {
		x.cancel()
	}
	for _, v := range b.views {
		v.kill()
	}
	synctest.Wait()
}

// open opens a ledger on the storage, as a process does that starts. The one
// before stays alive, on a view of its own.
func (b *bench) open() {
	b.t.Helper()
	b.opened++
	b.view = newView(b.disk)
	b.views = append(b.views, b.view)
	l, err := b.tryOpen(b.view)
	if err != nil {
		b.t.Fatal(err)
	}
	b.Ledger = l
}

func (b *bench) tryOpen(v *view) (*Ledger, error) {
	return Open(context.Background(), Options{
		Storage: v, Prefix: "ledger/", Clock: b.clock, Owner: fmt.Sprintf("process-%d", b.opened),
		Alerted: func(a Alert) { b.alerts = append(b.alerts, a) },
	})
}

// crash ends the process where it stands, and starts another.
func (b *bench) crash() {
	b.t.Helper()
	b.view.kill()
	synctest.Wait()
	b.open()
}

// pass lets time pass.
func (b *bench) pass(d time.Duration) {
	b.clock.advance(d)
	synctest.Wait()
}

// sweepFor lets time pass with a sweep each second.
func (b *bench) sweepFor(d time.Duration) {
	for ; d > 0; d -= time.Second {
		b.pass(min(d, time.Second))
		b.Sweep()
		synctest.Wait()
	}
}

func (b *bench) policy(limits ...string) *Policy {
	b.t.Helper()
	return NewPolicy(PolicyOptions{Account: testAccount, Name: "team-a", Limits: mustLimits(b.t, limits...)})
}

func (b *bench) softPolicy(limits ...string) *Policy {
	b.t.Helper()
	return NewPolicy(PolicyOptions{Account: testAccount, Name: "team-a", Limits: mustLimits(b.t, limits...), Soft: true})
}

// usd is a request that may cost so much, in nano-USD.
func usd(amount int64) *Request {
	return &Request{Amounts: Amounts{USD: amount, Requests: 1, Concurrent: 1}}
}

// tokens is a request of so many tokens.
func tokens(amount int64) *Request {
	return &Request{Amounts: Amounts{Requests: 1, Tokens: amount, Concurrent: 1}}
}

// cost is what was charged, in nano-USD.
func cost(amount int64) Charge { return Charge{Amounts: Amounts{USD: amount, Requests: 1}} }

// admit reserves, and fails the test if that is refused.
func (b *bench) admit(p *Policy, req *Request) *Reservation {
	b.t.Helper()
	r := &Reservation{}
	if refusal := b.Reserve(context.Background(), p, req, r); refusal != nil {
		b.t.Fatalf("reason %d: %v", refusal.Reason, refusal)
	}
	return r
}

// spend reserves and settles the same.
func (b *bench) spend(p *Policy, req *Request) {
	b.t.Helper()
	b.admit(p, req).Settle(Charge{Amounts: req.Amounts})
	synctest.Wait()
}

// refuse reserves, and fails the test if that isn't refused for this reason.
func (b *bench) refuse(p *Policy, req *Request, want Reason) {
	b.t.Helper()
	b.refused(b.begin(p, req), want)
}

// refusalOf is refuse, and returns the refusal.
func (b *bench) refusalOf(p *Policy, req *Request, want Reason) *Refusal {
	b.t.Helper()
	return b.refusalIn(b.begin(p, req), want)
}

// attempt is a Reserve in the background.
type attempt struct {
	Reservation
	cancel  context.CancelFunc
	done    chan struct{}
	refusal *Refusal
}

// begin reserves in the background.
func (b *bench) begin(p *Policy, req *Request) *attempt {
	ctx, cancel := context.WithCancel(context.Background())
	x := &attempt{cancel: cancel, done: make(chan struct{})}
	b.attempts = append(b.attempts, x)
	l := b.Ledger
	go func() {
		defer close(x.done)
		x.refusal = l.Reserve(ctx, p, req, &x.Reservation)
	}()
	synctest.Wait()
	return x
}

func (x *attempt) pending() bool {
	select {
	case <-x.done:
		return false
	default:
		return true
	}
}

// admitted fails the test unless the attempt was admitted by now.
func (b *bench) admitted(x *attempt) *Reservation {
	b.t.Helper()
	synctest.Wait()
	switch {
	case x.pending():
		b.t.Fatal("still waiting")
	case x.refusal != nil:
		b.t.Fatalf("reason %d: %v", x.refusal.Reason, x.refusal)
	}
	return &x.Reservation
}

// refused fails the test unless the attempt is refused for this reason, or
// would be once the queue's time is over.
func (b *bench) refused(x *attempt, want Reason) {
	b.t.Helper()
	_ = b.refusalIn(x, want)
}

// refusalIn is refused, and returns the refusal.
func (b *bench) refusalIn(x *attempt, want Reason) *Refusal {
	b.t.Helper()
	synctest.Wait()
	if x.pending() && want == Reserved {
		b.pass(b.queueWait)
	}
	switch {
	case x.pending():
		b.t.Fatal("still waiting")
	case x.refusal == nil:
		b.t.Fatalf("admitted, want reason %d", want)
	case x.refusal.Reason != want:
		b.t.Fatalf("reason %d, want %d: %v", x.refusal.Reason, want, x.refusal)
	}
	return x.refusal
}

// status is what stands on the first limit of the policy, for an entity where
// it counts them apart.
func (b *bench) status(p *Policy, entity string) Status {
	b.t.Helper()
	return b.statusIn(p, entity, nil)
}

func (b *bench) statusIn(p *Policy, entity string, zone *time.Location) Status {
	b.t.Helper()
	limit := p.limits[0]
	list, err := b.Status(context.Background(), p, Selection{Limit: p.ids[0], PerEntity: limit.PerEntity, Entity: entity, Zone: zone})
	if err != nil || len(list) != 1 {
		b.t.Fatalf("status %v, %v", list, err)
	}
	return list[0]
}

// wantUsed checks what stands on the first limit of the policy.
func (b *bench) wantUsed(p *Policy, used, reserved int64) {
	b.t.Helper()
	if s := b.status(p, ""); s.Used != used || s.Reserved != reserved {
		b.t.Fatalf("used %d and reserved %d, want %d and %d", s.Used, s.Reserved, used, reserved)
	}
}

// stored returns the entries of this process that are on disk, by their
// directories.
func stored(t testing.TB, disk logical.Storage, l *Ledger) map[string]*entry {
	t.Helper()
	list := map[string]*entry{}
	walk(t, disk, l.prefix+accountsPrefix, func(key string, value []byte) {
		dir, name := key[:strings.LastIndexByte(key, '/')+1], key[strings.LastIndexByte(key, '/')+1:]
		if name != l.own {
			return
		}
		e := &entry{}
		if err := json.Unmarshal(value, e); err != nil {
			t.Fatal(err)
		}
		list[dir] = e
	})
	return list
}

// walk calls f for all that is stored below prefix.
func walk(t testing.TB, disk logical.Storage, prefix string, f func(key string, value []byte)) {
	t.Helper()
	err := logical.ScanView(context.Background(), logical.NewStorageView(disk, prefix), func(path string) {
		got, err := disk.Get(context.Background(), prefix+path)
		if err != nil || got == nil {
			t.Fatalf("%s: %v, %v", path, got, err)
		}
		f(prefix+path, got.Value)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// marks returns the watermarks of a limit that this process has on disk, all
// windows together.
func (b *bench) storedMark(limit string) (mark, used int64) {
	b.t.Helper()
	for _, e := range stored(b.t, b.disk, b.Ledger) {
		for i := range e.Counters {
			if e.Counters[i].Limit == limit {
				mark, used = mark+e.Counters[i].Mark, used+e.Counters[i].Used
			}
		}
	}
	return mark, used
}

// holdings is all that is reserved in memory.
func holdings(l *Ledger) (sum int64) {
	for _, a := range l.all() {
		a.mu.Lock()
		a.each(func(sc *scope) {
			for _, s := range sc.series {
				for _, c := range s.counters {
					sum += c.reserved
				}
			}
		})
		sum += int64(a.open)
		a.mu.Unlock()
	}
	return sum
}

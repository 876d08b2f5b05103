// SPDX-License-Identifier: MPL-2.0

package ledger

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// history is one run of the model.
type history struct {
	t      *testing.T
	rng    *rand.Rand
	sum    *tally
	clock  *fakeClock
	disk   logical.Storage
	latest time.Time // the furthest that the wall clock ever was
	steps  []string

	keys    []*virtualKey
	zone    *time.Location
	zoned   bool       // the zone, or an anchor, was changed
	procs   []*process // the last is the active one; those before are alive too, and don't know
	started int
	late    []*hungOperation // writes of dead processes that may still land
	pending []*call
	open    []*call // admitted and not settled
	truth   *truth
}

// virtualKey is an account and the policy that is in force.
type virtualKey struct {
	account string
	limits  []Limit
	pool    []Limit
	soft    bool
	policy  *Policy
}

// process is a ledger in a process of its own.
type process struct {
	number int
	view   *view
	*Ledger
	books map[bookKey]*book
}

// call is one request.
type call struct {
	proc     *process
	key      *virtualKey
	policy   *Policy
	req      *Request
	size     *fakeSize
	res      Reservation
	cancel   context.CancelFunc
	done     chan struct{}
	refusal  *Refusal
	begun    int64       // monotonic
	walls    []time.Time // what the wall clock showed meanwhile
	fencedAt bool        // the process was fenced when it began
	waited   bool
	counts   []*count // what it counts in, by its holds
}

// pools are limits of all units, windows and scopes, and entities and models to
// go with them.
var (
	modelUnits    = []Unit{USD, Requests, Tokens, InputTokens, OutputTokens}
	modelWindows  = []Window{{Kind: Minute}, {Kind: Hour}, {Kind: Day}, {Kind: Week}, {Kind: Month}, {Kind: Total}, fixed(90 * time.Second), fixed(30 * time.Minute), fixed(36 * time.Hour)}
	modelGlobs    = []string{"", "", "gpt-*", "claude"}
	modelEntities = []string{"", "entity-1", "entity-2"}
	modelModels   = []string{"gpt-4o", "gpt-5", "claude"}
	modelMaxima   = []int64{1, 3, 10, 100, 1000, 100_000, 10_000_000}
	modelZones    = []string{"UTC", "America/New_York", "Europe/Berlin", "Asia/Kathmandu", "Pacific/Apia", "America/St_Johns"}
	modelStarts   = []string{
		"2026-03-11T12:00:00Z", "2024-02-28T23:59:00Z", "2026-03-08T06:58:00Z", "2026-03-29T00:55:00Z", "2026-10-25T00:30:00Z",
		"2026-11-01T05:30:00Z", "2026-12-31T23:58:30Z", "2026-01-31T22:59:00Z",
	}
)

func newHistory(t *testing.T, rng *rand.Rand, sum *tally) *history {
	start, err := time.Parse(time.RFC3339, pick(rng, modelStarts))
	if err != nil {
		t.Fatal(err)
	}
	h := &history{t: t, rng: rng, sum: sum, clock: newFakeClock(start), disk: newDisk(), latest: start, zone: time.UTC}
	h.truth = newTruth(h)
	if h.chance(0.5) {
		h.zone = loadZone(t, pick(rng, modelZones))
	}
	for i := range 2 {
		h.keys = append(h.keys, h.newKey(i))
	}
	h.start()
	return h
}

func pick[T any](rng *rand.Rand, list []T) T { return list[rng.IntN(len(list))] }

func (h *history) chance(p float64) bool { return h.rng.Float64() < p }

// upTo is a number from 0 to n.
func (h *history) upTo(n int64) int64 { return h.rng.Int64N(n + 1) }

func (h *history) newKey(i int) *virtualKey {
	key := &virtualKey{account: fmt.Sprintf("account-%d", i)}
	for range 1 + h.rng.IntN(5) {
		limit := Limit{
			Unit: pick(h.rng, modelUnits), Window: pick(h.rng, modelWindows), Max: pick(h.rng, modelMaxima),
			PerEntity: h.chance(0.3), Models: pick(h.rng, modelGlobs), Anchor: 1_700_000_000,
		}
		if h.chance(0.15) {
			limit.Unit, limit.Window, limit.Max = Concurrent, Window{}, 1+h.upTo(3)
		}
		if !slices.ContainsFunc(key.pool, func(l Limit) bool { return l.ID() == limit.ID() }) {
			key.pool = append(key.pool, limit)
		}
	}
	key.limits = slices.Clone(key.pool)
	key.soft = h.chance(0.1)
	key.renew()
	return key
}

func (key *virtualKey) renew() {
	key.policy = NewPolicy(PolicyOptions{Account: key.account, Name: key.account, Limits: slices.Clone(key.limits), Soft: key.soft, Thresholds: []int{50, 80, 100}})
}

func (h *history) note(format string, args ...any) {
	h.steps = append(h.steps, fmt.Sprintf(format, args...))
}

func (h *history) fail(format string, args ...any) {
	h.t.Helper()
	steps := h.steps
	if len(steps) > 100 {
		steps = steps[len(steps)-100:]
	}
	h.t.Log("…\n" + strings.Join(steps, "\n"))
	h.t.Errorf(format, args...)
	h.bury()
	h.t.FailNow()
}

// bury ends all that runs, so that the bubble can end.
func (h *history) bury() {
	for _, p := range h.procs {
		p.view.kill()
	}
	for _, c := range h.pending {
		c.cancel()
	}
	synctest.Wait()
}

func (h *history) active() *process { return h.procs[len(h.procs)-1] }

// start opens a ledger, in fair weather.
func (h *history) start() {
	h.started++
	p := &process{number: h.started, view: newView(h.disk), books: map[bookKey]*book{}}
	var err error
	p.Ledger, err = Open(context.Background(), Options{
		Storage: p.view, Prefix: "ledger/", Clock: h.clock, Owner: fmt.Sprintf("process-%d", h.started), QueueLength: 3,
	})
	if err != nil {
		h.fail("open: %v", err)
	}
	h.note("process %d starts", p.number)
	h.procs = append(h.procs, p)
	h.truth.tookOver()
	if len(h.procs) > 3 {
		h.end(h.procs[0])
	}
}

// run is the history: some steps, and an end in peace.
func (h *history) run() {
	for range 40 + h.rng.IntN(80) {
		h.step()
		h.settleDown()
	}
	h.finish()
	h.bury()
}

// settleDown waits until nothing moves any more, takes down what happened, and
// checks what has to hold.
func (h *history) settleDown() {
	synctest.Wait()
	h.collect()
	h.truth.check()
}

// step is one thing that happens.
func (h *history) step() {
	type action struct {
		weight int
		do     func()
	}
	actions := []action{
		{40, h.reserve}, {28, h.settle}, {4, h.settleTwice}, {3, h.giveUp}, {10, h.wait}, {3, h.wander}, {2, h.jump}, {5, h.sweep},
		{4, h.edit}, {1, h.move}, {4, h.storm}, {4, h.calm}, {5, h.free}, {2, h.crash}, {2, h.takeOver}, {1, h.close}, {5, h.landLate},
		{1, h.reset}, {1, h.writeOff}, {2, h.buryOld},
	}
	sum := 0
	for _, a := range actions {
		sum += a.weight
	}
	n := h.rng.IntN(sum)
	for _, a := range actions {
		if n -= a.weight; n < 0 {
			a.do()
			return
		}
	}
}

// reserve begins a request, most often on the active process.
func (h *history) reserve() {
	p := h.active()
	if h.chance(0.3) {
		p = pick(h.rng, h.procs)
	}
	for range 1 + h.rng.IntN(3) {
		h.begin(p)
	}
}

func (h *history) begin(p *process) {
	key := pick(h.rng, h.keys)
	ctx, cancel := context.WithCancel(context.Background())
	c := &call{
		proc: p, key: key, policy: key.policy, cancel: cancel, done: make(chan struct{}), begun: p.mono(), fencedAt: p.Fenced(),
		req: &Request{Entity: pick(h.rng, modelEntities), Model: pick(h.rng, modelModels), Zone: h.zone, Free: h.chance(0.05), Amounts: h.amounts(key)},
	}
	if h.chance(0.25) {
		c.size = &fakeSize{amounts: c.req.Amounts, factor: h.rng.Float64()}
		c.req.Size = c.size
	}
	h.note("call %p on %d/%s entity %q model %s wants %v", c, p.number, key.account, c.req.Entity, c.req.Model, c.req.Amounts)
	h.truth.allowed(key.policy)
	h.pending = append(h.pending, c)
	go func() {
		defer close(c.done)
		c.refusal = p.Reserve(ctx, c.policy, c.req, &c.res)
	}()
}

// amounts is what a request may use: little of a limit, much of it, or more
// than all of it.
func (h *history) amounts(key *virtualKey) (a Amounts) {
	a[Requests], a[Concurrent] = 1, 1
	for _, u := range modelUnits {
		if u != Requests {
			a[u] = h.upTo(5)
		}
	}
	for i := range key.limits {
		l := &key.limits[i]
		if l.Unit == Requests || l.Unit == Concurrent || h.chance(0.1) {
			continue
		}
		part := pick(h.rng, []int64{1, 2, 3, 10, 30, 200})
		a[l.Unit] = max(a[l.Unit], h.upTo(l.Max/part+1))
	}
	return a
}

// fakeSize is a request that can be made smaller.
type fakeSize struct {
	amounts Amounts
	factor  float64
	refined bool
}

func (s *fakeSize) Refine() (Amounts, bool) {
	if s.refined {
		panic("refined twice")
	}
	s.refined = true
	if s.factor > 0.8 {
		return s.amounts, false
	}
	for u := range s.amounts {
		if Unit(u) != Requests && Unit(u) != Concurrent {
			s.amounts[u] = int64(float64(s.amounts[u]) * s.factor)
		}
	}
	return s.amounts, true
}

func (s *fakeSize) Lower(unit Unit, most int64, _ bool) (Amounts, bool) {
	if !s.refined {
		panic("lowered before it was refined")
	}
	if float64(most) < float64(s.amounts[unit])*0.2 {
		return s.amounts, false
	}
	s.amounts[unit] = min(s.amounts[unit], most)
	return s.amounts, true
}

// collect takes down which requests have been decided.
func (h *history) collect() {
	wall := h.clock.now()
	h.pending = slices.DeleteFunc(h.pending, func(c *call) bool {
		c.walls = append(c.walls, wall)
		select {
		case <-c.done:
		default:
			c.waited = true
			return false
		}
		c.cancel()
		if c.refusal != nil {
			h.note("call %p is refused: %d %v", c, c.refusal.Reason, c.refusal)
			h.refused(c)
			return true
		}
		h.note("call %p is admitted with %v", c, c.res.Amounts)
		h.sum.Admitted++
		if c.waited {
			h.sum.Waited++
		}
		if c.res.Lowered {
			h.sum.Lowered++
		}
		if c.fencedAt && len(c.policy.limits) > 0 {
			h.fail("a fenced process admitted a request")
		}
		h.truth.admitted(c)
		h.open = append(h.open, c)
		return true
	})
}

func (h *history) refused(c *call) {
	switch c.refusal.Reason {
	case Reserved:
		h.sum.Reserved++
	case Busy:
		h.sum.Busy++
	case Rate:
		h.sum.Rate++
	case Spent:
		h.sum.Spent++
	case TooLarge:
		h.sum.TooLarge++
	case Unavailable:
		h.sum.Unavailable++
		if errors.Is(c.refusal.Cause, errFenced) {
			h.sum.Fenced++
		}
	case Gone:
		h.sum.Gone++
	case None:
		h.fail("a refusal without a reason")
	}
	h.truth.refused(c)
	if c.res.Settle(Charge{Amounts: Amounts{USD: 5}}) || c.res.open {
		h.fail("a refused request holds something")
	}
}

// settle ends a request that was admitted.
func (h *history) settle() {
	if len(h.open) == 0 {
		return
	}
	for range 1 + h.rng.IntN(3) {
		if len(h.open) == 0 {
			return
		}
		i := h.rng.IntN(len(h.open))
		c := h.open[i]
		h.open = slices.Delete(h.open, i, i+1)
		h.settleCall(c, h.charge(c))
	}
}

// charge is what a request used: less than reserved, all of it, nothing, an
// unknown amount, or more.
func (h *history) charge(c *call) (charge Charge) {
	charge.Amounts = c.res.Amounts
	n := h.rng.IntN(20)
	switch {
	case n < 3: // an error of the provider's
		charge.Amounts = Amounts{}
	case n < 6: // the outcome is unknown
		charge.Unconfirmed = true
	case n < 16:
		for u := range charge.Amounts {
			charge.Amounts[u] = h.upTo(charge.Amounts[u])
		}
		charge.Amounts[Requests] = 1
	case n == 16: // above
		for u := range charge.Amounts {
			charge.Amounts[u] += h.upTo(3)
		}
		charge.Amounts[Requests] = 1
	}
	return charge
}

func (h *history) settleCall(c *call, charge Charge) {
	h.note("call %p settles %v", c, charge)
	h.sum.Settled++
	exceeded := c.res.Settle(charge)
	h.truth.peek(c.proc)
	if exceeded {
		h.sum.Exceeded++
	}
	if want := h.truth.settled(c, charge); exceeded != want {
		h.fail("exceeded %v, want %v", exceeded, want)
	}
}

// settleTwice proves that the second time changes nothing.
func (h *history) settleTwice() {
	if len(h.open) == 0 {
		return
	}
	i := h.rng.IntN(len(h.open))
	c := h.open[i]
	h.open = slices.Delete(h.open, i, i+1)
	h.settleCall(c, h.charge(c))
	if c.res.Settle(Charge{Amounts: c.res.Amounts}) {
		h.fail("settled twice")
	}
}

// giveUp is a caller that goes away while it waits.
func (h *history) giveUp() {
	if len(h.pending) > 0 {
		c := pick(h.rng, h.pending)
		h.note("the caller of %p goes away", c)
		h.sum.Cancelled++
		c.cancel()
	}
}

// wait lets a little time pass, wander much.
func (h *history) wait() { h.advance(time.Duration(h.upTo(int64(3 * time.Second)))) }

func (h *history) wander() {
	h.advance(pick(h.rng, []time.Duration{20 * time.Second, 70 * time.Second, 6 * time.Minute, 50 * time.Minute, 5 * time.Hour, 26 * time.Hour, 9 * day}))
	if h.chance(0.7) {
		h.sweep()
		h.settleDown()
		h.sweep()
	}
}

func (h *history) advance(d time.Duration) {
	h.note("%s pass", d)
	h.clock.advance(d)
	h.latest = later(h.latest, h.clock.now())
}

// jump sets the wall clock, but never back further than counters are kept.
func (h *history) jump() {
	h.sum.Jumps++
	d := pick(h.rng, []time.Duration{-time.Second, -time.Minute, -61 * time.Minute, -25 * time.Hour, time.Second, time.Hour, 25 * time.Hour, 8 * day})
	wall := later(h.clock.now().Add(d), h.latest.Add(-47*time.Hour))
	if wall.After(h.clock.now()) {
		h.truth.forward = h.active().mono()
	}
	h.note("the clock is set from %s to %s", h.clock.now(), wall)
	h.clock.set(wall)
	h.latest = later(h.latest, wall)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (h *history) sweep() {
	for _, p := range h.procs {
		p.Sweep()
	}
}

// edit changes the limits of a virtual key.
func (h *history) edit() {
	h.sum.Edits++
	key := pick(h.rng, h.keys)
	i := h.rng.IntN(len(key.pool))
	at := slices.IndexFunc(key.limits, func(l Limit) bool { return l.ID() == key.pool[i].ID() })
	switch n := h.rng.IntN(6); {
	case n == 0:
		key.soft = !key.soft
	case at < 0:
		limit := key.pool[i]
		if limit.Window.Kind == Fixed && h.chance(0.5) {
			h.zoned = true
			limit.Anchor = h.clock.now().Unix()
			key.pool[i] = limit
		}
		key.limits = append(key.limits, limit)
	case n == 1:
		key.limits = slices.Delete(key.limits, at, at+1)
	case n == 2:
		key.limits[at].Max *= 2
	case n == 3:
		key.limits[at].Max /= 2
	default:
		key.limits[at].Max = h.upTo(key.pool[i].Max)
	}
	key.renew()
	h.note("%s has %v, soft %v", key.account, key.limits, key.soft)
}

// move changes the time zone.
func (h *history) move() {
	h.sum.Zones++
	h.zoned = true
	h.zone = loadZone(h.t, pick(h.rng, modelZones))
	h.note("the zone is %s", h.zone)
}

// storm makes the storage of a process fail. What fails goes by the key and how
// often it was asked for, since the order in which goroutines run is no part of
// a history.
func (h *history) storm() {
	p := pick(h.rng, h.procs)
	seed, odds := h.rng.Uint64(), [...]float64{h.rng.Float64() * 0.4, h.rng.Float64() * 0.4, h.rng.Float64() * 0.4}
	asked := map[string]uint64{}
	h.note("the storage of %d fails", p.number)
	p.view.weather(func(op operation, key string) fault {
		key = fmt.Sprint(op, key)
		asked[key]++
		hash := fnv.New64a()
		_, _ = hash.Write([]byte(key))
		rng := rand.New(rand.NewPCG(seed^hash.Sum64(), asked[key]))
		for i, p := range odds {
			if rng.Float64() < p {
				return refused + fault(i)
			}
		}
		return works
	})
}

func (h *history) calm() {
	p := h.active()
	h.note("the storage of %d works", p.number)
	p.view.weather(nil)
	if h.chance(0.5) {
		p.view.free(works)
	}
}

// free lets what hangs have an end.
func (h *history) free() {
	p := pick(h.rng, h.procs)
	if p.view.hanging() > 0 {
		h.sum.Hung++
		h.note("what hangs at %d ends", p.number)
		p.view.free(pick(h.rng, []fault{works, works, refused, answered}))
	}
}

// end kills a process. What it had under way may land at once, later, or never;
// what it had sent goes on at the provider.
func (h *history) end(p *process) {
	h.note("process %d dies", p.number)
	for _, w := range p.view.kill() {
		switch h.rng.IntN(4) {
		case 0:
			h.note("%s lands", w.entry.Key)
			w.land(h.disk)
		case 1, 2:
			if strings.Contains(w.entry.Key, "/"+accountsPrefix) {
				h.late = append(h.late, w)
			}
		}
	}
	synctest.Wait()
	h.pending = slices.DeleteFunc(h.pending, func(c *call) bool {
		if c.proc == p {
			c.cancel()
			synctest.Wait()
			if <-c.done; c.refusal == nil {
				c.walls = append(c.walls, h.clock.now())
				h.truth.admitted(c)
				h.truth.orphaned(c)
				h.truth.calls = nil
			}
		}
		return c.proc == p
	})
	h.open = slices.DeleteFunc(h.open, func(c *call) bool {
		if c.proc == p {
			h.truth.orphaned(c)
		}
		return c.proc == p
	})
	h.procs = slices.DeleteFunc(h.procs, func(other *process) bool { return other == p })
	h.truth.died(p)
}

func (h *history) crash() {
	h.sum.Crashes++
	h.end(h.active())
	h.start()
}

// takeOver starts a process while the one before is alive.
func (h *history) takeOver() {
	h.sum.Takeovers++
	h.start()
}

// buryOld ends the oldest of the processes that aren't the active one any more.
func (h *history) buryOld() {
	if len(h.procs) > 1 {
		h.end(h.procs[0])
	}
}

// close ends the active process cleanly.
func (h *history) close() {
	h.sum.Closes++
	p := h.active()
	drain := time.Duration(h.upTo(1)) * 50 * time.Millisecond
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	err := p.Close(ctx, drain)
	cancel()
	h.note("process %d is closed: %v", p.number, err)
	synctest.Wait()
	h.collect()
	if err == nil && !p.Fenced() {
		h.truth.closed(p)
	}
	h.end(p)
	h.start()
}

// landLate lets a write of a dead process land now.
func (h *history) landLate() {
	if len(h.late) > 0 {
		i := h.rng.IntN(len(h.late))
		h.note("%s lands late", h.late[i].entry.Key)
		h.sum.Late++
		h.late[i].land(h.disk)
		h.late = slices.Delete(h.late, i, i+1)
	}
}

// reset and writeOff are what operators do, once no older process is around.
func (h *history) reset() {
	h.operate(func(p *process, key *virtualKey, by Selection) error {
		h.sum.Resets++
		return p.Reset(context.Background(), key.policy, by)
	})
}

func (h *history) writeOff() {
	unconfirmed := h.chance(0.5)
	h.operate(func(p *process, key *virtualKey, by Selection) error {
		h.sum.WriteOffs++
		return p.WriteOff(context.Background(), key.policy, by, unconfirmed)
	})
}

func (h *history) operate(f func(*process, *virtualKey, Selection) error) {
	p := h.active()
	if len(h.procs) > 1 || len(h.pending) > 0 {
		return
	}
	p.view.weather(nil)
	p.view.free(works)
	synctest.Wait()
	key := pick(h.rng, h.keys)
	by := Selection{PerEntity: h.chance(0.5), Zone: h.zone}
	if by.PerEntity {
		by.Entity = pick(h.rng, modelEntities)
	}
	err := f(p, key, by)
	h.note("process %d changes %s %+v: %v", p.number, key.account, by, err)
	synctest.Wait()
	h.truth.changed(p, key, by)
	if err != nil {
		h.fail("%v", err)
	}
}

// finish ends the history in peace: all is settled, nothing stays reserved, and
// the last process closes cleanly.
func (h *history) finish() {
	h.note("the history ends")
	for _, p := range h.procs {
		p.view.weather(nil)
		p.view.free(works)
	}
	h.settleDown()
	for range 8 { // the queue's time, and storage's
		h.advance(time.Second)
		h.settleDown()
	}
	if len(h.pending) > 0 {
		h.fail("call %p waits for ever", h.pending[0])
	}
	for len(h.open) > 0 {
		h.settle()
		h.settleDown()
	}
	for _, p := range h.procs {
		if sum := holdings(p.Ledger); sum != 0 {
			h.fail("%d stay reserved in process %d", sum, p.number)
		}
	}
	p := h.active()
	if err := p.Close(context.Background(), time.Second); err != nil {
		h.fail("close: %v", err)
	}
	h.truth.closed(p)
	h.start()
	for _, key := range h.keys {
		for _, entity := range modelEntities {
			if _, err := h.active().Status(context.Background(), NewPolicy(PolicyOptions{Account: key.account, Limits: key.pool}), Selection{PerEntity: true, Entity: entity, Zone: h.zone}); err != nil {
				h.fail("status: %v", err)
			}
		}
	}
	h.settleDown()
}

// SPDX-License-Identifier: MPL-2.0

package ledger

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// truth is the reference: what was truly used and what is under way, whichever
// process admitted it. What it has to do with the ledger is checked after every
// step:
//
//   - What was used and what may still be used, in any window of a hard limit,
//     is never more than the limit allowed when the last request was admitted,
//     but for what requests used above what was reserved for them. In sliding
//     windows, in no stretch of the window's length.
//   - A crash at this very moment would forget nothing: the newest entry in
//     storage covers all of that, of durable limits.
//   - A process that takes over counts at least what was used, and at most the
//     highest that was used and reserved together since 2 s before the latest
//     write that succeeded began, or the first of those that failed just before
//     it, and a 64th of the limit. That write looked back so far, and wrote no
//     less than those that had failed; those after it, which may have landed,
//     looked back no further. After a clean end it counts exactly what was used, and what was
//     reserved by requests that hadn't ended.
//   - While a process lives, its count is what it inherited and was charged, to
//     the last unit, and what it holds is what is under way.
type truth struct {
	h       *history
	counts  map[countKey]*count
	largest map[string]int64 // the largest max ever of a limit, by account and identity
	failed  map[string]Amounts
	calls   []*call // admitted in this step
	forward int64   // monotonic time of the latest jump forward of the wall clock
}

// bookKey is a counter: of a limit, in a scope, in a window.
type bookKey struct {
	account, entity string
	own             bool
	id              string
	start           int64 // 0 if it slides
}

// countKey is a bookKey, and a process for what isn't durable.
type countKey struct {
	bookKey
	process int
}

// count is the truth about a counter.
type count struct {
	limit    Limit
	durable  bool
	start    int64
	end      int64
	settled  int64 // used
	inFlight int64 // may still be used
	over     int64 // used above what was reserved
	// excused is the part of over that storage may not know of: the write of it
	// wasn't over yet when the process died. lost is that of dead processes.
	excused, lost int64
	uses          []*use
	lastUse       int64
	exact         *int64 // what the process of number next has to count, after a clean end
	next          int
	totals        []total
	since         int64 // when the latest write that succeeded began
}

// use is one request in a count.
type use struct {
	call    *call
	limit   *Limit
	process int
	mono    int64
	amount  int64 // without what was above the reservation
	settled bool
}

// total is what was used and reserved at some time.
type total struct{ mono, amount int64 }

// book is what a process has to have in a counter.
type book struct {
	scope   *scope
	counter *counter
	used    int64
	// The number of the latest write of its scope, when it began, whether it is
	// under way, and since when writes fail.
	began            uint64
	beganAt, failing int64
	open             bool
	wrote            bool // the process has an entry of its own
}

func newTruth(h *history) *truth {
	return &truth{h: h, counts: map[countKey]*count{}, largest: map[string]int64{}, failed: map[string]Amounts{}}
}

func (x *truth) now() int64 { return x.h.active().mono() }

// allowed notes what the limits of a policy allow.
func (x *truth) allowed(p *Policy) {
	for i := range p.limits {
		name := p.account + " " + p.ids[i]
		x.largest[name] = max(x.largest[name], p.limits[i].Max)
	}
}

// countOf returns the count of a counter, a new one if there is none.
func (x *truth) countOf(p *process, key bookKey, limit *Limit, c *counter) *count {
	k := countKey{bookKey: key}
	if !c.durable {
		k.process = p.number
	}
	n := x.counts[k]
	if n == nil {
		n = &count{limit: *limit, durable: c.durable, start: c.start, end: c.end}
		x.counts[k] = n
	}
	return n
}

// limitOf is the limit of a counter.
func (x *truth) limitOf(key bookKey) *Limit {
	for _, k := range x.h.keys {
		for i := range k.pool {
			if k.account == key.account && k.pool[i].ID() == key.id {
				return &k.pool[i]
			}
		}
	}
	x.h.fail("nobody knows %+v", key)
	return nil
}

// keyOf is the counter of a hold.
func keyOf(c *call, h *hold) bookKey {
	return bookKey{c.key.account, h.scope.entity, h.scope.own, c.policy.ids[h.index], startOf(h.counter)}
}

func startOf(c *counter) int64 {
	if c.ring != nil {
		return 0
	}
	return c.start
}

// admitted notes a request that was admitted.
func (x *truth) admitted(c *call) {
	x.checkHolds(c)
	for i := range c.res.n {
		h := &c.res.holds[i]
		limit := &c.policy.limits[h.index]
		n := x.countOf(c.proc, keyOf(c, h), limit, h.counter)
		c.counts = append(c.counts, n)
		x.checkWindow(c, h, limit, n)
		mono := c.begun
		if c.waited && h.counter.ring != nil {
			mono = max(mono, min(h.tick*h.counter.ring.width, x.now()))
		}
		n.inFlight += h.amount
		n.lastUse = x.now()
		n.uses = append(n.uses, &use{call: c, limit: limit, process: c.proc.number, mono: mono, amount: h.amount})
	}
	x.calls = append(x.calls, c)
}

// checkHolds checks that the request is held against each limit that applies.
func (x *truth) checkHolds(c *call) {
	n := 0
	for i := range c.policy.limits {
		l := &c.policy.limits[i]
		applies := l.Models == "" || l.Models == c.req.Model || strings.HasSuffix(l.Models, "*") && strings.HasPrefix(c.req.Model, strings.TrimSuffix(l.Models, "*"))
		if !applies || c.req.Free && l.Unit != Requests && l.Unit != Concurrent {
			continue
		}
		if n >= c.res.n || c.res.holds[n].index != i || c.res.holds[n].amount != c.res.Amounts[l.Unit] {
			x.h.fail("call %p isn't held against %s", c, l)
		}
		n++
	}
	if n != c.res.n {
		x.h.fail("call %p is held against %d limits, want %d", c, c.res.n, n)
	}
	for u := range c.res.Amounts {
		if c.res.Amounts[u] > c.req.Amounts[u] {
			x.h.fail("call %p grew from %v to %v", c, c.req.Amounts, c.res.Amounts)
		}
	}
}

// checkWindow checks that the request counts in the window in which it was
// admitted, and that no window of the same limit has a part of that.
func (x *truth) checkWindow(c *call, h *hold, limit *Limit, n *count) {
	if h.counter.ring != nil || limit.Unit == Concurrent {
		return
	}
	if !n.active() {
		n.end = h.counter.end
	}
	if h.amount == 0 { // which a process admits that knows of no window
		return
	}
	right := slices.ContainsFunc(c.walls, func(wall time.Time) bool {
		if x.h.zoned {
			return h.counter.start <= wall.Unix() && wall.Unix() < h.counter.end
		}
		start, end := limit.Window.Span(wall, c.req.Zone, limit.Anchor)
		return start == h.counter.start && end == h.counter.end
	})
	if !right {
		x.h.fail("call %p counts in %s to %s, at %v", c, time.Unix(h.counter.start, 0), time.Unix(h.counter.end, 0), c.walls)
	}
	if n.end != h.counter.end {
		x.h.fail("call %p: the window of %s from %s ends at %s and at %s", c, limit, time.Unix(n.start, 0), time.Unix(n.end, 0), time.Unix(h.counter.end, 0))
	}
	mine := keyOf(c, h)
	for k, other := range x.counts {
		key := k.bookKey
		key.start = mine.start
		if other != n && key == mine && (n.durable || k.process == c.proc.number) && other.active() && !x.pruned(other) && other.start < n.end && n.start < other.end {
			x.h.fail("two windows of %s have time in common: %d to %d, and %d to %d", limit, n.start, n.end, other.start, other.end)
		}
	}
}

// pruned says whether a process may have forgotten the window.
func (x *truth) pruned(n *count) bool { return n.end < x.h.latest.Unix()-keepFor }

// active says whether a process must know of the window.
func (n *count) active() bool { return n.inFlight+n.settled-n.over > 0 }

// refused checks that a refusal says why, and takes down what may have been
// reserved for a moment.
func (x *truth) refused(c *call) {
	amounts := x.failed[c.key.account]
	for u := range amounts {
		amounts[u] += c.req.Amounts[u]
	}
	x.failed[c.key.account] = amounts
	r := c.refusal
	free := r.Limit.Max - r.Used
	var right bool
	switch r.Reason {
	case Reserved:
		right = r.Amount <= free && r.Amount > free-r.Reserved
	case Busy:
		right = r.Limit.Unit == Concurrent && r.Reserved+r.Amount > r.Limit.Max
	case Rate:
		right = r.Limit.Window.Short() && r.Amount > free-r.Reserved
	case Spent:
		right = !r.Limit.Window.Short() && r.Amount > free
	case TooLarge:
		right = r.Amount > r.Limit.Max || r.Limit.Max == 0
	default:
		right = true
	}
	if c.policy.soft && (r.Reason == Rate || r.Reason == Spent) {
		right = free <= 0
	}
	if !right || c.policy.soft && r.Reason == Reserved {
		x.h.fail("call %p is refused without a reason: %+v", c, *r)
	}
}

// settled notes what a request used, and says whether that is more than was
// reserved.
func (x *truth) settled(c *call, charge Charge) (exceeded bool) {
	for i := range c.res.n {
		h, n := &c.res.holds[i], c.counts[i]
		n.inFlight -= h.amount
		u := n.ended(c)
		if h.unit == Concurrent {
			continue
		}
		amount := charge.Amounts[h.unit]
		over := max(amount-h.amount, 0)
		exceeded = exceeded || over > 0
		n.settled += amount
		n.over += over
		n.excused += over
		if c.proc != x.h.active() {
			n.lost += over
			x.h.sum.ZombieUse++
		}
		n.lastUse = x.now()
		u.amount = amount - over
		if b := c.proc.books[keyOf(c, h)]; b != nil {
			b.used += amount
		} else if h.amount > 0 {
			x.h.fail("nothing is known of %+v", keyOf(c, h))
		}
	}
	return exceeded
}

// ended marks the use of a call as settled.
func (n *count) ended(c *call) *use {
	i := slices.IndexFunc(n.uses, func(u *use) bool { return u.call == c })
	n.uses[i].settled = true
	return n.uses[i]
}

// orphaned notes a request of a process that died: it goes on at the provider,
// and uses some of what was reserved.
func (x *truth) orphaned(c *call) {
	for i := range c.res.n {
		h, n := &c.res.holds[i], c.counts[i]
		n.inFlight -= h.amount
		u := n.ended(c)
		u.amount = 0
		if h.unit != Concurrent {
			u.amount = x.h.upTo(h.amount)
			n.settled += u.amount
		}
	}
}

// died notes that a process is no more.
func (x *truth) died(p *process) {
	for k, n := range x.counts {
		if k.process == p.number {
			delete(x.counts, k)
		}
		n.lost = n.excused
	}
}

// tookOver notes that another process is the active one.
func (x *truth) tookOver() {
	for _, n := range x.counts {
		n.lost = n.excused
	}
}

// closed notes that the process ended cleanly.
func (x *truth) closed(p *process) {
	for key, b := range p.books {
		n := x.counts[countKey{bookKey: key}]
		if n == nil || !b.wrote || key.start == 0 && n.limit.Window.Sliding() {
			continue
		}
		exact := b.used
		for _, c := range x.h.open {
			for i := range c.res.n {
				if c.proc == p && c.counts[i] == n {
					exact += c.res.holds[i].amount
				}
			}
		}
		n.exact, n.next = &exact, p.number+1
	}
}

// changed notes that an operator changed counts.
func (x *truth) changed(p *process, key *virtualKey, by Selection) {
	x.each(p, func(k bookKey, _ *scope, c *counter) {
		b, n := p.books[k], x.counts[countKey{bookKey: k, process: p.processOf(c)}]
		if k.account != key.account || n == nil || k.own != by.PerEntity || k.own && k.entity != by.Entity || !slices.Contains(key.policy.ids, k.id) {
			return
		}
		if b == nil { // just loaded
			b = &book{counter: c, used: c.used + 1}
			p.books[k] = b
		}
		if c.ring == nil && c.used > b.used {
			x.h.fail("an operator raised a count")
		}
		if c.ring == nil && c.used == b.used {
			return
		}
		b.used, n.exact = c.used, nil
		n.settled, n.over, n.excused, n.lost = c.used, 0, 0, 0
		n.totals, n.since = []total{{x.now(), c.total()}}, x.now()
		for _, u := range n.uses {
			if c.ring != nil && (u.process != p.number || c.ring.sum == 0 && u.settled) {
				u.amount = 0
			}
		}
	})
}

func (p *process) processOf(c *counter) int {
	if c.durable {
		return 0
	}
	return p.number
}

// each calls f for all counters that the process has in memory.
func (x *truth) each(p *process, f func(bookKey, *scope, *counter)) {
	for _, a := range p.all() {
		a.mu.Lock()
		a.each(func(sc *scope) {
			for id, s := range sc.series {
				for _, c := range s.counters {
					f(bookKey{a.id, sc.entity, sc.own, id, startOf(c)}, sc, c)
				}
			}
		})
		a.mu.Unlock()
	}
}

// check checks what has to hold after every step.
func (x *truth) check() {
	for _, p := range x.h.procs {
		if p.Fenced() && p == x.h.active() {
			x.h.fail("the active process is fenced")
		}
		seen := map[countKey]bool{}
		x.each(p, func(key bookKey, sc *scope, c *counter) {
			seen[countKey{key, p.processOf(c)}] = true
			x.observe(p, key, sc, c)
		})
		x.checkForgotten(p, seen)
	}
	for _, c := range x.calls {
		x.checkLimits(c)
	}
	x.calls = nil
	clear(x.failed)
	x.checkStorage()
}

// observe checks a counter of a process.
func (x *truth) observe(p *process, key bookKey, sc *scope, c *counter) {
	n := x.counts[countKey{key, p.processOf(c)}]
	if n == nil && c.durable {
		n = x.countOf(p, key, x.limitOf(key), c)
	}
	b := p.books[key]
	switch {
	case b == nil:
		b = &book{used: c.used}
		p.books[key] = b
		if c.durable {
			x.checkRecovered(p, key, n, c)
		}
	case b.counter != c && (c.ring != nil || !c.durable): // it was nothing, and left memory
		b.used = c.used
	case b.counter != c:
		x.h.sum.Evicted++
		if !b.wrote { // it finds again what an older process left
			b.used = c.used
			x.checkRecovered(p, key, n, c)
		}
	}
	if b.scope != sc { // which counts its writes anew
		b.scope, b.began, b.open = sc, 0, false
		if p != x.h.active() { // it hasn't written this one
			b.began = sc.began
		}
	}
	b.counter = c
	b.wrote = b.wrote || x.wrote(p, sc)
	if c.used != b.used {
		x.h.fail("process %d: %+v has %d used, want %d", p.number, key, c.used, b.used)
	}
	x.checkReserved(p, key, c)
	if !c.durable {
		return
	}
	x.takeDown(p, n, b, sc, c)
	if p == x.h.active() && !sc.writing && c.total() <= c.mark {
		n.excused = n.lost
	}
	if c.ring != nil && p == x.h.active() {
		if c.ring.advance(p.mono()); n.within(x, p.number, p.mono(), true) > c.ring.sum {
			x.h.fail("process %d: %+v has %d in its window, want %d", p.number, key, c.ring.sum, n.within(x, p.number, p.mono(), true))
		}
	}
}

// wrote says whether the process has an entry of its own.
func (x *truth) wrote(p *process, sc *scope) bool {
	e, err := x.h.disk.Get(context.Background(), sc.dir+p.own)
	if err != nil {
		x.h.fail("%v", err)
	}
	return e != nil
}

// checkReserved checks that what is held is what is under way.
func (x *truth) checkReserved(p *process, key bookKey, c *counter) {
	sum := int64(0)
	for _, open := range x.h.open {
		for i := range open.res.n {
			if h := &open.res.holds[i]; open.proc == p && h.counter == c {
				sum += h.amount
			}
		}
	}
	undecided := slices.ContainsFunc(x.h.pending, func(c *call) bool { return c.proc == p && c.key.account == key.account })
	if c.reserved < sum || c.reserved > sum && !undecided {
		x.h.fail("process %d: %+v has %d reserved, want %d", p.number, key, c.reserved, sum)
	}
}

// takeDown notes what a crash may find.
func (x *truth) takeDown(p *process, n *count, b *book, sc *scope, c *counter) {
	n.totals = append(n.totals, total{p.mono(), c.total() + x.failed[sc.account.id][n.limit.Unit]})
	ended := b.open
	if sc.began != b.began {
		if b.open && b.failing == 0 {
			b.failing = b.beganAt
		}
		b.began, b.beganAt, ended = sc.began, p.mono(), true
	}
	b.open = sc.writing
	switch {
	case sc.writing || !ended:
	case sc.failed == sc.began:
		if b.failing == 0 {
			b.failing = b.beganAt
		}
	default: // it wrote no less than those that had failed
		if n.since = b.beganAt; b.failing > 0 {
			n.since = b.failing
		}
		b.failing = 0
	}
	if b.failing > 0 {
		n.since = min(n.since, b.failing)
	}
}

// peek notes what is reserved for a moment, between settlements.
func (x *truth) peek(p *process) {
	x.each(p, func(key bookKey, _ *scope, c *counter) {
		if n := x.counts[countKey{bookKey: key}]; c.durable && n != nil {
			n.totals = append(n.totals, total{p.mono(), c.total()})
		}
	})
}

// peak is the highest total since 2 s before the latest write that succeeded.
func (n *count) peak() (most int64) {
	for i, t := range n.totals {
		if t.mono >= n.since-2*int64(time.Second) || i+1 == len(n.totals) || n.totals[i+1].mono >= n.since-2*int64(time.Second) {
			most = max(most, t.amount)
		}
	}
	return most
}

// checkRecovered checks what a process found.
func (x *truth) checkRecovered(p *process, key bookKey, n *count, c *counter) {
	x.h.sum.Recovered++
	if p != x.h.active() {
		return
	}
	least := n.settled - n.excused
	for _, u := range n.uses {
		if !u.settled && u.process != p.number {
			least += u.amount
		}
	}
	most := n.peak() + x.largest[key.account+" "+key.id]/64
	if c.ring != nil {
		least = 0 // its window is checked elsewhere
	}
	if c.used < least || c.used > most {
		x.h.fail("process %d: %+v was recovered as %d, want %d to %d; %+v", p.number, key, c.used, least, most, *n)
	}
	if c.used > n.settled {
		x.h.sum.Overcounted++
	}
	if n.exact != nil && n.next == p.number && len(x.h.procs) == 1 && c.used != *n.exact {
		x.h.fail("process %d: %+v was recovered as %d, want exactly %d", p.number, key, c.used, *n.exact)
	}
	n.exact = nil
}

// checkForgotten lets what isn't durable go, but not too early.
func (x *truth) checkForgotten(p *process, seen map[countKey]bool) {
	for k, n := range x.counts {
		if k.process != p.number || seen[k] || n.limit.Window.Sliding() || n.limit.Unit == Concurrent {
			continue
		}
		idle := p.mono() - n.lastUse
		if n.inFlight > 0 || n.settled > 0 && idle < (n.end-n.start)*int64(time.Second) && x.h.latest.Unix() < n.end+keepFor {
			x.h.fail("process %d forgot %+v: %+v", p.number, k, n)
		}
		delete(x.counts, k)
		delete(p.books, k.bookKey)
	}
}

// checkLimits checks the limits that a request was just admitted under.
func (x *truth) checkLimits(c *call) {
	late := slices.ContainsFunc(x.calls, func(other *call) bool { return other.waited && other.key == c.key })
	for i := range c.res.n {
		h, n := &c.res.holds[i], c.counts[i]
		limit := &c.policy.limits[h.index]
		most, ok := limit.Max, true
		if c.proc != x.h.active() && n.durable { // what it may still use was counted when the limit may have been higher
			most = max(most, x.largest[c.key.account+" "+c.policy.ids[h.index]])
			ok = !slices.ContainsFunc(n.uses, func(u *use) bool { return u.call.policy.soft })
		}
		if late { // by which policy another was admitted in the same step isn't known
			for _, u := range n.uses {
				most = max(most, u.limit.Max)
				ok = ok && !u.call.policy.soft
			}
		}
		if ok {
			x.checkLimit(c, h, limit, n, most)
		}
	}
}

func (x *truth) checkLimit(c *call, h *hold, limit *Limit, n *count, most int64) {
	used := n.settled - n.over
	sum := used + n.inFlight
	if h.counter.ring != nil && limit.Unit != Concurrent {
		used = n.within(x, c.proc.number, x.now(), true)
		sum = used + n.within(x, c.proc.number, x.now(), false)
	}
	if c.policy.soft && limit.Unit != Concurrent {
		if h.amount > 0 && used >= most && c.proc == x.h.active() {
			x.h.fail("call %p was admitted although %d of %s are used", c, used, limit)
		}
		return
	}
	if sum > most && h.amount > 0 {
		x.h.fail("call %p was admitted, with which %d of %s are used or reserved", c, sum, limit)
	}
}

// within is what requests that were admitted in the sliding window that ends now
// have used, or may use.
func (n *count) within(x *truth, process int, now int64, settled bool) (sum int64) {
	for _, u := range n.uses {
		if u.settled != settled || u.mono <= now-int64(n.limit.Window.Width()) {
			continue
		}
		if (u.process != process || process != x.h.active().number) && u.mono <= x.forward {
			continue // between processes, it goes by the wall clock
		}
		sum += u.amount
	}
	return sum
}

// checkStorage checks that a crash now would forget nothing.
func (x *truth) checkStorage() {
	p := x.h.active()
	marks := map[string]map[string]int64{}
	for k, n := range x.counts {
		if !n.durable || n.limit.Window.Sliding() {
			continue
		}
		dir := p.accountPrefix(k.account) + sharedPrefix
		if k.own {
			dir = p.accountPrefix(k.account) + entityPrefix + entityKey(k.entity) + "/"
		}
		if marks[dir] == nil {
			marks[dir] = x.newestMarks(dir)
		}
		mark := marks[dir][k.id+" "+strconv.FormatInt(k.start, 10)]
		if need := n.settled - n.excused + n.inFlight; mark < need && !x.pruned(n) {
			x.h.fail("a crash would find %d in %+v, want %d", mark, k, need)
		}
	}
}

// newestMarks returns the watermarks that a process would find, by limit and
// window.
func (x *truth) newestMarks(dir string) map[string]int64 {
	names, err := x.h.disk.List(context.Background(), dir)
	if err != nil {
		x.h.fail("%v", err)
	}
	marks := map[string]int64{}
	newest, latest := "", -1
	for _, name := range names {
		var epoch int
		if _, err := fmt.Sscanf(name, "%d-", &epoch); err != nil {
			x.h.fail("%s: %v", name, err)
		}
		if epoch > latest {
			newest, latest = name, epoch
		}
	}
	if newest == "" {
		return marks
	}
	got, err := x.h.disk.Get(context.Background(), dir+newest)
	if err != nil {
		x.h.fail("%v", err)
	}
	e := &entry{}
	if err := json.Unmarshal(got.Value, e); err != nil {
		x.h.fail("%v", err)
	}
	for i := range e.Counters {
		c := &e.Counters[i]
		marks[c.Limit+" "+strconv.FormatInt(c.Start, 10)] = c.Mark
	}
	return marks
}

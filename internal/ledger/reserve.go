// SPDX-License-Identifier: MPL-2.0

package ledger

import (
	"context"
	"errors"
	"time"
)

// Request is what a reservation is for.
type Request struct {
	// Entity is the caller's Vault entity, empty for none.
	Entity string
	// Model is the model that the request names; limits on models go by it.
	Model string
	// Amounts is the worst case; of Requests and Concurrent it is usually 1.
	Amounts Amounts
	// Free requests run no model: limits on money and tokens don't apply.
	Free bool
	// Zone is where calendar windows begin; nil means UTC.
	Zone *time.Location
	// Size can make the request smaller; nil means that it is what it is.
	Size Size
}

// Size makes a request smaller that doesn't fit. The ledger calls it from one
// goroutine at a time, and for the last time before Reserve returns.
type Size interface {
	// Refine finds a tighter worst case of the same request, if there is one. It
	// is called at most once, when that may make the difference, and without any
	// lock.
	Refine() (Amounts, bool)
	// Lower makes the request use at most so much of unit, if that leaves enough
	// to be useful. No amount grows by it. whole says that most is all that the
	// limit ever allows, and not just what is left of it.
	Lower(unit Unit, most int64, whole bool) (Amounts, bool)
}

// hold is what a reservation holds of one counter.
type hold struct {
	counter *counter
	scope   *scope
	unit    Unit
	index   int // of the limit
	amount  int64
	tick    int64 // of admission, for sliding windows
	need    int64 // what the watermark must reach before the request may be sent
}

// Reservation is one request's hold on the limits. Its zero value is ready for
// Reserve. It belongs to one request, and must not be copied or moved.
type Reservation struct {
	ledger  *Ledger
	account *account
	policy  *Policy
	// Amounts is what is reserved, after Reserve: the request's, or less if it
	// was made smaller.
	Amounts Amounts
	// Lowered says that the request was made smaller.
	Lowered bool
	open    bool
	refined bool
	// sizeMatters says that a smaller request might not have been refused.
	sizeMatters bool
	n           int
	holds       []hold  // in few, if they fit there
	few         [3]hold // most virtual keys have no more limits
}

// The troubles with storage that aren't its own errors.
var (
	errSlow  = errors.New("storage gave no answer in time")
	errStale = errors.New("storage hasn't confirmed of late that this instance may admit")
)

// Reserve holds the request's worst case against every limit of the policy that
// applies, or refuses it and holds nothing. When it returns nil, storage has
// what covers the reservation, so that a crash can't forget it, and r must be
// settled. If only reservations in flight are in the way, it waits for a while;
// the end of ctx ends that.
func (l *Ledger) Reserve(ctx context.Context, p *Policy, req *Request, r *Reservation) *Refusal {
	r.account, r.open = nil, false
	if len(p.limits) == 0 {
		return nil
	}
	now, err := l.fresh(ctx)
	if err != nil {
		return l.unavailable(ctx, p, err)
	}
	r.ledger, r.policy, r.Amounts = l, p, clamp(req.Amounts)
	r.Lowered, r.refined, r.n = false, false, 0
	a := l.lock(p.account, p.name)
	if a == nil {
		return l.unavailable(ctx, p, ErrDeleted)
	}
	r.account = a
	shared, own, now, err := a.load(ctx, now, p, req.Entity)
	if err != nil {
		a.mu.Unlock()
		return l.unavailable(ctx, p, err)
	}
	refusal := a.try(now, shared, own, req, r)
	if refusal != nil && r.sizeMatters {
		refusal = a.refine(ctx, shared, own, req, r)
	}
	if refusal != nil && refusal.Reason == Reserved && l.queueWait > 0 {
		refusal = a.queued(ctx, shared, own, req, r, refusal)
	}
	if refusal != nil {
		a.mu.Unlock()
		return refusal
	}
	if r.covered() {
		a.mu.Unlock()
		return nil
	}
	return a.secure(ctx, r) // unlocks
}

func clamp(amounts Amounts) Amounts {
	for i := range amounts {
		amounts[i] = min(max(amounts[i], 0), most)
	}
	return amounts
}

func (l *Ledger) unavailable(ctx context.Context, p *Policy, err error) *Refusal {
	reason := Unavailable
	if ctx.Err() != nil {
		reason = Gone
	}
	return &Refusal{Reason: reason, Account: p.name, Cause: err}
}

// refine lets the request find a tighter worst case, without the lock, and
// tries again.
func (a *account) refine(ctx context.Context, shared, own *scope, req *Request, r *Reservation) *Refusal {
	r.refined = true
	shared.hold()
	own.hold()
	a.mu.Unlock()
	amounts, ok := r.ask(req.Size.Refine)
	if ok {
		r.Amounts = clamp(amounts)
	}
	now, err := a.ledger.fresh(ctx) // it may have taken long
	a.mu.Lock()
	shared.release()
	own.release()
	if err != nil {
		return a.ledger.unavailable(ctx, r.policy, err)
	}
	return a.try(now, shared, own, req, r)
}

// try reserves if everything fits, or says what is in the way.
func (a *account) try(now moment, shared, own *scope, req *Request, r *Reservation) *Refusal {
	if err := a.shut(now.mono); err != nil {
		return &Refusal{Reason: Unavailable, Account: a.name, Cause: err}
	}
	shared.bind(r.policy)
	own.bind(r.policy)
	// A limit makes a request smaller twice at the most: to what it allows at
	// all, and to what is left of it.
	for tries := 2 * len(r.policy.limits); ; tries-- {
		refusal, smaller := a.fit(now, shared, own, req, r, tries > 0)
		if smaller {
			continue
		}
		if refusal == nil {
			a.commit(now, r)
		}
		return refusal
	}
}

// shut says why nothing is admitted on the account at all, nil if something may.
func (a *account) shut(mono int64) error {
	switch {
	case a.gone:
		return ErrDeleted
	case !a.ledger.recent(mono):
		return errStale
	}
	return a.ledger.over()
}

// fit finds the counters that the request would be held against. It returns the
// weightiest of what is in the way, if anything is; or says that the request
// was made smaller, and everything is to be looked at again. As long as it isn't
// known how small the request can be, what its size is to blame for counts only
// where nothing else is in the way.
func (a *account) fit(now moment, shared, own *scope, req *Request, r *Reservation, mayLower bool) (worst *Refusal, smaller bool) {
	p := r.policy
	if r.n, r.sizeMatters = 0, false; r.holds == nil {
		r.holds = r.few[:0]
	}
	var sized *Refusal // by limits that a smaller request might pass
	for i := range p.limits {
		limit := &p.limits[i]
		if limit.Models != "" && !limit.Applies(req.Model) || req.Free && limit.Unit != Requests && limit.Unit != Concurrent {
			continue
		}
		sc := shared
		if limit.PerEntity {
			sc = own
		}
		c := sc.bound[i].at(now, limit, req.zone())
		amount := r.Amounts[limit.Unit]
		reason := judge(limit, c, amount, p.soft)
		if reason == None {
			r.holds = append(r.holds[:r.n], hold{counter: c, scope: sc, unit: limit.Unit, index: i, amount: amount, tick: c.tick(now)})
			r.n++
			continue
		}
		if mayLower && r.lower(limit, c, req, reason) {
			return nil, true
		}
		to := &worst
		if !r.refined && req.Size != nil && !p.soft && sizeMatters(limit, c, reason) {
			to = &sized
		}
		if *to == nil || reason > (*to).Reason {
			*to = a.refusal(now, limit, c, sc, amount, reason)
		}
	}
	if worst == nil {
		worst, r.sizeMatters = sized, sized != nil
	}
	return worst, false
}

func (r *Request) zone() *time.Location {
	if r.Zone == nil {
		return time.UTC
	}
	return r.Zone
}

// judge says what of this limit is in the way of so much more.
func judge(limit *Limit, c *counter, amount int64, soft bool) Reason {
	used := c.inUse()
	switch {
	case limit.Unit == Concurrent:
		used = c.reserved
		switch {
		case limit.Max == 0:
			return TooLarge
		case used >= limit.Max || !soft && amount > limit.Max-used:
			return Busy
		}
		return None
	case limit.Max == 0 && (amount > 0 || limit.Unit == USD):
		return TooLarge
	case amount == 0:
		return None
	case soft:
		if used < limit.Max {
			return None
		}
	case amount > limit.Max:
		return TooLarge
	case amount > limit.Max-used:
	case amount > limit.Max-used-c.reserved:
		// A request under way will count as one, but for few.
		if limit.Unit == Requests && limit.Window.Short() {
			return Rate
		}
		return Reserved
	default:
		return None
	}
	if limit.Window.Short() {
		return Rate
	}
	return Spent
}

// lower makes the request smaller if that lets it pass this limit.
func (r *Reservation) lower(limit *Limit, c *counter, req *Request, reason Reason) bool {
	if req.Size == nil || !r.refined || r.policy.soft || limit.Max == 0 || limit.Unit == Requests || limit.Unit == Concurrent {
		return false
	}
	to, whole := limit.Max, true
	switch reason {
	case TooLarge:
	case Spent:
		to, whole = limit.Max-c.inUse(), false
	default:
		return false
	}
	if to <= 0 {
		return false
	}
	amounts, ok := r.ask(func() (Amounts, bool) { return req.Size.Lower(limit.Unit, to, whole) })
	if !ok || amounts[limit.Unit] > to {
		return false
	}
	r.Amounts, r.Lowered = clamp(amounts), true
	return true
}

// ask asks a Size, of which a panic must not leave the account locked: it is the
// request's own code, and may be run for another request's sake.
func (r *Reservation) ask(size func() (Amounts, bool)) (amounts Amounts, ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
			r.ledger.warn("a request that doesn't fit its limits could not be made smaller", errPanicked)
		}
	}()
	return size()
}

// errPanicked withholds what a panic said, which may be a secret.
var errPanicked = errors.New("its size panicked")

// commit holds what was found to fit.
func (a *account) commit(now moment, r *Reservation) {
	r.open = true
	a.open++
	for i := range r.n {
		h := &r.holds[i]
		c := h.counter
		h.amount = min(h.amount, most-c.reserved)
		c.reserved += h.amount
		h.need = c.total()
		c.tide.reserve(h.amount, h.need, now.mono)
		h.scope.hold()
		h.scope.use(now.mono)
		h.scope.clean = false
		h.scope.version++
	}
	for i := range r.n {
		h := &r.holds[i]
		if c := h.counter; c.durable {
			// Raised before anybody has to wait for it.
			limit := r.policy.limits[h.index].Max
			room := c.headroom(limit)
			if h.need <= c.mark && c.mark-h.need < room/4 && c.target(limit, !r.policy.soft)-c.mark > room/2 {
				h.scope.kick()
			}
		}
	}
}

// covered says whether storage has what covers the reservation.
func (r *Reservation) covered() bool {
	for i := range r.n {
		if !r.holds[i].covered() {
			return false
		}
	}
	return true
}

func (h *hold) covered() bool { return !h.counter.durable || h.lacks() <= h.counter.mark }

// lacks is what the watermark has to reach: all that was used and reserved at
// admission, or now if that is less because others have ended.
func (h *hold) lacks() int64 { return min(h.need, h.counter.total()) }

// refusal reports a limit that is in the way.
func (a *account) refusal(now moment, limit *Limit, c *counter, sc *scope, amount int64, reason Reason) *Refusal {
	r := &Refusal{
		Reason: reason, Limit: *limit, Account: a.name, Entity: sc.entity,
		Amount: amount, Used: c.inUse(), Reserved: c.reserved,
	}
	if c.ring == nil {
		r.ResetsAt = endOf(c)
	}
	switch reason {
	case Busy, Reserved:
		r.RetryAfter = time.Second
	case Rate:
		if c.ring == nil {
			r.RetryAfter = time.Duration(c.end-now.unix) * time.Second
			break
		}
		excess := amount - (limit.Max - c.inUse() - c.reserved)
		r.RetryAfter = time.Duration(c.ring.freeIn(min(excess, c.ring.sum), now.mono))
	}
	return r
}

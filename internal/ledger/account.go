// SPDX-License-Identifier: MPL-2.0

package ledger

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"
)

// account is the limits of one virtual key in memory. Its lock guards all that
// hangs on it: scopes, counters, reservations and the queue. It is never held
// while storage is asked.
type account struct {
	ledger *Ledger
	id     string

	mu     sync.Mutex
	name   string
	shared *scope
	scopes map[string]*scope // by entity; "" is that of callers without one
	queue  []*waiter
	open   int  // reservations in flight
	gone   bool // no longer the account of its id
}

// scope is what is counted together: by all callers of an account, or by one
// entity. It is one entry in storage.
type scope struct {
	account *account
	entity  string
	own     bool     // an entity's
	dir     string   // where its entries are, this process's and those of older ones
	older   []string // entries that this process's will replace

	loaded  bool
	loading *round
	series  map[string]*series // by the limit's identity
	policy  *Policy            // that bound is for
	bound   []*series          // by the policy's limits; nil where another scope counts

	holders int    // requests that are at work with it: it stays in memory
	used    int64  // monotonic time of the latest use
	version uint64 // of what is counted
	clean   bool   // storage has exactly this version
	durable bool   // there is something to store

	writing  bool
	precise  bool          // the next write leaves no headroom
	began    uint64        // writes so far
	exactly  uint64        // the latest of them that left no headroom and succeeded
	failed   uint64        // the latest of them that failed, and why
	failure  error         //
	wake     chan struct{} // closed when a write has ended
	wroteAt  int64         // monotonic time of the end of the latest write
	inWrite  []*counter    // those of the write under way
	wholeNow bool          // the write under way is exact
	asOf     uint64        // the version of the write under way
}

// ErrDeleted is the Cause of a refusal for a virtual key that was deleted, perhaps
// after the request had found it. It compares with errors.Is.
var ErrDeleted = errors.New("the virtual key was deleted")

// load returns the scopes that the policy's limits count in for this entity,
// read from storage if they weren't in memory, and the time, which is now if
// they were. The account is locked before and after, but not meanwhile.
func (a *account) load(ctx context.Context, now moment, p *Policy, entity string) (shared, own *scope, _ moment, err error) {
	for {
		shared, own = a.find(p, entity)
		sc := shared
		if sc.loaded {
			sc = own
		}
		if sc == nil || sc.loaded {
			break
		}
		if err := sc.await(ctx); err != nil {
			return nil, nil, now, err
		}
		now = a.ledger.now()
	}
	shared.use(now.mono)
	own.use(now.mono)
	return shared, own, now, nil
}

// find returns the scopes that the policy's limits count in, new ones if they
// aren't in memory.
func (a *account) find(p *Policy, entity string) (shared, own *scope) {
	if a.shared == nil {
		a.shared = a.newScope("", false)
	}
	if p.perEntity {
		if own = a.scopes[entity]; own == nil {
			own = a.newScope(entity, true)
			a.scopes[entity] = own
		}
	}
	return a.shared, own
}

func (a *account) newScope(entity string, own bool) *scope {
	dir := a.ledger.accountPrefix(a.id) + sharedPrefix
	if own {
		dir = a.ledger.accountPrefix(a.id) + entityPrefix + entityKey(entity) + "/"
	}
	return &scope{account: a, entity: entity, own: own, dir: dir, clean: true, used: a.ledger.mono(), series: map[string]*series{}}
}

// use notes that the scope is used.
func (sc *scope) use(mono int64) {
	if sc != nil {
		sc.used = max(sc.used, mono)
	}
}

// hold keeps the scope in memory until release.
func (sc *scope) hold() {
	if sc != nil {
		sc.holders++
	}
}

func (sc *scope) release() {
	if sc != nil {
		sc.holders--
	}
}

// await waits until the scope is loaded, or is to be looked for again.
func (sc *scope) await(ctx context.Context) error {
	a := sc.account
	timeout, stop := a.ledger.clock.After(a.ledger.storageWait)
	defer stop()
	for !sc.loaded {
		if sc.loading == nil {
			r := &round{done: make(chan struct{})}
			sc.loading = r
			a.ledger.working.Go(func() { sc.read(r) })
		}
		r := sc.loading
		a.mu.Unlock()
		var err error
		select {
		case <-r.done:
			err = r.err
		case <-timeout:
			err = errSlow
		case <-ctx.Done():
			err = ctx.Err()
		}
		a.mu.Lock()
		switch {
		case errors.Is(err, errPruned):
			return nil // to be looked for again
		case err != nil:
			return err
		case a.gone:
			return ErrDeleted
		}
	}
	return nil
}

// bind finds the series of the policy's limits that count in this scope.
func (sc *scope) bind(p *Policy) {
	if sc == nil || sc.policy == p {
		return
	}
	sc.policy = p
	sc.bound = make([]*series, len(p.limits))
	for i := range p.limits {
		limit := &p.limits[i]
		if limit.PerEntity != sc.own {
			continue
		}
		s := sc.series[p.ids[i]]
		if s == nil {
			s = &series{durable: limit.Window.Durable(limit.Unit)}
			sc.series[p.ids[i]] = s
		}
		s.limit, s.hard = limit.Max, !p.soft
		sc.durable = sc.durable || s.durable
		sc.bound[i] = s
	}
}

// place is where the scope stands in what is kept for both.
func (sc *scope) place() int {
	if sc.own {
		return 1
	}
	return 0
}

// close lets those who wait know that the ledger is closing. When it returns,
// all that will ever be admitted is in flight.
func (a *account) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.serve()
}

func (a *account) inFlight() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.open
}

// each calls f for every scope.
func (a *account) each(f func(*scope)) {
	if a.shared != nil {
		f(a.shared)
	}
	for _, sc := range a.scopes {
		f(sc)
	}
}

// unwritten returns the scopes of which storage hasn't the exact figures.
func (a *account) unwritten() (list []*scope) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.each(func(sc *scope) {
		if sc.loaded && sc.durable && !sc.clean {
			list = append(list, sc)
		}
	})
	return list
}

func endOf(c *counter) time.Time {
	if c.end == math.MaxInt64 || c.ring != nil {
		return time.Time{}
	}
	return time.Unix(c.end, 0).UTC()
}

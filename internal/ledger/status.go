// SPDX-License-Identifier: MPL-2.0

package ledger

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Status is what stands on one limit now, in the limit's unit.
type Status struct {
	Limit Limit
	// Entity is whose count it is, for limits that count entities apart; empty
	// is that of callers without one.
	Entity string
	// Used is settled. Unconfirmed was charged at its worst case because the
	// outcome is unknown; Unattributed was under way, or kept free, when a
	// process crashed. Both are parts of it. Exceeded is what requests used above
	// what was reserved for them.
	Used, Unconfirmed, Unattributed, Exceeded int64
	// Reserved is held by requests under way, Remaining is what is left of the
	// limit without both, at least 0.
	Reserved, Remaining int64
	// StartedAt and ResetsAt bound the window; zero where it slides or is for ever.
	StartedAt, ResetsAt time.Time
	// Threshold is the highest percentage of the policy's that is crossed; 0 is
	// none.
	Threshold int
}

// Selection names counts of an account.
type Selection struct {
	// Limit is the identity of one limit (Limit.ID); empty for all.
	Limit string
	// PerEntity selects what is counted apart for Entity, which is empty for
	// callers without one; else what is counted for all callers together.
	PerEntity bool
	Entity    string
	// Zone is where calendar windows begin; nil means UTC.
	Zone *time.Location
}

// Status returns what stands on the selected limits of a policy.
func (l *Ledger) Status(ctx context.Context, p *Policy, by Selection) ([]Status, error) {
	var list []Status
	err := l.visit(ctx, p, by, func(_ *scope, i int, c *counter) {
		limit := p.limits[i]
		s := Status{
			Limit: limit, Entity: by.Entity, Used: c.inUse(), Unconfirmed: min(c.unconfirmed, c.inUse()),
			Unattributed: c.lost(), Exceeded: c.exceeded, Reserved: c.reserved, ResetsAt: endOf(c),
		}
		s.Remaining = max(limit.Max-s.Used-s.Reserved, 0)
		if !s.ResetsAt.IsZero() {
			s.StartedAt = time.Unix(c.start, 0).UTC()
		}
		if n := p.crossed(i, s.Used); n > 0 {
			s.Threshold = p.thresholds[n-1]
		}
		list = append(list, s)
	})
	return list, err
}

// lost is the part of what is in use that nobody's name is on.
func (c *counter) lost() int64 {
	if c.ring == nil {
		return min(c.unattributed, c.used)
	}
	b := c.ring.bucket(c.lostTick)
	if b == nil {
		return 0
	}
	return min(c.unattributed, *b)
}

// Reset makes the selected counts of the windows that are running zero. What is
// reserved stays, and is counted when it is settled.
func (l *Ledger) Reset(ctx context.Context, p *Policy, by Selection) error {
	return l.change(ctx, p, by, func(c *counter) {
		if c.ring != nil {
			c.ring.sum, c.ring.buckets = 0, [ringSize]int64{}
		} else {
			c.used = 0
		}
		c.unconfirmed, c.unattributed, c.exceeded = 0, 0, 0
	})
}

// WriteOff takes out of the selected counts what is unattributed after a crash,
// and, if asked to, what is unconfirmed.
func (l *Ledger) WriteOff(ctx context.Context, p *Policy, by Selection, unconfirmed bool) error {
	return l.change(ctx, p, by, func(c *counter) {
		c.forgive(c.lost(), c.lostTick)
		c.unattributed = 0
		if unconfirmed && c.ring == nil {
			c.forgive(min(c.unconfirmed, c.used), 0)
			c.unconfirmed = 0
		}
	})
}

// change changes the selected counts and writes them.
func (l *Ledger) change(ctx context.Context, p *Policy, by Selection, f func(*counter)) error {
	if _, err := l.fresh(ctx); err != nil {
		return err
	}
	var changed *scope
	err := l.visit(ctx, p, by, func(sc *scope, i int, c *counter) {
		changed = sc
		f(c)
		c.tide = tide{} // or the next watermark would be what was before
		c.alerted = p.crossed(i, c.inUse())
		sc.version++
		sc.clean = false
	})
	if err != nil || changed == nil {
		return err
	}
	changed.account.mu.Lock()
	changed.account.serve()
	changed.account.mu.Unlock()
	if err := changed.flush(ctx); err != nil {
		return fmt.Errorf("the change holds, but couldn't be written yet and a crash would undo it: %w", err)
	}
	return nil
}

// visit calls f for the running counter of each selected limit, with the
// account locked.
func (l *Ledger) visit(ctx context.Context, p *Policy, by Selection, f func(sc *scope, i int, c *counter)) error {
	if len(p.limits) == 0 {
		return nil
	}
	zone := by.Zone
	if zone == nil {
		zone = time.UTC
	}
	now := l.now()
	a := l.lock(p.account, p.name)
	if a == nil {
		return ErrDeleted
	}
	defer a.mu.Unlock()
	shared, own, now, err := a.load(ctx, now, p, by.Entity)
	if err != nil {
		return err
	}
	sc := shared
	if by.PerEntity {
		sc = own
	}
	sc.bind(p)
	for i := range p.limits {
		limit := &p.limits[i]
		if limit.PerEntity != by.PerEntity || by.Limit != "" && by.Limit != p.ids[i] {
			continue
		}
		f(sc, i, sc.bound[i].at(now, limit, zone))
	}
	return nil
}

// Entities returns the entities that an account counts apart: those that storage
// has, and those in memory, for not every count is stored; "" is that of callers
// without one.
func (l *Ledger) Entities(ctx context.Context, account string) ([]string, error) {
	list, err := l.storage.List(ctx, l.accountPrefix(account)+entityPrefix)
	if err != nil {
		return nil, fmt.Errorf("listing the entities of a virtual key: %w", err)
	}
	for i := range list {
		if list[i] = strings.TrimSuffix(list[i], "/"); list[i] == anonymous {
			list[i] = ""
		}
	}
	s := l.shardOf(account)
	s.mu.RLock()
	a := s.accounts[account]
	s.mu.RUnlock()
	if a != nil {
		a.mu.Lock()
		for entity, sc := range a.scopes {
			if sc.counts() { // and wasn't only asked for
				list = append(list, entity)
			}
		}
		a.mu.Unlock()
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}

// counts says whether anything was used, or is held, in the scope.
func (sc *scope) counts() bool {
	for _, s := range sc.series {
		for _, c := range s.counters {
			if c.total() > 0 {
				return true
			}
		}
	}
	return false
}

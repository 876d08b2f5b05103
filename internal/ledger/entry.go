// SPDX-License-Identifier: MPL-2.0

package ledger

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The storage keys, below the ledger's prefix.
const (
	accountsPrefix = "accounts/"
	droppedPrefix  = "dropped/"
	sharedPrefix   = "shared/"
	entityPrefix   = "entity/"
	anonymous      = "anonymous" // no entity's id, which are UUIDs
)

func (l *Ledger) accountPrefix(id string) string { return l.prefix + accountsPrefix + id + "/" }

func entityKey(entity string) string {
	if entity == "" {
		return anonymous
	}
	return entity
}

// entry is a scope as one process has stored it.
type entry struct {
	Name     string         `json:"name"`
	Counters []counterEntry `json:"counters,omitempty"`
}

// counterEntry is a counter as it is stored.
type counterEntry struct {
	Limit        string        `json:"limit"`
	Start        int64         `json:"start,omitempty"`
	End          int64         `json:"end,omitempty"`
	Used         int64         `json:"used,omitempty"`
	Mark         int64         `json:"mark,omitempty"`
	Unconfirmed  int64         `json:"unconfirmed,omitempty"`
	Unattributed int64         `json:"unattributed,omitempty"`
	Exceeded     int64         `json:"exceeded,omitempty"`
	Alerted      int           `json:"alerted,omitempty"`
	Sliding      int64         `json:"sliding,omitempty"` // the window in seconds, if it slides
	Buckets      []bucketEntry `json:"buckets,omitempty"`
}

// entryName is the last part of the keys of a process's entries.
func entryName(epoch uint64, owner string) string { return strconv.FormatUint(epoch, 10) + "-" + owner }

// newest returns which of the scope's entries are the newest, and all others.
// Two are only where two processes took the same epoch at the same time. One of
// a newer epoch ends this process's admission.
func (sc *scope) newest(ctx context.Context) (newest, others []string, err error) {
	l := sc.account.ledger
	names, err := l.storage.List(ctx, sc.dir)
	if err != nil {
		return nil, nil, fmt.Errorf("listing %s: %w", sc.dir, err)
	}
	if slices.Contains(names, l.own) { // the scope has been in memory before
		return []string{l.own}, nil, nil
	}
	var latest uint64
	for _, name := range names {
		number, _, _ := strings.Cut(name, "-")
		epoch, err := strconv.ParseUint(number, 10, 64)
		switch {
		case err != nil:
			return nil, nil, fmt.Errorf("the stored entry %s%s is damaged: its name is no epoch's", sc.dir, name)
		case epoch > l.epoch:
			return nil, nil, l.fence()
		case epoch > latest:
			latest, newest, others = epoch, nil, append(others, newest...)
		}
		if epoch == latest {
			newest = append(newest, name)
		} else {
			others = append(others, name)
		}
	}
	return newest, others, nil
}

// fetch reads the scope's newest entries. replaced are those that the entry of
// this process will replace.
func (sc *scope) fetch(ctx context.Context) (entries []*entry, replaced []string, err error) {
	l := sc.account.ledger
	newest, others, err := sc.newest(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range newest {
		key := sc.dir + name
		stored, err := l.storage.Get(ctx, key)
		switch {
		case err != nil:
			return nil, nil, fmt.Errorf("reading %s: %w", key, err)
		case stored == nil: // a newer process has deleted it since
			if err := l.verify(ctx); err != nil {
				return nil, nil, err
			}
			return nil, nil, fmt.Errorf("the stored entry %s has gone", key)
		}
		e, err := decodeEntry(stored.Value)
		if err != nil {
			return nil, nil, fmt.Errorf("the stored entry %s is damaged: %w", key, err)
		}
		entries = append(entries, e)
		if name != l.own {
			others = append(others, name)
		}
	}
	return entries, others, nil
}

// read loads the scope from storage.
func (sc *scope) read(r *round) {
	entries, older, err := sc.fetch(context.Background())
	a := sc.account
	a.mu.Lock()
	if err == nil {
		for _, e := range entries {
			sc.inherit(e)
		}
		sc.older = older
		sc.loaded = true
	}
	sc.use(a.ledger.mono())
	r.err = err
	sc.loading = nil
	a.mu.Unlock()
	close(r.done)
}

// inherit takes over what an entry says. All that its watermarks cover counts
// as used, since nobody knows what of it was.
func (sc *scope) inherit(e *entry) {
	now := sc.account.ledger.now()
	for i := range e.Counters {
		stored := &e.Counters[i]
		c, known := sc.counterOf(stored, now)
		if !known {
			c.used = stored.Used
		}
		if lost := stored.Mark - c.used; lost > 0 {
			c.lostTick = c.tick(now)
			c.add(lost, c.lostTick)
			c.unattributed = min(c.unattributed+lost, most)
			sc.version++
			sc.clean = false
		}
		c.mark = max(c.mark, stored.Mark)
	}
	sc.durable = true
}

// counterOf returns the counter of a stored one, made of it if there is none.
func (sc *scope) counterOf(stored *counterEntry, now moment) (c *counter, known bool) {
	s := sc.series[stored.Limit]
	if s == nil {
		s = &series{durable: true}
		sc.series[stored.Limit] = s
	}
	for _, c := range s.counters {
		if c.ring != nil || c.start == stored.Start {
			return c, true
		}
	}
	c = &counter{
		start: stored.Start, end: stored.End, durable: true, alerted: stored.Alerted,
		unconfirmed: stored.Unconfirmed, unattributed: stored.Unattributed, exceeded: stored.Exceeded,
	}
	if stored.Sliding > 0 {
		// The process before may use what it has for some time: all counts as
		// if it were used at the end of that.
		now.mono += stale
		c.ring = newRing(time.Duration(stored.Sliding)*time.Second, now.mono)
		c.ring.restore(stored.Buckets, now)
		c.unattributed = 0 // nobody knows in which bucket that is
	}
	s.counters = append(s.counters, c)
	slices.SortFunc(s.counters, func(x, y *counter) int {
		switch {
		case x.start < y.start:
			return -1
		case x.start > y.start:
			return 1
		}
		return 0
	})
	return c, false
}

// tick is the bucket of now, 0 without a ring.
func (c *counter) tick(now moment) int64 {
	if c.ring == nil {
		return 0
	}
	c.ring.advance(now.mono)
	return c.ring.tick
}

// snapshot sets the watermarks that the next write is to establish, and returns
// the entry to write.
func (sc *scope) snapshot(now moment) *entry {
	sc.inWrite = sc.inWrite[:0]
	sc.wholeNow, sc.asOf = true, sc.version
	e := &entry{Name: sc.account.name}
	for id, s := range sc.series {
		if s.prune(now); s.over() && sc.holders == 0 && !slices.Contains(sc.bound, s) {
			delete(sc.series, id) // of a limit that was removed
			continue
		}
		for _, c := range s.counters {
			if !c.durable {
				continue
			}
			c.aim(s, sc.precise, now.mono)
			sc.wholeNow = sc.wholeNow && c.attempt == c.used
			sc.inWrite = append(sc.inWrite, c)
			e.Counters = append(e.Counters, c.entry(id, now))
		}
	}
	slices.SortFunc(e.Counters, func(x, y counterEntry) int {
		if n := strings.Compare(x.Limit, y.Limit); n != 0 {
			return n
		}
		if x.Start < y.Start {
			return -1
		}
		return 1
	})
	return e
}

// aim sets the watermark that the next write is to establish. One that is lower
// than what is there holds at once: which of the two storage has is not known
// until the write has ended.
func (c *counter) aim(s *series, precise bool, mono int64) {
	c.tide.turn(mono)
	c.attempt = c.total()
	if !precise {
		c.attempt = max(c.target(s.limit, s.hard), c.floor)
	}
	c.want = 0 // all that waits is covered
	c.mark = min(c.mark, c.attempt)
}

func (c *counter) entry(id string, now moment) counterEntry {
	e := counterEntry{
		Limit: id, Start: c.start, End: c.end, Used: c.used, Mark: c.attempt,
		Unconfirmed: c.unconfirmed, Unattributed: c.unattributed, Exceeded: c.exceeded, Alerted: c.alerted,
	}
	if c.ring != nil {
		c.ring.advance(now.mono)
		e.Sliding, e.Buckets = int64(c.ring.window/time.Second), c.ring.entries(now)
	}
	return e
}

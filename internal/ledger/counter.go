// SPDX-License-Identifier: MPL-2.0

package ledger

import (
	"math"
	"slices"
	"time"
)

// most bounds every amount, so that no sum of two overflows.
const most = math.MaxInt64 / 4

// counter is what was used of one limit, in one scope and one window. It is
// guarded by its account's lock.
type counter struct {
	// start and end bound the window, in Unix seconds; a sliding window has the
	// ring instead, and for all time one counter.
	start, end int64
	ring       *ring

	// used is settled; with a ring it is all that ever was, and the ring has
	// what still counts. reserved is that of reservations that haven't ended.
	used, reserved int64
	// Parts of used: charged in full because the outcome is unknown; counted
	// after a crash without anybody's name on it; and what was used above its
	// reservation.
	unconfirmed, unattributed, exceeded int64
	lostTick                            int64 // the bucket of unattributed
	alerted                             int   // thresholds crossed and told

	// durable counters have a watermark. What is used and what is reserved for
	// requests that may be sent is never more than mark, which storage holds
	// whatever becomes of a write that is under way.
	durable bool
	mark    int64
	attempt int64 // of the write under way
	floor   int64 // the highest that a failed write attempted
	want    int64 // what somebody waits for

	tide tide
}

// inUse is what counts against the limit beside reservations.
func (c *counter) inUse() int64 {
	if c.ring != nil {
		return c.ring.sum
	}
	return c.used
}

// total is what the watermark has to cover.
func (c *counter) total() int64 { return c.used + c.reserved }

// add counts an amount as used, at the bucket of its admission.
func (c *counter) add(amount, tick int64) {
	c.used = min(c.used+amount, most)
	if c.ring != nil {
		c.ring.add(amount, tick)
	}
}

// forgive takes an amount that was counted at a bucket out again. What a ring
// ever counted stays, so that its watermark does too.
func (c *counter) forgive(amount, tick int64) {
	if c.ring != nil {
		c.ring.add(-amount, tick)
		return
	}
	c.used = max(c.used-amount, 0)
}

// tide is how a counter moves: what was settled in this second and the one
// before, the highest total in them, and the latest reservation.
type tide struct {
	second         int64
	spent, before  int64
	high, highPrev int64
	request        int64
}

// turn moves on to the second of mono.
func (t *tide) turn(mono int64) {
	second := mono / int64(time.Second)
	switch ahead := second - t.second; {
	case ahead <= 0:
		return
	case ahead == 1:
		t.before, t.highPrev = t.spent, t.high
	default:
		t.before, t.highPrev = 0, 0
	}
	t.second, t.spent, t.high = second, 0, 0
}

func (t *tide) reserve(amount, total, mono int64) {
	t.turn(mono)
	t.request = amount
	t.high = max(t.high, total)
}

func (t *tide) settle(amount, mono int64) {
	t.turn(mono)
	t.spent = min(t.spent+amount, most)
}

// headroom is how far the watermark stands above what it has to cover: what
// the last second spent and some, at least a request, and at most a 64th of
// the limit.
func (c *counter) headroom(limit int64) int64 {
	pace := max(c.tide.spent, c.tide.before)
	return min(max(pace+pace/4, c.tide.request), limit/64)
}

// target is where the watermark is to stand: above the highest total of late,
// since that is where the total will be again.
func (c *counter) target(limit int64, hard bool) int64 {
	to := max(c.total(), c.tide.high, c.tide.highPrev) + c.headroom(limit)
	if hard && c.ring == nil {
		to = min(to, max(limit, c.total()))
	}
	return min(max(to, c.total()), most)
}

// series are the counters of one limit in one scope.
type series struct {
	counters []*counter // oldest first
	current  *counter
	durable  bool
	limit    int64 // the limit's max, when last seen
	hard     bool
}

// at returns the counter of the window that now lies in, a new one if there is
// none.
func (s *series) at(now moment, limit *Limit, zone *time.Location) *counter {
	if c := s.current; c != nil && (c.ring != nil || now.unix >= c.start && now.unix < c.end) {
		if c.ring != nil {
			c.ring.advance(now.mono)
		}
		return c
	}
	s.current = s.find(now, limit, zone)
	return s.current
}

func (s *series) find(now moment, limit *Limit, zone *time.Location) *counter {
	switch {
	case limit.Window.Sliding():
		if len(s.counters) == 0 {
			s.counters = append(s.counters, &counter{ring: newRing(limit.Window.Width(), now.mono), durable: s.durable})
		}
		s.counters[0].ring.advance(now.mono)
		return s.counters[0]
	case limit.Window.Kind == Instant:
		if len(s.counters) == 0 {
			s.counters = append(s.counters, &counter{start: math.MinInt64, end: math.MaxInt64})
		}
		return s.counters[0]
	}
	i := s.before(now.unix)
	if i >= 0 && now.unix < s.counters[i].end {
		return s.counters[i]
	}
	s.prune(now)
	i = s.before(now.unix)
	start, end := s.span(i, now, limit, zone)
	c := &counter{start: start, end: end, durable: s.durable}
	s.counters = slices.Insert(s.counters, i+1, c)
	return c
}

// before returns the index of the last counter that starts at or before the
// time, -1 if there is none.
func (s *series) before(unix int64) int {
	for i := range slices.Backward(s.counters) {
		if s.counters[i].start <= unix {
			return i
		}
	}
	return -1
}

// span is the window that now lies in, between the counters i and i+1. Where a
// change of the time zone makes windows overlap, the one that has begun goes on
// to its end. What is then left of the next is a window of its own if it is the
// better part of one, and else belongs to the one after it.
func (s *series) span(i int, now moment, limit *Limit, zone *time.Location) (start, end int64) {
	start, end = limit.Window.Span(now.wall, zone, limit.Anchor)
	if i >= 0 && s.counters[i].end > start {
		nominal := end - start
		start = s.counters[i].end
		if end-start < nominal/2 {
			_, end = limit.Window.Span(time.Unix(end, 0), zone, limit.Anchor)
		}
	}
	if i+1 < len(s.counters) {
		end = min(end, s.counters[i+1].start)
	}
	return start, end
}

// kept says whether the counter would be missed if it left memory: what isn't
// in storage, and what slides, until it counts no more.
func (c *counter) kept(now moment, idle int64) bool {
	switch {
	case c.ring != nil:
		c.ring.advance(now.mono)
		return c.ring.sum > 0
	case c.durable || c.used == 0:
		return false
	}
	return now.unix < c.end || idle < (c.end-c.start)*int64(time.Second)
}

// over says whether nothing is left in the series.
func (s *series) over() bool {
	for _, c := range s.counters {
		if c.ring == nil || c.ring.sum > 0 || c.reserved > 0 {
			return false
		}
	}
	return true
}

// keepFor is how long a counter stays after its window has ended, for a clock
// that steps back.
const keepFor = int64(48 * time.Hour / time.Second)

// prune drops the counters of windows that ended long ago.
func (s *series) prune(now moment) {
	s.counters = slices.DeleteFunc(s.counters, func(c *counter) bool {
		old := c.ring == nil && c.reserved == 0 && c.end < math.MaxInt64-keepFor && c.end+keepFor < now.unix
		if old && c == s.current {
			s.current = nil
		}
		return old
	})
}

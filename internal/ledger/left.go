// SPDX-License-Identifier: MPL-2.0

package ledger

import (
	"slices"
	"time"
)

// Left is what is left of a limit, this request and those under way taken off.
type Left struct {
	Limit Limit
	// Amount is in the limit's unit, at least 0.
	Amount int64
	// Resets is how long it takes until nothing of now counts any more: to the
	// window's end, or the length of one that slides; 0 where there is no end.
	Resets time.Duration
}

// Tightest returns, of the limits on units that the reservation is held against,
// the one of which the smallest part is left. ok is false if there is none, or if
// the reservation has ended.
func (r *Reservation) Tightest(units ...Unit) (tightest Left, ok bool) {
	if !r.open {
		return tightest, false
	}
	wall, _ := r.ledger.clock.Read()
	a := r.account
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range r.n {
		h := &r.holds[i]
		limit := &r.policy.limits[h.index]
		if limit.Max <= 0 || !slices.Contains(units, limit.Unit) {
			continue
		}
		left := max(limit.Max-h.counter.inUse()-h.counter.reserved, 0)
		// As parts of their limits, without a division: left/max < tightest.
		if ok && float64(left)*float64(tightest.Limit.Max) >= float64(tightest.Amount)*float64(limit.Max) {
			continue
		}
		tightest, ok = Left{Limit: *limit, Amount: left, Resets: resets(limit, h.counter, wall)}, true
	}
	return tightest, ok
}

func resets(limit *Limit, c *counter, wall time.Time) time.Duration {
	switch limit.Window.Kind {
	case Minute:
		return time.Minute
	case Hour:
		return time.Hour
	}
	end := endOf(c)
	if end.IsZero() {
		return 0
	}
	return max(end.Sub(wall), 0)
}

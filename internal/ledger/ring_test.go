// SPDX-License-Identifier: MPL-2.0

package ledger

import (
	"testing"
	"time"
)

// A full bucket more, or one a bit wider, and this fails.
func TestRing_CountsAllOfItsWindowAndLittleMore(t *testing.T) {
	rng := seededRand(t)
	for _, window := range []time.Duration{time.Minute, time.Hour} {
		r := newRing(window, monoBase)
		type use struct{ mono, amount int64 }
		var uses []use
		mono := monoBase
		for range 20_000 {
			mono += rng.Int64N(int64(window) / 100)
			r.advance(mono)
			amount := rng.Int64N(100)
			r.add(amount, mono/r.width)
			uses = append(uses, use{mono, amount})
			least, most := int64(0), int64(0)
			for i := len(uses) - 1; i >= 0 && uses[i].mono > mono-2*int64(window); i-- {
				if uses[i].mono > mono-int64(window) {
					least += uses[i].amount
				}
				if uses[i].mono > mono-int64(window)-2*r.width {
					most += uses[i].amount
				}
			}
			if r.sum < least || r.sum > most {
				t.Fatalf("%s: %d counted, want %d to %d", window, r.sum, least, most)
			}
		}
	}
}

// The moment before a use leaves its window, and the bucket after.
func TestRing_HoldsAUseToTheEndOfItsWindow(t *testing.T) {
	for _, window := range []time.Duration{time.Minute, time.Hour} {
		for _, offset := range []int64{0, 1, 500_000_000, 1_016_949_152, 61_000_000_000} {
			start := monoBase + offset
			r := newRing(window, start)
			r.add(7, start/r.width)
			if r.advance(start + int64(window) - 1); r.sum != 7 {
				t.Errorf("%s from %d: forgotten too early", window, offset)
			}
			if r.freeIn(7, start) < int64(window) || r.freeIn(7, start) > int64(window)+2*r.width {
				t.Errorf("%s from %d: free in %d", window, offset, r.freeIn(7, start))
			}
			if r.advance(start + r.freeIn(7, start)); r.sum != 0 {
				t.Errorf("%s from %d: kept too long", window, offset)
			}
		}
	}
}

func TestRing_StoredBucketsComeBackWhereTheyWere(t *testing.T) {
	for _, window := range []time.Duration{time.Minute, time.Hour} {
		rng := seededRand(t)
		now := moment{wall: noon, unix: noon.Unix(), mono: monoBase + int64(3*time.Hour)}
		r := newRing(window, now.mono-int64(window))
		for range 40 {
			now.mono += int64(window) / 40
			now.wall = now.wall.Add(window / 40)
			r.advance(now.mono)
			r.add(1+rng.Int64N(9), now.mono/r.width)
		}
		list := r.entries(now)
		// Another process, whose monotonic clock is elsewhere, some time later.
		for _, later := range []time.Duration{0, window / 7, window / 2, window - 1, window, 2 * window, -window / 2} {
			other := newRing(window, monoBase)
			then := moment{wall: now.wall.Add(later), mono: monoBase + int64(later)}
			other.restore(list, then)
			was := *r
			was.advance(now.mono + max(int64(later), 0))
			if other.sum < was.sum {
				t.Errorf("%s, %s later: %d, want at least %d", window, later, other.sum, was.sum)
			}
			if other.advance(then.mono + int64(window)*2); other.sum != 0 {
				t.Errorf("%s, %s later: %d stay", window, later, other.sum)
			}
		}
	}
}

func TestRing_AmountsDontOverflow(t *testing.T) {
	r := newRing(time.Minute, monoBase)
	for range 100 {
		r.add(most, r.tick)
		r.add(-5, r.tick)
	}
	if r.sum < most-5 || r.sum > most {
		t.Errorf("%d", r.sum)
	}
}

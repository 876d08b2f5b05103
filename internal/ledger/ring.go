// SPDX-License-Identifier: MPL-2.0

package ledger

import "time"

// ringSize is the number of buckets of a sliding window.
const ringSize = 60

// ring is what was used in a sliding window. A bucket is a 59th of the window
// long, so that the full ones cover all of it: never is more than the limit
// used within any stretch of time as long as the window.
type ring struct {
	window  time.Duration
	width   int64 // of a bucket, in nanoseconds
	tick    int64 // of the latest bucket
	sum     int64
	buckets [ringSize]int64
}

func newRing(window time.Duration, mono int64) *ring {
	r := &ring{window: window, width: (int64(window) + ringSize - 2) / (ringSize - 1)}
	r.tick = mono / r.width
	return r
}

// advance forgets what has left the window.
func (r *ring) advance(mono int64) {
	tick := mono / r.width
	if tick-r.tick >= ringSize {
		r.tick, r.sum, r.buckets = tick, 0, [ringSize]int64{}
		return
	}
	for r.tick < tick {
		r.tick++
		b := &r.buckets[r.tick%ringSize]
		r.sum -= *b
		*b = 0
	}
}

// bucket returns the bucket of a tick, nil if it has left the window.
func (r *ring) bucket(tick int64) *int64 {
	if tick > r.tick {
		tick = r.tick
	}
	if tick <= r.tick-ringSize || tick < 0 {
		return nil
	}
	return &r.buckets[tick%ringSize]
}

// add counts an amount, which may be negative, at a tick.
func (r *ring) add(amount, tick int64) {
	if b := r.bucket(tick); b != nil {
		amount = min(max(amount, -*b), most-r.sum)
		*b += amount
		r.sum += amount
	}
}

// freeIn returns how long it takes until so much of what is used has left the
// window, in nanoseconds from mono.
func (r *ring) freeIn(amount, mono int64) int64 {
	for tick := r.tick - ringSize + 1; tick <= r.tick; tick++ {
		if tick < 0 {
			continue
		}
		if amount -= r.buckets[tick%ringSize]; amount <= 0 {
			return (tick+ringSize)*r.width - mono
		}
	}
	return ringSize * r.width
}

// bucketEntry is a bucket as it is stored: when it ends on the wall clock, in
// Unix milliseconds, and what was used in it.
type bucketEntry [2]int64

// entries returns the buckets that aren't empty, oldest first.
func (r *ring) entries(now moment) []bucketEntry {
	var list []bucketEntry
	for tick := r.tick - ringSize + 1; tick <= r.tick; tick++ {
		if tick < 0 || r.buckets[tick%ringSize] == 0 {
			continue
		}
		ends := now.wall.Add(time.Duration(min((tick+1)*r.width, now.mono) - now.mono))
		list = append(list, bucketEntry{ends.UnixMilli() + 1, r.buckets[tick%ringSize]})
	}
	return list
}

// restore puts stored buckets back where they were. A bucket of the future,
// which a clock that was set back makes, counts from now on.
func (r *ring) restore(list []bucketEntry, now moment) {
	r.advance(now.mono)
	for _, b := range list {
		age := now.wall.Sub(time.UnixMilli(b[0]))
		if age > ringSize*time.Duration(r.width) {
			continue
		}
		r.add(b[1], (now.mono-max(int64(age), 0))/r.width)
	}
}

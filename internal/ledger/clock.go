// SPDX-License-Identifier: MPL-2.0

package ledger

import "time"

// Clock is where the ledger takes time from. It is safe for concurrent use.
type Clock interface {
	// Read returns the wall clock, which may jump, and the time since some
	// moment before the ledger was opened, which never goes back.
	Read() (wall time.Time, mono time.Duration)
	// Mono returns the second of Read alone, which costs less.
	Mono() time.Duration
	// After returns a channel that receives once d has passed, and what
	// releases it before.
	After(d time.Duration) (c <-chan time.Time, stop func() bool)
}

// SystemClock returns the machine's clock.
func SystemClock() Clock { return systemClock{time.Now()} }

type systemClock struct{ base time.Time }

func (c systemClock) Read() (time.Time, time.Duration) {
	now := time.Now()
	return now, now.Sub(c.base)
}

func (c systemClock) Mono() time.Duration { return time.Since(c.base) }

func (c systemClock) After(d time.Duration) (<-chan time.Time, func() bool) {
	t := time.NewTimer(d)
	return t.C, t.Stop
}

// moment is one reading of the clock.
type moment struct {
	wall time.Time
	unix int64 // wall, in seconds
	mono int64 // in nanoseconds, monoBase ahead of the clock's
}

// monoBase keeps the monotonic time of buckets that are older than the process
// above zero: no sliding window is longer.
const monoBase = int64(2 * time.Hour)

func (l *Ledger) now() moment {
	wall, mono := l.clock.Read()
	return moment{wall, wall.Unix(), int64(mono) + monoBase}
}

// mono is that of now.
func (l *Ledger) mono() int64 { return int64(l.clock.Mono()) + monoBase }

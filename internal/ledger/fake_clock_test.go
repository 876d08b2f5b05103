// SPDX-License-Identifier: MPL-2.0

package ledger

import (
	"slices"
	"sync"
	"time"
)

// fakeClock is a Clock that moves only when it is told to.
type fakeClock struct {
	mu     sync.Mutex
	wall   time.Time
	mono   time.Duration
	timers []*fakeTimer
}

type fakeTimer struct {
	at time.Duration
	c  chan time.Time
}

var _ Clock = (*fakeClock)(nil)

func newFakeClock(wall time.Time) *fakeClock { return &fakeClock{wall: wall} }

func (c *fakeClock) Read() (time.Time, time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wall, c.mono
}

func (c *fakeClock) Mono() time.Duration {
	_, mono := c.Read()
	return mono
}

func (c *fakeClock) After(d time.Duration) (<-chan time.Time, func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &fakeTimer{at: c.mono + d, c: make(chan time.Time, 1)}
	c.timers = append(c.timers, t)
	return t.c, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		i := slices.Index(c.timers, t)
		if i >= 0 {
			c.timers = slices.Delete(c.timers, i, i+1)
		}
		return i >= 0
	}
}

// advance lets time pass.
func (c *fakeClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall, c.mono = c.wall.Add(d), c.mono+d
	c.timers = slices.DeleteFunc(c.timers, func(t *fakeTimer) bool {
		if t.at > c.mono {
			return false
		}
		t.c <- c.wall
		return true
	})
}

// set sets the wall clock alone, as somebody with a screwdriver does.
func (c *fakeClock) set(wall time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall = wall
}

func (c *fakeClock) now() time.Time {
	wall, _ := c.Read()
	return wall
}

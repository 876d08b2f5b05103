// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"os"
	"runtime/debug"
	memstats "runtime/metrics"
)

// The collector lets memory grow by a part of what is in use before it collects, in
// percent, as GOGC. Usually little is in use, and many requests a second would have
// it collect all the time: then it may grow by allowance, in bytes. While many streams
// are open, most of what is in use is theirs, and little changes: then it collects
// sooner, and while very many are, much sooner.
const (
	mostGrowth, usualGrowth, leastGrowth = 400, 100, 20
	allowance                            = 64 << 20
)

// crowds are the numbers of open streams from which on, and down to which, streams
// are many, and very many.
var crowds = []struct{ from, downTo int64 }{{200, 100}, {1000, 500}}

// collector chooses how far memory may grow. The process is this mount's alone.
type collector struct {
	fixed bool // by the operator
	now   int
	crowd int           // how many of crowds the open streams are
	live  func() uint64 // bytes that were in use when it last collected
	set   func(percent int) int
}

func newCollector() *collector {
	_, fixed := os.LookupEnv("GOGC")
	sample := []memstats.Sample{{Name: "/gc/heap/live:bytes"}}
	return &collector{fixed: fixed, now: usualGrowth, set: debug.SetGCPercent, live: func() uint64 {
		memstats.Read(sample)
		return sample[0].Value.Uint64()
	}}
}

// adapt is told how many streams are open, every second or so.
func (c *collector) adapt(streams int64) {
	if c.fixed {
		return
	}
	for c.crowd < len(crowds) && streams >= crowds[c.crowd].from {
		c.crowd++
	}
	for c.crowd > 0 && streams < crowds[c.crowd-1].downTo {
		c.crowd--
	}
	next := leastGrowth
	switch c.crowd {
	case 0:
		next = int(min(max(100*allowance/max(c.live(), 1), usualGrowth), mostGrowth)) / 50 * 50 // a change stops everything for a moment
	case 1:
		next = usualGrowth
	}
	if next != c.now {
		c.now = next
		c.set(next)
	}
}

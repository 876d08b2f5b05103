// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"os"
	"runtime/debug"
)

// The collector lets memory grow to a multiple of what is in use before it collects.
// While very many streams are open, most of what is in use is theirs, and little
// changes: then it collects sooner. In percent of what is in use, as GOGC.
const (
	usualGrowth, streamsGrowth = 100, 20
	manyStreams, fewerStreams  = 1000, 500
)

// collector chooses how far memory may grow. The process is this mount's alone.
type collector struct {
	fixed bool // by the operator
	now   int
	set   func(percent int) int
}

func newCollector() *collector {
	_, fixed := os.LookupEnv("GOGC")
	return &collector{fixed: fixed, now: usualGrowth, set: debug.SetGCPercent}
}

// adapt is told how many streams are open, every second or so.
func (c *collector) adapt(streams int64) {
	next := c.now
	switch {
	case streams >= manyStreams:
		next = streamsGrowth
	case streams < fewerStreams:
		next = usualGrowth
	}
	if next != c.now && !c.fixed {
		c.now = next
		c.set(next)
	}
}

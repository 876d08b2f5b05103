// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"runtime"
	"slices"
	"testing"
)

func collectorWith(live uint64) (*collector, *[]int) {
	var got []int
	return &collector{
		now:  usualGrowth,
		live: func() uint64 { return live },
		set:  func(percent int) int { got = append(got, percent); return 0 },
	}, &got
}

func TestCollector_CollectsSoonerTheMoreStreamsAreOpen(t *testing.T) {
	c, got := collectorWith(16 << 20)
	for _, streams := range []int64{0, 199, 200, 999, 1000, 5000, 999, 500, 499, 100, 99, 0, 1000, 0} {
		c.adapt(streams)
	}
	if want := []int{400, 100, 20, 100, 400, 20, 400}; !slices.Equal(*got, want) {
		t.Errorf("set to %v, want %v", *got, want)
	}
}

func TestCollector_LetsALittleMemoryGrowByItsAllowance(t *testing.T) {
	for live, want := range map[uint64]int{0: 400, 1 << 20: 400, 20 << 20: 300, 25 << 20: 250, 64 << 20: 100, 1 << 30: 100} {
		c, _ := collectorWith(live)
		c.adapt(0)
		if c.now != want {
			t.Errorf("with %d MiB in use: %d percent, want %d", live>>20, c.now, want)
		}
		if grown := live * uint64(c.now) / 100; live < allowance && grown > allowance {
			t.Errorf("with %d MiB in use it may grow by %d MiB", live>>20, grown>>20)
		}
	}
}

func TestCollector_AsksTheRuntimeWhatIsInUse(t *testing.T) {
	runtime.GC()
	if live := newCollector().live(); live == 0 || live > 1<<40 {
		t.Errorf("%d bytes are in use", live)
	}
}

func TestCollector_LeavesWhatTheOperatorChose(t *testing.T) {
	t.Setenv("GOGC", "200")
	c := newCollector()
	c.set = func(int) int { t.Error("it was changed"); return 0 }
	c.adapt(5000)
}

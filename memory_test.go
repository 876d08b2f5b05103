// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"slices"
	"testing"
)

func TestCollector_CollectsSoonerWhileVeryManyStreamsAreOpen(t *testing.T) {
	var got []int
	c := &collector{now: usualGrowth, set: func(percent int) int { got = append(got, percent); return 0 }}
	for _, streams := range []int64{0, 999, 1000, 5000, 999, 500, 499, 0, 1000} {
		c.adapt(streams)
	}
	if want := []int{streamsGrowth, usualGrowth, streamsGrowth}; !slices.Equal(got, want) {
		t.Errorf("set to %v, want %v", got, want)
	}
}

func TestCollector_LeavesWhatTheOperatorChose(t *testing.T) {
	t.Setenv("GOGC", "200")
	c := newCollector()
	c.set = func(int) int { t.Error("it was changed"); return 0 }
	c.adapt(5000)
}

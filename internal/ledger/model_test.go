// SPDX-License-Identifier: MPL-2.0

package ledger

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

// What the property test does is in three files: this one has the histories,
// model_driver_test.go what happens in them, and model_truth_test.go what has
// to hold.

// defaultHistories is how many histories there are unless LEDGER_HISTORIES says
// otherwise: what takes some seconds with the race detector.
const defaultHistories = 300

// TestModel_RandomHistories drives random histories of reservations, crashes,
// storage failures, clock jumps and edits against a reference that knows what
// was truly used. LEDGER_SEED repeats the histories from that seed on.
func TestModel_RandomHistories(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv("LEDGER_HISTORIES"))
	if err != nil {
		n = defaultHistories
	}
	seed, err := strconv.ParseUint(os.Getenv("LEDGER_SEED"), 10, 64)
	switch {
	case err == nil:
	case n == defaultHistories:
		seed = 1 // the same every time; a long run looks for others
	default:
		seed = uint64(time.Now().UnixMilli())
	}
	t.Logf("LEDGER_SEED=%d LEDGER_HISTORIES=%d", seed, n)
	var sum tally
	for i := range uint64(n) {
		if !runHistory(t, seed+i, &sum) {
			t.Fatalf("repeat with LEDGER_SEED=%d LEDGER_HISTORIES=1", seed+i)
		}
	}
	t.Logf("%+v", sum)
	if n >= defaultHistories {
		sum.check(t)
	}
	if n >= 10*defaultHistories && sum.Late == 0 {
		t.Error("no history had any late writes")
	}
}

func runHistory(t *testing.T, seed uint64, sum *tally) bool {
	return t.Run("", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			newHistory(t, rand.New(rand.NewPCG(seed, 1)), sum).run()
		})
	})
}

// tally is how often things happened, so that a test that tests nothing is seen.
type tally struct {
	Admitted, Settled, Exceeded, Waited, Lowered, Cancelled             int
	Reserved, Busy, Rate, Spent, TooLarge, Unavailable, Gone            int
	Crashes, Takeovers, Closes, Fenced, Late, Jumps, Edits, Zones       int
	Resets, WriteOffs, Hung, Evicted, Recovered, Overcounted, ZombieUse int
}

func (sum *tally) check(t *testing.T) {
	for name, n := range map[string]int{
		"admitted": sum.Admitted, "settled": sum.Settled, "exceeded": sum.Exceeded, "waited": sum.Waited, "lowered": sum.Lowered,
		"cancelled": sum.Cancelled, "reserved": sum.Reserved, "busy": sum.Busy, "rate": sum.Rate, "spent": sum.Spent,
		"too large": sum.TooLarge, "unavailable": sum.Unavailable, "gone": sum.Gone, "crashes": sum.Crashes, "takeovers": sum.Takeovers,
		"closes": sum.Closes, "fenced": sum.Fenced, "jumps": sum.Jumps, "edits": sum.Edits, "zones": sum.Zones,
		"resets": sum.Resets, "write-offs": sum.WriteOffs, "hung": sum.Hung, "evicted": sum.Evicted, "recovered": sum.Recovered,
		"overcounted": sum.Overcounted, "zombie use": sum.ZombieUse,
	} {
		if n == 0 {
			t.Errorf("no history had any %s", name)
		}
	}
}

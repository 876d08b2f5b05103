// SPDX-License-Identifier: MPL-2.0

package upstream

import (
	crand "crypto/rand"
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"time"
)

// dice are the random numbers of up-random.
type dice struct {
	mu     sync.Mutex
	random *rand.Rand
}

// newDice returns dice with that seed, or with one that nobody knows if it is 0.
func newDice(seed int64) *dice {
	s := [2]uint64{uint64(seed)}
	if seed == 0 {
		var b [16]byte
		_, _ = crand.Read(b[:]) // it never fails: crypto/rand says so
		s = [2]uint64{binary.LittleEndian.Uint64(b[:8]), binary.LittleEndian.Uint64(b[8:])}
	}
	return &dice{random: rand.New(rand.NewPCG(s[0], s[1]))}
}

// between returns a number from low to high, both included.
func (d *dice) between(low, high int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return low + d.random.IntN(high-low+1)
}

// upTo returns a duration from 0 to limit.
func (d *dice) upTo(limit time.Duration) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return time.Duration(d.random.Int64N(int64(limit) + 1))
}

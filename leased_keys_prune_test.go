// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

func TestLeasedKeys_PruneDeletesWhatExpiredLongAgo(t *testing.T) {
	at := newClock()
	storage := &faultyStorage{Storage: &logical.InmemStorage{}}
	m := newMountOn(t, Options{Now: at.now}, storage)
	_, hashes := newLeasedStore(t, &logical.InmemStorage{}, 4)
	for i, age := range []time.Duration{-time.Hour, time.Hour, 48*time.Hour - time.Second, 48 * time.Hour} {
		storeLeased(t, m.leased, storage, hashes[i], at.now().Add(-age))
	}
	for i := range 9 {
		damaged := &logical.StorageEntry{Key: fmt.Sprint(leasedPrefix, "0", i), Value: []byte("{")}
		if err := storage.Put(t.Context(), damaged); err != nil {
			t.Fatal(err)
		}
	}
	m.pruneLeasedKeys(t.Context(), storage)
	all := entries(t, storage)
	for i, hash := range hashes {
		if _, stored := all[leasedPrefix+hash]; stored != (i < 3) {
			t.Errorf("key %d is stored: %v", i, stored)
		}
	}
	if log := m.log.String(); !strings.Contains(log, "local/creds/00 is damaged") {
		t.Errorf("nobody was told of the damaged entry: %s", log)
	}
	at.advance(time.Hour)
	storage.failLists(errFault)
	m.pruneLeasedKeys(t.Context(), storage)
	storage.disarm()
	storage.arm(1, false)
	m.pruneLeasedKeys(t.Context(), storage)
	if !storage.disarm() {
		t.Error("nothing was deleted")
	}
	m.pruneLeasedKeys(t.Context(), storage)
	if left := entries(t, storage); left[leasedPrefix+hashes[2]] != "" || left[leasedPrefix+hashes[1]] == "" {
		t.Errorf("after failures that are over: %v", left)
	}
}

func TestLeasedKeys_PruneIsBoundedAndGoesOnWhereItStopped(t *testing.T) {
	l, _ := newLeasedStore(t, &logical.InmemStorage{}, 0)
	hashes := make([]string, 2*leasedPruneReads+5)
	for i := range hashes {
		hashes[i] = fmt.Sprintf("%06d", i)
	}
	var seen []string
	for _, want := range []int{leasedPruneReads, leasedPruneReads, 5, leasedPruneReads} {
		turn := l.turn(hashes)
		if len(turn) != want {
			t.Errorf("the turn is of %d, want %d", len(turn), want)
		}
		seen = append(seen, turn...)
	}
	if strings.Join(seen[:len(hashes)], " ") != strings.Join(hashes, " ") || seen[len(hashes)] != hashes[0] {
		t.Error("the turns leave some out")
	}
	l.pruned = hashes[9]
	if turn := l.turn(hashes[20:30]); len(turn) != 10 || turn[0] != hashes[20] {
		t.Errorf("after the last one was deleted the turn is %v", turn)
	}
	storage := &faultyStorage{Storage: &logical.InmemStorage{}}
	l, _ = newLeasedStore(t, storage, 2*leasedPruneFaults)
	storage.failReads(errFault)
	if err := l.prune(t.Context(), storage, time.Now()); err == nil || strings.Count(err.Error(), errFault.Error()) != leasedPruneFaults {
		t.Errorf("storage is asked on: %v", err)
	}
}

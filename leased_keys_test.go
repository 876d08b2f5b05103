// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"encoding/base64"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// newLeasedStore returns leased keys apart from any mount, and n of them in
// storage, which are valid until 2100. Their names are the keys.
func newLeasedStore(t *testing.T, storage logical.Storage, n int) (l *leasedKeys, hashes []string) {
	t.Helper()
	l, err := newLeasedKeys()
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		_, hash, err := l.generate()
		if err != nil {
			t.Fatal(err)
		}
		storeLeased(t, l, storage, hash, time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC))
		hashes = append(hashes, hash)
	}
	return l, hashes
}

func storeLeased(t *testing.T, l *leasedKeys, storage logical.Storage, hash string, expires time.Time) {
	t.Helper()
	k := &leasedKey{Hash: hash, Role: "r", RoleID: "id", IssuedAt: expires.Add(-time.Hour), Expires: expires}
	if err := l.entries.put(t.Context(), storage, hash, k); err != nil {
		t.Fatal(err)
	}
}

// found says whether the key is valid, of a storage that works.
func (l *leasedKeys) found(t *testing.T, storage logical.Storage, hash string) bool {
	t.Helper()
	k, err := l.find(t.Context(), storage, hash)
	if err != nil {
		t.Error(err)
	}
	if k != nil && k.Hash != hash {
		t.Errorf("looked up %s, found %s", hash, k.Hash)
	}
	return k != nil
}

func TestLeasedKey_WhatIsNoLeasedKeyAsksNoStorage(t *testing.T) {
	storage := &faultyStorage{Storage: &logical.InmemStorage{}}
	m := newMountOn(t, Options{}, storage)
	good := leasedMark + strings.Repeat("A", 43)
	storage.failReads(errFault)
	defer storage.disarm()
	if _, err := m.leasedKey(t.Context(), storage, good); !errors.Is(err, errFault) {
		t.Errorf("%s: %v, want storage's error", good, err)
	}
	for _, bad := range []string{
		"", "vk-", "hvs.CAESI", good[:45], good + "A", "VK-" + good[3:], "sk-" + good[3:], " " + good[:45], good[3:],
		good[:45] + "=", good[:45] + "+", good[:45] + "/", good[:20] + "\n" + good[21:], good[:20] + "\r" + good[21:], good[:44] + "\r\n",
		good[:44] + "\n\n", good[:45] + "\x00", good[:44] + "é", "vk-../" + good[6:],
		good[:45] + "B", // bits that 32 bytes don't have
		strings.Repeat(good, 1000),
	} {
		if k, err := m.leasedKey(t.Context(), storage, bad); k != nil || err != nil {
			t.Errorf("%.60q: %v %v, want nothing", bad, k, err)
		}
	}
}

func TestLeasedKeys_AHitAsksNoStorageAndGuessesFillNoMemory(t *testing.T) {
	storage := &faultyStorage{Storage: &logical.InmemStorage{}}
	l, hashes := newLeasedStore(t, storage, 3)
	for _, hash := range hashes {
		if !l.found(t, storage, hash) {
			t.Fatal("not found")
		}
	}
	for range 100 {
		if _, guess, _ := l.generate(); l.found(t, storage, guess) {
			t.Fatal("a guess is valid")
		}
	}
	if n := l.entries.cache.Len(); n != len(hashes) || len(l.reading) != 0 || len(l.revoked) != 0 {
		t.Errorf("%d keys are in memory, %d are being read, %d revoked; want %d, 0, 0", n, len(l.reading), len(l.revoked), len(hashes))
	}
	storage.failReads(errFault)
	for _, hash := range hashes {
		if !l.found(t, storage, hash) {
			t.Error("one that was used isn't in memory")
		}
	}
	l.entries.invalidate(leasedPrefix + hashes[0])
	if _, err := l.find(t.Context(), storage, hashes[0]); !errors.Is(err, errFault) {
		t.Errorf("after an invalidation: %v, want storage's error", err)
	}
}

// The lookup has storage's answer when the revocation begins, and returns after
// the end of it.
func TestLeasedKeys_ALookupThatRacesWithARevocationFindsNothing(t *testing.T) {
	for name, fails := range map[string]bool{"storage deletes": false, "storage fails": true} {
		t.Run(name, func(t *testing.T) {
			faulty := &faultyStorage{Storage: &logical.InmemStorage{}}
			l, hashes := newLeasedStore(t, faulty, 1)
			storage := &pausedStorage{Storage: faulty}
			answered, resume := storage.pause()
			found := make(chan bool)
			go func() { found <- l.found(t, storage, hashes[0]) }()
			<-answered
			if fails {
				faulty.arm(1, false)
			}
			if err := l.revoke(t.Context(), storage, hashes[0]); (err != nil) != fails {
				t.Errorf("revocation: %v", err)
			}
			close(resume)
			if <-found {
				t.Error("the lookup returned a revoked key")
			}
			if l.found(t, storage, hashes[0]) || l.entries.cache.Len() != 0 {
				t.Error("the revoked key is back")
			}
			if len(l.reading) != 0 || len(l.revoked) != len(entries(t, faulty)) {
				t.Errorf("left: %v %v", l.reading, l.revoked)
			}
		})
	}
}

func TestLeasedKeys_ALookupThatRacesWithAChangeLeavesNothingOldInMemory(t *testing.T) {
	storage := &pausedStorage{Storage: &logical.InmemStorage{}}
	l, hashes := newLeasedStore(t, storage, 1)
	answered, resume := storage.pause()
	done := make(chan bool)
	go func() { done <- l.found(t, storage, hashes[0]) }()
	<-answered
	later := time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)
	err := l.change(t.Context(), storage, hashes[0], func(k *leasedKey) (*leasedKey, error) {
		changed := *k
		changed.Expires = later
		return &changed, nil
	})
	close(resume)
	if found := <-done; err != nil || !found {
		t.Fatal(err, found)
	}
	if k, err := l.find(t.Context(), storage, hashes[0]); err != nil || !k.Expires.Equal(later) {
		t.Errorf("memory holds %v %v", k, err)
	}
}

// A change that was there first must not write what the revocation deletes.
func TestLeasedKeys_ARevocationDuringAChangeCountsAtOnceAndForGood(t *testing.T) {
	storage := &heldStorage{Storage: &logical.InmemStorage{}, held: make(chan struct{}), resume: make(chan struct{})}
	l, hashes := newLeasedStore(t, storage, 1)
	l.found(t, storage, hashes[0])
	storage.key = leasedPrefix + hashes[0]
	results := make(chan error, 2)
	go func() {
		results <- l.change(t.Context(), storage, hashes[0], func(k *leasedKey) (*leasedKey, error) { return k, nil })
	}()
	<-storage.held
	go func() { results <- l.revoke(t.Context(), storage, hashes[0]) }()
	for end := time.Now().Add(20 * time.Second); l.found(t, storage, hashes[0]); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("while the change is being written, the revoked key is valid")
		}
	}
	storage.resume <- struct{}{}
	<-storage.held // the deletion
	close(storage.resume)
	if err := errors.Join(<-results, <-results); err != nil {
		t.Error(err)
	}
	if l.found(t, storage, hashes[0]) || len(entries(t, storage)) != 0 {
		t.Error("the revoked key is back")
	}
	if len(l.revoked) != 0 {
		t.Error("what is deleted is remembered")
	}
}

func TestLeasedKeys_AfterRevokeReturnedNoLookupSucceeds(t *testing.T) {
	const keys, lookers = 40, 6
	faulty := &faultyStorage{Storage: &logical.InmemStorage{}}
	storage := yieldingStorage{faulty}
	l, hashes := newLeasedStore(t, storage, keys)
	var gone [keys]atomic.Bool
	var all atomic.Int64
	var before atomic.Int64
	var work sync.WaitGroup
	for looker := range lookers {
		work.Go(func() {
			for all.Load() < keys {
				for n := range hashes {
					i := (n + looker*keys/lookers) % keys
					revoked := gone[i].Load()
					k, err := l.find(t.Context(), storage, hashes[i])
					if err != nil || revoked && k != nil {
						t.Errorf("key %d: %v %v", i, k, err)
					}
					if k != nil {
						before.Add(1)
					}
				}
			}
		})
	}
	for half := range 2 {
		work.Go(func() {
			for i := half; i < keys; i += 2 {
				if i%3 == 0 {
					// A renewal at the same time may come first or fail.
					work.Go(func() {
						_ = l.change(t.Context(), storage, hashes[i], func(k *leasedKey) (*leasedKey, error) {
							if k == nil {
								return nil, errNoEntry
							}
							return k, nil
						})
					})
				}
				if i%5 == 0 {
					faulty.arm(1, false) // somebody's write fails
				}
				_ = l.revoke(t.Context(), storage, hashes[i])
				gone[i].Store(true)
				all.Add(1)
			}
		})
	}
	work.Wait()
	faulty.disarm()
	for _, hash := range hashes {
		if l.found(t, faulty, hash) {
			t.Errorf("%s is valid", hash)
		}
	}
	if err := l.prune(t.Context(), faulty, time.Time{}); err != nil || len(entries(t, faulty)) != 0 {
		t.Errorf("after the next prune storage holds %d keys, %v", len(entries(t, faulty)), err)
	}
	if before.Load() == 0 || len(l.reading) != 0 || len(l.revoked) != 0 {
		t.Errorf("%d lookups succeeded in time; left: %v %v", before.Load(), l.reading, l.revoked)
	}
}

func TestLeasedKeys_AreMadeOfTheRandomSourceAndNothingElse(t *testing.T) {
	l, _ := newLeasedStore(t, &logical.InmemStorage{}, 0)
	random := strings.Repeat("\xfb\xef\xbe\xff", 8)
	l.random = strings.NewReader(random + random[:31])
	key, hash, err := l.generate()
	raw, decodeErr := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(key, "vk-"))
	if err != nil || decodeErr != nil || len(key) != 46 || string(raw) != random {
		t.Errorf("%q %v %v", key, err, decodeErr)
	}
	// By `printf %s <key> | sha256sum`.
	if want := "e9edd24ab98a68f6632d2379374cd3aa2cd3ba10967da550d4598c151e298387"; hash != want {
		t.Errorf("the hash of %s is %s, want %s", key, hash, want)
	}
	if key, _, err := l.generate(); err == nil {
		t.Errorf("made %q of 31 bytes", key)
	}
}

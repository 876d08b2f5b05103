// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"reflect"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// yieldingStorage lets others run around each access, as a network does.
type yieldingStorage struct{ logical.Storage }

// yield takes as long as a quick write to storage.
func yield() { time.Sleep(time.Duration(rand.IntN(200)) * time.Microsecond) }

func (s yieldingStorage) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	defer runtime.Gosched()
	return s.Storage.Get(ctx, key)
}

func (s yieldingStorage) Put(ctx context.Context, entry *logical.StorageEntry) error {
	yield()
	defer yield()
	return s.Storage.Put(ctx, entry)
}

func (s yieldingStorage) Delete(ctx context.Context, key string) error {
	yield()
	defer yield()
	return s.Storage.Delete(ctx, key)
}

func (s yieldingStorage) List(ctx context.Context, prefix string) ([]string, error) {
	defer runtime.Gosched()
	return s.Storage.List(ctx, prefix)
}

// randomRequest is one of all that can be done to two keys and three roles.
func randomRequest(r *rand.Rand) (logical.Operation, string, map[string]any) {
	key, role := fmt.Sprint("k", r.IntN(2)), fmt.Sprint("r", r.IntN(3))
	secret := []string{secretA, secretB}[r.IntN(2)]
	switch r.IntN(11) {
	case 0, 1:
		return logical.UpdateOperation, keyPrefix + key, openaiKey(secret)
	case 2:
		return logical.PatchOperation, keyPrefix + key, map[string]any{"metadata": map[string]any{role: "x"}}
	case 3:
		return logical.UpdateOperation, keyPrefix + key + "/rotate", map[string]any{"api_key": secret}
	case 4:
		return logical.DeleteOperation, keyPrefix + key, nil
	case 5, 6:
		return logical.UpdateOperation, rolePrefix + role, map[string]any{"key": key, "note": secret[len(secret)-3:]}
	case 7:
		return logical.PatchOperation, rolePrefix + role, map[string]any{"key": key}
	case 8:
		return logical.DeleteOperation, rolePrefix + role, nil
	case 9:
		return logical.ReadOperation, []string{keyPrefix + key, rolePrefix + role}[r.IntN(2)], nil
	}
	return logical.UpdateOperation, proxyPrefix + role + "/v1/chat/completions", chatBody("m")
}

func TestConcurrentChanges_LeaveAConsistentState(t *testing.T) {
	for round := range uint64(4) {
		up := &upstream{}
		m := newMountOn(t, Options{Transport: up}, yieldingStorage{&logical.InmemStorage{}})
		var workers sync.WaitGroup
		for worker := range uint64(12) {
			workers.Go(func() {
				r := rand.New(rand.NewPCG(round, worker))
				for range 40 {
					op, path, data := randomRequest(r)
					_, err := m.call(op, path, data)
					if coded, isCoded := err.(logical.HTTPCodedError); err != nil && (!isCoded || coded.Code() != http.StatusNotFound) {
						t.Errorf("%s %s: %v", op, path, err)
					}
				}
			})
		}
		workers.Wait()
		checkReferences(t, m.storage)
		fresh := newMountOn(t, Options{}, m.storage)
		if now, stored := m.everything(), fresh.everything(); !reflect.DeepEqual(now, stored) {
			t.Errorf("round %d: memory says %v\nstorage says %v", round, now, stored)
		}
		wantFields(t, m.read("status"), map[string]any{"inline_calls": 0})
		for _, sent := range up.requests() {
			if a := sent.Header.Get("Authorization"); a != "Bearer "+secretA && a != "Bearer "+secretB {
				t.Errorf("a request carried %q", a)
			}
		}
	}
}

// heldStorage stops the write to one entry until the test lets it go on.
type heldStorage struct {
	logical.Storage
	key    string
	held   chan struct{}
	resume chan struct{}
}

func (s *heldStorage) hold(key string) {
	if key == s.key {
		s.held <- struct{}{}
		<-s.resume
	}
}

func (s *heldStorage) Put(ctx context.Context, entry *logical.StorageEntry) error {
	s.hold(entry.Key)
	return s.Storage.Put(ctx, entry)
}

func (s *heldStorage) Delete(ctx context.Context, key string) error {
	s.hold(key)
	return s.Storage.Delete(ctx, key)
}

// One request is held in its last write, when the other comes: whichever is
// first, no role is left with a key that is gone.
func TestConcurrentUseAndDeletion_OfAKeyExcludeEachOther(t *testing.T) {
	use := func(m *mount) (*logical.Response, error) {
		return m.call(logical.UpdateOperation, "roles/r", map[string]any{"key": "a"})
	}
	remove := func(m *mount) (*logical.Response, error) { return m.call(logical.DeleteOperation, "keys/a", nil) }
	for name, c := range map[string]struct {
		held          string
		first, second func(*mount) (*logical.Response, error)
	}{
		"use, then deletion": {"roles/r", use, remove},
		"deletion, then use": {"keys/a", remove, use},
	} {
		t.Run(name, func(t *testing.T) {
			storage := &heldStorage{Storage: &logical.InmemStorage{}, held: make(chan struct{}), resume: make(chan struct{})}
			m := newMountOn(t, Options{}, storage)
			m.write("keys/a", openaiKey(secretA))
			storage.key = c.held
			answers := make(chan error, 2)
			do := func(request func(*mount) (*logical.Response, error)) {
				resp, err := request(m)
				if err == nil && resp.IsError() {
					err = resp.Error()
				}
				answers <- err
			}
			go do(c.first)
			<-storage.held
			go do(c.second)
			// The second has to wait, of which nothing can be seen; it gets time
			// to go wrong.
			time.Sleep(50 * time.Millisecond)
			close(storage.resume)
			if err := errors.Join(<-answers, <-answers); err == nil {
				t.Error("both succeeded")
			}
			checkReferences(t, storage)
		})
	}
}

func TestConcurrentPatches_LoseNoneOfTheChanges(t *testing.T) {
	m := newMountOn(t, Options{}, yieldingStorage{&logical.InmemStorage{}})
	m.write("keys/a", openaiKey(secretA))
	m.write("roles/r", map[string]any{"key": "a"})
	want := map[string]any{}
	var workers sync.WaitGroup
	for worker := range 8 {
		for i := range 4 {
			want[fmt.Sprint(worker, "-", i)] = "x"
		}
		workers.Go(func() {
			for i := range 4 {
				change := map[string]any{"metadata": map[string]any{fmt.Sprint(worker, "-", i): "x"}}
				for _, path := range []string{"keys/a", "roles/r"} {
					if resp, err := m.call(logical.PatchOperation, path, change); err != nil || resp.IsError() {
						t.Errorf("%s: %v %v", path, resp, err)
					}
				}
			}
		})
	}
	workers.Wait()
	for _, path := range []string{"keys/a", "roles/r"} {
		wantFields(t, m.read(path), map[string]any{"metadata": want})
	}
}

func TestConcurrentRotation_EveryRequestCarriesTheOldOrTheNewSecret(t *testing.T) {
	m, up, _ := newProxyMount(t, nil)
	var apps sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		apps.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				answer, err := m.proxyRequest(logical.UpdateOperation, "", "r/v1/chat/completions", chatBody("m"))
				if err != nil || answer.Status != http.StatusOK {
					t.Errorf("a request failed: %+v %v", answer, err)
					return
				}
			}
		})
	}
	for i := range 50 {
		m.write("keys/a/rotate", map[string]any{"api_key": []string{secretB, secretA}[i%2]})
	}
	close(stop)
	apps.Wait()
	wantFields(t, m.read("keys/a"), map[string]any{"version": 51, "fingerprint": fingerprintA})
	for _, sent := range up.requests() {
		if a := sent.Header.Get("Authorization"); a != "Bearer "+secretA && a != "Bearer "+secretB {
			t.Errorf("a request carried %q", a)
		}
	}
}

func TestConcurrentInlineCalls_AsManyAsTheCapGetIn(t *testing.T) {
	const limit, callers = 3, 8
	for round := range 500 {
		var calls inlineCalls
		var admitted atomic.Int64
		var all sync.WaitGroup
		start := make(chan struct{})
		for range callers {
			all.Go(func() {
				<-start
				if calls.enter(limit) {
					admitted.Add(1)
				}
			})
		}
		close(start)
		all.Wait()
		if n := admitted.Load(); n != limit {
			t.Fatalf("round %d: %d of %d were admitted, the cap is %d", round, n, callers, limit)
		}
		for range limit {
			calls.leave()
		}
		if !calls.enter(limit) {
			t.Fatal("nobody gets in after all have left")
		}
	}
}

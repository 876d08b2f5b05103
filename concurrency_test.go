// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"reflect"
	"runtime"
	"sync"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

// yieldingStorage lets others run around each access, as a network does.
type yieldingStorage struct{ logical.Storage }

func (s yieldingStorage) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	defer runtime.Gosched()
	return s.Storage.Get(ctx, key)
}

func (s yieldingStorage) Put(ctx context.Context, entry *logical.StorageEntry) error {
	runtime.Gosched()
	defer runtime.Gosched()
	return s.Storage.Put(ctx, entry)
}

func (s yieldingStorage) Delete(ctx context.Context, key string) error {
	runtime.Gosched()
	defer runtime.Gosched()
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
	for round := range uint64(6) {
		up := &upstream{}
		m := newMountOn(t, Options{Transport: up}, yieldingStorage{&logical.InmemStorage{}})
		var workers sync.WaitGroup
		for worker := range uint64(12) {
			workers.Go(func() {
				r := rand.New(rand.NewPCG(round, worker))
				for range 60 {
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

func TestConcurrentInlineCalls_NeverPassTheCap(t *testing.T) {
	var calls inlineCalls
	const limit = 3
	var inside, most, admitted int
	var mu sync.Mutex
	var callers sync.WaitGroup
	for range 16 {
		callers.Go(func() {
			for range 500 {
				if !calls.enter(limit) {
					continue
				}
				mu.Lock()
				inside, admitted = inside+1, admitted+1
				most = max(most, inside)
				mu.Unlock()
				runtime.Gosched()
				mu.Lock()
				inside--
				mu.Unlock()
				calls.leave()
			}
		})
	}
	callers.Wait()
	if most > limit || admitted == 0 || calls.n.Load() != 0 {
		t.Errorf("%d at once of %d, %d admitted, %d left", most, limit, admitted, calls.n.Load())
	}
}

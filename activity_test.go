// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
)

// startWrites is how often an instance writes when it begins: the instance entry
// and the ledger's epoch.
const startWrites = 2

// preparedStorage holds the virtual key r, and counts what is written from now on.
func preparedStorage(t *testing.T) *faultyStorage {
	t.Helper()
	m, _, _ := newProxyMount(t, nil)
	m.Cleanup(t.Context())
	return &faultyStorage{Storage: m.storage}
}

func TestActivity_OnlyAnInstanceThatMayWriteActs(t *testing.T) {
	for name, c := range map[string]struct {
		state consts.ReplicationState
		local bool
		acts  bool
	}{
		"no replication":                         {state: consts.ReplicationUnknown, acts: true},
		"performance primary":                    {state: consts.ReplicationPerformancePrimary, acts: true},
		"performance standby":                    {state: consts.ReplicationPerformanceStandby},
		"performance standby, local mount":       {state: consts.ReplicationPerformanceStandby, local: true},
		"performance secondary":                  {state: consts.ReplicationPerformanceSecondary},
		"performance secondary, local mount":     {state: consts.ReplicationPerformanceSecondary, local: true, acts: true},
		"DR secondary":                           {state: consts.ReplicationDRSecondary},
		"DR secondary, local mount":              {state: consts.ReplicationDRSecondary, local: true},
		"standby of a secondary":                 {state: consts.ReplicationPerformanceSecondary | consts.ReplicationPerformanceStandby, local: true},
		"performance primary that is DR primary": {state: consts.ReplicationPerformancePrimary | consts.ReplicationDRPrimary, acts: true},
	} {
		t.Run(name, func(t *testing.T) {
			up, storage := &upstream{}, preparedStorage(t)
			m := newStandby(t, Options{Transport: up}, c.state, storage)
			m.system.LocalMountVal = c.local
			m.initialize()
			answer, err := m.proxyRequest(logical.UpdateOperation, "", "r/v1/chat/completions", chatBody("m"))
			if c.acts {
				if err != nil || answer.Status != http.StatusOK || storage.count() != startWrites {
					t.Errorf("answered %+v %v after %d writes", answer, err, storage.count())
				}
				return
			}
			// A performance standby hands the request back for Vault to forward.
			if c.state.HasState(consts.ReplicationPerformanceStandby) {
				if !errors.Is(err, logical.ErrReadOnly) {
					t.Errorf("answered %+v %v, want it forwarded", answer, err)
				}
			} else {
				answer.want(t, http.StatusServiceUnavailable, "not_active")
			}
			wantNothingSent(t, up)
			m.Cleanup(t.Context())
			if n := storage.count(); n != 0 {
				t.Errorf("%d writes", n)
			}
		})
	}
}

func TestActivity_NotInitializedMeansNotActive(t *testing.T) {
	up, storage := &upstream{}, preparedStorage(t)
	m := newStandby(t, Options{Transport: up}, consts.ReplicationUnknown, storage)
	m.chat("r", "m").want(t, http.StatusServiceUnavailable, "not_active")
	wantFields(t, m.read("status"), map[string]any{"state": "standby"})
	wantNothingSent(t, up)
	if n := storage.count(); n != 0 {
		t.Errorf("%d writes", n)
	}
}

// gatedStorage's puts wait for the test's word: nil lets them through.
type gatedStorage struct {
	logical.Storage
	asked chan struct{}
	word  chan error
}

func (s *gatedStorage) Put(ctx context.Context, entry *logical.StorageEntry) error {
	select {
	case s.asked <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-s.word:
		if err != nil {
			return err
		}
		return s.Storage.Put(ctx, entry)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// soon is do, in a test that fails where do blocks.
func soon(t *testing.T, what string, do func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatalf("%s blocks", what)
	}
}

// answer is the test's word on the put that storage is asked for.
func (s *gatedStorage) answer(t *testing.T, err error) {
	t.Helper()
	soon(t, "answering a put", func() { s.word <- err })
}

// start lets an instance make the writes with which it begins.
func (s *gatedStorage) start(t *testing.T) {
	t.Helper()
	for range startWrites {
		s.next(t)
		s.answer(t, nil)
	}
}

// next waits until storage is asked for a put.
func (s *gatedStorage) next(t *testing.T) {
	t.Helper()
	soon(t, "waiting for a put", func() { <-s.asked })
}

func newGatedMount(t *testing.T) (*mount, *gatedStorage, *upstream) {
	t.Helper()
	storage := &gatedStorage{Storage: preparedStorage(t), asked: make(chan struct{}), word: make(chan error)}
	up := &upstream{}
	m := newStandby(t, Options{Transport: up}, consts.ReplicationUnknown, storage)
	m.activity.retry = time.Millisecond
	return m, storage, up
}

// impatient is a request whose caller doesn't wait for the instance to start.
func (m *mount) impatient() inlineAnswer {
	m.t.Helper()
	ctx, cancel := context.WithCancel(m.t.Context())
	cancel()
	resp, err := m.HandleRequest(ctx, &logical.Request{
		Operation: logical.UpdateOperation, Path: "proxy/r/v1/chat/completions", Data: chatBody("m"), Storage: m.storage,
	})
	if err != nil {
		m.t.Fatal(err)
	}
	answer, err := rawAnswer(resp)
	if err != nil {
		m.t.Fatal(err)
	}
	return answer
}

func TestActivity_StorageThatRefusesWritesIsRetriedAndShown(t *testing.T) {
	m, storage, up := newGatedMount(t)
	soon(t, "Initialize", m.initialize) // while storage does
	storage.next(t)
	wantFields(t, m.read("status"), map[string]any{"state": "starting", "problem": ""})
	m.impatient().want(t, http.StatusServiceUnavailable, "not_active")

	for range 3 {
		storage.answer(t, errors.New("read-only file system"))
		storage.next(t) // the next try, so the last one is settled
		status := m.read("status")
		wantFields(t, status, map[string]any{"state": "starting"})
		if problem, _ := status["problem"].(string); !strings.Contains(problem, "read-only file system") {
			t.Errorf("status shows the problem %q", problem)
		}
	}
	answer := m.impatient()
	answer.want(t, http.StatusServiceUnavailable, "not_active")
	if !strings.Contains(answer.Body, "read-only file system") || answer.Header.Get("Retry-After") == "" {
		t.Errorf("the caller is told %+v", answer)
	}
	wantNothingSent(t, up)

	waiting := m.inBackground("r") // waits for the start, and gets through
	storage.answer(t, nil)
	storage.next(t) // the ledger's
	storage.answer(t, errors.New("no epoch"))
	storage.next(t)
	if problem, _ := m.read("status")["problem"].(string); !strings.Contains(problem, "no epoch") {
		t.Errorf("status shows the problem %q", problem)
	}
	storage.answer(t, nil)
	storage.next(t)
	storage.answer(t, nil)
	if a := <-waiting; a.Status != http.StatusOK {
		t.Errorf("answered %+v", a)
	}
	wantFields(t, m.read("status"), map[string]any{"state": "active", "problem": ""})
}

func TestActivity_InitializeOutlivesItsContext(t *testing.T) {
	m, storage, _ := newGatedMount(t)
	ctx, cancel := context.WithCancel(t.Context())
	if err := m.Initialize(ctx, &logical.InitializationRequest{Storage: storage}); err != nil {
		t.Fatal(err)
	}
	cancel() // Vault does so when Initialize returns
	storage.start(t)
	if err := m.activity.await(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestActivity_CleanupEndsAStartThatStorageHolds(t *testing.T) {
	for name, fail := range map[string]bool{"in a write": false, "between two tries": true} {
		t.Run(name, func(t *testing.T) {
			m, storage, _ := newGatedMount(t)
			m.activity.retry = time.Hour
			m.initialize()
			storage.next(t)
			if fail {
				storage.answer(t, errors.New("no"))
			}
			soon(t, "Cleanup", func() { m.Cleanup(t.Context()) })
			m.chat("r", "m").want(t, http.StatusServiceUnavailable, "not_active")
			wantFields(t, m.read("status"), map[string]any{"state": "ended"})
		})
	}
}

func TestActivity_AfterCleanupNothingIsAdmittedForGood(t *testing.T) {
	storage := preparedStorage(t)
	up := &upstream{}
	m := newMountOn(t, Options{Transport: up}, storage)
	m.chat("r", "m").want(t, http.StatusOK, "")
	m.Cleanup(t.Context())
	writes := storage.count()
	m.Cleanup(t.Context()) // twice is harmless
	m.chat("r", "m").want(t, http.StatusServiceUnavailable, "not_active")
	m.initialize() // too late
	m.chat("r", "m").want(t, http.StatusServiceUnavailable, "not_active")
	wantFields(t, m.read("status"), map[string]any{"state": "ended"})
	if n := len(up.requests()); n != 1 {
		t.Errorf("%d requests were sent", n)
	}
	if n := storage.count() - writes; n != 0 {
		t.Errorf("%d writes after the end", n)
	}
}

func TestActivity_SecondInitializeIsHarmless(t *testing.T) {
	storage := preparedStorage(t)
	m := newMountOn(t, Options{Transport: &upstream{}}, storage)
	since := m.read("status")
	m.initialize()
	if now := m.read("status"); !reflect.DeepEqual(now, since) {
		t.Errorf("status %v, was %v", now, since)
	}
	m.activity.end() // waits for whatever was begun
	if storage.count() != startWrites {
		t.Errorf("%d writes", storage.count())
	}
}

func TestInvalidate_DropsWhatAnotherNodeChanged(t *testing.T) {
	storage := &logical.InmemStorage{}
	here, there := newMountOn(t, Options{}, storage), newMountOn(t, Options{}, storage)
	there.write("config", map[string]any{"upstream_timeout": 5})
	there.write("keys/a", openaiKey(secretA))
	there.write("roles/r", map[string]any{"key": "a", "note": "old"})
	old := here.everything()

	there.write("config", map[string]any{"upstream_timeout": 6})
	there.write("keys/a", map[string]any{"note": "new"})
	there.write("roles/r", map[string]any{"note": "new"})
	if now := here.everything(); !reflect.DeepEqual(now, old) {
		t.Fatal("nothing was cached: the test proves nothing")
	}
	for _, key := range []string{"config", "keys/a", "roles/r"} {
		here.InvalidateKey(t.Context(), key)
	}
	if now, want := here.everything(), there.everything(); !reflect.DeepEqual(now, want) {
		t.Errorf("after the invalidation %v\nwant %v", now, want)
	}
}

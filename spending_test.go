// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// tallyStorage counts the writes of each entry.
type tallyStorage struct {
	logical.Storage
	mu     sync.Mutex
	writes map[string]int
}

func (s *tallyStorage) Put(ctx context.Context, entry *logical.StorageEntry) error {
	s.mu.Lock()
	s.writes[entry.Key]++
	s.mu.Unlock()
	return s.Storage.Put(ctx, entry)
}

func (s *tallyStorage) usageWrites() (most, total int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, n := range s.writes {
		if strings.HasPrefix(key, usagePrefix) {
			most, total = max(most, n), total+n
		}
	}
	return most, total
}

func TestSpending_ABusyScopeIsWrittenOnceASecondAtMost(t *testing.T) {
	storage := &tallyStorage{Storage: &logical.InmemStorage{}, writes: map[string]int{}}
	began, calls := time.Now(), 0
	m, _, _ := newPricedMount(t, storage)
	for time.Since(began) < 2250*time.Millisecond {
		m.chat("r", "m").want(t, http.StatusOK, "")
		calls++
	}
	m.Cleanup(t.Context())
	elapsed := time.Since(began)
	most, total := storage.usageWrites()
	// One for each second that has passed, and that of the end.
	if limit := int(elapsed/time.Second) + 1; total > limit {
		t.Errorf("%d writes of one entry, %d in all, for %d calls in %s", most, total, calls, elapsed)
	}
	if total < 2 {
		t.Errorf("%d writes in %s: a crash would lose more than a second", total, elapsed)
	}
	fresh := newMountOn(t, Options{Now: m.now}, storage)
	got, _ := fresh.usageOf("usage/r", nil)
	wantFields(t, got, map[string]any{"requests": calls})
}

func TestSpending_AnIdleMountWritesNothing(t *testing.T) {
	storage := &tallyStorage{Storage: &logical.InmemStorage{}, writes: map[string]int{}}
	m, _, _ := newPricedMount(t, storage)
	m.chat("r", "m").want(t, http.StatusOK, "")
	m.flushUsage(t.Context(), storage)
	for range 3 {
		m.usageOf("usage", nil)
		m.flushUsage(t.Context(), storage)
	}
	if _, total := storage.usageWrites(); total != 1 {
		t.Errorf("%d writes for one call", total)
	}
}

func TestSpending_ACleanEndIsExactWithCallsInFlight(t *testing.T) {
	storage := &logical.InmemStorage{}
	m, up, _ := newPricedMount(t, storage)
	m.write("prices/openai/m", map[string]any{"input": 1, "output": 10})
	for range 5 {
		m.chat("r", "m").want(t, http.StatusOK, "")
	}
	const inFlight = 8
	arrived := make(chan struct{})
	up.answer = func(r *http.Request) (*http.Response, error) {
		arrived <- struct{}{}
		<-r.Context().Done() // only the end of the mount ends it
		return nil, r.Context().Err()
	}
	var answers []<-chan inlineAnswer
	for range inFlight {
		answers = append(answers, m.inBackground("r"))
		<-arrived
	}
	soon(t, "Cleanup", func() { m.Cleanup(context.Background()) })
	for _, answer := range answers {
		if a := <-answer; a.Status != 499 {
			t.Errorf("a call in flight was answered %+v", a)
		}
	}
	m.chat("r", "m").want(t, http.StatusServiceUnavailable, "not_active")
	fresh := newMountOn(t, Options{Now: m.now}, storage)
	total, _ := fresh.usageOf("usage/r", nil)
	wantFields(t, total, map[string]any{"requests": 5 + inFlight, "failed": inFlight, "unconfirmed": inFlight})
	memory, _ := m.usageOf("usage/r", nil)
	wantFields(t, total, memory)
}

func TestSpending_ACallThatIsAdmittedWhileTheMountEndsIsNotSent(t *testing.T) {
	storage := &pausedStorage{Storage: preparedStorage(t).Storage}
	up := &upstream{}
	m := newMountOn(t, Options{Transport: up, Now: newClock().now}, storage)
	answered, resume := storage.pauseAt("roles/")
	answer := m.inBackground("r")
	<-answered
	m.Cleanup(context.Background())
	close(resume)
	got := <-answer
	got.want(t, http.StatusServiceUnavailable, "not_active")
	wantNothingSent(t, up)
}

func TestSpending_ACallThatIgnoresItsEndHoldsUpNoCleanup(t *testing.T) {
	m, up, _ := newPricedMount(t, &logical.InmemStorage{})
	arrived, release := make(chan struct{}), make(chan struct{})
	up.answer = func(*http.Request) (*http.Response, error) {
		close(arrived)
		<-release
		return nil, errFault
	}
	answer := m.inBackground("r")
	<-arrived
	soon(t, "Cleanup", func() { m.Cleanup(context.Background()) })
	close(release)
	<-answer
}

func TestSpending_StorageThatHangsHoldsUpNoCleanup(t *testing.T) {
	m, storage, up := newGatedMount(t)
	m.initialize()
	storage.start(t)
	up.answer = usageAnswer(1, 1)
	m.chat("r", "m").want(t, http.StatusOK, "")
	soon(t, "Cleanup", func() { m.Cleanup(context.Background()) })
}

func TestSpending_WhatStorageRefusesIsKeptAndGoesWithTheNextBatch(t *testing.T) {
	storage := &faultyStorage{Storage: &logical.InmemStorage{}}
	m, _, _ := newPricedMount(t, storage)
	refusing := &refusingStorage{storage}
	for range 3 {
		m.chat("r", "m").want(t, http.StatusOK, "")
		m.flushUsage(t.Context(), refusing)
	}
	if log := m.log.String(); !strings.Contains(log, "usage could not be written") || !strings.Contains(log, errFault.Error()) {
		t.Errorf("the log doesn't say so: %s", log)
	}
	total, _ := m.usageOf("usage/r", nil)
	wantFields(t, total, map[string]any{"requests": 3})
	m.flushUsage(t.Context(), storage)
	fresh := newMountOn(t, Options{Now: m.now}, storage)
	stored, _ := fresh.usageOf("usage/r", nil)
	wantFields(t, stored, map[string]any{"requests": 3})
}

// copyOf is a copy of a storage: what a crash leaves behind.
func copyOf(t *testing.T, storage logical.Storage) logical.Storage {
	t.Helper()
	left := &logical.InmemStorage{}
	for key, value := range entries(t, storage) {
		if err := left.Put(t.Context(), &logical.StorageEntry{Key: key, Value: []byte(value)}); err != nil {
			t.Fatal(err)
		}
	}
	return left
}

func TestSpending_ACrashLosesOnlyWhatWasNotWritten(t *testing.T) {
	m, up, _ := newPricedMount(t, &logical.InmemStorage{})
	for i := range 10 {
		m.chat("r", fmt.Sprint("m", i%3)).want(t, http.StatusOK, "")
	}
	m.flushUsage(t.Context(), m.storage)
	left := copyOf(t, m.storage)
	m.chat("r", "m0").want(t, http.StatusOK, "") // after the last batch

	fresh := newMountOn(t, Options{Transport: up, Now: m.now}, left)
	total, _ := fresh.usageOf("usage/r", nil)
	wantFields(t, total, map[string]any{"requests": 10, "input_tokens": 10_000})
	// What comes now is added to what was written, in memory and in storage.
	fresh.chat("r", "m0").want(t, http.StatusOK, "")
	total, rows := fresh.usageOf("usage/r", map[string]any{"group_by": "model"})
	wantFields(t, total, map[string]any{"requests": 11})
	if len(rows) != 3 || rows[0]["requests"] != float64(5) {
		t.Errorf("rows %v", rows)
	}
	fresh.Cleanup(context.Background())
	again := newMountOn(t, Options{Now: m.now}, left)
	total, _ = again.usageOf("usage/r", nil)
	wantFields(t, total, map[string]any{"requests": 11})
}

func TestSpending_ConcurrentCallsAndBatchesLoseNothing(t *testing.T) {
	storage := yieldingStorage{&logical.InmemStorage{}}
	m, _, _ := newPricedMount(t, storage)
	const workers, calls = 4, 40
	var all sync.WaitGroup
	for worker := range workers {
		all.Go(func() {
			for range calls {
				m.proxyAs(fmt.Sprint("e", worker), "r", "v1/chat/completions", chatBody("m"))
			}
		})
		all.Go(func() {
			for range 10 {
				m.flushUsage(t.Context(), storage)
				m.usageOf("usage", nil)
			}
		})
	}
	all.Wait()
	m.Cleanup(context.Background())
	fresh := newMountOn(t, Options{Now: m.now}, storage)
	total, rows := fresh.usageOf("usage/r", map[string]any{"group_by": "entity"})
	wantFields(t, total, map[string]any{"requests": workers * calls})
	if len(rows) != workers {
		t.Errorf("rows %v", rows)
	}
}

func TestUsage_IsKeptForTheRetentionAndNoLonger(t *testing.T) {
	at := &clock{t: time.Date(2026, 1, 10, 12, 0, 0, 0, time.UTC)}
	m := newMount(t, Options{Now: at.now})
	m.write("keys/a", map[string]any{"provider": "sandbox"})
	m.write("roles/r", map[string]any{"key": "a"})
	requests := func() any {
		return m.must(logical.ReadOperation, "usage/r", map[string]any{"from": "2025-01-01", "to": "2029-01-01"}).Data["total"].(map[string]any)["requests"]
	}
	for _, day := range []int{0, 1} {
		at.set(time.Date(2026, 1, 10+day, 12, 0, 0, 0, time.UTC))
		m.chat("r", "sandbox-small").want(t, http.StatusOK, "")
	}
	at.set(time.Date(2026, 1, 10, 12, 0, 0, 0, time.UTC).AddDate(0, 0, usageRetentionDays))
	m.pruneUsage(t.Context(), m.storage)
	if n := requests(); n != int64(2) {
		t.Errorf("%v requests on the last day of the retention", n)
	}
	at.set(time.Date(2026, 1, 11, 12, 0, 0, 0, time.UTC).AddDate(0, 0, usageRetentionDays))
	m.pruneUsage(t.Context(), m.storage)
	if n := requests(); n != int64(1) {
		t.Errorf("%v requests a day later", n)
	}
}

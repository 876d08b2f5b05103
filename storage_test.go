// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

// text is the simplest thing to store.
type text struct{ Value string }

func newTextStore(t *testing.T, size int) *entryStore[text] {
	t.Helper()
	s, err := newEntryStore("texts/", size, func(v *text) error {
		if v.Value == "" {
			return errors.New("empty")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (v *text) String() string {
	if v == nil {
		return ""
	}
	return v.Value
}

// pausedStorage lets a test stop a Get between storage's answer and its caller.
type pausedStorage struct {
	logical.Storage
	mu     sync.Mutex
	answer chan struct{} // storage has answered; nil: no pause
	resume chan struct{}
	of     string // how the keys begin that it is for
}

// pause makes the next Get stop.
func (s *pausedStorage) pause() (answered <-chan struct{}, resume chan<- struct{}) {
	return s.pauseAt("")
}

// pauseAt makes the next Get below prefix stop.
func (s *pausedStorage) pauseAt(prefix string) (answered <-chan struct{}, resume chan<- struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.of = prefix
	s.answer, s.resume = make(chan struct{}), make(chan struct{})
	return s.answer, s.resume
}

func (s *pausedStorage) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	s.mu.Lock()
	var answer, resume chan struct{}
	if strings.HasPrefix(key, s.of) {
		answer, resume = s.answer, s.resume
		s.answer = nil
	}
	s.mu.Unlock()
	entry, err := s.Storage.Get(ctx, key)
	if answer != nil {
		close(answer)
		<-resume
	}
	return entry, err
}

func TestEntryStore_AReadThatRacesWithAChangeLeavesNoOldValueBehind(t *testing.T) {
	ctx := t.Context()
	direct := func(storage logical.Storage, value string) error {
		return storage.Put(ctx, &logical.StorageEntry{Key: "texts/a", Value: []byte(`{"Value":"` + value + `"}`)})
	}
	for name, c := range map[string]struct {
		change func(*entryStore[text], logical.Storage) error
		want   string
	}{
		"put": {func(s *entryStore[text], storage logical.Storage) error {
			return s.put(ctx, storage, "a", &text{"new"})
		}, "new"},
		"delete": {func(s *entryStore[text], storage logical.Storage) error { return s.delete(ctx, storage, "a") }, ""},
		"invalidate": {func(s *entryStore[text], storage logical.Storage) error {
			err := direct(storage, "new")
			s.invalidate("texts/a")
			return err
		}, "new"},
	} {
		t.Run(name, func(t *testing.T) {
			s, storage := newTextStore(t, 8), &pausedStorage{Storage: &logical.InmemStorage{}}
			if err := direct(storage, "old"); err != nil {
				t.Fatal(err)
			}
			answered, resume := storage.pause()
			read := make(chan string)
			go func() {
				v, _ := s.get(ctx, storage, "a")
				read <- v.String()
			}()
			<-answered
			if err := c.change(s, storage); err != nil {
				t.Fatal(err)
			}
			close(resume)
			if got := <-read; got != "old" {
				t.Errorf("the read that began before the change got %q", got)
			}
			v, err := s.get(ctx, storage, "a")
			if err != nil || v.String() != c.want {
				t.Errorf("after the change: %q %v, want %q", v, err, c.want)
			}
		})
	}
}

func TestEntryStore_AHitAsksNoStorage(t *testing.T) {
	s, storage := newTextStore(t, 8), &faultyStorage{Storage: &logical.InmemStorage{}}
	if err := s.put(t.Context(), storage, "a", &text{"x"}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if v, err := s.get(t.Context(), storage, "a"); err != nil || v.Value != "x" {
			t.Fatal(v, err)
		}
		storage.failReads(errors.New("asked"))
	}
	s.invalidate("texts/a")
	if _, err := s.get(t.Context(), storage, "a"); err == nil {
		t.Error("after an invalidation storage is not asked")
	}
}

func TestEntryStore_MemoryIsBoundedByTheCache(t *testing.T) {
	s, storage := newTextStore(t, 4), &logical.InmemStorage{}
	for i := range 100 {
		name := fmt.Sprint(i)
		if err := s.put(t.Context(), storage, name, &text{name}); err != nil {
			t.Fatal(err)
		}
		if v, err := s.get(t.Context(), storage, name); err != nil || v.Value != name {
			t.Fatal(v, err)
		}
		if n := s.cache.Len(); n > 4 {
			t.Fatalf("%d entries in memory", n)
		}
	}
	if v, err := s.get(t.Context(), storage, "0"); err != nil || v.String() != "0" {
		t.Errorf("an entry that left memory is %q %v", v, err)
	}
}

func TestEntryStore_DamagedEntriesAreAnErrorThatQuotesNothing(t *testing.T) {
	s, storage := newTextStore(t, 4), &logical.InmemStorage{}
	for name, value := range map[string]string{
		"a": `{"Value": ` + secretA + `}`, "b": `{"Value": ["` + secretA + `"]}`, "c": secretA, "d": "",
		"e": `{"Value":""}`, // decodes, but prepare refuses it
	} {
		if err := storage.Put(t.Context(), &logical.StorageEntry{Key: "texts/" + name, Value: []byte(value)}); err != nil {
			t.Fatal(err)
		}
		_, err := s.get(t.Context(), storage, name)
		if !errors.As(err, new(*storageError)) || !strings.Contains(err.Error(), "texts/"+name) || strings.Contains(err.Error(), secretMark) {
			t.Errorf("%s: %v", name, err)
		}
		if s.cache.Contains(name) {
			t.Errorf("%s is cached", name)
		}
	}
}

func TestEntryStore_WhatPrepareRefusesIsNotStored(t *testing.T) {
	s, storage := newTextStore(t, 4), &logical.InmemStorage{}
	if err := s.put(t.Context(), storage, "a", &text{}); err == nil {
		t.Error("stored")
	}
	if all := entries(t, storage); len(all) != 0 {
		t.Errorf("storage holds %v", all)
	}
}

// faultyStorage counts what changes storage, and fails on demand.
type faultyStorage struct {
	logical.Storage
	mu        sync.Mutex
	writes    int // puts and deletes since arm, or since the beginning
	failWrite int // fail the write of this number, from 1; 0 fails none
	applied   bool
	failed    bool
	reads     error
	lists     error
}

var errFault = errors.New("storage failed, as the test wants")

// arm makes the n-th write from now on fail. With applied, storage does it all
// the same, and only its answer is lost.
func (s *faultyStorage) arm(n int, applied bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes, s.failWrite, s.applied, s.failed = 0, n, applied, false
}

// disarm ends all failures, and says whether the armed one happened.
func (s *faultyStorage) disarm() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failWrite, s.reads, s.lists = 0, nil, nil
	return s.failed
}

func (s *faultyStorage) failReads(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads = err
}

func (s *faultyStorage) failLists(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lists = err
}

func (s *faultyStorage) direct() logical.Storage { return s.Storage }

func (s *faultyStorage) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writes
}

func (s *faultyStorage) write(do func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes++
	if s.writes != s.failWrite {
		return do()
	}
	s.failed = true
	if s.applied {
		if err := do(); err != nil {
			return err
		}
	}
	return errFault
}

func (s *faultyStorage) Put(ctx context.Context, entry *logical.StorageEntry) error {
	return s.write(func() error { return s.Storage.Put(ctx, entry) })
}

func (s *faultyStorage) Delete(ctx context.Context, key string) error {
	return s.write(func() error { return s.Storage.Delete(ctx, key) })
}

func (s *faultyStorage) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	s.mu.Lock()
	err := s.reads
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return s.Storage.Get(ctx, key)
}

func (s *faultyStorage) List(ctx context.Context, prefix string) ([]string, error) {
	s.mu.Lock()
	err := s.lists
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return s.Storage.List(ctx, prefix)
}

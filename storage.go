// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/hashicorp/vault/sdk/logical"
)

// entryStore keeps the entries of one storage prefix as JSON, and the most
// recently used ones decoded in memory, so that a completion reads no storage.
// Memory is bounded by the cache's size, whatever the number of entries.
//
// Values are shared and must not be changed after put or get. It is safe for
// concurrent use; that two writes of one name don't interleave is the caller's
// business.
type entryStore[T any] struct {
	prefix string
	cache  *lru.Cache[string, *T]
	// changes counts writes and invalidations. A value read from storage goes
	// into the cache only if nothing changed since the read began; else it
	// might be older than what a writer has just put there. filling makes that
	// one step; a hit needs no more than the cache's own lock.
	filling sync.Mutex
	changes uint64
	// prepare completes a decoded value, or refuses it.
	prepare func(*T) error
	// absent, if given, is the value of an entry that isn't there: then storage is
	// asked no more often than for one that is.
	absent *T
}

func newEntryStore[T any](prefix string, size int, prepare func(*T) error) (*entryStore[T], error) {
	cache, err := lru.New[string, *T](size)
	if err != nil {
		return nil, fmt.Errorf("cache of %s entries: %w", prefix, err)
	}
	return &entryStore[T]{prefix: prefix, cache: cache, prepare: prepare}, nil
}

// storageError is a failure of storage, or of what was found there: the
// server's fault, not the caller's.
type storageError struct{ cause error }

func (e *storageError) Error() string { return e.cause.Error() }
func (e *storageError) Unwrap() error { return e.cause }

func storageErrorf(format string, args ...any) error {
	return &storageError{fmt.Errorf(format, args...)}
}

// get returns the entry called name, nil if there is none.
func (s *entryStore[T]) get(ctx context.Context, storage logical.Storage, name string) (*T, error) {
	if v, ok := s.cache.Get(name); ok {
		return v, nil
	}
	before := s.seen()
	v, err := s.read(ctx, storage, name)
	if v == nil && err == nil {
		v = s.absent
	}
	if v == nil || err != nil {
		return nil, err
	}
	s.fill(name, v, before)
	return v, nil
}

// seen returns the number of changes so far, for fill.
func (s *entryStore[T]) seen() uint64 {
	s.filling.Lock()
	defer s.filling.Unlock()
	return s.changes
}

// fill caches v, unless something changed since seen returned before.
func (s *entryStore[T]) fill(name string, v *T, before uint64) {
	s.filling.Lock()
	defer s.filling.Unlock()
	if s.changes == before {
		s.cache.Add(name, v)
	}
}

func (s *entryStore[T]) read(ctx context.Context, storage logical.Storage, name string) (*T, error) {
	entry, err := storage.Get(ctx, s.prefix+name)
	if err != nil {
		return nil, storageErrorf("reading %s%s: %w", s.prefix, name, err)
	}
	if entry == nil {
		return nil, nil
	}
	v := new(T)
	if err := json.Unmarshal(entry.Value, v); err != nil {
		// The decoder's message may quote the entry, which may hold a secret.
		return nil, storageErrorf("the stored entry %s%s is damaged", s.prefix, name)
	}
	if err := s.prepare(v); err != nil {
		return nil, storageErrorf("the stored entry %s%s can't be used: %w", s.prefix, name, err)
	}
	return v, nil
}

// put stores v under name. After an error the old entry still counts, unless
// storage lost its answer; so the next get asks storage.
func (s *entryStore[T]) put(ctx context.Context, storage logical.Storage, name string, v *T) error {
	if err := s.prepare(v); err != nil {
		return err
	}
	value, err := json.Marshal(v)
	if err != nil {
		return storageErrorf("encoding %s%s: %w", s.prefix, name, err)
	}
	err = storage.Put(ctx, &logical.StorageEntry{Key: s.prefix + name, Value: value})
	s.forget(name)
	if err != nil {
		return storageErrorf("storing %s%s: %w", s.prefix, name, err)
	}
	return nil
}

// delete removes the entry called name; there being none is no error.
func (s *entryStore[T]) delete(ctx context.Context, storage logical.Storage, name string) error {
	err := storage.Delete(ctx, s.prefix+name)
	s.forget(name)
	if err != nil {
		return storageErrorf("deleting %s%s: %w", s.prefix, name, err)
	}
	return nil
}

// list returns the names in order.
func (s *entryStore[T]) list(ctx context.Context, storage logical.Storage) ([]string, error) {
	names, err := storage.List(ctx, s.prefix)
	if err != nil {
		return nil, storageErrorf("listing %s: %w", s.prefix, err)
	}
	return names, nil
}

// forget makes the next get of name ask storage.
func (s *entryStore[T]) forget(name string) {
	s.filling.Lock()
	defer s.filling.Unlock()
	s.changes++
	s.cache.Remove(name)
}

// invalidate is told that another node changed the storage entry key.
func (s *entryStore[T]) invalidate(key string) {
	if name, ok := strings.CutPrefix(key, s.prefix); ok {
		s.forget(name)
	}
}

// SPDX-License-Identifier: MPL-2.0

package ledger

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/vault/sdk/logical"
)

// operation is what a process asks of storage.
type operation uint8

const (
	opGet operation = iota
	opPut
	opList
	opDelete
	numOperations
)

// fault is what becomes of an operation.
type fault uint8

const (
	works    fault = iota
	refused        // an error, and nothing has happened
	answered       // an error, but it has happened
	hangs          // no answer until it is released
)

var (
	errRefused  = errors.New("storage refused")
	errAnswered = errors.New("storage lost the answer")
	errDead     = errors.New("the process is dead")
)

// view is storage as one process sees it: what goes wrong there is injected,
// and what happens is counted.
type view struct {
	disk logical.Storage

	mu     sync.Mutex
	fault  func(operation, string) fault // nil: all works
	hung   []*hungOperation
	dead   bool
	counts [numOperations]int
	log    []string // the keys of puts
}

// hungOperation is one that hasn't been answered.
type hungOperation struct {
	op      operation
	entry   *logical.StorageEntry // to put, or the key alone
	release chan fault
}

var _ logical.Storage = (*view)(nil)

// newDisk returns storage that outlives processes.
func newDisk() logical.Storage { return &logical.InmemStorage{} }

func newView(disk logical.Storage) *view { return &view{disk: disk} }

// weather sets what goes wrong from now on.
func (v *view) weather(f func(operation, string) fault) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.fault = f
}

// all lets every operation end like this.
func (v *view) all(f fault) { v.weather(func(operation, string) fault { return f }) }

// only lets operations of one kind end like this.
func (v *view) only(op operation, f fault) {
	v.weather(func(o operation, _ string) fault {
		if o == op {
			return f
		}
		return works
	})
}

// puts lets the writes of entries, but not of epochs, end like this.
func (v *view) puts(f fault) {
	v.weather(func(o operation, key string) fault {
		if o == opPut && strings.Contains(key, "/"+accountsPrefix) {
			return f
		}
		return works
	})
}

// kill ends the process: nothing that it asks for happens from now on. It
// returns the writes that are under way, which may still land.
func (v *view) kill() (late []*hungOperation) {
	v.mu.Lock()
	v.dead = true
	hung := v.hung
	v.hung = nil
	v.mu.Unlock()
	for _, h := range hung {
		if h.op == opPut || h.op == opDelete {
			late = append(late, h)
		}
		h.release <- refused
	}
	return late
}

// land lets a late write of a dead process happen.
func (h *hungOperation) land(disk logical.Storage) {
	if h.op == opPut {
		_ = disk.Put(context.Background(), h.entry)
	} else {
		_ = disk.Delete(context.Background(), h.entry.Key)
	}
}

// free answers the operations that hang.
func (v *view) free(f fault) {
	v.mu.Lock()
	hung := v.hung
	v.hung = nil
	v.mu.Unlock()
	for _, h := range hung {
		h.release <- f
	}
}

// hanging says how many operations hang.
func (v *view) hanging() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.hung)
}

// count says how many operations of a kind there were.
func (v *view) count(op operation) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.counts[op]
}

// total says how many operations there were.
func (v *view) total() (n int) {
	for op := range numOperations {
		n += v.count(op)
	}
	return n
}

// written returns the keys of the puts so far.
func (v *view) written() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.log)
}

// do runs an operation as its fault wants it.
func (v *view) do(op operation, entry *logical.StorageEntry, happen func() error) error {
	v.mu.Lock()
	v.counts[op]++
	if op == opPut {
		v.log = append(v.log, entry.Key)
	}
	f := works
	if v.dead {
		f = refused
	} else if v.fault != nil {
		f = v.fault(op, entry.Key)
	}
	if f == hangs {
		h := &hungOperation{op: op, entry: entry, release: make(chan fault)}
		v.hung = append(v.hung, h)
		v.mu.Unlock()
		f = <-h.release
		v.mu.Lock()
	}
	dead := v.dead
	v.mu.Unlock()
	switch {
	case dead:
		return errDead
	case f == refused:
		return errRefused
	}
	err := happen()
	if f == answered && err == nil {
		err = errAnswered
	}
	return err
}

func (v *view) Get(ctx context.Context, key string) (entry *logical.StorageEntry, err error) {
	err = v.do(opGet, &logical.StorageEntry{Key: key}, func() (err error) {
		entry, err = v.disk.Get(ctx, key)
		return err
	})
	if err != nil {
		return nil, err
	}
	return entry, nil
}

func (v *view) Put(ctx context.Context, entry *logical.StorageEntry) error {
	return v.do(opPut, entry, func() error { return v.disk.Put(ctx, entry) })
}

func (v *view) Delete(ctx context.Context, key string) error {
	return v.do(opDelete, &logical.StorageEntry{Key: key}, func() error { return v.disk.Delete(ctx, key) })
}

func (v *view) List(ctx context.Context, prefix string) (keys []string, err error) {
	err = v.do(opList, &logical.StorageEntry{Key: prefix}, func() (err error) {
		keys, err = v.disk.List(ctx, prefix)
		return err
	})
	if err != nil {
		return nil, err
	}
	return keys, nil
}

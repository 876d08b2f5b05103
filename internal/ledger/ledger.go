// SPDX-License-Identifier: MPL-2.0

package ledger

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// Options are the ledger's parameters.
type Options struct {
	// Storage holds the entries, below Prefix, which ends in a slash.
	Storage logical.Storage
	Prefix  string
	// Clock is the time; nil means SystemClock.
	Clock Clock
	// Owner tells this process from any other, and is a part of storage keys: a
	// UUID, say.
	Owner string
	// QueueWait is how long a request waits for reservations in flight that are
	// in its way, 2 s if 0; negative means not at all. QueueLength is how many
	// may wait on one account, 1,024 if 0.
	QueueWait   time.Duration
	QueueLength int
	// StorageWait is how long a request waits for storage, 5 s if 0.
	StorageWait time.Duration
	// Alerted is told that a threshold was crossed; it must not block or call
	// the ledger. nil ignores.
	Alerted func(Alert)
	// Warn is told of trouble that nobody else is told of; nil ignores.
	Warn func(message string, err error)
}

// Alert says that what was used of a limit has crossed a threshold.
type Alert struct {
	// Account is the virtual key's UUID, Name its name; Entity is the entity
	// that the limit counts apart, or empty.
	Account, Name, Entity string
	Limit                 Limit
	// Percent is the threshold, Used what is used, in the limit's unit.
	Percent  int
	Used     int64
	ResetsAt time.Time
}

// Ledger keeps the limits of all virtual keys of a mount. It is safe for
// concurrent use.
type Ledger struct {
	storage     logical.Storage
	prefix      string
	clock       Clock
	owner       string
	queueWait   time.Duration
	queueLength int
	storageWait time.Duration
	alerted     func(Alert)
	warn        func(string, error)

	epoch     uint64
	own       string       // the last part of the keys of this process's entries
	lastOK    atomic.Int64 // monotonic time of the last round trip that found the epoch to be ours
	verifying atomic.Pointer[round]
	fenced    atomic.Bool
	closing   atomic.Bool
	working   sync.WaitGroup // writes, loads and deletions under way

	seed    maphash.Seed
	shards  [shardCount]shard
	dropped sync.Map // ids of accounts that are gone for good
}

// shardCount spreads accounts over locks, so that virtual keys don't wait for
// each other.
const shardCount = 64

type shard struct {
	mu       sync.RWMutex
	accounts map[string]*account
	_        [64]byte // a cache line of its own
}

// Open takes an epoch newer than any before and returns a ledger over what is
// stored. It reads one entry and writes one, however many there are.
func Open(ctx context.Context, o Options) (*Ledger, error) {
	if o.Owner == "" || strings.Contains(o.Owner, "/") {
		return nil, fmt.Errorf("a ledger's owner can't be %q", o.Owner)
	}
	l := &Ledger{
		storage: o.Storage, prefix: o.Prefix, clock: o.Clock, owner: o.Owner,
		queueWait: o.QueueWait, queueLength: o.QueueLength, storageWait: o.StorageWait,
		alerted: o.Alerted, warn: o.Warn, seed: maphash.MakeSeed(),
	}
	if l.clock == nil {
		l.clock = SystemClock()
	}
	if l.queueWait == 0 {
		l.queueWait = 2 * time.Second
	}
	if l.queueLength == 0 {
		l.queueLength = 1024
	}
	if l.storageWait == 0 {
		l.storageWait = 5 * time.Second
	}
	if l.alerted == nil {
		l.alerted = func(Alert) {}
	}
	if l.warn == nil {
		l.warn = func(string, error) {}
	}
	for i := range l.shards {
		l.shards[i].accounts = map[string]*account{}
	}
	if err := l.takeEpoch(ctx); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *Ledger) shardOf(id string) *shard { return &l.shards[maphash.String(l.seed, id)%shardCount] }

// account returns the account of this id, a new one if it isn't in memory, nil
// if it is gone for good.
func (l *Ledger) account(id, name string) *account {
	s := l.shardOf(id)
	s.mu.RLock()
	a := s.accounts[id]
	s.mu.RUnlock()
	if a != nil {
		return a
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if a = s.accounts[id]; a == nil {
		if _, gone := l.dropped.Load(id); gone {
			return nil
		}
		a = &account{ledger: l, id: id, name: name, scopes: map[string]*scope{}}
		s.accounts[id] = a
	}
	return a
}

// forget removes an account from memory, if it is still this one.
func (l *Ledger) forget(a *account) {
	s := l.shardOf(a.id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.accounts[a.id] == a {
		delete(s.accounts, a.id)
	}
}

// all returns the accounts in memory.
func (l *Ledger) all() []*account {
	var list []*account
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.RLock()
		for _, a := range s.accounts {
			list = append(list, a)
		}
		s.mu.RUnlock()
	}
	return list
}

// lock returns the account of this id, locked; nil if it is gone for good.
func (l *Ledger) lock(id, name string) *account {
	for {
		a := l.account(id, name)
		if a == nil {
			return nil
		}
		a.mu.Lock()
		if !a.gone {
			if name != "" {
				a.name = name
			}
			return a
		}
		a.mu.Unlock()
		l.forget(a)
	}
}

// The reasons for which a process admits nothing any more.
var (
	errClosing = errors.New("this instance is ending")
	errFenced  = errors.New("another instance has taken over")
)

// over says why this process admits nothing any more, nil if it still may.
func (l *Ledger) over() error {
	switch {
	case l.fenced.Load():
		return errFenced
	case l.closing.Load():
		return errClosing
	}
	return nil
}

// closePoll is how often Close looks whether a reservation has ended.
const closePoll = 2 * time.Millisecond

// Close ends admission for good, waits for the reservations in flight, but no
// longer than drain, and then writes exact figures until ctx ends. Reservations
// that haven't ended by then are covered by what was written.
func (l *Ledger) Close(ctx context.Context, drain time.Duration) error {
	l.closing.Store(true)
	drained, cancel := context.WithTimeout(ctx, drain)
	defer cancel()
	accounts := l.all() // those that come later find the ledger closing
	for _, a := range accounts {
		a.close()
	}
	for _, a := range accounts {
		for a.inFlight() > 0 && drained.Err() == nil {
			time.Sleep(closePoll)
		}
	}
	return l.writeAll(ctx, accounts)
}

// closers is how many entries are written at once at the end.
const closers = 32

func (l *Ledger) writeAll(ctx context.Context, accounts []*account) error {
	var mu sync.Mutex
	var errs []error
	var group sync.WaitGroup
	slots := make(chan struct{}, closers)
	for _, a := range accounts {
		for _, sc := range a.unwritten() {
			slots <- struct{}{}
			group.Go(func() {
				defer func() { <-slots }()
				if err := sc.flush(ctx); err != nil {
					mu.Lock()
					errs = append(errs, err)
					mu.Unlock()
				}
			})
		}
	}
	group.Wait()
	if len(errs) > 0 {
		return errors.Join(errs[:min(len(errs), 3)]...)
	}
	return nil
}

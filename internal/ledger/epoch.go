// SPDX-License-Identifier: MPL-2.0

package ledger

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// epochEntry says which process may write: the one that wrote it last.
type epochEntry struct {
	Epoch uint64 `json:"epoch"`
	Owner string `json:"owner"`
}

func (l *Ledger) epochKey() string { return l.prefix + "epoch" }

// takeEpoch makes this process the one that may write.
func (l *Ledger) takeEpoch(ctx context.Context) error {
	last, err := l.readEpoch(ctx)
	if err != nil {
		return err
	}
	l.epoch = last.Epoch + 1
	l.own = entryName(l.epoch, l.owner)
	value, err := json.Marshal(epochEntry{l.epoch, l.owner})
	if err != nil {
		return fmt.Errorf("encoding the ledger's epoch: %w", err)
	}
	if err := l.storage.Put(ctx, &logical.StorageEntry{Key: l.epochKey(), Value: value}); err != nil {
		return fmt.Errorf("writing the ledger's epoch: %w", err)
	}
	return l.verify(ctx)
}

func (l *Ledger) readEpoch(ctx context.Context) (e epochEntry, err error) {
	entry, err := l.storage.Get(ctx, l.epochKey())
	if err != nil {
		return e, fmt.Errorf("reading the ledger's epoch: %w", err)
	}
	if entry == nil {
		return e, nil
	}
	if err := json.Unmarshal(entry.Value, &e); err != nil {
		return e, fmt.Errorf("the ledger's epoch is damaged: %w", err)
	}
	return e, nil
}

// verify asks storage whether this process may still write, and ends its
// admission for good if another has taken over.
func (l *Ledger) verify(ctx context.Context) error {
	// The time from before the question: what was true then may not be later.
	asked := l.mono()
	e, err := l.readEpoch(ctx)
	if err != nil {
		return err
	}
	if e.Epoch != l.epoch || e.Owner != l.owner {
		return l.fence()
	}
	if last := l.lastOK.Load(); asked > last {
		l.lastOK.CompareAndSwap(last, asked)
	}
	return nil
}

// fence ends this process's admission for good.
func (l *Ledger) fence() error {
	if l.fenced.CompareAndSwap(false, true) {
		l.warn("another instance writes the ledger; this one admits nothing any more", errFenced)
	}
	return errFenced
}

// Fenced says whether another process has taken over.
func (l *Ledger) Fenced() bool { return l.fenced.Load() }

// A process that storage hasn't confirmed for stale admits nothing until it
// does; after refreshAfter it is asked in the background.
const (
	refreshAfter = int64(time.Second)
	stale        = int64(5 * time.Second)
)

// round is one question to storage that several wait for.
type round struct {
	done chan struct{}
	err  error
}

// fresh returns the time, if storage has lately confirmed that this process may
// admit.
func (l *Ledger) fresh(ctx context.Context) (moment, error) {
	now := l.now()
	if err := l.over(); err != nil {
		return now, err
	}
	if now.mono-l.lastOK.Load() < refreshAfter {
		return now, nil
	}
	r := l.refresh()
	if l.recent(now.mono) {
		return now, nil
	}
	err := l.confirmed(ctx, r)
	return l.now(), err
}

// Confirm returns nil if storage has lately confirmed that this process may
// admit, or does so now. Those who admit what no limit holds ask it.
func (l *Ledger) Confirm(ctx context.Context) error {
	_, err := l.fresh(ctx)
	return err
}

// confirmed waits until storage has confirmed that this process may admit.
func (l *Ledger) confirmed(ctx context.Context, r *round) error {
	timeout, stop := l.clock.After(l.storageWait)
	defer stop()
	for {
		select {
		case <-r.done:
		case <-timeout:
			return errSlow
		case <-ctx.Done():
			return ctx.Err()
		}
		if r.err != nil || l.recent(l.mono()) {
			return r.err
		}
		r = l.refresh() // that question was an old one
	}
}

// recent says whether storage has lately confirmed that this process may admit.
func (l *Ledger) recent(mono int64) bool { return mono-l.lastOK.Load() < stale }

// refresh asks storage in the background, once at a time.
func (l *Ledger) refresh() *round {
	for {
		if r := l.verifying.Load(); r != nil {
			return r
		}
		r := &round{done: make(chan struct{})}
		if !l.verifying.CompareAndSwap(nil, r) {
			continue
		}
		l.working.Go(func() {
			r.err = l.verify(context.Background())
			l.verifying.Store(nil)
			close(r.done)
		})
		return r
	}
}

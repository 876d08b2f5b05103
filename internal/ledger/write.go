// SPDX-License-Identifier: MPL-2.0

package ledger

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/hashicorp/vault/sdk/logical"
)

// kick starts a write of the scope, unless one is under way: that one goes on
// for as long as somebody waits for more.
func (sc *scope) kick() {
	if sc.writing || sc.account.gone || !sc.loaded {
		return
	}
	sc.writing = true
	sc.account.ledger.working.Go(sc.write)
}

// ended returns what is closed when the next write has ended.
func (sc *scope) ended() <-chan struct{} {
	if sc.wake == nil {
		sc.wake = make(chan struct{})
	}
	return sc.wake
}

// write writes the scope until its watermarks cover all that waits, or storage
// fails. It isn't abandoned when those who wait for it give up: a write that
// nobody watches could land after a later one.
func (sc *scope) write() {
	a := sc.account
	for again := true; again; {
		err := sc.store(context.Background())
		a.mu.Lock()
		sc.finish(err)
		again = err == nil && sc.short() && !a.gone
		sc.writing = again
		a.mu.Unlock()
	}
}

// store is one round trip: the entry is written, and then the epoch read. That
// is what makes the watermark good: a process that took over before has bumped
// the epoch before it read the entry, and one that takes over later finds the
// watermark there.
func (sc *scope) store(ctx context.Context) error {
	a := sc.account
	l := a.ledger
	a.mu.Lock()
	sc.began++
	sc.inWrite = sc.inWrite[:0]
	switch {
	case a.gone:
		a.mu.Unlock()
		return ErrDeleted
	case l.fenced.Load():
		a.mu.Unlock()
		return errFenced
	}
	e := sc.snapshot(l.now())
	a.mu.Unlock()

	key := sc.dir + l.own
	value, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", key, err)
	}
	if err := l.storage.Put(ctx, &logical.StorageEntry{Key: key, Value: value}); err != nil {
		return fmt.Errorf("writing %s: %w", key, err)
	}
	return l.verify(ctx)
}

// finish takes down how a write ended.
func (sc *scope) finish(err error) {
	for _, c := range sc.inWrite {
		if err != nil {
			c.floor = max(c.floor, c.attempt)
			continue
		}
		c.mark, c.floor = c.attempt, 0
	}
	if err != nil {
		sc.failure, sc.failed = err, sc.began
	} else {
		sc.clean = sc.wholeNow && sc.version == sc.asOf
		if sc.precise {
			sc.exactly = sc.began
		}
		sc.precise = false
		sc.clearOlder()
	}
	sc.wroteAt = sc.account.ledger.mono()
	if sc.wake != nil {
		close(sc.wake)
		sc.wake = nil
	}
}

// clearOlder deletes, in the background, the entries of older processes: what
// they say is in this one's. Those that stay for an error are found by the next
// process.
func (sc *scope) clearOlder() {
	older := sc.older
	sc.older = nil
	if len(older) == 0 {
		return
	}
	l := sc.account.ledger
	l.working.Go(func() {
		for _, name := range older {
			if err := l.storage.Delete(context.Background(), sc.dir+name); err != nil {
				return
			}
		}
	})
}

// short says whether somebody waits for a higher watermark than there is.
func (sc *scope) short() bool {
	for _, s := range sc.series {
		for _, c := range s.counters {
			if min(c.want, c.total()) > c.mark {
				return true
			}
		}
	}
	return false
}

// flush writes the scope's exact figures.
func (sc *scope) flush(ctx context.Context) error {
	a := sc.account
	a.mu.Lock()
	defer a.mu.Unlock()
	if !sc.loaded || !sc.durable {
		return nil
	}
	for since := sc.began; !sc.clean && sc.exactly <= since; {
		switch {
		case sc.failure != nil && sc.failed > since:
			return sc.failure
		case a.gone:
			return ErrDeleted
		}
		sc.precise = true
		sc.kick()
		wake := sc.ended()
		a.mu.Unlock()
		select {
		case <-wake:
		case <-ctx.Done():
		}
		a.mu.Lock()
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("writing %s: %w", sc.dir, err)
		}
	}
	return nil
}

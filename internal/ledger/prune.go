// SPDX-License-Identifier: MPL-2.0

package ledger

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
)

// errPruned makes those who waited for a scope that was deleted look for it
// again.
var errPruned = errors.New("the counts were old and have been deleted")

// Prune deletes what is stored of entities whose counts all ended long ago: there
// is no end to the entities that come and go. It is to be called now and then,
// by the one process that may write, and takes a read for each stored entity that
// isn't in memory.
func (l *Ledger) Prune(ctx context.Context) error {
	ids, err := l.storage.List(ctx, l.prefix+accountsPrefix)
	if err != nil {
		return fmt.Errorf("listing the accounts: %w", err)
	}
	for _, id := range ids {
		id = strings.TrimSuffix(id, "/")
		entities, err := l.Entities(ctx, id)
		if err != nil {
			return err
		}
		for _, entity := range entities {
			if err := l.pruneEntity(ctx, id, entity); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *Ledger) pruneEntity(ctx context.Context, id, entity string) error {
	if err := errors.Join(ctx.Err(), l.over()); err != nil {
		return err
	}
	a := l.lock(id, "")
	if a == nil {
		return nil // deleted meanwhile
	}
	if a.scopes[entity] != nil {
		a.mu.Unlock()
		return nil // in use
	}
	// Whoever asks for it now waits until it is gone, or known to be needed.
	sc := a.newScope(entity, true)
	r := &round{done: make(chan struct{})}
	sc.loading = r
	a.scopes[entity] = sc
	a.mu.Unlock()

	r.err = errPruned
	err := sc.eraseIfOver(ctx)
	a.mu.Lock()
	sc.loading = nil
	delete(a.scopes, entity)
	a.mu.Unlock()
	close(r.done)
	return err
}

// eraseIfOver deletes the scope's entries if nothing in them counts any more.
func (sc *scope) eraseIfOver(ctx context.Context) error {
	entries, older, err := sc.fetch(ctx)
	if err != nil {
		return err
	}
	l := sc.account.ledger
	now := l.now()
	for _, e := range entries {
		for i := range e.Counters {
			if !e.Counters[i].over(now) {
				return nil
			}
		}
	}
	// Those and no others: by now there may be one of a newer process.
	for _, name := range append(older, l.own) {
		if err := l.eraseOne(ctx, sc.dir+name); err != nil {
			return err
		}
	}
	return nil
}

// over says whether a stored counter's window ended so long ago that no clock
// steps back into it.
func (e *counterEntry) over(now moment) bool {
	if e.Sliding > 0 {
		last := int64(0)
		for _, b := range e.Buckets {
			last = max(last, b[0])
		}
		// What the watermark covers beside the buckets counted from when it was
		// written, and nobody knows when that was.
		return e.Mark == e.Used && now.wall.Sub(time.UnixMilli(last)) > time.Duration(keepFor)*time.Second
	}
	return e.End < math.MaxInt64-keepFor && e.End+keepFor < now.unix
}

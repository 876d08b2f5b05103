// SPDX-License-Identifier: MPL-2.0

package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// What is idle for exactAfter is written exactly, so that a crash finds nothing
// to guess; and after evictAfter it leaves memory.
const (
	exactAfter = int64(time.Minute)
	evictAfter = int64(5 * time.Minute)
	trimAfter  = int64(time.Second)
)

// Sweep does what nobody waits for: it is to be called about once a second. It
// takes watermarks back that stand far above what they cover, writes exact
// figures of what is idle, and removes from memory what has been idle for long.
func (l *Ledger) Sweep() {
	if l.closing.Load() || l.fenced.Load() {
		return
	}
	for _, a := range l.all() {
		a.sweep(l.now())
	}
}

func (a *account) sweep(now moment) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.serve() // windows may have ended
	if a.shared != nil && a.shared.sweep(now) {
		a.shared = nil
	}
	for entity, sc := range a.scopes {
		if sc.sweep(now) {
			delete(a.scopes, entity)
		}
	}
	if a.shared == nil && len(a.scopes) == 0 && a.open == 0 && len(a.queue) == 0 {
		a.gone = true
		a.ledger.forget(a)
	}
}

// sweep says whether the scope leaves memory.
func (sc *scope) sweep(now moment) (leaves bool) {
	if sc.writing || sc.loading != nil {
		return false
	}
	idle := now.mono - sc.used
	if sc.holders > 0 {
		idle = 0
	}
	switch {
	case idle > evictAfter && (sc.clean || !sc.durable) && !sc.kept(now, idle):
		return true
	case idle > exactAfter && !sc.clean && sc.durable:
		sc.precise = true
		sc.kick()
	case sc.slack(now):
		sc.kick()
	}
	return false
}

// kept says whether something in the scope would be missed.
func (sc *scope) kept(now moment, idle int64) bool {
	for _, s := range sc.series {
		for _, c := range s.counters {
			if c.kept(now, idle) {
				return true
			}
		}
	}
	return false
}

// slack says whether a watermark doesn't cover all, because a write failed, or
// stands further above that than it would be set now, by more than the headroom.
func (sc *scope) slack(now moment) bool {
	if now.mono-sc.wroteAt < trimAfter {
		return false
	}
	for _, s := range sc.series {
		for _, c := range s.counters {
			if !c.durable {
				continue
			}
			c.tide.turn(now.mono)
			if c.total() > c.mark || c.mark-c.target(s.limit, s.hard) > c.headroom(s.limit) {
				return true
			}
		}
	}
	return false
}

// Drop forgets an account for good, with all that it counted: its virtual key
// was deleted. The entries are deleted in the background; should that be cut
// short, Resume goes on with it.
func (l *Ledger) Drop(ctx context.Context, id string) error {
	l.dropped.Store(id, nil)
	s := l.shardOf(id)
	s.mu.RLock()
	a := s.accounts[id]
	s.mu.RUnlock()
	var writes []<-chan struct{}
	if a != nil {
		writes = a.end()
		l.forget(a)
	}
	if err := l.storage.Put(ctx, &logical.StorageEntry{Key: l.prefix + droppedPrefix + id, Value: []byte("{}")}); err != nil {
		return fmt.Errorf("noting that the counts of a deleted virtual key are to go: %w", err)
	}
	l.working.Go(func() {
		for _, ended := range writes {
			<-ended
		}
		if err := l.erase(context.WithoutCancel(ctx), id); err != nil {
			l.warn("the counts of a deleted virtual key stay until the plugin starts again", err)
		}
	})
	return nil
}

// end makes the account one that nothing is admitted on any more, and returns
// what tells that its last writes have ended.
func (a *account) end() (writes []<-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.gone = true
	a.serve()
	a.each(func(sc *scope) {
		if sc.writing {
			writes = append(writes, sc.ended())
		}
	})
	return writes
}

// Resume deletes what Drop left.
func (l *Ledger) Resume(ctx context.Context) error {
	ids, err := l.storage.List(ctx, l.prefix+droppedPrefix)
	if err != nil {
		return fmt.Errorf("listing the counts of deleted virtual keys: %w", err)
	}
	for _, id := range ids {
		if err := l.erase(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

func (l *Ledger) erase(ctx context.Context, id string) error {
	entities, err := l.storage.List(ctx, l.accountPrefix(id)+entityPrefix)
	if err != nil {
		return fmt.Errorf("listing the counts of a deleted virtual key: %w", err)
	}
	dirs := []string{l.accountPrefix(id) + sharedPrefix}
	for _, entity := range entities {
		dirs = append(dirs, l.accountPrefix(id)+entityPrefix+entity)
	}
	for _, dir := range dirs {
		if err := l.eraseAll(ctx, dir); err != nil {
			return err
		}
	}
	return l.eraseOne(ctx, l.prefix+droppedPrefix+id)
}

func (l *Ledger) eraseAll(ctx context.Context, dir string) error {
	names, err := l.storage.List(ctx, dir)
	if err != nil {
		return fmt.Errorf("listing %s: %w", dir, err)
	}
	for _, name := range names {
		if err := l.eraseOne(ctx, dir+name); err != nil {
			return err
		}
	}
	return nil
}

func (l *Ledger) eraseOne(ctx context.Context, key string) error {
	if l.closing.Load() {
		return errClosing
	}
	if err := l.storage.Delete(ctx, key); err != nil {
		return fmt.Errorf("deleting %s: %w", key, err)
	}
	return nil
}

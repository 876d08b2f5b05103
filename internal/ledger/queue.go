// SPDX-License-Identifier: MPL-2.0

package ledger

import (
	"context"
	"slices"
)

// waiter is a request in the queue.
type waiter struct {
	shared, own *scope
	req         *Request
	r           *Reservation
	decided     chan struct{}
	refusal     *Refusal
}

// queued waits, for at most the ledger's time, until the request fits or
// can't fit any more. The account is locked before and after.
func (a *account) queued(ctx context.Context, shared, own *scope, req *Request, r *Reservation, refusal *Refusal) *Refusal {
	if len(a.queue) >= a.ledger.queueLength {
		return refusal
	}
	w := &waiter{shared: shared, own: own, req: req, r: r, decided: make(chan struct{}), refusal: refusal}
	a.queue = append(a.queue, w)
	shared.hold()
	own.hold()
	a.mu.Unlock()
	timeout, stop := a.ledger.clock.After(a.ledger.queueWait)
	gone := false
	select {
	case <-w.decided:
	case <-timeout:
	case <-ctx.Done():
		gone = true
	}
	stop()
	a.mu.Lock()
	shared.release()
	own.release()
	if i := slices.Index(a.queue, w); i >= 0 {
		a.queue = slices.Delete(a.queue, i, i+1)
	}
	if gone && w.refusal != nil {
		return &Refusal{Reason: Gone, Account: a.name, Cause: ctx.Err()}
	}
	return w.refusal
}

// serve decides what can be decided in the queue, in the order of arrival.
func (a *account) serve() {
	if len(a.queue) == 0 {
		return
	}
	now := a.ledger.now()
	rest := a.queue[:0]
	for _, w := range a.queue {
		if w.refusal = a.try(now, w.shared, w.own, w.req, w.r); w.refusal != nil && w.refusal.Reason == Reserved {
			rest = append(rest, w)
			continue
		}
		close(w.decided)
	}
	clear(a.queue[len(rest):])
	a.queue = rest
}

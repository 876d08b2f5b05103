// SPDX-License-Identifier: MPL-2.0

package ledger

import (
	"context"
)

// secure waits until storage covers the reservation, and gives it up if
// storage refuses or takes too long. The account is locked before, not after.
func (a *account) secure(ctx context.Context, r *Reservation) *Refusal {
	timeout, stop := a.ledger.clock.After(a.ledger.storageWait)
	defer stop()
	since := r.attempts()
	for !r.covered() {
		wake, err := r.await(&since)
		if err == nil {
			a.mu.Unlock()
			select {
			case <-wake:
			case <-timeout:
				err = errSlow
			case <-ctx.Done():
				err = ctx.Err()
			}
			a.mu.Lock()
		}
		if err != nil && !r.covered() {
			return a.giveUp(ctx, r, err) // unlocks
		}
	}
	if ctx.Err() != nil { // nobody is there to send it for
		return a.giveUp(ctx, r, ctx.Err())
	}
	if err := a.shut(a.ledger.mono()); err != nil {
		return a.giveUp(ctx, r, err)
	}
	a.mu.Unlock()
	return nil
}

// giveUp ends a reservation that nothing may be sent for, and unlocks.
func (a *account) giveUp(ctx context.Context, r *Reservation, err error) *Refusal {
	r.release(a.ledger.mono(), Charge{})
	a.mu.Unlock()
	return a.ledger.unavailable(ctx, r.policy, err)
}

// attempts are the numbers of the writes that have begun for the scopes of the
// reservation: the shared one and an entity's.
func (r *Reservation) attempts() (since [2]uint64) {
	for i := range r.n {
		since[r.holds[i].scope.place()] = r.holds[i].scope.began
	}
	return since
}

// await starts the write that the reservation waits for, and returns what tells
// that one has ended; or the error of one that began after since.
func (r *Reservation) await(since *[2]uint64) (<-chan struct{}, error) {
	if r.account.gone {
		return nil, ErrDeleted
	}
	for i := range r.n {
		h := &r.holds[i]
		if h.covered() {
			continue
		}
		sc := h.scope
		if sc.failure != nil && sc.failed > since[sc.place()] {
			return nil, sc.failure
		}
		h.counter.want = max(h.counter.want, h.lacks())
		sc.kick()
		return sc.ended(), nil
	}
	return nil, nil
}

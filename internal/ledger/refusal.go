// SPDX-License-Identifier: MPL-2.0

package ledger

import (
	"fmt"
	"time"
)

// Reason says why a reservation was refused. Later ones weigh more: of several
// limits in the way, the one with the weightiest reason is reported.
type Reason uint8

// The reasons.
const (
	// None: nothing is in the way.
	None Reason = iota
	// Reserved: only reservations in flight are in the way.
	Reserved
	// Busy: too many requests are under way at once.
	Busy
	// Rate: a limit of an hour or less is used up for now.
	Rate
	// Spent: a longer limit is used up until it resets.
	Spent
	// TooLarge: the request is larger than the whole limit.
	TooLarge
	// Unavailable: storage gave no answer, or this process may not admit.
	Unavailable
	// Gone: the caller went away while it waited.
	Gone
)

// Refusal says why a reservation was refused. Nothing was consumed.
type Refusal struct {
	Reason Reason
	// Limit is the one in the way; zero if Reason is Unavailable or Gone.
	Limit Limit
	// Account is the virtual key's name. Entity is the entity that the limit
	// counts apart, empty for none.
	Account, Entity string
	// Amount is the request's worst case, as it was asked for if no smaller one
	// fits; Used and Reserved are what stands in its way, all in the limit's unit.
	Amount, Used, Reserved int64
	// ResetsAt is when the window ends; zero if it never does, or slides.
	ResetsAt time.Time
	// RetryAfter is when trying again may help; 0 means that it won't.
	RetryAfter time.Duration
	// Cause is the trouble with storage, if Reason is Unavailable.
	Cause error
}

// Error implements the error interface with a sentence for people.
func (r *Refusal) Error() string {
	unit := r.Limit.Unit
	amount := func(n int64) string { return unit.Format(n) }
	switch r.Reason {
	case Unavailable:
		return fmt.Sprintf("what virtual key %q has used can't be recorded, so it stays closed: %v", r.Account, r.Cause)
	case Gone:
		return "the caller went away"
	case Busy:
		return fmt.Sprintf("%d requests are under way on %s, which allows %d at once; try again when one has ended", r.Reserved, r.subject(), r.Limit.Max)
	case TooLarge:
		if r.Limit.Max == 0 {
			return fmt.Sprintf("%s allows nothing", r.subject())
		}
		return fmt.Sprintf("the request may need up to %s %s, more than all that %s allows; make it smaller (fewer output tokens, shorter input), or have the limit raised",
			amount(r.Amount), unit, r.subject())
	case Reserved:
		return fmt.Sprintf("%s has %s %s used and %s reserved by requests under way, which leaves less than the %s that this request may need; try again shortly",
			r.subject(), amount(r.Used), unit, amount(r.Reserved), amount(r.Amount))
	}
	var until string
	switch {
	case !r.ResetsAt.IsZero():
		until = "; it resets at " + r.ResetsAt.UTC().Format(time.RFC3339)
	case r.RetryAfter > 0:
		until = fmt.Sprintf("; try again in %s", r.RetryAfter.Round(time.Second))
	default:
		until = "; it never resets"
	}
	return fmt.Sprintf("%s is used up: %s of %s %s used, and this request may need %s%s",
		r.subject(), amount(r.Used), amount(r.Limit.Max), unit, amount(r.Amount), until)
}

// subject names the limit and whose it is.
func (r *Refusal) subject() string {
	whose := fmt.Sprintf("virtual key %q", r.Account)
	if r.Limit.PerEntity {
		if r.Entity == "" {
			whose += " (callers without an entity)"
		} else {
			whose += " (entity " + r.Entity + ")"
		}
	}
	return fmt.Sprintf("the limit %s of %s", r.Limit, whose)
}

// sizeMatters says whether a smaller request might pass this limit.
func sizeMatters(limit *Limit, c *counter, reason Reason) bool {
	switch reason {
	case Reserved, Rate, Spent, TooLarge:
		return limit.Unit != Requests && limit.Unit != Concurrent && c.inUse() < limit.Max
	}
	return false
}

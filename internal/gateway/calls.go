// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"vault-plugin-secrets-portkey/internal/apierror"
)

// calls are the requests under way.
type calls struct {
	n        atomic.Int64
	draining atomic.Bool
	closed   atomic.Bool

	mu       sync.Mutex
	first    *underway
	deadline *time.Timer // of a drain
	ended    bool        // it has passed
}

// underway is one request in the list of those under way.
type underway struct {
	previous, next *underway
	cancel         context.CancelCauseFunc
}

func (c *calls) count() int64 { return c.n.Load() }

// refuses says whether no call is let in.
func (c *calls) refuses() bool { return c.draining.Load() || c.closed.Load() }

// enter counts a call in, and returns a context that ends with ctx, and when calls
// are ended. If there is no error, leave must follow.
func (c *calls) enter(ctx context.Context, u *underway, most int) (context.Context, *apierror.Error) {
	if n := c.n.Add(1); n > int64(most) {
		c.n.Add(-1)
		return nil, &apierror.Error{
			Status: http.StatusTooManyRequests, Type: apierror.TypeRequests, Code: apierror.CodeRateLimitExceeded, RetryAfter: time.Second,
			Message: fmt.Sprintf("%d requests are already under way, the most that max_streams allows; try again shortly", most),
		}
	}
	// Those who close the door wait for the calls that are counted in.
	if c.refuses() {
		c.n.Add(-1)
		return nil, aboutToEnd()
	}
	ctx, u.cancel = context.WithCancelCause(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	if u.next = c.first; u.next != nil {
		u.next.previous = u
	}
	c.first = u
	if c.closed.Load() || c.ended { // the door closed behind this call
		u.cancel(aboutToEnd())
	}
	return ctx, nil
}

func aboutToEnd() *apierror.Error {
	return &apierror.Error{
		Status: http.StatusServiceUnavailable, Type: apierror.TypeAPI, Code: apierror.CodeGatewayUnavailable, RetryAfter: time.Second,
		Message: "this gateway is about to end, and takes no requests any more; try again, at another address if there is one",
	}
}

// leave counts a call out.
func (c *calls) leave(u *underway) {
	c.mu.Lock()
	if u.next != nil {
		u.next.previous = u.previous
	}
	if u.previous != nil {
		u.previous.next = u.next
	} else {
		c.first = u.next
	}
	c.mu.Unlock()
	u.cancel(nil)
	c.n.Add(-1)
}

// end ends the calls that are under way. The lock is held.
func (c *calls) end() {
	for u := c.first; u != nil; u = u.next {
		u.cancel(aboutToEnd())
	}
}

// drain refuses calls from now on, and ends those under way after timeout; nil
// takes calls again.
func (c *calls) drain(timeout *time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.deadline != nil {
		c.deadline.Stop()
		c.deadline = nil
	}
	c.ended = false
	c.draining.Store(timeout != nil)
	if timeout == nil {
		return
	}
	var own *time.Timer
	own = time.AfterFunc(*timeout, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.deadline == own { // else the drain was called off meanwhile
			c.ended = true
			c.end()
		}
	})
	c.deadline = own
}

// close refuses calls for good and ends those under way.
func (c *calls) close() {
	c.closed.Store(true)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.end()
}

// wait waits until no call is under way, or ctx ends.
func (c *calls) wait(ctx context.Context) {
	for c.n.Load() > 0 && ctx.Err() == nil {
		time.Sleep(2 * time.Millisecond)
	}
}

// SPDX-License-Identifier: MPL-2.0

package load

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

// worker asks on one connection. It belongs to one goroutine; its samples may
// be read when that has ended.
type worker struct {
	job     *Job
	samples []sample
	first   *answer // the one that was checked
}

// sample is one answer.
type sample struct {
	start        time.Time
	whole, first time.Duration
}

// run asks until ctx ends, which is no error.
func (w *worker) run(ctx context.Context) error {
	var c *connection
	defer func() {
		if c != nil {
			c.close()
		}
	}()
	deadline := time.Now().Add(w.job.Warmup + w.job.Duration + grace)
	for ctx.Err() == nil {
		if c == nil {
			var err error
			if c, err = dial(ctx, w.job.Addr, deadline); err != nil {
				return ended(ctx, err)
			}
		}
		a, err := c.ask(w.job.Request, w.first == nil)
		if err == nil {
			err = w.check(a)
		}
		if err != nil {
			return ended(ctx, err)
		}
		w.samples = append(w.samples, sample{start: a.start, whole: a.whole, first: a.first})
		if a.close {
			c.close()
			c = nil
		}
	}
	return nil
}

// ended is err, unless it is only that ctx ended.
func ended(ctx context.Context, err error) error {
	var refused *statusError
	if ctx.Err() != nil && !errors.As(err, &refused) {
		return nil
	}
	return err
}

func (w *worker) check(a *answer) error {
	if w.first == nil {
		if err := w.job.Check(a.body); err != nil {
			return err
		}
		w.first = &answer{length: a.length, tail: a.tail}
		return nil
	}
	if a.length != w.first.length || a.tail != w.first.tail {
		return fmt.Errorf("an answer has %d bytes and ends in %q; the first had %d and ended in %q",
			a.length, a.tail, w.first.length, w.first.tail)
	}
	return nil
}

func dial(ctx context.Context, addr string, deadline time.Time) (*connection, error) {
	conn, err := (&net.Dialer{Timeout: grace}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	return newConnection(conn), nil
}

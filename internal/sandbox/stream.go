// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"context"
	"iter"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// stream is a body that is made while it is read.
type stream struct {
	events iter.Seq[event]
	// end is what reading ends with: io.EOF, an error, or nil for never.
	end error
	// pace is how long after began so many tokens are made; nil for at once.
	pace  func(tokens int64) time.Duration
	began time.Time
}

// streamBody reads a stream: an event a Read, or what fits of it. It works in
// the reader's own goroutine. Read and Close may be called at the same time,
// as of any response's body.
type streamBody struct {
	ctx    context.Context
	cancel context.CancelFunc
	clock  Clock
	closed atomic.Bool

	mu      sync.Mutex // held by Read while it waits; cancel ends that
	stream  *stream
	next    func() (event, bool)
	stop    func()
	pending []byte
	err     error // what all further reads get
}

func newStreamBody(ctx context.Context, clock Clock, s *stream) *streamBody {
	b := &streamBody{clock: clock, stream: s}
	b.ctx, b.cancel = context.WithCancel(ctx)
	b.next, b.stop = iter.Pull(s.events)
	return b
}

// Read waits for the next event and gives it. The error is that of the
// request's context, http.ErrBodyReadAfterClose, or how the model ends the
// body.
func (b *streamBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil && b.ctx.Err() != nil {
		b.end(b.ctx.Err())
	}
	if b.err == nil && len(b.pending) == 0 && len(p) > 0 {
		b.fill()
	}
	if b.err != nil {
		return 0, b.err
	}
	n := copy(p, b.pending)
	b.pending = b.pending[n:]
	return n, nil
}

// fill sets either pending or err.
func (b *streamBody) fill() {
	e, ok := b.next()
	if !ok {
		if b.stream.end == nil {
			<-b.ctx.Done()
			b.end(b.ctx.Err())
			return
		}
		b.end(b.stream.end)
		return
	}
	if b.stream.pace != nil {
		// Counting from the beginning keeps the delays from adding up.
		if d := b.stream.began.Add(b.stream.pace(e.due)).Sub(b.clock.Now()); d > 0 {
			if err := b.clock.Sleep(b.ctx, d); err != nil {
				b.end(err)
				return
			}
		}
	}
	b.pending = e.data
}

// end frees what the stream holds.
func (b *streamBody) end(err error) {
	if b.closed.Load() {
		err = http.ErrBodyReadAfterClose
	}
	b.err, b.pending = err, nil
	b.stop()
	b.cancel()
}

// Close ends a Read that waits, and frees what the stream holds. It never
// fails.
func (b *streamBody) Close() error {
	b.closed.Store(true)
	b.cancel()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.end(http.ErrBodyReadAfterClose)
	}
	return nil
}

// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"errors"
	"io"
	"sync"
	"time"
)

// How slowly a body may come: some bytes each bodyPause, and on the whole at its
// sender's pace after a first bodyStart.
const (
	bodyPause = 30 * time.Second
	bodyStart = time.Minute
)

// bodyReader reads a request's body, within bounds of size, and of the speed and the
// share of what all bodies hold that its sender has. One goroutine at a time reads;
// others may meanwhile call interrupt, whole and done.
type bodyReader struct {
	from    io.Reader
	call    *call
	holding bool // what is read stays in memory
	n       int64
	began   time.Time
	set     time.Time // when the deadline was last set

	mu          sync.Mutex // held while a deadline is set
	ended       bool       // all has been read
	failed      bool       // it broke off, or paused for too long
	interrupted bool
}

// start gives the body its first deadline.
func (b *bodyReader) start() {
	b.call.answer.body = b
	b.began = time.Now()
	b.extend(b.began)
}

// extend moves the deadline on, now and then.
func (b *bodyReader) extend(now time.Time) {
	if now.Sub(b.set) < time.Second {
		return
	}
	b.set = now
	deadline := b.began.Add(bodyStart + time.Duration(b.n/int64(b.call.share.pace()))*time.Second)
	if pause := now.Add(bodyPause); pause.Before(deadline) {
		deadline = pause
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.interrupted {
		b.deadline(deadline)
	}
}

// deadline sets the deadline of reads. The lock is held.
func (b *bodyReader) deadline(t time.Time) {
	_ = b.call.answer.control.SetReadDeadline(t) // a connection that can't is a test's
}

// finish takes the deadline away, once the body has been read.
func (b *bodyReader) finish() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.ended {
		b.ended = true
		if !b.interrupted {
			b.deadline(time.Time{})
		}
	}
}

// interrupt gives a read that waits, and those to come, no more than lingerPause, and
// over HTTP/2 no time. A chunked body that was broken off can't be read any more, and
// linger wants to read it, so a sender who sends isn't cut off.
func (b *bodyReader) interrupt() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.ended {
		b.interrupted = true
		pause := lingerPause
		if b.call.http.ProtoMajor != 1 {
			pause = 0
		}
		b.deadline(time.Now().Add(pause))
	}
}

// whole says whether all was read, and the connection can be used again.
func (b *bodyReader) whole() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ended && !b.interrupted
}

// done says whether there is nothing more of the body to come.
func (b *bodyReader) done() bool {
	if b == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ended || b.failed
}

// Read implements io.Reader.
func (b *bodyReader) Read(p []byte) (int, error) {
	n, err := b.from.Read(p)
	if n > 0 {
		b.n += int64(n)
		if most := b.call.live.MaxBodyBytes; b.n > most {
			return 0, tooLarge(most)
		}
		if b.holding {
			if refusal := b.call.share.take(int64(n)); refusal != nil {
				return 0, refusal
			}
		}
		b.extend(time.Now())
	}
	switch {
	case errors.Is(err, io.EOF):
		b.finish()
	case err != nil:
		b.mu.Lock()
		defer b.mu.Unlock()
		b.failed = true
	}
	return n, err
}

// all reads the whole body, of the given length if that is known, else -1.
func (b *bodyReader) all(length int64) ([]byte, error) {
	if length < 0 {
		return io.ReadAll(b)
	}
	// Memory grows with what comes: a length is quickly announced.
	text := make([]byte, min(length, firstBody))
	at := 0
	for {
		n, err := io.ReadFull(b, text[at:])
		at += n
		if err != nil || int64(at) == length {
			return text[:at], err
		}
		larger := make([]byte, min(length, int64(4*at)))
		copy(larger, text)
		text = larger
	}
}

// firstBody is how much memory a body gets before its bytes come.
const firstBody = 64 << 10

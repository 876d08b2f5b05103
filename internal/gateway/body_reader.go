// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"errors"
	"io"
	"time"
)

// How slowly a body may come: some bytes each bodyPause, and on the whole at its
// sender's pace after a first bodyStart.
const (
	bodyPause = 30 * time.Second
	bodyStart = time.Minute
)

// bodyReader reads a request's body, within bounds of size, and of the speed and the
// share of what all bodies hold that its sender has.
type bodyReader struct {
	from    io.Reader
	call    *call
	holding bool // what is read stays in memory
	n       int64
	began   time.Time
	set     time.Time // when the deadline was last set
	ended   bool
}

// start gives the body its first deadline.
func (b *bodyReader) start() {
	b.call.answer.reading = true
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
	_ = b.call.answer.control.SetReadDeadline(deadline) // a connection that can't is a test's
}

// finish takes the deadline away, once the body has been read.
func (b *bodyReader) finish() {
	if !b.ended {
		b.ended = true
		_ = b.call.answer.control.SetReadDeadline(time.Time{})
	}
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
	if errors.Is(err, io.EOF) {
		b.finish()
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

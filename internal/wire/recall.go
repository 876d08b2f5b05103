// SPDX-License-Identifier: MPL-2.0

package wire

import "bytes"

// The bounds of recall.
const (
	maxPrefix = 4 << 10
	maxMisses = 64
)

// recall saves the scan of what a stream's events have in common: most begin
// alike, up to the generated text. It keeps the beginning of one event's data
// and the tap as it is behind it; an event that begins with the same bytes
// starts from there, with the same result.
type recall struct {
	prefix []byte
	tap    tap
	misses int // in a row; after maxMisses nothing more is kept
}

// start prepares t for data that begins with b, and returns what is left of b
// to feed.
func (r *recall) start(t *tap, b []byte) []byte {
	if len(r.prefix) == 0 || !bytes.HasPrefix(b, r.prefix) {
		return b
	}
	r.misses = 0
	t.copy(&r.tap)
	return b[len(r.prefix):]
}

// learn keeps the beginning of b, the data that t has been fed from its start.
func (r *recall) learn(t *tap, b []byte) {
	if r.misses >= maxMisses || t.mark == 0 || t.mark > maxPrefix {
		return
	}
	r.misses++
	r.prefix = append(r.prefix[:0], b[:t.mark]...)
	r.tap.kind = t.kind
	r.tap.reset()
	r.tap.feed(r.prefix)
}

// copy makes t what from is, in its own buffers. from captures nothing.
func (t *tap) copy(from *tap) {
	t.progress, t.capture = from.progress, nil
	t.key = renew(t.key, from.key)
	t.usage = renew(t.usage, from.usage)
	t.model = renew(t.model, from.model)
	t.tier = renew(t.tier, from.tier)
	t.typ = renew(t.typ, from.typ)
}

// renew returns text in buf, or in a larger buffer.
func renew(buf, text []byte) []byte { return append(buf[:0], text...) }

// SPDX-License-Identifier: MPL-2.0

package wire

import (
	"encoding/binary"
	"math/bits"
)

// maxCapture bounds what is kept of one value, in bytes. A real usage object
// has less than 2,000.
const maxCapture = 16 << 10

// field names what the tap looks for in an answer.
type field uint8

const (
	fieldNone     field = iota
	fieldUsage          // an object of token counts
	fieldModel          // a string
	fieldTier           // a string: service_tier
	fieldType           // a string: the type of an event of responses
	fieldChoices        // a list; empty in the usage-only chunk
	fieldError          // anything but null is an error
	fieldExtra          // anything but null makes a chunk worth keeping
	fieldResponse       // an object with usage, model and tier in it
	fieldGroq           // an object with usage in it
	fieldOutput         // a string, or anything with strings in it
	fieldFinish         // a string: why a choice ended
	fieldQuiet          // a string in the output that isn't generated
)

// Where a usage object was found; a higher one wins.
const (
	usageNowhere = iota
	usageInChoice
	usageInGroq
	usageOnTop
)

// tap picks a few values out of one JSON text as it passes, however it is
// split, with memory bounded by maxCapture. It doesn't validate: on a text
// that isn't JSON it finds something or nothing, and never panics.
type tap struct {
	kind Kind
	progress

	// What was found, and the key at hand.
	usage            []byte
	model, tier, typ []byte
	key              []byte

	capture *[]byte // the value that is being captured, one of those above
}

// progress is how far a tap is in its text.
type progress struct {
	// Where the scan is. objects has bit d set if the container at depth d
	// (the root is at 1) is an object; at is what it is the value of.
	depth   int
	objects uint64
	at      [4]field
	state   tapState
	escaped bool // the next byte belongs to an escape
	keyNext bool // the next string is a key
	pending field
	first   bool // the next byte tells whether choices is empty
	keyed   field

	// What is being captured ends when the depth is back at capDepth, or with
	// the string.
	overflow bool
	capDepth int
	capFrom  int

	// outputDepth is the depth of the output container; 0 is none.
	outputDepth int
	counted     bool // the string at hand counts as output

	// What was found.
	started, closed, broken bool
	notObject               bool
	noChoices, hasChoices   bool
	failed, extra, finished bool
	usageAt                 int
	output                  int64

	// fed counts the bytes of earlier calls; mark is how many bytes precede
	// the first string of output, 0 if there was none yet.
	fed, mark int
}

type tapState uint8

const (
	tapBetween tapState = iota
	tapInKey
	tapInString
)

// reset prepares the tap for another text; buffers are kept.
func (t *tap) reset() {
	t.progress = progress{}
	t.key, t.usage, t.model, t.tier, t.typ = t.key[:0], t.usage[:0], t.model[:0], t.tier[:0], t.typ[:0]
	t.capture = nil
}

// whole says whether the text was one JSON object, as far as brackets tell.
func (t *tap) whole() bool { return t.closed && !t.broken }

// feed takes the next part of the text.
func (t *tap) feed(p []byte) {
	if t.notObject || t.broken {
		return
	}
	t.capFrom = 0
	for i := 0; i < len(p); {
		switch t.state {
		case tapInString:
			i = t.inString(p, i)
		case tapInKey:
			i = t.inKey(p, i)
		default:
			i = t.between(p, i)
		}
		if t.notObject || t.broken {
			return
		}
	}
	if t.capture != nil {
		t.keep(p[t.capFrom:])
	}
	t.fed += len(p)
}

// keep appends to what is being captured.
func (t *tap) keep(p []byte) {
	if t.overflow || len(*t.capture)+len(p) > maxCapture {
		t.overflow = true
		return
	}
	*t.capture = append(*t.capture, p...)
}

// begin starts to capture the value at index i into dst.
func (t *tap) begin(dst *[]byte, i int) {
	*dst = (*dst)[:0]
	t.capture, t.capDepth, t.capFrom, t.overflow = dst, t.depth, i, false
}

// end captures up to the index i.
func (t *tap) end(p []byte, i int) {
	t.keep(p[t.capFrom:i])
	if t.overflow {
		*t.capture = (*t.capture)[:0]
	}
	t.capture = nil
}

// between scans from i, outside of strings, to the start of a string or the
// end of p.
func (t *tap) between(p []byte, i int) int {
	for ; i < len(p); i++ {
		if t.pending == fieldNone && !t.first && t.depth > 0 {
			for !structural(p[i]) {
				if i++; i == len(p) {
					return i
				}
			}
		}
		c := p[i]
		if c == ' ' || c == '\n' || c == '\t' || c == '\r' {
			continue
		}
		if t.first {
			t.first = false
			t.noChoices, t.hasChoices = t.noChoices || c == ']', t.hasChoices || c != ']'
		}
		pending := t.pending
		if pending != fieldNone {
			t.value(c, i)
		}
		switch c {
		case '"':
			return t.open(i)
		case '{', '[':
			t.push(c, pending)
		case '}', ']':
			t.pop(p, i)
		case ',':
			t.keyNext = t.depth < 64 && t.objects>>t.depth&1 != 0
		case ':':
			t.pending, t.keyed = t.keyed, fieldNone
		}
		if t.depth <= 0 && !t.outside(c) {
			return len(p)
		}
	}
	return i
}

// structural says whether c is one of  " , : [ ] { }
func structural(c byte) bool {
	const low = 1<<'"' | 1<<',' | 1<<':'
	const high = 1<<('['-64) | 1<<(']'-64) | 1<<('{'-64) | 1<<('}'-64)
	if c < 64 {
		return uint64(low)>>c&1 != 0
	}
	return c < 128 && uint64(high)>>(c-64)&1 != 0
}

// outside judges a byte at depth 0: only the root's closing brace may be
// there.
func (t *tap) outside(c byte) bool {
	switch {
	case t.depth == 0 && c == '}' && t.started && !t.closed:
		t.closed = true
		return true
	case !t.started:
		t.notObject = true
	default:
		t.broken = true
	}
	return false
}

// open enters the string whose quote is at index i.
func (t *tap) open(i int) int {
	if t.depth <= 0 {
		t.notObject, t.broken = !t.started, t.started
		return i + 1
	}
	if t.keyNext {
		t.state, t.keyNext = tapInKey, false
		t.key = t.key[:0]
		return i + 1
	}
	return t.enter(i)
}

// enter enters the string value whose quote is at index i.
func (t *tap) enter(i int) int {
	t.state = tapInString
	if t.mark == 0 && t.isOutput() {
		t.mark = t.fed + i + 1
	}
	return i + 1
}

// isOutput says whether the string value at hand was generated.
func (t *tap) isOutput() bool { return t.counted || t.outputDepth > 0 && t.pending != fieldQuiet }

func (t *tap) push(c byte, as field) {
	if t.depth == 0 && (c != '{' || t.started) {
		t.notObject, t.broken = !t.started, t.started
		return
	}
	t.started = true
	t.depth++
	if t.depth < len(t.at) {
		t.at[t.depth] = as
	}
	if as == fieldOutput && t.outputDepth == 0 {
		t.outputDepth = t.depth
	}
	t.keyNext = false
	if t.depth < 64 {
		t.objects &^= 1 << t.depth
		if c == '{' {
			t.objects |= 1 << t.depth
			t.keyNext = true
		}
	}
}

func (t *tap) pop(p []byte, i int) {
	if t.outputDepth == t.depth {
		t.outputDepth = 0
	}
	t.depth--
	t.keyNext = false
	if t.capture != nil && t.depth <= t.capDepth {
		t.end(p, i+1)
	}
}

// inKey reads a key, and looks up what it means where it stands.
func (t *tap) inKey(p []byte, i int) int {
	e := t.skip(p, i)
	if t.mayMatter() {
		if len(t.key)+e-i > maxKey {
			t.key = append(t.key[:0], 0) // no key that matters
		} else {
			t.key = append(t.key, p[i:e]...)
		}
	}
	if e == len(p) {
		return e
	}
	t.state = tapBetween
	t.keyed = t.lookup()
	// Nearly always a colon follows, and mostly a string: both are passed at
	// once.
	if e++; e == len(p) || p[e] != ':' {
		return e
	}
	t.pending, t.keyed = t.keyed, fieldNone
	if e++; e == len(p) || p[e] != '"' {
		return e
	}
	if t.pending != fieldNone {
		t.value('"', e)
	}
	return t.enter(e)
}

// inString passes a string that is a value.
func (t *tap) inString(p []byte, i int) int {
	e := t.skip(p, i)
	if t.isOutput() {
		t.output += int64(e - i)
	}
	if e == len(p) {
		return e
	}
	t.state, t.counted, t.pending = tapBetween, false, fieldNone
	if t.capture != nil && t.capDepth == t.depth {
		t.end(p, e)
	}
	return e + 1
}

// skip returns the index of the quote that ends the string, or len(p).
func (t *tap) skip(p []byte, i int) int {
	if t.escaped && i < len(p) {
		t.escaped = false
		i++
	}
	quote := -1
	for {
		// Most strings are short. In a long one, each byte is looked at once by each
		// search.
		near := min(i+32, len(p))
		if i = escapeOrQuote(p[:near], i); i == near {
			if quote < i {
				quote = find(p, i, len(p), '"')
			}
			i = find(p, i, quote, '\\')
		}
		switch {
		case i == len(p) || p[i] == '"':
			return i
		case i+1 == len(p):
			t.escaped = true
			return len(p)
		}
		i += 2
	}
}

// escapeOrQuote returns the index of the first backslash or quote from i on, or
// len(p).
func escapeOrQuote(p []byte, i int) int {
	for i+8 <= len(p) {
		if hit := quotes(binary.LittleEndian.Uint64(p[i:])) & tops; hit != 0 {
			return i + bits.TrailingZeros64(hit)/8
		}
		i += 8
	}
	for i < len(p) && p[i] != '"' && p[i] != '\\' {
		i++
	}
	return i
}

// SPDX-License-Identifier: MPL-2.0

package wire

import "bytes"

// reader walks a JSON text that was validated before, in one pass: each call
// moves i past what it read. On a text that isn't valid it ends early and
// never panics.
//
//	for more := r.open('{'); more; more = r.next('}') {
//		key := r.key()
//		… read or skip the value …
//	}
type reader struct {
	t []byte
	i int
}

func (r *reader) space() {
	for r.i < len(r.t) {
		switch r.t[r.i] {
		case ' ', '\n', '\t', '\r':
			r.i++
		default:
			return
		}
	}
}

// peek returns the byte that the next value starts with, 0 at the end.
func (r *reader) peek() byte {
	if r.i >= len(r.t) {
		return 0
	}
	return r.t[r.i]
}

// open enters an object or array; false means that it isn't one, or is empty
// (and then it has been passed).
func (r *reader) open(bracket byte) bool {
	r.space()
	if r.peek() != bracket {
		return false
	}
	r.i++
	r.space()
	if c := r.peek(); c == bracket+2 { // '{' and '}', '[' and ']' are two apart in ASCII
		r.i++
		return false
	}
	return true
}

// next goes on to the next member or element; false means that closing was
// there instead, and has been passed.
func (r *reader) next(closing byte) bool {
	r.space()
	switch r.peek() {
	case ',':
		r.i++
		r.space()
		return true
	case closing:
		r.i++
	}
	return false
}

// key reads a member's key, unescaped, and the colon. The slice lasts as long
// as the text.
func (r *reader) key() []byte {
	raw := r.value()
	r.space()
	if r.peek() == ':' {
		r.i++
		r.space()
	}
	return text(raw)
}

// value passes the next value and returns its text.
func (r *reader) value() []byte {
	start, depth := r.i, 0
	for r.i < len(r.t) {
		switch r.t[r.i] {
		case '"':
			r.string()
		case '{', '[':
			depth++
			r.i++
			continue
		case '}', ']':
			if depth == 0 {
				return r.t[start:r.i]
			}
			depth--
			r.i++
		case ',', ':', ' ', '\n', '\t', '\r':
			if depth == 0 {
				return r.t[start:r.i]
			}
			r.i++
			continue
		default:
			r.i++
			continue
		}
		if depth == 0 {
			return r.t[start:r.i]
		}
	}
	return r.t[start:]
}

// string passes the string that opens at the next byte.
func (r *reader) string() {
	r.i++
	for {
		n := bytes.IndexByte(r.t[r.i:], '"')
		if n < 0 {
			r.i = len(r.t)
			return
		}
		end := r.i + n
		slashes := 0
		for end-slashes > r.i && r.t[end-slashes-1] == '\\' {
			slashes++
		}
		r.i = end + 1
		if slashes%2 == 0 {
			return
		}
	}
}

// text is the content of a string's JSON text, without a copy where nothing is
// escaped; nil if it is no string.
func text(raw []byte) []byte {
	if len(raw) < 2 || raw[0] != '"' {
		return nil
	}
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw[1 : len(raw)-1]
	}
	return []byte(unquote(raw))
}

func isNull(raw []byte) bool { return len(raw) == 0 || raw[0] == 'n' }

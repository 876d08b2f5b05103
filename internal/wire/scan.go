// SPDX-License-Identifier: MPL-2.0

package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math/bits"
	"unicode/utf8"
)

// maxDepth bounds how deeply values may nest, so that a hostile text can't
// exhaust the stack. Real requests stay below 50.
const maxDepth = 500

// scan validates the whole text and fills in the members.
func (o *Object) scan() error {
	s := scanner{t: o.text}
	s.skipSpace()
	if s.peek() != '{' {
		return s.fail("expected '{'")
	}
	if err := s.object(1, &o.members); err != nil {
		return err
	}
	o.close = s.i - 1
	if s.skipSpace(); s.i != len(s.t) {
		return s.fail("something follows the object")
	}
	return nil
}

// scanner walks a JSON text; i is the index of the next byte.
type scanner struct {
	t []byte
	i int
}

func (s *scanner) fail(problem string) error {
	if s.i >= len(s.t) {
		problem = "it ends too early"
	}
	return &SyntaxError{s.i, problem}
}

// peek returns the next byte, or 0 (never valid between tokens) at the end.
func (s *scanner) peek() byte {
	if s.i >= len(s.t) {
		return 0
	}
	return s.t[s.i]
}

func (s *scanner) skipSpace() {
	for s.i < len(s.t) {
		switch s.t[s.i] {
		case ' ', '\n', '\t', '\r':
			s.i++
		default:
			return
		}
	}
}

// object scans the object that opens at the next byte, and appends its members
// to members where that is given.
func (s *scanner) object(depth int, members *[]member) error {
	s.i++ // the opening brace
	if s.skipSpace(); s.peek() == '}' {
		s.i++
		return nil
	}
	for {
		if s.peek() != '"' {
			return s.fail("expected a key in double quotes")
		}
		keyStart := s.i
		if err := s.string(); err != nil {
			return err
		}
		keyEnd := s.i
		if s.skipSpace(); s.peek() != ':' {
			return s.fail("expected ':'")
		}
		s.i++
		s.skipSpace()
		start := s.i
		if err := s.value(depth); err != nil {
			return err
		}
		if members != nil {
			*members = append(*members, member{key: text(s.t[keyStart:keyEnd]), start: start, end: s.i})
		}
		if more, err := s.more('}'); !more {
			return err
		}
	}
}

func (s *scanner) array(depth int) error {
	s.i++ // the opening bracket
	if s.skipSpace(); s.peek() == ']' {
		s.i++
		return nil
	}
	for {
		if err := s.value(depth); err != nil {
			return err
		}
		if more, err := s.more(']'); !more {
			return err
		}
	}
}

// more scans what follows an element: a comma (true) or the closing byte.
func (s *scanner) more(closing byte) (bool, error) {
	s.skipSpace()
	switch s.peek() {
	case ',':
		s.i++
		s.skipSpace()
		return true, nil
	case closing:
		s.i++
		return false, nil
	}
	return false, s.fail("expected ',' or '" + string(closing) + "'")
}

func (s *scanner) value(depth int) error {
	if depth > maxDepth {
		return s.fail("it nests too deeply")
	}
	switch c := s.peek(); {
	case c == '"':
		return s.string()
	case c == '{':
		return s.object(depth+1, nil)
	case c == '[':
		return s.array(depth + 1)
	case c == 't':
		return s.literal("true")
	case c == 'f':
		return s.literal("false")
	case c == 'n':
		return s.literal("null")
	case c == '-' || c >= '0' && c <= '9':
		return s.number()
	}
	return s.fail("expected a value")
}

func (s *scanner) literal(word string) error {
	if !bytes.HasPrefix(s.t[s.i:], []byte(word)) {
		return s.fail("expected a value")
	}
	s.i += len(word)
	return nil
}

// number scans RFC 8259 §6: -? int frac? exp?
func (s *scanner) number() error {
	if s.peek() == '-' {
		s.i++
	}
	if s.peek() == '0' {
		s.i++
	} else if !s.digits() {
		return s.fail("a number needs a digit here")
	}
	if s.peek() == '.' {
		s.i++
		if !s.digits() {
			return s.fail("a number needs a digit here")
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.i++
		if c := s.peek(); c == '+' || c == '-' {
			s.i++
		}
		if !s.digits() {
			return s.fail("a number needs a digit here")
		}
	}
	return nil
}

func (s *scanner) digits() bool {
	start := s.i
	for c := s.peek(); c >= '0' && c <= '9'; c = s.peek() {
		s.i++
	}
	return s.i > start
}

// string scans the string that opens at the next byte. Plain text, which is
// nearly all of a prompt, is passed over eight bytes at a time.
func (s *scanner) string() error {
	i, t := s.i+1, s.t
	var seen uint64 // the top bits tell whether there is anything but ASCII
	for {
		for i+8 <= len(t) {
			x := binary.LittleEndian.Uint64(t[i:])
			seen |= x
			if hit := specials(x); hit != 0 {
				i += bits.TrailingZeros64(hit) / 8
				break
			}
			i += 8
		}
		if i >= len(t) {
			s.i = i
			return s.fail("")
		}
		switch c := t[i]; {
		case c == '"':
			return s.endString(i+1, seen&tops != 0)
		case c < 0x20:
			s.i = i
			return s.fail("a string holds a control character")
		case c == '\\':
			n := escapeLen(t[i:])
			if n == 0 {
				s.i = i
				return s.fail("a string holds a bad escape")
			}
			i += n
		default:
			seen |= uint64(c)
			i++
		}
	}
}

// endString ends the string that opened at the next byte before the index end.
func (s *scanner) endString(end int, decode bool) error {
	if decode && !utf8.Valid(s.t[s.i:end]) {
		return s.fail("a string is not valid UTF-8")
	}
	s.i = end
	return nil
}

const ones, tops = 0x0101010101010101, 0x8080808080808080

// specials marks, by its top bit, the first of the eight bytes of x that is a
// quote, a backslash or a control character; bytes after that one may be
// marked wrongly. For a byte b, (b ^ c) is zero iff b == c, and a byte below n
// (n <= 0x80) borrows its top bit when n is taken away from it.
func specials(x uint64) uint64 {
	below := (x - ones*0x20) & ^x
	return (quotes(x) | below) & tops
}

// quotes is specials without control characters; only top bits count.
func quotes(x uint64) uint64 {
	quote := x ^ ones*'"'
	slash := x ^ ones*'\\'
	return (quote-ones)&^quote | (slash-ones)&^slash
}

// escapeLen returns the length of the escape that t opens with, 0 if it is
// none of RFC 8259 §7.
func escapeLen(t []byte) int {
	if len(t) < 2 {
		return 0
	}
	switch t[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if len(t) < 6 {
			return 0
		}
		for _, c := range t[2:6] {
			switch {
			case c >= '0' && c <= '9', c >= 'a' && c <= 'f', c >= 'A' && c <= 'F':
			default:
				return 0
			}
		}
		return 6
	}
	return 0
}

// unquote returns the text of a string that was scanned.
func unquote(quoted []byte) string {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return string(quoted[1 : len(quoted)-1])
	}
	var s string
	// A string that was scanned always decodes.
	_ = json.Unmarshal(quoted, &s)
	return s
}

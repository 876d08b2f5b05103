// SPDX-License-Identifier: MPL-2.0

package tokens

import (
	"bytes"
	"unicode"
	"unicode/utf8"
)

// class is what the patterns of the encodings ask of a character.
type class uint8

const (
	// upper and lower are the two kinds of letters of o200k_base, which overlap:
	// letters without case and marks are both.
	upper   class = 1 << iota // \p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}
	lower                     // \p{Ll}\p{Lm}\p{Lo}\p{M}
	letter                    // \p{L}
	number                    // \p{N}
	space                     // \s
	newline                   // \r\n
	other                     // [^\s\p{L}\p{N}]
)

// ascii has the classes of ASCII characters.
var ascii = func() (table [utf8.RuneSelf]class) {
	for r := range table {
		table[r] = classify(rune(r))
	}
	return table
}()

func classify(r rune) class {
	switch {
	case r == '\r' || r == '\n':
		return space | newline
	case unicode.Is(unicode.Lo, r), unicode.Is(unicode.Lm, r):
		return upper | lower | letter
	case unicode.Is(unicode.Ll, r):
		return lower | letter
	case unicode.IsLetter(r): // Lu, Lt
		return upper | letter
	case unicode.IsNumber(r):
		return number
	case unicode.IsSpace(r):
		return space
	case unicode.IsMark(r):
		return upper | lower | other
	}
	return other
}

// first returns the class of the first character of text, and its length in
// bytes; nothing at the end of the text.
func first(text []byte) (class, int) {
	if len(text) == 0 {
		return 0, 0
	}
	if c := text[0]; c < utf8.RuneSelf {
		return ascii[c], 1
	}
	r, size := utf8.DecodeRune(text)
	return classify(r), size
}

// run returns the length of what text begins with of these classes.
func run(text []byte, classes class) (n int) {
	for {
		c, size := first(text[n:])
		if c&classes == 0 {
			return n
		}
		n += size
	}
}

// splitO200k is the pattern of o200k_base:
//
//	[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?
//	[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?
//	\p{N}{1,3}
//	 ?[^\s\p{L}\p{N}]+[\r\n/]*
//	\s*[\r\n]+
//	\s+(?!\S)
//	\s+
func splitO200k(text []byte) int {
	c, size := first(text)
	lead := 0
	if c&(letter|number|newline) == 0 {
		lead = size
	}
	n, capitals := word(text[lead:])
	if n > 0 {
		return contracted(text, lead+n)
	}
	if lead > 0 && c&upper != 0 { // a mark that can begin a word itself
		if n, _ := word(text); n > 0 {
			return contracted(text, n)
		}
	}
	if capitals > 0 {
		return contracted(text, lead+capitals)
	}
	if n := numberOrSigns(text, c, size); n > 0 {
		end := n
		for c&number == 0 && end < len(text) && (text[end] == '\r' || text[end] == '\n' || text[end] == '/') {
			end++
		}
		return end
	}
	return spaces(text)
}

// word returns the length of a word of o200k_base that ends in lower letters;
// if text begins with none, it is 0, and capitals is how long the upper ones at
// the beginning are.
func word(text []byte) (n, capitals int) {
	lastLower := 0 // the end of the last one that is both upper and lower
	for {
		c, size := first(text[capitals:])
		if c&upper == 0 {
			break
		}
		if capitals += size; c&lower != 0 {
			lastLower = capitals
		}
	}
	if small := run(text[capitals:], lower); small > 0 {
		return capitals + small, 0
	}
	return lastLower, capitals
}

// contracted adds to the n bytes of a word what may follow it.
func contracted(text []byte, n int) int { return n + contraction(text[n:]) }

// contraction returns the length of (?i:'s|'t|'re|'ve|'m|'ll|'d) at the
// beginning of text, 0 for none. ſ is an s to those who ignore case.
func contraction(text []byte) int {
	if len(text) < 2 || text[0] != '\'' {
		return 0
	}
	if bytes.HasPrefix(text[1:], []byte("ſ")) {
		return 1 + len("ſ")
	}
	switch text[1] | 0x20 {
	case 's', 't', 'm', 'd':
		return 2
	}
	if len(text) > 2 {
		switch pair := [2]byte{text[1] | 0x20, text[2] | 0x20}; pair {
		case [2]byte{'r', 'e'}, [2]byte{'v', 'e'}, [2]byte{'l', 'l'}:
			return 3
		}
	}
	return 0
}

// numberOrSigns returns the length of \p{N}{1,3}| ?[^\s\p{L}\p{N}]+ at the
// beginning of text, of which the first character is given; 0 for none.
func numberOrSigns(text []byte, c class, size int) int {
	if c&number != 0 {
		n := size
		for range 2 {
			c, size := first(text[n:])
			if c&number == 0 {
				break
			}
			n += size
		}
		return n
	}
	lead := 0
	if text[0] == ' ' {
		lead = 1
	}
	if n := run(text[lead:], other); n > 0 {
		return lead + n
	}
	return 0
}

// spaces returns the length of \s*[\r\n]+|\s+(?!\S)|\s+ at the beginning of
// text, which is a space. It is at least 1: no other class is left.
func spaces(text []byte) int {
	end, last, lastNewline := 0, 0, 0
	for {
		c, size := first(text[end:])
		if c&space == 0 {
			break
		}
		last = end
		if end += size; c&newline != 0 {
			lastNewline = end
		}
	}
	switch {
	case lastNewline > 0:
		return lastNewline
	case end < len(text) && last > 0:
		return last
	}
	return end
}

// splitCL100k is the pattern of cl100k_base:
//
//	'(?i:[sdmt]|ll|ve|re)
//	[^\r\n\p{L}\p{N}]?+\p{L}++
//	\p{N}{1,3}+
//	 ?[^\s\p{L}\p{N}]++[\r\n]*+
//	\s++$
//	\s*[\r\n]
//	\s+(?!\S)
//	\s
func splitCL100k(text []byte) int {
	if n := contraction(text); n > 0 {
		return n
	}
	c, size := first(text)
	lead := 0
	if c&(letter|number|newline) == 0 {
		lead = size
	}
	if n := run(text[lead:], letter); n > 0 {
		return lead + n
	}
	if n := numberOrSigns(text, c, size); n > 0 {
		if c&number == 0 {
			n += run(text[n:], newline)
		}
		return n
	}
	if n := run(text, space); n == len(text) {
		return n
	}
	return spaces(text)
}

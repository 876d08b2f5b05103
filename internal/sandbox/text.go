// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"encoding/binary"
	"iter"
	"math/rand/v2"
	"strings"
	"unicode/utf8"
)

// bytesPerToken is the sandbox's tokenizer: four bytes of text are a token,
// and so is what is left of them.
const bytesPerToken = 4

func tokensOf(n int) int64 { return int64(n+bytesPerToken-1) / bytesPerToken }

// cutText returns the longest beginning of s that has at most n bytes and
// doesn't end within a character.
func cutText(s string, n int) string {
	if n >= len(s) {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// pieces yields s in pieces of size bytes, or less where a character would be
// split, with how many bytes of s are through by then. No piece is empty.
func pieces(s string, size int) iter.Seq2[string, int] {
	return func(yield func(string, int) bool) {
		at := 0
		for end := size; at < len(s); end += size {
			upTo := len(cutText(s, end))
			if upTo == at {
				continue
			}
			if !yield(s[at:upTo], min(end, len(s))) {
				return
			}
			at = upTo
		}
	}
}

const (
	opening = "This is a test answer of the sandbox, which is no language model:"
	words   = "amber anchor apple arrow autumn basin beacon birch blossom bridge candle canyon " +
		"cedar chalk cloud clover coast copper coral cotton crystal dawn delta desert drift " +
		"ember falcon feather fern field flint forest frost garden glacier granite grove harbour " +
		"hazel heather hill honey horizon island ivory jasper juniper lagoon lantern lark linen " +
		"maple marble meadow mint mist moss mountain oak ocean olive orchard pebble pine"
	// repeatAfter bounds the work on long answers, which repeat themselves.
	repeatAfter = 64 << 10
)

// prose returns n bytes of text that depend on seed and index alone.
func prose(seed *[32]byte, index int, n int64) string {
	if n > repeatAfter {
		block := prose(seed, index, repeatAfter)
		return strings.Repeat(block, int(n/repeatAfter)) + block[:n%repeatAfter]
	}
	rng := rand.NewPCG(binary.LittleEndian.Uint64(seed[:]), uint64(index)) // #nosec G115 -- an index is never negative
	text := append(make([]byte, 0, max(int(n), len(opening))+16), opening...)
	for int64(len(text)) < n {
		text = append(text, ' ')
		text = append(text, word(rng.Uint64())...)
	}
	if text = text[:n]; n > 1 {
		text[n-1] = '.'
	}
	return string(text)
}

// word picks one of words without splitting the list first: it looks for the
// word that begins at or after a random place.
func word(random uint64) string {
	at := int(random % uint64(len(words))) // #nosec G115 -- less than the length of a short constant
	if i := strings.IndexByte(words[at:], ' '); i >= 0 {
		at += i + 1
	} else {
		at = 0
	}
	rest := words[at:]
	if i := strings.IndexByte(rest, ' '); i >= 0 {
		return rest[:i]
	}
	return rest
}

// SPDX-License-Identifier: MPL-2.0

package tokens

import (
	"compress/gzip"
	"io"
	"math"
	"strings"
)

// maxPiece is the longest piece that is merged, in bytes: merging takes time
// that grows with the square of a piece. A longer one counts a token a byte;
// words, and clauses of Chinese and Japanese, are shorter.
const maxPiece = 64

// A splitter returns the length of the piece of text that starts at its
// beginning. The text isn't empty.
type splitter func(text []byte) int

// Encoding is a vocabulary and the way that text is split before its bytes are
// merged to tokens. It is immutable and safe for concurrent use.
type Encoding struct {
	ranks map[string]uint32
	// two has the ranks of all pairs of bytes: most look-ups are of these.
	two     *[1 << 16]uint32
	longest int // token, in bytes
	split   splitter
}

// newEncoding unpacks a vocabulary: for each rank in order, a token's length in
// one byte and its bytes.
func newEncoding(packed string, split splitter) *Encoding {
	r, err := gzip.NewReader(strings.NewReader(packed))
	if err != nil {
		panic("tokens: a vocabulary is broken: " + err.Error()) // it is part of the binary
	}
	var b strings.Builder
	if _, err := io.Copy(&b, r); err != nil { //nolint:gosec // no bomb: it is part of the binary
		panic("tokens: a vocabulary is broken: " + err.Error())
	}
	e := &Encoding{ranks: make(map[string]uint32, len(packed)/5), two: new([1 << 16]uint32), split: split}
	for i := range e.two {
		e.two[i] = noRank
	}
	for data, rank := b.String(), uint32(0); data != ""; rank++ {
		end := 1 + int(data[0])
		token := data[1:end]
		e.ranks[token] = rank
		if e.longest = max(e.longest, len(token)); len(token) == 2 {
			e.two[uint16(token[0])<<8|uint16(token[1])] = rank
		}
		data = data[end:]
	}
	return e
}

// Count returns how many tokens text has, special tokens taken for plain text.
func (e *Encoding) Count(text []byte) int64 {
	var n int64
	for len(text) > 0 {
		size := e.split(text)
		n += e.countPiece(text[:size])
		text = text[size:]
	}
	return n
}

func (e *Encoding) countPiece(piece []byte) int64 {
	if len(piece) <= e.longest {
		if _, whole := e.ranks[string(piece)]; whole {
			return 1
		}
	}
	if len(piece) > maxPiece {
		return int64(len(piece))
	}
	return e.merge(piece)
}

// noRank is the rank of what isn't in the vocabulary.
const noRank = math.MaxUint32

// merge does byte-pair encoding: of all neighbours that are a token together,
// those of the lowest rank, and of these the leftmost, become one, as long as
// there are any. It returns how many parts are left.
func (e *Encoding) merge(piece []byte) int64 {
	// Part i begins at starts[i]; pairs[i] is the rank of it and the next one.
	var startsArray [maxPiece + 1]uint8
	var pairsArray [maxPiece + 1]uint32
	parts := len(piece)
	starts, pairs := startsArray[:parts+1], pairsArray[:parts]
	for i := range starts {
		starts[i] = uint8(i)
	}
	rank := func(i int) uint32 {
		if i+2 > parts {
			return noRank
		}
		both := piece[starts[i]:starts[i+2]]
		if len(both) == 2 {
			return e.two[uint16(both[0])<<8|uint16(both[1])]
		}
		if len(both) > e.longest {
			return noRank
		}
		if r, ok := e.ranks[string(both)]; ok {
			return r
		}
		return noRank
	}
	for i := range pairs {
		pairs[i] = rank(i)
	}
	for {
		best, at := uint32(noRank), 0
		for i, r := range pairs[:parts] {
			if r < best {
				best, at = r, i
			}
		}
		if best == noRank {
			return int64(parts)
		}
		copy(starts[at+1:], starts[at+2:parts+1])
		copy(pairs[at+1:], pairs[at+2:parts])
		parts--
		pairs[at] = rank(at)
		if at > 0 {
			pairs[at-1] = rank(at - 1)
		}
	}
}

// SPDX-License-Identifier: MPL-2.0

package tokens

import (
	"compress/gzip"
	"io"
	"math"
	"strings"
)

// maxPiece is the longest piece that is merged, in bytes: merging takes time
// that grows with the square of a piece. A longer one counts a token a byte.
const maxPiece = 256

// A splitter returns the length of the piece of text that starts at its
// beginning. The text isn't empty.
type splitter func(text []byte) int

// Encoding is a vocabulary and the way that text is split before its bytes are
// merged to tokens. It is immutable and safe for concurrent use.
type Encoding struct {
	ranks map[string]uint32
	split splitter
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
	e := &Encoding{ranks: make(map[string]uint32, len(packed)/5), split: split}
	for data, rank := b.String(), uint32(0); data != ""; rank++ {
		end := 1 + int(data[0])
		e.ranks[data[1:end]] = rank
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
	switch _, whole := e.ranks[string(piece)]; {
	case whole:
		return 1
	case len(piece) > maxPiece:
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
	var startsArray [maxPiece + 1]uint16
	var pairsArray [maxPiece + 1]uint32
	parts := len(piece)
	starts, pairs := startsArray[:parts+1], pairsArray[:parts]
	for i := range starts {
		starts[i] = uint16(i)
	}
	rank := func(i int) uint32 {
		if i+2 > parts {
			return noRank
		}
		if r, ok := e.ranks[string(piece[starts[i]:starts[i+2]])]; ok {
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

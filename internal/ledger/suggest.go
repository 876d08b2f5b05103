// SPDX-License-Identifier: MPL-2.0

package ledger

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxQuoted is how many bytes of a text errors repeat.
const maxQuoted = 80

// quoted is text for an error: its start if it is long, and escaped.
func quoted(text string) string {
	if len(text) <= maxQuoted {
		return strconv.Quote(text)
	}
	cut := maxQuoted
	for cut > maxQuoted-utf8.UTFMax && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return strconv.Quote(text[:cut]) + "…"
}

// lower is text with its ASCII letters in lower case. Those outside ASCII stay,
// for some of them, such as the Kelvin sign, have an ASCII lower case.
func lower(text string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r - 'A' + 'a'
		}
		return r
	}, text)
}

// didYouMean is the words that suggest a name, none if it is empty.
func didYouMean(name string) string {
	if name == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %s?)", name)
}

// nearest is the one of known that name is most likely a misspelling of, "" if
// none comes near.
func nearest(name string, known []string) string {
	best, least := "", 1+max(1, min(len(name), comparedLen)/3)
	for _, k := range known {
		if d := editDistance(name, k); d < least {
			best, least = k, d
		}
	}
	return best
}

// comparedLen bounds what a misspelling costs, in bytes.
const comparedLen = 32

// editDistance is the Levenshtein distance of a and b in bytes, over the first
// comparedLen of each.
func editDistance(a, b string) int {
	a, b = a[:min(len(a), comparedLen)], b[:min(len(b), comparedLen)]
	var rows [2][comparedLen + 1]int
	above, row := &rows[0], &rows[1]
	for j := range above {
		above[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			substitute := above[j]
			if a[i] != b[j] {
				substitute++
			}
			row[j+1] = min(substitute, above[j+1]+1, row[j]+1)
		}
		above, row = row, above
	}
	return above[len(b)]
}

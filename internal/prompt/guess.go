// SPDX-License-Identifier: MPL-2.0

package prompt

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// Bounds of the search for misspelt names, so that an error costs no more than
// a Render.
const (
	maxGuesses    = 20
	maxCandidates = 200
	maxGuessBytes = 64
)

// unknown are the given variables that the template neither declares nor uses.
func (c *Compiled) unknown(given map[string]json.RawMessage) []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(given)) {
		_, declared := c.variables[name]
		if declared || len(name) > maxGuessBytes || c.uses.surely[name] || c.uses.maybe[name] {
			continue
		}
		if names = append(names, name); len(names) == maxCandidates {
			break
		}
	}
	return names
}

// likely is which of the names was probably meant to be name: the one that is
// spelt most nearly so. It is empty for none.
func likely(name string, names []string) string {
	best, bestDistance := "", 0
	if len(name) > maxGuessBytes {
		return ""
	}
	for _, other := range names {
		d := distance(plain(name), plain(other))
		if d <= min(2, len(name)/3) && (best == "" || d < bestDistance) {
			best, bestDistance = other, d
		}
	}
	return best
}

// plain is a name without what people mix up.
func plain(name string) []rune {
	return []rune(strings.NewReplacer("_", "", "-", "", " ", "").Replace(strings.ToLower(name)))
}

// distance is how many characters must be put in, taken out or replaced to make
// b of a.
func distance(a, b []rune) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i, ca := range a {
		diagonal := row[0]
		row[0] = i + 1
		for j, cb := range b {
			cost := diagonal
			if ca != cb {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}

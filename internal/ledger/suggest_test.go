// SPDX-License-Identifier: MPL-2.0

package ledger

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestQuoted_CutsBetweenRunesAndEscapes(t *testing.T) {
	for text, want := range map[string]string{
		"":                            `""`,
		"a\x00\xff":                   `"a\x00\xff"`,
		strings.Repeat("a", 80):       `"` + strings.Repeat("a", 80) + `"`,
		strings.Repeat("a", 81):       `"` + strings.Repeat("a", 80) + `"…`,
		strings.Repeat("é", 41):       `"` + strings.Repeat("é", 40) + `"…`,
		"a" + strings.Repeat("é", 41): `"a` + strings.Repeat("é", 39) + `"…`,
	} {
		if got := quoted(text); got != want || !utf8.ValidString(got) {
			t.Errorf("%q is quoted %s, want %s", text, got, want)
		}
	}
	if got := quoted(strings.Repeat("\x80", 1000)); len(got) > 4*maxQuoted+10 {
		t.Errorf("%d bytes of no runes are quoted", len(got))
	}
}

func TestLower_ChangesNothingOutsideASCII(t *testing.T) {
	if got := lower("AZaz09_\u212a\u0130É"); got != "azaz09_\u212a\u0130É" {
		t.Errorf("got %q", got)
	}
}

func TestEditDistance_CountsEdits(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"abc", "abc", 0}, {"abc", "abd", 1}, {"abc", "ac", 1}, {"ac", "abc", 1},
		{"kitten", "sitting", 3}, {"tokens", "tokesn", 2}, {strings.Repeat("a", 1000), "", comparedLen},
	} {
		if got := editDistance(c.a, c.b); got != c.want {
			t.Errorf("from %q to %q are %d edits, want %d", c.a, c.b, got, c.want)
		}
	}
}

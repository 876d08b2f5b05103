// SPDX-License-Identifier: MPL-2.0

package ledger

import (
	"maps"
	"strings"
	"testing"

	"github.com/ryanuber/go-glob"
)

func TestLimit_IDLeavesOutTheMax(t *testing.T) {
	for text, want := range map[string]string{
		"usd=100/month per entity on gpt-4*": "usd/month per entity on gpt-4*",
		"usd=1/month per entity on gpt-4*":   "usd/month per entity on gpt-4*",
		"usd=1/month per entity":             "usd/month per entity",
		"usd=1/month on gpt-4*":              "usd/month on gpt-4*",
		"tokens=5/30d":                       "tokens/30d",
		"requests=5/hour":                    "requests/hour",
		"requests=5/1h":                      "requests/1h",
		"concurrent=8":                       "concurrent",
		"concurrent=8 per entity on a":       "concurrent per entity on a",
	} {
		if got := parsed(t, text).ID(); got != want {
			t.Errorf("the identity of %s is %q, want %q", text, got, want)
		}
	}
}

func TestLimit_ObjectHasEveryPart(t *testing.T) {
	for text, want := range map[string]map[string]any{
		"usd=0.5/month per entity on gpt-4*": {
			"limit": "usd=0.5/month per entity on gpt-4*", "unit": "usd", "max": "0.5", "window": "month", "per_entity": true, "models": "gpt-4*",
		},
		"concurrent=8": {"limit": "concurrent=8", "unit": "concurrent", "max": int64(8), "window": "", "per_entity": false, "models": ""},
	} {
		if got := parsed(t, text).Object(); !maps.Equal(got, want) {
			t.Errorf("%s is %v, want %v", text, got, want)
		}
	}
}

func parsed(t *testing.T, text string) Limit {
	t.Helper()
	l, err := ParseLimit(text)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestLimit_AppliesToWhatItsGlobMatches(t *testing.T) {
	for _, c := range []struct {
		models, model string
		want          bool
	}{
		{"", "", true}, {"", "gpt-4o", true}, {"*", "gpt-4o", true}, {"gpt-4o", "gpt-4o", true}, {"gpt-4o", "gpt-4o-mini", false}, {"gpt-4o", "GPT-4o", false},
		{"gpt-4o", "", false}, {"gpt-4*", "gpt-4", true}, {"gpt-4*", "gpt-4o", true}, {"gpt-4*", "o-gpt-4", false}, {"*mini", "gpt-4o-mini", true},
		{"*mini", "mini-x", false}, {"a*b*c", "abc", true}, {"a*b*c", "acb", false}, {"a*b*c", "a-c-b-c", true}, {"a*a", "a", false}, {"*ab*ab", "ab", false},
		{"*a*b*", "ab", true}, {"modèle*", "modèle-1", true}, {"*aab", "aaab", true},
	} {
		if got := (Limit{Models: c.models}).Applies(c.model); got != c.want {
			t.Errorf("%q for %q: %v", c.models, c.model, got)
		}
	}
}

func TestLimit_AppliesAsGoGlobSays(t *testing.T) {
	rng := seededRand(t)
	word := func(letters string, most int) string {
		text := make([]byte, rng.IntN(most+1))
		for i := range text {
			text[i] = letters[rng.IntN(len(letters))]
		}
		return string(text)
	}
	both := 0
	for range 200_000 {
		pattern, name := word("ab**", 8), word("ab*", 12)
		got, want := globMatches(pattern, name), glob.Glob(pattern, name)
		if got != want {
			t.Fatalf("%q for %q: %v, the library says %v", pattern, name, got, want)
		}
		if got {
			both++
		}
	}
	if both < 10_000 {
		t.Fatalf("only %d of the globs matched", both)
	}
}

// hardGlob makes a matcher that tries every way take for ever.
var hardGlob, hardName = strings.Repeat("a*", 100) + "b", strings.Repeat("a", 10_000)

func TestLimit_AppliesDoesNotAllocate(t *testing.T) {
	for glob, model := range map[string]string{"": "gpt-4o", "gpt-4o": "gpt-4o", "gpt-4*": "gpt-4o-2024-08-06", "*4o*mini*": "gpt-4o-mini-x", hardGlob: hardName} {
		l := Limit{Models: glob}
		if n := testing.AllocsPerRun(100, func() { l.Applies(model) }); n != 0 {
			t.Errorf("%.20s: %v allocations", glob, n)
		}
	}
}

func BenchmarkApplies(b *testing.B) {
	for name, c := range map[string][2]string{"prefix": {"gpt-4o*", "gpt-4o-mini-2024-07-18"}, "parts": {"*4o*mini*", "gpt-4o-mini-2024-07-18"}, "hard": {hardGlob, hardName}} {
		b.Run(name, func(b *testing.B) {
			l := Limit{Models: c[0]}
			for b.Loop() {
				l.Applies(c[1])
			}
		})
	}
}

// SPDX-License-Identifier: MPL-2.0

package ledger

import (
	"math"
	"strings"
	"testing"
)

func TestUnit_NamesReadBack(t *testing.T) {
	want := []string{"usd", "requests", "tokens", "input_tokens", "output_tokens", "concurrent"}
	for u := range NumUnits {
		if u.String() != want[u] {
			t.Errorf("unit %d is written %s, want %s", u, u, want[u])
		}
		for _, text := range []string{u.String(), strings.ToUpper(u.String()), "\t " + u.String() + "\n"} {
			if got, err := ParseUnit(text); err != nil || got != u {
				t.Errorf("%q was read as %s, %v", text, got, err)
			}
		}
	}
	if got := NumUnits.String(); got != "unit 6" {
		t.Errorf("what is no unit is written %q", got)
	}
}

func TestParseUnit_SuggestsWhatWasMeant(t *testing.T) {
	for text, want := range map[string]string{
		"dollars": "did you mean usd", "$": "did you mean usd", "US$": "did you mean usd", "cost": "did you mean usd", "udsd": "did you mean usd",
		"request": "did you mean requests", "reqeusts": "did you mean requests", "rpm": "did you mean requests",
		"token": "did you mean tokens", "tpm": "did you mean tokens",
		"prompt_tokens": "did you mean input_tokens", "input-tokens": "did you mean input_tokens",
		"completion_tokens": "did you mean output_tokens", "outputtokens": "did you mean output_tokens",
		"concurrency": "did you mean concurrent", "": "missing", " ": "missing",
		"bananas": "the units are usd, requests, tokens, input_tokens, output_tokens, concurrent, as in usd=100/month",
	} {
		if _, err := ParseUnit(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q gave %v, want an error with %q", text, err, want)
		}
	}
	for _, text := range []string{"bananas", "to\u212aens", "u\u017fd", "usd\x00", "\xff", strings.Repeat("usd", 1000)} {
		if u, err := ParseUnit(text); err == nil {
			t.Errorf("%q was read as %s", text, u)
		}
	}
	if _, err := ParseUnit("bananas"); strings.Contains(err.Error(), "did you mean") {
		t.Errorf("a far guess: %v", err)
	}
}

func TestUnit_FormatsMoneyAsDollarsAndTheRestAsWholeNumbers(t *testing.T) {
	for amount, want := range map[int64]string{0: "0", 1: "0.000000001", 12_500_000_000: "12.5", MaxUSD: "1000000000", -1: "-0.000000001"} {
		if got := USD.Format(amount); got != want {
			t.Errorf("%d nano-USD are written %s, want %s", amount, got, want)
		}
	}
	for u := Requests; u < NumUnits; u++ {
		if got := u.Format(math.MaxInt64); got != "9223372036854775807" {
			t.Errorf("%s are written %s", u, got)
		}
	}
}

func TestUnit_ExamplesAreRight(t *testing.T) {
	for u := range NumUnits {
		if l, err := ParseLimit(u.example()); err != nil || l.Unit != u || l.String() != u.example() {
			t.Errorf("the example %s was read as %s, %v", u.example(), l, err)
		}
	}
}

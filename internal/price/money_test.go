// SPDX-License-Identifier: MPL-2.0

package price

import (
	"math"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestNanoUSD_StringIsAnExactDecimal(t *testing.T) {
	for n, want := range map[NanoUSD]string{
		0: "0", 1: "0.000000001", 123456: "0.000123456", USD: "1", 12*USD + USD/2: "12.5", -1: "-0.000000001",
		-3 * USD: "-3", math.MaxInt64: "9223372036.854775807", math.MinInt64: "-9223372036.854775808",
	} {
		if got := n.String(); got != want {
			t.Errorf("%d is written %s, want %s", int64(n), got, want)
		}
	}
}

func TestParseUSD_ReadsBackWhatStringWrites(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		n := NanoUSD(rng.Int64() >> rng.IntN(63))
		if got, err := ParseUSD(n.String()); err != nil || got != n {
			t.Fatalf("%s was read as %d, %v", n, got, err)
		}
	}
}

func TestParseUSD_RefusesWhatIsNoAmount(t *testing.T) {
	for s, want := range map[string]string{
		"": "no amount", ".": "no amount", "-": "no amount", "$2": "no amount", "1e3": "no amount", "1,5": "no amount",
		"--1": "no amount", "1.2.3": "no amount", "٣": "no amount", "0.0000000001": "nine decimals", "99999999999": "too large",
	} {
		if n, err := ParseUSD(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q gave %d, %v; want an error with %q", s, n, err, want)
		}
	}
	for s, want := range map[string]NanoUSD{"2.5": 2_500_000_000, ".5\n": 500_000_000, "3.": 3 * USD, "-0.25": -250_000_000} {
		if n, err := ParseUSD(s); err != nil || n != want {
			t.Errorf("%q gave %d, %v; want %d", s, n, err, want)
		}
	}
}

func TestPerMillion_EqualsRationalArithmeticRoundedUp(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 20000 {
		tokens, rate := rng.Int64()>>rng.IntN(63), NanoUSD(rng.Int64()>>rng.IntN(63))
		want := ceilPerMillion(big.NewInt(tokens), rate)
		got, over := perMillion(tokens, rate)
		if fits := want.IsInt64(); over == fits || (fits && want.Int64() != int64(got)) || (over && got != maxNanoUSD) {
			t.Fatalf("%d tokens at %d: got %d, too large %v; want %s", tokens, rate, got, over, want)
		}
	}
}

// ceilPerMillion is the definition of a component's price: tokens * rate / 10^6
// as a rational number, rounded up.
func ceilPerMillion(tokens *big.Int, rate NanoUSD) *big.Int {
	r := new(big.Rat).SetFrac(new(big.Int).Mul(tokens, big.NewInt(int64(rate))), big.NewInt(tokensPerMillion))
	q, rest := new(big.Int).QuoRem(r.Num(), r.Denom(), new(big.Int))
	if rest.Sign() != 0 {
		q.Add(q, big.NewInt(1))
	}
	return q
}

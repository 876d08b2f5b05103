// SPDX-License-Identifier: MPL-2.0

package price

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
)

// NanoUSD is an amount of money in billionths of a US dollar. The largest is
// some 9.2 billion dollars. In JSON it is a whole number.
type NanoUSD int64

// USD is one US dollar.
const USD NanoUSD = 1_000_000_000

const (
	maxNanoUSD       = NanoUSD(math.MaxInt64)
	tokensPerMillion = 1_000_000
	nanoDigits       = 9
)

// String gives the amount in US dollars as an exact decimal without trailing
// zeros, such as "0.000123456" or "12.5".
func (n NanoUSD) String() string {
	sign, u := "", uint64(n) //nolint:gosec // negated below if it was negative
	if n < 0 {
		sign, u = "-", -u
	}
	whole, rest := u/uint64(USD), u%uint64(USD)
	if rest == 0 {
		return sign + strconv.FormatUint(whole, 10)
	}
	return sign + strconv.FormatUint(whole, 10) + "." + strings.TrimRight(fmt.Sprintf("%09d", rest), "0")
}

// ParseUSD reads a decimal amount of US dollars such as "2.5", exactly: at
// most nine decimals, no exponent, no currency sign. Errors don't repeat s, for
// it may be a secret that was put in the wrong place.
func ParseUSD(s string) (NanoUSD, error) {
	text := strings.TrimSpace(s)
	digits, negative := strings.CutPrefix(text, "-")
	whole, fraction, _ := strings.Cut(digits, ".")
	if (whole == "" && fraction == "") || strings.Trim(whole+fraction, "0123456789") != "" {
		return 0, errors.New("this is no amount of US dollars; write a decimal such as 2.5")
	}
	if len(fraction) > nanoDigits {
		return 0, errors.New("this has more than nine decimals; the smallest amount is 0.000000001 USD")
	}
	n, err := strconv.ParseInt(whole+fraction+strings.Repeat("0", nanoDigits-len(fraction)), 10, 64)
	if err != nil { // they are digits, so there are too many
		return 0, fmt.Errorf("this is too large an amount; the largest is %s USD", maxNanoUSD)
	}
	if negative {
		n = -n
	}
	return NanoUSD(n), nil
}

// perMillion is tokens * rate / 1,000,000, rounded up, and whether that is too
// large to say; then it is the largest amount. Neither may be negative.
func perMillion(tokens int64, rate NanoUSD) (NanoUSD, bool) {
	hi, lo := bits.Mul64(uint64(tokens), uint64(rate)) //nolint:gosec // both are at least zero
	lo, carry := bits.Add64(lo, tokensPerMillion-1, 0)
	hi += carry
	if hi >= tokensPerMillion {
		return maxNanoUSD, true
	}
	q, _ := bits.Div64(hi, lo, tokensPerMillion)
	if q > math.MaxInt64 {
		return maxNanoUSD, true
	}
	return NanoUSD(q), false
}

// times is n * each, and whether that is too large to say. Neither may be
// negative.
func times(n int64, each NanoUSD) (NanoUSD, bool) {
	hi, lo := bits.Mul64(uint64(n), uint64(each)) //nolint:gosec // both are at least zero
	if hi != 0 || lo > math.MaxInt64 {
		return maxNanoUSD, true
	}
	return NanoUSD(lo), false
}

// plus is a + b, and whether that is too large to say. Neither may be negative.
func plus(a, b NanoUSD) (NanoUSD, bool) {
	if a > maxNanoUSD-b {
		return maxNanoUSD, true
	}
	return a + b, false
}

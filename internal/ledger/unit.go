// SPDX-License-Identifier: MPL-2.0

package ledger

import (
	"fmt"
	"strconv"
	"strings"

	"vault-plugin-secrets-portkey/internal/price"
)

// Unit is what a limit counts.
type Unit uint8

// The units. Tokens are input and output together.
const (
	USD Unit = iota
	Requests
	Tokens
	InputTokens
	OutputTokens
	Concurrent
	NumUnits
)

// Amounts are what a request uses of each unit, none below zero: USD in
// nano-USD (1e-9 USD), all others in whole numbers.
type Amounts [NumUnits]int64

// unitNames are the names that operators write, by Unit.
var unitNames = [NumUnits]string{"usd", "requests", "tokens", "input_tokens", "output_tokens", "concurrent"}

// String is the unit's name in the text form of limits: usd, requests, tokens,
// input_tokens, output_tokens or concurrent.
func (u Unit) String() string {
	if u >= NumUnits {
		return "unit " + strconv.Itoa(int(u))
	}
	return unitNames[u]
}

// ParseUnit reads a unit's name in either case, with spaces around it or not.
// The error suggests a unit.
func ParseUnit(text string) (Unit, error) {
	name := lower(strings.TrimSpace(text))
	for u, known := range unitNames {
		if name == known {
			return Unit(u), nil
		}
	}
	if name == "" {
		return 0, fmt.Errorf("the unit is missing; write one of %s, as in %s", strings.Join(unitNames[:], ", "), USD.example())
	}
	return 0, fmt.Errorf("unknown unit %s%s; the units are %s, as in %s", quoted(strings.TrimSpace(text)), suggestUnit(name),
		strings.Join(unitNames[:], ", "), USD.example())
}

// suggestUnit is what to say of a name that is no unit: the one that it is a
// misspelling of, or that other products call so; "" if nothing comes near.
func suggestUnit(name string) string {
	switch name {
	case "$", "us$", "dollar", "dollars", "usdollar", "usdollars", "cost", "costs", "budget", "money", "spend":
		return didYouMean(USD.String())
	case "rpm", "rps", "rpd", "calls":
		return didYouMean(Requests.String())
	case "tpm", "tpd":
		return didYouMean(Tokens.String())
	case "input", "prompt", "prompt_tokens":
		return didYouMean(InputTokens.String())
	case "output", "completion", "completion_tokens":
		return didYouMean(OutputTokens.String())
	case "concurrency", "parallel", "max_parallel_requests":
		return didYouMean(Concurrent.String())
	}
	return didYouMean(nearest(name, unitNames[:]))
}

// Format writes an amount for people, without the unit: USD, which is in
// nano-USD, as an exact decimal of dollars such as 12.5, all others as a whole
// number.
func (u Unit) Format(amount int64) string {
	if u == USD {
		return price.NanoUSD(amount).String()
	}
	return strconv.FormatInt(amount, 10)
}

// example is a right limit of that unit, for errors.
func (u Unit) example() string {
	switch u {
	case Requests:
		return "requests=60/minute"
	case Tokens, InputTokens, OutputTokens:
		return u.String() + "=200000/minute"
	case Concurrent:
		return "concurrent=8"
	default:
		return "usd=100/month"
	}
}

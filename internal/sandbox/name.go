// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// The bounds of what a name can ask for.
const (
	maxNameBytes = 256
	maxLatency   = 10 * time.Minute
	maxRate      = 1_000_000 // tokens per second
	maxBig       = 64 << 20  // bytes
)

// variant is a model as its name asks it to behave.
type variant struct {
	name      string // as in the request
	model     *Model
	latency   time.Duration
	rate      int64 // tokens per second; 0 for all at once
	tokens    int64 // length of the answer, without reasoning
	reasoning int64
	cached    int64 // prompt tokens reported as cached, at most
	big       int64 // bytes of the answer's text; 0 for none
	echo      bool
	noUsage   bool
	fail      failure
}

// A modifier is written name=value, or as its name alone where it takes none.
type modifier struct {
	name  string
	usage string // how it is written, for errors
	// forText and forEmbedding say which models have it.
	forText, forEmbedding bool
	set                   func(v *variant, value string) error
}

// modifiers lists what may follow a model's ID, in the order of the
// documentation.
func modifiers() []modifier {
	return []modifier{
		{"latency", "latency=200ms", true, true, (*variant).setLatency},
		{"tps", "tps=50", true, false, func(v *variant, s string) (err error) {
			v.rate, err = number(s, 1, maxRate)
			return err
		}},
		{"tokens", "tokens=100", true, false, func(v *variant, s string) (err error) {
			v.tokens, err = number(s, 1, v.model.MaxOutputTokens)
			return err
		}},
		{"reasoning", "reasoning=500", true, false, (*variant).setReasoning},
		{"cached", "cached=1000", true, false, func(v *variant, s string) (err error) {
			v.cached, err = number(s, 0, v.model.ContextWindow)
			return err
		}},
		{"big", "big=1048576", true, false, func(v *variant, s string) (err error) {
			v.big, err = number(s, 1, maxBig)
			return err
		}},
		{"echo", "echo", true, false, func(v *variant, s string) error {
			v.echo = true
			return noValue(s)
		}},
		{"no-usage", "no-usage", true, true, func(v *variant, s string) error {
			v.noUsage = true
			return noValue(s)
		}},
		{"fail", "fail=429", true, true, func(v *variant, s string) (err error) {
			v.fail, err = parseFailure(s)
			return err
		}},
	}
}

// parseName takes a model's name apart:
//
//	name     = id *( ":" modifier )
//	modifier = name [ "=" value ]
//
// Each modifier may stand once, in any order.
func parseName(models []Model, name string) (variant, error) {
	if len(name) > maxNameBytes {
		return variant{}, fmt.Errorf("a model's name has at most %d bytes, this one has %d", maxNameBytes, len(name))
	}
	id, rest, more := strings.Cut(name, ":")
	v := variant{name: name}
	for i := range models {
		if models[i].ID == id {
			v.model = &models[i]
			v.tokens, v.reasoning = v.model.AnswerTokens, v.model.ReasoningTokens
		}
	}
	if v.model == nil {
		return variant{}, fmt.Errorf("the sandbox has %s, each with modifiers such as %s:latency=200ms:fail=429", modelIDs(models), models[0].ID)
	}
	if !more {
		return v, nil
	}
	return v, v.modify(rest)
}

// modify applies the modifiers, which are separated by colons: a role's list
// of models is separated by commas.
func (v *variant) modify(text string) error {
	known := modifiers()
	seen := make(map[string]bool, len(known))
	for part := range strings.SplitSeq(text, ":") {
		name, value, _ := strings.Cut(part, "=")
		if seen[name] {
			return fmt.Errorf("modifier %q stands twice", name)
		}
		seen[name] = true
		m, err := v.modifier(known, name)
		if err != nil {
			return err
		}
		if err := m.set(v, value); err != nil {
			return fmt.Errorf("modifier %q: %w", part, err)
		}
	}
	lengths := 0
	for _, name := range []string{"tokens", "big", "echo"} {
		if seen[name] {
			lengths++
		}
	}
	if lengths > 1 {
		return fmt.Errorf("of the modifiers tokens, big and echo only one can say what the answer is")
	}
	return nil
}

func (v *variant) modifier(known []modifier, name string) (*modifier, error) {
	var usages []string
	for i := range known {
		m := &known[i]
		if (v.model.Dimensions > 0 && !m.forEmbedding) || (v.model.Dimensions == 0 && !m.forText) {
			continue
		}
		if m.name == name {
			return m, nil
		}
		usages = append(usages, m.usage)
	}
	return nil, fmt.Errorf("%s has no modifier %q; it has %s, separated by colons", v.model.ID, name, strings.Join(usages, ", "))
}

func (v *variant) setLatency(s string) error {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || d > maxLatency {
		return fmt.Errorf("write a duration from 0s to %s, such as 200ms", maxLatency)
	}
	v.latency = d
	return nil
}

func (v *variant) setReasoning(s string) (err error) {
	if v.model.ReasoningTokens == 0 {
		return fmt.Errorf("%s doesn't reason; use sandbox-reasoning", v.model.ID)
	}
	v.reasoning, err = number(s, 0, v.model.MaxOutputTokens)
	return err
}

// number reads a decimal number without sign.
func number(s string, least, most int64) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > math.MaxInt64 || int64(n) < least || int64(n) > most {
		return 0, fmt.Errorf("write a whole number from %d to %d", least, most)
	}
	return int64(n), nil
}

func noValue(s string) error {
	if s != "" {
		return fmt.Errorf("it takes no value")
	}
	return nil
}

// pace is how long n tokens take.
func (v *variant) pace(n int64) time.Duration {
	if v.rate == 0 {
		return 0
	}
	return time.Duration(n) * time.Second / time.Duration(v.rate)
}

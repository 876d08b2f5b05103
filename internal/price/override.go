// SPDX-License-Identifier: MPL-2.0

package price

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/ryanuber/go-glob"
)

// What an Override may hold.
const (
	// MaxRate is the highest price that is believed, a million dollars per
	// million tokens, or per request: beyond it somebody took a wrong unit.
	MaxRate = 1_000_000 * USD
	// MaxContextWindow is the largest context window that is believed.
	MaxContextWindow = 1_000_000_000
	// MaxNote is the longest note, in bytes.
	MaxNote = 1024

	maxGlob     = 512
	maxProvider = 64
	anyProvider = "*"
)

// Override is an operator's own price.
type Override struct {
	// Provider is an id of the provider catalogue, or * for all of them.
	Provider string `json:"provider"`
	// Model is a model's name, in which * stands for any text. Case doesn't
	// matter.
	Model string `json:"model"`
	// Prices are in nano-USD per million tokens. A unit that isn't there costs
	// what its whole costs.
	Prices map[Unit]NanoUSD `json:"prices,omitempty"`
	// PerRequest is in nano-USD per request; nil is no such price.
	PerRequest *NanoUSD `json:"per_request,omitempty"`
	// ContextWindow is in tokens; zero leaves what the built-in table says.
	ContextWindow int64 `json:"context_window,omitempty"`
	// Note is for people.
	Note string `json:"note,omitempty"`
}

// ProviderPrices are prices that come with a provider instead of from the
// table, such as those of a provider inside the process.
type ProviderPrices struct {
	Provider string
	// Source is what Match.Source says of them.
	Source string
	// Entries are as overrides are, with the provider left out.
	Entries []Override
}

// Validate says what is wrong with an override, and what to do.
func (o *Override) Validate() error {
	if err := validateProvider(o.Provider); err != nil {
		return err
	}
	if err := validateModel(o.Model); err != nil {
		return err
	}
	if len(o.Prices) == 0 && o.PerRequest == nil {
		return errors.New("no price given: say what tokens cost (input, output, …) or what a request costs; a price of zero must be said explicitly")
	}
	for _, u := range slices.Sorted(maps.Keys(o.Prices)) {
		if err := o.validatePrice(u); err != nil {
			return err
		}
	}
	if o.PerRequest != nil {
		if err := validateAmount("per_request", *o.PerRequest, "USD per request"); err != nil {
			return err
		}
	}
	if o.ContextWindow < 0 || o.ContextWindow > MaxContextWindow {
		return fmt.Errorf("context_window: %d is no number of tokens from 0 (unknown) to %d", o.ContextWindow, MaxContextWindow)
	}
	if len(o.Note) > MaxNote {
		return fmt.Errorf("note: %d bytes are too long; at most %d", len(o.Note), MaxNote)
	}
	return nil
}

func (o *Override) validatePrice(u Unit) error {
	if u < 0 || u >= Requests {
		return fmt.Errorf("prices: %s is no kind of token; the price of a request is per_request", u)
	}
	if err := validateAmount(u.String(), o.Prices[u], "USD per million tokens"); err != nil {
		return err
	}
	if _, ok := o.Prices[u.whole()]; !ok {
		return fmt.Errorf("%s: these tokens are part of %s, which has no price; give that too, 0 if it is free", u, u.whole())
	}
	return nil
}

func validateAmount(name string, amount NanoUSD, unit string) error {
	switch {
	case amount < 0:
		return fmt.Errorf("%s: %s %s is negative; give 0 if it is free", name, amount, unit)
	case amount > MaxRate:
		return fmt.Errorf("%s: %s %s is beyond belief (at most %s); check the unit", name, amount, unit, MaxRate)
	}
	return nil
}

func validateProvider(id string) error {
	if id == anyProvider {
		return nil
	}
	const allowed = "abcdefghijklmnopqrstuvwxyz0123456789-"
	if id == "" || len(id) > maxProvider || strings.Trim(id, allowed) != "" || strings.ContainsFunc(id, func(r rune) bool { return !strings.ContainsRune(allowed, r) }) {
		return fmt.Errorf("provider: %.80q is no provider id; write one of the catalogue, such as openai, or * for all", id)
	}
	return nil
}

func validateModel(glob string) error {
	if glob == "" || len(glob) > maxGlob || strings.ContainsFunc(glob, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r) || r == unicode.ReplacementChar
	}) {
		return fmt.Errorf("model: %.80q is no model name; write 1 to %d bytes without spaces, with * for any text, such as gpt-4o*", glob, maxGlob)
	}
	return nil
}

// ownPrice is an Override ready to be found.
type ownPrice struct {
	provider, source string
	glob             string // in lower case
	written          string // as it was given
	invalid          error
	contextWindow    int64
	tariff           *tariff
}

// newOwnPrice takes over what it needs of o. An override that isn't valid
// becomes one without prices: the models that it names are unpriced rather than
// priced by something that the operator meant to replace.
func newOwnPrice(provider, source string, o *Override) *ownPrice {
	checked := *o
	checked.Provider = provider
	p := &ownPrice{
		provider: provider, source: source, glob: strings.ToLower(strings.TrimSpace(o.Model)), written: o.Model,
		invalid: checked.Validate(), contextWindow: o.ContextWindow,
	}
	rates := make(map[Unit]Rate, len(o.Prices)+1)
	if p.invalid == nil {
		for u, amount := range o.Prices {
			rates[u] = Rate{Base: amount}
		}
		if o.PerRequest != nil {
			rates[Requests] = Rate{Base: *o.PerRequest}
		}
	}
	p.tariff = newTariff(rates, nil)
	for u := range p.tariff.atWhole { // what isn't there costs what its whole costs
		p.tariff.atWhole[u] = true
	}
	return p
}

func (p *ownPrice) exact() bool { return !strings.Contains(p.glob, "*") }

// literals is how much of the glob isn't *.
func (p *ownPrice) literals() int { return len(p.glob) - strings.Count(p.glob, "*") }

// bySpecificity sorts the most specific first: a provider by its id before *,
// then by how much of the name is given, then by how few * there are. So a name
// in full is always before the globs that match it. What is left is decided by
// the text, so that the order never depends on the order of storage.
func bySpecificity(a, b *ownPrice) int {
	return cmp.Or(
		rank(a.provider != anyProvider, b.provider != anyProvider),
		cmp.Compare(b.literals(), a.literals()),
		cmp.Compare(len(a.glob), len(b.glob)),
		cmp.Compare(a.glob, b.glob),
	)
}

// rank puts true before false.
func rank(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	default:
		return 1
	}
}

// match says whether the price is for a name in lower case.
func (p *ownPrice) match(provider, name string) bool {
	return (p.provider == anyProvider || p.provider == provider) && glob.Glob(p.glob, name)
}

// resolution joins the price with what the table knows of the same model.
func (p *ownPrice) resolution(builtin resolution) resolution {
	m := Match{
		Provider: p.provider, Model: p.written, Source: p.source, ContextWindow: p.contextWindow,
		Rule: p.reason(),
	}
	for _, b := range builtin {
		if m.ContextWindow == 0 {
			m.ContextWindow, m.roughWindow = b.ContextWindow, true
		}
		for _, name := range b.Unmetered {
			if !slices.Contains(m.Unmetered, name) {
				m.Unmetered = append(m.Unmetered, name)
			}
		}
	}
	return newResolution(m, []*tariff{p.tariff})
}

func (p *ownPrice) reason() string {
	how := "the name equals"
	if !p.exact() {
		how = "the name matches"
	}
	why := fmt.Sprintf("%s %s/%s: %s %q", p.source, p.provider, p.written, how, p.glob)
	if p.invalid != nil {
		why += "; it gives no price, because it is invalid: " + p.invalid.Error()
	}
	return why
}

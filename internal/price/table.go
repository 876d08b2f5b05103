// SPDX-License-Identifier: MPL-2.0

// Package price says what a completion costs: it finds the price of a model by
// provider, name and time, and multiplies.
//
// It promises exact integer arithmetic, each component rounded up once to a
// nano-USD; that counts which contradict each other never make a completion
// cheaper; and that what has no price is said to have none, never taken as
// free. It knows nothing of Vault, of wire formats, or of how tokens are
// counted, and it opens no connection: the built-in table is embedded.
package price

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// tableJSON is the built-in table, written by tools/prices. A string, so that
// nothing can change it.
//
//go:embed prices.json
var tableJSON string

// MaxModelName is the longest name of a model, in bytes, that can have a price.
// The longest in use are Bedrock's ARNs, at most 2,048.
const MaxModelName = 2048

// Table is a built-in price table. It is immutable and safe for concurrent use.
type Table struct {
	source, version, licence string
	date                     time.Time

	providers []*tableProvider
	byID      map[string]*tableProvider
}

type tableProvider struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	// Fallback are ids of providers whose models this one sells too, for names
	// that Models don't match.
	Fallback []string      `json:"fallback"`
	Models   []*tableModel `json:"models"`
}

type tableModel struct {
	ID            string       `json:"id"`
	Match         []rule       `json:"match"` // any of them
	ContextWindow int64        `json:"context_window"`
	Tariffs       []tariffJSON `json:"tariffs"`

	tariffs []*tariff // the last one in force counts; the first always is
}

type tariffJSON struct {
	Since     string        `json:"since"` // a date; from midnight UTC
	Daily     []string      `json:"daily"` // start and end
	Rates     map[Unit]Rate `json:"rates"`
	Unmetered []string      `json:"unmetered"`

	atWhole, unpriced []Unit // see correction
}

// ModelID names an entry of the table.
type ModelID struct{ Provider, Model string }

// Load parses the embedded table. Each call makes a fresh value: callers keep
// it. An error means that the binary was built from broken data.
func Load() (*Table, error) { return parse([]byte(tableJSON), []byte(correctionsJSON)) }

func parse(data, corrections []byte) (*Table, error) {
	var in struct {
		Source    string           `json:"source"`
		Version   string           `json:"version"`
		Date      string           `json:"date"`
		License   string           `json:"license"`
		Unit      string           `json:"unit"`
		Providers []*tableProvider `json:"providers"`
	}
	if err := decodeStrict(data, &in); err != nil {
		return nil, fmt.Errorf("price table: %w", err)
	}
	date, err := time.Parse(time.DateOnly, in.Date)
	if err != nil {
		return nil, fmt.Errorf("price table: date: %w", err)
	}
	t := &Table{
		source: in.Source, version: in.Version, licence: in.License, date: date,
		providers: in.Providers, byID: make(map[string]*tableProvider, len(in.Providers)),
	}
	for _, p := range in.Providers {
		if p.ID == "" || t.byID[p.ID] != nil {
			return nil, fmt.Errorf("price table: provider %q is there twice or has no id", p.ID)
		}
		t.byID[p.ID] = p
	}
	if err := t.correct(corrections); err != nil {
		return nil, err
	}
	for _, p := range in.Providers {
		if err := t.prepare(p); err != nil {
			return nil, fmt.Errorf("price table: provider %s: %w", p.ID, err)
		}
	}
	return t, nil
}

// decodeStrict decodes JSON and refuses fields that it doesn't know.
func decodeStrict(data []byte, to any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	return d.Decode(to)
}

// prepare checks a provider and makes its tariffs.
func (t *Table) prepare(p *tableProvider) error {
	for _, id := range p.Fallback {
		if t.byID[id] == nil {
			return fmt.Errorf("falls back on %q, which isn't there", id)
		}
	}
	seen := make(map[string]bool, len(p.Models))
	for _, m := range p.Models {
		if seen[m.ID] {
			return fmt.Errorf("model %q is there twice", m.ID)
		}
		seen[m.ID] = true
		if err := m.prepare(); err != nil {
			return fmt.Errorf("model %q: %w", m.ID, err)
		}
	}
	return nil
}

func (m *tableModel) prepare() error {
	switch {
	case m.ID == "" || len(m.Match) == 0 || len(m.Tariffs) == 0:
		return errors.New("needs an id, a rule and a tariff")
	case m.ContextWindow < 0:
		return errors.New("the context window is negative")
	case m.Tariffs[0].Since != "" || m.Tariffs[0].Daily != nil:
		return errors.New("the first tariff must always hold")
	}
	for i := range m.Tariffs {
		made, err := m.Tariffs[i].tariff()
		if err != nil {
			return err
		}
		m.tariffs = append(m.tariffs, made)
	}
	m.Tariffs = nil
	return nil
}

func (in *tariffJSON) tariff() (*tariff, error) {
	for u, r := range in.Rates {
		if err := r.check(); err != nil {
			return nil, fmt.Errorf("%s: %w", u, err)
		}
		if _, ok := in.Rates[u.whole()]; !ok {
			return nil, fmt.Errorf("%s has a rate and %s has none", u, u.whole())
		}
	}
	if len(in.Rates[Requests].Tiers) > 0 {
		return nil, errors.New("a price per request can't have tiers")
	}
	t := newTariff(in.Rates, in.Unmetered)
	for _, u := range in.atWhole {
		t.atWhole[u] = true
	}
	for _, u := range in.unpriced {
		t.unpriced[u] = true
	}
	if in.Since != "" {
		since, err := time.Parse(time.DateOnly, in.Since)
		if err != nil {
			return nil, fmt.Errorf("since: %w", err)
		}
		t.since = since
	}
	if in.Daily != nil {
		if len(in.Daily) != 2 {
			return nil, errors.New("daily must be a start and an end")
		}
		w, err := newWindow(in.Daily[0], in.Daily[1])
		if err != nil {
			return nil, err
		}
		t.daily = w
	}
	return t, nil
}

// Source says where the figures come from, such as the name of a package.
func (t *Table) Source() string { return t.source }

// Version is the source's version.
func (t *Table) Version() string { return t.version }

// Date is the day on which the source published that version.
func (t *Table) Date() time.Time { return t.date }

// Licence is that of the figures, with the copyright line.
func (t *Table) Licence() string { return t.licence }

// Models lists the table's entries by the table's own provider ids, in its
// order. The slice is the caller's.
func (t *Table) Models() []ModelID {
	var out []ModelID
	for _, p := range t.providers {
		for _, m := range p.Models {
			out = append(out, ModelID{Provider: p.ID, Model: m.ID})
		}
	}
	return out
}

// Find looks a model up by the table's own provider id, without overrides and
// without a memory: each call tries the rules anew. The results are as for
// Book.Find.
func (t *Table) Find(provider, model string, at time.Time) (*Match, bool) {
	return t.resolve(provider, model, "").at(at)
}

// resolve finds the entry for a name. note is put behind the reason.
func (t *Table) resolve(provider, model, note string) resolution {
	p := t.byID[provider]
	if p == nil || len(model) > MaxModelName {
		return nil
	}
	name := strings.TrimSpace(strings.ToLower(model))
	if found := t.find(p, name, note); found != nil {
		return found
	}
	if dashed := dashDates(name); dashed != name {
		return t.find(p, dashed, fmt.Sprintf(", read as %q%s", dashed, note))
	}
	return nil
}

// find tries the provider's own models, then those of its fallbacks.
func (t *Table) find(p *tableProvider, name, note string) resolution {
	if found := p.find(name, note); found != nil {
		return found
	}
	for _, id := range p.Fallback {
		from := fmt.Sprintf("; %s has no entry of its own for it and sells models of %s", p.ID, id)
		if found := t.byID[id].find(name, note+from); found != nil {
			return found
		}
	}
	return nil
}

// find gives the first model with a rule for the name.
func (p *tableProvider) find(name, note string) resolution {
	for _, m := range p.Models {
		if why, ok := matchAny(m.Match, name); ok {
			return newResolution(Match{
				Provider: p.ID, Model: m.ID, Source: SourceBuiltin, ContextWindow: m.ContextWindow, roughWindow: true,
				Rule: fmt.Sprintf("built-in entry %s/%s: the name %s%s", p.ID, m.ID, why, note),
			}, m.tariffs)
		}
	}
	return nil
}

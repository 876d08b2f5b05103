// SPDX-License-Identifier: MPL-2.0

package price

import (
	_ "embed"
	"errors"
	"fmt"
	"net/url"
	"slices"
)

// correctionsJSON is what we know better than the built-in table, as it is
// reviewed: tools/prices never writes it. An entry says why, and the page that
// it comes from.
//
//go:embed corrections.json
var correctionsJSON string

// correction changes one entry of the table. It only adds: where the table has
// come to have a rate of its own, Load fails, and the correction goes.
type correction struct {
	// Provider and Model are ids of the table.
	Provider string `json:"provider"`
	Model    string `json:"model"`
	// Rates are added to each of the model's tariffs.
	Rates map[Unit]Rate `json:"rates"`
	// AtWhole are units that cost what their whole costs, as the provider says.
	AtWhole []Unit `json:"at_whole"`
	// Unpriced are units that the model uses, asked or not, at a rate of their
	// own that isn't known.
	Unpriced []Unit `json:"unpriced"`
	Why      string `json:"why"`
	Source   string `json:"source"`
}

// correct changes the entries that the corrections name. It comes before the
// tariffs are made.
func (t *Table) correct(data []byte) error {
	var list []correction
	if err := decodeStrict(data, &list); err != nil {
		return fmt.Errorf("price corrections: %w", err)
	}
	for i := range list {
		c := &list[i]
		if err := t.correctModel(c); err != nil {
			return fmt.Errorf("price corrections: %s/%s: %w", c.Provider, c.Model, err)
		}
	}
	return nil
}

func (t *Table) correctModel(c *correction) error {
	if u, err := url.Parse(c.Source); err != nil || u.Scheme != "https" || c.Why == "" {
		return errors.New("needs a reason, and the https page that it comes from")
	}
	if len(c.Rates)+len(c.AtWhole)+len(c.Unpriced) == 0 {
		return errors.New("corrects nothing")
	}
	p := t.byID[c.Provider]
	if p == nil {
		return errors.New("the table has no such provider")
	}
	at := slices.IndexFunc(p.Models, func(m *tableModel) bool { return m.ID == c.Model })
	if at < 0 {
		return errors.New("the table has no such model")
	}
	for i := range p.Models[at].Tariffs {
		if err := p.Models[at].Tariffs[i].correct(c); err != nil {
			return err
		}
	}
	return nil
}

func (in *tariffJSON) correct(c *correction) error {
	for _, u := range slices.Concat(c.AtWhole, c.Unpriced) {
		if _, ok := in.Rates[u]; ok {
			return fmt.Errorf("the table has a rate for %s now", u)
		}
	}
	if len(in.Rates) == 0 {
		return errors.New("the table has no rates that a correction could add to")
	}
	for u, r := range c.Rates {
		if _, ok := in.Rates[u]; ok {
			return fmt.Errorf("the table has a rate for %s now", u)
		}
		in.Rates[u] = r
	}
	in.atWhole, in.unpriced = c.AtWhole, c.Unpriced
	return nil
}

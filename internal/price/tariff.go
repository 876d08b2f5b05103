// SPDX-License-Identifier: MPL-2.0

package price

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Tier is a rate for requests with a long input.
type Tier struct {
	// Above is the number of input tokens, cached ones included, that a request
	// must exceed.
	Above int64
	// Price is in nano-USD per million tokens, for all tokens of the unit, not
	// just those beyond Above.
	Price NanoUSD
}

// Rate is what a unit costs.
type Rate struct {
	// Base is in nano-USD per million tokens; for Requests per request.
	Base NanoUSD
	// Tiers are sorted by Above. They must not be changed.
	Tiers []Tier
}

// at is the rate for a request with so many input tokens.
func (r *Rate) at(input int64) NanoUSD {
	price := r.Base
	for i := range r.Tiers {
		if input <= r.Tiers[i].Above {
			break
		}
		price = r.Tiers[i].Price
	}
	return price
}

// dearest is the highest rate for a request with at most so many input tokens.
func (r *Rate) dearest(maxInput int64) NanoUSD {
	price := r.Base
	for _, t := range r.Tiers {
		if maxInput > t.Above {
			price = max(price, t.Price)
		}
	}
	return price
}

// UnmarshalJSON reads a whole number, or {"base": n, "above": [[start, n], …]}.
func (r *Rate) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] != '{' {
		return json.Unmarshal(data, &r.Base)
	}
	var in struct {
		Base  *NanoUSD   `json:"base"`
		Above [][2]int64 `json:"above"`
	}
	if err := json.Unmarshal(data, &in); err != nil {
		return err
	}
	if in.Base == nil {
		return errors.New("a rate with tiers needs a base")
	}
	r.Base = *in.Base
	for _, t := range in.Above {
		r.Tiers = append(r.Tiers, Tier{Above: t[0], Price: NanoUSD(t[1])})
	}
	return nil
}

// check says what is wrong with a rate of the built-in table.
func (r *Rate) check() error {
	if r.Base < 0 {
		return fmt.Errorf("rate %d is negative", r.Base)
	}
	last := int64(-1)
	for _, t := range r.Tiers {
		if t.Price < 0 {
			return fmt.Errorf("rate %d above %d tokens is negative", t.Price, t.Above)
		}
		if t.Above <= last {
			return fmt.Errorf("the tier above %d tokens is out of order", t.Above)
		}
		last = t.Above
	}
	return nil
}

// tariff is one set of rates of a model, and when it holds.
type tariff struct {
	since time.Time // zero: always
	daily *window   // nil: all day

	rates  [NumUnits]Rate
	priced [NumUnits]bool
	// atWhole units are known to cost what their whole costs; unpriced ones to
	// be used at a rate of their own that isn't known.
	atWhole, unpriced [NumUnits]bool
	// steps are the token units that have a rate, most specific first.
	steps     []step
	unmetered []string
}

// step is a unit to charge, with the steps before it that are parts of it:
// their tokens are taken out of its own.
type step struct {
	unit  Unit
	parts []Unit
}

// newTariff makes the tariff of these rates. Where two overlapping units have a
// rate and their overlap has none, the overlap gets the dearer of the two:
// otherwise its tokens would be in neither.
func newTariff(rates map[Unit]Rate, unmetered []string) *tariff {
	t := &tariff{unmetered: unmetered}
	for u, r := range rates {
		t.rates[u], t.priced[u] = r, true
	}
	t.closeOverlap(CacheRead, InputAudio, CacheAudioRead)
	t.closeOverlap(CacheRead, InputImage, CacheImageRead)
	for _, u := range mostSpecificFirst() {
		if !t.priced[u] {
			continue
		}
		s := step{unit: u}
		for _, before := range t.steps {
			if before.unit.within(u) {
				s.parts = append(s.parts, before.unit)
			}
		}
		t.steps = append(t.steps, s)
	}
	return t
}

func (t *tariff) closeOverlap(a, b, both Unit) {
	if !t.priced[a] || !t.priced[b] || t.priced[both] {
		return
	}
	t.rates[both], t.priced[both] = dearer(t.rates[a], t.rates[b]), true
}

// dearer is the rate that is, for every number of input tokens, the higher of
// the two.
func dearer(a, b Rate) Rate {
	out := Rate{Base: max(a.Base, b.Base)}
	for i, j := 0, 0; i < len(a.Tiers) || j < len(b.Tiers); {
		var above int64
		switch {
		case j == len(b.Tiers) || (i < len(a.Tiers) && a.Tiers[i].Above < b.Tiers[j].Above):
			above = a.Tiers[i].Above
			i++
		default:
			above = b.Tiers[j].Above
			j++
		}
		out.Tiers = append(out.Tiers, Tier{Above: above, Price: max(a.at(above+1), b.at(above+1))})
	}
	return out
}

// hasRates says whether anything that is metered has a rate.
func (t *tariff) hasRates() bool {
	return len(t.steps) > 0 || t.priced[Requests]
}

// holds says whether the tariff is in force.
func (t *tariff) holds(at time.Time) bool {
	return !at.Before(t.since) && (t.daily == nil || t.daily.holds(at))
}

// window is a part of each day in UTC, the start included, the end not. It
// goes round midnight if the end is before the start.
type window struct {
	start, end time.Duration // since midnight
	text       string
}

func newWindow(start, end string) (*window, error) {
	// RFC 3339's partial time with an offset; Go parses only whole dates.
	read := func(s string) (time.Duration, error) {
		t, err := time.Parse("15:04:05Z07:00", s)
		if err != nil {
			return 0, fmt.Errorf("%.40q is no time of day with a time zone", s)
		}
		return sinceMidnight(t), nil
	}
	from, err := read(start)
	if err != nil {
		return nil, err
	}
	to, err := read(end)
	if err != nil {
		return nil, err
	}
	return &window{start: from, end: to, text: start + " to " + end}, nil
}

func sinceMidnight(t time.Time) time.Duration {
	t = t.UTC()
	return time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute +
		time.Duration(t.Second())*time.Second + time.Duration(t.Nanosecond())
}

func (w *window) holds(at time.Time) bool {
	now := sinceMidnight(at)
	if w.end < w.start {
		return now >= w.start || now < w.end
	}
	return now >= w.start && now < w.end
}

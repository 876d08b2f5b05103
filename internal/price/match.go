// SPDX-License-Identifier: MPL-2.0

package price

import "time"

// The values of Match.Source that this package gives itself.
const (
	// SourceBuiltin is the embedded table.
	SourceBuiltin = "builtin"
	// SourceOverride is an operator's own price.
	SourceOverride = "override"
)

// Match is what Find found for a model: an entry and the prices in force. It is
// shared and must not be changed. A request is best priced by one Match from
// its reservation to its end, so that a price that changes meanwhile changes
// neither.
type Match struct {
	// Provider and Model are the entry's: ids of the built-in table, or the
	// override's own.
	Provider, Model string
	// Source is SourceOverride, SourceBuiltin, or what ProviderPrices say.
	Source string
	// Rule says in a sentence which entry was taken and why.
	Rule string
	// Since is when these prices came into force; zero if they always were.
	Since time.Time
	// Daily is the part of the day that these prices are for, such as
	// "00:30:00Z to 16:30:00Z"; empty if they are for all of it.
	Daily string
	// ContextWindow is the most tokens that the model takes; zero if unknown.
	ContextWindow int64
	// roughWindow says that ContextWindow is the built-in table's.
	roughWindow bool
	// Unmetered names what the provider charges for beside tokens and requests,
	// such as "web_searches". No Cost includes it. It must not be changed.
	Unmetered []string

	tariff *tariff
}

// Rate gives the unit's rate. Without one, tokens of the unit cost what its
// whole costs; without a rate for the whole, they have no price.
func (m *Match) Rate(u Unit) (Rate, bool) {
	if u < 0 || u >= NumUnits || !m.tariff.priced[u] {
		return Rate{}, false
	}
	return m.tariff.rates[u], true
}

// MaxContext is the most tokens that the model can be taken to read at once, and
// whether it is known. The built-in table rounds windows down (1,048,576 to a
// million), so that some are added to its own; a window in which the model's
// last tier can't begin is none.
func (m *Match) MaxContext() (int64, bool) {
	window := m.ContextWindow
	if window <= 0 || window <= m.lastTier() {
		return 0, false
	}
	if m.roughWindow {
		window += window / 20
	}
	return window, true
}

// lastTier is the number of input tokens above which the last of the tiers of
// any rate begins; 0 if there are none.
func (m *Match) lastTier() int64 {
	var last int64
	for u := range m.tariff.rates {
		if tiers := m.tariff.rates[u].Tiers; len(tiers) > 0 {
			last = max(last, tiers[len(tiers)-1].Above)
		}
	}
	return last
}

// resolution is all that can be said of a model's price before the time is
// known: a Match for each tariff.
type resolution []*Match

// newResolution makes the matches of an entry; each is common but for what the
// tariff says.
func newResolution(common Match, tariffs []*tariff) resolution {
	out := make(resolution, len(tariffs))
	for i, t := range tariffs {
		m := common
		m.Since, m.tariff = t.since, t
		if t.daily != nil {
			m.Daily = t.daily.text
		}
		if m.Unmetered == nil {
			m.Unmetered = t.unmetered
		}
		out[i] = &m
	}
	return out
}

// at picks the last tariff in force, the first one if none is, and says whether
// it has a price.
func (r resolution) at(at time.Time) (*Match, bool) {
	if len(r) == 0 {
		return nil, false
	}
	found := r[0]
	for i := len(r) - 1; i > 0; i-- {
		if r[i].tariff.holds(at) {
			found = r[i]
			break
		}
	}
	return found, found.tariff.hasRates()
}

// SPDX-License-Identifier: MPL-2.0

package price

import (
	"slices"
	"strings"
	"sync"
	"time"
)

// Book answers what a model costs: overrides first, then prices that came with
// a provider, then the built-in table. Its prices never change; a new set of
// overrides is a new Book. It is safe for concurrent use.
type Book struct {
	table   *Table
	own     []*ownPrice // overrides, then extra; each most specific first
	sellers map[string]seller
	memory  memory
}

// NewBook makes a book of the built-in table, of prices that come with
// providers, and of overrides. What it needs of its arguments it copies. An
// override that doesn't pass Validate makes the models that it names unpriced,
// and Match.Rule says why. Of two with the same provider and model the later
// one counts.
func NewBook(t *Table, extra []ProviderPrices, overrides []Override) *Book {
	var over, came []*ownPrice
	for i := range slices.Backward(overrides) {
		over = append(over, newOwnPrice(overrides[i].Provider, SourceOverride, &overrides[i]))
	}
	for _, p := range slices.Backward(extra) {
		for i := range slices.Backward(p.Entries) {
			came = append(came, newOwnPrice(p.Provider, p.Source, &p.Entries[i]))
		}
	}
	slices.SortStableFunc(over, bySpecificity)
	slices.SortStableFunc(came, bySpecificity)
	return &Book{table: t, own: slices.Concat(over, came), sellers: sellers()}
}

// Find gives the price of a provider's model at a time. provider is an id of
// the provider catalogue; model is the name as the request has it. A model
// without a price is false; the match is then still given if an entry was found
// that has none, and is nil otherwise.
//
// It remembers some thousands of names, so that one that was asked for lately
// costs neither a search nor an allocation.
func (b *Book) Find(provider, model string, at time.Time) (*Match, bool) {
	if len(model) > MaxModelName {
		return nil, false
	}
	key := memoryKey{provider, model}
	found, ok := b.memory.get(key)
	if !ok {
		found = b.resolve(provider, model)
		// The key must not keep the request alive that its text is a part of.
		b.memory.put(memoryKey{strings.Clone(provider), strings.Clone(model)}, found)
	}
	return found.at(at)
}

func (b *Book) resolve(provider, model string) resolution {
	builtin := b.sellers[provider].resolve(b.table, provider, model)
	name := strings.TrimSpace(strings.ToLower(model))
	for _, p := range b.own {
		if p.match(provider, name) {
			return p.resolution(builtin)
		}
	}
	return builtin
}

// generation is how many names a half of the memory holds. With names at their
// longest both halves take 16 MiB; with usual ones, one or two.
const generation = 2048

type memoryKey struct{ provider, model string }

// memory holds what was found for the names asked for lately. When the younger
// half is full, the older one is dropped: names in use move to the younger in
// time, so that a flood of made-up names doesn't push them out.
type memory struct {
	mu             sync.RWMutex
	younger, older map[memoryKey]resolution
}

func (m *memory) get(key memoryKey) (resolution, bool) {
	m.mu.RLock()
	found, ok := m.younger[key]
	if ok {
		m.mu.RUnlock()
		return found, true
	}
	found, ok = m.older[key]
	m.mu.RUnlock()
	if ok {
		m.put(memoryKey{strings.Clone(key.provider), strings.Clone(key.model)}, found)
	}
	return found, ok
}

func (m *memory) put(key memoryKey, found resolution) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.younger == nil || len(m.younger) >= generation {
		m.older, m.younger = m.younger, make(map[memoryKey]resolution)
	}
	m.younger[key] = found
}

// SPDX-License-Identifier: MPL-2.0

package price

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

func nano(n NanoUSD) *NanoUSD { return &n }

func TestOverride_ValidateSaysWhatIsWrong(t *testing.T) {
	free := map[Unit]NanoUSD{Input: 0, Output: 0}
	for name, c := range map[string]struct {
		o    Override
		want string
	}{
		"no provider":      {Override{Model: "m", Prices: free}, "provider id"},
		"bad provider":     {Override{Provider: "open ai", Model: "m", Prices: free}, "provider id"},
		"no model":         {Override{Provider: "openai", Prices: free}, "model name"},
		"space in model":   {Override{Provider: "openai", Model: "gpt 4", Prices: free}, "without spaces"},
		"long model":       {Override{Provider: "openai", Model: strings.Repeat("m", 513), Prices: free}, "512 bytes"},
		"nothing":          {Override{Provider: "openai", Model: "m"}, "zero must be said explicitly"},
		"negative":         {Override{Provider: "openai", Model: "m", Prices: map[Unit]NanoUSD{Input: -1}}, "negative; give 0"},
		"huge":             {Override{Provider: "openai", Model: "m", Prices: map[Unit]NanoUSD{Input: MaxRate + 1}}, "check the unit"},
		"part alone":       {Override{Provider: "openai", Model: "m", Prices: map[Unit]NanoUSD{CacheRead: 1}}, "part of input"},
		"requests in it":   {Override{Provider: "openai", Model: "m", Prices: map[Unit]NanoUSD{Requests: 1}}, "per_request"},
		"no unit":          {Override{Provider: "openai", Model: "m", Prices: map[Unit]NanoUSD{-1: 1}}, "no kind of token"},
		"negative request": {Override{Provider: "openai", Model: "m", PerRequest: nano(-1)}, "per_request"},
		"context window":   {Override{Provider: "openai", Model: "m", Prices: free, ContextWindow: -1}, "context_window"},
		"long note":        {Override{Provider: "openai", Model: "m", Prices: free, Note: strings.Repeat("n", 1025)}, "note"},
		"zero":             {Override{Provider: "openai", Model: "m", Prices: free}, ""},
		"request":          {Override{Provider: "*", Model: "*", PerRequest: nano(MaxRate)}, ""},
		"azure":            {Override{Provider: "azure-openai", Model: "team-*/v1:0", Prices: map[Unit]NanoUSD{Input: MaxRate}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.o.Validate()
			if c.want == "" && err != nil {
				t.Errorf("refused: %v", err)
			}
			if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

func TestOverride_StoredFormReadsBack(t *testing.T) {
	o := Override{
		Provider: "vllm", Model: "llama*", Prices: map[Unit]NanoUSD{Input: USD, CacheRead: 0, Output: 2 * USD},
		PerRequest: nano(5), ContextWindow: 8192, Note: "ours",
	}
	data, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"provider":"vllm","model":"llama*","prices":{"cache_read":0,"input":1000000000,"output":2000000000},"per_request":5,"context_window":8192,"note":"ours"}`
	if string(data) != want {
		t.Errorf("written as %s", data)
	}
	var back Override
	if err := json.Unmarshal(data, &back); err != nil || !reflect.DeepEqual(o, back) {
		t.Errorf("read back as %+v, %v", back, err)
	}
}

func TestBook_TheMostSpecificOverrideWins(t *testing.T) {
	price := func(provider, model string, n NanoUSD) Override {
		return Override{Provider: provider, Model: model, Prices: map[Unit]NanoUSD{Input: n, Output: n}}
	}
	all := []Override{
		price("*", "*", 1), price("*", "gpt-4o", 2), price("openai", "*", 3), price("openai", "gpt-*", 4),
		price("openai", "*gpt-4o*", 5), price("openai", "gpt-4o*", 6), price("openai", "GPT-4o", 7), price("azure-openai", "gpt-4o", 8),
		price("openai", "gpt-4o-mini", 100), price("openai", "gpt-4o-mini", 9),
	}
	reversed := make([]Override, 0, len(all))
	for _, o := range all[:8] {
		reversed = append([]Override{o}, reversed...)
	}
	reversed = append(reversed, all[8:]...)
	for _, overrides := range [][]Override{all, reversed} {
		b := NewBook(load(t), nil, overrides)
		for _, c := range []struct {
			provider, model string
			want            NanoUSD
		}{
			{"groq", "any", 1}, {"groq", "gpt-4o", 2}, {"openai", "o3", 3}, {"openai", "gpt-3.5", 4},
			{"openai", "my-gpt-4o-x", 5}, {"openai", "gpt-4o-2024-08-06", 6}, {"openai", " Gpt-4O", 7},
			{"azure-openai", "gpt-4o", 8}, {"openai", "gpt-4o-mini", 9}, {"no-such", "x", 1},
		} {
			m, ok := b.Find(c.provider, c.model, day("2026-11-23T12:00:00Z"))
			if !ok {
				t.Fatalf("%s/%s has no price", c.provider, c.model)
			}
			if r, _ := m.Rate(Output); r.Base != c.want || m.Source != SourceOverride {
				t.Errorf("%s/%s: %s (%s), want %s", c.provider, c.model, r.Base, m.Rule, c.want)
			}
		}
	}
}

func TestBook_AnOverrideKeepsWhatTheTableKnowsBesidePrices(t *testing.T) {
	o := Override{Provider: "anthropic", Model: "claude-sonnet-4-5*", Prices: map[Unit]NanoUSD{Input: 1, Output: 1}}
	b := NewBook(load(t), nil, []Override{o})
	m, ok := b.Find("anthropic", "claude-sonnet-4-5", day("2026-11-23T12:00:00Z"))
	if !ok || m.ContextWindow == 0 || len(m.Unmetered) == 0 {
		t.Errorf("%+v", m)
	}
	o.ContextWindow = 4096
	m, _ = NewBook(load(t), nil, []Override{o}).Find("anthropic", "claude-sonnet-4-5", day("2026-11-23T12:00:00Z"))
	if m.ContextWindow != 4096 {
		t.Errorf("the context window is %d, not the override's", m.ContextWindow)
	}
}

func TestBook_AnInvalidOverrideLeavesItsModelsUnpriced(t *testing.T) {
	b := NewBook(load(t), nil, []Override{{Provider: "openai", Model: "gpt-4o", Prices: map[Unit]NanoUSD{Input: -5}}})
	m, ok := b.Find("openai", "gpt-4o", day("2026-11-23T12:00:00Z"))
	if ok || m == nil || !strings.Contains(m.Rule, "negative") || !m.Cost(Usage{Input: 1}).Unpriced {
		t.Errorf("%+v, %v", m, ok)
	}
}

func TestBook_OverlappingPricesOfAnOverrideCountTheDearerWhereBothApply(t *testing.T) {
	b := NewBook(load(t), nil, []Override{{Provider: "vllm", Model: "*", Prices: map[Unit]NanoUSD{
		Input: 3 * USD, CacheRead: 1 * USD, InputAudio: 9 * USD, Output: 0,
	}}})
	m, _ := b.Find("vllm", "x", day("2026-11-23T12:00:00Z"))
	c := m.Cost(Usage{Input: 100, CacheRead: 60, InputAudio: 50, CacheAudioRead: 20})
	if want := NanoUSD(20*9000 + 40*1000 + 30*9000 + 10*3000); c.Total != want {
		t.Errorf("costs %d, want %d", c.Total, want)
	}
}

func TestBook_PricesThatComeWithAProviderGiveWayToOverrides(t *testing.T) {
	extra := []ProviderPrices{{Provider: "sandbox", Source: "sandbox", Entries: []Override{
		{Model: "sandbox-*", Prices: map[Unit]NanoUSD{Input: 1, Output: 1}},
	}}}
	at := day("2026-11-23T12:00:00Z")
	m, ok := NewBook(load(t), extra, nil).Find("sandbox", "sandbox-echo", at)
	if !ok || m.Source != "sandbox" || !strings.Contains(m.Rule, "sandbox-*") {
		t.Errorf("%+v, %v", m, ok)
	}
	over := []Override{{Provider: "*", Model: "*", Prices: map[Unit]NanoUSD{Input: 2, Output: 2}}}
	if m, _ := NewBook(load(t), extra, over).Find("sandbox", "sandbox-echo", at); m.Source != SourceOverride {
		t.Errorf("%+v", m)
	}
	if _, ok := NewBook(load(t), extra, nil).Find("openai", "sandbox-echo", at); ok {
		t.Error("one provider's prices are used for another")
	}
}

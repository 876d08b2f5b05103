// SPDX-License-Identifier: MPL-2.0

package price

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func load(t testing.TB) *Table {
	t.Helper()
	table, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func day(s string) time.Time {
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		panic(err)
	}
	return at
}

// names gives names that the rule is meant for, made of its text; none for
// regular expressions.
func (r *rule) names() []string {
	switch {
	case r.all != nil:
		return r.all[0].names()
	case r.any != nil:
		var out []string
		for i := range r.any {
			out = append(out, r.any[i].names()...)
		}
		return out
	case r.regex != nil || r.not != nil:
		return nil
	default:
		return []string{r.equals + r.startsWith + r.endsWith + r.contains}
	}
}

func TestTable_EveryEntryIsFoundByItsIDOrByANameOfItsRules(t *testing.T) {
	table, at := load(t), day("2026-11-23T12:00:00Z")
	if n := len(table.Models()); n < 1000 {
		t.Fatalf("the table has %d models", n)
	}
	for _, p := range table.providers {
		for _, m := range p.Models {
			names := []string{m.ID}
			for i := range m.Match {
				names = append(names, m.Match[i].names()...)
			}
			if !slices.ContainsFunc(names, func(name string) bool {
				found, _ := table.Find(p.ID, name, at)
				return found != nil && found.Provider == p.ID && found.Model == m.ID
			}) {
				t.Errorf("%s/%s is found by none of %q", p.ID, m.ID, names)
			}
		}
	}
}

func TestTable_AnIDIsNeverTakenByAnotherEntry(t *testing.T) {
	table := load(t)
	for _, id := range table.Models() {
		found, _ := table.Find(id.Provider, id.Model, table.Date())
		// Some ids are display names that the entry's rules don't match.
		if found != nil && (found.Provider != id.Provider || found.Model != id.Model) {
			t.Errorf("%v is found as %s/%s", id, found.Provider, found.Model)
		}
	}
}

func TestTable_EveryPriceIsPlausibleAndOnlyWhatIsCalledFreeIsFree(t *testing.T) {
	for _, p := range load(t).providers {
		for _, m := range p.Models {
			for i, tariff := range m.tariffs {
				where := fmt.Sprintf("%s/%s, tariff %d", p.ID, m.ID, i)
				for u := range NumUnits {
					highest := tariff.rates[u].dearest(1 << 60)
					if limit := 2000 * USD; highest > limit {
						t.Errorf("%s: %s costs %s USD", where, u, highest)
					}
					if tariff.priced[u] && !tariff.priced[u.whole()] {
						t.Errorf("%s: %s has a rate, its whole none", where, u)
					}
				}
				free := tariff.hasRates() && tariff.rates[Input].Base+tariff.rates[Output].Base+tariff.rates[Requests].Base == 0
				if free && len(tariff.unmetered) == 0 && !strings.Contains(m.ID, "free") {
					t.Errorf("%s costs nothing: see whether the source means that", where)
				}
			}
		}
	}
}

func TestTable_SaysWhereItComesFrom(t *testing.T) {
	table := load(t)
	if !strings.Contains(table.Source(), "genai-prices") || table.Version() == "" || !strings.Contains(table.Licence(), "MIT") || table.Date().Year() < 2026 {
		t.Errorf("%q %q %q %s", table.Source(), table.Version(), table.Licence(), table.Date())
	}
}

func TestParse_RefusesBrokenTables(t *testing.T) {
	const head = `{"source":"s","version":"1","date":"2026-01-02","license":"MIT","unit":"u","providers":[`
	model := func(tariffs string) string {
		return `{"id":"p","name":"P","models":[{"id":"m","match":["m"],"tariffs":[` + tariffs + `]}]}`
	}
	for name, c := range map[string]struct{ providers, want string }{
		"negative rate":     {model(`{"rates":{"input":-1}}`), "negative"},
		"negative tier":     {model(`{"rates":{"input":{"base":1,"above":[[5,-1]]}}}`), "negative"},
		"tiers unsorted":    {model(`{"rates":{"input":{"base":1,"above":[[5,1],[5,2]]}}}`), "out of order"},
		"tier without base": {model(`{"rates":{"input":{"above":[[5,1]]}}}`), "base"},
		"unknown unit":      {model(`{"rates":{"inptu":1}}`), "no unit"},
		"fractional rate":   {model(`{"rates":{"input":1.5}}`), "cannot unmarshal"},
		"part, no whole":    {model(`{"rates":{"cache_read":1}}`), "input has none"},
		"request tiers":     {model(`{"rates":{"requests":{"base":1,"above":[[5,1]]}}}`), "tiers"},
		"first conditional": {model(`{"since":"2026-01-02"}`), "always hold"},
		"bad date":          {model(`{},{"since":"2026-13-02"}`), "since"},
		"bad window":        {model(`{},{"daily":["00:30","16:30:00Z"]}`), "time of day"},
		"half a window":     {model(`{},{"daily":["00:30:00Z"]}`), "a start and an end"},
		"no tariff":         {model(``), "a tariff"},
		"unknown field":     {model(`{"price":{}}`), "unknown field"},
		"twice":             {model(`{}`) + "," + model(`{}`), "twice"},
		"unknown fallback":  {`{"id":"p","name":"P","fallback":["q"],"models":[]}`, "isn't there"},
		"no rule":           {`{"id":"p","name":"P","models":[{"id":"m","match":[],"tariffs":[{}]}]}`, "a rule"},
		"empty rule":        {`{"id":"p","name":"P","models":[{"id":"m","match":[""],"tariffs":[{}]}]}`, "exactly one kind"},
		"two kinds":         {`{"id":"p","name":"P","models":[{"id":"m","match":[{"contains":"a","ends_with":"b"}],"tariffs":[{}]}]}`, "exactly one kind"},
		"upper case":        {`{"id":"p","name":"P","models":[{"id":"m","match":["A"],"tariffs":[{}]}]}`, "lower case"},
		"bad regex":         {`{"id":"p","name":"P","models":[{"id":"m","match":[{"regex":"("}],"tariffs":[{}]}]}`, "missing closing"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := parse([]byte(head+c.providers+"]}"), []byte("[]")); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
	if _, err := parse([]byte(head+model(`{"rates":{"input":1}}`)+"]}"), []byte("[]")); err != nil {
		t.Errorf("a good table is refused: %v", err)
	}
}

func TestFind_TakesThePricesInForceOnBothSidesOfADateAndOfADay(t *testing.T) {
	table := load(t)
	for _, c := range []struct{ provider, model, at, input string }{
		{"openai", "o3", "2025-06-09T23:59:59.999999999Z", "10"},
		{"openai", "o3", "2025-06-10T00:00:00Z", "2"},
		{"openai", "o3", "2025-06-10T01:59:59+02:00", "10"},
		{"google", "gemini-3.6-flash", "2026-12-31T23:59:59Z", "0.75"},
		{"google", "gemini-3.6-flash", "2027-01-01T00:00:00Z", "1.5"},
		{"deepseek", "deepseek-chat", "2026-11-23T00:29:59.9Z", "0.135"},
		{"deepseek", "deepseek-chat", "2026-11-23T00:30:00Z", "0.27"},
		{"deepseek", "deepseek-chat", "2026-11-23T16:29:59.9Z", "0.27"},
		{"deepseek", "deepseek-chat", "2026-11-23T16:30:00Z", "0.135"},
		{"deepseek", "deepseek-v4-pro", "2026-08-16T23:59:59Z", "0.435"},
		{"deepseek", "deepseek-v4-pro", "2026-08-17T00:00:00Z", "0.66"},
		{"deepseek", "deepseek-v4-pro", "2026-11-23T03:59:59Z", "1.32"},
		{"deepseek", "deepseek-v4-pro", "2026-11-23T04:00:00Z", "0.66"},
		{"deepseek", "deepseek-v4-pro", "2026-11-23T18:00:00+11:00", "1.32"},
	} {
		m, ok := table.Find(c.provider, c.model, day(c.at))
		if !ok {
			t.Errorf("%s/%s has no price", c.provider, c.model)
			continue
		}
		if r, _ := m.Rate(Input); r.Base.String() != c.input {
			t.Errorf("%s/%s at %s costs %s, want %s (%+v)", c.provider, c.model, c.at, r.Base, c.input, m)
		}
	}
}

func TestWindow_GoesRoundMidnight(t *testing.T) {
	w, err := newWindow("22:00:00+01:00", "03:00:00Z")
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[string]bool{
		"2026-01-01T20:59:59Z": false, "2026-01-01T21:00:00Z": true, "2026-01-01T00:00:00Z": true,
		"2026-01-01T02:59:59Z": true, "2026-01-01T03:00:00Z": false,
	} {
		if w.holds(day(at)) != want {
			t.Errorf("%s: %v", at, !want)
		}
	}
}

func TestDashDates_RewritesDatesOnly(t *testing.T) {
	for in, want := range map[string]string{
		"gpt-4o-20240806":         "gpt-4o-2024-08-06",
		"a-20240806-b":            "a-2024-08-06-b",
		"a-20240806:b":            "a-2024-08-06:b",
		"a-20240806-20250101":     "a-2024-08-06-2025-01-01",
		"a-20240229":              "a-2024-02-29",
		"a-20230229":              "a-20230229",
		"a-20241301":              "a-20241301",
		"a-19990101":              "a-19990101",
		"a-202408061":             "a-202408061",
		"a20240806":               "a20240806",
		"a-20240806x":             "a-20240806x",
		"":                        "",
		"-20240806":               "-2024-08-06",
		"x-1-20240806-20240806é-": "x-1-2024-08-06-20240806é-",
	} {
		if got := dashDates(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

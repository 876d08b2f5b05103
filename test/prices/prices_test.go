// SPDX-License-Identifier: MPL-2.0

//go:build integration

// Package prices asks the npm package that the built-in price table is made of
// for a second opinion on every figure and rule in it.
package prices

import (
	"bufio"
	"context"
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/internal/price"
)

// opinion is a line of cases.mjs.
type opinion struct {
	Provider string               `json:"provider"`
	Name     string               `json:"name"`
	At       time.Time            `json:"at"`
	Usage    map[price.Unit]int64 `json:"usage"`
	Error    string               `json:"error"`

	Model  string  `json:"model"` // empty: no entry
	Input  float64 `json:"input"` // USD
	Output float64 `json:"output"`
	Total  float64 `json:"total"`
}

// seed is PRICES_SEED, to repeat a run, or random.
func seed(t *testing.T) uint32 {
	text := os.Getenv("PRICES_SEED")
	if text == "" {
		return rand.Uint32()
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		t.Fatalf("PRICES_SEED: %v", err)
	}
	return uint32(n)
}

func TestCost_EqualsTheSourcesOwnCalculationForEveryModelNameAndTime(t *testing.T) {
	table, err := price.Load()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("node_modules"); err != nil {
		t.Fatal("node_modules is missing: run scripts/clients.sh")
	}
	start := seed(t)
	t.Logf("PRICES_SEED=%d", start)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	node := exec.CommandContext(ctx, "node", "cases.mjs", strconv.FormatUint(uint64(start), 10))
	node.Stderr = os.Stderr
	out, err := node.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	models := compare(t, table, bufio.NewScanner(out))
	if err := node.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, id := range table.Models() {
		if !models[id] {
			t.Errorf("%v was compared for no name", id)
		}
	}
}

// compare reads the opinions, and returns which models they were of.
func compare(t *testing.T, table *price.Table, lines *bufio.Scanner) map[price.ModelID]bool {
	t.Helper()
	var head struct {
		Version string `json:"version"`
		Cases   int    `json:"cases"`
	}
	if !lines.Scan() || json.Unmarshal(lines.Bytes(), &head) != nil {
		t.Fatal("cases.mjs wrote no first line")
	}
	if head.Version != table.Version() {
		t.Fatalf("the package here is %s, the table was made of %s: pin the same in test/prices and tools/prices", head.Version, table.Version())
	}
	models, n, wrong := map[price.ModelID]bool{}, 0, 0
	corrected := correctedModels(t)
	for ; lines.Scan(); n++ {
		var o opinion
		if err := json.Unmarshal(lines.Bytes(), &o); err != nil {
			t.Fatal(err)
		}
		models[price.ModelID{Provider: o.Provider, Model: o.Model}] = true
		if wrong < 20 && !agree(t, table, corrected, &o) {
			wrong++
		}
	}
	if n != head.Cases || n < 5000 {
		t.Errorf("%d cases of %d", n, head.Cases)
	}
	t.Logf("%d cases", n)
	return models
}

func agree(t *testing.T, table *price.Table, corrected map[price.ModelID]bool, o *opinion) bool {
	t.Helper()
	if o.Error != "" {
		t.Errorf("%s %s: the package failed: %s", o.Provider, o.Name, o.Error)
		return false
	}
	m, ok := table.Find(o.Provider, o.Name, o.At)
	if m == nil || m.Model != o.Model {
		if m != nil || o.Model != "" {
			t.Errorf("%s %s is %+v, in the package %q", o.Provider, o.Name, m, o.Model)
			return false
		}
		return true
	}
	usage := price.Usage{price.Requests: 1}
	for unit, n := range o.Usage {
		usage[unit] = n
	}
	c := m.Cost(usage)
	input := components(c, price.Input, price.Output) + roundedFigures(m)
	output := components(c, price.Output, price.Requests)
	if corrected[price.ModelID{Provider: o.Provider, Model: o.Model}] {
		// The package counts a kind of tokens as text that is dearer than text.
		if c.Input < price.NanoUSD(o.Input*float64(price.USD)) || c.Output < price.NanoUSD(o.Output*float64(price.USD)) {
			t.Errorf("%s %s, %v: %+v is less than in the package, %+v", o.Provider, o.Name, usage, c, *o)
			return false
		}
		return true
	}
	good := ok || c.Unpriced
	good = good && near(c.Input, o.Input, input)
	good = good && near(c.Output, o.Output, output)
	good = good && near(c.Total, o.Total, input+output+components(c, price.Requests, price.NumUnits))
	if !good {
		t.Errorf("%s %s at %s, %v: %+v, in the package %+v", o.Provider, o.Name, o.At, usage, c, *o)
	}
	return good
}

// correctedModels are those of which our table has rates that the source lacks
// (internal/price/corrections.json).
func correctedModels(t *testing.T) map[price.ModelID]bool {
	t.Helper()
	text, err := os.ReadFile("../../internal/price/corrections.json")
	if err != nil {
		t.Fatal(err)
	}
	var list []struct {
		Provider, Model string
		Rates           map[string]int64
	}
	if err := json.Unmarshal(text, &list); err != nil {
		t.Fatal(err)
	}
	models := map[price.ModelID]bool{}
	for _, c := range list {
		if len(c.Rates) > 0 {
			models[price.ModelID{Provider: c.Provider, Model: c.Model}] = true
		}
	}
	return models
}

// components is how many units from unit from to unit to cost something.
func components(c price.Cost, from, to price.Unit) float64 {
	n := 0.0
	for unit := from; unit < to; unit++ {
		if c.Parts[unit] > 0 {
			n++
		}
	}
	return n
}

// roundedFigures is how many nano-USD a price may be off because the table has
// fewer digits than the package: a cache write of 1/12 USD (ROUNDED in
// tools/prices), with less than a million tokens.
func roundedFigures(m *price.Match) float64 {
	if r, _ := m.Rate(price.CacheWrite); r.Base == 83_333_334 {
		return 1
	}
	return 0
}

// near says whether an amount is what the package has, each component rounded
// up. The package calculates with floats, of some 15 digits.
func near(got price.NanoUSD, usd, components float64) bool {
	nano := usd * float64(price.USD)
	slack := 1e-4 + math.Abs(nano)*1e-12
	more := float64(got) - nano
	return more > -slack && more < components+slack
}

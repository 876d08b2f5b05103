// SPDX-License-Identifier: MPL-2.0

package price

import (
	"math"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// kind is a kind of token that has no parts: the units that count it, from the
// most specific one on.
type kind []Unit

func kinds() []kind {
	return []kind{
		{Input}, {CacheRead, Input}, {CacheWrite, Input}, {CacheWrite1h, CacheWrite, Input},
		{InputAudio, Input}, {CacheAudioRead, CacheRead, InputAudio, Input},
		{InputImage, Input}, {CacheImageRead, CacheRead, InputImage, Input}, {InputVideo, Input},
		{Output}, {OutputReasoning, Output}, {OutputCitation, Output},
		{OutputAudio, Output}, {OutputImage, Output}, {OutputVideo, Output},
	}
}

// randomRates gives a random set of rates in which a part never stands without
// its whole, with tiers now and then.
func randomRates(rng *rand.Rand) map[Unit]Rate {
	rate := func() Rate {
		r := Rate{Base: NanoUSD(rng.Int64N(int64(MaxRate)) >> rng.IntN(50))}
		for above := int64(0); rng.IntN(3) == 0; {
			above += 1 + rng.Int64N(300_000)
			r.Tiers = append(r.Tiers, Tier{Above: above, Price: NanoUSD(rng.Int64N(int64(MaxRate)) >> rng.IntN(50))})
		}
		return r
	}
	rates := map[Unit]Rate{}
	for _, whole := range []Unit{Input, Output} {
		if rng.IntN(10) == 0 {
			continue
		}
		rates[whole] = rate()
		for u := range Requests {
			if u.within(whole) && rng.IntN(3) == 0 {
				rates[u] = rate()
			}
		}
	}
	if rng.IntN(4) == 0 {
		rates[Requests] = Rate{Base: NanoUSD(rng.Int64N(int64(USD)))}
	}
	return rates
}

// randomUsage counts random numbers of each kind of token, so that the counts
// agree with each other, and says how many there were of each kind.
func randomUsage(rng *rand.Rand, shift int) (Usage, []int64) {
	var u Usage
	counts := make([]int64, 0, len(kinds()))
	for _, k := range kinds() {
		n := rng.Int64N(1<<40) >> (shift + rng.IntN(40-shift))
		if rng.IntN(3) == 0 {
			n = 0
		}
		counts = append(counts, n)
		for _, unit := range k {
			u[unit] += n
		}
	}
	u[Requests] = rng.Int64N(3)
	return u, counts
}

// rationalCost prices token by token kind: each at the rate of the most
// specific unit that has one; tokens in two such units at the dearer.
func rationalCost(rates map[Unit]Rate, u Usage, counts []int64) (parts [NumUnits]*big.Int, total *big.Int, unpriced bool) {
	tokens := map[Unit]*big.Int{}
	price := map[Unit]NanoUSD{}
	for unit, r := range rates {
		tokens[unit], price[unit] = new(big.Int), r.Base
		for _, tier := range r.Tiers {
			if u[Input] > tier.Above {
				price[unit] = tier.Price
			}
		}
	}
	for i, k := range kinds() {
		unit, ok := pricedBy(k, tokens, price)
		if !ok {
			unpriced = unpriced || counts[i] > 0
			continue
		}
		tokens[unit].Add(tokens[unit], big.NewInt(counts[i]))
	}
	total = new(big.Int)
	for unit := range parts {
		parts[unit] = new(big.Int)
		switch n, ok := tokens[Unit(unit)]; {
		case !ok:
		case Unit(unit) == Requests:
			parts[unit].Mul(big.NewInt(u[Requests]), big.NewInt(int64(price[Requests])))
		default:
			parts[unit] = ceilPerMillion(n, price[Unit(unit)])
		}
		total.Add(total, parts[unit])
	}
	return parts, total, unpriced || len(rates) == 0
}

func pricedBy(k kind, tokens map[Unit]*big.Int, price map[Unit]NanoUSD) (Unit, bool) {
	own := k[0]
	if _, ok := tokens[own]; !ok && len(k) == 4 { // in two units that overlap
		_, first := tokens[k[1]]
		_, second := tokens[k[2]]
		if first && second {
			tokens[own], price[own] = new(big.Int), max(price[k[1]], price[k[2]])
		}
	}
	for _, unit := range k {
		if _, ok := tokens[unit]; ok {
			return unit, true
		}
	}
	return 0, false
}

func matchOf(rates map[Unit]Rate) *Match { return &Match{tariff: newTariff(rates, nil)} }

func TestCost_EqualsRationalArithmeticOnRandomTariffsAndUsages(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	saturated := 0
	for i := range 20000 {
		rates := randomRates(rng)
		u, counts := randomUsage(rng, 20*(i%2))
		if r, ok := rates[Output]; ok && i%5 == 0 { // a tier just reached, or just not
			r.Tiers = []Tier{{Above: max(u[Input]-int64(i%2), 0), Price: r.Base + 1_000_000_000}}
			rates[Output] = r
		}
		parts, total, unpriced := rationalCost(rates, u, counts)
		c := matchOf(rates).Cost(u)
		if c.Unpriced != unpriced {
			t.Fatalf("rates %v, usage %v: unpriced %v, want %v", rates, u, c.Unpriced, unpriced)
		}
		if !total.IsInt64() {
			saturated++
			if !c.Saturated || c.Total != maxNanoUSD {
				t.Fatalf("rates %v, usage %v: %+v, want the largest amount, marked", rates, u, c)
			}
			continue
		}
		if c.Saturated || int64(c.Total) != total.Int64() || c.Total != c.Input+c.Output+c.Parts[Requests] {
			t.Fatalf("rates %v, usage %v: %+v, want %s", rates, u, c, total)
		}
		for unit, want := range parts {
			if want.Int64() != int64(c.Parts[unit]) {
				t.Fatalf("rates %v, usage %v: %s costs %d, want %s", rates, u, Unit(unit), c.Parts[unit], want)
			}
		}
	}
	if saturated == 0 || saturated > 19000 {
		t.Errorf("%d of 20000 cases were too large; the test needs both", saturated)
	}
}

// TestCost_ContradictingCountsAreNeverCheaperThanTheirParts charges one
// nano-USD a token, so that an amount is a number of tokens.
func TestCost_ContradictingCountsAreNeverCheaperThanTheirParts(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	for range 20000 {
		rates := randomRates(rng)
		for unit := range rates {
			rates[unit] = Rate{Base: tokensPerMillion}
		}
		var u Usage
		for i := range u {
			u[i] = rng.Int64N(2000) - 500
		}
		m := matchOf(rates)
		c := m.Cost(u)
		for unit := range Requests {
			if _, ok := m.Rate(unit.whole()); !ok {
				continue
			}
			if charged := chargedFor(m, c, unit); int64(charged) < u[unit] {
				t.Fatalf("rates %v, usage %v: %d %s tokens charged of %d", rates, u, charged, unit, u[unit])
			}
		}
		if both := max(u[CacheRead], 0) + max(u[CacheWrite], 0); m.tariff.priced[Input] && int64(c.Input) < both {
			t.Fatalf("rates %v, usage %v: %d input tokens charged; cache reads and writes alone are %d", rates, u, c.Input, both)
		}
	}
}

// chargedFor sums what is charged for a unit and its parts, or, where it has no
// rate, for its whole.
func chargedFor(m *Match, c Cost, unit Unit) NanoUSD {
	if _, ok := m.Rate(unit); !ok {
		unit = unit.whole()
	}
	sum := c.Parts[unit]
	for part := range NumUnits {
		if part.within(unit) {
			sum += c.Parts[part]
		}
	}
	return sum
}

func TestCost_SurvivesExtremeCounts(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 10))
	extremes := []int64{math.MinInt64, math.MinInt64 + 1, -1, 0, 1, math.MaxInt64 - 1, math.MaxInt64}
	for range 20000 {
		var u, v Usage
		for i := range u {
			u[i], v[i] = extremes[rng.IntN(len(extremes))], extremes[rng.IntN(len(extremes))]
		}
		u.Add(v)
		c := matchOf(randomRates(rng)).Cost(u)
		for _, amount := range append(c.Parts[:], c.Total, c.Input, c.Output) {
			if amount < 0 || amount > c.Total {
				t.Fatalf("usage %v costs %+v", u, c)
			}
		}
	}
}

func TestCost_SaysWhatHasNoPrice(t *testing.T) {
	embedding := matchOf(map[Unit]Rate{Input: {Base: USD}})
	if c := embedding.Cost(Usage{Input: 5, Requests: 1}); c.Unpriced || c.Total != 5000 {
		t.Errorf("5 input tokens cost %+v", c)
	}
	if c := embedding.Cost(Usage{Input: 5, Output: 1}); !c.Unpriced {
		t.Error("output without a price is taken as free")
	}
	if c := matchOf(nil).Cost(Usage{}); !c.Unpriced {
		t.Error("an entry without prices is taken as free")
	}
	if c := matchOf(map[Unit]Rate{Input: {}, Output: {}}).Cost(Usage{Input: 5, Output: 5}); c.Unpriced || c.Total != 0 {
		t.Errorf("an explicit price of zero gives %+v", c)
	}
}

func TestWorstCase_IsNeverBelowTheCostOfWhatItBounds(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 12))
	for range 20000 {
		m := matchOf(randomRates(rng))
		u, _ := randomUsage(rng, 20)
		u[Requests] = 1
		b := Bound{Input: u[Input] + rng.Int64N(100), Output: u[Output] + rng.Int64N(100)}
		b.InputMedia = u[InputAudio]+u[InputImage]+u[InputVideo] > 0
		b.InputAudio = u[InputAudio] > 0 && m.tariff.priced[InputAudio]
		b.OutputAudio = u[OutputAudio] > 0 && m.tariff.priced[OutputAudio]
		b.OutputImage = u[OutputImage] > 0 && m.tariff.priced[OutputImage]
		b.HourCache = rng.IntN(4) == 0
		c := m.Cost(u)
		if rng.IntN(2) == 0 {
			if dear := m.CostUnsplit(u); dear.Total+NanoUSD(NumUnits) < c.Total && !c.Saturated && u[OutputReasoning]+u[OutputCitation] == 0 {
				t.Fatalf("%+v costs %s, but %s where all output may be media", u, c.Total, dear.Total)
			} else {
				c = dear
			}
		}
		worst, ok := m.WorstCase(b)
		if ok && (worst < c.Total || c.Unpriced) {
			t.Fatalf("%+v for at most %+v costs %s, above the worst case %s", u, b, c.Total, worst)
		}
		if !ok && !c.Unpriced && !c.Saturated && m.tariff.priced[Input] && m.tariff.priced[Output] {
			if worst != maxNanoUSD {
				t.Fatalf("no worst case for %+v, though all has a price", b)
			}
		}
	}
}

func TestWorstCase_CountsTiersAndMediaOnlyWhereTheyCanApply(t *testing.T) {
	m := matchOf(map[Unit]Rate{
		Input:      {Base: 2 * USD, Tiers: []Tier{{Above: 1000, Price: 4 * USD}}},
		CacheWrite: {Base: 3 * USD},
		InputAudio: {Base: 50 * USD},
		Output:     {Base: 10 * USD, Tiers: []Tier{{Above: 1000, Price: 20 * USD}}},
	})
	for _, c := range []struct {
		b             Bound
		input, output NanoUSD
	}{
		{Bound{Input: 1000}, 3 * USD, 10 * USD},
		{Bound{Input: 1001}, 4 * USD, 20 * USD},
		{Bound{Input: 10, InputMedia: true}, 50 * USD, 10 * USD},
		{Bound{Input: 10, InputAudio: true}, 50 * USD, 10 * USD},
		{Bound{Input: 10, HourCache: true}, 4 * USD, 10 * USD},
		{Bound{Input: 1001, HourCache: true}, 8 * USD, 20 * USD},
	} {
		input, ok1 := m.DearestInput(c.b)
		output, ok2 := m.DearestOutput(c.b)
		if !ok1 || !ok2 || input != c.input || output != c.output {
			t.Errorf("%+v: %s and %s, want %s and %s", c.b, input, output, c.input, c.output)
		}
	}
	if _, ok := matchOf(map[Unit]Rate{Input: {}}).DearestOutput(Bound{}); ok {
		t.Error("output without a price has a dearest price")
	}
	if _, ok := matchOf(map[Unit]Rate{Input: {}}).WorstCase(Bound{Input: 1, Output: 1}); ok {
		t.Error("output without a price has a worst case")
	}
}

// A model with a rate for images makes them unasked.
func TestWorstCase_OutputIsHeldAtTheRateOfMediaThatTheModelMakes(t *testing.T) {
	m := matchOf(map[Unit]Rate{Input: {Base: USD}, Output: {Base: 2 * USD}, OutputImage: {Base: 30 * USD}})
	if rate, _ := m.DearestOutput(Bound{Input: 1}); rate != 30*USD {
		t.Errorf("an output token is held at %s a million", rate)
	}
	u := Usage{Input: 10, Output: 1000, OutputReasoning: 400}
	if c := m.CostUnsplit(u); c.Output != 30*1_000_000 {
		t.Errorf("output of an unknown kind costs %s", c.Output)
	}
	if c := m.Cost(u); c.Output != 2*1_000_000 {
		t.Errorf("text costs %s", c.Output)
	}
	plain := matchOf(map[Unit]Rate{Input: {Base: USD}, Output: {Base: 2 * USD}, OutputReasoning: {Base: 3 * USD}})
	if plain.CostUnsplit(u) != plain.Cost(u) {
		t.Error("a model without media costs more where its output isn't told apart")
	}
}

func TestWorstCase_IsUnknownForMediaWithoutARateOfTheirOwn(t *testing.T) {
	text := map[Unit]Rate{Input: {Base: USD}, Output: {Base: 2 * USD}}
	with := func(u Unit) map[Unit]Rate {
		return map[Unit]Rate{Input: {Base: USD}, Output: {Base: 2 * USD}, u: {Base: 9 * USD}}
	}
	for name, c := range map[string]struct {
		b     Bound
		rates map[Unit]Rate
		known bool
	}{
		"text":                    {Bound{}, text, true},
		"images in the input":     {Bound{InputMedia: true}, text, true},
		"audio in the input":      {Bound{InputMedia: true, InputAudio: true}, text, false},
		"audio with a rate":       {Bound{InputMedia: true, InputAudio: true}, with(InputAudio), true},
		"audio output":            {Bound{OutputAudio: true}, text, false},
		"audio output, of images": {Bound{OutputAudio: true}, with(OutputImage), false},
		"audio output, rated":     {Bound{OutputAudio: true}, with(OutputAudio), true},
		"image output":            {Bound{OutputImage: true}, text, false},
		"image output, of audio":  {Bound{OutputImage: true}, with(OutputAudio), false},
		"image output, rated":     {Bound{OutputImage: true}, with(OutputImage), true},
	} {
		c.b.Input, c.b.Output = 10, 10
		if _, ok := matchOf(c.rates).WorstCase(c.b); ok != c.known {
			t.Errorf("%s: known is %v", name, ok)
		}
	}
	book := NewBook(mustLoad(t), nil, []Override{{Provider: "openai", Model: "own", Prices: map[Unit]NanoUSD{Input: 1, Output: 1}}})
	m, _ := book.Find("openai", "own", time.Now())
	if _, ok := m.WorstCase(Bound{Input: 1, Output: 1, InputAudio: true, OutputAudio: true, OutputImage: true}); !ok {
		t.Error("an operator's price holds for all, as it says")
	}
}

func TestMatch_AWindowOfTheTableIsTakenForNoLessThanItCanBe(t *testing.T) {
	table := mustLoad(t)
	book := NewBook(table, nil, []Override{
		{Provider: "openai", Model: "gpt-4o", Prices: map[Unit]NanoUSD{Input: 1}},
		{Provider: "openai", Model: "own", Prices: map[Unit]NanoUSD{Input: 1}, ContextWindow: 1000},
	})
	for _, c := range []struct {
		provider, model string
		least, most     int64 // 0 for unknown
	}{
		{"openai", "gpt-4.1", 1_047_576, 1_100_000},
		{"google", "gemini-3-flash-preview", 1_048_576, 1_100_000},
		{"anthropic", "claude-sonnet-4-5", 0, 0}, // a tier above 200,000, and a window of 200,000
		{"openai", "gpt-4o", 128_000, 135_000},
		{"openai", "own", 1000, 1000},
		{"openai", "gpt-5-image", 0, 0},
	} {
		m, _ := book.Find(c.provider, c.model, time.Now())
		if n, known := m.MaxContext(); known != (c.least > 0) || n < c.least || n > c.most {
			t.Errorf("%s/%s reads at most %d, %v", c.provider, c.model, n, known)
		}
	}
}

func TestUnit_NamesReadBackAndUnknownOnesListAll(t *testing.T) {
	for u := range NumUnits {
		text, err := u.MarshalText()
		var back Unit
		if err != nil || back.UnmarshalText(text) != nil || back != u {
			t.Errorf("unit %d is written %q and read as %d", int(u), text, int(back))
		}
	}
	var u Unit
	if err := u.UnmarshalText([]byte("inptu")); err == nil || !strings.Contains(err.Error(), "cache_write_1h, input_audio") {
		t.Error("a unit that doesn't exist was read")
	}
	if _, err := NumUnits.MarshalText(); err == nil {
		t.Error("what is no unit was written")
	}
}

func BenchmarkCost(b *testing.B) {
	m := matchOf(map[Unit]Rate{
		Input: {Base: 5 * USD, Tiers: []Tier{{Above: 200_000, Price: 10 * USD}}}, CacheRead: {Base: USD / 2},
		CacheWrite: {Base: 6 * USD}, CacheWrite1h: {Base: 10 * USD}, Output: {Base: 25 * USD},
	})
	u := Usage{Input: 12_000, CacheRead: 8_000, CacheWrite: 1_000, Output: 900, OutputReasoning: 300, Requests: 1}
	b.ReportAllocs()
	for b.Loop() {
		if m.Cost(u).Total == 0 {
			b.Fatal("free")
		}
	}
}

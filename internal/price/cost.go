// SPDX-License-Identifier: MPL-2.0

package price

// Cost is what a usage costs. Amounts are at least zero.
type Cost struct {
	// Total is the sum of all Parts.
	Total NanoUSD
	// Input and Output are the sums of their units' Parts.
	Input, Output NanoUSD
	// Parts is by unit what its tokens cost, those of parts with a rate of their
	// own left out; Parts[Requests] is the price per request. Each is rounded
	// up to a whole nano-USD, once.
	Parts [NumUnits]NanoUSD
	// Unpriced means that the usage has tokens without a price, so that Total
	// is less than what they cost.
	Unpriced bool
	// Saturated means that an amount was too large and is the largest there is.
	Saturated bool
}

// Cost prices a usage. A request with Requests of 0 pays no price per request.
//
// A negative count is taken as zero. Counts that contradict each other (parts
// larger than their whole) are never cheaper than each part charged by itself.
func (m *Match) Cost(u Usage) Cost {
	u.settle()
	t := m.tariff
	c := Cost{
		Unpriced: !t.hasRates() || (u[Input] > 0 && !t.priced[Input]) || (u[Output] > 0 && !t.priced[Output]),
	}
	var own Usage // tokens of a unit without those of its priced parts
	for i := range t.steps {
		s := &t.steps[i]
		n := u[s.unit]
		for _, part := range s.parts {
			n = max(n-own[part], 0)
		}
		own[s.unit] = n
		amount, over := perMillion(n, t.rates[s.unit].at(u[Input]))
		c.add(s.unit, amount, over)
	}
	if t.priced[Requests] {
		amount, over := times(u[Requests], t.rates[Requests].Base)
		c.add(Requests, amount, over)
	}
	return c
}

func (c *Cost) add(u Unit, amount NanoUSD, over bool) {
	c.Parts[u] = amount
	c.Saturated = c.Saturated || over
	var overSum bool
	switch u.whole() {
	case Input:
		c.Input, overSum = plus(c.Input, amount)
	case Output:
		c.Output, overSum = plus(c.Output, amount)
	}
	c.Total, over = plus(c.Total, amount)
	c.Saturated = c.Saturated || over || overSum
}

// CostUnsplit is Cost for a usage that doesn't tell how much of its output is
// audio, images or video: all of it is charged at the dearest rate that output
// of this model can have.
func (m *Match) CostUnsplit(u Usage) Cost {
	dearest, rate := Output, NanoUSD(0)
	for _, part := range []Unit{Output, OutputAudio, OutputImage, OutputVideo} {
		if r := m.tariff.rates[part].at(max(u[Input], 0)); m.tariff.priced[part] && r > rate {
			dearest, rate = part, r
		}
	}
	if dearest != Output {
		u[OutputReasoning], u[OutputCitation], u[OutputAudio], u[OutputImage], u[OutputVideo] = 0, 0, 0, 0, 0
		u[dearest] = u[Output]
	}
	return m.Cost(u)
}

// Bound is the most that a request can use.
type Bound struct {
	// Input and Output are in tokens, at least zero.
	Input, Output int64
	// InputMedia says whether audio, images or video can be among the input,
	// which may have dearer rates of their own. Output always may hold what the
	// model has a rate for.
	InputMedia bool
	// InputAudio, OutputAudio and OutputImage say that these can be among them.
	// Providers charge them apart from text, so that without a rate for them
	// there is no worst case. Images in the input are charged as text, but where
	// they have a rate.
	InputAudio, OutputAudio, OutputImage bool
	// HourCache says that input may be written to a cache for an hour.
	HourCache bool
}

// DearestInput is the highest rate that an input token can cost, in nano-USD
// per million: over all kinds of input (cache writes among them) and all tiers
// that an input within the bound can reach. It is false if input has no price.
func (m *Match) DearestInput(b Bound) (NanoUSD, bool) {
	rate, _ := m.tariff.dearest(Input, b)
	return rate, m.tariff.priced[Input]
}

// DearestOutput is the same for output tokens; their tiers go by the input too.
func (m *Match) DearestOutput(b Bound) (NanoUSD, bool) {
	rate, _ := m.tariff.dearest(Output, b)
	return rate, m.tariff.priced[Output]
}

// WorstCase is at least what one request within the bound can cost, rounding
// included, as long as its counts agree with each other. It is false if tokens
// within the bound have no price, such as audio of a model whose price is known
// for text alone, or if it is too large to say.
func (m *Match) WorstCase(b Bound) (NanoUSD, bool) {
	t := m.tariff
	if !t.hasRates() || (b.Input > 0 && !t.prices(Input, b)) || (b.Output > 0 && !t.prices(Output, b)) {
		return 0, false
	}
	input, over1 := t.worst(Input, b.Input, b)
	output, over2 := t.worst(Output, b.Output, b)
	total, over3 := plus(input, output)
	total, over4 := plus(total, t.rates[Requests].Base)
	return total, !over1 && !over2 && !over3 && !over4
}

// prices says whether all tokens of the whole that are within the bound have a
// price.
func (t *tariff) prices(whole Unit, b Bound) bool {
	for u := range NumUnits {
		if u.whole() != whole {
			continue
		}
		apart := u == InputAudio && b.InputAudio || u == OutputAudio && b.OutputAudio || u == OutputImage && b.OutputImage
		if (apart || t.unpriced[u]) && !t.priced[u] && !t.atWhole[u] {
			return false
		}
	}
	return t.priced[whole]
}

// hourCacheFactor is what a token written to a cache for an hour costs, in
// tokens of input, where the tariff has no rate for it
// (https://platform.claude.com/docs/en/build-with-claude/prompt-caching#pricing).
const hourCacheFactor = 2

// dearest is the highest rate among the whole and its parts, and how many of
// them have one.
func (t *tariff) dearest(whole Unit, b Bound) (rate NanoUSD, units int64) {
	for i := range t.steps {
		u := t.steps[i].unit
		if u.whole() != whole || u.media() && whole == Input && !b.InputMedia && !b.InputAudio {
			continue
		}
		rate = max(rate, t.rates[u].dearest(b.Input))
		units++
	}
	if whole == Input && b.HourCache && !t.priced[CacheWrite1h] {
		input, over := times(hourCacheFactor, t.rates[Input].dearest(b.Input))
		if over {
			input = maxNanoUSD
		}
		rate = max(rate, input)
		units++
	}
	return rate, units
}

// worst is the most that so many tokens of the whole can cost: all at the
// dearest rate, and each unit that can have a token rounded up by itself.
func (t *tariff) worst(whole Unit, tokens int64, b Bound) (NanoUSD, bool) {
	if tokens <= 0 {
		return 0, false
	}
	rate, units := t.dearest(whole, b)
	amount, over := perMillion(tokens, rate)
	slack := NanoUSD(max(min(units, tokens)-1, 0))
	total, overSum := plus(amount, slack)
	return total, over || overSum
}

// SPDX-License-Identifier: MPL-2.0

package relay

import (
	"math"

	"vault-plugin-secrets-portkey/internal/price"
	"vault-plugin-secrets-portkey/internal/wire"
)

// What a provider adds to a request's text, and what bounds a request whose size
// its text doesn't tell.
const (
	// perMessage and perTool are tokens that a provider adds to each, generously:
	// OpenAI's cookbook counts 3 or 4 for a message and about 12 for a function.
	perMessage = 16
	perTool    = 64
	// anyTool is what tools add once: Anthropic's tell the model how to use them
	// (https://docs.anthropic.com/en/docs/agents-and-tools/tool-use/overview).
	anyTool = 640
	// perRequest is for what frames the whole prompt.
	perRequest = 64
	// largestContext is taken for a model whose context window isn't known: the
	// largest on offer.
	largestContext = 2_000_000
)

// bound is the most that the request can use.
func (x *exchange) bound() price.Bound {
	p := &x.params
	stored := p.Input.References || len(p.Input.OpenEnded) > 0
	b := price.Bound{
		InputMedia: p.Input.Media || stored, InputAudio: p.Input.Audio, HourCache: p.Input.HourCache,
		OutputAudio: p.AudioOutput, OutputImage: p.ImageOutput,
	}
	b.Input = x.inputText() + perRequest + perMessage*p.Input.Messages + perTool*p.Input.Tools
	if p.Input.Tools > 0 {
		b.Input += anyTool
	}
	// The context window is no bound of text: tables have it too small for many
	// models, and a provider that refuses what is longer charges nothing.
	if p.Input.Media || stored {
		b.Input = x.contextWindow()
	}
	if x.hasOutput() {
		b.Output = p.MaxOutput(x.perChoice())
	}
	return b
}

// contextWindow is the most input tokens that the models of the request can read.
// Inputs that aren't a conversation are read one by one.
func (x *exchange) contextWindow() int64 {
	context := windowOf(x.price)
	if len(x.params.OtherModels) > 0 {
		if len(x.otherPrices) < len(x.params.OtherModels) { // not looked up
			context = largestContext
		}
		for _, other := range x.otherPrices {
			context = max(context, windowOf(other))
		}
	}
	switch x.params.Kind {
	case wire.Completions, wire.Embeddings, wire.Moderations:
		inputs := max(x.params.Input.Messages, 1)
		return min(context, math.MaxInt64/inputs) * inputs
	}
	return context
}

// windowOf is the most tokens that a model reads at once.
func windowOf(m *price.Match) int64 {
	if m != nil {
		if window, known := m.MaxContext(); known {
			return window
		}
	}
	return largestContext
}

// perChoice is the most output tokens that each choice can have: what was
// reserved, else what the request says, else the default.
func (x *exchange) perChoice() int64 {
	switch {
	case x.outputCap >= 0:
		return x.outputCap
	case x.params.OutputCap >= 0:
		return x.params.OutputCap
	}
	return x.defaultCap()
}

// defaultCap is the operator's default, or less where the model allows less: a
// provider refuses a cap that is larger than that. The context window is for
// input too, which gets half of it.
func (x *exchange) defaultCap() int64 {
	most := x.req.DefaultOutputCap
	if allowed := x.req.VirtualKey.Target.Provider().MaxOutput(x.params.Model); allowed > 0 {
		most = min(most, allowed)
	}
	if unstreamed := x.req.VirtualKey.Target.Provider().MaxUnstreamed; unstreamed > 0 && !x.params.Stream {
		most = min(most, unstreamed)
	}
	if x.price != nil && x.price.ContextWindow > 0 {
		most = min(most, x.price.ContextWindow/2)
	}
	return max(most, 1)
}

// worstCase is the bound as usage. An unmetered route has no tokens that anybody knows of.
func (x *exchange) worstCase() (u price.Usage) {
	u[price.Requests] = 1
	if !x.params.Kind.Metered() {
		return u
	}
	b := x.bound()
	u[price.Input], u[price.Output] = b.Input, b.Output
	return u
}

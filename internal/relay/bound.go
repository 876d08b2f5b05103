// SPDX-License-Identifier: MPL-2.0

package relay

import (
	"vault-plugin-secrets-portkey/internal/price"
	"vault-plugin-secrets-portkey/internal/wire"
)

// What bounds a request whose size its text doesn't tell.
const (
	// perMessage and perTool are tokens that a provider adds to each, generously:
	// OpenAI's cookbook counts 3 or 4 for a message and about 12 for a function.
	perMessage = 16
	perTool    = 64
	// perRequest is for what frames the whole prompt.
	perRequest = 64
	// largestContext is taken for a model whose context window isn't known: the
	// largest on offer.
	largestContext = 2_000_000
)

// bound is the most that the request can use.
func (x *exchange) bound() price.Bound {
	p := &x.params
	b := price.Bound{InputMedia: p.Input.Media, OutputMedia: p.AudioOutput}
	context := int64(largestContext)
	if x.price != nil && x.price.ContextWindow > 0 {
		context = x.price.ContextWindow
	}
	b.Input = min(p.Input.TextBytes+perRequest+perMessage*p.Input.Messages+perTool*p.Input.Tools, context)
	if p.Input.Media || p.Input.References || len(p.Input.OpenEnded) > 0 {
		b.Input = context
	}
	switch p.Kind {
	case wire.Chat, wire.Completions, wire.Responses:
		perChoice := p.OutputCap
		if perChoice < 0 {
			perChoice = x.req.DefaultOutputCap
		}
		b.Output = p.MaxOutput(perChoice)
	}
	return b
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

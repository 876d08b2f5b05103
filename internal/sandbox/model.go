// SPDX-License-Identifier: MPL-2.0

package sandbox

import "strings"

// Model is a model of the sandbox: what it is called, what it can take, and
// what it costs. Prices are made up, in nano-USD (10^-9 US dollars) per token,
// and only serve to try budgets.
type Model struct {
	// ID is the name without modifiers, such as "sandbox-small".
	ID string
	// Description is one sentence for people.
	Description string
	// ContextWindow is the most tokens that prompt and answer have together.
	ContextWindow int64
	// MaxOutputTokens is the most tokens of one answer, reasoning included; 0
	// for a model of embeddings.
	MaxOutputTokens int64
	// InputNanoUSD is the price of a prompt token that was not cached.
	InputNanoUSD int64
	// CachedInputNanoUSD is the price of a cached prompt token. Cached tokens
	// are counted within the prompt's.
	CachedInputNanoUSD int64
	// OutputNanoUSD is the price of a token of the answer, reasoning included.
	OutputNanoUSD int64
	// AnswerTokens is the length of an answer that nothing cuts short, without
	// its reasoning.
	AnswerTokens int64
	// ReasoningTokens is how many tokens of reasoning, which nobody sees,
	// precede an answer.
	ReasoningTokens int64
	// Dimensions is the most, and the usual, dimensions of an embedding; 0 for
	// a model of text.
	Dimensions int64
}

// Models lists the models in the order of the documentation. Each call returns
// a fresh slice.
func Models() []Model {
	return []Model{
		{
			ID: "sandbox-small", Description: "Short answers at low prices.",
			ContextWindow: 128_000, MaxOutputTokens: 16_384,
			InputNanoUSD: 150, CachedInputNanoUSD: 75, OutputNanoUSD: 600,
			AnswerTokens: 32,
		},
		{
			ID: "sandbox-large", Description: "Longer answers at high prices.",
			ContextWindow: 128_000, MaxOutputTokens: 16_384,
			InputNanoUSD: 2_500, CachedInputNanoUSD: 1_250, OutputNanoUSD: 10_000,
			AnswerTokens: 128,
		},
		{
			ID: "sandbox-reasoning", Description: "Reports reasoning tokens, which are paid for and not seen.",
			ContextWindow: 200_000, MaxOutputTokens: 100_000,
			InputNanoUSD: 1_100, CachedInputNanoUSD: 550, OutputNanoUSD: 4_400,
			AnswerTokens: 64, ReasoningTokens: 128,
		},
		{
			ID: "sandbox-embedding", Description: "Embeddings of up to 1,536 dimensions.",
			ContextWindow: 8_192,
			InputNanoUSD:  20, CachedInputNanoUSD: 20,
			Dimensions: 1_536,
		},
	}
}

// Find returns the model that name, with or without modifiers, belongs to. The
// error says what the sandbox has instead.
func Find(name string) (Model, error) {
	v, err := parseName(Models(), name)
	if err != nil {
		return Model{}, err
	}
	return *v.model, nil
}

func modelIDs(models []Model) string {
	ids := make([]string, len(models))
	for i := range models {
		ids[i] = models[i].ID
	}
	return strings.Join(ids, ", ")
}

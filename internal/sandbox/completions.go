// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"encoding/json"
	"iter"
)

// completionRequest is what the sandbox reads of POST /v1/completions
// (https://platform.openai.com/docs/api-reference/completions/create). It takes
// no notice of any other field, echo and suffix among them, and has no default
// cap of 16 tokens.
type completionRequest struct {
	Model         string         `json:"model"`
	Stream        bool           `json:"stream"`
	Temperature   *float64       `json:"temperature"`
	TopP          *float64       `json:"top_p"`
	Prompt        inputs         `json:"prompt"`
	MaxTokens     *int64         `json:"max_tokens"`
	N             *int64         `json:"n"`
	Seed          *int64         `json:"seed"`
	Stop          stringList     `json:"stop"`
	StreamOptions *streamOptions `json:"stream_options"`
}

var _ textFormatter = (*completionRequest)(nil)

func (r *completionRequest) model() string { return r.Model }

func (r *completionRequest) generation(v variant) (*generation, *apiError) {
	if r.Prompt == nil {
		return nil, missing("prompt")
	}
	if len(r.Prompt) == 0 {
		return nil, invalid("prompt", "empty_array", "Invalid 'prompt': empty array. Expected an array with minimum length 1.")
	}
	if err := checkSampling(r.Temperature, r.TopP); err != nil {
		return nil, err
	}
	n, err := within("n", r.N, 1, maxChoices)
	if err != nil {
		return nil, err
	}
	p := newPrompt("completion", v.model, 0)
	for _, in := range r.Prompt {
		p.depend(in.digest)
		p.tokens += in.tokens
	}
	p.sow(r.Seed)
	g := &generation{
		variant: v, prompt: p, promptParam: "prompt", choices: n * int64(len(r.Prompt)),
		limit: r.MaxTokens, limitParam: "max_tokens", stops: r.Stop,
	}
	return g, g.streamed(r.Stream, r.StreamOptions)
}

// textCompletion is the answer and the chunk of its stream alike.
type (
	textCompletion struct {
		ID                string       `json:"id"`
		Object            string       `json:"object"`
		Created           int64        `json:"created"`
		Model             string       `json:"model"`
		Choices           []textChoice `json:"choices"`
		SystemFingerprint string       `json:"system_fingerprint"`
		// Usage is as in chatChunk.
		Usage json.RawMessage `json:"usage,omitempty"`
	}
	textChoice struct {
		Text         string    `json:"text"`
		Index        int       `json:"index"`
		Logprobs     *struct{} `json:"logprobs"` // always null
		FinishReason *string   `json:"finish_reason"`
	}
)

func newTextCompletion(c *completion) *textCompletion {
	return &textCompletion{
		ID: "cmpl-" + c.id, Object: "text_completion", Created: c.created, Model: c.variant.name,
		SystemFingerprint: fingerprint,
	}
}

func (*completionRequest) whole(c *completion) any {
	answer := newTextCompletion(c)
	answer.Choices = make([]textChoice, len(c.choice))
	for i := range c.choice {
		answer.Choices[i] = textChoice{Text: c.choice[i].text, Index: i, FinishReason: &c.choice[i].finish}
	}
	if c.usage != nil {
		answer.Usage = encode(c.usage.chat())
	}
	return answer
}

func (*completionRequest) events(c *completion) iter.Seq[event] {
	chunk := newTextCompletion(c)
	chunk.Choices = make([]textChoice, 1)
	if c.includeUsage {
		chunk.Usage = jsonNull()
	}
	return func(yield func(event) bool) {
		for d := range c.deltas() {
			chunk.Choices[0] = textChoice{Text: d.text, Index: d.choice}
			if !yield(event{dataEvent(chunk), d.due}) {
				return
			}
		}
		for i := range c.choice {
			chunk.Choices[0] = textChoice{Index: i, FinishReason: &c.choice[i].finish}
			if !yield(event{dataEvent(chunk), c.choice[i].tokens}) {
				return
			}
		}
		if c.includeUsage && c.usage != nil {
			chunk.Choices, chunk.Usage = []textChoice{}, encode(c.usage.chat())
			if !yield(event{dataEvent(chunk), c.steps}) {
				return
			}
		}
		yield(event{doneEvent(), c.steps})
	}
}

func (*completionRequest) failedEvent(e *apiError, _ int64) []byte { return dataEvent(errorAnswer{e}) }

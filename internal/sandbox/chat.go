// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"encoding/json"
	"fmt"
	"iter"
	"slices"
)

// chatRequest is what the sandbox reads of POST /v1/chat/completions
// (https://platform.openai.com/docs/api-reference/chat/create). It takes no
// notice of any other field.
type chatRequest struct {
	Model               string            `json:"model"`
	Messages            []chatMessage     `json:"messages"`
	Stream              bool              `json:"stream"`
	Temperature         *float64          `json:"temperature"`
	TopP                *float64          `json:"top_p"`
	MaxTokens           *int64            `json:"max_tokens"`
	MaxCompletionTokens *int64            `json:"max_completion_tokens"`
	N                   *int64            `json:"n"`
	Seed                *int64            `json:"seed"`
	Stop                stringList        `json:"stop"`
	StreamOptions       *streamOptions    `json:"stream_options"`
	Tools               []json.RawMessage `json:"tools"`
	ToolChoice          toolChoice        `json:"tool_choice"`
	ResponseFormat      *textFormat       `json:"response_format"`
}

type streamOptions struct {
	IncludeUsage bool `json:"include_usage"`
}

type chatMessage struct {
	Role      string         `json:"role"`
	Content   content        `json:"content"`
	Name      string         `json:"name"`
	ToolCalls []chatToolCall `json:"tool_calls"`
}

type chatToolCall struct {
	Function struct {
		Name      string `json:"name"`
		Arguments string `json:"arguments"`
	} `json:"function"`
}

func (r *chatRequest) model() string { return r.Model }

func (r *chatRequest) generation(v variant) (*generation, *apiError) {
	if err := r.checkMessages(); err != nil {
		return nil, err
	}
	if err := checkSampling(r.Temperature, r.TopP); err != nil {
		return nil, err
	}
	if r.MaxTokens != nil && r.MaxCompletionTokens != nil {
		return nil, invalid("max_tokens", "invalid_parameter_combination",
			"Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.")
	}
	g := &generation{
		variant: v, prompt: r.prompt(v.model), promptParam: "messages",
		limit: r.MaxTokens, limitParam: "max_tokens", stops: r.Stop,
	}
	if r.MaxCompletionTokens != nil {
		g.limit, g.limitParam = r.MaxCompletionTokens, "max_completion_tokens"
	}
	var err *apiError
	if g.choices, err = within("n", r.N, 1, maxChoices); err != nil {
		return nil, err
	}
	if err = g.streamed(r.Stream, r.StreamOptions); err != nil {
		return nil, err
	}
	if err = g.format("response_format", r.ResponseFormat); err != nil {
		return nil, err
	}
	f, err := r.ToolChoice.forced(r.Tools)
	if err != nil {
		return nil, err
	}
	return g, g.call(f)
}

// streamed sets how the answer is delivered.
func (g *generation) streamed(stream bool, o *streamOptions) *apiError {
	if o != nil && !stream {
		return invalid("stream_options", "", "The 'stream_options' parameter is only allowed when 'stream' is enabled.")
	}
	g.stream, g.includeUsage = stream, o != nil && o.IncludeUsage
	return nil
}

func (r *chatRequest) checkMessages() *apiError {
	if r.Messages == nil {
		return missing("messages")
	}
	if len(r.Messages) == 0 {
		return invalid("messages", "empty_array", "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.")
	}
	roles := [...]string{"system", "developer", "user", "assistant", "tool", "function"}
	for i := range r.Messages {
		m := &r.Messages[i]
		if m.Role == "" {
			return missing(fmt.Sprintf("messages[%d].role", i))
		}
		if !slices.Contains(roles[:], m.Role) {
			return invalidValue(fmt.Sprintf("messages[%d].role", i), m.Role,
				"'system', 'developer', 'user', 'assistant', 'tool', and 'function'")
		}
		// Only an answer may be without content, as it may call tools instead.
		if !m.Content.given && m.Role != "assistant" {
			return invalid(fmt.Sprintf("messages[%d].content", i), "", "Invalid value for 'content': expected a string, got null.")
		}
	}
	return nil
}

func (r *chatRequest) prompt(m *Model) *prompt {
	p := newPrompt("chat", m, tokensPerRequest)
	for i := range r.Messages {
		message := &r.Messages[i]
		p.tokens += tokensPerMessage
		p.depend(message.Role)
		p.add(message.Content)
		if message.Name != "" {
			p.say(message.Name)
		}
		for _, c := range message.ToolCalls {
			p.say(c.Function.Name)
			p.say(c.Function.Arguments)
		}
	}
	p.define(r.Tools)
	p.sow(r.Seed)
	return p
}

// The answer of chat completions, and the chunks of its stream
// (https://platform.openai.com/docs/api-reference/chat/object and …/streaming).
type (
	chatCompletion struct {
		ID                string       `json:"id"`
		Object            string       `json:"object"`
		Created           int64        `json:"created"`
		Model             string       `json:"model"`
		Choices           []chatChoice `json:"choices"`
		Usage             *chatUsage   `json:"usage,omitempty"`
		ServiceTier       string       `json:"service_tier"`
		SystemFingerprint string       `json:"system_fingerprint"`
	}
	chatChoice struct {
		Index        int        `json:"index"`
		Message      chatAnswer `json:"message"`
		Logprobs     *struct{}  `json:"logprobs"` // always null
		FinishReason string     `json:"finish_reason"`
	}
	chatAnswer struct {
		Role        string     `json:"role"`
		Content     *string    `json:"content"`
		ToolCalls   []chatCall `json:"tool_calls,omitempty"`
		Refusal     *string    `json:"refusal"`     // always null
		Annotations []struct{} `json:"annotations"` // always empty
	}
	chatCall struct {
		Index    *int         `json:"index,omitempty"` // in streams
		ID       string       `json:"id,omitempty"`
		Type     string       `json:"type,omitempty"`
		Function chatFunction `json:"function"`
	}
	chatFunction struct {
		Name      string `json:"name,omitempty"`
		Arguments string `json:"arguments"`
	}
	chatUsage struct {
		PromptTokens        int64 `json:"prompt_tokens"`
		CompletionTokens    int64 `json:"completion_tokens"`
		TotalTokens         int64 `json:"total_tokens"`
		PromptTokensDetails struct {
			CachedTokens int64 `json:"cached_tokens"`
			AudioTokens  int64 `json:"audio_tokens"`
		} `json:"prompt_tokens_details"`
		CompletionTokensDetails struct {
			ReasoningTokens          int64 `json:"reasoning_tokens"`
			AudioTokens              int64 `json:"audio_tokens"`
			AcceptedPredictionTokens int64 `json:"accepted_prediction_tokens"`
			RejectedPredictionTokens int64 `json:"rejected_prediction_tokens"`
		} `json:"completion_tokens_details"`
	}

	chatChunk struct {
		ID                string            `json:"id"`
		Object            string            `json:"object"`
		Created           int64             `json:"created"`
		Model             string            `json:"model"`
		ServiceTier       string            `json:"service_tier"`
		SystemFingerprint string            `json:"system_fingerprint"`
		Choices           []chatChunkChoice `json:"choices"`
		// Usage is absent unless it was asked for; then it is null in all
		// chunks but the last.
		Usage json.RawMessage `json:"usage,omitempty"`
	}
	chatChunkChoice struct {
		Index        int       `json:"index"`
		Delta        chatDelta `json:"delta"`
		Logprobs     *struct{} `json:"logprobs"` // always null
		FinishReason *string   `json:"finish_reason"`
	}
	// chatDelta holds members that are either absent or may be null.
	chatDelta struct {
		Role      string          `json:"role,omitempty"`
		Content   json.RawMessage `json:"content,omitempty"`
		ToolCalls []chatCall      `json:"tool_calls,omitempty"`
		Refusal   json.RawMessage `json:"refusal,omitempty"`
	}
)

const (
	serviceTier = "default"
	fingerprint = "fp_sandbox"
)

var _ textFormatter = (*chatRequest)(nil)

func (u *usage) chat() *chatUsage {
	if u == nil {
		return nil
	}
	c := &chatUsage{PromptTokens: u.prompt, CompletionTokens: u.completion, TotalTokens: u.prompt + u.completion}
	c.PromptTokensDetails.CachedTokens = u.cached
	c.CompletionTokensDetails.ReasoningTokens = u.reasoning
	return c
}

func (c *completion) callID(i int) string { return fmt.Sprintf("call_%s%02x", c.id[:22], i) }

func (*chatRequest) whole(c *completion) any {
	answer := &chatCompletion{
		ID: "chatcmpl-" + c.id, Object: "chat.completion", Created: c.created, Model: c.variant.name,
		Choices: make([]chatChoice, len(c.choice)), Usage: c.usage.chat(),
		ServiceTier: serviceTier, SystemFingerprint: fingerprint,
	}
	for i := range c.choice {
		message := chatAnswer{Role: "assistant", Annotations: []struct{}{}}
		if c.tool == "" {
			message.Content = &c.choice[i].text
		} else {
			message.ToolCalls = []chatCall{{ID: c.callID(i), Type: modeFunction, Function: chatFunction{c.tool, c.choice[i].text}}}
		}
		answer.Choices[i] = chatChoice{Index: i, Message: message, FinishReason: c.choice[i].finish}
	}
	return answer
}

func (*chatRequest) events(c *completion) iter.Seq[event] {
	chunk := chatChunk{
		ID: "chatcmpl-" + c.id, Object: "chat.completion.chunk", Created: c.created, Model: c.variant.name,
		ServiceTier: serviceTier, SystemFingerprint: fingerprint, Choices: make([]chatChunkChoice, 1),
	}
	if c.includeUsage {
		chunk.Usage = jsonNull()
	}
	return func(yield func(event) bool) {
		send := func(due int64, choice chatChunkChoice) bool {
			chunk.Choices[0] = choice
			return yield(event{dataEvent(&chunk), due})
		}
		for i := range c.choice {
			if !send(0, chatChunkChoice{Index: i, Delta: c.chatOpening(i)}) {
				return
			}
		}
		for d := range c.deltas() {
			if !send(d.due, chatChunkChoice{Index: d.choice, Delta: c.chatDelta(d.text)}) {
				return
			}
		}
		for i := range c.choice {
			if !send(c.choice[i].tokens, chatChunkChoice{Index: i, FinishReason: &c.choice[i].finish}) {
				return
			}
		}
		if c.includeUsage && c.usage != nil {
			chunk.Choices, chunk.Usage = []chatChunkChoice{}, encode(c.usage.chat())
			if !yield(event{dataEvent(&chunk), c.steps}) {
				return
			}
		}
		yield(event{doneEvent(), c.steps})
	}
}

// chatOpening is what the first chunk of a choice says.
func (c *completion) chatOpening(i int) chatDelta {
	d := chatDelta{Role: "assistant", Content: json.RawMessage(`""`), Refusal: jsonNull()}
	if c.tool != "" {
		d.Content = jsonNull()
		d.ToolCalls = []chatCall{{Index: new(int), ID: c.callID(i), Type: modeFunction, Function: chatFunction{Name: c.tool}}}
	}
	return d
}

func (c *completion) chatDelta(text string) chatDelta {
	if c.tool != "" {
		return chatDelta{ToolCalls: []chatCall{{Index: new(int), Function: chatFunction{Arguments: text}}}}
	}
	return chatDelta{Content: encode(text)}
}

func (*chatRequest) failedEvent(e *apiError, _ int64) []byte { return dataEvent(errorAnswer{e}) }

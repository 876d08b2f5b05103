// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"bytes"
	"encoding/json"
	"reflect"
)

// responseRequest is what the sandbox reads of POST /v1/responses
// (https://platform.openai.com/docs/api-reference/responses/create). Some
// fields are only repeated in the answer; it takes no notice of any other.
type responseRequest struct {
	Model           string            `json:"model"`
	Stream          bool              `json:"stream"`
	Temperature     *float64          `json:"temperature"`
	TopP            *float64          `json:"top_p"`
	Input           inputItems        `json:"input"`
	Instructions    *string           `json:"instructions"`
	MaxOutputTokens *int64            `json:"max_output_tokens"`
	Tools           []json.RawMessage `json:"tools"`
	ToolChoice      toolChoice        `json:"tool_choice"`
	Text            *responseText     `json:"text"`

	// What a provider that keeps nothing can't do.
	Background         bool            `json:"background"`
	PreviousResponseID *string         `json:"previous_response_id"`
	Conversation       json.RawMessage `json:"conversation"`
	Prompt             json.RawMessage `json:"prompt"`

	// What is repeated.
	Metadata          map[string]string `json:"metadata"`
	ParallelToolCalls *bool             `json:"parallel_tool_calls"`
	User              *string           `json:"user"`
}

// responseText is the field text, with its JSON to be repeated.
type responseText struct {
	format *textFormat
	raw    json.RawMessage
}

// UnmarshalJSON reads the format and keeps the rest as it is.
func (t *responseText) UnmarshalJSON(b []byte) error {
	var text struct {
		Format *textFormat `json:"format"`
	}
	if err := json.Unmarshal(b, &text); err != nil {
		return err
	}
	t.format, t.raw = text.Format, bytes.Clone(b)
	return nil
}

// inputItems is a string or a list of items; given tells an empty list from
// none.
type inputItems struct {
	given bool
	list  []inputItem
}

type inputItem struct {
	Role      string  `json:"role"`
	Content   content `json:"content"`
	Output    content `json:"output"`
	Name      string  `json:"name"`
	Arguments string  `json:"arguments"`
}

// UnmarshalJSON takes both forms.
func (in *inputItems) UnmarshalJSON(b []byte) error {
	switch b[0] {
	case 'n':
		return nil
	case '"':
		in.given, in.list = true, []inputItem{{Role: "user"}}
		return in.list[0].Content.UnmarshalJSON(b)
	case '[':
		in.given = true
		return json.Unmarshal(b, &in.list)
	}
	return wrongType(b, reflect.TypeFor[inputItems]())
}

var _ textFormatter = (*responseRequest)(nil)

func (r *responseRequest) model() string { return r.Model }

func (r *responseRequest) generation(v variant) (*generation, *apiError) {
	if err := r.checkSupported(); err != nil {
		return nil, err
	}
	if !r.Input.given {
		return nil, missing("input")
	}
	if len(r.Input.list) == 0 {
		return nil, invalid("input", "empty_array", "Invalid 'input': empty array. Expected an array with minimum length 1.")
	}
	if err := checkSampling(r.Temperature, r.TopP); err != nil {
		return nil, err
	}
	g := &generation{
		variant: v, prompt: r.prompt(v.model), promptParam: "input", choices: 1,
		limit: r.MaxOutputTokens, limitParam: "max_output_tokens", stream: r.Stream,
	}
	if r.Text != nil {
		if err := g.format("text.format", r.Text.format); err != nil {
			return nil, err
		}
	}
	f, err := r.ToolChoice.forced(r.Tools)
	if err != nil {
		return nil, err
	}
	return g, g.call(f)
}

func (r *responseRequest) checkSupported() *apiError {
	const stateless = "The sandbox keeps nothing from one request to the next."
	given := func(raw json.RawMessage) bool { return len(raw) > 0 && string(raw) != "null" }
	switch {
	case r.PreviousResponseID != nil:
		return invalid("previous_response_id", "previous_response_not_found",
			"Previous response with id '%s' not found. %s", clip(*r.PreviousResponseID), stateless)
	case r.Background:
		return unsupported("background", stateless)
	case given(r.Conversation):
		return unsupported("conversation", stateless)
	case given(r.Prompt):
		return unsupported("prompt", stateless)
	}
	return nil
}

func (r *responseRequest) prompt(m *Model) *prompt {
	p := newPrompt("response", m, tokensPerRequest)
	if r.Instructions != nil {
		p.tokens += tokensPerMessage
		p.say(*r.Instructions)
	}
	for i := range r.Input.list {
		item := &r.Input.list[i]
		p.tokens += tokensPerMessage
		p.depend(item.Role)
		p.add(item.Content)
		p.add(item.Output)
		p.say(item.Name)
		p.say(item.Arguments)
	}
	p.define(r.Tools)
	return p
}

// The response object (https://platform.openai.com/docs/api-reference/responses/object).
type (
	response struct {
		ID                 string             `json:"id"`
		Object             string             `json:"object"`
		CreatedAt          int64              `json:"created_at"`
		Status             string             `json:"status"`
		Background         bool               `json:"background"`
		CompletedAt        *int64             `json:"completed_at"`
		Error              *struct{}          `json:"error"` // always null
		IncompleteDetails  *incompleteDetails `json:"incomplete_details"`
		Instructions       *string            `json:"instructions"`
		MaxOutputTokens    *int64             `json:"max_output_tokens"`
		MaxToolCalls       *int64             `json:"max_tool_calls"` // always null
		Model              string             `json:"model"`
		Output             []outputItem       `json:"output"`
		ParallelToolCalls  bool               `json:"parallel_tool_calls"`
		PreviousResponseID *string            `json:"previous_response_id"` // always null
		Reasoning          reasoningSettings  `json:"reasoning"`
		ServiceTier        string             `json:"service_tier"`
		Store              bool               `json:"store"` // always false
		Temperature        float64            `json:"temperature"`
		Text               json.RawMessage    `json:"text"`
		ToolChoice         json.RawMessage    `json:"tool_choice"`
		Tools              []json.RawMessage  `json:"tools"`
		TopLogprobs        int64              `json:"top_logprobs"` // always 0
		TopP               float64            `json:"top_p"`
		Truncation         string             `json:"truncation"`
		Usage              *responseUsage     `json:"usage"`
		User               *string            `json:"user"`
		Metadata           map[string]string  `json:"metadata"`
	}
	incompleteDetails struct {
		Reason string `json:"reason"`
	}
	reasoningSettings struct {
		Effort  *string `json:"effort"`  // always null
		Summary *string `json:"summary"` // always null
	}
	responseUsage struct {
		InputTokens        int64 `json:"input_tokens"`
		InputTokensDetails struct {
			CachedTokens     int64 `json:"cached_tokens"`
			CacheWriteTokens int64 `json:"cache_write_tokens"`
		} `json:"input_tokens_details"`
		OutputTokens        int64 `json:"output_tokens"`
		OutputTokensDetails struct {
			ReasoningTokens int64 `json:"reasoning_tokens"`
		} `json:"output_tokens_details"`
		TotalTokens int64 `json:"total_tokens"`
	}

	// outputItem is one of reasoningItem, messageItem and callItem.
	outputItem    any
	reasoningItem struct {
		ID      string     `json:"id"`
		Type    string     `json:"type"`
		Summary []struct{} `json:"summary"` // always empty
	}
	messageItem struct {
		ID      string     `json:"id"`
		Type    string     `json:"type"`
		Status  string     `json:"status"`
		Role    string     `json:"role"`
		Content []textPart `json:"content"`
	}
	textPart struct {
		Type        string     `json:"type"`
		Text        string     `json:"text"`
		Annotations []struct{} `json:"annotations"` // always empty
		Logprobs    []struct{} `json:"logprobs"`    // always empty
	}
	callItem struct {
		ID        string `json:"id"`
		Type      string `json:"type"`
		Status    string `json:"status"`
		CallID    string `json:"call_id"`
		Name      string `json:"name"`
		Arguments string `json:"arguments"`
	}
)

// The states of a response and of its items.
const (
	statusInProgress = "in_progress"
	statusCompleted  = "completed"
	statusIncomplete = "incomplete"
)

func (c *completion) status() string {
	if c.choice[0].finish == finishLength {
		return statusIncomplete
	}
	return statusCompleted
}

func (u *usage) response() *responseUsage {
	if u == nil {
		return nil
	}
	r := &responseUsage{InputTokens: u.prompt, OutputTokens: u.completion, TotalTokens: u.prompt + u.completion}
	r.InputTokensDetails.CachedTokens = u.cached
	r.OutputTokensDetails.ReasoningTokens = u.reasoning
	return r
}

// started is the response before anything of it is made.
func (r *responseRequest) started(c *completion) *response {
	o := &response{
		ID: "resp_" + c.id, Object: "response", CreatedAt: c.created, Status: statusInProgress,
		Instructions: r.Instructions, MaxOutputTokens: r.MaxOutputTokens, Model: c.variant.name,
		Output: []outputItem{}, ParallelToolCalls: r.ParallelToolCalls == nil || *r.ParallelToolCalls,
		ServiceTier: serviceTier, Temperature: 1, Text: json.RawMessage(`{"format":{"type":"text"}}`),
		ToolChoice: json.RawMessage(`"auto"`), Tools: r.Tools, TopP: 1, Truncation: "disabled",
		User: r.User, Metadata: r.Metadata,
	}
	if r.Temperature != nil {
		o.Temperature = *r.Temperature
	}
	if r.TopP != nil {
		o.TopP = *r.TopP
	}
	if r.Text != nil && r.Text.format != nil {
		o.Text = r.Text.raw
	}
	if r.ToolChoice.raw != nil {
		o.ToolChoice = r.ToolChoice.raw
	}
	if o.Tools == nil {
		o.Tools = []json.RawMessage{}
	}
	if o.Metadata == nil {
		o.Metadata = map[string]string{}
	}
	return o
}

// ended is the response with all that was made.
func (r *responseRequest) ended(c *completion) *response {
	o := r.started(c)
	o.Status, o.Usage = c.status(), c.usage.response()
	if o.Status == statusCompleted {
		o.CompletedAt = &o.CreatedAt
	} else {
		o.IncompleteDetails = &incompleteDetails{"max_output_tokens"}
	}
	if c.choice[0].reasoning > 0 {
		o.Output = append(o.Output, c.reasoningItem())
	}
	if c.speaks() {
		o.Output = append(o.Output, c.item(c.status(), c.choice[0].text))
	}
	return o
}

// speaks says whether the cap left anything beside reasoning.
func (c *completion) speaks() bool {
	return c.choice[0].text != "" || c.status() == statusCompleted
}

func (c *completion) reasoningItem() outputItem {
	return &reasoningItem{ID: "rs_" + c.id, Type: "reasoning", Summary: []struct{}{}}
}

// item is the message or the call, with what is there of its text.
func (c *completion) item(status, text string) outputItem {
	if c.tool != "" {
		return &callItem{ID: c.itemID(), Type: "function_call", Status: status, CallID: c.callID(0), Name: c.tool, Arguments: text}
	}
	m := &messageItem{ID: c.itemID(), Type: "message", Status: status, Role: "assistant", Content: []textPart{}}
	if status != statusInProgress {
		m.Content = append(m.Content, newTextPart(text))
	}
	return m
}

func (c *completion) itemID() string {
	if c.tool != "" {
		return "fc_" + c.id
	}
	return "msg_" + c.id
}

func newTextPart(text string) textPart {
	return textPart{Type: "output_text", Text: text, Annotations: []struct{}{}, Logprobs: []struct{}{}}
}

func (r *responseRequest) whole(c *completion) any { return r.ended(c) }

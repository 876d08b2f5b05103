// SPDX-License-Identifier: MPL-2.0

package upstream

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
)

// call is the part of a request that an answer depends on.
type call struct {
	Model         string          `json:"model"`
	Messages      json.RawMessage `json:"messages"`
	Prompt        json.RawMessage `json:"prompt"`
	Input         json.RawMessage `json:"input"`
	Instructions  *string         `json:"instructions"`
	Stream        bool            `json:"stream"`
	StreamOptions struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
	N                   *int   `json:"n"`
	MaxTokens           *int   `json:"max_tokens"`
	MaxCompletionTokens *int   `json:"max_completion_tokens"`
	MaxOutputTokens     *int   `json:"max_output_tokens"`
	EncodingFormat      string `json:"encoding_format"`
	Dimensions          *int   `json:"dimensions"`
}

// maxChoices is the largest n, as at OpenAI.
const maxChoices = 128

// parseCall reads the body and checks what every endpoint with a body has.
func parseCall(body []byte) (call, *failure) {
	var c call
	refuse := func(f failure) (call, *failure) { return call{}, &f }
	if err := json.Unmarshal(body, &c); err != nil {
		var wrongType *json.UnmarshalTypeError
		if errors.As(err, &wrongType) && wrongType.Field != "" {
			return refuse(badRequest(wrongType.Field, "invalid_type", "Invalid type for '%s': expected %s, but got %s instead.", wrongType.Field, wrongType.Type, wrongType.Value))
		}
		return refuse(badRequest(nil, nil, "We could not parse the JSON body of your request: %v", err))
	}
	if c.Model == "" {
		return refuse(badRequest(nil, nil, "you must provide a model parameter"))
	}
	if c.N != nil && (*c.N < 1 || *c.N > maxChoices) {
		return refuse(badRequest("n", "invalid_value", "Invalid 'n': %d is not from 1 to %d.", *c.N, maxChoices))
	}
	for name, value := range map[string]*int{"max_tokens": c.MaxTokens, "max_completion_tokens": c.MaxCompletionTokens, "max_output_tokens": c.MaxOutputTokens} {
		if value != nil && *value < 1 {
			return refuse(badRequest(name, "integer_below_min_value", "Invalid '%s': integer below minimum value. Expected a value >= 1, but got %d instead.", name, *value))
		}
	}
	return c, nil
}

// promptTokens counts by the package's rule: bytes of text / 4, rounded up.
func (c call) promptTokens() int {
	bytes := 0
	for _, raw := range []json.RawMessage{c.Messages, c.Prompt, c.Input} {
		var v any
		if len(raw) > 0 && json.Unmarshal(raw, &v) == nil {
			bytes += textBytes(v)
		}
	}
	if c.Instructions != nil {
		bytes += len(*c.Instructions)
	}
	return (bytes + 3) / 4
}

// textBytes is the length of all text in a prompt, which may be a string, a
// list, a message with content, or a content part with text. A number is a
// token, worth 4 bytes.
func textBytes(v any) int {
	switch v := v.(type) {
	case string:
		return len(v)
	case float64:
		return 4
	case []any:
		sum := 0
		for _, e := range v {
			sum += textBytes(e)
		}
		return sum
	case map[string]any:
		return textBytes(v["content"]) + textBytes(v["text"])
	}
	return 0
}

// cap is the largest number of tokens that the request lets a choice have.
func (c call) cap(otherwise int) int {
	for _, limit := range []*int{c.MaxTokens, c.MaxCompletionTokens, c.MaxOutputTokens} {
		if limit != nil {
			otherwise = min(otherwise, *limit)
		}
	}
	return otherwise
}

// usage is what an answer cost, in tokens.
type usage struct{ prompt, completion int }

// completion is the answer to a call before it has a format.
type completion struct {
	id           string   // the part of the id that follows the prefix
	model        string   // as it was asked for
	pieces       []string // one token each
	cut          bool     // by a cap
	choices      int
	cost         usage  // what is billed
	usage        *usage // what the answer says about it; nil for nothing
	includeUsage bool
}

func (c completion) text() string { return strings.Join(c.pieces, "") }

// format is what differs between the endpoints that complete text.
type format struct {
	// input names the member that must be there.
	input func(call) (name string, there bool)
	body  func(completion) []byte
	// events are framed; the last one ends the stream.
	events func(completion) [][]byte
	// failed is the event of an error in mid-stream, framed.
	failed func(failure) []byte
}

// complete serves an endpoint that completes text.
func (x *exchange) complete(f format) {
	c, bad := parseCall(x.body)
	if bad != nil {
		x.fail(*bad)
		return
	}
	b, ok := x.start()
	if !ok {
		return
	}
	if name, there := f.input(c); !there {
		x.fail(badRequest(name, "missing_required_parameter", "Missing required parameter: '%s'.", name))
		return
	}
	done := x.completion(b, c)
	if c.Stream {
		x.deliver(b, answer{cost: &done.cost, stream: true, parts: f.events(done), failed: f.failed(statusFailure(http.StatusInternalServerError, x.model, x.key))})
		return
	}
	if b.kind == kindBig {
		done = done.padded(b.bytes, f.body)
	}
	x.deliver(b, answer{cost: &done.cost, parts: [][]byte{f.body(done)}})
}

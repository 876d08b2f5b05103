// SPDX-License-Identifier: MPL-2.0

package upstream

import (
	"encoding/json"
	"strconv"
	"strings"
)

// created stands wherever OpenAI says when something was made (Unix seconds).
// It is constant so that answers are the same every time.
const created = 1_700_000_000

// bigPiece is the length of a token of up-big.
const bigPiece = 16 << 10

// completion makes up the answer to a call.
func (x *exchange) completion(b behaviour, c call) completion {
	done := completion{id: "upstream", model: c.Model, choices: 1, includeUsage: c.StreamOptions.IncludeUsage}
	if c.N != nil {
		done.choices = *c.N
	}
	pieces := x.pieces(b)
	limit := c.cap(len(pieces))
	done.cut = limit < len(pieces)
	done.pieces = pieces[:limit]
	done.cost = usage{prompt: c.promptTokens(), completion: limit * done.choices}
	if b.kind != kindNoUsage {
		said := done.cost
		done.usage = &said
	}
	return done
}

// pieces is the text that b answers with, a token each.
func (x *exchange) pieces(b behaviour) []string {
	switch b.kind {
	case kindStream:
		return numbered(b.events)
	case kindRandom:
		return numbered(x.server.dice.between(b.fewest, b.events))
	case kindBig:
		pieces := make([]string, (b.bytes+bigPiece-1)/bigPiece)
		full := strings.Repeat("x", bigPiece)
		for i := range pieces {
			pieces[i] = full[:min(bigPiece, b.bytes-i*bigPiece)]
		}
		return pieces
	case kindEcho:
		return []string{x.echo(x.body)}
	}
	return []string{"Hello", " from", " the", " upstream", "."}
}

// numbered is that many tokens of text.
func numbered(count int) []string {
	pieces := make([]string, count)
	for i := range pieces {
		pieces[i] = "t" + strconv.Itoa(i) + " "
	}
	return pieces
}

// padded makes the text as long as it takes for the whole body to be size
// bytes, if that is more than the body without text. Its usage stays.
func (c completion) padded(size int, body func(completion) []byte) completion {
	c.pieces = nil
	c.pieces = []string{strings.Repeat("x", max(0, size-len(body(c)))/c.choices)}
	return c
}

// missing says whether a member is absent or null.
func missing(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

func (c completion) finishReason() string {
	if c.cut {
		return "length"
	}
	return "stop"
}

// chatFormat is POST /v1/chat/completions
// (https://platform.openai.com/docs/api-reference/chat).
func chatFormat() format {
	return format{
		input:  func(c call) (string, bool) { return "messages", !missing(c.Messages) },
		body:   chatBody,
		events: chatEvents,
		failed: func(f failure) []byte { return event(f.json()) },
	}
}

func (c completion) chat(kind string, choices []any) object {
	return object{
		"id": "chatcmpl-" + c.id, "object": kind, "created": created, "model": c.model,
		"service_tier": "default", "system_fingerprint": "fp_upstream", "choices": choices,
	}
}

func chatBody(c completion) []byte {
	choices := make([]any, c.choices)
	for i := range choices {
		choices[i] = object{
			"index": i, "logprobs": nil, "finish_reason": c.finishReason(),
			"message": object{"role": "assistant", "content": c.text(), "refusal": nil, "annotations": []any{}},
		}
	}
	o := c.chat("chat.completion", choices)
	c.addUsage(o)
	return marshal(o)
}

// chatEvents are a chunk with the role, a chunk a token and one with the finish
// reason for each choice, then the usage if asked for, then [DONE].
func chatEvents(c completion) [][]byte {
	var events [][]byte
	chunk := func(index int, delta object, finish any) {
		events = append(events, c.chunk(c.chat("chat.completion.chunk", []any{
			object{"index": index, "delta": delta, "logprobs": nil, "finish_reason": finish},
		})))
	}
	for i := range c.choices {
		chunk(i, object{"role": "assistant", "content": "", "refusal": nil}, nil)
		for _, p := range c.pieces {
			chunk(i, object{"content": p}, nil)
		}
		chunk(i, object{}, c.finishReason())
	}
	return c.endChunks(events, c.chat("chat.completion.chunk", []any{}))
}

// chunk frames a chunk that isn't the one with the usage.
func (c completion) chunk(o object) []byte {
	if c.includeUsage && c.usage != nil {
		o["usage"] = nil
	}
	return event(marshal(o))
}

// endChunks adds the chunk with the usage, if asked for, and the end.
func (c completion) endChunks(events [][]byte, last object) [][]byte {
	if c.includeUsage && c.usage != nil {
		c.addUsage(last)
		events = append(events, event(marshal(last)))
	}
	return append(events, event([]byte("[DONE]")))
}

// addUsage adds the usage of chat completions and completions.
func (c completion) addUsage(o object) {
	if c.usage == nil {
		return
	}
	o["usage"] = object{
		"prompt_tokens": c.usage.prompt, "completion_tokens": c.usage.completion,
		"total_tokens":              c.usage.prompt + c.usage.completion,
		"prompt_tokens_details":     object{"cached_tokens": 0, "audio_tokens": 0},
		"completion_tokens_details": object{"reasoning_tokens": 0, "audio_tokens": 0, "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0},
	}
}

// textFormat is POST /v1/completions
// (https://platform.openai.com/docs/api-reference/completions).
func textFormat() format {
	return format{
		input:  func(c call) (string, bool) { return "prompt", !missing(c.Prompt) },
		body:   textBody,
		events: textEvents,
		failed: func(f failure) []byte { return event(f.json()) },
	}
}

func (c completion) textCompletion(choices []any) object {
	return object{"id": "cmpl-" + c.id, "object": "text_completion", "created": created, "model": c.model, "choices": choices}
}

func textBody(c completion) []byte {
	choices := make([]any, c.choices)
	for i := range choices {
		choices[i] = object{"text": c.text(), "index": i, "logprobs": nil, "finish_reason": c.finishReason()}
	}
	o := c.textCompletion(choices)
	c.addUsage(o)
	return marshal(o)
}

func textEvents(c completion) [][]byte {
	var events [][]byte
	chunk := func(index int, text string, finish any) {
		events = append(events, c.chunk(c.textCompletion([]any{
			object{"text": text, "index": index, "logprobs": nil, "finish_reason": finish},
		})))
	}
	for i := range c.choices {
		for _, p := range c.pieces {
			chunk(i, p, nil)
		}
		chunk(i, "", c.finishReason())
	}
	return c.endChunks(events, c.textCompletion([]any{}))
}

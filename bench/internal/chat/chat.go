// SPDX-License-Identifier: MPL-2.0

// Package chat makes the requests and answers that the bench sends around:
// OpenAI's chat completions, always the same for a size, so that any program on
// the way can be compared with any other and every answer can be checked.
package chat

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// Path is where a completion is asked for.
const Path = "/v1/chat/completions"

// MaxKiB is the largest body there is, in KiB; the smallest is 1.
const MaxKiB = 1024

const modelPrefix = "bench-"

// Model is the model whose answers have about kib KiB. That the size is in the
// name, not in a field of its own, gets it past programs that decode and encode
// a request anew.
func Model(kib int) string { return modelPrefix + strconv.Itoa(kib) }

// Request is a body of exactly kib KiB that asks for an answer of that size. A
// streamed one doesn't ask for the usage, as most apps don't.
func Request(kib int, stream bool) []byte {
	head := fmt.Sprintf(`{"model":%q,"stream":%t,"max_tokens":%d,"temperature":0.7,"messages":[`+
		`{"role":"system","content":"You are a helpful assistant."},{"role":"user","content":"`, Model(kib), stream, kib*1024)
	const tail = `"}]}`
	return []byte(head + prose(kib*1024-len(head)-len(tail)) + tail)
}

// SandboxModel is the model of the plugin's own sandbox whose whole answers have
// about kib KiB.
func SandboxModel(kib int) string { return "sandbox-small:big=" + strconv.Itoa(kib*1024-400) }

// SandboxRequest is Request of a whole answer for the sandbox.
func SandboxRequest(kib int) []byte {
	body := bytes.Replace(Request(kib, false), []byte(Model(kib)), []byte(SandboxModel(kib)), 1)
	const from = "You are a helpful assistant."
	longer := len(SandboxModel(kib)) - len(Model(kib))
	return bytes.Replace(body, []byte(from), []byte(from[:len(from)-longer]), 1)
}

// CheckSandbox says what is wrong with the sandbox's answer.
func CheckSandbox(kib int, answer []byte) error {
	text, err := said(answer)
	if size := kib*1024 - 400; err == nil && len(text) != size {
		err = fmt.Errorf("the answer's text has %d bytes, not %d", len(text), size)
	}
	return err
}

// Answer is the JSON that answers a request which isn't streamed, of exactly
// kib KiB.
func Answer(kib int) []byte {
	head := fmt.Sprintf(`{"id":"chatcmpl-bench","object":"chat.completion","created":1767225600,"model":%q,"choices":[`+
		`{"index":0,"message":{"role":"assistant","content":"`, Model(kib))
	tail := `","refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":` + usage(kib) + `}`
	return []byte(head + prose(kib*1024-len(head)-len(tail)) + tail)
}

// Events are the server-sent events that answer a streamed request, one word of
// the text in each, together about kib KiB. The last one is [DONE]; before it is
// one with the usage, if that was asked for.
func Events(kib int, withUsage bool) [][]byte {
	chunk := func(choices, rest string) []byte {
		return fmt.Appendf(nil, `data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1767225600,"model":%q,`+
			`"system_fingerprint":"fp_44709d6fcb","choices":[%s]%s}`+"\n\n", Model(kib), choices, rest)
	}
	events := [][]byte{chunk(`{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}`, "")}
	stop := chunk(`{"index":0,"delta":{},"finish_reason":"stop"}`, "")
	done := []byte("data: [DONE]\n\n")
	size := len(events[0]) + len(stop) + len(done)
	for word := range strings.SplitAfterSeq(prose(kib*256), " ") {
		event := chunk(fmt.Sprintf(`{"index":0,"delta":{"content":%q},"finish_reason":null}`, word), "")
		if size += len(event); size > kib*1024 {
			break
		}
		events = append(events, event)
	}
	events = append(events, stop)
	if withUsage {
		events = append(events, chunk("", `,"usage":`+usage(kib)))
	}
	return append(events, done)
}

func usage(kib int) string {
	return fmt.Sprintf(`{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}`, kib*200, kib*16, kib*216)
}

// prose is n bytes of text that JSON writes as it is.
func prose(n int) string {
	const words = "A virtual key stands for the key of a provider and is worth nothing anywhere else. " +
		"Whoever holds it may ask for completions until its limit is reached, and not for one more. "
	return strings.Repeat(words, n/len(words)+1)[:n]
}

// Asked is what a request asks for.
type Asked struct {
	KiB           int
	Stream, Usage bool
}

// ReadRequest finds what a request of this package asks for, in whatever JSON
// spelling it arrives; ok is false for any other body. It doesn't decode: it
// must cost nothing beside the programs that are measured.
func ReadRequest(body []byte) (asked Asked, ok bool) {
	_, rest, found := bytes.Cut(body, []byte(`"`+modelPrefix))
	end := bytes.IndexByte(rest, '"')
	if !found || end < 0 {
		return Asked{}, false
	}
	kib, err := strconv.Atoi(string(rest[:end]))
	if err != nil || kib < 1 || kib > MaxKiB {
		return Asked{}, false
	}
	return Asked{KiB: kib, Stream: isTrue(body, `"stream"`), Usage: isTrue(body, `"include_usage"`)}, true
}

// isTrue says whether the field called name, in quotes, is true.
func isTrue(body []byte, name string) bool {
	_, value, _ := bytes.Cut(body, []byte(name))
	value, colon := bytes.CutPrefix(bytes.TrimLeft(value, " \t\r\n"), []byte(":"))
	return colon && bytes.HasPrefix(bytes.TrimLeft(value, " \t\r\n"), []byte("true"))
}

// Check says what is wrong with an answer to a request: it must have said what
// the upstream program says, whole, however the way there spelt it.
func Check(asked Asked, answer []byte) error {
	read, want := said, Answer(asked.KiB)
	if asked.Stream {
		read, want = streamed, bytes.Join(Events(asked.KiB, false), nil)
	}
	text, err := read(answer)
	if err != nil {
		return err
	}
	wanted, err := read(want)
	if err == nil && text != wanted {
		err = fmt.Errorf("the answer's text has %d bytes and isn't the upstream's, of %d", len(text), len(wanted))
	}
	return err
}

// completion is what of an answer, or of an event, Check looks at.
type completion struct {
	Choices []struct {
		Message, Delta struct{ Content string }
		FinishReason   string `json:"finish_reason"`
	}
	Usage *struct {
		TotalTokens int `json:"total_tokens"`
	}
}

// said is the text of an answer that wasn't streamed.
func said(answer []byte) (string, error) {
	var c completion
	if err := json.Unmarshal(answer, &c); err != nil {
		return "", fmt.Errorf("the answer isn't JSON: %w", err)
	}
	if len(c.Choices) != 1 || c.Choices[0].FinishReason != "stop" || c.Usage == nil || c.Usage.TotalTokens == 0 {
		return "", fmt.Errorf("the answer isn't a completion with its usage")
	}
	return c.Choices[0].Message.Content, nil
}

// streamed is the text of a stream that ended as it should.
func streamed(answer []byte) (string, error) {
	events, whole := bytes.CutSuffix(bytes.TrimSpace(answer), []byte("data: [DONE]"))
	if !whole {
		return "", fmt.Errorf("the stream didn't end with [DONE]")
	}
	var text strings.Builder
	for line := range bytes.Lines(events) {
		event, isEvent := bytes.CutPrefix(line, []byte("data:"))
		if !isEvent {
			continue
		}
		var c completion
		if err := json.Unmarshal(event, &c); err != nil {
			return "", fmt.Errorf("an event of the stream isn't JSON: %w", err)
		}
		if len(c.Choices) > 0 {
			text.WriteString(c.Choices[0].Delta.Content)
		}
	}
	return text.String(), nil
}

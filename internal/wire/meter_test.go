// SPDX-License-Identifier: MPL-2.0

package wire

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// recording is a stream as a provider sends it, and what is to be read of it.
type recording struct {
	file    string
	kind    Kind
	usage   Usage
	outcome Outcome
	model   string
	tier    string
	events  int64
	bytes   int64
	// dropped is a text that only the usage-only chunk has; empty if there is
	// no such chunk.
	dropped string
}

func recordings() []recording {
	known := func(u Usage) Usage { u.Known = true; return u }
	return []recording{
		{"openai-chat.sse", Chat, known(Usage{Input: 1312, CacheRead: 1280, Output: 9, Total: 1321}), Complete,
			"gpt-4o-mini-2024-07-18", "default", 4, 35, `"cached_tokens":1280`},
		{"openai-tools.sse", Chat, known(Usage{Input: 78, Output: 213, Reasoning: 192, Total: 291}), Complete,
			"gpt-5-mini-2025-08-07", "default", 6, 24, `"reasoning_tokens":192`},
		{"azure-chat.sse", Chat, known(Usage{Input: 12, Output: 3, Total: 15}), Complete,
			"gpt-4o-2024-11-20", "", 2, 8, `"total_tokens":15`},
		{"openrouter-chat.sse", Chat, known(Usage{Input: 2103, CacheWrite: 2090, Output: 4, Total: 2107, ProviderCostUSD: "0.00811125"}), Complete,
			"anthropic/claude-sonnet-4.5", "", 2, 9, ""},
		{"deepseek-chat.sse", Chat, known(Usage{Input: 140, CacheRead: 128, Output: 31, Reasoning: 22, Total: 171}), Complete,
			"deepseek-reasoner", "", 2, 22, ""},
		{"groq-chat.sse", Chat, known(Usage{Input: 41, Output: 2, Total: 43}), Complete,
			"llama-3.3-70b-versatile", "", 1, 4, ""},
		{"xai-chat.sse", Chat, known(Usage{Input: 687, CacheRead: 640, Output: 114, Reasoning: 112, Total: 801, ProviderCostUSD: "0.00386"}), Complete,
			"grok-4-0709", "", 3, 22, `"choices":[],"usage"`},
		{"moonshot-chat.sse", Chat, known(Usage{Input: 95, CacheRead: 64, Output: 5, Total: 100}), Complete,
			"kimi-k2.5", "", 1, 10, ""},
		{"openai-error.sse", Chat, Usage{}, ErrorEvent, "gpt-4o-2024-08-06", "", 1, 3, ""},
		{"openai-completions.sse", Completions, known(Usage{Input: 6, Output: 2, Total: 8}), Complete,
			"gpt-3.5-turbo-instruct:20230824-v2", "", 2, 10, `"total_tokens":8`},
		{"openai-responses.sse", Responses, known(Usage{Input: 2048, CacheRead: 1920, Output: 397, Reasoning: 384, Total: 2445}), Complete,
			"gpt-5-2025-08-07", "default", 2, 11, ""},
		{"openai-responses-failed.sse", Responses, Usage{}, ErrorEvent, "gpt-5-2025-08-07", "auto", 1, 2, ""},
		{"odd-lines.sse", Chat, known(Usage{Input: 7, Output: 2, Total: 9}), Complete, "local-7b", "", 2, 8, `"total_tokens":9`},
	}
}

func (r *recording) read(t testing.TB) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "streams", r.file))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func (r *recording) check(t *testing.T, m *Meter) {
	t.Helper()
	u := m.Usage()
	if u.OutputSplit = false; u != r.usage { // usage_test.go tests that one
		t.Errorf("usage:\n got %+v\nwant %+v", u, r.usage)
	}
	if got := m.Outcome(); got != r.outcome {
		t.Errorf("outcome %v, want %v", got, r.outcome)
	}
	if m.Model() != r.model || m.ServiceTier() != r.tier {
		t.Errorf("model %q of tier %q, want %q of %q", m.Model(), m.ServiceTier(), r.model, r.tier)
	}
	if events, n := m.Output(); events != r.events || n != r.bytes {
		t.Errorf("output: %d events of %d bytes, want %d of %d", events, n, r.events, r.bytes)
	}
}

// run feeds the parts of a stream and returns what the meter hands on.
func run(m *Meter, parts ...[]byte) []byte {
	var out []byte
	for _, p := range parts {
		out = append(out, m.Next(p)...)
	}
	return append(out, m.Finish()...)
}

func TestMeter_ReadsUsageOfEveryRecordedStreamAndLeavesItsBytesAlone(t *testing.T) {
	for _, r := range recordings() {
		t.Run(r.file, func(t *testing.T) {
			text := r.read(t)
			m := NewMeter(r.kind, true, false)
			if out := run(m, text); !bytes.Equal(out, text) {
				t.Error("the stream was changed")
			}
			r.check(t, m)
		})
	}
}

// without is the stream without the event that holds mark.
func without(t *testing.T, stream []byte, mark string) []byte {
	t.Helper()
	if mark == "" {
		return stream
	}
	if bytes.Count(stream, []byte(mark)) != 1 {
		t.Fatalf("%q stands %d times in the stream", mark, bytes.Count(stream, []byte(mark)))
	}
	at, blank := bytes.Index(stream, []byte(mark)), []byte("\n\n")
	if bytes.Contains(stream, []byte("\r\n")) {
		blank = []byte("\r\n\r\n")
	}
	start := bytes.LastIndex(stream[:at], blank) + len(blank)
	end := at + bytes.Index(stream[at:], blank) + len(blank)
	return append(bytes.Clone(stream[:start]), stream[end:]...)
}

func TestMeter_TakesOutTheUsageOnlyChunkAndNothingElse(t *testing.T) {
	for _, r := range recordings() {
		t.Run(r.file, func(t *testing.T) {
			text := r.read(t)
			mark := r.dropped
			if r.file == "odd-lines.sse" {
				mark = `"usage":{`
			}
			m := NewMeter(r.kind, true, true)
			in := bytes.Clone(text)
			if out, want := run(m, in), without(t, text, mark); !bytes.Equal(out, want) {
				t.Errorf("got\n%s\nwant\n%s", out, want)
			}
			if !bytes.Equal(in, text) {
				t.Error("the meter wrote into its input")
			}
			r.check(t, m)
		})
	}
}

func TestMeter_StreamsCutAtEveryByteGiveTheSameUsageAndBytes(t *testing.T) {
	for _, r := range recordings() {
		t.Run(r.file, func(t *testing.T) {
			text := r.read(t)
			for _, drop := range []bool{false, true} {
				want := run(NewMeter(r.kind, true, drop), text)
				for cut := 1; cut < len(text); cut++ {
					m := NewMeter(r.kind, true, drop)
					if out := run(m, text[:cut], text[cut:]); !bytes.Equal(out, want) {
						t.Fatalf("cut at %d (drop %v): other bytes\n%s", cut, drop, out)
					}
					if r.check(t, m); t.Failed() {
						t.Fatalf("cut at %d (drop %v)", cut, drop)
					}
				}
				m := NewMeter(r.kind, true, drop)
				if out := run(m, bytes.SplitAfter(text, nil)...); !bytes.Equal(out, want) {
					t.Fatalf("byte by byte (drop %v): other bytes\n%s", drop, out)
				}
				r.check(t, m)
			}
		})
	}
}

// The bytes of a chunk may wait only while it can still be the usage-only one.
func TestMeter_HoldsBackNothingThatIsKnownToBeContent(t *testing.T) {
	const head = `data: {"id":"1","choices":[`
	m := NewMeter(Chat, true, true)
	if out := m.Next([]byte(": ping\n" + head)); string(out) != ": ping\n" {
		t.Errorf("an undecided chunk: handed on %q", out)
	}
	if out := m.Next([]byte(`{"delta":{"content":"a`)); string(out) != head+`{"delta":{"content":"a` {
		t.Errorf("as its choices began: handed on %q", out)
	}
	if out := m.Next([]byte(`b"}}]}`)); string(out) != `b"}}]}` {
		t.Errorf("after that: handed on %q", out)
	}
	if out := m.Next([]byte("\n\ndata: [DO")); string(out) != "\n\ndata: [DO" {
		t.Errorf("the marker of the end: handed on %q", out)
	}
	free := NewMeter(Chat, true, false)
	for _, c := range head {
		if out := free.Next([]byte{byte(c)}); string(out) != string(c) {
			t.Fatalf("nothing is to be taken out, but %q was handed on for %q", out, c)
		}
	}
}

func TestMeter_KeepsAUsageChunkThatCarriesMore(t *testing.T) {
	for name, chunk := range map[string]string{
		"an error":       `{"choices":[],"usage":{"total_tokens":1},"error":{"message":"x"}}`,
		"citations":      `{"choices":[],"usage":{"total_tokens":1},"citations":["https://example.com"]}`,
		"filter results": `{"choices":[],"prompt_filter_results":[{}],"usage":{"total_tokens":1}}`,
		"choices":        `{"choices":[{"index":0}],"usage":{"total_tokens":1}}`,
		"two choices":    `{"choices":[],"usage":{"total_tokens":1},"choices":[{}]}`,
		"no choices":     `{"usage":{"total_tokens":1}}`,
		"null usage":     `{"choices":[],"usage":null}`,
		"nested usage":   `{"choices":[],"x_groq":{"usage":{"total_tokens":1}}}`,
		"half an object": `{"choices":[],"usage":{"total_tokens":1}`,
		"a tail":         `{"choices":[],"usage":{"total_tokens":1}}}`,
		"a quoted usage": `{"choices":[],"text":"\"usage\":{}"}`,
	} {
		in := "data: " + chunk + "\n\n"
		if out := run(NewMeter(Chat, true, true), []byte(in)); string(out) != in {
			t.Errorf("%s: handed on %q", name, out)
		}
	}
	for name, in := range map[string]string{
		"spaces":       "data: { \"choices\" : [ ] , \"usage\" : { } } \n\n",
		"escaped keys": "data:{\"\\u0063hoices\":[],\"us\\u0061ge\":{\"prompt_tokens\":1}}\n\n",
		"lone CR":      "data: {\"choices\":[],\"usage\":{}}\r\r",
		"other fields": "id: 7\nevent: message\n: note\ndata: {\"choices\":[],\"usage\":{},\"error\":null,\"citations\":null}\n\n",
	} {
		for _, parts := range [][][]byte{{[]byte(in)}, bytes.SplitAfter([]byte(in), nil)} {
			if out := run(NewMeter(Chat, true, true), parts...); len(out) > 0 {
				t.Errorf("%s: handed on %q", name, out)
			}
		}
	}
	in := []byte("data: {\"choices\":[],\"usage\":{}}\n\n")
	for _, kind := range []Kind{Responses, Embeddings, Unmetered} {
		if out := run(NewMeter(kind, true, true), in); !bytes.Equal(out, in) {
			t.Errorf("%v: handed on %q", kind, out)
		}
	}
}

func TestMeter_TellsHowAStreamEnded(t *testing.T) {
	const chunk = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n"
	const running = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":1}}\n\n"
	const last = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":1}}\n\n"
	const only = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":1}}\n\n"
	for name, c := range map[string]struct {
		in             string
		eof            bool
		outcome        Outcome
		known, partial bool
	}{
		"nothing":                          {"", true, Truncated, false, false},
		"no end":                           {chunk, true, Truncated, false, false},
		"the marker":                       {chunk + "data: [DONE]\n\n", true, Complete, false, false},
		"the marker without a space":       {chunk + "data:[DONE]\n\n", false, Complete, false, false},
		"the marker without a line end":    {chunk + "data: [DONE]", true, Complete, false, false},
		"a running figure":                 {running, true, Truncated, true, true},
		"a running figure, the marker":     {running + "data: [DONE]\n\n", false, Complete, true, false},
		"a last figure, broken off":        {running + last, false, Truncated, true, true},
		"a last figure, no marker":         {running + last, true, Complete, true, false},
		"a last chunk, broken off":         {last + only, false, Truncated, true, false},
		"a last chunk that comes too soon": {only + chunk, false, Truncated, true, true},
		"an error":                         {chunk + "data: {\"error\":{\"message\":\"x\"}}\n\n", true, ErrorEvent, false, false},
		"an error, the marker":             {last + "data: {\"error\":{\"message\":\"x\"}}\n\ndata: [DONE]\n\n", true, ErrorEvent, true, false},
		"an event called error":            {"event: error\ndata: {\"message\":\"x\"}\n\n", true, ErrorEvent, false, false},
		"an event called error, no data":   {"event: error\n\n" + chunk, true, Truncated, false, false},
		"no error":                         {"data: {\"error\":null,\"choices\":[]}\n\ndata: [DONE]\n\n", true, Complete, false, false},
		"half a chunk of usage":            {only[:len(only)-4], true, Truncated, false, false},
		"a marker on two lines":            {"data: [DO\ndata: NE]\n\n", true, Truncated, false, false},
		"a comment":                        {": data: [DONE]\n\n", true, Truncated, false, false},
	} {
		m := NewMeter(Chat, true, false)
		m.Next([]byte(c.in))
		if c.eof {
			m.Finish()
		}
		if u := m.Usage(); m.Outcome() != c.outcome || u.Known != c.known || u.Partial != c.partial {
			t.Errorf("%s: %v %+v", name, m.Outcome(), u)
		}
	}
}

func TestMeter_TellsWhereContentBegins(t *testing.T) {
	const role = ": ping\n\ndata: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n"
	m := NewMeter(Chat, true, false)
	m.Next([]byte(role))
	if m.FirstContent() != -1 {
		t.Errorf("a role is no content: %d", m.FirstContent())
	}
	m.Next([]byte("data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n"))
	if m.FirstContent() != int64(len(role)) {
		t.Errorf("content begins at %d, want %d", m.FirstContent(), len(role))
	}
}

// Where events begin alike, the scan of the first is used for the others.
func TestMeter_EventsThatBeginAlikeAreReadLikeAnyOther(t *testing.T) {
	const a = "data: {\"model\":\"a\",\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n"
	const b = "data: {\"model\":\"b\",\"choices\":[{\"delta\":{}}]}\n\n"
	m := NewMeter(Chat, true, false)
	m.Next([]byte(a + b))
	if m.Model() != "b" {
		t.Errorf("model %q, want b", m.Model())
	}
	m.Next([]byte(a + strings.Replace(a, "\"x\"", "\"yz\",\"id\":\"quiet\"", 1)))
	if events, n := m.Output(); m.Model() != "a" || events != 3 || n != 4 {
		t.Errorf("model %q, %d events of %d bytes", m.Model(), events, n)
	}
	m.Next([]byte(strings.Replace(a, "\"model\":\"a\"", "\"model\":\"c\"", 1)))
	if m.Model() != "c" {
		t.Errorf("model %q, want c", m.Model())
	}
}

// An event of any length passes; what the meter keeps doesn't grow with it.
func TestMeter_HugeEventsPassWithBoundedMemory(t *testing.T) {
	m := NewMeter(Chat, true, true)
	part := bytes.Repeat([]byte("x"), 64<<10)
	const head, tail = `data: {"choices":[],"pad":"`, "\",\"usage\":{\"prompt_tokens\":5}}\n\ndata: [DONE]\n\n"
	total := len(m.Next([]byte(head)))
	for range 64 {
		total += len(m.Next(part))
	}
	if cap(m.held) > 3*maxHold {
		t.Errorf("%d bytes are held", cap(m.held))
	}
	total += len(m.Next([]byte(tail))) + len(m.Finish())
	if want := len(head) + 64*len(part) + len(tail); total != want {
		t.Errorf("%d of %d bytes were handed on", total, want)
	}
	if u := m.Usage(); u.Input != 5 || u.Partial {
		t.Errorf("usage %+v", u)
	}
	m = NewMeter(Chat, true, false)
	m.Next([]byte(`data: {"usage":{"prompt_tokens":1,"` + string(part) + `":1}}` + "\n\n"))
	if u := m.Usage(); u.Known || cap(m.usage) > maxCapture {
		t.Errorf("a huge usage object: %+v, %d bytes are kept", u, cap(m.usage))
	}
}

// SPDX-License-Identifier: MPL-2.0

package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// randomStream makes streams of chat, and says what must come out of them.
type randomStream struct {
	rng        *rand.Rand
	in, out    bytes.Buffer // with and without the usage-only chunks
	usage      Usage
	generated  int64
	events     int64
	ended      bool
	eol, model string
}

func (s *randomStream) pick(list ...string) string { return list[s.rng.IntN(len(list))] }

// text is the JSON text of a random string, with what could confuse a scanner.
func (s *randomStream) text() string {
	var b strings.Builder
	for range s.rng.IntN(6) {
		b.WriteString(s.pick("word ", "海", "\n", `"usage":{"prompt_tokens":9}`, `\`, `"`, "data: [DONE]", "{", "}]", `"choices":[],`, "😀", "\x00", strings.Repeat("x", s.rng.IntN(40))))
	}
	raw, _ := json.Marshal(b.String())
	return string(raw)
}

// event writes one event, split into lines in a random way.
func (s *randomStream) event(data string, keep bool) {
	var e strings.Builder
	if s.rng.IntN(4) == 0 {
		e.WriteString(s.pick("id: 1", "event: message", "retry: 5", "odd", ": in between") + s.eol)
	}
	// Comments that stand before anything else of the event aren't part of it.
	lead := ""
	for range s.rng.IntN(2) {
		lead += s.pick(": ping", ":", ": data: {}") + s.eol
	}
	if strings.HasPrefix(e.String(), ":") {
		lead, e = lead+e.String(), strings.Builder{}
	}
	for i, part := range strings.SplitAfter(data, ",\n") {
		_ = i
		e.WriteString(s.pick("data: ", "data:") + strings.TrimSuffix(part, "\n") + s.eol)
	}
	e.WriteString(s.eol)
	s.in.WriteString(lead + e.String())
	if keep {
		s.out.WriteString(lead + e.String())
	} else {
		s.out.WriteString(lead)
	}
}

// glue joins members with commas, some of which end a line of data.
func (s *randomStream) glue(members ...string) string {
	s.rng.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	var b strings.Builder
	b.WriteByte('{')
	for i, m := range members {
		if i > 0 {
			b.WriteString(s.pick(",", ",", ",", ", ", ",\n"))
		}
		b.WriteString(m)
	}
	b.WriteByte('}')
	return b.String()
}

func (s *randomStream) chunk() {
	base := []string{`"id":"c-1"`, `"object":"chat.completion.chunk"`, fmt.Sprintf(`"model":%q`, s.model)}
	switch s.rng.IntN(8) {
	case 0: // the usage-only chunk
		s.event(s.glue(append(base, `"choices":[]`, s.newUsage())...), false)
	case 1: // as Azure's first
		s.event(s.glue(append(base, `"choices":[]`, s.pick(`"usage":null`, `"x":1`))...), true)
	case 2: // usage with content
		s.event(s.glue(append(base, s.choices(), s.newUsage())...), true)
	case 3: // no JSON
		s.event(s.pick("", "hello", "[1,2]", `"x"`), true)
	default:
		s.event(s.glue(append(base, s.choices(), s.pick(`"usage":null`, `"y":[{"usage":{}}]`))...), true)
	}
}

func (s *randomStream) newUsage() string {
	in, out := s.rng.Int64N(5000), s.rng.Int64N(5000)
	s.usage = Usage{Input: in, Output: out, Total: in + out, Known: true, Partial: true}
	return fmt.Sprintf(`"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}`, in, out, in+out)
}

func (s *randomStream) choices() string {
	content := s.text()
	if n := int64(len(content) - 2); n > 0 {
		s.generated += n
		s.events++
	}
	return `"choices":[{"index":0,"delta":{"role":"assistant","content":` + content + `},"logprobs":{"content":[{"token":"z"}]}}]`
}

func newRandomStream(seed uint64) *randomStream {
	s := &randomStream{rng: rand.New(rand.NewPCG(seed, 3)), model: "m-1"}
	s.eol = s.pick("\n", "\r\n", "\r")
	if s.rng.IntN(4) == 0 {
		s.in.WriteString("\xef\xbb\xbf" + s.eol)
		s.out.WriteString("\xef\xbb\xbf" + s.eol)
	}
	for range s.rng.IntN(12) {
		s.chunk()
	}
	if s.ended = s.rng.IntN(2) == 0; s.ended {
		s.event("[DONE]", true)
		s.usage.Partial = false
	}
	return s
}

// split cuts text into random parts.
func split(rng *rand.Rand, text []byte) (parts [][]byte) {
	longest := 1 + rng.IntN(200)
	for len(text) > 0 {
		n := min(len(text), 1+rng.IntN(longest))
		parts, text = append(parts, text[:n]), text[n:]
	}
	return parts
}

func TestMeter_RandomStreamsInRandomPartsKeepEveryByteButTheUsageChunk(t *testing.T) {
	for seed := range uint64(4000) {
		s := newRandomStream(seed)
		for _, drop := range []bool{false, true} {
			want := s.in.Bytes()
			if drop {
				want = s.out.Bytes()
			}
			m := NewMeter(Chat, true, drop)
			parts := split(s.rng, slices.Clone(s.in.Bytes()))
			if out := run(m, parts...); !bytes.Equal(out, want) {
				t.Fatalf("seed %d, drop %v:\n in %q\nout %q\nnot %q", seed, drop, s.in.Bytes(), out, want)
			}
			events, n := m.Output()
			if u := m.Usage(); u != s.usage || (m.Outcome() == Complete) != s.ended || events != s.events || n != s.generated {
				t.Fatalf("seed %d: %+v, %v, %d events of %d bytes; want %+v, ended %v, %d of %d\n%q",
					seed, u, m.Outcome(), events, n, s.usage, s.ended, s.events, s.generated, s.in.Bytes())
			}
		}
	}
}

// FuzzMeter feeds arbitrary bytes in arbitrary parts.
func FuzzMeter(f *testing.F) {
	for _, r := range recordings() {
		f.Add(r.read(f), uint64(1), byte(r.kind))
	}
	for seed := range uint64(20) {
		f.Add(newRandomStream(seed).in.Bytes(), seed, byte(Chat))
	}
	f.Add([]byte("data: {\"choices\":[],\"usage\":{}}\r\r\ndata:{}]}\n\n"), uint64(7), byte(Chat))
	f.Fuzz(func(t *testing.T, text []byte, seed uint64, kind byte) {
		k := Kind(kind) % (Stored + 1)
		whole := run(NewMeter(k, true, true), text)
		rng := rand.New(rand.NewPCG(seed, 1))
		m := NewMeter(k, true, true)
		if out := run(m, split(rng, text)...); !bytes.Equal(out, whole) {
			t.Fatalf("in parts %q\nas one   %q\nof %q", out, whole, text)
		}
		plain := NewMeter(k, true, false)
		if out := run(plain, split(rng, text)...); !bytes.Equal(out, text) {
			t.Fatalf("%q became %q", text, out)
		}
		if plain.Usage() != m.Usage() || plain.Outcome() != m.Outcome() || plain.Model() != m.Model() {
			t.Fatalf("taking out the chunk changes what is read of %q", text)
		}
	})
}

// FuzzMeterJSON holds the meter against encoding/json.
func FuzzMeterJSON(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"usage":{"prompt_tokens":1},"model":"m"}`, `{"model":"\u0061","usag\u0065":{"a":[{"b":"}"}]}}`,
		`{"usage":{},"usage":null,"model":"a","model":3}`, `{"choices":[{"usage":{"prompt_tokens":2}}]}`,
		`{"x_groq":{"usage":{"prompt_tokens":2}},"a":"\\\"","b":[[["usage"]]]}`, `[{"usage":{}}]`,
	} {
		f.Add([]byte(seed), uint64(1))
	}
	f.Fuzz(func(t *testing.T, text []byte, seed uint64) {
		m := NewMeter(Chat, false, false)
		if out := run(m, split(rand.New(rand.NewPCG(seed, 1)), text)...); !bytes.Equal(out, text) {
			t.Fatalf("%q became %q", text, out)
		}
		m.Usage()
		var want map[string]json.RawMessage
		if json.Unmarshal(text, &want) != nil || want == nil {
			return
		}
		if !m.tap.whole() {
			t.Fatalf("%q isn't taken for whole", text)
		}
		if raw := want["usage"]; len(raw) > 0 && raw[0] == '{' && len(raw) <= maxCapture {
			if m.tap.usageAt != usageOnTop || !bytes.Equal(m.tap.usage, raw) {
				t.Fatalf("%q: usage %q", text, m.tap.usage)
			}
		} else if m.tap.usageAt == usageOnTop && len(raw) <= maxCapture {
			t.Fatalf("%q: usage %q, want none", text, m.tap.usage)
		}
		var model string
		if raw := want["model"]; len(raw) <= maxCapture && (json.Unmarshal(raw, &model) == nil || len(raw) > 0) && m.Model() != model {
			t.Fatalf("%q: model %q, want %q", text, m.Model(), model)
		}
	})
}

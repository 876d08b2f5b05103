// SPDX-License-Identifier: MPL-2.0

package wire

import (
	"fmt"
	"strings"
	"testing"
)

func chatRequest4KiB() []byte {
	return []byte(`{"model":"gpt-4o-mini","stream":true,"max_tokens":256,"messages":[{"role":"system","content":"` +
		strings.Repeat("You are a careful assistant. ", 60) + `"},{"role":"user","content":"` +
		strings.Repeat("What is the capital of France? ", 70) + `"}],"stream_options":{"include_usage":true}}`)
}

// BenchmarkReadParams4KiB is what a request costs before it is sent: its text
// validated, and its parameters read.
func BenchmarkReadParams4KiB(b *testing.B) {
	text := chatRequest4KiB()
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		o, err := ParseObject(text)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := ReadParams("v1/chat/completions", o); err != nil {
			b.Fatal(err)
		}
	}
}

// longStream is a stream of chat with n chunks of content, as OpenAI sends it
// when usage was asked for, cut into reads of 4 KiB.
func longStream(n int) (parts [][]byte, size int64) {
	var s strings.Builder
	const chunk = `data: {"id":"chatcmpl-Bq3Yh0dVnU5","object":"chat.completion.chunk","created":1760000000,"model":"gpt-4o-mini-2024-07-18",` +
		`"service_tier":"default","system_fingerprint":"fp_7e1c2d3a4b","choices":[{"index":0,"delta":%s,"logprobs":null,"finish_reason":%s}],` +
		`"usage":null,"obfuscation":"Xb4"}` + "\n\n"
	for i := range n {
		fmt.Fprintf(&s, chunk, fmt.Sprintf(`{"content":" word%d"}`, i%100), "null")
	}
	fmt.Fprintf(&s, chunk, "{}", `"stop"`)
	s.WriteString(`data: {"id":"chatcmpl-Bq3Yh0dVnU5","object":"chat.completion.chunk","choices":[],"usage":{"prompt_tokens":10,"completion_tokens":500,"total_tokens":510}}` +
		"\n\ndata: [DONE]\n\n")
	for text := []byte(s.String()); len(text) > 0; {
		n := min(len(text), 4096)
		parts, text = append(parts, text[:n]), text[n:]
	}
	return parts, int64(s.Len())
}

func meterStream(tb testing.TB, parts [][]byte, drop bool) {
	m := NewMeter(Chat, true, drop)
	for _, p := range parts {
		m.Next(p)
	}
	m.Finish()
	if u := m.Usage(); u.Output != 500 || m.Outcome() != Complete {
		tb.Fatalf("%+v, %v", u, m.Outcome())
	}
}

func BenchmarkMeterStream(b *testing.B) {
	parts, size := longStream(500)
	for _, drop := range []bool{false, true} {
		b.Run(fmt.Sprintf("drop=%v", drop), func(b *testing.B) {
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				meterStream(b, parts, drop)
			}
		})
	}
}

func BenchmarkMeterEmbeddings(b *testing.B) {
	vector := []byte(`{"object":"embedding","index":0,"embedding":[` + strings.Repeat("-0.0123456,", 1535) + `0]},`)
	b.SetBytes(int64(64 * len(vector)))
	b.ReportAllocs()
	for b.Loop() {
		m := NewMeter(Embeddings, false, false)
		m.Next([]byte(`{"data":[`))
		for range 64 {
			m.Next(vector)
		}
		m.Next([]byte(`{}],"usage":{"prompt_tokens":77,"total_tokens":77}}`))
		if m.Usage().Input != 77 {
			b.Fatal(m.Usage())
		}
	}
}

func TestMeter_AllocationsDoNotGrowWithTheStream(t *testing.T) {
	allocs := func(chunks int) float64 {
		parts, _ := longStream(chunks)
		return testing.AllocsPerRun(20, func() { meterStream(t, parts, true) })
	}
	if short, long := allocs(20), allocs(5000); long > short+4 || long > 40 {
		t.Errorf("%.0f allocations for 20 chunks, %.0f for 5,000", short, long)
	}
}

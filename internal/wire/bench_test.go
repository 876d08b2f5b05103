// SPDX-License-Identifier: MPL-2.0

package wire

import (
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

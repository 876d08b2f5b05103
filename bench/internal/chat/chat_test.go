// SPDX-License-Identifier: MPL-2.0

package chat

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestBodies_AreOfTheSizeAskedFor(t *testing.T) {
	for _, kib := range []int{1, 4, 64, MaxKiB} {
		for _, stream := range []bool{false, true} {
			body := Request(kib, stream)
			if len(body) != kib*1024 || !json.Valid(body) {
				t.Errorf("a request of %d KiB has %d bytes, JSON: %t", kib, len(body), json.Valid(body))
			}
			if got, ok := ReadRequest(body); !ok || got != (Asked{KiB: kib, Stream: stream}) {
				t.Errorf("a request of %d KiB is read as %+v, %t", kib, got, ok)
			}
		}
		if answer := Answer(kib); len(answer) != kib*1024 || !json.Valid(answer) {
			t.Errorf("an answer of %d KiB has %d bytes", kib, len(answer))
		}
		size := len(bytes.Join(Events(kib, false), nil))
		if size > kib*1024 || size < kib*1024-300 {
			t.Errorf("a stream of %d KiB has %d bytes", kib, size)
		}
	}
}

func TestReadRequest_FindsWhatIsAskedInAnySpelling(t *testing.T) {
	cases := map[string]Asked{
		`{"messages":[],"model":"bench-64","stream_options":{"include_usage":true},"stream":true}`:  {64, true, true},
		`{ "stream" : true , "model" : "bench-1", "stream_options" : { "include_usage" : false } }`: {1, true, false},
		`{"model":"bench-4","stream":false}`:                                                                {4, false, false},
		"{\"model\":\n\t\"bench-4\", \"stream\":\n true}":                                                   {4, true, false},
		strings.Replace(string(Request(4, true)), `"stream":true`, `"stream_options":{},"stream": true`, 1): {4, true, false},
	}
	for body, want := range cases {
		if got, ok := ReadRequest([]byte(body)); !ok || got != want {
			t.Errorf("%.80s is read as %+v, %t", body, got, ok)
		}
	}
	for _, body := range []string{``, `{"model":"gpt"}`, `{"model":"bench-"}`, `{"model":"bench-0"}`, `{"model":"bench-4`, `{"model":"bench-1025"}`} {
		if _, ok := ReadRequest([]byte(body)); ok {
			t.Errorf("%s is a request of the bench", body)
		}
	}
}

func TestCheck_TakesAnySpellingOfTheAnswerAndNoOtherAnswer(t *testing.T) {
	whole := string(Answer(4))
	stream := string(bytes.Join(Events(4, true), nil))
	middle := string(Events(4, false)[5])
	var indented bytes.Buffer
	_ = json.Indent(&indented, []byte(whole), "", "  ")
	cases := []struct {
		name   string
		stream bool
		answer string
		ok     bool
	}{
		{"as it was", false, whole, true},
		{"encoded anew", false, indented.String(), true},
		{"cut", false, whole[:len(whole)-1], false},
		{"without its usage", false, strings.Replace(whole, `"usage"`, `"use"`, 1), false},
		{"a word changed", false, strings.Replace(whole, "virtual", "Virtual", 1), false},
		{"an error", false, `{"error":{"message":"no"}}`, false},
		{"a stream", true, stream, true},
		{"a stream without its usage", true, string(bytes.Join(Events(4, false), nil)), true},
		{"a stream with comments", true, strings.ReplaceAll(stream, "data: {", ": ping\n\ndata:{"), true},
		{"a stream without its end", true, strings.TrimSuffix(stream, "data: [DONE]\n\n"), false},
		{"a stream that lost an event", true, strings.Replace(stream, middle, "", 1), false},
		{"a stream with an event twice", true, strings.Replace(stream, middle, middle+middle, 1), false},
		{"a stream of something else", true, "data: x\n\ndata: [DONE]\n\n", false},
	}
	for _, c := range cases {
		if err := Check(Asked{KiB: 4, Stream: c.stream}, []byte(c.answer)); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func ExampleModel() {
	fmt.Println(Model(4))
	// Output: bench-4
}

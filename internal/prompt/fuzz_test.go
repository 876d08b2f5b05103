// SPDX-License-Identifier: MPL-2.0

package prompt

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"unicode/utf8"
)

// specTexts are the templates of the specification's cases.
func specTexts(f *testing.F) []string {
	text, err := os.ReadFile("testdata/mustache.json")
	if err != nil {
		f.Fatal(err)
	}
	var modules map[string][]struct{ Template string }
	if err := json.Unmarshal(text, &modules); err != nil {
		f.Fatal(err)
	}
	var texts []string
	for _, cases := range modules {
		for _, c := range cases {
			texts = append(texts, c.Template)
		}
	}
	return texts
}

// FuzzCompile: every template compiles or is refused with a reason, and what
// compiles renders within its bounds.
func FuzzCompile(f *testing.F) {
	for _, text := range specTexts(f) {
		message, _ := json.Marshal(map[string]string{"role": "user", "content": text})
		f.Add(message, text, "{{a}}")
	}
	f.Add([]byte(`{"role":"system","content":[{"type":"text","text":"{{>p}}{{#a}}{{.}}{{/a}}"}]}`), "{{>p}} {{#l}}{{>q}}{{/l}}", "  {{>q}}\n")
	f.Add([]byte(`{"role":"user","content":"\u007b\u007ba}}\ud800"}`), "{{{{a}}}}", "{")
	f.Add([]byte(`{"role":"user",`), "\x02a\x03", "\xff")
	f.Fuzz(func(t *testing.T, message []byte, p, q string) {
		tmpl := Template{Messages: []json.RawMessage{message}, Partials: map[string]string{"p": p, "q": q}}
		c, err := tmpl.Compile()
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Code != CodeInvalidTemplate || e.Message == "" || !utf8.ValidString(e.Message) && utf8.Valid(message) && utf8.ValidString(p+q) {
				t.Fatalf("%+v", err)
			}
			return
		}
		_, _ = c.Names(), c.Warnings()
		checkBody(t, c, Input{Variables: map[string]json.RawMessage{
			"a": json.RawMessage(`[{"a":"x\"","b":[1,{}]},"{{a}}",0]`), "b": json.RawMessage(`true`),
		}})
	})
}

// FuzzRender: whatever the variables hold, the body keeps its shape.
func FuzzRender(f *testing.F) {
	f.Add("{{a}} {{#a}}{{.}}{{b}}{{/a}}{{^b}}-{{/b}}", []byte(`[1,{"b":"x"}]`), []byte(`"{{a}}\"}"`), 0)
	f.Add("{{a.b.c}}{{#a}}{{#b}}{{c}}{{/b}}{{/a}}", []byte(`{"b":{"c":9007199254740993}}`), []byte(` null `), 100)
	f.Add("{{a}}", []byte(`"\ud800\u0000"`), []byte(`[[],[[]],{"":1,"a":2}]`), 40)
	f.Add("\n {{#a}}\r\n{{a}}\n{{/a}}", []byte(`-0.0e5`), []byte(`"\xff"`), -1)
	for _, text := range specTexts(f) {
		f.Add(text, []byte(`{"b":true,"n":"x"}`), []byte(`[]`), 0)
	}
	f.Fuzz(func(t *testing.T, text string, a, b []byte, most int) {
		tmpl := Template{Model: "m", Messages: []json.RawMessage{
			json.RawMessage(`{"role":"system","content":[{"type":"text","text":` + string(quote(text)) + `}],"n":1.0}`),
			json.RawMessage(`{"role":"user","content":` + string(quote(text)) + `}`),
		}}
		c, err := tmpl.Compile()
		if err != nil {
			return
		}
		checkBody(t, c, Input{
			Variables: map[string]json.RawMessage{"a": a, "b": b},
			Overrides: map[string]json.RawMessage{"stop": b},
			MaxBytes:  most,
		})
		if !strings.Contains(text, "{{") && json.Valid(b) && most <= 0 {
			if _, err := c.Render(Input{Variables: map[string]json.RawMessage{"a": a}}); err != nil {
				t.Fatalf("a text without tags: %v", err)
			}
		}
	})
}

// SPDX-License-Identifier: MPL-2.0

package prompt

import (
	"encoding/json"
	"strings"
	"testing"
)

// support is a prompt of the usual kind: a system message of 2 KB, a few
// variables, a list, a partial.
func support() Template {
	system, _ := json.Marshal(map[string]string{"role": "system", "content": "You answer for {{company}}, in {{language}}.\n" +
		strings.Repeat("Be brief and kind, and never promise what the terms do not say.\n", 30) +
		"{{> rules}}\n{{#products}}\n- {{name}}: {{price}}\n{{/products}}\n{{^products}}\nThere are no products.\n{{/products}}\n"})
	return Template{
		Model:     "gpt-4o-mini",
		Messages:  []json.RawMessage{system, json.RawMessage(`{"role":"user","content":"{{customer.name}} asks: {{question}}"}`)},
		Params:    map[string]json.RawMessage{"temperature": json.RawMessage("0.2"), "max_tokens": json.RawMessage("500")},
		Variables: []Variable{{Name: "question", Required: true}, {Name: "language", Default: json.RawMessage(`"English"`)}},
		Partials:  map[string]string{"rules": "{{#strict}}\nCite a source.\n{{/strict}}\n"},
	}
}

func BenchmarkRender(b *testing.B) {
	c := mustCompile(b, support())
	in := Input{
		Variables: members(b, `{"company":"Example","question":"Where is my parcel?","customer":{"name":"Zoë"},"strict":true,
			"products":[{"name":"Kettle","price":29.90},{"name":"Toaster","price":35},{"name":"Pan","price":12.5}]}`),
		Overrides: members(b, `{"stream":true,"temperature":0.7}`),
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Render(in); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	tmpl := support()
	b.ReportAllocs()
	for b.Loop() {
		mustCompile(b, tmpl)
	}
}

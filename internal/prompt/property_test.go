// SPDX-License-Identifier: MPL-2.0

package prompt

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
)

// shape is compact JSON text with every string value emptied: what a variable
// must not change. Keys, their order, list lengths and numbers stay.
func shape(text string) string {
	var b strings.Builder
	for i := 0; i < len(text); {
		if text[i] != '"' {
			b.WriteByte(text[i])
			i++
			continue
		}
		end := stringEnd(text, i)
		if end < len(text) && text[end] == ':' {
			b.WriteString(text[i:end])
		} else {
			b.WriteString(`""`)
		}
		i = end
	}
	return b.String()
}

// chance makes templates and values.
type chance struct{ *rand.Rand }

func (r chance) of(choices ...string) string { return choices[r.IntN(len(choices))] }

// text is one that tries to break out of a string or of a tag.
func (r chance) text() string {
	var b strings.Builder
	for range r.IntN(6) {
		b.WriteString(r.of(`"`, `\`, `\"`, "\n", "\r\n", "\t", "{{", "}}", "{{a}}", "{{{", "}}}", "{{#a}}", "{{/a}}", "{{>p}}", `","role":"system`, `"}]`, "<b>&", "é", "😀", "\u2028", "\x00", "\x1f", "\x02a\x03", "\x7f", "x y", "", " "))
	}
	return b.String()
}

func (r chance) value(depth int) string {
	n := r.IntN(8)
	if depth == 0 {
		n = r.IntN(6)
	}
	switch n {
	case 0:
		return r.of("null", "true", "false")
	case 1:
		return r.of("0", "-0.0", "1", "1e6", "9007199254740993", "1.10", strconv.Itoa(r.Int()))
	case 6:
		items := make([]string, r.IntN(4))
		for i := range items {
			items[i] = r.value(depth - 1)
		}
		return "[" + strings.Join(items, r.of(",", " , ", ",\n")) + "]"
	case 7:
		fields := make([]string, r.IntN(4))
		for i := range fields {
			fields[i] = string(quote(r.of("a", "b", "c", "", ".", "a.b", r.text()))) + r.of(":", " : ") + r.value(depth-1)
		}
		return "{" + strings.Join(fields, ",") + "}"
	}
	return string(quote(r.text()))
}

// mustache is a valid text.
func (r chance) mustache(depth int, partial bool) string {
	var b strings.Builder
	for range r.IntN(5) {
		name := r.of("a", "b", "c", "a.b", "c.a.b", "größe")
		switch n := r.IntN(9); {
		case n < 2:
			b.WriteString(strings.NewReplacer("{", "(", "}", ")", "\x02", "", "\x03", "").Replace(r.text()))
		case n < 5:
			b.WriteString(r.of("{{", "{{& ", "{{ ") + name + " }}")
		case n == 5:
			b.WriteString("{{{" + name + "}}}" + r.of("", "\n"))
		case n == 6 && partial:
			b.WriteString(r.of("", "  ", "\n ") + r.of("{{>p}}", "{{> q }}") + r.of("", "\n", "\r\n"))
		case n == 6:
			b.WriteString("{{! " + r.of("note", "\n", "\"") + "}}" + r.of("", "\n"))
		case depth > 0:
			inner := r.mustache(depth-1, partial)
			open := r.of("#", "^")
			if open == "#" {
				inner += r.of("", "{{.}}", "{{#.}}{{.}}{{/.}}")
			}
			b.WriteString(r.of("", "\n") + "{{" + open + name + "}}" + r.of("", "\n") + inner + "{{/" + name + "}}" + r.of("", "\n"))
		}
	}
	return b.String()
}

func (r chance) message() string {
	text := func() string { return string(quote(r.mustache(2, true))) }
	switch r.IntN(3) {
	case 0:
		return `{"role":"user","content":` + text() + `}`
	case 1:
		return ` {"content":[{"type":"text","text":` + text() + `},{"type":"image_url","image_url":{"url":` + text() + `,"{{a}}":[` + text() + `,null,1.0]}}] , "role":"system"}`
	}
	return `{"role":"assistant","tool_calls":[{"function":{"name":` + text() + `,"arguments":"{}"}}],"\u0061":true}`
}

func (r chance) template() Template {
	tmpl := Template{Model: r.of("", "m\"", "gpt"), Partials: map[string]string{
		"p": r.mustache(1, false) + r.of("", "{{>q}}", "\n  {{>q}}\n"), "q": r.mustache(1, false),
	}}
	if r.IntN(4) == 0 {
		tmpl.Prompt = "x" + r.mustache(3, true)
	} else {
		for range 1 + r.IntN(3) {
			tmpl.Messages = append(tmpl.Messages, json.RawMessage(r.message()))
		}
	}
	tmpl.Params = map[string]json.RawMessage{"n": json.RawMessage(r.value(2)), "stop": json.RawMessage(r.value(2))}
	if r.IntN(2) == 0 {
		tmpl.Variables = []Variable{{Name: "c", Default: json.RawMessage(r.value(3))}}
	}
	return tmpl
}

func (r chance) variables() map[string]json.RawMessage {
	m := map[string]json.RawMessage{}
	for _, name := range []string{"a", "b", "c", "größe", "unknown"} {
		if r.IntN(5) > 0 {
			m[name] = json.RawMessage(r.value(3))
		}
	}
	return m
}

// checkBody holds a rendered body against what the package promises.
func checkBody(t testing.TB, c *Compiled, in Input) {
	t.Helper()
	body, err := c.Render(in)
	if err != nil {
		var e *Error
		if !errors.As(err, &e) || e.Code == "" || e.Message == "" {
			t.Fatalf("%v", err)
		}
		return
	}
	if !json.Valid(body) {
		t.Fatalf("not JSON: %s", body)
	}
	most := in.MaxBytes
	if most <= 0 {
		most = DefaultMaxBytes
	}
	if len(body) > most {
		t.Fatalf("%d bytes; at most %d", len(body), most)
	}
	empty, err := c.Render(Input{Variables: stand(c), Overrides: in.Overrides})
	if err != nil {
		return // the default's bound is too small for it
	}
	if got, want := shape(string(body)), shape(string(empty)); got != want {
		t.Fatalf("the shape changed:\n%s\n%s", body, empty)
	}
	again, err := c.Render(in)
	if err != nil || string(again) != string(body) {
		t.Fatalf("again it is\n%s, %v\nafter\n%s", again, err, body)
	}
}

// stand is a value for each variable that must be there.
func stand(c *Compiled) map[string]json.RawMessage {
	m := map[string]json.RawMessage{}
	for name, v := range c.variables {
		if v.required {
			m[name] = json.RawMessage(`""`)
		}
	}
	return m
}

func TestProperty_AValueNeverLeavesItsString(t *testing.T) {
	filled := 0
	for seed := range uint64(20_000) {
		r := chance{rand.New(rand.NewPCG(seed, 1))}
		tmpl := r.template()
		c, err := tmpl.Compile()
		if err != nil {
			t.Fatalf("seed %d: %v\n%+v", seed, err, tmpl)
		}
		in := Input{Variables: r.variables(), MaxBytes: r.IntN(2) * r.IntN(500)}
		checkBody(t, c, in)
		if body, err := c.Render(in); err == nil {
			for _, m := range tmpl.Messages {
				if text, _, _ := compact(m); !strings.Contains(shape(string(body)), shape(text)) {
					t.Fatalf("seed %d: %s\nhas nothing like %s", seed, body, text)
				}
			}
		}
		if len(c.used) > 0 {
			filled++
		}
	}
	if filled < 5000 {
		t.Errorf("only %d templates used a variable", filled)
	}
}

// Every template that only prints variables prints them as they are.
func TestProperty_AStringComesOutAsItWentIn(t *testing.T) {
	for seed := range uint64(5_000) {
		r := chance{rand.New(rand.NewPCG(seed, 2))}
		a, b := r.text(), r.text()
		got := fill(t, "<{{a}}|{{{b}}}|{{#l}}{{.}},{{/l}}>", fmt.Sprintf(`{"a":%s,"b":%s,"l":[%s,%s]}`, quote(a), quote(b), quote(b), quote(a)), nil)
		if want := "<" + a + "|" + b + "|" + b + "," + a + ",>"; got != want {
			t.Fatalf("%q, want %q", got, want)
		}
	}
}

// SPDX-License-Identifier: MPL-2.0

package prompt

import (
	"encoding/json"
	"html"
	"os"
	"strings"
	"testing"
)

// mustCompile compiles t or ends the test.
func mustCompile(t testing.TB, tmpl Template) *Compiled {
	t.Helper()
	c, err := tmpl.Compile()
	if err != nil {
		t.Fatalf("%s", err)
	}
	return c
}

// fill renders text as the prompt of a completion, and returns it decoded. data
// is a JSON object.
func fill(t testing.TB, text, data string, partials map[string]string) string {
	t.Helper()
	c := mustCompile(t, Template{Prompt: text, Partials: partials})
	body, err := c.Render(Input{Variables: members(t, data)})
	if err != nil {
		t.Fatalf("%q: %s", text, err)
	}
	var got struct{ Prompt *string }
	if err := json.Unmarshal(body, &got); err != nil || got.Prompt == nil {
		t.Fatalf("%q gave %s: %v", text, body, err)
	}
	return *got.Prompt
}

// members are those of a JSON object.
func members(t testing.TB, object string) map[string]json.RawMessage {
	t.Helper()
	var m map[string]json.RawMessage
	if err := json.Unmarshal([]byte(object), &m); err != nil {
		t.Fatalf("%s: %v", object, err)
	}
	return m
}

// The cases of the Mustache specification's modules that every implementation
// has, in this project's words. Its optional modules don't apply: a lambda can't
// come from JSON, and inheritance and dynamic names aren't supported.
func TestMustache_FollowsTheSpecification(t *testing.T) {
	text, err := os.ReadFile("testdata/mustache.json")
	if err != nil {
		t.Fatal(err)
	}
	var modules map[string][]struct {
		Name, Template, Expected, Skip string
		Data                           json.RawMessage
		Partials                       map[string]string
	}
	if err := json.Unmarshal(text, &modules); err != nil {
		t.Fatal(err)
	}
	run, skipped := 0, map[string]int{}
	for module, cases := range modules {
		for _, c := range cases {
			t.Run(module+"/"+c.Name, func(t *testing.T) {
				if c.Skip != "" {
					skipped[c.Skip]++
				} else {
					run++
				}
				tmpl := Template{Prompt: c.Template, Partials: c.Partials}
				_, err := tmpl.Compile()
				switch {
				case strings.HasPrefix(c.Skip, "HTML"):
					c.Expected = html.UnescapeString(c.Expected)
				case c.Skip != "":
					// What is skipped is refused, not rendered otherwise.
					if err == nil {
						t.Errorf("%q compiles", c.Template)
					}
					return
				}
				if got := fill(t, c.Template, string(c.Data), c.Partials); got != c.Expected {
					t.Errorf("%q gave\n%q, want\n%q", c.Template, got, c.Expected)
				}
			})
		}
	}
	sum := 0
	for reason, n := range skipped {
		t.Logf("%d skipped: %s", n, reason)
		sum += n
	}
	if run != 112 || sum != 24 {
		t.Errorf("%d cases run, %d skipped; want 112 and 24", run, sum)
	}
}

func TestMustache_PrintsValuesAsTheyWereWritten(t *testing.T) {
	for _, c := range []struct{ text, data, want string }{
		{"{{n}}", `{"n":9007199254740993}`, "9007199254740993"},
		{"{{n}}", `{"n":123456789012345678901234567890}`, "123456789012345678901234567890"},
		{"{{n}}", `{"n":1e6}`, "1e6"},
		{"{{n}}", `{"n":10000000}`, "10000000"},
		{"{{n}}", `{"n":1.10}`, "1.10"},
		{"{{n}}", `{"n":-0.0}`, "-0.0"},
		{"{{n}}", `{"n":0}`, "0"},
		{"{{#l}}{{.}};{{/l}}", `{"l":[0, 1E+2, 0e5]}`, "0;1E+2;0e5;"},
		{"{{a}}{{b}}", `{"a":true,"b":false}`, "truefalse"},
		{"[{{n}}]", `{"n":null}`, "[]"},
		{"{{#l}}[{{.}}]{{/l}}", `{"l":[null,false,"",[],{},0," "]}`, "[][false][][[]][{}][0][ ]"},
		{"{{o}}", `{"o": { "b" : 1 , "a" : [ 1.0, "x y", null ] , "":2 } }`, `{"b":1,"a":[1.0,"x y",null],"":2}`},
		{"{{l}}", `{"l":[ [ ] , {} , "<&>" ]}`, `[[],{},"<&>"]`},
		{"{{#l}}{{.}}{{/l}}", `{"l":[{"b":1,"a":2},[3]]}`, `{"b":1,"a":2}[3]`},
		{"{{s}}", `{"s":"\u00e9\n\"\\\u2028\ud83d\ude00</script>"}`, "é\n\"\\\u2028😀</script>"},
		{"{{s}}", `{"s":"\ud800"}`, "\uFFFD"},
		{"{{größe}} {{名前}} {{नमस्ते}}", `{"größe":"x","名前":"y","नमस्ते":"z"}`, "x y z"},
		{"{{a-b}} {{a_b}} {{1}}", `{"a-b":"x","a_b":"y","1":"z"}`, "x y z"},
	} {
		if got := fill(t, c.text, c.data, nil); got != c.want {
			t.Errorf("%s with %s gave %q, want %q", c.text, c.data, got, c.want)
		}
	}
}

func TestMustache_WhatIsEmptyIsWhatMustacheJSHoldsForEmpty(t *testing.T) {
	for value, full := range map[string]bool{
		`null`: false, `false`: false, `0`: false, `-0.00`: false, `0e9`: false, `""`: false, `[]`: false,
		`true`: true, `1`: true, `-0.01`: true, `" "`: true, `"\n"`: true, `"0"`: true, `"x"`: true, `{}`: true,
		`[0]`: true, `[null]`: true, `{"":0}`: true,
	} {
		want := map[bool]string{true: "full", false: "empty"}[full]
		if got := fill(t, "{{#v}}full{{/v}}{{^v}}empty{{/v}}", `{"v":`+value+`}`, nil); got != want {
			t.Errorf("%s is %s", value, got)
		}
	}
}

func TestMustache_NullHidesWhatLiesFurtherOut(t *testing.T) {
	if got := fill(t, "{{#o}}[{{x}}{{^x}}none{{/x}}]{{/o}}", `{"x":"outer","o":{"x":null}}`, nil); got != "[none]" {
		t.Errorf("%q", got)
	}
}

// The library calls methods without parameters by name; values must have none.
func TestMustache_CallsNoMethods(t *testing.T) {
	for _, name := range []string{"String", "Format", "Error", "Len", "Int64", "Float64", "GoString", "MarshalJSON", "Interface", "length", "constructor"} {
		for _, value := range []string{`"s"`, `5`, `0`, `true`, `null`, `[1]`, `{"a":1}`, `{}`, `[]`} {
			if got := fill(t, "[{{v."+name+"}}{{#v}}{{"+name+"}}{{/v}}]", `{"v":`+value+`}`, nil); got != "[]" {
				t.Errorf("%s of %s is %q", name, value, got)
			}
		}
		if got := fill(t, "{{#o}}{{"+name+"}}{{/o}}{{"+name+"}}", `{"o":{"`+name+`":"in "},"`+name+`":"out"}`, nil); got != "in out" {
			t.Errorf("the field %s is %q", name, got)
		}
	}
}

func TestMustache_NeverExpandsValues(t *testing.T) {
	partials := map[string]string{"p": "{{a}}"}
	data := `{"a":"{{b}}{{>p}}{{#b}}x{{/b}}{{{b}}}` + `\u0002b\u0003\u0002#b\u0003","b":"SECRET","l":["{{b}}"]}`
	want := "{{b}}{{>p}}{{#b}}x{{/b}}{{{b}}}\x02b\x03\x02#b\x03"
	for _, text := range []string{"{{a}}", "{{{a}}}", "{{&a}}", "{{>p}}", "{{#b}}{{>p}}{{/b}}"} {
		if got := fill(t, text, data, partials); got != want {
			t.Errorf("%s gave %q", text, got)
		}
	}
	if got := fill(t, "{{#l}}{{.}}{{/l}} {{l}}", data, partials); got != `{{b}} ["{{b}}"]` {
		t.Errorf("%q", got)
	}
	// Nor a text that comes together of two.
	if got := fill(t, "{{x}}b}} {{>p}}{b}}", `{"x":"{{","b":"SECRET"}`, map[string]string{"p": "{"}); got != "{{b}} {{b}}" {
		t.Errorf("%q", got)
	}
}

func TestMustache_WhiteSpaceWhereTheLibraryAloneWouldErr(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"  {{>p}} x", "  P x"},                               // indented once, not twice
		{"{{#t}}\na\n{{/t}}  ", "a\n"},                        // blanks at the end of the text
		{"\n{{v}}\n", "\nV\n"},                                // the first line end is the text's own
		{"{{v}}", "V"},                                        // nothing but a tag
		{"{{! c }}", ""},                                      // nothing but a comment
		{"a {{>s}} b", "a V\n b"},                             // a partial's tags stand alone on its own lines
		{"  {{>s}}\n", "  V\n"},                               // and do so when it is indented
		{"  {{>e}}\n.", "  a\n\n  b\n."},                      // empty lines aren't indented
		{"  {{>c}}\r\n.", "  a\r\n\r\n  b\r\n."},              // nor are those that end in CRLF
		{"{{#t}}  {{>p}}\n{{/t}}", "  P\n"},                   // not alone: something stands before it
		{" {{>i}}\n", "   P   "},                              // indents add up; P ends no line
		{"{{#t}}{{>p}}{{/t}}{{^t}}{{>p}}{{/t}}", "P"},         // partials in sections
		{"{{!c}}{{#t}}\nx\n{{!c}}{{/t}}\n.", "\nx\n\n."},      // two tags on a line, of which one goes
		{"{{#t}}\r\n{{v}}\r\n{{/t}}\r\n{{>p}}\r\n", "V\r\nP"}, // CRLF throughout
	} {
		got := fill(t, c.text, `{"t":true,"v":"V"}`, map[string]string{
			"p": "P", "s": "{{#t}}\n{{v}}\n{{/t}}\n", "e": "a\n\nb\n", "c": "a\r\n\r\nb\r\n", "i": "  {{>p}}\n  ",
		})
		if got != c.want {
			t.Errorf("%q gave %q, want %q", c.text, got, c.want)
		}
	}
}

func TestMustache_PartialsAreNotEscapedForHTML(t *testing.T) {
	if got := fill(t, "{{>p}}", `{"v":"<a & \"b\">"}`, map[string]string{"p": "{{v}}{{{v}}}{{&v}}"}); got != strings.Repeat(`<a & "b">`, 3) {
		t.Errorf("%q", got)
	}
}

// SPDX-License-Identifier: MPL-2.0

package prompt

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// chat is a template of one user message.
func chat(content string) Template {
	text, err := json.Marshal(map[string]string{"role": "user", "content": content})
	if err != nil {
		panic(err)
	}
	return Template{Messages: []json.RawMessage{text}}
}

func raws(texts ...string) []json.RawMessage {
	out := make([]json.RawMessage, len(texts))
	for i, s := range texts {
		out[i] = json.RawMessage(s)
	}
	return out
}

func TestCompile_NamesThePartAtFaultAndShowsARightOne(t *testing.T) {
	with := func(change func(*Template)) Template {
		tmpl := chat("hello")
		change(&tmpl)
		return tmpl
	}
	for _, c := range []struct {
		name     string
		template Template
		param    string
		says     []string
	}{
		{"nothing", Template{}, "messages", []string{"neither", `{"role":"user","content":"Hello {{name}}"}`}},
		{"both", with(func(t *Template) { t.Prompt = "x" }), "prompt", []string{"both messages and a prompt"}},

		{"message not JSON", Template{Messages: raws(`{"role":"user"}`, `{"role":`)}, "messages[1]", []string{"not valid JSON", `"content":"Hello {{name}}"`}},
		{"message not an object", Template{Messages: raws(`"hi"`)}, "messages[0]", []string{"not a JSON object"}},
		{"message empty", Template{Messages: raws(``)}, "messages[0]", []string{"not valid JSON"}},
		{"message not UTF-8", Template{Messages: raws("{\"role\":\"user\",\"content\":\"\xff\"}")}, "messages[0]", []string{"UTF-8"}},
		{"message too deep", Template{Messages: raws(`{"role":"user","content":` + strings.Repeat("[", 64) + strings.Repeat("]", 64) + `}`)}, "messages[0]", []string{"more than 64 deep"}},
		{"no role", Template{Messages: raws(`{"content":"x"}`)}, "messages[0].role", []string{`"system", "developer", "user"`}},
		{"role no string", Template{Messages: raws(`{"role":5,"content":"x"}`)}, "messages[0].role", []string{"must be one of"}},
		{"unknown role", Template{Messages: raws(`{"role":"robot","content":"x"}`)}, "messages[0].role", []string{"must be one of"}},
		{"role spelt otherwise", Template{Messages: raws(`{"Role":"user","content":"x"}`)}, "messages[0].role", []string{"must be one of"}},
		{"role a variable", Template{Messages: raws(`{"role":"{{r}}","content":"x"}`)}, "messages[0].role", []string{"must be one of"}},
		{"content a number", Template{Messages: raws(`{"role":"user","content":5}`)}, "messages[0].content", []string{"a string or a list of parts"}},
		{"content an object", Template{Messages: raws(`{"role":"user","content":{}}`)}, "messages[0].content", []string{"a string or a list of parts"}},
		{"key twice", Template{Messages: raws(`{"role":"user","r\u006fle":"system"}`)}, "messages[0]", []string{`"role" twice`}},
		{"inner key twice", Template{Messages: raws(`{"role":"user","content":[{"a":1,"a":2}]}`)}, "messages[0].content[0]", []string{`"a" twice`}},
		{"inner tag", Template{Messages: raws(`{"role":"user","content":[{"type":"text","text":"ok"},{"type":"image_url","image_url":{"url":"a\n😀{{#x}}"}}]}`)},
			"messages[0].content[1].image_url.url", []string{"line 2, column 2", "{{/x}}"}},

		{"never closed", chat("a\nbc {{name"), "messages[0].content", []string{"messages[0].content, line 2, column 4", `"{{" is never closed by "}}"`, "{{name}}", `default is "{{"`}},
		{"triple never closed", chat("{{{name}}"), "messages[0].content", []string{`"{{{" is never closed by "}}}"`}},
		{"no name", chat("{{}}"), "messages[0].content", []string{"has no name", "{{name}}"}},
		{"blank name", chat("{{#  }}"), "messages[0].content", []string{"has no name"}},
		{"name with a space", chat("{{first name}}"), "messages[0].content", []string{"{{first name}}", "such as {{first_name}}"}},
		{"section with a space", chat("{{#first name}}"), "messages[0].content", []string{"such as {{#first_name}}"}},
		{"JSON", chat(`{{"a":1}}`), "messages[0].content", []string{"holds no name", "such as {{a_1}}"}},
		{"no letters", chat(`{{"}}`), "messages[0].content", []string{"holds no name", "path; to send"}},
		{"filter", chat("{{ x | upper }}"), "messages[0].content", []string{"such as {{x_upper}}"}},
		{"path with a gap", chat("{{a..b}}"), "messages[0].content", []string{"holds no name"}},
		{"path with a dot in front", chat("{{.a}}"), "messages[0].content", []string{"holds no name"}},
		{"name too long", chat("{{" + strings.Repeat("ä", 65) + "}}"), "messages[0].content", []string{"longer than 128 bytes", "…"}},
		{"name cut within a letter", chat("{{x" + strings.Repeat("ä", 65) + "}}"), "messages[0].content", []string{"{{xäää", "ä… is longer"}},
		{"path too long", chat("{{" + strings.Repeat("a.", 16) + "a}}"), "messages[0].content", []string{"more than 16 parts"}},
		{"inheritance", chat("{{<p}}{{/p}}"), "messages[0].content", []string{"holds no name"}},
		{"block", chat("{{$b}}{{/b}}"), "messages[0].content", []string{"holds no name"}},
		{"dynamic name", chat("{{>*p}}"), "messages[0].content", []string{"holds no name"}},
		{"delimiters", chat("{{=<% %>=}}"), "messages[0].content", []string{"delimiters are not supported"}},
		{"control character", chat("a\x02{{b}}"), "messages[0].content", []string{"U+0002", "column 2"}},
		{"control character, no tag", chat("a\x03"), "messages[0].content", []string{"U+0003"}},
		{"section never closed", chat("{{#a}}\n{{^b}}{{/b}}"), "messages[0].content", []string{"line 1, column 1", "{{#a}} is never closed", "{{/a}}"}},
		{"never opened", chat("{{/a}}"), "messages[0].content", []string{"{{/a}} closes no section", "{{#a}}"}},
		{"interleaved", chat("{{#a}}{{^b}}{{/a}}{{/b}}"), "messages[0].content", []string{"line 1, column 13", "{{^b}} is still open", "write {{/b}} before"}},
		{"item at the root", chat("{{.}}"), "messages[0].content", []string{"{{#list}}{{.}}{{/list}}"}},
		{"item in an inverted section", chat("{{^a}}{{.}}{{/a}}"), "messages[0].content", []string{"inside a section"}},
		{"items at the root", chat("{{#.}}{{/.}}"), "messages[0].content", []string{"inside a section"}},
		{"nested", chat(strings.Repeat("{{#a}}", 17) + strings.Repeat("{{/a}}", 17)), "messages[0].content", []string{"more than 16 deep", "column 97"}},

		{"unknown partial, none", chat("{{> p}}"), "messages[0].content", []string{`no partial "p"`, "has none"}},
		{"unknown partial", with(func(t *Template) {
			*t = chat("x {{> p}}")
			t.Partials = map[string]string{"b": "", "a": ""}
		}), "messages[0].content", []string{"column 3", `the template has "a", "b"`}},
		{"unknown partial of many", with(func(t *Template) {
			*t = chat("{{> p}}")
			t.Partials = map[string]string{}
			for name := range many(13) {
				t.Partials[name] = ""
			}
		}), "messages[0].content", []string{`"f000", "f001"`, `"f009" and 3 more`}},
		{"unknown partial in a partial", with(func(t *Template) { t.Partials = map[string]string{"a": "{{>b}}"} }), "partials.a", []string{"partials.a, line 1, column 1", `no partial "b"`}},
		{"partial in itself", with(func(t *Template) { t.Partials = map[string]string{"a": "{{>a}}"} }), "partials.a", []string{"includes itself: a > a"}},
		{"partials in a ring", with(func(t *Template) {
			t.Partials = map[string]string{"a": "{{>b}}", "b": "{{#x}}{{>c}}{{/x}}", "c": "{{>b}}"}
		}), "partials.b", []string{"b > c > b"}},
		{"partials too deep", with(func(t *Template) {
			t.Partials = map[string]string{"p9": ""}
			for i := range 9 {
				t.Partials[fmt.Sprintf("p%d", i)] = fmt.Sprintf("{{>p%d}}", i+1)
			}
		}), "partials.p1", []string{"9 deep; at most 8"}},
		{"partial's name", with(func(t *Template) { t.Partials = map[string]string{"a b": ""} }), "partials", []string{`can't be called "a b"`}},
		{"partial's tag", with(func(t *Template) { t.Partials = map[string]string{"a": "{{#x}}"} }), "partials.a", []string{"{{/x}}"}},
		{"partial not UTF-8", with(func(t *Template) { t.Partials = map[string]string{"a": "\xff"} }), "partials.a", []string{"UTF-8"}},
		{"sections through partials", with(func(t *Template) {
			*t = chat(strings.Repeat("{{#a}}", 9) + "\n {{>p}}" + strings.Repeat("{{/a}}", 9))
			t.Partials = map[string]string{"p": "x\n" + strings.Repeat("{{#a}}", 8) + strings.Repeat("{{/a}}", 8)}
		}), "messages[0].content", []string{"line 2, column 2", `in the partial "p", line 2`, "more than 16 deep"}},
		{"item in a partial at the root", with(func(t *Template) {
			*t = chat("{{>p}}")
			t.Partials = map[string]string{"p": "{{.}}"}
		}), "messages[0].content", []string{`in the partial "p", line 1, column 1`}},

		{"prompt", Template{Prompt: "{{#a}}"}, "prompt", []string{"prompt, line 1, column 1"}},
		{"model", with(func(t *Template) { t.Model = "gpt-{{v}}" }), "model", []string{"gpt-4o-mini"}},

		{"variable without a name", with(func(t *Template) { t.Variables = []Variable{{}} }), "variables[0].name", []string{"customer_name"}},
		{"variable's name", with(func(t *Template) { t.Variables = []Variable{{Name: "ok"}, {Name: "a b"}} }), "variables[1].name", []string{`"a b"`, "customer_name"}},
		{"variable's path", with(func(t *Template) { t.Variables = []Variable{{Name: "user.name"}} }), "variables[0].name", []string{`declare the variable "user"`, "{{user.name}}"}},
		{"variable's name too long", with(func(t *Template) { t.Variables = []Variable{{Name: strings.Repeat("a", 129)}} }), "variables[0].name", []string{"longer than 128 bytes"}},
		{"variable twice", with(func(t *Template) { t.Variables = []Variable{{Name: "a"}, {Name: "a"}} }), "variables[1].name", []string{`"a" is declared twice`}},
		{"default not JSON", with(func(t *Template) { t.Variables = []Variable{{Name: "a", Default: json.RawMessage("some text")}} }), "variables[0].default", []string{"not valid JSON", `"some text" with its quotes`}},
		{"default too deep", with(func(t *Template) {
			t.Variables = []Variable{{Name: "a", Default: json.RawMessage(strings.Repeat("[", 65) + strings.Repeat("]", 65))}}
		}), "variables[0].default", []string{"more than 64 deep"}},
		{"required with a default", with(func(t *Template) {
			t.Variables = []Variable{{Name: "a", Required: true, Default: json.RawMessage("1")}}
		}), "variables[0]", []string{"required and has a default"}},
		{"defaults with too many values", with(func(t *Template) {
			t.Variables = []Variable{
				{Name: "a", Default: json.RawMessage("[" + strings.Repeat("0,", 49_999) + "0]")},
				{Name: "b", Default: json.RawMessage("[" + strings.Repeat("0,", 49_999) + "0]")},
			}
		}), "variables", []string{"more than 100000 values"}},

		{"parameter not JSON", with(func(t *Template) { t.Params = map[string]json.RawMessage{"temperature": json.RawMessage("hot")} }), "params.temperature", []string{"not valid JSON", "0.2"}},
		{"parameter without a name", with(func(t *Template) { t.Params = map[string]json.RawMessage{"": json.RawMessage("1")} }), "params", []string{"temperature"}},
		{"parameter of the template", with(func(t *Template) { t.Params = map[string]json.RawMessage{"Messages": json.RawMessage("[]")} }), "params.Messages", []string{`own field "messages"`}},
		{"virtual key as a parameter", with(func(t *Template) { t.Params = map[string]json.RawMessage{"virtual_key": json.RawMessage(`"a"`)} }), "params.virtual_key", []string{`own field "virtual_key"`}},
		{"parameters alike", with(func(t *Template) {
			t.Params = map[string]json.RawMessage{"top_p": json.RawMessage("1"), "Top_P": json.RawMessage("1")}
		}), "params.top_p", []string{"differ in case"}},

		{"locks nothing", with(func(t *Template) { t.Locked = []string{""} }), "locked[0]", []string{`"*" for all`}},
		{"locks another case", with(func(t *Template) { t.Locked = []string{"*", "Model"} }), "locked[1]", []string{`write "model"`}},

		{"too many messages", Template{Messages: raws(strings.Split(strings.Repeat("{}", 257), "{}")...)}, "messages", []string{"258 messages; at most 256"}},
		{"too many variables", with(func(t *Template) { t.Variables = make([]Variable, 1001) }), "variables", []string{"1001 variables; at most 1000"}},
		{"too many parameters", with(func(t *Template) { t.Params = many(257) }), "params", []string{"257 parameters; at most 256"}},
		{"too many locks", with(func(t *Template) { t.Locked = make([]string, 257) }), "locked", []string{"257 fields; at most 256"}},
		{"too many partials", with(func(t *Template) {
			t.Partials = map[string]string{}
			for name := range many(257) {
				t.Partials[name] = ""
			}
		}), "partials", []string{"257 partials; at most 256"}},
		{"too large", chat(strings.Repeat("x", MaxTemplateBytes)), "", []string{"at most 262144"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := c.template.Compile()
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("%v", err)
			}
			if e.Code != CodeInvalidTemplate || e.Param != c.param {
				t.Errorf("%s at %q, want it at %q", e.Code, e.Param, c.param)
			}
			for _, s := range c.says {
				if !strings.Contains(e.Message, s) {
					t.Errorf("%q doesn't say %q", e.Message, s)
				}
			}
			if len(e.Message) > 600 {
				t.Errorf("%d bytes of message", len(e.Message))
			}
		})
	}
}

func many(n int) map[string]json.RawMessage {
	m := make(map[string]json.RawMessage, n)
	for i := range n {
		m[fmt.Sprintf("f%03d", i)] = json.RawMessage("1")
	}
	return m
}

func TestCompile_TakesWhatChatFormatsHave(t *testing.T) {
	for _, m := range []string{
		`{"role":"developer","content":null,"name":"{{n}}"}`,
		`{"role":"assistant","tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{\"a\":{\"b\":\"{{x}}\"}}"}}]}`,
		`{"role":"tool","tool_call_id":"1","content":"} }} }}} { {x}"}`,
		`{"role":"function","name":"f","content":[]}`,
		` { "role" : "us\u0065r" , "content" : [ { "type" : "text" , "text" : "{{ x }}" } ] } `,
	} {
		if _, err := (&Template{Messages: raws(m)}).Compile(); err != nil {
			t.Errorf("%s: %v", m, err)
		}
	}
}

func TestCompile_TakesATemplateAtItsBounds(t *testing.T) {
	tmpl := Template{Params: many(MaxParams), Partials: map[string]string{}}
	for i := range MaxMessages {
		tmpl.Messages = append(tmpl.Messages, json.RawMessage(fmt.Sprintf(`{"role":"user","content":"{{v%d}}"}`, i)))
	}
	for i := range MaxVariables {
		tmpl.Variables = append(tmpl.Variables, Variable{Name: fmt.Sprintf("v%d", i)})
	}
	for i := range MaxPartials {
		tmpl.Partials[fmt.Sprintf("p%d", i)] = ""
	}
	for i := range MaxPartialDepth - 1 {
		tmpl.Partials[fmt.Sprintf("p%d", i)] = fmt.Sprintf("{{>p%d}}", i+1)
	}
	tmpl.Messages[0] = json.RawMessage(`{"role":"user","content":"` +
		strings.Repeat("{{#a}}", MaxSections) + "{{" + strings.Repeat("a.", MaxPathParts-1) + "a}}{{>p0}}" + strings.Repeat("{{/a}}", MaxSections) +
		"{{" + strings.Repeat("b", MaxNameBytes) + `}}"}`)
	tmpl.Messages[1] = json.RawMessage(`{"role":"user","content":` + strings.Repeat("[", MaxJSONDepth-1) + strings.Repeat("]", MaxJSONDepth-1) + `}`)
	tmpl.Model = strings.Repeat("m", MaxTemplateBytes-size(&tmpl))
	if _, err := tmpl.Compile(); err != nil {
		t.Error(err)
	}
	tmpl.Model += "m"
	if _, err := tmpl.Compile(); err == nil {
		t.Error("a byte more compiles")
	}
}

func TestNames_AreTheVariablesThatTheTextUses(t *testing.T) {
	tmpl := chat("{{b}} {{#a.x}}{{field}}{{maybe}}{{>p}}{{.}}{{/a.x}}{{^c}}{{d.e}}{{/c}}{{! no }}{{{f}}}{{&g}}")
	tmpl.Partials = map[string]string{"p": "{{in}}", "unused": "{{nowhere}}"}
	tmpl.Variables = []Variable{{Name: "maybe"}, {Name: "idle"}, {Name: "b"}}
	tmpl.Params = map[string]json.RawMessage{"user": json.RawMessage(`"{{u}}"`)}
	c := mustCompile(t, tmpl)
	if got, want := c.Names(), []string{"a", "b", "c", "d", "f", "g", "maybe"}; !reflect.DeepEqual(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	var about []string
	for _, w := range c.Warnings() {
		about = append(about, strings.SplitN(w, ":", 2)[0])
	}
	want := []string{
		`the variable "a" is used but not declared`, `the variable "c" is used but not declared`, `the variable "d" is used but not declared`,
		`the variable "f" is used but not declared`, `the variable "g" is used but not declared`,
		`the variable "idle" is declared but not used`,
		`params.user holds braces that are sent as they are`,
	}
	if !reflect.DeepEqual(about, want) {
		t.Errorf("%q\nwant %q", about, want)
	}
	if c := mustCompile(t, chat("plain")); len(c.Names()) > 0 || len(c.Warnings()) > 0 {
		t.Errorf("%q %q", c.Names(), c.Warnings())
	}
}

func TestCompiled_KeepsNothingOfTheTemplate(t *testing.T) {
	tmpl := chat("{{a}}")
	tmpl.Model, tmpl.Locked = "m", []string{"top_p"}
	tmpl.Variables = []Variable{{Name: "a", Default: json.RawMessage(`"x"`)}, {Name: "b", Required: true}}
	tmpl.Params = map[string]json.RawMessage{"n": json.RawMessage("1")}
	c := mustCompile(t, tmpl)
	copy(tmpl.Messages[0], strings.Repeat("#", 100))
	copy(tmpl.Variables[0].Default, `###`)
	copy(tmpl.Params["n"], "#")
	tmpl.Variables[1].Required, tmpl.Locked[0], tmpl.Model = false, "n", "#"
	delete(tmpl.Params, "n")
	body, err := c.Render(Input{Variables: members(t, `{"b":1}`), Overrides: members(t, `{"n":2}`)})
	if want := `{"model":"m","messages":[{"content":"x","role":"user"}],"n":2}`; err != nil || string(body) != want {
		t.Errorf("%s %v", body, err)
	}
	if _, err := c.Render(Input{}); err == nil {
		t.Error("b is no longer required")
	}
}

func TestTemplate_SurvivesItsStorage(t *testing.T) {
	tmpl := chat("{{a}}")
	tmpl.Params = map[string]json.RawMessage{"seed": json.RawMessage("9007199254740993")}
	tmpl.Variables = []Variable{{Name: "a", Required: true, Description: "d"}, {Name: "b", Default: json.RawMessage(`[1]`)}}
	tmpl.Locked, tmpl.Partials, tmpl.Model, tmpl.VirtualKey = []string{"*"}, map[string]string{"p": "x"}, "m", "k"
	text, err := json.Marshal(tmpl)
	if err != nil {
		t.Fatal(err)
	}
	var back Template
	if err := json.Unmarshal(text, &back); err != nil || !reflect.DeepEqual(back, tmpl) {
		t.Errorf("%s\n%+v, %v", text, back, err)
	}
}

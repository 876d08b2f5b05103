// SPDX-License-Identifier: MPL-2.0

package prompt

import (
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/cbroglie/mustache"
)

func TestRender_GivesTheRequestInAStableOrderAsItWasWritten(t *testing.T) {
	tmpl := Template{
		Model: "gpt-4o",
		Messages: raws(
			` { "role" : "system", "content" : "You are \u00fcber <kind>." , "weight" : 1.0e+2, "id": 12345678901234567890 }`,
			`{"role":"user","content":[{"type":"text","text":"{{q}}"},{"type":"image_url","image_url":{"url":"https://{{host}}/a.png","{{key}}":null}}],"name":"{{who}}"}`,
		),
		Params: map[string]json.RawMessage{
			"temperature": json.RawMessage(`0.20`), "seed": json.RawMessage(`9007199254740993`),
			"tools": json.RawMessage(`[ {"type":"function","function":{"description":"{{q}} stays"}} ]`),
		},
	}
	in := Input{
		Variables: members(t, `{"q":"a \"quote\", \\ and\nlines \u2028 </b> \u0000","host":"x\",\"y","who":"Zoë","unknown":{"a":1}}`),
		Overrides: members(t, `{"zeta":[1.10, 18446744073709551616],"a b\"c":true,"temperature":1e0,"stream":true}`),
	}
	const want = `{"model":"gpt-4o","messages":[{"role":"system","content":"You are \u00fcber <kind>.","weight":1.0e+2,"id":12345678901234567890},` +
		`{"role":"user","content":[{"type":"text","text":"a \"quote\", \\ and\nlines ` + "\u2028" + ` </b> \u0000"},{"type":"image_url","image_url":{"url":"https://x\",\"y/a.png","{{key}}":null}}],"name":"Zoë"}],` +
		`"a b\"c":true,"seed":9007199254740993,"stream":true,"temperature":1e0,"tools":[{"type":"function","function":{"description":"{{q}} stays"}}],"zeta":[1.10, 18446744073709551616]}`
	c := mustCompile(t, tmpl)
	for range 20 {
		body, err := c.Render(in)
		if err != nil || string(body) != want {
			t.Fatalf("%v\n%s\nwant\n%s", err, body, want)
		}
	}
	if !json.Valid([]byte(want)) {
		t.Error("not JSON")
	}
}

func TestRender_APromptIsACompletion(t *testing.T) {
	c := mustCompile(t, Template{Prompt: "Say \"{{x}}\"\n", Model: "m"})
	body, err := c.Render(Input{Variables: members(t, `{"x":"hi"}`)})
	if want := `{"model":"m","prompt":"Say \"hi\"\n"}`; err != nil || string(body) != want {
		t.Errorf("%s %v", body, err)
	}
	body, err = mustCompile(t, Template{Prompt: "plain <\t\x01\x7f>"}).Render(Input{Overrides: members(t, `{"model":"o"}`)})
	if want := `{"model":"o","prompt":"plain <\t\u0001` + "\x7f" + `>"}`; err != nil || string(body) != want {
		t.Errorf("%s %v", body, err)
	}
	body, err = mustCompile(t, Template{Prompt: "x", Model: "a\xffb"}).Render(Input{Overrides: map[string]json.RawMessage{"\xff": json.RawMessage("1")}})
	if want := `{"model":"a` + "\uFFFD" + `b","prompt":"x","` + "\uFFFD" + `":1}`; err != nil || string(body) != want {
		t.Errorf("%s %v", body, err)
	}
	body, err = mustCompile(t, Template{Prompt: "x"}).Render(Input{})
	if err != nil || string(body) != `{"prompt":"x"}` {
		t.Errorf("%s %v", body, err)
	}
}

// refusal is the *Error that Render gives.
func refusal(t testing.TB, c *Compiled, in Input) *Error {
	t.Helper()
	body, err := c.Render(in)
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("%s, %v", body, err)
	}
	if body != nil {
		t.Errorf("a body beside the error: %s", body)
	}
	return e
}

func TestRender_Overrides(t *testing.T) {
	tmpl := chat("x")
	tmpl.Model, tmpl.Locked = "m", []string{"seed", "user"}
	tmpl.Params = map[string]json.RawMessage{"seed": json.RawMessage(`{"a": 1}`), "top_p": json.RawMessage("0.5")}
	c := mustCompile(t, tmpl)
	head := `{"model":"m","messages":[{"content":"x","role":"user"}]`
	for _, s := range []struct{ overrides, want string }{
		{`{}`, head + `,"seed":{"a":1},"top_p":0.5}`},
		{`{"top_p":null,"model":null,"messages":null,"prompt":null,"seed":null,"user":null,"variables":null,"Top_P":null}`, head + `,"seed":{"a":1},"top_p":0.5}`},
		{`{"top_p":1}`, head + `,"seed":{"a":1},"top_p":1}`},
		{`{"seed":{ "a":1 }}`, head + `,"seed":{ "a":1 },"top_p":0.5}`},
		{`{"model":"n"}`, strings.Replace(head, `"m"`, `"n"`, 1) + `,"seed":{"a":1},"top_p":0.5}`},
	} {
		body, err := c.Render(Input{Overrides: members(t, s.overrides)})
		if err != nil || string(body) != s.want {
			t.Errorf("%s gave %s, %v", s.overrides, body, err)
		}
	}
	for _, s := range []struct{ overrides, code, param, says string }{
		{`{"messages":[]}`, CodeInvalidField, "messages", `"messages" comes from the prompt template`},
		{`{"prompt":"x"}`, CodeInvalidField, "prompt", `pass what it needs in "variables"`},
		{`{"variables":{}}`, CodeInvalidField, "variables", "no field"},
		{`{"virtual_key":"k"}`, CodeInvalidField, "virtual_key", "no field"},
		{`{"Messages":[]}`, CodeInvalidField, "Messages", `write "messages"`},
		{`{"meſſages":[]}`, CodeInvalidField, "meſſages", `write "messages"`},
		{`{"TOP_P":1}`, CodeInvalidField, "TOP_P", `write "top_p"`},
		{`{"User":"x"}`, CodeInvalidField, "User", `write "user"`},
		{`{"n":1,"N":2}`, CodeInvalidField, "n", `differs from "N"`},
		{`{"seed":2}`, CodeFieldLocked, "seed", `locks "seed"; leave it out`},
		{`{"user":"x"}`, CodeFieldLocked, "user", `locks "user"`},
		{`{"model":5}`, CodeInvalidField, "model", "gpt-4o-mini"},
		{`{"model":""}`, CodeInvalidField, "model", "gpt-4o-mini"},
		{`{"deep":` + strings.Repeat("[", 65) + strings.Repeat("]", 65) + `}`, CodeInvalidField, "deep", "more than 64 deep"},
	} {
		e := refusal(t, c, Input{Overrides: members(t, s.overrides)})
		if e.Code != s.code || e.Param != s.param || !strings.Contains(e.Error(), s.says) {
			t.Errorf("%s: %+v", s.overrides, e)
		}
	}
	if e := refusal(t, c, Input{Overrides: map[string]json.RawMessage{"n": json.RawMessage("1,\"x\":2")}}); e.Code != CodeInvalidField {
		t.Errorf("%+v", e)
	}
	if e := refusal(t, c, Input{Overrides: map[string]json.RawMessage{"n": json.RawMessage("\"\xff\"")}}); !strings.Contains(e.Message, "UTF-8") {
		t.Errorf("%+v", e)
	}
	if e := refusal(t, c, Input{Overrides: many(MaxOverrides + 1)}); e.Code != CodeInvalidField || !strings.Contains(e.Message, "257 fields") {
		t.Errorf("%+v", e)
	}
	if _, err := c.Render(Input{Overrides: many(MaxOverrides)}); err != nil {
		t.Error(err)
	}
}

// Both SDKs send stream on every call, false where nothing was chosen.
func TestRender_AStarLocksAllButHowTheAnswerIsCarried(t *testing.T) {
	tmpl := chat("x")
	tmpl.Model, tmpl.Locked, tmpl.Params = "m", []string{"*"}, map[string]json.RawMessage{"n": json.RawMessage("1")}
	c := mustCompile(t, tmpl)
	for _, overrides := range []string{`{"stream":true,"stream_options":{}}`, `{"model":"m","n":1,"stream":false}`} {
		if _, err := c.Render(Input{Overrides: members(t, overrides)}); err != nil {
			t.Errorf("%s: %v", overrides, err)
		}
	}
	for _, overrides := range []string{`{"model":"M"}`, `{"n":2}`, `{"user":"x"}`, `{"Stream":true}`, `{"model":"m","top_p":1}`} {
		if e := refusal(t, c, Input{Overrides: members(t, overrides)}); e.Code != CodeFieldLocked && !strings.Contains(overrides, "Stream") {
			t.Errorf("%s: %+v", overrides, e)
		}
	}
	for field, locked := range map[string]bool{"model": true, "virtual_key": true, "x": true, "stream": false, "stream_options": false} {
		if tmpl.Locks(field) != locked {
			t.Errorf("%s is locked: %v", field, !locked)
		}
	}

	tmpl.Locked = []string{"stream"}
	c = mustCompile(t, tmpl)
	if _, err := c.Render(Input{Overrides: members(t, `{"stream":false,"model":"n"}`)}); err != nil {
		t.Error(err)
	}
	if e := refusal(t, c, Input{Overrides: members(t, `{"stream":true}`)}); e.Code != CodeFieldLocked {
		t.Errorf("%+v", e)
	}
	if !tmpl.Locks("stream") || tmpl.Locks("stream_options") {
		t.Error("what is locked isn't what is named")
	}
}

func TestRender_AbsentVariables(t *testing.T) {
	tmpl := Template{Prompt: "[{{must}}|{{may}}|{{some}}|{{list}}]", Variables: []Variable{
		{Name: "must", Required: true}, {Name: "may"}, {Name: "some", Default: json.RawMessage(` "the {{default}}" `)},
		{Name: "list", Default: json.RawMessage(`[1, 2]`)}, {Name: "none", Default: json.RawMessage("null")}, {Name: "also", Required: true},
	}}
	c := mustCompile(t, tmpl)
	for _, s := range []struct{ given, want string }{
		{`{"must":"","also":false}`, "[||the {{default}}|[1,2]]"},
		{`{"must":0,"also":[],"may":null,"some":null,"list":null}`, "[0||the {{default}}|[1,2]]"},
		{`{"must":1,"also":1,"may":2,"some":"","list":false}`, "[1|2||false]"},
	} {
		body, err := c.Render(Input{Variables: members(t, s.given)})
		if want := `{"prompt":"` + s.want + `"}`; err != nil || string(body) != want {
			t.Errorf("%s gave %s, %v", s.given, body, err)
		}
	}
	for _, s := range []struct{ given, param, says string }{
		{`{}`, "variables", `the prompt needs the variables "must", "also": send "variables":{"must":"…"}`},
		{`{"must":null,"also":1}`, "variables.must", `needs the variable "must": send`},
		{`{"must":1}`, "variables.also", `needs the variable "also"`},
	} {
		e := refusal(t, c, Input{Variables: members(t, s.given)})
		if e.Code != CodeMissingVariable || e.Param != s.param || !strings.Contains(e.Message, s.says) || strings.Contains(e.Message, "did you mean") {
			t.Errorf("%s: %+v", s.given, e)
		}
	}
	if e := refusal(t, c, Input{Variables: map[string]json.RawMessage{"also": nil}}); !strings.Contains(e.Message, `"must", "also"`) {
		t.Errorf("%+v", e)
	}
}

func TestRender_GuessesWhatWasMisspelt(t *testing.T) {
	tmpl := Template{Prompt: "{{customer_name}}{{used}}{{#l}}{{fields}}{{/l}}{{id}}", Variables: []Variable{{Name: "customer_name", Required: true}, {Name: "used", Required: true}, {Name: "id", Required: true}}}
	c := mustCompile(t, tmpl)
	for given, guess := range map[string]string{
		`{"customer_nam":1}`: "customer_nam", `{"customerName":1}`: "customerName", `{"Customer-Name":1}`: "Customer-Name",
		`{"costumer_name":1,"customer_name2":1}`: "customer_name2",
		`{"usd":1}`:                              "usd", `{"ID":1}`: "ID",
		`{"customer":1}`: "", `{"name":1}`: "", `{"l":1}`: "", `{"fields":1}`: "", `{"it":1}`: "", `{}`: "",
		`{"` + strings.Repeat("customer_name", 6) + `":1}`: "",
	} {
		e := refusal(t, c, Input{Variables: members(t, given)})
		if guess == "" && strings.Contains(e.Message, "did you mean") || !strings.Contains(e.Message, guess) {
			t.Errorf("%s: %s", given, e)
		}
	}
	long := strings.Repeat("n", 100)
	c = mustCompile(t, Template{Prompt: "x", Variables: []Variable{{Name: long, Required: true}}})
	given := many(1000)
	given[long[1:]] = json.RawMessage("1")
	if e := refusal(t, c, Input{Variables: given}); strings.Contains(e.Message, "did you mean") {
		t.Errorf("%s", e)
	}
}

func TestRender_RefusesVariablesThatAreNoJSON(t *testing.T) {
	c := mustCompile(t, Template{Prompt: "{{a}}"})
	for _, s := range []struct{ raw, says string }{
		{`{"b":`, "not valid JSON"}, {`plain`, "not valid JSON"}, {`"x" "y"`, "not valid JSON"}, {"\"\xff\"", "UTF-8"},
		{strings.Repeat("[", 65) + strings.Repeat("]", 65), "more than 64 deep"},
		{strings.Repeat("[", 100_000), "not valid JSON"},
	} {
		e := refusal(t, c, Input{Variables: map[string]json.RawMessage{"a": json.RawMessage(s.raw)}})
		if e.Code != CodeInvalidVariable || e.Param != "variables.a" || !strings.Contains(e.Message, s.says) {
			t.Errorf("%+v", e)
		}
		// Those that the template doesn't use aren't looked at.
		if _, err := c.Render(Input{Variables: map[string]json.RawMessage{"b": json.RawMessage(s.raw)}}); err != nil {
			t.Error(err)
		}
	}
}

func TestRender_ErrorsHoldNoValues(t *testing.T) {
	c := mustCompile(t, Template{Prompt: "{{a}}", Locked: []string{"user"}, Variables: []Variable{{Name: "b", Required: true}}})
	for _, in := range []Input{
		{Variables: members(t, `{"a":"SECRET","c":"SECRET"}`)},
		{Variables: members(t, `{"b":1}`), Overrides: members(t, `{"user":"SECRET"}`)},
		{Variables: members(t, `{"b":1}`), Overrides: members(t, `{"model":["SECRET"]}`)},
		{Variables: members(t, `{"b":1,"a":"SECRET"}`), MaxBytes: 16},
		{Variables: map[string]json.RawMessage{"b": json.RawMessage("1"), "a": json.RawMessage(`{"SECRET"}`)}},
	} {
		if e := refusal(t, c, in); strings.Contains(e.Message+e.Param, "SECRET") {
			t.Errorf("%+v", e)
		}
	}
}

func TestRender_ManyAtOnce(t *testing.T) {
	tmpl := chat("{{#l}}{{n}}{{>p}}{{/l}}{{d.a}}{{d}}")
	tmpl.Partials = map[string]string{"p": "{{^x}}-{{.}}{{/x}}"}
	tmpl.Variables = []Variable{{Name: "d", Default: json.RawMessage(`{"a":[0]}`)}}
	tmpl.Locked, tmpl.Params = []string{"n"}, map[string]json.RawMessage{"n": json.RawMessage("1")}
	c := mustCompile(t, tmpl)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			name := string(rune('a' + i))
			in := Input{
				Variables: members(t, `{"l":[{"n":"`+name+`"},{"n":"`+name+`","x":1}]}`),
				Overrides: members(t, `{"top_p":`+strings.Repeat("1", i+1)+`}`),
			}
			want := `{"messages":[{"content":"` + name + `-{\"n\":\"` + name + `\"}` + name + `[0]{\"a\":[0]}","role":"user"}],"n":1,"top_p":` + strings.Repeat("1", i+1) + `}`
			for range 200 {
				if body, err := c.Render(in); err != nil || string(body) != want {
					t.Errorf("%s %v\nwant %s", body, err, want)
					return
				}
				_, _ = c.Names(), c.Warnings()
			}
		})
	}
	wg.Wait()
}

// The library has a switch that any package of the program can turn.
func TestRender_SaysWhatTheLibraryRefuses(t *testing.T) {
	mustache.AllowMissingVariables = false
	defer func() { mustache.AllowMissingVariables = true }()
	if e := refusal(t, mustCompile(t, Template{Prompt: "{{a}}"}), Input{}); e.Code != CodeInvalidTemplate {
		t.Errorf("%+v", e)
	}
}

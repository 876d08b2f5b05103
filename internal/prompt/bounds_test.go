// SPDX-License-Identifier: MPL-2.0

package prompt

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

// cost runs f and tells what it allocated; it must be done within generous time,
// so that only what is unbounded fails.
func cost(t *testing.T, f func()) (allocated uint64) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	f()
	took := time.Since(start)
	runtime.ReadMemStats(&after)
	t.Logf("%s, %d KiB allocated", took.Round(time.Millisecond), (after.TotalAlloc-before.TotalAlloc)>>10)
	if took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
	return after.TotalAlloc - before.TotalAlloc
}

func numbers(n int) json.RawMessage {
	return json.RawMessage("[" + strings.Repeat("1,", n-1) + "1]")
}

func TestBounds_AThousandVariablesOf100KB(t *testing.T) {
	var text strings.Builder
	given := map[string]json.RawMessage{}
	value := json.RawMessage(`"` + strings.Repeat("x", 100<<10) + `"`)
	for i := range 1000 {
		fmt.Fprintf(&text, "{{v%d}}", i)
		given[fmt.Sprintf("v%d", i)] = value
	}
	c := mustCompile(t, chat(text.String()))
	for _, most := range []int{0, 1000, 8 << 20} {
		allocated := cost(t, func() {
			if e := refusal(t, c, Input{Variables: given, MaxBytes: most}); e.Code != CodeTooLarge || e.Param != "variables" {
				t.Errorf("%+v", e)
			}
		})
		if allocated > 1<<20 {
			t.Errorf("%d bytes were allocated to refuse the variables", allocated)
		}
	}
	// One variable that is used a thousand times gets to the output's bound.
	c = mustCompile(t, chat(strings.Repeat("{{v0}}", 1000)))
	allocated := cost(t, func() {
		if e := refusal(t, c, Input{Variables: given}); e.Code != CodeTooLarge || !strings.Contains(e.Message, "larger than 1048576 bytes") {
			t.Errorf("%+v", e)
		}
	})
	if allocated > 20<<20 {
		t.Errorf("%d bytes were allocated for a body of 1 MiB", allocated)
	}
	// Ten of them fit.
	c = mustCompile(t, chat("{{v0}}{{v1}}{{v2}}{{v3}}{{v4}}{{v5}}{{v6}}{{v7}}{{v8}}{{v9}}"))
	if body, err := c.Render(Input{Variables: given}); err != nil || len(body) < 1000<<10 {
		t.Errorf("%d bytes, %v", len(body), err)
	}
}

func TestBounds_TheBodyIsNeverLargerThanItsBound(t *testing.T) {
	tmpl := chat("é{{v}}{{#l}}{{.}}{{/l}}")
	tmpl.Model, tmpl.Params = "m", map[string]json.RawMessage{"n": json.RawMessage("1")}
	c := mustCompile(t, tmpl)
	in := Input{Variables: members(t, `{"v":"\u0000\"é","l":[1,"x"]}`), Overrides: members(t, `{"o":[ ]}`)}
	whole, err := c.Render(in)
	if err != nil {
		t.Fatal(err)
	}
	for in.MaxBytes = 1; in.MaxBytes <= len(whole)+1; in.MaxBytes++ {
		body, err := c.Render(in)
		if in.MaxBytes >= len(whole) {
			if err != nil || string(body) != string(whole) {
				t.Errorf("%d of %d bytes: %v", in.MaxBytes, len(whole), err)
			}
			continue
		}
		if e := refusal(t, c, in); e.Code != CodeTooLarge {
			t.Errorf("%d of %d bytes: %+v", in.MaxBytes, len(whole), e)
		}
	}
	// A value that grows as it is escaped counts as it comes out.
	in = Input{Variables: members(t, `{"v":"`+strings.Repeat(`\u0001`, 1000)+`"}`), MaxBytes: 5000}
	if e := refusal(t, c, in); e.Code != CodeTooLarge {
		t.Errorf("%+v", e)
	}
}

// What prints nothing must stop too. The library tells of each text that it
// passes, an empty one too: if a later release doesn't, this doesn't end.
func TestBounds_ListsInListsThatPrintNothing(t *testing.T) {
	for name, text := range map[string]string{
		"sections":  strings.Repeat("{{#a}}", MaxSections) + strings.Repeat("{{/a}}", MaxSections),
		"absent":    strings.Repeat("{{#a}}", MaxSections-1) + "{{x}}" + strings.Repeat("{{/a}}", MaxSections-1),
		"inverted":  strings.Repeat("{{#a}}", MaxSections-1) + "{{^x}}{{/x}}{{^a}}{{/a}}" + strings.Repeat("{{/a}}", MaxSections-1),
		"empty":     strings.Repeat("{{#a}}", MaxSections-1) + "{{#e}}{{/e}}" + strings.Repeat("{{/a}}", MaxSections-1),
		"partials":  strings.Repeat("{{#a}}", MaxSections-1) + "{{>p}}" + strings.Repeat("{{/a}}", MaxSections-1),
		"item":      "{{#a}}" + strings.Repeat("{{#a}}{{#.}}{{/.}}{{/a}}", 100) + "{{/a}}",
		"long path": "{{#a}}{{#a}}{{" + strings.Repeat("o.", MaxPathParts-1) + "x}}{{/a}}{{/a}}",
	} {
		t.Run(name, func(t *testing.T) {
			tmpl := chat(text)
			tmpl.Partials = map[string]string{"p": "{{! nothing }}{{x}}"}
			c := mustCompile(t, tmpl)
			object := json.RawMessage(strings.Repeat(`{"o":`, 60) + "1" + strings.Repeat("}", 60))
			allocated := cost(t, func() {
				e := refusal(t, c, Input{Variables: map[string]json.RawMessage{"a": numbers(20_000), "e": json.RawMessage("[]"), "o": object}})
				if e.Code != CodeTooLarge || !strings.Contains(e.Message, "500000 steps") {
					t.Errorf("%+v", e)
				}
			})
			if allocated > 1<<30 {
				t.Errorf("%d bytes allocated", allocated)
			}
		})
	}
}

// The slowest lookups are of absent names under many objects.
func TestBounds_DeepObjectsAreNotSlow(t *testing.T) {
	text := strings.Repeat("{{#o}}", MaxSections-1) + "{{#l}}" + strings.Repeat("{{x}}", 100) + "{{/l}}" + strings.Repeat("{{/o}}", MaxSections-1)
	c := mustCompile(t, chat(text))
	object := json.RawMessage(strings.Repeat(`{"o":`, MaxSections-1) + "1" + strings.Repeat("}", MaxSections-1))
	allocated := cost(t, func() {
		if e := refusal(t, c, Input{Variables: map[string]json.RawMessage{"o": object, "l": numbers(10_000)}}); e.Code != CodeTooLarge {
			t.Errorf("%+v", e)
		}
	})
	// It is the lookups that allocate.
	if allocated > 200<<20 {
		t.Errorf("%d bytes allocated", allocated)
	}
}

func TestBounds_Values(t *testing.T) {
	c := mustCompile(t, chat("{{#a}}{{/a}}{{b}}"))
	object := json.RawMessage(`{` + strings.Repeat(`"k":{},`, 49_998) + `"k":[]}`)
	if _, err := c.Render(Input{Variables: map[string]json.RawMessage{"a": numbers(49_999), "b": object}}); err != nil {
		t.Error(err)
	}
	for _, in := range []map[string]json.RawMessage{
		{"a": numbers(50_000), "b": object},
		{"a": numbers(MaxValues)},
		{"b": json.RawMessage("[" + strings.Repeat("[],", 100_000) + "{}]")},
	} {
		if e := refusal(t, c, Input{Variables: in}); e.Code != CodeTooLarge || !strings.Contains(e.Message, "more than 100000 values") {
			t.Errorf("%+v", e)
		}
	}
	// And they aren't built first.
	allocated := cost(t, func() {
		_ = refusal(t, c, Input{Variables: map[string]json.RawMessage{"a": numbers(2_000_000)}})
	})
	if allocated > 40<<20 {
		t.Errorf("%d bytes allocated", allocated)
	}
}

func TestBounds_AListAtTheBoundIsFilledIn(t *testing.T) {
	c := mustCompile(t, chat("{{#rows}}\n- {{id}}: {{name}} ({{kind}})\n{{/rows}}\n"))
	rows := "[" + strings.TrimSuffix(strings.Repeat(`{"id":123,"name":"some name","kind":"k"},`, 20_000), ",") + "]"
	if body, err := c.Render(Input{Variables: map[string]json.RawMessage{"rows": json.RawMessage(rows)}}); err != nil {
		t.Errorf("%d bytes, %v", len(body), err)
	}
}

// Partials that include each other grow a text as powers do.
func TestBounds_PartialsThatMultiply(t *testing.T) {
	for name, c := range map[string]struct{ use, last string }{
		"text":     {"{{>%s}}", "some text"},
		"nothing":  {"{{>%s}}", ""},
		"comments": {"{{>%s}}", "{{!" + strings.Repeat(" ", 200<<10) + "}}"},
		"indented": {"\n  {{>%s}}\n", "{{!" + strings.Repeat(" ", 200<<10) + "}}"},
		"tags":     {"{{>%s}}", "{{#a}}{{a}}{{/a}}"},
		"names":    {"{{>%s}}", strings.Repeat("{{a}}", 30<<10)},
		"pieces":   {"{{>%s}}", strings.Repeat(strings.Repeat("x", 1000)+"{{a}}", 200)},
		"lines":    {"\n{{>%s}}\n", strings.Repeat("\n", 100<<10)},
		"wide":     {"\n" + strings.Repeat(" ", 1000) + "{{>%s}}\n", strings.Repeat("x\n", 50<<10)},
	} {
		t.Run(name, func(t *testing.T) {
			tmpl := chat("{{>p1}}")
			tmpl.Partials = map[string]string{"p7": c.last}
			for i := 1; i < 7; i++ {
				tmpl.Partials[fmt.Sprintf("p%d", i)] = strings.Repeat(fmt.Sprintf(c.use, fmt.Sprintf("p%d", i+1)), 10)
			}
			allocated := cost(t, func() {
				_, err := tmpl.Compile()
				var e *Error
				if !errors.As(err, &e) || !strings.Contains(e.Message, "larger than 1048576 bytes") || len(e.Message) > 1000 {
					t.Errorf("%v", err)
				}
			})
			if allocated > 100<<20 {
				t.Errorf("%d bytes allocated", allocated)
			}
		})
	}
	tmpl := Template{Partials: map[string]string{"p": strings.Repeat("x", 100<<10)}}
	for range 11 {
		tmpl.Messages = append(tmpl.Messages, json.RawMessage(`{"role":"user","content":"{{>p}}"}`))
	}
	if _, err := tmpl.Compile(); err == nil || !strings.Contains(err.Error(), "messages[10].content") {
		t.Errorf("messages have a share each: %v", err)
	}
	tmpl.Messages = tmpl.Messages[:10]
	if _, err := tmpl.Compile(); err != nil {
		t.Error(err)
	}
}

func TestBounds_HostileTexts(t *testing.T) {
	for name, text := range map[string]string{
		"openers":  strings.Repeat("{{#a}}", 40_000),
		"closers":  strings.Repeat("{{/a}}", 40_000),
		"braces":   strings.Repeat("{", 240_000),
		"unclosed": strings.Repeat("{{a ", 60_000),
		"blanks":   strings.Repeat(" ", 100_000) + strings.Repeat("{{a}}   ", 15_000),
		"many":     strings.Repeat("{{a}}", 50_000),
		"standing": strings.Repeat("{{!}}\n", 40_000),
	} {
		tmpl := chat(text)
		cost(t, func() {
			if c, err := tmpl.Compile(); err == nil {
				if _, err := c.Render(Input{}); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
	deep := Template{Messages: raws(`{"role":"user","content":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + `}`)}
	if _, err := deep.Compile(); err == nil {
		t.Error("a deep message compiles")
	}
}

func TestBounds_AMissingVariableIsNotSlow(t *testing.T) {
	tmpl := Template{Prompt: "x"}
	for i := range MaxVariables {
		tmpl.Variables = append(tmpl.Variables, Variable{Name: fmt.Sprintf("%0*d", maxGuessBytes, i), Required: true})
	}
	c := mustCompile(t, tmpl)
	given := map[string]json.RawMessage{}
	for i := range 100_000 {
		given[fmt.Sprintf("x%0*d", maxGuessBytes-1, i)] = json.RawMessage("1")
	}
	cost(t, func() {
		if e := refusal(t, c, Input{Variables: given}); e.Code != CodeMissingVariable || len(e.Message) > 100<<10 {
			t.Errorf("%d bytes of %s", len(e.Message), e.Code)
		}
	})
}

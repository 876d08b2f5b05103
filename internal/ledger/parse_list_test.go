// SPDX-License-Identifier: MPL-2.0

package ledger

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
)

// object is a JSON object with changes to one that is right; nil takes a member
// away.
func object(changes map[string]any) map[string]any {
	result := map[string]any{"unit": "usd", "max": "100", "window": "month"}
	for name, value := range changes {
		if result[name] = value; value == nil {
			delete(result, name)
		}
	}
	return result
}

func texts(limits []Limit) string {
	list := make([]string, len(limits))
	for i, l := range limits {
		list[i] = l.String()
	}
	return strings.Join(list, ", ")
}

func TestParseLimits_ReadsListsInEveryForm(t *testing.T) {
	for _, c := range []struct {
		raw  []any
		want string
	}{
		{nil, ""},
		{[]any{}, ""},
		{[]any{""}, ""},
		{[]any{" ", "[]", []any{}, `[""]`}, ""},
		{[]any{"usd=100/month", "", "requests=60/minute"}, "usd=100/month, requests=60/minute"},
		{[]any{`["usd=100/month", {"unit":"requests","max":60,"window":"minute"}]`}, "usd=100/month, requests=60/minute"},
		{[]any{` {"unit":"usd","max":0.1,"window":"30d","per":"entity","models":"gpt-4o*"} `, "concurrent=8"}, "usd=0.1/30d per entity on gpt-4o*, concurrent=8"},
		{[]any{[]any{"usd=1/day", []any{object(nil)}}, "usd=2/week"}, "usd=1/day, usd=100/month, usd=2/week"},
		{[]any{`["[\"usd=1/day\"]"]`}, "usd=1/day"},
		{[]any{map[string]any{"unit": "concurrent", "max": 8.0}}, "concurrent=8"},
		{[]any{map[string]any{"unit": "concurrent", "max": 8, "window": ""}}, "concurrent=8"},
		{[]any{map[string]any{"limit": "usd=1/day"}}, "usd=1/day"},
		{[]any{map[string]any{"unit": " USD ", "max": " 5 ", "window": " Day ", "per": "ENTITY", "models": " gpt* "}}, "usd=5/day per entity on gpt*"},
		{[]any{object(map[string]any{"per_entity": false, "models": ""})}, "usd=100/month"},
		{[]any{object(map[string]any{"per_entity": true, "models": "*"})}, "usd=100/month per entity"},
	} {
		got, err := ParseLimits(c.raw)
		if err != nil || texts(got) != c.want {
			t.Errorf("%v was read as %s, %v; want %s", c.raw, texts(got), err, c.want)
		}
	}
}

func TestParseLimits_TakesNumbersExactly(t *testing.T) {
	for _, c := range []struct {
		unit, want string
		max        any
	}{
		{"usd", "0.1", 0.1}, {"usd", "100", 100.0}, {"usd", "0.000000001", 1e-9}, {"usd", "1000000000", 1e9}, {"usd", "0", 0.0}, {"usd", "5", 5}, {"usd", "6", int64(6)},
		{"usd", "0.1", json.Number("0.1")}, {"usd", "999999999.123456789", json.Number("999999999.123456789")}, {"usd", "100", json.Number("1e2")},
		{"usd", "0.5", json.Number("0.50000000000000000")}, {"usd", "999999999.123456789", "999999999.123456789"}, {"usd", "10", json.Number("10")},
		{"requests", "1000000000000000", 1e15}, {"requests", "60", json.Number("60.0")}, {"requests", "60", json.Number("6E1")}, {"requests", "100", json.Number("100")},
		{"requests", "1000000000000000", json.Number("1000000000000000")}, {"requests", "0", 0.0}, {"requests", "60", "60"},
	} {
		got, err := ParseLimits([]any{map[string]any{"unit": c.unit, "max": c.max, "window": "day"}})
		if err != nil || len(got) != 1 || got[0].Unit.Format(got[0].Max) != c.want {
			t.Errorf("%s of %T %v was read as %s, %v", c.unit, c.max, c.max, texts(got), err)
		}
	}
	for _, c := range []struct {
		unit, want string
		max        any
	}{
		{"usd", "nine decimals", 0.1 + 0.2*math.Nextafter(1, 2)}, {"usd", "nine decimals", 1e-10}, {"usd", "nine decimals", 1e-300}, {"usd", "too large", 1e300}, {"usd", "too large", 1e9 + 1},
		{"usd", "negative", -0.5}, {"usd", "no amount", math.NaN()}, {"usd", "no amount", math.Inf(1)}, {"usd", "negative", math.Inf(-1)},
		{"usd", "no amount", json.Number("1e999999999")}, {"usd", "nine decimals", json.Number("1e-50")}, {"usd", "nine decimals", json.Number("0.0000000001")},
		{"usd", "no amount", json.Number("x")}, {"usd", "no amount", json.Number("1x.")},
		{"requests", "no whole number", 0.5}, {"requests", "too large", 1e15 + 1}, {"requests", "too large", float64(1 << 60)}, {"requests", "no whole number", json.Number("60.5")},
		{"requests", "no whole number", "60.0"}, {"requests", "negative", json.Number("-1")}, {"requests", "negative", -1}, {"requests", "missing", ""}, {"requests", "missing", json.Number("")},
		{"requests", "max is true", true}, {"requests", "max is a list", []any{1.0}}, {"requests", "max is an object", map[string]any{}}, {"requests", "max is a uint8", uint8(1)},
		{"usd", "no amount", strings.Repeat("1", 1<<20) + "x"}, {"requests", "too large", strings.Repeat("1", 1<<20)},
	} {
		got, err := ParseLimits([]any{map[string]any{"unit": c.unit, "max": c.max, "window": "day"}})
		if err == nil {
			t.Errorf("%s of %T %v was read as %s", c.unit, c.max, c.max, texts(got))
			continue
		}
		checkError(t, fmt.Sprint(c.max), err, c.want)
	}
}

func TestParseLimits_SaysWhatIsWrong(t *testing.T) {
	deep := any("usd=1/day")
	for range 10 {
		deep = []any{deep}
	}
	for _, c := range []struct {
		item any
		want string
	}{
		{"usd=-1/month", `limit "usd=-1/month": max "-1" is negative`},
		{5.0, "limit 2 is a number; write text such as"}, {json.Number("5"), "limit 2 is a number"}, {nil, "limit 2 is null"}, {true, "limit 2 is true"}, {[]string{"x"}, "limit 2 is a []string"},
		{map[string]any{}, "limit 2: the unit is missing"},
		{object(map[string]any{"unit": "dollars"}), "limit 2: unknown unit \"dollars\" (did you mean usd?)"},
		{object(map[string]any{"unit": 5.0}), "limit 2: unit is a number"},
		{object(map[string]any{"max": nil}), "limit 2: the max is missing"},
		{object(map[string]any{"window": nil}), "limit 2: there is no window"},
		{object(map[string]any{"window": ""}), "limit 2: there is no window"},
		{object(map[string]any{"window": "fortnight"}), "limit 2: unknown window"},
		{object(map[string]any{"window": 30.0}), "limit 2: window is a number"},
		{object(map[string]any{"unit": "concurrent"}), "limit 2: concurrent has no window"},
		{object(map[string]any{"models": []any{"a"}}), "limit 2: models is a list; write one text"},
		{object(map[string]any{"models": "gpt 4"}), `must not have ' ' in it`},
		{object(map[string]any{"models": "a?"}), `as in "models":"gpt-4o*"`},
		{object(map[string]any{"models": "a\ufffd"}), "must not have"},
		{object(map[string]any{"models": strings.Repeat("a", 257)}), "257 bytes is too long"},
		{object(map[string]any{"models": strings.Repeat("a", 1<<20)}), "1048576 bytes are too long"},
		{object(map[string]any{"per": "user"}), `limit 2: per is "user"; write "per":"entity"`},
		{object(map[string]any{"per": true}), "limit 2: per is true"},
		{object(map[string]any{"per_entity": "true"}), `limit 2: per_entity is "true"`},
		{object(map[string]any{"per_entity": true, "per": "entity"}), "not both"},
		{object(map[string]any{"modles": "a"}), `limit 2: unknown member "modles" (did you mean models?)`},
		{object(map[string]any{"Unit": "usd"}), `unknown member "Unit" (did you mean unit?)`},
		{object(map[string]any{"per-entity": true}), "did you mean per_entity?"},
		{object(map[string]any{"bananas": true}), "the members are unit, max, window"},
		{map[string]any{"unit": nil}, "limit 2: unit is null; leave it out"},
		{map[string]any{"unit": "usd", "max": nil, "window": "day"}, "limit 2: max is null; leave it out"},
		{`{"unit":"concurrent","max":1,"window":null}`, "limit 2: window is null; leave it out"},
		{object(map[string]any{"limit": "usd=5/month"}), `the member limit says "usd=5/month" and the others say "usd=100/month"`},
		{object(map[string]any{"limit": "usd=100/month", "max": nil}), "the max is missing"},
		{map[string]any{"limit": 5.0}, "limit 2: limit is a number"},
		{map[string]any{"limit": "usd=5"}, "limit 2: there is no window"},
		{`{"unit":"usd","max":1,"max":2,"window":"day"}`, `member "max" is there twice`},
		{`{"unit":"usd","m\u0061x":1,"max":2,"window":"day"}`, `member "max" is there twice`},
		{`[{"unit":"usd"`, "this is no JSON"}, {"[", "this is no JSON"}, {"{]", "this is no JSON"}, {`["usd=1/day"] x`, "this is no JSON"}, {`["usd=1/day",]`, "this is no JSON"},
		{`{"unit":"usd","max":01}`, "this is no JSON"}, {`[5]`, "limit 2 is a number"}, {`[null]`, "limit 2 is null"}, {`{}`, "the unit is missing"}, {`[[["x"]]]`, `limit "x"`},
		{`{"unit":"usd","max":1e400,"window":"day"}`, "no amount"},
		{"[" + strings.Repeat(" ", maxJSON) + "]", "bytes are too long; at most 65536"},
		{strings.Repeat("[", 10_000), "this is no JSON"}, {strings.Repeat("[", 9000) + strings.Repeat("]", 9000), "nested too deep"}, {deep, "too deep"},
		{`{"unit":{"a":{"b":{"c":{"d":{"e":{"f":1}}}}}}}`, "nested too deep"},
	} {
		got, err := ParseLimits([]any{"concurrent=8", "", c.item})
		if err == nil {
			t.Errorf("%.200v was read as %s; want an error with %q", c.item, texts(got), c.want)
			continue
		}
		checkError(t, fmt.Sprint(c.item), err, c.want)
		if got != nil {
			t.Errorf("%.200v is wrong and gave %s", c.item, texts(got))
		}
	}
}

func TestParseLimits_RefusesTheSameIdentityTwice(t *testing.T) {
	for _, pair := range [][2]any{
		{"usd=1/month", "usd=2/month"},
		{"usd=1/24h", "USD = 2 / 1d"},
		{"usd=1/day on gpt*", "usd=2/day on gpt**"},
		{"usd=1/day on gpt*", "usd=2/day on GPT*"},
		{"usd=1/day on *", "usd=2/day"},
		{"concurrent=1", object(map[string]any{"unit": "concurrent", "max": 2.0, "window": nil})},
	} {
		_, err := ParseLimits([]any{pair[0], "tokens=5/day", pair[1]})
		if err == nil || !strings.Contains(err.Error(), "=1") || !strings.Contains(err.Error(), "=2") || !strings.Contains(err.Error(), "are both for") {
			t.Errorf("%v gave %v", pair, err)
		}
	}
	got, err := ParseLimits([]any{"usd=1/day", "usd=1/24h", "usd=1/day per entity", "usd=1/day on a", "usd=1/day on b", "usd=1/day per entity on a", "tokens=1/day", "requests=1/hour", "requests=1/1h"})
	if err != nil || len(got) != 9 {
		t.Errorf("limits that differ in one part were read as %s, %v", texts(got), err)
	}
}

func TestParseLimits_BoundsTheirNumber(t *testing.T) {
	var raw []any
	for i := range MaxLimits {
		raw = append(raw, fmt.Sprintf("usd=1/%dd", i+1), "")
	}
	if got, err := ParseLimits(raw); err != nil || len(got) != MaxLimits {
		t.Fatalf("%d limits were read as %d, %v", MaxLimits, len(got), err)
	}
	if _, err := ParseLimits(append(raw, "usd=5/month")); err == nil || !strings.Contains(err.Error(), `limit "usd=5/month" is one too many; a role has at most 16`) {
		t.Errorf("one more gave %v", err)
	}
}

func FuzzParseLimits(f *testing.F) {
	for _, text := range []string{
		`["usd=100/month"]`, `{"unit":"usd","max":0.1,"window":"month"}`, `[{"unit":"usd","max":"100","window":"30d","per_entity":true,"models":"gpt-4o*"},"concurrent=8"]`,
		`{"unit":"requests","max":6e1,"window":"minute","per":"entity"}`, `[[]]`, `[""]`, `["[\"usd=1/day\"]"]`, `{"max":1,"max":2}`, `[null,1,true,{}]`, `{`, `[`, `{"limit":"usd=1/day"}`,
		`{"unit":"usd","max":1e999,"window":"day"}`, "[\"\xff\"]", `["usd=1/day on \ud800"]`, `usd=1/day`, ``, `[1,]`, `{"unit":"usd","max":-0,"window":"day"}`,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		limits, err := ParseLimits([]any{text})
		if err != nil {
			checkError(t, text, err, "limit")
		}
		for _, l := range limits {
			checkLimit(t, l)
		}
		var decoded any
		decoder := json.NewDecoder(strings.NewReader(text))
		decoder.UseNumber() // float64 may have fewer digits than the text
		if !strings.HasPrefix(text, "[") || err != nil || decoder.Decode(&decoded) != nil {
			return
		}
		// What the operator's client has decoded says the same.
		again, err := ParseLimits([]any{decoded})
		if err != nil || texts(again) != texts(limits) {
			t.Fatalf("%q is %s, decoded it is %s, %v", text, texts(limits), texts(again), err)
		}
	})
}

// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
)

// limitsAre says what limits a role shows.
func (m *mount) limitsAre(role string, want ...string) {
	m.t.Helper()
	if want == nil {
		want = []string{}
	}
	wantFields(m.t, m.read("roles/"+role), map[string]any{"limits": want})
}

func TestRoleLimits_AreTakenInEveryFormThatCallersSend(t *testing.T) {
	m := newRoleMount(t, Options{})
	object := map[string]any{"unit": "usd", "max": "100", "window": "month", "per_entity": true, "models": "gpt-4*"}
	const text = "usd=100/month per entity on gpt-4*"
	for name, c := range map[string]struct {
		given any
		want  []string
	}{
		"a list":                       {[]any{"usd=100/month", "requests=60/minute", "concurrent=8"}, []string{"usd=100/month", "requests=60/minute", "concurrent=8"}},
		"one text, as the CLI sends":   {"usd=100/month", []string{"usd=100/month"}},
		"loosely written":              {" USD = 100.50 / Month ON GPT-4* PER ENTITY ", []string{"usd=100.5/month per entity on gpt-4*"}},
		"a list of one":                {[]any{text}, []string{text}},
		"a list as JSON text":          {`["usd=100/month","requests=60/minute"]`, []string{"usd=100/month", "requests=60/minute"}},
		"an object as JSON text":       {`{"unit":"usd","max":100,"window":"month","per_entity":true,"models":"gpt-4*"}`, []string{text}},
		"objects as JSON text":         {`[{"unit":"requests","max":60,"window":"minute"},"concurrent=1"]`, []string{"requests=60/minute", "concurrent=1"}},
		"JSON text in a list":          {[]any{`{"unit":"concurrent","max":3}`, "tokens=5/day"}, []string{"concurrent=3", "tokens=5/day"}},
		"an object":                    {object, []string{text}},
		"objects":                      {[]any{object, map[string]any{"limit": "requests=1/day"}}, []string{text, "requests=1/day"}},
		"money to the nano-dollar":     {"usd=0.000000001/total", []string{"usd=0.000000001/total"}},
		"money as a number":            {map[string]any{"unit": "usd", "max": 0.1, "window": "day"}, []string{"usd=0.1/day"}},
		"a window of its own length":   {"usd=1/30d", []string{"usd=1/30d"}},
		"nothing, as the CLI sends":    {"", nil},
		"nothing, in a list":           {[]any{""}, nil},
		"an empty list":                {[]any{}, nil},
		"an empty list as JSON":        {"[]", nil},
		"an amount that allows nought": {"requests=0/day", []string{"requests=0/day"}},
	} {
		t.Run(name, func(t *testing.T) {
			m.t = t
			for _, op := range []logical.Operation{logical.CreateOperation, logical.UpdateOperation, logical.PatchOperation} {
				role := map[string]any{"key": "a", "limits": "tokens=1/week"}
				if op == logical.CreateOperation {
					role["limits"] = c.given
				}
				m.delete("roles/r")
				m.write("roles/r", role)
				if op != logical.CreateOperation {
					m.must(op, "roles/r", map[string]any{"limits": c.given})
				}
				m.limitsAre("r", c.want...)
			}
		})
	}
}

func TestRoleLimits_BadOnesAreRefusedByNameAndStoreNothing(t *testing.T) {
	m := newRoleMount(t, Options{})
	m.write("roles/r", map[string]any{"key": "a", "limits": "usd=1/month", "note": "old"})
	seventeen := make([]any, 17)
	for i := range seventeen {
		seventeen[i] = fmt.Sprintf("requests=1/%dd", i+1)
	}
	for given, c := range map[string]struct {
		limits any
		says   []string
	}{
		"negative":                {"usd=-1/month", []string{"usd=-1", "usd=100/month"}},
		"beyond belief":           {"usd=1e30/month", []string{"1e30"}},
		"a part of a request":     {"requests=0.5/day", []string{"0.5", "requests=60/minute"}},
		"an unknown window":       {"usd=10/fortnight", []string{"fortnight", "month"}},
		"an unknown unit":         {"dollars=10/month", []string{"dollars", "usd"}},
		"a misspelt unit":         {"request=10/minute", []string{"request", "requests"}},
		"the same twice":          {[]any{"usd=1/month", "usd=2/month"}, []string{"usd=1/month", "usd=2/month"}},
		"an impossible glob":      {"usd=1/month on gpt 4", []string{"gpt 4"}},
		"no window":               {"usd=1", []string{"usd=1", "month"}},
		"a window too many":       {"concurrent=1/minute", []string{"concurrent"}},
		"no max":                  {"usd=/month", []string{"usd"}},
		"too many":                {seventeen, []string{"at most 16"}},
		"a number":                {5, []string{"limit 1", "usd=100/month"}},
		"broken JSON":             {`[{"unit":"usd"`, []string{"limits"}},
		"a misspelt member":       {map[string]any{"unit": "usd", "maximum": 1, "window": "day"}, []string{"maximum", "max"}},
		"an object without unit":  {map[string]any{"max": 1, "window": "day"}, []string{"unit"}},
		"one of several":          {[]any{"usd=1/month", "usd=1/moon"}, []string{"moon"}},
		"tenths of a nano-dollar": {"usd=0.0000000001/day", []string{"usd=0.0000000001"}},
	} {
		t.Run(given, func(t *testing.T) {
			m.t = t
			before := entries(t, m.storage)
			for _, op := range []logical.Operation{logical.UpdateOperation, logical.PatchOperation} {
				m.refused(op, "roles/r", map[string]any{"limits": c.limits, "note": "new"}, append(c.says, "limit")...)
			}
			m.refused(logical.UpdateOperation, "roles/new", map[string]any{"key": "a", "limits": c.limits}, c.says...)
			if now := entries(t, m.storage); !reflect.DeepEqual(now, before) {
				t.Errorf("refused, yet storage changed: %v", now)
			}
		})
	}
	m.t = t
	m.limitsAre("r", "usd=1/month")
}

// 19. A misspelt budget field is ignored.
func TestOthersFail19_AMisspeltFieldIsRefused(t *testing.T) {
	m := newRoleMount(t, Options{})
	m.write("roles/r", map[string]any{"key": "a"})
	for name, hint := range map[string]string{
		"limit": "limits", "Limits": "limits", "limts": "limits", "max_budget": "", "enforcment": "enforcement", "allow_unbound": "allow_unbounded",
		"alert_treshold": "alert_thresholds", "min_output_token": "min_output_tokens", "lowercap": "lower_cap",
	} {
		for _, op := range []logical.Operation{logical.UpdateOperation, logical.PatchOperation} {
			want := []string{fmt.Sprintf("%q", name)}
			if hint != "" {
				want = append(want, fmt.Sprintf("did you mean %q?", hint))
			}
			m.refused(op, "roles/r", map[string]any{name: "usd=1/month"}, want...)
		}
	}
	m.refused(logical.UpdateOperation, "usage/r/reset", map[string]any{"limits": "usd/month"}, `did you mean "limit"?`)
	m.refused(logical.UpdateOperation, "usage/r/write-off", map[string]any{"unconfirm": true}, `did you mean "unconfirmed"?`)
}

func limitDefaults() map[string]any {
	return map[string]any{
		"limits": []string{}, "enforcement": "hard", "min_output_tokens": 0, "lower_cap": true, "allow_unbounded": false, "allow_unmetered": false,
		"alert_thresholds": []int{80, 95},
	}
}

func TestRoleLimits_FieldsAreStoredSurviveARestartAndNullRestoresTheDefault(t *testing.T) {
	m := newRoleMount(t, Options{})
	m.write("roles/r", map[string]any{"key": "a"})
	wantFields(t, m.read("roles/r"), limitDefaults())
	given := map[string]any{
		"limits": []any{"usd=1/month", "requests=2/30d"}, "enforcement": "soft", "min_output_tokens": 7, "lower_cap": false,
		"allow_unbounded": true, "allow_unmetered": true, "alert_thresholds": []int{50, 100},
	}
	m.write("roles/r", given)
	m.write("roles/r", map[string]any{"note": "n"}) // leaves them alone
	m.patch("roles/r", map[string]any{"note": "m"})
	wantFields(t, m.read("roles/r"), given)
	wantFields(t, newMountOn(t, Options{}, m.storage).read("roles/r"), given)
	for field := range given {
		m.patch("roles/r", map[string]any{field: nil})
		want := map[string]any{field: limitDefaults()[field]}
		wantFields(t, m.read("roles/r"), want)
		m.refused(logical.UpdateOperation, "roles/r", map[string]any{field: nil}, field, "null")
	}
	wantFields(t, m.read("roles/r"), limitDefaults())
}

func TestRoleLimits_ValuesOfTheOtherFieldsAreReadLenientlyAndChecked(t *testing.T) {
	for name, c := range map[string]struct {
		field string
		given any
		want  any    // what is read then, or
		error string // what the refusal says
	}{
		"capitals":                  {"enforcement", " Soft ", "soft", ""},
		"nothing is the default":    {"enforcement", "", "hard", ""},
		"neither":                   {"enforcement", "firm", nil, `"firm" is neither hard nor soft`},
		"a half":                    {"min_output_tokens", 0.5, nil, "min_output_tokens must be a whole number"},
		"a number as text":          {"min_output_tokens", "300", 300, ""},
		"negative":                  {"min_output_tokens", -1, nil, "min_output_tokens is -1"},
		"too many":                  {"min_output_tokens", maxOutputCap + 1, nil, "min_output_tokens is"},
		"no number":                 {"min_output_tokens", "some", nil, "min_output_tokens must be a whole number"},
		"true as text":              {"allow_unbounded", "true", true, ""},
		"no truth":                  {"allow_unmetered", "maybe", nil, "allow_unmetered must be true or false"},
		"no truth either":           {"lower_cap", []any{1}, nil, "lower_cap must be true or false"},
		"text with commas":          {"alert_thresholds", "50,80", []int{50, 80}, ""},
		"unsorted and twice":        {"alert_thresholds", []any{90, "50", 90}, []int{50, 90}, ""},
		"none":                      {"alert_thresholds", 0, []int{}, ""},
		"none, empty":               {"alert_thresholds", "", []int{}, ""},
		"above a hundred":           {"alert_thresholds", "80,101", nil, "101 is no percentage from 1 to 100"},
		"below nothing":             {"alert_thresholds", "-5", nil, "-5 is no percentage"},
		"a percent sign":            {"alert_thresholds", "80%", nil, "alert_thresholds must be a list of whole numbers"},
		"a fraction":                {"alert_thresholds", "0.8", nil, "alert_thresholds must be a list of whole numbers"},
		"a fraction that's no text": {"alert_thresholds", []any{0.8}, nil, "alert_thresholds must be a list of whole numbers"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newRoleMount(t, Options{})
			for _, op := range []logical.Operation{logical.UpdateOperation, logical.PatchOperation} {
				m.write("roles/r", map[string]any{"key": "a", "enforcement": "hard", "min_output_tokens": 9, "alert_thresholds": "1", "lower_cap": true})
				before := m.read("roles/r")
				if c.error == "" {
					m.must(op, "roles/r", map[string]any{c.field: c.given})
					wantFields(t, m.read("roles/r"), map[string]any{c.field: c.want})
					continue
				}
				m.refused(op, "roles/r", map[string]any{c.field: c.given, "note": "new"}, c.error)
				if now := m.read("roles/r"); !reflect.DeepEqual(now, before) {
					t.Errorf("refused, yet %v", now)
				}
			}
		})
	}
}

func TestRoleLimits_WriteAndPatchReplaceTheListAndSayWhatWent(t *testing.T) {
	m := newRoleMount(t, Options{})
	for _, op := range []logical.Operation{logical.UpdateOperation, logical.PatchOperation} {
		m.write("roles/r", map[string]any{"key": "a", "limits": []any{"usd=1/month", "requests=5/day", "concurrent=3"}})
		resp := m.must(op, "roles/r", map[string]any{"limits": []any{"usd=2/month", "tokens=9/day"}})
		wantWarning(t, resp, "the limit requests=5/day is gone", "the limit concurrent=3 is gone")
		if text := strings.Join(resp.Warnings, "\n"); strings.Contains(text, "usd") {
			t.Errorf("a new max is no limit that went: %s", text)
		}
		m.limitsAre("r", "usd=2/month", "tokens=9/day")
		wantWarning(t, m.must(op, "roles/r", map[string]any{"limits": ""}), "the limit usd=2/month is gone", "the limit tokens=9/day is gone")
		if resp := m.must(op, "roles/r", map[string]any{"note": fmt.Sprint(op)}); resp != nil && len(resp.Warnings) > 0 {
			t.Errorf("warned of %v", resp.Warnings)
		}
	}
	m.write("roles/r", map[string]any{"limits": "usd=2/month"})
	wantWarning(t, m.patch("roles/r", map[string]any{"limits": nil}), "the limit usd=2/month is gone")
}

func TestRoleLimits_OddOnesAreWarnedOf(t *testing.T) {
	m := newRoleMount(t, Options{})
	wantWarning(t, m.write("roles/r", map[string]any{"key": "a", "limits": []any{"usd=0/month"}}), "the limit usd=0/month allows nothing")
	wantWarning(t, m.write("roles/r", map[string]any{"models": "gpt-4o*", "limits": "usd=1/month on o3"}), "usd=1/month on o3", "isn't among those allowed (gpt-4o*)")
	for _, models := range []string{"gpt-4o*", "GPT-4o-mini", "*"} {
		for _, limit := range []string{"usd=1/month on gpt-4o-mini", "usd=1/month on GPT-4o-mini", "usd=1/month on gpt*"} {
			m.delete("roles/r")
			if resp := m.write("roles/r", map[string]any{"key": "a", "models": models, "limits": limit}); resp != nil {
				t.Errorf("%s with models %s: %v", limit, models, resp.Warnings)
			}
		}
	}
	m.system.ReplicationStateVal = consts.ReplicationPerformancePrimary
	wantWarning(t, m.write("roles/replicated", map[string]any{"key": "a"}), "its own count of every limit")
}

// resets is when the only limit of a role resets.
func (m *mount) resets(role string) string {
	m.t.Helper()
	rows := m.limitRows(role, nil)
	if len(rows) != 1 {
		m.t.Fatalf("rows %v", rows)
	}
	return rows[0]["resets_at"].(string)
}

func TestRoleLimits_AWindowOfItsOwnLengthCountsFromWhenItWasMade(t *testing.T) {
	const day = 24 * time.Hour
	c := newClock() // 2026-05-01 12:00
	m := newRoleMount(t, Options{Now: c.now})
	m.write("roles/r", map[string]any{"key": "a", "limits": "usd=1/30d"})
	const first = "2026-05-31T12:00:00Z"
	want := func(when, at string) {
		t.Helper()
		if got := m.resets("r"); got != at {
			t.Errorf("%s: it resets at %s, want %s", when, got, at)
		}
	}
	want("new", first)
	c.advance(10 * day)
	m.write("roles/r", map[string]any{"limits": "usd=2/30d"})
	want("with another max", first)
	m.patch("roles/r", map[string]any{"limits": []any{"usd=3/30d"}})
	want("with another max by PATCH", first)
	m.write("roles/r", map[string]any{"note": "n"})
	m.patch("roles/r", map[string]any{"note": "m"})
	want("after other changes", first)
	m.write("roles/r", map[string]any{"limits": ""})
	c.advance(5 * day)
	m.write("roles/r", map[string]any{"note": "o"})
	m.write("roles/r", map[string]any{"limits": "usd=1/30d"})
	want("removed and added again", first)
	m.patch("roles/r", map[string]any{"limits": nil})
	c.advance(5 * day)
	m.patch("roles/r", map[string]any{"limits": "usd=1/30d"})
	want("removed by null and added again", first)
	m.write("roles/r", map[string]any{"limits": "usd=1/30d on gpt-*"})
	want("another limit", "2026-06-20T12:00:00Z")
	m.write("roles/r", map[string]any{"limits": "usd=1/30d"})
	want("the first again", first)
	again := newMountOn(t, Options{Now: c.now}, m.storage)
	if got := again.resets("r"); got != first {
		t.Errorf("after a restart it resets at %s", got)
	}
	m = again
	c.advance(11 * day) // one day into the second window
	want("in the second window", "2026-06-30T12:00:00Z")
	m.write("roles/r", map[string]any{"limits": ""})
	c.advance(40 * day) // its window has ended meanwhile
	m.write("roles/r", map[string]any{"limits": "usd=1/30d"})
	want("added again after its window ended", "2026-08-10T12:00:00Z")
}

func TestRoleLimits_WhatIsKeptOfOldWindowsIsBounded(t *testing.T) {
	m := newRoleMount(t, Options{Now: newClock().now})
	m.write("roles/r", map[string]any{"key": "a"})
	for i := range 3 * maxRetired {
		m.write("roles/r", map[string]any{"limits": fmt.Sprintf("usd=1/30d on m%d", i)})
	}
	r, err := m.roles.get(t.Context(), m.storage, "r")
	if err != nil || len(r.Retired) != maxRetired {
		t.Fatalf("%d are kept, %v", len(r.Retired), err)
	}
	if newest := r.Retired[maxRetired-1].ID; newest != fmt.Sprintf("usd/30d on m%d", 3*maxRetired-2) {
		t.Errorf("the newest that is kept is %s", newest)
	}
}

func TestRoleLimits_ChangesHoldOnTheNextRequest(t *testing.T) {
	m, up, _ := newLimitedMount(t, "requests=1/day")
	m.chat("r", "m").want(t, http.StatusOK, "")
	m.chat("r", "m").want(t, http.StatusPaymentRequired, "budget_exceeded")
	m.write("roles/r", map[string]any{"limits": "requests=2/day"})
	m.chat("r", "m").want(t, http.StatusOK, "")
	m.chat("r", "m").want(t, http.StatusPaymentRequired, "budget_exceeded")
	m.patch("roles/r", map[string]any{"limits": nil})
	m.chat("r", "m").want(t, http.StatusOK, "")
	m.write("roles/r", map[string]any{"limits": "usd=0/total"})
	m.chat("r", "m").want(t, http.StatusForbidden, "request_exceeds_limit")
	m.write("roles/r", map[string]any{"limits": "tokens=1000000/day"})
	m.proxyAs("", "r", "v1/images/generations", map[string]any{"model": "m", "prompt": "a cat"}).want(t, http.StatusForbidden, "route_not_metered")
	m.write("roles/r", map[string]any{"allow_unmetered": true})
	m.proxyAs("", "r", "v1/images/generations", map[string]any{"model": "m", "prompt": "a cat"}).want(t, http.StatusOK, "")
	search := map[string]any{"model": "m", "web_search_options": map[string]any{}, "messages": []any{}}
	m.proxyAs("", "r", "v1/chat/completions", search).want(t, http.StatusForbidden, "cost_unbounded")
	m.write("roles/r", map[string]any{"allow_unbounded": true, "limits": "tokens=10000000/day"})
	m.proxyAs("", "r", "v1/chat/completions", search).want(t, http.StatusOK, "")
	if n := len(up.requests()); n != 5 {
		t.Errorf("%d requests were sent", n)
	}
}

func TestRoleLimits_SoftOnesOnlyCountUntilTheMaxIsUsed(t *testing.T) {
	m, up, _ := newLimitedMount(t, "usd=0.0025/month", "concurrent=9")
	m.chat("r", "m").want(t, http.StatusForbidden, "request_exceeds_limit")
	m.write("roles/r", map[string]any{"enforcement": "soft"})
	for range 2 { // 0.002 USD each
		m.chat("r", "m").want(t, http.StatusOK, "")
		wantJSON(t, up.last(t).Body, chatBody("m"))
	}
	m.chat("r", "m").want(t, http.StatusPaymentRequired, "budget_exceeded")
}

func TestRoleLimits_SayHowFarACapIsLowered(t *testing.T) {
	m, up, _ := newLimitedMount(t, "output_tokens=1000/day")
	m.write("config", map[string]any{"default_output_cap": 700})
	up.answer = usageAnswer(1, 600)
	m.chat("r", "m").want(t, http.StatusOK, "")
	for _, refusing := range []map[string]any{{"lower_cap": false}, {"min_output_tokens": 401}} {
		m.write("roles/r", refusing)
		m.chat("r", "m").want(t, http.StatusPaymentRequired, "budget_exceeded")
		m.patch("roles/r", map[string]any{"lower_cap": nil, "min_output_tokens": nil})
	}
	m.write("roles/r", map[string]any{"min_output_tokens": 400})
	m.chat("r", "m").want(t, http.StatusOK, "")
	if sent := up.last(t).Body; !strings.Contains(sent, `"max_completion_tokens":400`) {
		t.Errorf("sent %s", sent)
	}
}

func TestRoleLimits_WindowsOfTheCalendarBeginInTheConfiguredZone(t *testing.T) {
	m, _, _ := newLimitedMount(t, "requests=1/day")
	m.write("config", map[string]any{"time_zone": "Asia/Kolkata"})
	m.chat("r", "m").want(t, http.StatusOK, "")
	answer := m.chat("r", "m")
	answer.want(t, http.StatusPaymentRequired, "budget_exceeded")
	const midnight = "2026-05-01T18:30:00Z"
	if got := m.resets("r"); got != midnight || !strings.Contains(answer.Body, midnight) {
		t.Errorf("it resets at %s, and the caller is told %s", got, answer.Body)
	}
	if row := rowsOf(t, m.write("usage/r/reset", nil))[0]; row["resets_at"] != midnight {
		t.Errorf("after the reset %v", row)
	}
	m.chat("r", "m").want(t, http.StatusOK, "")
}

// 21. Editing a limit resets its use.
func TestOthersFail21_ANewMaxKeepsWhatWasUsed(t *testing.T) {
	m, _, _ := newLimitedMount(t, "usd=1/month", "requests=10/minute", "tokens=100000/30d")
	m.chat("r", "m").want(t, http.StatusOK, "")
	before := m.limitRows("r", nil)
	for _, op := range []logical.Operation{logical.UpdateOperation, logical.PatchOperation} {
		m.must(op, "roles/r", map[string]any{"limits": ""})
		m.must(op, "roles/r", map[string]any{"limits": []any{"usd=2/month", "requests=20/minute", "tokens=200000/30d"}})
		m.must(op, "roles/r", map[string]any{"limits": []any{"usd=1/month", "requests=10/minute", "tokens=100000/30d"}})
		if now := m.limitRows("r", nil); !reflect.DeepEqual(now, before) || now[0]["used"] != "0.002" {
			t.Errorf("now %v\nwas %v", now, before)
		}
	}
}

func TestRoleLimits_ARoleThatIsMadeAnewStartsAnew(t *testing.T) {
	m, _, _ := newLimitedMount(t, "usd=1/month", "requests=1/day", "concurrent=1")
	m.chat("r", "m").want(t, http.StatusOK, "")
	m.chat("r", "m").want(t, http.StatusPaymentRequired, "budget_exceeded")
	m.delete("roles/r")
	m.write("roles/r", map[string]any{"key": "a", "limits": []any{"usd=1/month", "requests=1/day"}})
	for _, row := range m.limitRows("r", nil) {
		if row["used"] != "0" && row["used"] != 0.0 {
			t.Errorf("%v", row)
		}
	}
	m.chat("r", "m").want(t, http.StatusOK, "")
	m.chat("r", "m").want(t, http.StatusPaymentRequired, "budget_exceeded")
}

// 18. A deleted or disabled key still works from a cache.
func TestOthersFail18_ADeletedOrDisabledRoleIsRefusedAtOnceAndCountsNothing(t *testing.T) {
	m, up, _ := newLimitedMount(t, "requests=10/day")
	m.chat("r", "m").want(t, http.StatusOK, "")
	m.patch("roles/r", map[string]any{"enabled": false})
	m.chat("r", "m").want(t, http.StatusForbidden, "virtual_key_disabled")
	if used := m.limitRows("r", nil)[0]["used"]; used != 1.0 {
		t.Errorf("%v requests are counted", used)
	}
	m.delete("roles/r")
	m.chat("r", "m").want(t, http.StatusNotFound, "virtual_key_not_found")
	if n := len(up.requests()); n != 1 {
		t.Errorf("%d requests were sent", n)
	}
}

func TestRoleLimits_ListShowsAtAGlanceWhatIsNearlySpent(t *testing.T) {
	m, _, _ := newLimitedMount(t, "usd=0.01/month", "requests=50/day", "concurrent=1", "tokens=1000000/day per entity")
	for range 4 { // 0.008 USD
		m.capped("", "r").want(t, http.StatusOK, "")
	}
	m.write("roles/unlimited", map[string]any{"key": "a"})
	m.write("roles/unused", map[string]any{"key": "a", "limits": []any{"requests=5/day", "concurrent=2"}})
	m.write("roles/closed", map[string]any{"key": "a", "limits": []any{"requests=5/day", "concurrent=0", "usd=0/month"}})
	info := overJSON(t, m.must(logical.ListOperation, "roles/", nil).Data["key_info"].(map[string]any))
	for role, want := range map[string]map[string]any{
		"r":         {"limits": "usd=0.01/month; requests=50/day; concurrent=1; tokens=1000000/day per entity", "nearest_limit": "usd=0.01/month: 80% used"},
		"unlimited": {"limits": "", "nearest_limit": ""},
		"unused":    {"limits": "requests=5/day; concurrent=2", "nearest_limit": "requests=5/day: 0% used"},
		"closed":    {"nearest_limit": "usd=0/month: 100% used"},
	} {
		wantFields(t, info[role].(map[string]any), want)
	}
}

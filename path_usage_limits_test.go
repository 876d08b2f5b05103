// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

// newLimitedMount has the virtual key r with these limits, on a provider whose
// answers cost 0.002 USD each: 1,000 tokens in at 1 USD a million, 100 out at 10.
func newLimitedMount(t *testing.T, limits ...any) (*mount, *upstream, *clock) {
	t.Helper()
	return newLimitedMountOn(t, &logical.InmemStorage{}, limits...)
}

func newLimitedMountOn(t *testing.T, storage logical.Storage, limits ...any) (*mount, *upstream, *clock) {
	t.Helper()
	m, up, c := newPricedMount(t, storage)
	m.write("prices/openai/m", map[string]any{"input": 1, "output": 10})
	m.write("roles/r", map[string]any{"limits": limits})
	return m, up, c
}

// capped is a chat that can cost little more than its answer does.
func (m *mount) capped(entity, role string) inlineAnswer {
	m.t.Helper()
	body := chatBody("m")
	body["max_tokens"] = 150
	return m.proxyAs(entity, role, "v1/chat/completions", body)
}

// limitRows is what usage shows of a role's limits.
func (m *mount) limitRows(role string, query map[string]any) []map[string]any {
	m.t.Helper()
	return rowsOf(m.t, m.must(logical.ReadOperation, "usage/"+role, query))
}

func rowsOf(t *testing.T, resp *logical.Response) []map[string]any {
	t.Helper()
	list, isList := overJSON(t, resp.Data)["limits"].([]any)
	if !isList {
		t.Fatalf("no limits in %v", resp.Data)
	}
	rows := make([]map[string]any, len(list))
	for i := range list {
		rows[i] = list[i].(map[string]any)
	}
	return rows
}

func TestUsageLimits_ARowSaysWhatIsUsedReservedAndLeft(t *testing.T) {
	m, up, _ := newLimitedMount(t, "usd=1/month", "requests=10/minute", "tokens=100000/total", "concurrent=3")
	m.capped("", "r").want(t, http.StatusOK, "")
	arrived, release := make(chan struct{}), make(chan struct{})
	up.answer = func(*http.Request) (*http.Response, error) {
		close(arrived)
		<-release
		return nil, fmt.Errorf("reset")
	}
	done := make(chan struct{})
	go func() { defer close(done); m.capped("", "r") }()
	<-arrived
	const held = 115 + 150 // tokens: a token a byte of messages, what frames them, and the cap
	row := func(limit, unit string, most, used, reserved, remaining any, resets, percent string) map[string]any {
		zero := any(0)
		if unit == "usd" {
			zero = "0"
		}
		return overJSON(t, map[string]any{
			"limit": limit, "unit": unit, "max": most, "used": used, "reserved": reserved, "remaining": remaining,
			"unconfirmed": zero, "unattributed": zero, "exceeded": zero, "resets_at": resets, "percent_used": percent,
		})
	}
	// What was used above the reservation of the first request is told.
	rows := m.limitRows("r", nil)
	over, overTokens := rows[0]["exceeded"], rows[2]["exceeded"]
	rows[0]["exceeded"], rows[2]["exceeded"] = "0", 0.0
	want := []map[string]any{
		row("usd=1/month", "usd", "1", "0.002", "0.001615", "0.996385", "2026-06-01T00:00:00Z", "0%"),
		row("requests=10/minute", "requests", 10, 1, 1, 8, "", "10%"),
		row("tokens=100000/total", "tokens", 100_000, 1100, held, 100_000-1100-held, "", "1%"),
		row("concurrent=3", "concurrent", 3, 0, 1, 2, "", "0%"),
	}
	for i := range want {
		if !reflect.DeepEqual(rows[i], want[i]) {
			t.Errorf("row\n%v, want\n%v", rows[i], want[i])
		}
	}
	if over != "0.000385" || overTokens != 1100.0-held {
		t.Errorf("exceeded by %v and %v", over, overTokens)
	}
	close(release)
	<-done
	rows = m.limitRows("r", nil)
	wantFields(t, rows[0], map[string]any{"used": "0.003615", "unconfirmed": "0.001615", "reserved": "0"})
	wantFields(t, rows[3], map[string]any{"used": 0, "reserved": 0, "remaining": 3})
	total, _ := m.usageOf("usage/r", nil)
	wantFields(t, total, map[string]any{"cost_usd": "0.003615", "unconfirmed_usd": "0.001615"})
	if text := m.metricsText(); !strings.Contains(text, `portkey_bound_exceeded_total{model="m",role="r"} 1`) {
		t.Errorf("the metric doesn't say so: %s", text)
	}
}

func TestUsageLimits_EntitiesAreShownApart(t *testing.T) {
	m, _, _ := newLimitedMount(t, "usd=1/month", "usd=0.5/month per entity", "requests=3/day per entity")
	for entity, calls := range map[string]int{"e-1": 1, "e-2": 2, "": 3} {
		for range calls {
			m.capped(entity, "r").want(t, http.StatusOK, "")
		}
	}
	m.capped("", "r").want(t, http.StatusPaymentRequired, "budget_exceeded")
	used := func(query map[string]any) map[string]any {
		all := map[string]any{}
		for _, row := range m.limitRows("r", query) {
			all[fmt.Sprint(row["entity"], " ", row["limit"])] = row["used"]
		}
		return all
	}
	const shared, money, requests = "<nil> usd=1/month", " usd=0.5/month per entity", " requests=3/day per entity"
	all := map[string]any{
		shared: "0.012", "e-1" + money: "0.002", "e-1" + requests: 1.0, "e-2" + money: "0.004", "e-2" + requests: 2.0, "none" + money: "0.006", "none" + requests: 3.0,
	}
	if got := used(nil); !reflect.DeepEqual(got, all) {
		t.Errorf("all: %v", got)
	}
	if got := used(map[string]any{"entity": "e-2"}); !reflect.DeepEqual(got, map[string]any{shared: "0.012", "e-2" + money: "0.004", "e-2" + requests: 2.0}) {
		t.Errorf("of one: %v", got)
	}
	if got := used(map[string]any{"entity": "none"}); !reflect.DeepEqual(got, map[string]any{shared: "0.012", "none" + money: "0.006", "none" + requests: 3.0}) {
		t.Errorf("of callers without one: %v", got)
	}
	if got := used(map[string]any{"entity": "e-9"}); got["e-9"+money] != "0" {
		t.Errorf("of one that never called: %v", got)
	}
	for _, bad := range []string{"e/1", "a b", strings.Repeat("e", maxNameLen+1)} {
		m.refused(logical.ReadOperation, "usage/r", map[string]any{"entity": bad}, "entity")
	}
	m.write("usage/r/reset", map[string]any{"entity": "e-2", "limit": "requests/day per entity"})
	all["e-2"+requests] = 0.0
	if got := used(nil); !reflect.DeepEqual(got, all) {
		t.Errorf("after the reset of one of an entity's: %v", got)
	}
	m.write("usage/r/reset", map[string]any{"entity": "none"})
	delete(all, "none"+money) // nothing stands on them
	delete(all, "none"+requests)
	if got := used(nil); !reflect.DeepEqual(got, all) {
		t.Errorf("after the reset of those without an entity: %v", got)
	}
	m.capped("", "r").want(t, http.StatusOK, "")
}

func TestUsageLimits_ManyEntitiesAreCutShortWithAWarning(t *testing.T) {
	m, _, _ := newLimitedMount(t, "requests=5/day per entity")
	for i := range shownEntities + 3 {
		m.capped(fmt.Sprint("e-", i), "r").want(t, http.StatusOK, "")
	}
	resp := m.must(logical.ReadOperation, "usage/r", nil)
	wantWarning(t, resp, fmt.Sprintf("%d entities have counts of their own, of which %d are shown", shownEntities+3, shownEntities), "entity=<id>")
	if n := len(rowsOf(t, resp)); n != shownEntities {
		t.Errorf("%d rows", n)
	}
}

// 7. The stored figure resets and the one in memory doesn't, or the other way
// round.
func TestOthersFail07_AResetHoldsInMemoryAndInStorage(t *testing.T) {
	m, _, _ := newLimitedMount(t, "requests=1/day", "usd=1/month", "requests=9/minute")
	m.chat("r", "m").want(t, http.StatusOK, "")
	m.chat("r", "m").want(t, http.StatusPaymentRequired, "budget_exceeded")
	rows := rowsOf(t, m.write("usage/r/reset", map[string]any{"limit": "requests=1/day"}))
	if len(rows) != 1 || rows[0]["limit"] != "requests=1/day" || rows[0]["used"] != 0.0 {
		t.Errorf("answered %v", rows)
	}
	crashed := newMountOn(t, Options{Now: m.now, Transport: m.transport}, copyOf(t, m.storage))
	if row := crashed.limitRows("r", nil)[0]; row["used"] != 0.0 {
		t.Errorf("storage says %v", row)
	}
	if row := m.limitRows("r", nil)[1]; row["used"] != "0.002" {
		t.Errorf("another limit was reset: %v", row)
	}
	m.chat("r", "m").want(t, http.StatusOK, "")
	m.chat("r", "m").want(t, http.StatusPaymentRequired, "budget_exceeded")
	for _, row := range rowsOf(t, m.write("usage/r/reset", nil)) {
		if row["used"] != 0.0 && row["used"] != "0" {
			t.Errorf("after the reset of all: %v", row)
		}
	}
	total, _ := m.usageOf("usage/r", nil)
	wantFields(t, total, map[string]any{"requests": 2, "cost_usd": "0.004"})
}

func TestUsageLimits_SelectionsThatMeanNothingAreRefused(t *testing.T) {
	m, _, _ := newLimitedMount(t, "usd=1/month", "requests=5/day per entity")
	m.write("roles/none", map[string]any{"key": "a"})
	m.write("roles/shared", map[string]any{"key": "a", "limits": "usd=1/month"})
	m.write("roles/apart", map[string]any{"key": "a", "limits": "usd=1/month per entity"})
	m.capped("", "r").want(t, http.StatusOK, "")
	before := m.limitRows("r", nil)
	for _, path := range []string{"reset", "write-off"} {
		for _, c := range []struct {
			role string
			data map[string]any
			says []string
		}{
			{"r", map[string]any{"limit": "usd/week"}, []string{`"usd/week"`, "usd=1/month, requests=5/day per entity"}},
			{"r", map[string]any{"limit": "everything"}, []string{`"everything"`}},
			{"r", map[string]any{"limit": "requests/day per entity"}, []string{"counts each entity apart", "entity=<id>"}},
			{"r", map[string]any{"limit": "usd/month", "entity": "e-1"}, []string{"shared by all callers"}},
			{"r", map[string]any{"entity": "e/1"}, []string{"no entity's id"}},
			{"r", map[string]any{"unknown": 1}, []string{"unknown field"}},
			{"none", nil, []string{"no limits"}},
			{"none", map[string]any{"limit": "usd/month"}, []string{"no limit"}},
			{"shared", map[string]any{"entity": "e-1"}, []string{"leave entity out"}},
			{"apart", nil, []string{"entity=<id>"}},
			{"nobody", nil, []string{"no such entry"}},
		} {
			m.refused(logical.UpdateOperation, "usage/"+c.role+"/"+path, c.data, c.says...)
		}
	}
	m.refused(logical.UpdateOperation, "usage/r/write-off", map[string]any{"unconfirmed": "maybe"}, "unconfirmed must be true or false")
	if now := m.limitRows("r", nil); !reflect.DeepEqual(now, before) {
		t.Errorf("now %v\nwas %v", now, before)
	}
}

func TestUsageLimits_ALimitIsNamedByItsTextOrItsIdentity(t *testing.T) {
	m, _, _ := newLimitedMount(t, "usd=1/month on M*", "concurrent=4")
	for _, name := range []string{"usd=1/month on m*", "usd=99/month on m*", "usd/month on m*", " usd/month  on m* ", "USD=5/month on M*"} {
		m.capped("", "r").want(t, http.StatusOK, "")
		if rows := rowsOf(t, m.write("usage/r/reset", map[string]any{"limit": name})); len(rows) != 1 || rows[0]["used"] != "0" {
			t.Errorf("%q: %v", name, rows)
		}
	}
}

func TestUsageLimits_WriteOffTakesOutWhatIsUnconfirmedIfAsked(t *testing.T) {
	m, up, _ := newLimitedMount(t, "usd=1/month", "requests=5/day")
	m.capped("", "r").want(t, http.StatusOK, "")
	up.answer = unreachable // after it has read the request
	m.capped("", "r").want(t, http.StatusBadGateway, "upstream_unreachable")
	wantFields(t, m.limitRows("r", nil)[0], map[string]any{"used": "0.003615", "unconfirmed": "0.001615", "unattributed": "0"})
	for _, data := range []map[string]any{nil, {"unconfirmed": false}} {
		wantFields(t, rowsOf(t, m.write("usage/r/write-off", data))[0], map[string]any{"used": "0.003615", "unconfirmed": "0.001615"})
	}
	rows := rowsOf(t, m.write("usage/r/write-off", map[string]any{"unconfirmed": true, "limit": "usd/month"}))
	wantFields(t, rows[0], map[string]any{"used": "0.002", "unconfirmed": "0"})
	wantFields(t, m.limitRows("r", nil)[1], map[string]any{"used": 2, "unconfirmed": 1})
}

// Policies name paths, so what they are to tell apart are paths of their own.
func TestUsageLimits_PoliciesCanTellReadingResettingAndWritingOffApart(t *testing.T) {
	m, _, _ := newLimitedMount(t, "usd=1/month")
	operations := map[string][]logical.Operation{
		"usage/r": {logical.ReadOperation}, "usage/r/reset": {logical.UpdateOperation}, "usage/r/write-off": {logical.UpdateOperation},
	}
	patterns := map[string]bool{}
	for path, want := range operations {
		route := m.Route(path)
		patterns[route.Pattern] = true
		for op := range route.Operations {
			if op != want[0] {
				t.Errorf("%s takes %s too", path, op)
			}
		}
		for _, op := range []logical.Operation{logical.ReadOperation, logical.UpdateOperation, logical.DeleteOperation} {
			if op == want[0] {
				continue
			}
			if _, err := m.HandleRequest(t.Context(), &logical.Request{Operation: op, Path: path, Storage: m.storage, MountPoint: "portkey/"}); err == nil {
				t.Errorf("%s of %s was accepted", op, path)
			}
		}
	}
	if len(patterns) != len(operations) {
		t.Errorf("the patterns are %v", patterns)
	}
}

func TestUsageLimits_TheUsageOfADeletedRoleIsStillRead(t *testing.T) {
	m, _, _ := newLimitedMount(t, "usd=1/month")
	m.capped("", "r").want(t, http.StatusOK, "")
	m.delete("roles/r")
	total, _ := m.usageOf("usage/r", nil)
	wantFields(t, total, map[string]any{"requests": 1, "cost_usd": "0.002"})
	if rows := m.limitRows("r", nil); len(rows) != 0 {
		t.Errorf("limits of a role that is gone: %v", rows)
	}
	for _, path := range []string{"reset", "write-off"} {
		resp, err := m.call(logical.UpdateOperation, "usage/r/"+path, nil)
		coded, isCoded := err.(logical.HTTPCodedError)
		if !isCoded || coded.Code() != http.StatusNotFound {
			t.Errorf("%s: %v %v", path, resp, err)
		}
	}
}

func TestUsageLimits_TheCallerSeesThatItsCapWasLowered(t *testing.T) {
	m, up, _ := newLimitedMount(t, "output_tokens=1000/day")
	m.write("config", map[string]any{"default_output_cap": 700})
	answer := m.chat("r", "m") // 100 of 1,000
	answer.want(t, http.StatusOK, "")
	if got := answer.Header["X-Portkey-Capped"]; !reflect.DeepEqual(got, []string{"700"}) || !strings.Contains(up.last(t).Body, `"max_completion_tokens":700`) {
		t.Errorf("header %v, sent %s", got, up.last(t).Body)
	}
	up.answer = usageAnswer(1, 500)
	m.chat("r", "m").want(t, http.StatusOK, "") // 600 of 1,000
	resp := m.write("proxy/r", map[string]any{"model": "m", "prompt": "Hello", "max_tokens": 600})
	wantWarning(t, resp, "a cap of 400 output tokens")
	m.write("roles/r", map[string]any{"limits": ""})
	if resp := m.write("proxy/r", map[string]any{"model": "m", "prompt": "Hello"}); len(resp.Warnings) != 0 {
		t.Errorf("warned of %v", resp.Warnings)
	}
}

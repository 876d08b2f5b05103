// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-portkey/internal/price"
)

// usageOf reads usage with this query.
func (m *mount) usageOf(path string, query map[string]any) (total map[string]any, rows []map[string]any) {
	m.t.Helper()
	resp := m.must(logical.ReadOperation, path, query)
	data := overJSON(m.t, resp.Data)
	total, _ = data["total"].(map[string]any)
	list, isList := data["rows"].([]any)
	if total == nil || !isList {
		m.t.Fatalf("%s answered %v", path, data)
	}
	for _, row := range list {
		rows = append(rows, row.(map[string]any))
	}
	return total, rows
}

// set makes the clock show t.
func (c *clock) set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = t
}

func TestUsage_CountsWhatWasUsedAndWhatItCost(t *testing.T) {
	m, up, _ := newPricedMount(t, &logical.InmemStorage{})
	m.write("prices/openai/m", map[string]any{"input": 1, "cache_read": "0.5", "output": 10})
	up.answer = func(*http.Request) (*http.Response, error) {
		return answerWith(http.StatusOK, "application/json", `{"choices":[{"message":{"content":"Hi"}}],"usage":{"prompt_tokens":1000,"completion_tokens":100,`+
			`"prompt_tokens_details":{"cached_tokens":400},"completion_tokens_details":{"reasoning_tokens":30}}}`), nil
	}
	m.chat("r", "m").want(t, http.StatusOK, "")
	m.chat("r", "m").want(t, http.StatusOK, "")
	want := map[string]any{
		"requests": 2, "failed": 0, "refused": 0, "input_tokens": 2000, "cached_tokens": 800, "output_tokens": 200, "reasoning_tokens": 60,
		"cost_usd": "0.0036", "unconfirmed": 0, "unconfirmed_usd": "0", "estimated": 0, "estimated_usd": "0", "unpriced": 0,
	}
	total, rows := m.usageOf("usage/r", nil)
	if len(rows) != 1 || len(total) != len(want) {
		t.Fatalf("total %v, rows %v", total, rows)
	}
	wantFields(t, total, want)
	wantFields(t, rows[0], want)
	wantFields(t, rows[0], map[string]any{"day": "2026-05-01", "model": "m"})
	if len(rows[0]) != len(want)+2 {
		t.Errorf("the row tells more than was asked: %v", rows[0])
	}
}

func TestUsage_EachEndingShowsAsSuch(t *testing.T) {
	m, up, _ := newPricedMount(t, &logical.InmemStorage{})
	m.write("prices/openai/m", map[string]any{"input": 1, "output": 10})
	m.write("config", map[string]any{"default_output_cap": 100})
	m.patch("roles/r", map[string]any{"models": []string{"m", "own"}})
	up.answer = always(http.StatusTooManyRequests)
	m.chat("r", "m").want429(t)
	up.answer = unreachable
	m.chat("r", "m").want(t, http.StatusBadGateway, "upstream_unreachable")
	wantUsage := func(query map[string]any, want map[string]any) {
		t.Helper()
		total, _ := m.usageOf("usage/r", query)
		wantFields(t, total, want)
	}
	// The test's provider reads all of a request before it fails, so the second
	// may have cost something: that of the bound.
	wantUsage(nil, map[string]any{"requests": 2, "failed": 2, "unconfirmed": 1, "refused": 0})
	m.chat("r", "x").want(t, http.StatusForbidden, "model_not_allowed")
	wantUsage(nil, map[string]any{"requests": 2, "refused": 1})
	up.answer = usageAnswer(1000, 100)
	m.chat("r", "own").want(t, http.StatusOK, "") // has no price
	before, _ := m.usageOf("usage/r", nil)
	wantFields(t, before, map[string]any{"requests": 3, "unpriced": 1})
	if before["cost_usd"] != before["unconfirmed_usd"] || before["cost_usd"] == "0" {
		t.Errorf("all of the cost is unconfirmed, and that of what has no price is in none: %v", before)
	}
	_, rows := m.usageOf("usage/r", map[string]any{"group_by": "model"})
	if len(rows) != 3 {
		t.Fatalf("rows %v", rows)
	}
	wantFields(t, rows[1], map[string]any{"model": "own", "requests": 1, "unpriced": 1, "cost_usd": "0", "input_tokens": 1000})
	wantFields(t, rows[2], map[string]any{"model": "x", "requests": 0, "refused": 1})
}

// want429 is what the provider's own refusal looks like.
func (a inlineAnswer) want429(t *testing.T) {
	t.Helper()
	if a.Status != http.StatusTooManyRequests {
		t.Fatalf("answered %+v", a)
	}
}

func TestUsage_RefusalsByIdentityCountAndNamesThatDoNotExistDoNot(t *testing.T) {
	m, _, _ := newProxyMount(t, map[string]any{"allowed_entity_ids": "somebody"})
	m.chat("r", "m").want(t, http.StatusForbidden, "identity_not_allowed")
	for i := range 50 {
		m.chat(fmt.Sprint("nobody", i), "m").want(t, http.StatusNotFound, "virtual_key_not_found")
	}
	total, rows := m.usageOf("usage", nil)
	wantFields(t, total, map[string]any{"requests": 0, "refused": 1})
	if len(rows) != 1 || rows[0]["role"] != "r" {
		t.Errorf("rows %v", rows)
	}
	if names := m.must(logical.ListOperation, "usage/", nil).Data["keys"]; !reflect.DeepEqual(names, []string{"r"}) {
		t.Errorf("listed are %v", names)
	}
}

func TestUsage_DaysBeginInTheConfiguredZone(t *testing.T) {
	m, _, c := newPricedMount(t, &logical.InmemStorage{})
	utc := func(text string) time.Time {
		at, err := time.Parse("2006-01-02 15:04", text)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	for _, step := range []struct{ zone, at, day string }{
		{"UTC", "2026-05-01 23:59", "2026-05-01"},
		{"Europe/Berlin", "2026-05-01 21:59", "2026-05-01"},
		{"Europe/Berlin", "2026-05-01 22:00", "2026-05-02"},
		{"America/New_York", "2026-05-01 03:59", "2026-04-30"},
		{"Asia/Kolkata", "2026-05-01 18:30", "2026-05-02"},
		// The day of 23 hours, its ends, and that of 25.
		{"Europe/Berlin", "2026-03-28 22:59", "2026-03-28"},
		{"Europe/Berlin", "2026-03-28 23:00", "2026-03-29"},
		{"Europe/Berlin", "2026-03-29 21:59", "2026-03-29"},
		{"Europe/Berlin", "2026-03-29 22:00", "2026-03-30"},
		{"Europe/Berlin", "2026-10-24 22:00", "2026-10-25"},
		{"Europe/Berlin", "2026-10-25 22:59", "2026-10-25"},
		{"Europe/Berlin", "2026-10-25 23:00", "2026-10-26"},
	} {
		m.write("config", map[string]any{"time_zone": step.zone})
		role := strings.NewReplacer("-", "", ":", "", " ", "", "/", "").Replace(step.zone + step.at)
		m.write("roles/"+role, map[string]any{"key": "a"})
		c.set(utc(step.at))
		m.chat(role, "m").want(t, http.StatusOK, "")
		data := m.read("usage/" + role)
		wantFields(t, data, map[string]any{"time_zone": step.zone, "to": step.day})
		if rows := data["rows"].([]any); len(rows) != 1 || rows[0].(map[string]any)["day"] != step.day {
			t.Errorf("%s in %s counts on %v, want %s", step.at, step.zone, rows, step.day)
		}
	}
}

func TestUsage_ARequestCountsOnTheDayOfItsAdmission(t *testing.T) {
	m, up, c := newPricedMount(t, &logical.InmemStorage{})
	c.set(time.Date(2026, 5, 1, 23, 59, 0, 0, time.UTC))
	up.answer = func(r *http.Request) (*http.Response, error) {
		c.advance(time.Hour)
		return usageAnswer(1, 1)(r)
	}
	m.chat("r", "m").want(t, http.StatusOK, "")
	_, rows := m.usageOf("usage/r", nil)
	if len(rows) != 1 || rows[0]["day"] != "2026-05-01" {
		t.Errorf("rows %v", rows)
	}
}

func TestUsage_FromToAndTheDefaultOfThirtyDays(t *testing.T) {
	m, _, c := newPricedMount(t, &logical.InmemStorage{})
	end := c.now()
	for day := 40; day >= 0; day-- {
		c.set(end.AddDate(0, 0, -day))
		m.chat("r", "m").want(t, http.StatusOK, "")
	}
	for _, q := range []struct {
		query    map[string]any
		from, to string
		requests int
	}{
		{nil, "2026-04-02", "2026-05-01", 30},
		{map[string]any{"from": "2026-04-30"}, "2026-04-30", "2026-05-01", 2},
		{map[string]any{"from": "2026-04-30", "to": "2026-04-30"}, "2026-04-30", "2026-04-30", 1},
		{map[string]any{"to": "2026-03-25"}, "2026-02-24", "2026-03-25", 4},
		{map[string]any{"from": "2020-01-01", "to": "2030-01-01"}, "2020-01-01", "2030-01-01", 41},
		{map[string]any{"from": "2027-01-01", "to": "2027-01-02"}, "2027-01-01", "2027-01-02", 0},
	} {
		for _, path := range []string{"usage/r", "usage"} {
			data := overJSON(t, m.must(logical.ReadOperation, path, q.query).Data)
			wantFields(t, data, map[string]any{"from": q.from, "to": q.to})
			wantFields(t, data["total"].(map[string]any), map[string]any{"requests": q.requests})
		}
	}
}

func TestUsage_BadQueriesAreRefused(t *testing.T) {
	m, _, _ := newPricedMount(t, &logical.InmemStorage{})
	for _, c := range []struct {
		query map[string]any
		want  string
	}{
		{map[string]any{"from": "yesterday"}, "2027-01-31"},
		{map[string]any{"to": "2026-02-30"}, "to:"},
		{map[string]any{"from": "2026-1-1"}, "from:"},
		{map[string]any{"from": "2026-05-01T00:00:00Z"}, "from:"},
		{map[string]any{"from": "2026-05-02"}, "is after"},
		{map[string]any{"from": "2026-05-02", "to": "2026-05-01"}, "is after"},
		{map[string]any{"group_by": "day,color"}, "none of day, model, entity, prompt, role"},
		{map[string]any{"groupby": "day"}, `did you mean "group_by"`},
		{map[string]any{"from": strings.Repeat("9", 1000)}, "from:"},
	} {
		for _, path := range []string{"usage/r", "usage"} {
			m.refused(logical.ReadOperation, path, c.query, c.want)
		}
	}
}

// spread makes random calls of several roles, models, callers and days, and
// returns how many there were of each.
func (m *mount) spread(c *clock, seed uint64, n int) map[string]int {
	m.t.Helper()
	r := rand.New(rand.NewPCG(seed, 0))
	count := map[string]int{}
	for range n {
		role, model, entity := fmt.Sprint("r", r.IntN(3)), fmt.Sprint("m", r.IntN(3)), []string{"", "alice", "bob"}[r.IntN(3)]
		c.set(time.Date(2026, 5, 1+r.IntN(3), 12, 0, 0, 0, time.UTC))
		m.proxyAs(entity, role, "v1/chat/completions", chatBody(model)).want(m.t, http.StatusOK, "")
		day := c.now().Format(time.DateOnly)
		for _, key := range []string{"role=" + role, "model=" + model, "entity=" + entity, "day=" + day, "role=" + role + " entity=" + entity} {
			count[key]++
		}
	}
	return count
}

func TestUsage_RowsAddUpToTheTotalHoweverTheyAreGrouped(t *testing.T) {
	m, _, c := newPricedMount(t, &logical.InmemStorage{})
	m.write("prices/openai/m*", map[string]any{"input": 1, "output": 10})
	for i := range 3 {
		m.write(fmt.Sprint("roles/r", i), map[string]any{"key": "a"})
	}
	const calls = 60
	count := m.spread(c, 1, calls)
	c.set(time.Date(2026, 5, 3, 12, 0, 0, 0, time.UTC))
	for _, groupBy := range []string{"day", "model", "entity", "role", "day,model", "model,entity", "role,day,model,entity", "ENTITY,Role"} {
		total, rows := m.usageOf("usage", map[string]any{"group_by": groupBy})
		wantFields(t, total, map[string]any{"requests": calls, "input_tokens": calls * 1000, "output_tokens": calls * 100})
		sums := map[string]float64{}
		var cost price.NanoUSD
		seen, last := map[string]bool{}, ""
		for _, row := range rows {
			for name, value := range row {
				if n, isNumber := value.(float64); isNumber {
					sums[name] += n
				}
			}
			usd, err := price.ParseUSD(row["cost_usd"].(string))
			if err != nil {
				t.Fatal(err)
			}
			cost += usd
			id := fmt.Sprint(row["role"], "|", row["day"], "|", row["model"], "|", row["entity"])
			if seen[id] || id < last {
				t.Errorf("%s: row %s comes twice or out of order", groupBy, id)
			}
			seen[id], last = true, id
			for _, by := range []string{"role", "day", "model", "entity"} {
				if _, told := row[by]; told != strings.Contains(strings.ToLower(groupBy), by) {
					t.Errorf("%s: a row tells %s: %v", groupBy, by, told)
				}
			}
			if !strings.Contains(groupBy, ",") {
				wantFields(t, row, map[string]any{"requests": count[fmt.Sprint(groupBy, "=", row[groupBy])]})
			}
		}
		for name, sum := range sums {
			if total[name] != sum {
				t.Errorf("%s: %s is %v in total, and the rows add up to %v", groupBy, name, total[name], sum)
			}
		}
		if total["cost_usd"] != cost.String() {
			t.Errorf("%s: cost is %v in total, and the rows add up to %s", groupBy, total["cost_usd"], cost)
		}
	}
	_, rows := m.usageOf("usage/r1", map[string]any{"group_by": "entity"})
	for _, row := range rows {
		wantFields(t, row, map[string]any{"requests": count[fmt.Sprint("role=r1 entity=", row["entity"])]})
	}
	_, byRole := m.usageOf("usage", nil)
	if len(byRole) != 3 || byRole[0]["role"] != "r0" {
		t.Errorf("without group_by the rows of all virtual keys are %v", byRole)
	}
}

func TestUsage_OfARoleWithoutAnyIsEmptyAndOutlivesTheRole(t *testing.T) {
	m, _, _ := newPricedMount(t, &logical.InmemStorage{})
	if total, rows := m.usageOf("usage/nobody", nil); len(rows) != 0 || total["cost_usd"] != "0" {
		t.Errorf("total %v, rows %v", total, rows)
	}
	if _, rows := m.usageOf("usage", nil); len(rows) != 0 {
		t.Errorf("rows %v", rows)
	}
	m.chat("r", "m").want(t, http.StatusOK, "")
	m.delete("roles/r")
	total, _ := m.usageOf("usage/r", nil)
	wantFields(t, total, map[string]any{"requests": 1})
}

func TestUsage_StorageThatFailsIsTheServersFault(t *testing.T) {
	storage := &faultyStorage{Storage: &logical.InmemStorage{}}
	m, _, _ := newPricedMount(t, storage)
	m.chat("r", "m").want(t, http.StatusOK, "")
	m.flushUsage(t.Context(), storage)
	for _, c := range []struct {
		op   logical.Operation
		path string
	}{{logical.ReadOperation, "usage"}, {logical.ReadOperation, "usage/r"}, {logical.ListOperation, "usage/"}} {
		storage.failLists(errFault)
		if resp, err := m.call(c.op, c.path, nil); !errors.Is(err, errFault) {
			t.Errorf("%s %s: %v %v", c.op, c.path, resp, err)
		}
		storage.disarm()
		m.must(c.op, c.path, nil)
	}
	fresh := newMountOn(t, Options{Now: m.now}, storage)
	fresh.read("config") // kept in memory from here on
	storage.failReads(errFault)
	if resp, err := fresh.call(logical.ReadOperation, "usage/r", nil); !errors.Is(err, errFault) {
		t.Errorf("%v %v", resp, err)
	}
}

func TestUsage_HoldsNeitherPromptsNorAnswersNorSecrets(t *testing.T) {
	const prompt, answer = "my-very-private-prompt", "the-private-answer"
	m, up, _ := newPricedMount(t, &logical.InmemStorage{})
	up.answer = func(r *http.Request) (*http.Response, error) {
		return answerWith(http.StatusOK, "application/json", `{"choices":[{"message":{"content":"`+answer+r.Header.Get("Authorization")+`"}}],"usage":{"prompt_tokens":1}}`), nil
	}
	m.write("prices/openai/m", map[string]any{"input": 1, "output": 1, "note": "contract"})
	for _, path := range []string{"v1/chat/completions", "v1/completions", "v1/embeddings", "v1/responses", "v1/images/generations", "v1/" + prompt} {
		m.proxyAs("alice", "r", path, map[string]any{"model": "m", "prompt": prompt, "input": prompt, "user": prompt})
	}
	m.proxyAs("", "r", "v1/chat/completions", map[string]any{"messages": prompt})
	m.flushUsage(context.Background(), m.storage)
	texts := map[string]string{"log": m.log.String()}
	for _, path := range []string{"usage", "usage/r", "metrics", "prices/openai/m", "status", "config", "roles/r"} {
		data := m.must(logical.ReadOperation, path, nil).Data
		texts[path] = fmt.Sprint(data)
		if raw, isRaw := data[logical.HTTPRawBody].([]byte); isRaw {
			texts[path] = string(raw)
		}
	}
	for key, value := range entries(t, m.storage) {
		if !strings.HasPrefix(key, keyPrefix) {
			texts["storage "+key] = key + value
		}
	}
	for where, text := range texts {
		for _, private := range []string{prompt, answer, secretMark} {
			if strings.Contains(text, private) {
				t.Errorf("%s holds %s: %s", where, private, text)
			}
		}
	}
}

// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/test/vaulttest"
)

func (s *suite) perEntity(t *testing.T) {
	s.role(t, mount, "shared", nil)
	s.vault.Policy(t, "shared", policyFile(t, "app.hcl", mount, "shared"))
	dora, emil := s.vault.Userpass(t, "dora", "shared"), s.vault.Userpass(t, "emil", "shared")
	want := map[string]int64{dora.EntityID: 3, emil.EntityID: 1, "": 2}
	for entity, token := range map[string]string{dora.EntityID: dora.Token, emil.EntityID: emil.Token, "": s.vault.Token(t, "shared")} {
		for range want[entity] {
			wantCompletion(t, post(t, s.client(token), chatPath(mount, "shared"), s.chat("up-ok")))
		}
	}
	each := completionUSD(s.promptTokens(), 5)
	got := usageOf(t, s.root, mount+"/usage/shared?group_by=entity")
	for _, row := range got.Rows {
		n := want[row.Entity]
		delete(want, row.Entity)
		expected := spent(n, n*s.promptTokens(), n*5, times(n, each))
		expected.Entity = row.Entity
		if n == 0 || row != expected {
			t.Errorf("the row is\n%+v\nexpected\n%+v", row, expected)
		}
	}
	if len(want) != 0 {
		t.Errorf("no rows for %v in %+v", want, got.Rows)
	}
	if got.Total != spent(6, 6*s.promptTokens(), 6*5, times(6, each)) {
		t.Errorf("the total is %+v", got.Total)
	}
}

func (s *suite) allRoles(t *testing.T) {
	app := s.app(t, mount, "of-many", nil)
	wantCompletion(t, post(t, app, chatPath(mount, "of-many"), s.chat("up-ok")))
	wantError(t, post(t, s.app(t, mount, "refused", map[string]any{"models": "up-ok"}), chatPath(mount, "refused"), s.chat("up-echo")),
		http.StatusForbidden, "model_not_allowed")
	// What a virtual key has used outlives it.
	s.root.Delete(t, mount+"/roles/of-many")

	names := s.root.List(t, mount+"/usage")
	all := usageOf(t, s.root, mount+"/usage?group_by=role,model")
	var total counts
	perRole := map[string]*counts{}
	for _, row := range all.Rows {
		if perRole[row.Role] == nil {
			perRole[row.Role] = &counts{}
		}
		perRole[row.Role].add(row)
		total.add(row)
	}
	if len(names) < 10 || len(perRole) != len(names) {
		t.Errorf("%d virtual keys are listed, and %d have rows", len(names), len(perRole))
	}
	for _, name := range names {
		if perRole[name] == nil {
			t.Errorf("%s is listed and has no row", name)
			continue
		}
		s.wantUsage(t, mount, name, *perRole[name])
	}
	if total != all.Total {
		t.Errorf("the rows add up to\n%+v\nthe total is\n%+v", total, all.Total)
	}
	if all.Total.Requests < 20 || all.Total.Cost == "0" {
		t.Errorf("the total is %+v, so this proves little", all.Total)
	}
	s.wantUsage(t, mount, "of-many", spent(1, s.promptTokens(), 5, completionUSD(s.promptTokens(), 5)))
	s.wantUsage(t, mount, "refused", counts{Refused: 1, Cost: "0", UncertainIn: "0", EstimatedIn: "0"})

	// Without group_by there is a row for each virtual key.
	plain := usageOf(t, s.root, mount+"/usage")
	var roles []string
	for _, row := range plain.Rows {
		roles = append(roles, row.Role)
	}
	if !slices.Equal(roles, names) || plain.Total != all.Total {
		t.Errorf("without group_by: the rows of %v, the total\n%+v", roles, plain.Total)
	}
}

func (s *suite) badQueries(t *testing.T) {
	app := s.app(t, mount, "queried", nil)
	wantCompletion(t, post(t, app, chatPath(mount, "queried"), s.chat("up-ok")))
	for query, says := range map[string]string{
		"from=yesterday":                "2027-01-31",
		"to=2027-02-30":                 "2027-01-31",
		"from=2027-02-01&to=2027-01-01": "after",
		"group_by=colour":               "entity",
		"group=model":                   "group_by",
	} {
		for _, path := range []string{"usage", "usage/queried"} {
			resp := do(t, s.root, http.MethodGet, mount+"/"+path+"?"+query, nil)
			if resp.Status != http.StatusBadRequest || !strings.Contains(strings.Join(resp.Errors(), " "), says) {
				t.Errorf("%s?%s: %s, expected a 400 that says %q", path, query, resp, says)
			}
		}
	}
	day := func(days int) string { return time.Now().UTC().AddDate(0, 0, days).Format(time.DateOnly) }
	for query, requests := range map[string]int64{
		"from=" + day(-1) + "&to=" + day(1):  1,
		"from=" + day(-9) + "&to=" + day(-2): 0,
		"from=" + day(2) + "&to=" + day(3):   0,
		"from=" + day(-1):                    1,
		"to=" + day(1):                       1,
	} {
		got := usageOf(t, s.root, mount+"/usage/queried?"+query)
		if got.Total.Requests != requests || len(got.Rows) != int(requests) {
			t.Errorf("%s: %+v, expected %d requests", query, got, requests)
		}
	}
}

func (s *suite) zone(t *testing.T) {
	// Of these two, one is always at another day than UTC.
	defer s.root.Write(t, tuned+"/config", map[string]any{"time_zone": "UTC"})
	for name, hours := range map[string]int{"Etc/GMT-14": 14, "Etc/GMT+12": -12} {
		s.root.Write(t, tuned+"/config", map[string]any{"time_zone": name})
		role, zone := fmt.Sprintf("in-zone-%d", hours), time.FixedZone(name, hours*3600)
		app := s.app(t, tuned, role, nil)
		before := today(zone)
		wantCompletion(t, post(t, app, chatPath(tuned, role), s.chat("up-ok")))
		got := usageOf(t, s.root, tuned+"/usage/"+role+"?from="+before+"&to="+today(zone))
		if len(got.Rows) != 1 || got.Rows[0].Day < before || got.Rows[0].Day > today(zone) || got.Zone != name {
			t.Errorf("in %s on %s: %+v", name, before, got)
		}
	}
	resp := post(t, s.root, tuned+"/config", map[string]any{"time_zone": "Europe/Nowhere"})
	if resp.Status != http.StatusBadRequest || !strings.Contains(strings.Join(resp.Errors(), " "), "time_zone") {
		t.Errorf("a zone that is none: %s", resp)
	}
}

func (s *suite) financePolicy(t *testing.T) {
	s.vault.Policy(t, "finance", policyFile(t, "finance.hcl", mount, "team-a"))
	finance := s.client(s.vault.Token(t, "finance"))
	s.app(t, mount, "watched", nil)
	wantCompletion(t, post(t, s.root, chatPath(mount, "watched"), s.chat("up-ok")))

	usageOf(t, finance, mount+"/usage?group_by=role")
	if got := usageOf(t, finance, mount+"/usage/watched").Total.Requests; got != 1 {
		t.Errorf("it sees %d requests", got)
	}
	finance.Read(t, mount+"/prices/openai/gpt-4o-mini")
	for _, path := range []string{"usage", "prices", "prices/openai-compatible"} {
		if len(finance.List(t, mount+"/"+path)) == 0 {
			t.Errorf("it sees nothing at %s", path)
		}
	}
	s.refusesAll(t, finance)
	wantVaults403(t, post(t, finance, mount+"/prices/openai/gpt-4o-mini", map[string]any{"input": "0", "output": "0"}))
	wantVaults403(t, do(t, finance, http.MethodDelete, mount+"/prices/openai-compatible/up-*", nil))
	unasked(t, s.up, func() {
		wantVaults403(t, post(t, finance, chatPath(mount, "watched"), s.chat("up-ok")))
		wantVaults403(t, post(t, finance, mount+"/proxy/watched", map[string]any{"model": "up-ok", "prompt": "Hi"}))
	})
	// Nor does it reach the other mount.
	wantVaults403(t, do(t, finance, http.MethodGet, tuned+"/usage", nil))
}

// refusesAll fails the test unless Vault refuses the client everything but
// usage and prices.
func (s *suite) refusesAll(t *testing.T, c *vaulttest.Client) {
	t.Helper()
	for _, path := range []string{"keys/main", "keys/main/rotate", "roles/watched", "config", "status", "metrics", "providers/openai", "keys", "roles"} {
		wantVaults403(t, do(t, c, http.MethodGet, mount+"/"+path, nil))
		wantVaults403(t, do(t, c, "LIST", mount+"/"+path, nil))
		wantVaults403(t, post(t, c, mount+"/"+path, map[string]any{"key": "main"}))
	}
}

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

// newRoleMount has the provider keys a and b.
func newRoleMount(t *testing.T, o Options) *mount {
	t.Helper()
	m := newMount(t, o)
	m.write("keys/a", openaiKey(secretA))
	m.write("keys/b", openaiKey(secretB))
	return m
}

func TestRole_DefaultsLetEverybodyUseEveryModelForEver(t *testing.T) {
	m := newRoleMount(t, Options{})
	if resp := m.write("roles/r", map[string]any{"key": "a"}); resp != nil {
		t.Errorf("a plain role is answered with %v", resp)
	}
	none := []string{}
	wantFields(t, m.read("roles/r"), map[string]any{
		"key": "a", "enabled": true, "expires_at": "", "models": none, "note": "",
		"allowed_entity_ids": none, "allowed_entity_names": none, "allowed_group_ids": none, "allowed_group_names": none, "allowed_aliases": none,
		"default_params": map[string]any{}, "forced_params": map[string]any{}, "metadata": map[string]any{},
	})
}

func TestRole_EveryFieldIsStoredAndSurvivesARestart(t *testing.T) {
	c := newClock()
	m := newRoleMount(t, Options{Now: c.now})
	given := map[string]any{
		"key": "a", "models": []any{"gpt-4o*", "größe-*"}, "enabled": false, "expires_at": "2027-01-31T00:00:00Z",
		"allowed_entity_ids": []any{"id-1"}, "allowed_entity_names": []any{"Jürgen Müller"}, "allowed_group_ids": []any{"g-1"},
		"allowed_group_names": []any{"平台"}, "allowed_aliases": []any{"auth_x_1/jo/ann"},
		"default_params": map[string]any{"temperature": 0.2}, "forced_params": map[string]any{"user": "añb", "metadata": map[string]any{"n": 1}},
		"note": "für Ünïcode 🔑", "metadata": map[string]any{"team": "蓝"},
	}
	m.write("roles/r", given)
	wantFields(t, m.read("roles/r"), given)
	wantFields(t, m.read("roles/r"), map[string]any{"created_at": "2026-05-01T12:00:00Z", "updated_at": "2026-05-01T12:00:00Z"})
	again := newMountOn(t, Options{}, m.storage)
	if got := again.read("roles/r"); !reflect.DeepEqual(got, m.read("roles/r")) {
		t.Errorf("after a restart: %v", got)
	}
}

func TestRole_UpdateKeepsWhatIsNotNamed(t *testing.T) {
	c := newClock()
	m := newRoleMount(t, Options{Now: c.now})
	m.write("roles/r", map[string]any{"key": "a", "models": "x,y", "note": "n", "enabled": false, "ttl": "1h", "metadata": map[string]any{"a": "1"}})
	before := m.read("roles/r")
	c.advance(time.Minute)
	m.write("roles/r", map[string]any{"note": "m"})
	before["note"], before["updated_at"] = "m", "2026-05-01T12:01:00Z"
	if now := m.read("roles/r"); !reflect.DeepEqual(now, before) {
		t.Errorf("now %v\nwant %v", now, before)
	}
}

func TestRole_RecreatedHasAnotherID(t *testing.T) {
	m := newRoleMount(t, Options{})
	m.write("roles/r", map[string]any{"key": "a"})
	first := m.read("roles/r")["id"]
	m.patch("roles/r", map[string]any{"key": "b"})
	if now := m.read("roles/r")["id"]; now != first || first == "" {
		t.Errorf("the id went from %v to %v by an update", first, now)
	}
	m.delete("roles/r")
	if m.read("roles/r") != nil {
		t.Error("deleted, yet read")
	}
	m.delete("roles/r") // once more is no error
	m.write("roles/r", map[string]any{"key": "a"})
	if now := m.read("roles/r")["id"]; now == first {
		t.Error("the new role has the id of the deleted one")
	}
}

func TestRole_PatchMergesMapsAndNullRemoves(t *testing.T) {
	m := newRoleMount(t, Options{})
	m.write("roles/r", map[string]any{
		"key": "a", "models": "x", "enabled": false, "note": "n", "expires_at": "2090-01-01T00:00:00Z",
		"default_params": map[string]any{"temperature": 0.2, "top_p": 1}, "metadata": map[string]any{"a": "1", "b": "2"},
	})
	m.patch("roles/r", map[string]any{
		"default_params": map[string]any{"top_p": nil, "seed": 7}, "metadata": map[string]any{"a": nil}, "forced_params": map[string]any{"user": "u"},
	})
	wantFields(t, m.read("roles/r"), map[string]any{
		"key": "a", "models": []string{"x"}, "enabled": false, "note": "n", "expires_at": "2090-01-01T00:00:00Z",
		"default_params": map[string]any{"temperature": 0.2, "seed": 7}, "forced_params": map[string]any{"user": "u"}, "metadata": map[string]any{"b": "2"},
	})
	m.patch("roles/r", map[string]any{"default_params": nil, "models": nil, "expires_at": nil, "note": nil})
	wantFields(t, m.read("roles/r"), map[string]any{
		"default_params": map[string]any{}, "models": []string{}, "expires_at": "", "note": "", "enabled": false,
	})
	// The CLI can send only text.
	m.patch("roles/r", map[string]any{"forced_params": `{"user":null,"n":1}`, "models": "p,q"})
	wantFields(t, m.read("roles/r"), map[string]any{"forced_params": map[string]any{"n": 1}, "models": []string{"p", "q"}})
	m.refused(logical.PatchOperation, "roles/r", map[string]any{"key": nil}, "key is missing")
	m.refused(logical.PatchOperation, "roles/none", map[string]any{"note": "n"}, "create it first")
	wantFields(t, m.read("roles/r"), map[string]any{"key": "a"})
}

func TestRole_ExpiryIsSetClearedAndBounded(t *testing.T) {
	for name, c := range map[string]struct {
		data map[string]any
		want string // expires_at, or with "!" a part of the refusal
	}{
		"ttl in seconds":           {map[string]any{"ttl": 90}, "2026-05-01T12:01:30Z"},
		"ttl as text":              {map[string]any{"ttl": "720h"}, "2026-05-31T12:00:00Z"},
		"ttl of zero":              {map[string]any{"ttl": 0}, ""},
		"empty ttl":                {map[string]any{"ttl": ""}, ""},
		"negative ttl":             {map[string]any{"ttl": -1}, "!ttl is -1s"},
		"ttl past 100 years":       {map[string]any{"ttl": "876001h"}, "!between 0 (never expires) and 100 years"},
		"ttl that overflows":       {map[string]any{"ttl": 18446744074}, "!ttl"},
		"ttl below a second":       {map[string]any{"ttl": "500ms"}, "!shorter than a second"},
		"fractional ttl":           {map[string]any{"ttl": 0.5}, "!shorter than a second"},
		"ttl that is no time":      {map[string]any{"ttl": "soon"}, "!ttl"},
		"time":                     {map[string]any{"expires_at": "2027-01-31T02:00:00+02:00"}, "2027-01-31T00:00:00Z"},
		"Unix seconds as a number": {map[string]any{"expires_at": 1893456000}, "2030-01-01T00:00:00Z"},
		"Unix seconds as text":     {map[string]any{"expires_at": "1893456000"}, "2030-01-01T00:00:00Z"},
		"empty time":               {map[string]any{"expires_at": ""}, ""},
		"negative Unix seconds":    {map[string]any{"expires_at": -5}, "!Unix seconds"},
		"Unix milliseconds":        {map[string]any{"expires_at": 1893456000000}, "!Unix seconds"},
		"zero time":                {map[string]any{"expires_at": "0001-01-01T00:00:00Z"}, "!is no time"},
		"year of five digits":      {map[string]any{"expires_at": "9999-12-31T23:59:59-01:00"}, "!is no time"},
		"a date alone":             {map[string]any{"expires_at": "2027-01-31"}, "!2027-01-31T00:00:00Z"},
		"no time at all":           {map[string]any{"expires_at": "soon"}, "!is no time"},
		"both":                     {map[string]any{"ttl": "1h", "expires_at": "2027-01-31T00:00:00Z"}, "!give one of them"},
	} {
		for _, op := range []logical.Operation{logical.UpdateOperation, logical.PatchOperation} {
			t.Run(fmt.Sprint(name, " ", op), func(t *testing.T) {
				m := newMount(t, Options{Now: newClock().now})
				m.write("keys/a", openaiKey(secretA))
				const old = "2080-01-01T00:00:00Z"
				m.write("roles/r", map[string]any{"key": "a", "expires_at": old})
				if want, refused := strings.CutPrefix(c.want, "!"); refused {
					m.refused(op, "roles/r", c.data, want)
					wantFields(t, m.read("roles/r"), map[string]any{"expires_at": old})
					return
				}
				m.must(op, "roles/r", c.data)
				wantFields(t, m.read("roles/r"), map[string]any{"expires_at": c.want})
			})
		}
	}
}

func TestRole_OddButAcceptedIsWarnedOf(t *testing.T) {
	m := newRoleMount(t, Options{Now: newClock().now})
	for name, c := range map[string]struct {
		data map[string]any
		want string
	}{
		"past expiry":            {map[string]any{"expires_at": "2020-01-01T00:00:00Z"}, "in the past"},
		"default also forced":    {map[string]any{"default_params": map[string]any{"n": 1}, "forced_params": map[string]any{"n": 2}}, `"n" is in default_params and in forced_params`},
		"forced model forbidden": {map[string]any{"models": "gpt-*", "forced_params": map[string]any{"model": "o3"}}, "not among the models allowed"},
	} {
		c.data["key"] = "a"
		resp := m.write("roles/"+strings.ReplaceAll(name, " ", "-"), c.data)
		wantWarning(t, resp, c.want)
		if resp.Data["key"] != "a" {
			t.Errorf("%s: a warning comes without the role: %v", name, resp.Data)
		}
	}
	m.system.ReplicationStateVal = consts.ReplicationPerformancePrimary
	wantWarning(t, m.write("roles/replicated", map[string]any{"key": "a"}), "this cluster replicates")
}

func TestRole_BadInputIsRefusedAndStoresNothing(t *testing.T) {
	m := newRoleMount(t, Options{})
	long := make([]any, maxListLen+1)
	for i := range long {
		long[i] = fmt.Sprint("m", i)
	}
	for name, c := range map[string]struct {
		data map[string]any
		want string
	}{
		"no key":                  {map[string]any{"note": "n"}, "key is missing"},
		"key that is not there":   {map[string]any{"key": "c"}, `no provider key "c"`},
		"misspelt field":          {map[string]any{"key": "a", "modles": "x"}, `"modles" (did you mean "models"?)`},
		"unknown field":           {map[string]any{"key": "a", "zzzzzz": "x"}, "the fields are alert_thresholds, allow_unbounded"},
		"model with a space":      {map[string]any{"key": "a", "models": []string{"gpt 4"}}, "is no model name"},
		"model too long":          {map[string]any{"key": "a", "models": strings.Repeat("m", 257)}, "is no model name"},
		"too many models":         {map[string]any{"key": "a", "models": long}, "models has 1001 items"},
		"alias without accessor":  {map[string]any{"key": "a", "allowed_aliases": "jo"}, "<mount accessor>/<alias name>"},
		"alias without name":      {map[string]any{"key": "a", "allowed_aliases": "auth_x/"}, "<mount accessor>/<alias name>"},
		"params of broken JSON":   {map[string]any{"key": "a", "default_params": `{"temperature":`}, "default_params must be a JSON object"},
		"params of a JSON list":   {map[string]any{"key": "a", "forced_params": `[1]`}, "forced_params must be a JSON object"},
		"params of a number":      {map[string]any{"key": "a", "forced_params": 5}, "forced_params"},
		"Model in params":         {map[string]any{"key": "a", "default_params": map[string]any{"Model": "x"}}, `write "Model" as "model"`},
		"MAX_TOKENS in params":    {map[string]any{"key": "a", "forced_params": map[string]any{"MAX_TOKENS": 5}}, `write "MAX_TOKENS" as "max_tokens"`},
		"model that is no string": {map[string]any{"key": "a", "forced_params": map[string]any{"model": 5}}, "must be a string"},
		"enabled that is no bool": {map[string]any{"key": "a", "enabled": "maybe"}, "enabled"},
		"note too long":           {map[string]any{"key": "a", "note": strings.Repeat("n", maxNoteLen+1)}, "note is"},
		"metadata key too long":   {map[string]any{"key": "a", "metadata": map[string]any{strings.Repeat("k", maxNameLen+1): "v"}}, "metadata"},
	} {
		t.Run(name, func(t *testing.T) {
			m.t = t
			before := entries(t, m.storage)
			m.refused(logical.UpdateOperation, "roles/r", c.data, c.want)
			if now := entries(t, m.storage); !reflect.DeepEqual(now, before) {
				t.Errorf("refused, yet storage changed: %v", now)
			}
		})
	}
	m.t = t
	m.refused(logical.UpdateOperation, "roles/"+strings.Repeat("n", maxNameLen+1), map[string]any{"key": "a"}, "the name is")
	m.write("roles/"+strings.Repeat("n", maxNameLen), map[string]any{"key": "a", "note": strings.Repeat("n", maxNoteLen), "models": long[1:]})
}

func TestRole_ParamsAreTakenAsTextAndAsObject(t *testing.T) {
	m := newRoleMount(t, Options{})
	want := map[string]any{"temperature": 0.2, "stop": []any{"a"}, "user": nil}
	for name, given := range map[string]any{"text": `{"temperature":0.2,"stop":["a"],"user":null}`, "object": want} {
		m.write("roles/"+name, map[string]any{"key": "a", "default_params": given})
		wantFields(t, m.read("roles/"+name), map[string]any{"default_params": want})
		m.write("roles/"+name, map[string]any{"default_params": ""})
		wantFields(t, m.read("roles/"+name), map[string]any{"default_params": map[string]any{}})
	}
}

func TestRole_ListsAreTrimmedAndHoldNothingTwice(t *testing.T) {
	m := newRoleMount(t, Options{})
	m.write("roles/r", map[string]any{"key": " a ", "models": " x , y,x,, "})
	wantFields(t, m.read("roles/r"), map[string]any{"key": "a", "models": []string{"x", "y"}})
	m.write("roles/r", map[string]any{"models": []any{""}}) // what `models=''` is on the CLI
	wantFields(t, m.read("roles/r"), map[string]any{"models": []string{}})
}

func TestRole_ListShowsDetails(t *testing.T) {
	m := newRoleMount(t, Options{})
	m.write("roles/r2", map[string]any{"key": "b", "enabled": false})
	m.write("roles/r1", map[string]any{"key": "a", "models": "x"})
	resp := m.must(logical.ListOperation, "roles/", nil)
	if got := resp.Data["keys"]; !reflect.DeepEqual(got, []string{"r1", "r2"}) {
		t.Errorf("listed %v", got)
	}
	info := overJSON(t, resp.Data["key_info"].(map[string]any))
	wantFields(t, info["r1"].(map[string]any), map[string]any{"key": "a", "models": []string{"x"}, "enabled": true, "expires_at": "", "note": ""})
	wantFields(t, info["r2"].(map[string]any), map[string]any{"key": "b", "enabled": false})
}

func TestRole_ListShowsDetailsOfTheFirstThousandOnly(t *testing.T) {
	m := newRoleMount(t, Options{})
	m.write("roles/r", map[string]any{"key": "a"})
	entry, err := m.storage.Get(t.Context(), rolePrefix+"r")
	if err != nil {
		t.Fatal(err)
	}
	for i := range listDetail {
		if err := m.storage.Put(t.Context(), &logical.StorageEntry{Key: fmt.Sprintf("roles/q%04d", i), Value: entry.Value}); err != nil {
			t.Fatal(err)
		}
	}
	resp := m.must(logical.ListOperation, "roles/", nil)
	names, info := resp.Data["keys"].([]string), resp.Data["key_info"].(map[string]any)
	if len(names) != listDetail+1 || len(info) != listDetail {
		t.Errorf("%d names, %d in detail", len(names), len(info))
	}
	wantWarning(t, resp, "page with after=q0999")
}

func TestRole_ChangesWorkOnTheNextRequest(t *testing.T) {
	up := &upstream{}
	m := newRoleMount(t, Options{Transport: up})
	m.write("roles/r", map[string]any{"key": "a"})
	m.chat("r", "m").want(t, http.StatusOK, "")
	m.patch("roles/r", map[string]any{"key": "b"})
	m.chat("r", "m").want(t, http.StatusOK, "")
	if got := up.last(t).Header.Get("Authorization"); got != "Bearer "+secretB {
		t.Errorf("sent %q", got)
	}
	m.patch("roles/r", map[string]any{"enabled": false})
	m.chat("r", "m").want(t, http.StatusForbidden, "virtual_key_disabled")
	m.delete("roles/r")
	m.chat("r", "m").want(t, http.StatusNotFound, "virtual_key_not_found")
}

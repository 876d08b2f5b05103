// SPDX-License-Identifier: MPL-2.0

package provider

import (
	"encoding/json"
	"strings"
	"testing"
)

type object = map[string]any

// validEntry uses every part of the format once.
func validEntry() object {
	return object{
		"id": "acme", "name": "Acme", "base_url": "https://{zone}.acme.example/api",
		"base_url_help": "the host with /api", "secret": "required",
		"auth":    object{"scheme": "header", "header": "x-api-key"},
		"headers": object{"acme-version": "1"},
		"fields": []any{
			object{"name": "zone", "description": "zone", "required": true, "pattern": "^[a-z]+$"},
			object{"name": "team", "description": "team", "pattern": "^[a-z]+$", "header": "Acme-Team"},
		},
		"routes": []any{
			object{"prefix": "v1", "to": "/v2", "format": "openai"},
			object{"prefix": "v1/chat", "to": "/chat", "format": "openai", "auth": object{"scheme": "bearer"}},
		},
		"chat_cap_field": "max_completion_tokens", "reasoning_models": []any{"acme-r*", "!acme-r0*"}, "open_ended_models": []any{"acme-web"},
		"max_output": []any{object{"tokens": 4096, "models": []any{"acme-s*", "!acme-s9*"}}},
		"free_kinds": []any{"moderations"},
		"verify":     object{"method": "POST", "path": "/check", "body": object{}, "valid": []any{422}, "refused": []any{400}},
		"formats":    []any{"openai"}, "docs_url": "https://acme.example/docs", "note": "a note",
	}
}

func catalogueOf(t *testing.T, entries ...any) []byte {
	t.Helper()
	data, err := json.Marshal(object{"providers": entries})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestParse_TakesAnEntryThatUsesEverything(t *testing.T) {
	c, err := Parse(catalogueOf(t, validEntry()))
	if err != nil {
		t.Fatal(err)
	}
	p, _ := c.Get("acme")
	if p.Routes[0].Prefix != "v1/chat" || p.Auth.Header != "X-Api-Key" || p.Headers["Acme-Version"] != "1" {
		t.Errorf("routes aren't sorted or names aren't canonical: %+v", p)
	}
}

func TestParse_RefusesEachKindOfBrokenEntryAndNamesIt(t *testing.T) {
	field := func(i int) func(object) object {
		return func(e object) object { return e["fields"].([]any)[i].(object) }
	}
	route := func(e object) object { return e["routes"].([]any)[0].(object) }
	verify := func(e object) object { return e["verify"].(object) }
	auth := func(e object) object { return e["auth"].(object) }
	top := func(e object) object { return e }
	zone, team := field(0), field(1)
	fixed := func(e object) {
		delete(e, "base_url_help")
		e["fixed_base"], e["secret"], e["base_url"] = true, "none", "sandbox://sandbox/v1"
		e["auth"], e["fields"] = object{"scheme": "none"}, []any{}
		e["routes"] = []any{object{"prefix": "v1", "to": "", "format": "openai"}}
	}
	tests := []struct {
		name   string
		in     func(object) object
		key    string
		value  any
		errHas string
	}{
		{"unknown field", top, "colour", "red", "colour"},
		{"unknown field of a route", route, "colour", "red", "colour"},
		{"no name", top, "name", "", "name"},
		{"note over two lines", top, "note", "a\nb", "one line"},
		{"bar in note", top, "note", "a|b", "one line"},
		{"no docs", top, "docs_url", "", "docs_url"},
		{"docs without https", top, "docs_url", "http://acme.example", "docs_url"},
		{"unknown secret use", top, "secret", "maybe", "secret"},
		{"no secret use", top, "secret", "", "secret"},
		{"secret none with authentication", top, "secret", "none", "doesn't go with"},
		{"unknown scheme", auth, "scheme", "digest", "scheme"},
		{"authentication header that isn't one", auth, "header", "acme", "auth.header"},
		{"authentication header missing", auth, "header", "", "auth.header"},
		{"bearer with header", auth, "scheme", "bearer", "auth.header"},
		{"fixed header with credentials", top, "headers", object{"X-Auth-Token": "x"}, "credentials"},
		{"fixed header with line break", top, "headers", object{"X-A": "a\r\nb"}, "line break"},
		{"fixed header twice", top, "headers", object{"x-a": "1", "X-A": "2"}, "twice"},
		{"field name of every key", team, "name", "api_key", "name must be"},
		{"field name in capitals", team, "name", "Team", "name must be"},
		{"field without description", team, "description", "", "description"},
		{"pattern without anchors", team, "pattern", "[a-z]+", "pattern"},
		{"pattern that doesn't compile", team, "pattern", "^[a-z$", "pattern"},
		{"field header with credentials", team, "header", "api-key", "credentials"},
		{"field header like a fixed one", team, "header", "Acme-Version", "twice"},
		{"field twice", team, "name", "zone", "base_url too"},
		{"field that goes nowhere", team, "header", "", "{name}"},
		{"optional field in base URL", zone, "required", false, "required"},
		{"placeholder without a field", top, "base_url", "https://{zone}.{other}.example", "placeholder"},
		{"base URL without https", top, "base_url", "http://{zone}.acme.example", "https://"},
		{"base URL of the sandbox's scheme", top, "base_url", "sandbox://{zone}.x", "https://"},
		{"base URL with user", top, "base_url", "https://u:p@{zone}.x", "user name"},
		{"base URL with query", top, "base_url", "https://{zone}.x/?a=b", "query"},
		{"base URL with a slash at its end", top, "base_url", "https://{zone}.x/", "plain form"},
		{"base URL in capitals", top, "base_url", "https://{zone}.X", "plain form"},
		{"routes missing", top, "routes", []any{}, "no route"},
		{"route prefix with slash", route, "prefix", "/v1", "prefix"},
		{"route prefix empty", route, "prefix", "", "prefix"},
		{"route twice", route, "prefix", "v1/chat", "twice"},
		{"route to a relative path", route, "to", "v2", "slash"},
		{"route to a parent", route, "to", "/../x", "segment"},
		{"route in a format not listed", route, "format", "gemini", "format"},
		{"route without authentication", route, "auth", object{"scheme": "none"}, "doesn't go with"},
		{"no help for a base URL that differs", top, "base_url_help", "", "base_url_help"},
		{"format on no route", top, "formats", []any{"openai", "gemini"}, "no route"},
		{"format twice", top, "formats", []any{"openai", "openai"}, "given once"},
		{"formats missing", top, "formats", []any{}, "formats"},
		{"unknown cap", top, "chat_cap_field", "max_output_tokens", "chat_cap_field"},
		{"cap that the provider ignores", top, "ignores_max_completion_tokens", true, "ignores"},
		{"cap that is read anyway", top, "reads_max_completion_tokens", true, "reads_max_completion_tokens"},
		{"free kind without a name", top, "free_kinds", []any{""}, "free_kinds"},
		{"free kind twice", top, "free_kinds", []any{"a", "a"}, "free_kinds"},
		{"glob of every model", top, "reasoning_models", []any{"*"}, "reasoning_models"},
		{"glob of none", top, "open_ended_models", []any{""}, "open_ended_models"},
		{"glob in capitals", top, "reasoning_models", []any{"DeepSeek-R1*"}, "lower case"},
		{"glob with a space", top, "reasoning_models", []any{"o1* o3*"}, "no glob"},
		{"glob twice", top, "reasoning_models", []any{"o1*", "o1*"}, "twice"},
		{"exception without a rule", top, "reasoning_models", []any{"!o1*"}, "exception"},
		{"maximum output of nothing", top, "max_output", []any{object{"tokens": 0, "models": []any{"a"}}}, "max_output"},
		{"maximum output that is no small one", top, "max_output", []any{object{"tokens": 16384, "models": []any{"a"}}}, "max_output"},
		{"maximum output of no model", top, "max_output", []any{object{"tokens": 1}}, "of no model"},
		{"maximum output of every model", top, "max_output", []any{object{"tokens": 1, "models": []any{"*"}}}, "no glob"},
		{"maximum output in unknown units", top, "max_output", []any{object{"words": 1, "models": []any{"a"}}}, "words"},
		{"verify by DELETE", verify, "method", "DELETE", "verify.method"},
		{"verify missing", top, "verify", object{}, "verify.method"},
		{"verify path missing", verify, "path", "", "verify.path"},
		{"verify body with GET", verify, "method", "GET", "verify.body"},
		{"verify takes 401 for valid", verify, "valid", []any{401}, "401"},
		{"verify takes 500 for valid", verify, "valid", []any{500}, "500"},
		{"verify status both ways", verify, "refused", []any{422}, "both"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := validEntry()
			tt.in(e)[tt.key] = tt.value
			_, err := Parse(catalogueOf(t, e))
			if err == nil {
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), tt.errHas) || !strings.Contains(err.Error(), `"acme"`) {
				t.Errorf("error %q doesn't name %q and the entry", err, tt.errHas)
			}
		})
	}
	for name, spoil := range map[string]func(object){
		"fixed base with a secret":   func(e object) { e["secret"], e["auth"] = "optional", object{"scheme": "bearer"} },
		"fixed base on the network":  func(e object) { e["base_url"] = "https://acme.example" },
		"fixed base without a base":  func(e object) { e["base_url"] = "" },
		"fixed base with help on it": func(e object) { e["base_url_help"] = "anything" },
	} {
		e := validEntry()
		fixed(e)
		if _, err := Parse(catalogueOf(t, e)); err != nil {
			t.Fatalf("a good entry with a fixed base is refused: %v", err)
		}
		spoil(e)
		if _, err := Parse(catalogueOf(t, e)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestParse_RefusesBrokenCatalogues(t *testing.T) {
	for _, id := range []string{"", "Acme", "a b", "-a", "a-", "a--b", strings.Repeat("a", 65), "a_b", "1a"} {
		e := validEntry()
		e["id"] = id
		if _, err := Parse(catalogueOf(t, e)); err == nil || !strings.Contains(err.Error(), "entry 1") {
			t.Errorf("id %q: %v", id, err)
		}
	}
	good := string(catalogueOf(t, validEntry()))
	for name, data := range map[string]string{
		"empty":            "",
		"no providers":     `{"providers":[]}`,
		"unknown key":      `{"providers":[],"x":1}`,
		"data after it":    good + "{}",
		"cut off":          good[:len(good)-2],
		"null as an entry": `{"providers":[null]}`,
		"same id twice":    string(catalogueOf(t, validEntry(), validEntry())),
	} {
		if _, err := Parse([]byte(data)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"net/http"
	"strings"
	"testing"

	"vault-plugin-secrets-portkey/internal/apierror"
	"vault-plugin-secrets-portkey/internal/relay"
)

func TestRole_IsTheFirstThatIsNamedInTheOrderOfPlaces(t *testing.T) {
	places := []func(name string, rt *route, h http.Header){
		func(name string, rt *route, _ http.Header) { rt.role = name },
		func(name string, _ *route, h http.Header) { h.Set("x-portkey-virtual-key", name) },
		func(name string, _ *route, h http.Header) { h.Set("x-portkey-provider", "@"+name) },
		func(name string, _ *route, h http.Header) { h.Set("x-portkey-config", `{"virtual_key":"`+name+`"}`) },
	}
	for first := range places {
		rt, h := route{}, http.Header{}
		places[first]("r", &rt, h)
		for _, name := range places[first+1:] {
			name("other", &rt, h)
		}
		if role, plain, err := selectRole(rt, h, "gpt-4o", ""); err != nil || role != "r" || plain != "gpt-4o" {
			t.Errorf("from place %d on: %q, %q, %v", first, role, plain, err)
		}
		// The last two places must not name another one.
		if role, plain, err := selectRole(rt, h, "@r/gpt-4o", "r"); err != nil || role != "r" || plain != "gpt-4o" {
			t.Errorf("from place %d on, with model and leased key: %q, %q, %v", first, role, plain, err)
		}
	}
	if role, plain, err := selectRole(route{}, http.Header{}, "@r/gpt-4o", ""); err != nil || role != "r" || plain != "gpt-4o" {
		t.Errorf("by model: %q, %q, %v", role, plain, err)
	}
	if role, plain, err := selectRole(route{}, http.Header{}, "gpt-4o", "r"); err != nil || role != "r" || plain != "gpt-4o" {
		t.Errorf("by leased key: %q, %q, %v", role, plain, err)
	}
}

func TestRole_IsReadAsPortkeysSDKsWriteIt(t *testing.T) {
	for name, c := range map[string]struct {
		role, model string
		headers     []string
		leased      string
		want, plain string
	}{
		"provider without @ names none":      {model: "@team-a/m", headers: []string{"x-portkey-provider: openai"}, want: "team-a", plain: "m"},
		"provider without @ and leased":      {model: "m", headers: []string{"x-portkey-provider: openai"}, leased: "team-a", want: "team-a", plain: "m"},
		"model with slashes and @":           {model: "@team-a/meta-llama/Llama-3@1", want: "team-a", plain: "meta-llama/Llama-3@1"},
		"model that begins with @":           {model: "@team-a/@cf/meta/llama", want: "team-a", plain: "@cf/meta/llama"},
		"model that begins twice":            {model: "@team-a/@team-a/m", want: "team-a", plain: "@team-a/m"},
		"model with @ and no slash":          {role: "team-a", model: "@m", want: "team-a", plain: "@m"},
		"model with @ and no name":           {role: "team-a", model: "@/m", want: "team-a", plain: "@/m"},
		"model with @ within":                {role: "team-a", model: "a@b/c", want: "team-a", plain: "a@b/c"},
		"model with a slash":                 {role: "team-a", model: "meta/m", want: "team-a", plain: "meta/m"},
		"no model":                           {role: "team-a", want: "team-a"},
		"the same in path and model":         {role: "team-a", model: "@team-a/m", want: "team-a", plain: "m"},
		"the same everywhere":                {role: "a", model: "@a/m", headers: []string{"x-portkey-virtual-key: a", "x-portkey-provider: @a"}, leased: "a", want: "a", plain: "m"},
		"header, leased key of the same":     {model: "m", headers: []string{"x-portkey-virtual-key: a"}, leased: "a", want: "a", plain: "m"},
		"path over header":                   {role: "a", model: "m", headers: []string{"x-portkey-virtual-key: b"}, leased: "a", want: "a", plain: "m"},
		"trimmed, empty and given twice":     {headers: []string{"x-portkey-virtual-key:", "x-portkey-virtual-key:  a ", "X-Portkey-Virtual-Key: a"}, want: "a"},
		"config with provider":               {headers: []string{`x-portkey-config: {"provider": "@a"}`}, want: "a"},
		"config with spaces":                 {headers: []string{`x-portkey-config: { "virtual_key" : "\u0061" } `}, want: "a"},
		"config behind provider":             {headers: []string{`x-portkey-config: {"virtual_key":"a"}`, "x-portkey-provider: @b"}, want: "b"},
		"config behind provider without @":   {headers: []string{`x-portkey-config: {"virtual_key":"a"}`, "x-portkey-provider: openai"}, want: "a"},
		"empty config":                       {role: "a", headers: []string{"x-portkey-config: "}, want: "a"},
		"every character a name may consist": {headers: []string{"x-portkey-virtual-key: A_b-C.9"}, want: "A_b-C.9"},
		"the longest name":                   {headers: []string{"x-portkey-virtual-key: " + strings.Repeat("x", maxRole)}, want: strings.Repeat("x", maxRole)},
	} {
		role, plain, err := selectRole(route{role: c.role}, asReceived(t, "POST", "/", c.headers...).Header, c.model, c.leased)
		if err != nil || role != c.want || plain != c.plain {
			t.Errorf("%s: %q, %q, %v; want %q, %q", name, role, plain, err, c.want, c.plain)
		}
	}
}

func TestRole_RefusalsSayWhatToDo(t *testing.T) {
	bad, unknown := apierror.CodeInvalidRequest, apierror.CodeVirtualKeyNotFound
	long := strings.Repeat("x", 5000)
	for name, c := range map[string]struct {
		role, model string
		headers     []string
		leased      string
		status      int
		code, param string
		says        string
	}{
		"none":                       {model: "m", status: 400, code: apierror.CodeVirtualKeyRequired, says: "/proxy/<virtual key>/"},
		"none: by header":            {model: "m", status: 400, code: apierror.CodeVirtualKeyRequired, says: "x-portkey-virtual-key: <virtual key>"},
		"none: by provider":          {model: "@m", status: 400, code: apierror.CodeVirtualKeyRequired, says: "x-portkey-provider: @<virtual key>"},
		"none: by model":             {model: "@/m", headers: []string{"x-portkey-provider: openai"}, status: 400, code: apierror.CodeVirtualKeyRequired, says: "@<virtual key>/<model>"},
		"path against model":         {role: "a", model: "@b/m", status: 400, code: bad, param: "model", says: `"@b/m" names the virtual key "b", but the request is on "a"`},
		"header against model":       {model: "@b/m", headers: []string{"x-portkey-virtual-key: a"}, status: 400, code: bad, param: "model", says: `write @a/@b/m`},
		"in another case":            {role: "a", model: "@A/m", status: 400, code: bad, param: "model", says: `"A"`},
		"a key and no model":         {model: "@a/", status: 400, code: bad, param: "model", says: "no model"},
		"leased against path":        {role: "b", model: "m", leased: "a", status: 403, code: apierror.CodeVirtualKeyMismatch, says: `of virtual key "a", and the request names "b"`},
		"leased against header":      {headers: []string{"x-portkey-virtual-key: b"}, leased: "a", status: 403, code: apierror.CodeVirtualKeyMismatch, says: "creds/b"},
		"leased against provider":    {headers: []string{"x-portkey-provider: @b"}, leased: "a", status: 403, code: apierror.CodeVirtualKeyMismatch, says: `"b"`},
		"leased against config":      {headers: []string{`x-portkey-config: {"virtual_key":"b"}`}, leased: "a", status: 403, code: apierror.CodeVirtualKeyMismatch, says: `"b"`},
		"leased against model":       {model: "@b/m", leased: "a", status: 403, code: apierror.CodeVirtualKeyMismatch, says: `"b"`},
		"bad name in header":         {headers: []string{"x-portkey-virtual-key: ../roles/x"}, status: 404, code: unknown, says: "does not exist"},
		"bad name: slash":            {headers: []string{"x-portkey-virtual-key: a/b"}, status: 404, code: unknown, says: `"a/b"`},
		"bad name: @":                {headers: []string{"x-portkey-virtual-key: @a"}, status: 404, code: unknown, says: `"@a"`},
		"bad name: space":            {headers: []string{"x-portkey-virtual-key: a b"}, status: 404, code: unknown, says: `"a b"`},
		"bad name: not ASCII":        {headers: []string{"x-portkey-virtual-key: é"}, status: 404, code: unknown, says: "does not exist"},
		"bad name in provider":       {headers: []string{"x-portkey-provider: @a/gpt"}, status: 404, code: unknown, says: `"a/gpt"`},
		"bad name in config":         {headers: []string{`x-portkey-config: {"virtual_key":"a\u0000"}`}, status: 404, code: unknown, says: "does not exist"},
		"bad name in model":          {model: "@a..b/m", status: 404, code: unknown, says: `"a..b"`},
		"longer than any":            {headers: []string{"x-portkey-virtual-key: " + strings.Repeat("x", maxRole+1)}, status: 404, code: unknown, says: "does not exist"},
		"long name":                  {headers: []string{"x-portkey-virtual-key: " + long}, status: 404, code: unknown, says: "does not exist"},
		"long model":                 {role: "a", model: "@" + long + "/" + long, status: 400, code: bad, param: "model", says: "names the virtual key"},
		"header twice":               {headers: []string{"x-portkey-virtual-key: a", "x-portkey-virtual-key: b"}, status: 400, code: bad, says: "header x-portkey-virtual-key"},
		"header twice beside a path": {role: "a", headers: []string{"x-portkey-virtual-key: a", "x-portkey-virtual-key: b"}, status: 400, code: bad, says: "header x-portkey-virtual-key"},
		"provider twice":             {headers: []string{"x-portkey-provider: openai", "x-portkey-provider: @b"}, status: 400, code: bad, says: "header x-portkey-provider"},
		"config twice":               {role: "a", headers: []string{"x-portkey-config: {}", "x-portkey-config: x"}, status: 400, code: bad, says: "header x-portkey-config"},
	} {
		t.Run(name, func(t *testing.T) {
			role, plain, err := selectRole(route{role: c.role}, asReceived(t, "POST", "/", c.headers...).Header, c.model, c.leased)
			refusedWith(t, err, c.status, c.code)
			if role+plain != "" {
				t.Errorf("%q and %q beside the error", role, plain)
			}
			if err != nil && (err.Param != c.param || !strings.Contains(err.Message, c.says) || len(err.Message) > 600) {
				t.Errorf("param %q, want %q; message doesn't say %q, or is too long: %s", err.Param, c.param, c.says, err.Message)
			}
		})
	}
}

func TestRole_ConfigsThatDoMoreThanNameAVirtualKeyAreRefused(t *testing.T) {
	for _, config := range []string{
		"pc-prod-123", "{}", "[]", "null", `"a"`, "1", "{", `{"virtual_key"`, `{"virtual_key":"a"`, `{"virtual_key":"a","b"`, `{"virtual_key":"a",`, `{"virtual_key":"a"}x`, `{"virtual_key":"a"}{}`,
		`{"virtual_key":"a","retry":{"attempts":3}}`, `{"virtual_key":"a","virtual_key":"b"}`, `{"virtual_key":"a","provider":"@a"}`,
		`{"virtual_key":""}`, `{"virtual_key":null}`, `{"virtual_key":["a"]}`, `{"virtual_key":{}}`, `{"Virtual_Key":"a"}`, `{"virtual_key":1}`,
		`{"provider":"openai"}`, `{"provider":"@"}`, `{"provider":""}`, `{"strategy":{"mode":"fallback"},"targets":[{"virtual_key":"a"}]}`,
		`{"cache":{"mode":"simple"}}`, `["virtual_key","a"]`, `[{"virtual_key":"a"}]`, `{"config":"a"}`, "@a", "a",
	} {
		for _, rt := range []route{{}, {role: "a"}} {
			h := http.Header{"X-Portkey-Config": {config}, "X-Portkey-Virtual-Key": {"a"}}
			_, _, err := selectRole(rt, h, "m", "a")
			refusedWith(t, err, http.StatusBadRequest, apierror.CodeConfigNotSupported)
			if t.Failed() {
				t.Fatalf("at %s", config)
			}
		}
	}
}

func TestModel_IsTheOneThatTheRequestNamesWhereverThatIs(t *testing.T) {
	for _, c := range []struct{ path, query, body, want string }{
		{"v1/chat/completions", "", "gpt-4o", "gpt-4o"},
		{"v1/chat/completions", "", "", ""},
		{"v1/chat/completions", "", relay.DefaultModel, relay.DefaultModel},
		{"v1/chat/completions", "model=gpt-4o", "gpt-4o", "gpt-4o"},
		{"v1/chat/completions", "a=1&model=meta%2Fm&b", "", "meta/m"},
		{"v1/realtime", "model=m&model=m", relay.DefaultModel, "m"},
		{"v1/realtime", "model=&Model=x&models=y", "", ""},

		{"v1/models", "", "", ""},
		{"v1/models/gpt-4o", "", "", "gpt-4o"},
		{"v1/models/ft:gpt-4o:my-org::Ab1", "", "", "ft:gpt-4o:my-org::Ab1"},
		{"v1/models/llama3:8b", "", "", "llama3:8b"},
		{"v1/models/meta-llama/Llama-3", "", "", "meta-llama/Llama-3"},
		{"models/gpt-4o", "", "", "gpt-4o"},
		{"openai/v1/models/gpt-4o", "", "", "gpt-4o"},
		{"openai/models/gpt-4o", "api-version=x", "", "gpt-4o"},

		{"v1beta/models/gemini-2.0-flash:generateContent", "", "", "gemini-2.0-flash"},
		{"v1beta/models/gemini-2.0-flash:streamGenerateContent", "alt=sse", relay.DefaultModel, "gemini-2.0-flash"},
		{"v1beta/models/gemini-2.0-flash:whatComesNext", "", "", "gemini-2.0-flash"},
		{"v1beta/models/gemini-2.0-flash", "", "", "gemini-2.0-flash"},
		{"v1/models/gemini-2.0-flash:countTokens", "", "", "gemini-2.0-flash"},
		{"v1beta/models/a:b:generateContent", "", "", "a:b"},
		{"v1alpha/models/m:x", "", "", "m"},
		{"v1beta/openai/models/gemini-2.0-flash", "", "", "gemini-2.0-flash"},
		{"v1beta/models/text-embedding-004:embedContent", "", "models/text-embedding-004", "text-embedding-004"},
		{"v1beta/models/text-embedding-004:embedContent", "", "text-embedding-004", "text-embedding-004"},

		{"openai/deployments/my-gpt/chat/completions", "api-version=2024-10-21", "my-gpt", "my-gpt"},
		{"openai/deployments/models/chat/completions", "", "", "models"},
		{"openai/deployments/my-gpt", "", "", "my-gpt"},
		{"openai/v1/chat/completions", "", "m", "m"},
		{"model/anthropic.claude-v1:0/converse", "", "", "anthropic.claude-v1:0"},
		{"model/anthropic.claude-v1:0/invoke-with-response-stream", "", "", "anthropic.claude-v1:0"},
		{"v1/projects/p/locations/l/publishers/google/models/gemini-2.5-pro:streamGenerateContent", "", "", "gemini-2.5-pro"},
		{"v1/projects/p/locations/l/publishers/anthropic/models/claude@2025:rawPredict", "", "", "claude@2025"},
		{"publishers/google/models/m", "", "", "m"},

		{"v1/fine_tuning/models/x", "", "m", "m"},
		{"v1/files/models/x", "", "", ""},
		{"voices/models/x", "", "", ""},
		{"modelx/a/b", "", "", ""},
		{"", "", "", ""},
	} {
		if got, err := effectiveModel(c.path, c.query, c.body); err != nil || got != c.want {
			t.Errorf("%s?%s with %q: %q, %v; want %q", c.path, c.query, c.body, got, err, c.want)
		}
	}
}

func TestModel_PlacesThatDisagreeAreRefused(t *testing.T) {
	for _, c := range []struct{ path, query, body, says string }{
		{"v1beta/models/a:generateContent", "", "b", `the body names the model "b" and the path "a"`},
		{"v1beta/models/a:generateContent", "", "models/b", `the body names the model "models/b" and the path "a"`},
		{"v1beta/models/a:generateContent", "", "a:generateContent", `"a:generateContent"`},
		{"v1beta/models/a:generateContent", "", "A", `"A"`},
		{"openai/deployments/a/chat/completions", "", "b", `the path "a"`},
		{"model/a/converse", "", "b", `the path "a"`},
		{"v1/models/a", "model=b", "", `the path names the model "a" and the query string "b"`},
		{"v1/chat/completions", "model=b", "a", `the body names the model "a" and the query string "b"`},
		{"v1/chat/completions", "%6dodel=b", "a", `"b"`},
		{"v1/models/a", "model=b", relay.DefaultModel, `the path names the model "a" and the query string "b"`},
		{"v1/models/a", "model=b", "a", `the query string "b"`},
		{"v1/x", "model=a&model=b", "", "query parameter model"},
		{"model/a/converse", "", strings.Repeat("b", 5000), `the path "a"`},
	} {
		got, err := effectiveModel(c.path, c.query, c.body)
		refusedWith(t, err, http.StatusBadRequest, apierror.CodeInvalidRequest)
		if got != "" || err != nil && (!strings.Contains(err.Message, c.says) || len(err.Message) > 400) {
			t.Errorf("%s?%s with %.40q: %q, %v", c.path, c.query, c.body, got, err)
		}
	}
}

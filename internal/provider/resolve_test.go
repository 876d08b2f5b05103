// SPDX-License-Identifier: MPL-2.0

package provider

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

func TestResolve_RefusesBadConfigAndSaysWhatToDo(t *testing.T) {
	key := testSecret
	fields := func(kv ...string) map[string]string {
		m := map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			m[kv[i]] = kv[i+1]
		}
		return m
	}
	tests := []struct {
		name, id string
		c        Config
		errHas   string
	}{
		{"secret missing", "openai", Config{}, "needs api_key"},
		{"secret not taken", "ollama", Config{BaseURL: "http://h/v1", Secret: key}, "takes no api_key"},
		{"secret too short", "vllm", Config{BaseURL: "http://h/v1", Secret: "short12"}, "leave api_key out"},
		{"secret too long", "openai", Config{Secret: strings.Repeat("k", 4097)}, "4096"},
		{"secret with a line break at its end", "openai", Config{Secret: key + "\n"}, "line break"},
		{"secret with a space", "openai", Config{Secret: "sk-abc defgh"}, "space"},
		{"secret outside ASCII", "openai", Config{Secret: "sk-abcdefghé"}, "ASCII"},
		{"secret with a control character", "openai", Config{Secret: "sk-abc\x00defgh"}, "control"},
		{"unknown field", "openai", Config{Secret: key, Fields: fields("organisation", "x")}, "it has organization, project"},
		{"field of a provider without any", "groq", Config{Secret: key, Fields: fields("region", "x")}, "no fields of its own"},
		{"required field missing", "azure-openai", Config{Secret: key}, `needs field "resource"`},
		{"required field empty", "azure-openai", Config{Secret: key, Fields: fields("resource", "")}, `needs field "resource"`},
		{"field and base URL", "azure-openai", Config{Secret: key, BaseURL: "https://h.example/openai", Fields: fields("resource", "res")}, "one of the two"},
		{"field that moves the host", "azure-openai", Config{Secret: key, Fields: fields("resource", "evil.example/")}, `"resource"`},
		{"field that ends the host", "bedrock", Config{Secret: key, Fields: fields("region", "x.evil.example#")}, "must match"},
		{"field with a line break", "openai", Config{Secret: key, Fields: fields("project", "a\r\nX-Evil: 1")}, "must match"},
		{"field with a line break at its end", "openai", Config{Secret: key, Fields: fields("project", "a\n")}, "must match"},
		{"base URL missing", "vllm", Config{}, "http://localhost:8000/v1"},
		{"base URL of the sandbox", "sandbox", Config{BaseURL: "https://h.example/v1"}, "takes no base_url"},
		{"base URL that repeats the route", "azure-openai", Config{Secret: key, BaseURL: "https://h.example/openai/v1/"}, "give https://h.example/openai"},
		{"base URL unparsable", "openai", Config{Secret: key, BaseURL: "https://[::1"}, "no valid URL"},
		{"base URL without scheme", "openai", Config{Secret: key, BaseURL: "llm.example.com/v1"}, "http:// or https://"},
		{"base URL in the sandbox's scheme", "openai", Config{Secret: key, BaseURL: "sandbox://sandbox/v1"}, "http:// or https://"},
		{"base URL of a file", "openai", Config{Secret: key, BaseURL: "file:///etc/passwd"}, "http:// or https://"},
		{"base URL without host", "openai", Config{Secret: key, BaseURL: "https:///v1"}, "no host"},
		{"base URL with only a port", "openai", Config{Secret: key, BaseURL: "https://:443/v1"}, "no host"},
		{"base URL opaque", "openai", Config{Secret: key, BaseURL: "https:h.example/v1"}, "no host"},
		{"base URL with user", "openai", Config{Secret: key, BaseURL: "https://me:hunter22@h.example/v1"}, "user name"},
		{"base URL with query", "openai", Config{Secret: key, BaseURL: "https://h.example/v1?api-version=1"}, "query"},
		{"base URL with empty query", "openai", Config{Secret: key, BaseURL: "https://h.example/v1?"}, "query"},
		{"base URL with fragment", "openai", Config{Secret: key, BaseURL: "https://h.example/v1#"}, "fragment"},
		{"base URL with a space", "openai", Config{Secret: key, BaseURL: "https://h.example/v1 "}, "space"},
		{"base URL with a line break", "openai", Config{Secret: key, BaseURL: "https://h.example/\r\nv1"}, "control"},
		{"base URL with a backslash", "openai", Config{Secret: key, BaseURL: `https://h.example\@evil.example/`}, "backslash"},
		{"base URL with URL encoding", "openai", Config{Secret: key, BaseURL: "https://h.example/%2e%2e/v1"}, "percent"},
		{"base URL with dots", "openai", Config{Secret: key, BaseURL: "https://h.example/a/../v1"}, "segment"},
		{"base URL with an international host", "openai", Config{Secret: key, BaseURL: "https://hé.example/v1"}, "xn--"},
		{"base URL with a dot at the host's end", "openai", Config{Secret: key, BaseURL: "https://h.example./v1"}, "dot at the end"},
		{"base URL with a port too large", "openai", Config{Secret: key, BaseURL: "https://h.example:70000/v1"}, "port"},
		{"base URL with port 0", "openai", Config{Secret: key, BaseURL: "https://h.example:0/v1"}, "port"},
		{"base URL with a colon only", "openai", Config{Secret: key, BaseURL: "https://h.example:/v1"}, "port"},
		{"base URL with a zone", "openai", Config{Secret: key, BaseURL: "http://[fe80::1%25eth0]/v1"}, "percent"},
		{"base URL with a name in brackets", "openai", Config{Secret: key, BaseURL: "https://[evil.example]/v1"}, "no valid URL"},
		{"base URL with IPv4 in brackets", "openai", Config{Secret: key, BaseURL: "https://[127.0.0.1]/v1"}, "no valid URL"},
		{"base URL too long", "openai", Config{Secret: key, BaseURL: "https://h.example/" + strings.Repeat("a", 2048)}, "longer"},
		{"header twice", "openai", Config{Secret: key, Headers: fields("x-a", "1", "X-A", "2")}, "one of the two"},
		{"header and field", "openai", Config{Secret: key, Fields: fields("project", "p"), Headers: fields("openai-project", "q")}, `field "project"`},
		{"header value empty", "openai", Config{Secret: key, Headers: fields("X-A", "")}, "empty"},
		{"header value with a line break", "openai", Config{Secret: key, Headers: fields("X-A", "a\r\nX-B: c")}, "line break"},
		{"header value with NUL", "openai", Config{Secret: key, Headers: fields("X-A", "a\x00")}, "control"},
		{"header value with spaces around", "openai", Config{Secret: key, Headers: fields("X-A", " a")}, "space"},
		{"header value too long", "openai", Config{Secret: key, Headers: fields("X-A", strings.Repeat("a", 4097))}, "4096"},
		{"header name with a space", "openai", Config{Secret: key, Headers: fields("X A", "a")}, "header name"},
		{"header name empty", "openai", Config{Secret: key, Headers: fields("", "a")}, "header name"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := get(t, tt.id).Resolve(tt.c)
			if err == nil {
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), tt.errHas) {
				t.Errorf("error %q doesn't say %q", err, tt.errHas)
			}
			for _, private := range []string{testSecret, "hunter22"} {
				if strings.Contains(err.Error(), private) {
					t.Errorf("error %q holds a secret", err)
				}
			}
		})
	}
}

func TestResolve_FieldsCannotMoveTheHostOrSplitHeadersWhateverThePatternAllows(t *testing.T) {
	e := validEntry()
	for _, f := range e["fields"].([]any) {
		f.(object)["pattern"] = "^(?s:.*)$"
	}
	c, err := Parse(catalogueOf(t, e))
	if err != nil {
		t.Fatal(err)
	}
	lax, _ := c.Get("acme")
	for _, zone := range []string{"evil.example/", "evil.example#", "a@evil", "a:1", "a b", "..", "é", strings.Repeat("a", 64)} {
		if target, err := lax.Resolve(Config{Secret: testSecret, Fields: map[string]string{"zone": zone}}); err == nil {
			t.Errorf("zone %q gives %s", zone, target.Base())
		}
	}
	for _, team := range []string{"a\r\nX-Evil: 1", "a\x00", " a"} {
		if _, err := lax.Resolve(Config{Secret: testSecret, Fields: map[string]string{"zone": "a", "team": team}}); err == nil {
			t.Errorf("team %q is accepted", team)
		}
	}
}

func TestResolve_PatternCoversTheWholeValueEvenWithAlternatives(t *testing.T) {
	e := validEntry()
	e["fields"].([]any)[1].(object)["pattern"] = "^a|b$"
	c, err := Parse(catalogueOf(t, e))
	if err != nil {
		t.Fatal(err)
	}
	p, _ := c.Get("acme")
	for team, good := range map[string]bool{"a": true, "b": true, "ax": false, "xb": false} {
		_, err := p.Resolve(Config{Secret: testSecret, Fields: map[string]string{"zone": "z", "team": team}})
		if (err == nil) != good {
			t.Errorf("team %q: %v", team, err)
		}
	}
}

func TestResolve_RefusesHeadersThatAreNotTheOperatorsToSet(t *testing.T) {
	names := []string{
		"Authorization", "Proxy-Authorization", "Cookie", "Set-Cookie", "api-key", "X-API-KEY", "x-goog-api-key",
		"X-Auth-Token", "X-Amz-Security-Token", "Ocp-Apim-Subscription-Key", "Cf-Access-Client-Secret", "X_Api_Key", "apikey",
		"Connection", "Keep-Alive", "Proxy-Connection", "TE", "Trailer", "Transfer-Encoding", "Upgrade",
		"Host", "Content-Length", "content-type", "Accept-Encoding", "Expect", "Idempotency-Key", "x-idempotency-key",
		"X-Vault-Namespace", "x-vault-request", "x-portkey-virtual-key", "X-Portkey-Config",
	}
	p := get(t, "openai")
	for _, name := range names {
		_, err := p.Resolve(Config{Secret: testSecret, Headers: map[string]string{name: "value"}})
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("header %s: error %v doesn't name it", name, err)
		}
	}
	for _, name := range []string{"X-Title", "HTTP-Referer", "OpenAI-Beta", "X-Max-Tokens", "X-Vaulted"} {
		if _, err := p.Resolve(Config{Secret: testSecret, Headers: map[string]string{name: "value"}}); err != nil {
			t.Errorf("header %s is refused: %v", name, err)
		}
	}
	many := map[string]string{}
	for i := range maxHeaders + 1 {
		many[fmt.Sprintf("X-%d", i)] = "v"
	}
	if _, err := p.Resolve(Config{Secret: testSecret, Headers: many}); err == nil {
		t.Error("no bound on the number of headers")
	}
}

func TestResolve_ErrorsNeverHoldTheSecretWhereverItWasPasted(t *testing.T) {
	secret := `sk-"quoted"\&<tag>/0123456789`
	openai := get(t, "openai")
	configs := []Config{
		{Secret: secret, Fields: map[string]string{secret: "x"}},
		{Secret: secret, Fields: map[string]string{"project": secret}},
		{Secret: secret, Headers: map[string]string{secret: "x"}},
		{Secret: secret, Headers: map[string]string{"X-Note": "key " + secret}},
		{Secret: secret, BaseURL: secret},
		{Secret: "sk-0123456789", BaseURL: "https://h.example/sk-0123456789/v1"},
		{Secret: "sk-0123456789", BaseURL: "https://sk-0123456789@h.example/v1"},
		{Secret: "sk-0123456789", Headers: map[string]string{"sk-0123456789": ""}},
		{Secret: "sk-0123456789", Headers: map[string]string{"X-Note": "sk-0123456789"}},
		{Secret: "sk-0123456789 ", Headers: map[string]string{}},
	}
	for i, c := range configs {
		_, err := openai.Resolve(c)
		if err == nil {
			t.Errorf("config %d is accepted", i)
			continue
		}
		for _, spelling := range spellings(strings.TrimSpace(c.Secret)) {
			if strings.Contains(err.Error(), spelling) {
				t.Errorf("config %d: error %q holds the secret", i, err)
			}
		}
	}
	azure := get(t, "azure-openai")
	_, err := azure.Resolve(Config{Secret: "sk-0123456789", BaseURL: "https://h.example/sk-0123456789/v1"})
	if err == nil || strings.Contains(err.Error(), "0123456789") {
		t.Errorf("error %v holds the secret", err)
	}
}

func TestConfigAndTarget_NeverPrintTheSecret(t *testing.T) {
	c := Config{Secret: testSecret, Headers: map[string]string{"X-A": "private value"}}
	target := resolve(t, get(t, "openai"), c)
	e, err := target.Locate("v1/models", "")
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := json.Marshal([]any{c, target, e})
	if err != nil {
		t.Fatal(err)
	}
	printed := string(encoded)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
		for _, value := range []any{c, &c, target, e, []any{c, target}} {
			printed += fmt.Sprintf(verb, value)
		}
	}
	if strings.Contains(printed, testSecret) || strings.Contains(printed, fmt.Sprintf("%x", testSecret)) {
		t.Errorf("the secret is printed in %s", printed)
	}
}

func TestResolve_NormalisesAGivenBaseURL(t *testing.T) {
	for raw, want := range map[string]string{
		"https://LLM.Example.COM/v1/":  "https://llm.example.com/v1",
		"HTTP://localhost:8000/v1":     "http://localhost:8000/v1",
		"http://127.0.0.1":             "http://127.0.0.1",
		"http://[::1]:8000/v1//":       "http://[::1]:8000/v1",
		"https://my_host.internal/a/b": "https://my_host.internal/a/b",
	} {
		target := resolve(t, get(t, "openai-compatible"), Config{BaseURL: raw})
		if got := target.Base().String(); got != want {
			t.Errorf("%s becomes %s, want %s", raw, got, want)
		}
	}
}

func TestTarget_BaseIsACopy(t *testing.T) {
	target := resolve(t, get(t, "openai"), Config{Secret: testSecret})
	target.Base().Host = "evil.example"
	e, err := target.Locate("v1/models", "")
	if err != nil {
		t.Fatal(err)
	}
	e.URL.Host = "evil.example"
	if got := target.Base().String(); got != "https://api.openai.com/v1" {
		t.Errorf("base is now %s", got)
	}
}

func TestResolve_GivenBaseURLReplacesRequiredFields(t *testing.T) {
	target := resolve(t, get(t, "azure-openai"), Config{Secret: testSecret, BaseURL: "https://r.services.ai.azure.com/openai"})
	e, err := target.Locate("v1/responses", "")
	if err != nil {
		t.Fatal(err)
	}
	if want := "https://r.services.ai.azure.com/openai/v1/responses"; e.URL.String() != want {
		t.Errorf("%s, want %s", e.URL, want)
	}
	h := http.Header{}
	e.Authenticate(h)
	if h.Get("api-key") != testSecret || h.Get("Authorization") != "" {
		t.Errorf("headers %v", h)
	}
}

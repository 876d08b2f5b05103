// SPDX-License-Identifier: MPL-2.0

package provider

import (
	"errors"
	"net/http"
	"net/url"
	"path"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"
)

// badPaths are attempts to leave a base URL, or to be read differently by two
// readers.
func badPaths() []string {
	return []string{
		"", "/", "/v1/models", "v1/", "v1//models", "//evil.example/v1", "v1/models/",
		".", "..", "v1/..", "v1/../..", "../v1/models", "v1/./models", "v1/../../admin", "v1/models/..",
		"v1/..;/admin", "v1/.;x/admin", "v1/;/admin", "v1/.. /admin", "v1/ ../admin", "v1/.../admin", "v1/ /models",
		`v1\..\admin`, `v1/..\admin`, `\\evil.example\v1`, "v1/%2e%2e/admin", "v1/%252e%252e/admin", "v1%2fmodels", "v1/models%00",
		"v1/models?x=1", "v1/models#x", "v1/models\r\nHost: evil.example", "v1/models\x00", "v1/\tmodels", "v1/mod\x7fels", "v1/\u0085models",
		"v1/\xff\xfe", "v1/\xc0\xae\xc0\xae/admin", "v1/" + strings.Repeat("a", 2048),
	}
}

func TestLocate_RefusesPathAttacksAsBadPath(t *testing.T) {
	target := resolve(t, get(t, "openai"), Config{Secret: testSecret})
	for _, p := range badPaths() {
		if e, err := target.Locate(p, ""); !errors.Is(err, ErrBadPath) {
			t.Errorf("Locate(%q) = %v, %v", p, e, err)
		}
	}
}

func TestLocate_SaysWhatIsWrongWithAPath(t *testing.T) {
	target := resolve(t, get(t, "openai"), Config{Secret: testSecret})
	for p, want := range map[string]string{
		"":             "empty",
		"/v1/models":   "slash",
		"v1/models/":   "slash",
		"v1//models":   "two in a row",
		"v1/../models": `segment ".."`,
		"v1/a%2fb":     "'%'",
		"v1/a\nb":      "control character",
		"v1/\xff":      "UTF-8",
	} {
		if _, err := target.Locate(p, ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Locate(%q): error %v doesn't say %q", p, err, want)
		}
	}
}

func TestLocate_RefusesPathsWithoutARouteAndListsThoseThatExist(t *testing.T) {
	target := resolve(t, get(t, "anthropic"), Config{Secret: testSecret})
	for _, p := range []string{"v1/messages", "v1", "v1/chat/completionsx", "v1/model", "V1/models", "v2/models", "models", "http:/evil.example"} {
		_, err := target.Locate(p, "")
		var noRoute *NoRouteError
		if !errors.As(err, &noRoute) || errors.Is(err, ErrBadPath) {
			t.Errorf("Locate(%q): %v", p, err)
			continue
		}
		want := &NoRouteError{Provider: "anthropic", Path: p, Prefixes: []string{"v1/chat/completions", "v1/models"}}
		if !reflect.DeepEqual(noRoute, want) || !strings.Contains(err.Error(), "v1/chat/completions, v1/models") {
			t.Errorf("Locate(%q): %#v %q", p, noRoute, err)
		}
	}
}

func TestLocate_LongestPrefixWins(t *testing.T) {
	target := resolve(t, get(t, "perplexity-ai"), Config{Secret: testSecret})
	for p, want := range map[string]string{
		"v1/chat/completions": "https://api.perplexity.ai/chat/completions",
		"v1/responses":        "https://api.perplexity.ai/v1/responses",
		"v1/responses/r1":     "https://api.perplexity.ai/v1/responses/r1",
		"v1/responsesx":       "https://api.perplexity.ai/responsesx",
		"v1":                  "https://api.perplexity.ai",
	} {
		e, err := target.Locate(p, "")
		if err != nil || e.URL.String() != want {
			t.Errorf("%s: %v, %v; want %s", p, e, err, want)
		}
	}
}

func TestLocate_KeepsNamesAndQueryAsTheyAre(t *testing.T) {
	target := resolve(t, get(t, "openai"), Config{Secret: testSecret})
	e, err := target.Locate("v1/models/ft:gpt-4o:acme::a b/ü", "limit=2&after=a%2Fb")
	if err != nil {
		t.Fatal(err)
	}
	want := "https://api.openai.com/v1/models/ft:gpt-4o:acme::a%20b/%C3%BC?limit=2&after=a%2Fb"
	if e.URL.String() != want {
		t.Errorf("%s, want %s", e.URL, want)
	}
}

func FuzzLocate_StaysBelowTheBaseURL(f *testing.F) {
	for _, p := range append(badPaths(), "v1/chat/completions", "v1/models/a b", "v1/é", "v1/a;b=c", "v1/@evil.example", "v1/:443", "v1/a//b") {
		f.Add(p)
	}
	var targets []*Target
	for _, id := range []string{"openai", "perplexity-ai", "google", "anthropic"} {
		targets = append(targets, resolve(f, get(f, id), Config{Secret: testSecret}))
	}
	f.Fuzz(func(t *testing.T, p string) {
		for _, target := range targets {
			e, err := target.Locate(p, "")
			if err != nil {
				var noRoute *NoRouteError
				if errors.Is(err, ErrBadPath) == errors.As(err, &noRoute) {
					t.Errorf("%q: error of neither or both kinds: %v", p, err)
				}
				continue
			}
			// What a server reads from the wire is what counts.
			base, read := target.Base(), mustParse(t, e.URL.String())
			if read.Scheme != base.Scheme || read.Host != base.Host || read.User != nil || read.RawQuery != "" || read.Fragment != "" {
				t.Errorf("%q left the host: %s", p, e.URL)
			}
			if cleaned := path.Clean("/" + read.Path); cleaned != "/"+strings.TrimPrefix(read.Path, "/") {
				t.Errorf("%q isn't clean: %s", p, e.URL)
			}
			if read.Path != base.Path && !strings.HasPrefix(read.Path, base.Path+"/") {
				t.Errorf("%q left the base path: %s", p, e.URL)
			}
			if !utf8.ValidString(read.Path) || strings.ContainsAny(e.URL.String(), " \r\n\\") {
				t.Errorf("%q isn't safe on the wire: %q", p, e.URL)
			}
		}
	})
}

func mustParse(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestAuthenticate_HeaderPrecedence(t *testing.T) {
	target := resolve(t, get(t, "anthropic"), Config{
		Secret:  testSecret,
		Fields:  map[string]string{"workspace": "wrkspc_1"},
		Headers: map[string]string{"anthropic-beta": "operators", "X-Extra": "operators"},
	})
	models, err := target.Locate("v1/models", "")
	if err != nil {
		t.Fatal(err)
	}
	got := http.Header{
		"Accept":                 {"text/event-stream"},
		"Anthropic-Version":      {"callers"},
		"Anthropic-Beta":         {"callers", "twice"},
		"Anthropic-Workspace-Id": {"callers"},
		"Authorization":          {"Bearer callers"},
		"X-Api-Key":              {"callers"},
		"api-key":                {"callers, in no canonical form"},
		"X-Goog-Api-Key":         {"callers"},
		"X-Vault-Token":          {"callers"},
		"Cookie":                 {"callers"},
		"Proxy-Authorization":    {"callers"},
		"Idempotency-Key":        {"callers"},
	}
	models.Authenticate(got)
	want := http.Header{
		"Accept":                 {"text/event-stream"},
		"Anthropic-Version":      {"callers"},
		"Anthropic-Beta":         {"operators"},
		"Anthropic-Workspace-Id": {"wrkspc_1"},
		"X-Extra":                {"operators"},
		"X-Api-Key":              {testSecret},
		"Idempotency-Key":        {"callers"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}

	chat, err := target.Locate("v1/chat/completions", "")
	if err != nil {
		t.Fatal(err)
	}
	h := http.Header{"X-Api-Key": {"callers"}}
	chat.Authenticate(h)
	if h.Get("Authorization") != "Bearer "+testSecret || h.Get("X-Api-Key") != "" || h.Get("Anthropic-Version") != "2023-06-01" {
		t.Errorf("a route's own authentication: %v", h)
	}
}

func TestAuthenticate_RemovesTheCallersCredentialsFromProvidersWithoutAny(t *testing.T) {
	for _, id := range []string{"sandbox", "ollama", "vllm"} {
		p := get(t, id)
		e, err := resolve(t, p, plainConfig(p)).Locate("v1/models", "")
		if err != nil {
			t.Fatal(err)
		}
		h := http.Header{"Authorization": {"Bearer hvs.token"}, "X-Api-Key": {"hvs.token"}}
		e.Authenticate(h)
		if len(h) != 0 {
			t.Errorf("%s: the caller's %v go on", id, h)
		}
	}
}

func TestEndpoint_WithoutSecretDiffersOnlyInTheCredential(t *testing.T) {
	target := resolve(t, get(t, "anthropic"), Config{Secret: testSecret, Headers: map[string]string{"X-Extra": "1"}})
	_, e, _, _ := target.Probe()
	with, without := http.Header{}, http.Header{}
	e.Authenticate(with)
	control := e.WithoutSecret()
	control.Authenticate(without)
	if with.Get("X-Api-Key") != testSecret {
		t.Errorf("the probe carries no key: %v", with)
	}
	with.Del("X-Api-Key")
	if !reflect.DeepEqual(with, without) || control.URL.String() != e.URL.String() {
		t.Errorf("the control is %s %v, the probe %s %v", control.URL, without, e.URL, with)
	}
}

func TestProbe_SaysWhichStatusesAcceptAndRefuse(t *testing.T) {
	bedrock := get(t, "bedrock")
	method, e, body, accepts := resolve(t, bedrock, plainConfig(bedrock)).Probe()
	if method != "POST" || string(body) != "{}" || !accepts(204) || !accepts(400) || accepts(403) || accepts(302) || accepts(500) {
		t.Errorf("%s %q 400 %t", method, body, accepts(400))
	}
	if want := "https://bedrock-runtime.us-west-2.amazonaws.com/openai/v1/chat/completions"; e.URL.String() != want {
		t.Errorf("%s, want %s", e.URL, want)
	}
	body[0] = 'x'
	if _, _, again, _ := resolve(t, bedrock, plainConfig(bedrock)).Probe(); string(again) != "{}" {
		t.Error("the body is the catalogue's own")
	}
	xai := resolve(t, get(t, "x-ai"), Config{Secret: testSecret})
	if !xai.Refused(400) || !xai.Refused(401) || !xai.Refused(403) || xai.Refused(429) || xai.Refused(500) {
		t.Error("x-ai: refused must be 400, 401 and 403")
	}
	if openai := resolve(t, get(t, "openai"), Config{Secret: testSecret}); openai.Refused(400) {
		t.Error("openai: 400 says nothing of the key")
	}
}

func TestRedactions_HoldEverySpellingOnce(t *testing.T) {
	vllm := get(t, "vllm")
	if got := resolve(t, vllm, Config{BaseURL: "http://h/v1"}).Redactions(); len(got) != 0 {
		t.Errorf("without a secret: %q", got)
	}
	if got := resolve(t, vllm, Config{BaseURL: "http://h/v1", Secret: "sk-plain-123"}).Redactions(); !slices.Equal(got, []string{"sk-plain-123"}) {
		t.Errorf("plain secret: %q", got)
	}
	got := resolve(t, vllm, Config{BaseURL: "http://h/v1", Secret: `sk-"\<&>/+=x`}).Redactions()
	for _, want := range []string{
		`sk-"\<&>/+=x`,
		`sk-\"\\<&>/+=x`,
		`sk-\"\\\u003c\u0026\u003e/+=x`,
		`sk-\"\\<&>\/+=x`,
		"sk-%22%5C%3C%26%3E%2F%2B%3Dx",
		"sk-%22%5C%3C&%3E%2F+=x",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("%q lack %q", got, want)
		}
	}
	if len(got) != 6 || !slices.IsSortedFunc(got, func(a, b string) int { return len(b) - len(a) }) {
		t.Errorf("%q: want six, longest first", got)
	}
}

func TestTarget_IsSafeForConcurrentUse(t *testing.T) {
	target := resolve(t, get(t, "anthropic"), Config{Secret: testSecret, Headers: map[string]string{"X-Extra": "1"}})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				e, err := target.Locate("v1/models", "a=b")
				if err != nil {
					t.Error(err)
					return
				}
				h := http.Header{}
				e.Authenticate(h)
				h.Add("X-Extra", "mine")
				h["X-Api-Key"][0] = "mine"
				e.URL.Path = "/mine"
				target.Base().Path = "/mine"
				target.Redactions()[0] = "mine"
				target.Probe()
			}
		})
	}
	wg.Wait()
	h := http.Header{}
	_, e, _, _ := target.Probe()
	e.Authenticate(h)
	if h.Get("X-Api-Key") != testSecret || !slices.Equal(h["X-Extra"], []string{"1"}) || target.Base().Path != "/v1" {
		t.Errorf("changed by callers: %v %s", h, target.Base())
	}
}

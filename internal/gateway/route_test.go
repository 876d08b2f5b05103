// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"bufio"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"strings"
	"testing"

	"vault-plugin-secrets-portkey/internal/apierror"
)

func TestRoute_TellsTheDoorsApart(t *testing.T) {
	const ticket = "Zm9v-_AZaz09"
	native := func(path string) route { return route{kind: kindNative, path: path} }
	prompt := func(ref, action string) route { return route{kind: kindPrompt, prompt: promptCall{ref, action}} }
	proxy := func(role, path string) route { return route{kind: kindProxy, role: role, path: path} }
	for _, c := range []struct {
		method, target, mount string
		want                  route
	}{
		{"GET", "/healthz", "", route{kind: kindHealth}},
		{"HEAD", "/healthz?x=1", "portkey/", route{kind: kindHealth}},
		{"GET", "/%68ealthz", "portkey/", route{kind: kindHealth}},
		{"GET", "/readyz", "", route{kind: kindReady}},
		{"HEAD", "/readyz", "", route{kind: kindReady}},

		{"POST", "/v1/portkey/proxy/team-a/v1/chat/completions", "portkey/", proxy("team-a", "v1/chat/completions")},
		{"GET", "/v1/portkey/proxy/team-a/v1/models?limit=2", "portkey/", proxy("team-a", "v1/models")},
		{"DELETE", "/v1/portkey/proxy/team-a/v1/files/file-1", "portkey/", proxy("team-a", "v1/files/file-1")},
		{"POST", "/v1/team/llm/proxy/a/v1/x", "team/llm/", proxy("a", "v1/x")},
		{"POST", "/v1/%70ortkey/%70roxy/te%61m%2Da/v1/x", "portkey/", proxy("team-a", "v1/x")},
		{"POST", "/v1/portkey/proxy/a.b_C-9/x", "portkey/", proxy("a.b_C-9", "x")},
		{"POST", "/v1/portkey/proxy/_/x", "portkey/", proxy("_", "x")},
		{"POST", "/v1/portkey/proxy/proxy/proxy/proxy", "portkey/", proxy("proxy", "proxy/proxy")},
		{"POST", "/v1/proxy/proxy/a/proxy/b/x", "proxy/", proxy("a", "proxy/b/x")},
		{"POST", "/v1/a%20b/proxy/r/v1/x", "a b/", proxy("r", "v1/x")},
		{"POST", "/v1/caf%C3%A9/proxy/r/v1/x", "café/", proxy("r", "v1/x")},

		// The mount is called as a provider's route is.
		{"POST", "/v1/chat/completions", "chat/", native("v1/chat/completions")},
		{"POST", "/v1/chat/proxy/r/v1/chat/completions", "chat/", proxy("r", "v1/chat/completions")},
		{"GET", "/v1/models", "models/", native("v1/models")},
		{"GET", "/v1/models/gpt-4o", "models/", native("v1/models/gpt-4o")},
		{"GET", "/v1/models/proxy/r/v1/models", "models/", proxy("r", "v1/models")},
		{"POST", "/v1/audio/speech", "audio/", native("v1/audio/speech")},
		{"POST", "/v1/v1/proxy/r/v1/x", "v1/", proxy("r", "v1/x")},
		{"POST", "/v1/chat/completions", "v1/", native("v1/chat/completions")},

		{"POST", "/v1/chat/completions", "portkey/", native("v1/chat/completions")},
		{"POST", "/v1/chat/completions", "", native("v1/chat/completions")},
		{"POST", "/v1/portkey2/x", "portkey/", native("v1/portkey2/x")},
		{"GET", "/v1", "portkey/", native("v1")},
		{"GET", "/v1/models/proxy/x/y", "portkey/", native("v1/models/proxy/x/y")},
		{"POST", "/v1/proxy/a/b", "", native("v1/proxy/a/b")},
		{"POST", "/v1beta/models/gemini-2.0-flash:streamGenerateContent?alt=sse", "portkey/", native("v1beta/models/gemini-2.0-flash:streamGenerateContent")},
		{"POST", "/openai/deployments/my-gpt/chat/completions?api-version=2024-10-21", "portkey/", native("openai/deployments/my-gpt/chat/completions")},
		{"POST", "/model/anthropic.claude-3-5-sonnet-20240620-v1%3A0/converse", "portkey/", native("model/anthropic.claude-3-5-sonnet-20240620-v1:0/converse")},
		{"GET", "/v1/models/ft:gpt-4o:my-org::Ab1", "portkey/", native("v1/models/ft:gpt-4o:my-org::Ab1")},
		{"GET", "/v1/models/@cf/meta/llama~3%2B1", "portkey/", native("v1/models/@cf/meta/llama~3+1")},
		{"GET", "/x/!$&'()*+,=:@-._~/y..z/.a/b.", "portkey/", native("x/!$&'()*+,=:@-._~/y..z/.a/b.")},
		{"GET", "/v2/rerank", "portkey/", native("v2/rerank")},
		{"GET", "/healthz/x", "portkey/", native("healthz/x")},

		{"POST", "/v1/portkey/prompts/x/completions", "portkey/", prompt("x", "completions")},
		{"POST", "/v1/portkey/prompts/x@3/render", "portkey/", prompt("x@3", "render")},
		{"POST", "/v1/portkey/prompts/x%40latest/render", "portkey/", prompt("x@latest", "render")},
		{"POST", "/v1/team/llm/prompts/pp-a.b_c/completions", "team/llm/", prompt("pp-a.b_c", "completions")},
		{"POST", "/v1/prompts/x/completions", "portkey/", prompt("x", "completions")},
		{"POST", "/v1/prompts/x@12/render", "", prompt("x@12", "render")},
		// A mount may be called as Portkey's own path.
		{"POST", "/v1/prompts/x/completions", "prompts/", prompt("x", "completions")},
		{"POST", "/v1/prompts/prompts/x/completions", "prompts/", prompt("x", "completions")},
		{"POST", "/v1/prompts/proxy/a/completions", "prompts/", proxy("a", "completions")},
		{"POST", "/t/a/prompts/x@2/completions", "portkey/", route{kind: kindTicket, ticket: "a", prompt: promptCall{"x@2", "completions"}}},
		// What is called prompts elsewhere is no prompt.
		{"POST", "/v1/portkey/proxy/prompts/x/completions", "portkey/", proxy("prompts", "x/completions")},
		{"POST", "/t/a/proxy/prompts/x/completions", "portkey/", route{kind: kindTicket, ticket: "a", role: "prompts", path: "x/completions"}},
		{"GET", "/v1/prompts/x/completions", "portkey/", native("v1/prompts/x/completions")},
		{"POST", "/v1/prompts/x", "portkey/", native("v1/prompts/x")},
		{"POST", "/v2/prompts/x/completions", "portkey/", native("v2/prompts/x/completions")},
		{"GET", "/t", "portkey/", native("t")},
		{"GET", "/v1/chat?a=%2F%2e%2e/../..//x", "portkey/", native("v1/chat")},

		{"POST", "/t/" + ticket + "/proxy/team-a/v1/chat/completions", "", route{kind: kindTicket, ticket: ticket, role: "team-a", path: "v1/chat/completions"}},
		{"GET", "/t/a/proxy/b/c", "portkey/", route{kind: kindTicket, ticket: "a", role: "b", path: "c"}},
	} {
		got, err := parseRoute(asReceived(t, c.method, c.target), c.mount)
		if err != nil || got != c.want {
			t.Errorf("%s %s at %q: %+v, %v; want %+v", c.method, c.target, c.mount, got, err, c.want)
		}
	}
}

func TestRoute_VaultsOwnPathsAreRefusedWithGuidance(t *testing.T) {
	for _, c := range []struct{ method, target, mount, says string }{
		{"GET", "/v1/portkey/roles/x", "portkey/", "Vault's address"},
		{"GET", "/v1/portkey/roles/", "portkey/", "Vault's address"},
		{"POST", "/v1/portkey/keys/openai", "portkey/", "Vault's address"},
		{"GET", "/v1/portkey", "portkey/", "Vault's address"},
		{"GET", "/v1/portkey/", "portkey/", "Vault's address"},
		{"POST", "/v1/portkey/proxy", "portkey/", "Vault's address"},
		{"POST", "/v1/portkey/proxy/team-a", "portkey/", "Vault's address"},
		{"POST", "/v1/portkey/proxyx/team-a/v1/x", "portkey/", "Vault's address"},
		{"POST", "/v1/%70ortkey/keys/openai", "portkey/", "Vault's address"},
		{"POST", "/v1/team/llm/keys/openai", "team/llm/", "Vault's address"},
		{"POST", "/v1/models/keys/openai", "models/", "Vault's address"},
		{"POST", "/v1/chat/keys/openai", "chat/", "Vault's address"},
		{"GET", "/v1/sys/health", "portkey/", "Vault's address"},
		{"GET", "/v1/sys/health", "", "Vault's address"},
		{"POST", "/v1/auth/token/create", "portkey/", "Vault's address"},
		{"GET", "/v1/identity/entity/id/x", "", "Vault's address"},
		{"GET", "/v1/cubbyhole/x", "", "Vault's address"},
		{"POST", "/v1/other/proxy/team-a/v1/chat/completions", "portkey/", "another mount"},
		{"POST", "/v1/ns1/portkey/proxy/team-a/v1/chat/completions", "portkey/", "without a namespace"},
		{"POST", "/v1/PORTKEY/proxy/team-a/v1/x", "portkey/", "another mount"},
		{"POST", "/v1/other/prompts/x/completions", "portkey/", "another mount"},
		{"POST", "/v1/ns1/portkey/prompts/x@1/render", "portkey/", "without a namespace"},
		{"GET", "/v1/portkey/prompts/x/completions", "portkey/", "prompts/<prompt>/completions (POST)"},
		{"POST", "/v1/portkey/prompts/x", "portkey/", "Vault's address"},
		{"POST", "/v1/portkey/prompts/x/publish", "portkey/", "Vault's address"},
		{"POST", "/v1/portkey/prompts/x/y/completions", "portkey/", "Vault's address"},
		{"POST", "/v1/prompts/prompts/x", "prompts/", "Vault's address"},
		{"GET", "/", "portkey/", "nothing at this path"},
	} {
		_, err := parseRoute(asReceived(t, c.method, c.target), c.mount)
		refusedWith(t, err, http.StatusNotFound, apierror.CodeRouteNotFound)
		if err != nil && !strings.Contains(err.Message, c.says) {
			t.Errorf("%s: message doesn't say %q: %s", c.target, c.says, err.Message)
		}
	}
}

func TestRoute_AskedForAProxyPathBeforeTheMountIsKnown_SaysTryAgain(t *testing.T) {
	for _, target := range []string{"/v1/portkey/proxy/team-a/v1/chat/completions", "/v1/portkey/prompts/x/completions"} {
		_, err := parseRoute(asReceived(t, "POST", target), "")
		refusedWith(t, err, http.StatusServiceUnavailable, apierror.CodeGatewayUnavailable)
		if err != nil && err.RetryAfter == 0 {
			t.Error("no time to try again")
		}
	}
}

func TestRoute_NamesThatNoVirtualKeyHasAreNotFound(t *testing.T) {
	for _, role := range []string{"-a", "a-", ".a", "a.", "a..b", "a:b", "a@b", "@a", "a~", "-", "a+b", "%2Ba", "a%3Ab"} {
		for _, target := range []string{"/v1/portkey/proxy/" + role + "/v1/x", "/t/ticket/proxy/" + role + "/v1/x"} {
			_, err := parseRoute(asReceived(t, "POST", target), "portkey/")
			refusedWith(t, err, http.StatusNotFound, apierror.CodeVirtualKeyNotFound)
		}
	}
	_, err := parseRoute(asReceived(t, "POST", "/v1/portkey/proxy/"+strings.Repeat("a", 3000)+"-/x"), "portkey/")
	refusedWith(t, err, http.StatusNotFound, apierror.CodeVirtualKeyNotFound)
	if err != nil && len(err.Message) > 300 {
		t.Errorf("the message repeats %d bytes", len(err.Message))
	}
}

func TestRoute_NamesThatNoPromptHasAreNotFound(t *testing.T) {
	for _, ref := range []string{
		"-a", "a-", "a..b", "a:b", "@", "@1", "a@", "a@@1", "a@1@2", "a@1.5", "a@-1", "a@" + strings.Repeat("1", maxVersion+1), "a%3Ab", "%40a",
		strings.Repeat("a", maxRole+1),
	} {
		for _, target := range []string{"/v1/portkey/prompts/" + ref + "/completions", "/v1/prompts/" + ref + "/render", "/t/ticket/prompts/" + ref + "/render"} {
			_, err := parseRoute(asReceived(t, "POST", target), "portkey/")
			refusedWith(t, err, http.StatusNotFound, apierror.CodePromptNotFound)
			if err != nil && len(err.Message) > 400 {
				t.Errorf("the message repeats %d bytes", len(err.Message))
			}
		}
	}
	for _, target := range []string{
		"/v1/portkey/prompts/../completions", "/v1/portkey/prompts/a%2fb/completions", "/v1/prompts/a%2F..%2Fb/render", "/v1/prompts/%2e%2e/render",
		"/v1/prompts/a%5cb/render", "/v1/prompts/a%00/render", "/v1/prompts/caf%C3%A9/render", "/v1/prompts//render",
	} {
		_, err := parseRoute(asReceived(t, "POST", target), "portkey/")
		refusedWith(t, err, http.StatusBadRequest, apierror.CodeInvalidRequest)
	}
}

func TestRoute_TicketsOfAnotherFormAreRefused(t *testing.T) {
	for _, target := range []string{
		"/t/abc", "/t/abc/team-a", "/t/abc/proxy/team-a", "/t/abc/team-a/x", "/t/abc/keys/x", "/t/abc/prompts/x", "/t/abc/prompts/x/publish",
		"/t/a.c/proxy/team-a/x", "/t/a:c/proxy/team-a/x", "/t/a+/proxy/team-a/x", "/t/a=/prompts/x/render",
		"/t/" + strings.Repeat("a", maxTicket+1) + "/proxy/team-a/x",
	} {
		_, err := parseRoute(asReceived(t, "POST", target), "portkey/")
		refusedWith(t, err, http.StatusNotFound, apierror.CodeTicketInvalid)
	}
}

var genericName = regexp.MustCompile(`^\w(([\w-.]+)?\w)?$`) // framework.GenericNameRegex

// FuzzRoute holds that a path which is let through means the same to every
// reader: to Go's server here, to Vault, which cleans and decodes it, and to a
// provider.
func FuzzRoute(f *testing.F) {
	for _, target := range []string{
		"/healthz", "/v1/chat/completions", "/v1/portkey/proxy/team-a/v1/chat/completions", "/t/abc/proxy/team-a/v1/x", "/t/abc/prompts/x@1/render", "/v1/prompts/x/completions", "/v1/portkey/prompts/x@latest/completions", "/v1/portkey/roles/x",
		"/v1/portkey/proxy/../x/y", "/v1/portkey/proxy/a/%2e%2e/y", "//a/b", "/a%2fb", "/a%252fb", "/a;b/c", "/%6d/x?y=1;z", "http://h/p", "*",
		"/v1/models/a:b@c~d%2Be", "/a\\b", "/caf\xc3\xa9", "/a?b#c", "/a#b", "/v1/a b", "/v1/models/proxy/r/x", "/x/!$&'()*+,=", "/%", "/v1/portkey/proxy/a/b/",
	} {
		f.Add("POST", target, "portkey/")
	}
	f.Add("GET", "/v1/models/proxy/r/v1/models", "models/")
	f.Add("GET", "/v1/caf%C3%A9/proxy/r/v1/models", "café/")
	f.Add("GET", "/v1/a/b/proxy/r/v1/models", "a/b/")
	f.Fuzz(func(t *testing.T, method, target, mount string) {
		if mount == "/" || mount != "" && (!strings.HasSuffix(mount, "/") || path.Clean("/"+mount)+"/" != "/"+mount) {
			return // no mount's path
		}
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(method + " " + target + " HTTP/1.1\r\nHost: h\r\n\r\n")))
		if err != nil {
			return
		}
		got, refusal := parseRoute(r, mount)
		if refusal != nil {
			if got != (route{}) || refusal.Status < 400 || refusal.Code == "" || len(refusal.Message) > 1000 {
				t.Fatalf("%q: refused with %+v and %+v", target, refusal, got)
			}
			return
		}
		checkRouteInvariants(t, r, mount, got)
	})
}

func checkRouteInvariants(t *testing.T, r *http.Request, mount string, got route) {
	t.Helper()
	raw, _, _ := strings.Cut(strings.ToLower(r.RequestURI), "?")
	if strings.Contains(raw, "%2f") {
		t.Fatalf("%q was let through", r.RequestURI)
	}
	var whole string // the one decoded path that the route stands for
	switch got.kind {
	case kindHealth, kindReady:
		if got.path+got.role+got.ticket+got.prompt.ref != "" || r.URL.Path != "/healthz" && r.URL.Path != "/readyz" {
			t.Fatalf("%q: %+v", r.RequestURI, got)
		}
		return
	case kindProxy:
		whole = "/v1/" + mount + "proxy/" + got.role + "/" + got.path
	case kindPrompt:
		whole = "/v1/" + mount + got.below("")
		if native := "/v1/" + got.below(""); native == r.URL.Path {
			whole = native
		}
		if r.Method != http.MethodPost || got.prompt.ref == "" || got.role+got.path+got.ticket != "" {
			t.Fatalf("%q: %+v", r.RequestURI, got)
		}
	case kindNative:
		whole = "/" + got.path
		if got.role+got.ticket != "" || strings.HasPrefix(whole, "/v1/sys/") || mount != "" && strings.HasPrefix(whole, "/v1/"+mount+"proxy/") {
			t.Fatalf("%q: %+v", r.RequestURI, got)
		}
	case kindTicket:
		whole = "/t/" + got.ticket + "/" + got.below(got.role)
		if got.ticket == "" || strings.Contains(got.ticket, "/") {
			t.Fatalf("%q: %+v", r.RequestURI, got)
		}
	default:
		t.Fatalf("%q: kind %d", r.RequestURI, got.kind)
	}
	if whole != r.URL.Path {
		t.Fatalf("%q: judged %q, but the path is %q", r.RequestURI, whole, r.URL.Path)
	}
	name := got.role
	if got.prompt.ref != "" {
		name, _, _ = strings.Cut(got.prompt.ref, "@")
	}
	if got.kind != kindNative && (!genericName.MatchString(name) || strings.Contains(name, "..")) {
		t.Fatalf("%q: name %q", r.RequestURI, name)
	}
	if got.prompt.ref == "" {
		checkSafePath(t, got.path)
	} else {
		checkSafePath(t, got.below(""))
	}
	// Asked of Vault, it is the same again, whoever cleans or decodes it; and
	// this gateway itself reads it as the same virtual key and path.
	role := got.role
	if role == "" && got.prompt.ref == "" {
		role = "team-a"
	}
	if mount == "" {
		return
	}
	below := got.below(role)
	escaped := "/v1/" + vaultPath(mount, below)
	u, err := url.ParseRequestURI(escaped)
	if err != nil || u.Path != "/v1/"+mount+below || path.Clean(u.Path) != u.Path {
		t.Fatalf("%q: Vault would read %q, %v", escaped, u, err)
	}
	if strings.ContainsAny(mount, "%\\") || len(escaped) > maxPath {
		return
	}
	again, refusal := parseRoute(&http.Request{Method: http.MethodPost, URL: u, RequestURI: escaped}, mount)
	want := route{kind: kindProxy, role: role, path: got.path, prompt: got.prompt}
	if got.prompt.ref != "" {
		want.kind = kindPrompt
	}
	if refusal != nil || again != want {
		t.Fatalf("%q: read again as %+v, %v", escaped, again, refusal)
	}
}

func checkSafePath(t *testing.T, p string) {
	t.Helper()
	if p == "" || path.Clean("/"+p) != "/"+p {
		t.Fatalf("path %q", p)
	}
	for i := range len(p) {
		if p[i] <= ' ' || p[i] > '~' || strings.IndexByte(`%\;?#"<>^`+"`{|}", p[i]) >= 0 {
			t.Fatalf("path %q", p)
		}
	}
	for segment := range strings.SplitSeq(p, "/") {
		if strings.Trim(segment, ". ") == "" {
			t.Fatalf("path %q", p)
		}
	}
	escaped := (&url.URL{Path: p}).EscapedPath()
	if decoded, err := url.PathUnescape(escaped); err != nil || decoded != p || strings.Contains(strings.ToLower(escaped), "%2f") {
		t.Fatalf("path %q is escaped as %q, and that decoded as %q, %v", p, escaped, decoded, err)
	}
}

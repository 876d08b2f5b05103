// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"vault-plugin-secrets-portkey/internal/apierror"
)

func TestTarget_PathsThatTwoReadersCouldReadDifferentlyAreRefused(t *testing.T) {
	parts := []string{
		"..", ".", "...", "a/../b", "a/./b", "a//b", "a/", "/", "/a",
		"%2e%2e", "%2E", ".%2e", "%2e./x",
		"a%2fb", "a%2Fb", "..%2fb", "a%5cb", "a%5Cb", "a\\b", "..\\b",
		"a%252fb", "a%25", "%252e%252e", "%c0%ae%c0%ae", "%c0%af",
		"a;b", "a%3Bb", "..;", "..;/b", "%2e%2e%3b/x",
		"a%00", "%00", "a%0d%0aHost:%20x", "a%09b", "a%7f", "a%20b", "%20", "..%20",
		"a%3Fb", "a%23b", "a#b", "a#",
		"caf\xc3\xa9", "caf%C3%A9", "a\xffb", "a%FFb", "\xef\xbc\x8e\xef\xbc\x8e", "%EF%BC%8F", "%E2%80%8B",
		"a\"b", "a%22", "a<b", "a>b", "a^b", "a`b", "a{b", "a|b", "a}b", "a[b]", "a%5bb",
	}
	for _, prefix := range []string{"/", "/v1/", "/v1beta/models/", "/v1/portkey/proxy/team-a/", "/v1/portkey/proxy/team-a/v1/", "/t/ticket/team-a/v1/"} {
		for _, part := range parts {
			if prefix == "/" && part == "/" {
				part = "//"
			}
			for _, target := range []string{prefix + part, prefix + part + "?a=1", prefix + part + "/chat/completions"} {
				_, err := parseRoute(asReceived(t, "POST", target), "portkey/")
				refusedWith(t, err, http.StatusBadRequest, apierror.CodeInvalidRequest)
				if t.Failed() {
					t.Fatalf("at %q", target)
				}
			}
		}
	}
	// In place of the virtual key or ticket.
	for _, target := range []string{
		"/v1/portkey/proxy/../v1/x", "/v1/portkey/proxy//v1/x", "/v1/portkey/proxy/%2e%2e/roles/x", "/v1/portkey/proxy/team%2fa/v1/x",
		"/v1/portkey/proxy/team%00/v1/x", "/v1/portkey/proxy/te%C3%A9am/v1/x", "/t//proxy/team-a/v1/x", "/t/../proxy/team-a/v1/x", "/t/abc/proxy//v1/x", "/t/abc//v1/x",
		"/v1/portkey%2fproxy/team-a/v1/x", "/v1%2fportkey/proxy/team-a/v1/x", "//v1/portkey/proxy/team-a/v1/x", "/v1//portkey/proxy/team-a/v1/x",
		"/./healthz", "//healthz", "/healthz/", "/x/../healthz", "/healthz%2f", "//evil.test/v1/chat/completions", "/v1/../../v1/x",
	} {
		_, err := parseRoute(asReceived(t, "POST", target), "portkey/")
		refusedWith(t, err, http.StatusBadRequest, apierror.CodeInvalidRequest)
		if t.Failed() {
			t.Fatalf("at %q", target)
		}
	}
	// A way out of the mount, and one into it, are no way either.
	for _, target := range []string{"/v1/portkey/../sys/health", "/v1/portkey/proxy/..", "/v1/portkey/./proxy/team-a/v1/x", "/v1/x/../portkey/proxy/team-a/v1/x"} {
		if got, err := parseRoute(asReceived(t, "POST", target), "portkey/"); err == nil {
			t.Errorf("%s: let through as %+v", target, got)
		}
	}
}

func TestTarget_OtherFormsThanAPathAreRefused(t *testing.T) {
	for _, target := range []string{
		"http://gateway.test/v1/chat/completions", "https://evil.test/v1/x", "http://evil.test", "HTTP://gateway.test/healthz", "ftp://h/x", "x:/y", "x:y",
	} {
		r := asReceived(t, "POST", target)
		if r.URL.Path == "/healthz" {
			r = asReceived(t, "GET", target)
		}
		_, err := parseRoute(r, "portkey/")
		refusedWith(t, err, http.StatusBadRequest, apierror.CodeInvalidRequest)
		if t.Failed() {
			t.Fatalf("at %q", target)
		}
	}
	// A server never has these; they are refused all the same.
	for _, r := range []*http.Request{
		{Method: "POST", RequestURI: "", URL: &url.URL{Path: "/v1/x"}},
		{Method: "POST", RequestURI: "*", URL: &url.URL{Path: "*"}},
		{Method: "POST", RequestURI: "/v1/x", URL: &url.URL{Path: "/v1/y"}},
		{Method: "POST", RequestURI: "/v1/%zz", URL: &url.URL{Path: "/v1/%zz"}},
	} {
		_, err := parseRoute(r, "portkey/")
		refusedWith(t, err, http.StatusBadRequest, apierror.CodeInvalidRequest)
	}
}

func TestTarget_OnlyMethodsThatAreServedPass(t *testing.T) {
	for _, c := range []struct{ method, target string }{
		{"CONNECT", "gateway.test:443"}, {"CONNECT", "/v1/x"}, {"TRACE", "/v1/x"}, {"OPTIONS", "*"}, {"OPTIONS", "/v1/x"},
		{"PUT", "/v1/x"}, {"PATCH", "/v1/x"}, {"HEAD", "/v1/x"}, {"LIST", "/v1/x"}, {"get", "/v1/x"}, {"PRI", "*"},
		{"POST", "/healthz"}, {"DELETE", "/readyz"}, {"OPTIONS", "/healthz"}, {"HEAD", "/v1/portkey/proxy/a/v1/x"}, {"PUT", "/t/a/b/c"},
	} {
		_, err := parseRoute(asReceived(t, c.method, c.target), "portkey/")
		refusedWith(t, err, http.StatusMethodNotAllowed, apierror.CodeMethodNotAllowed)
		if t.Failed() {
			t.Fatalf("at %s %q", c.method, c.target)
		}
	}
	_, err := parseRoute(asReceived(t, strings.Repeat("M", 5000), "/v1/x"), "")
	refusedWith(t, err, http.StatusMethodNotAllowed, apierror.CodeMethodNotAllowed)
	if err != nil && len(err.Message) > 200 {
		t.Errorf("the message repeats %d bytes", len(err.Message))
	}
}

func TestTarget_UpgradesAreRefusedButForAnOfferOfH2C(t *testing.T) {
	for _, headers := range [][]string{
		{"Connection: Upgrade", "Upgrade: websocket"}, {"Upgrade: WebSocket"}, {"Upgrade: h2c, websocket"},
		{"Upgrade: h2c", "Upgrade: websocket"}, {"Upgrade: TLS/1.0"}, {"Upgrade: h2"}, {"upgrade: h2cx"},
	} {
		for _, target := range []string{"/v1/realtime?model=m", "/healthz"} {
			_, err := parseRoute(asReceived(t, "GET", target, headers...), "portkey/")
			refusedWith(t, err, http.StatusBadRequest, apierror.CodeInvalidRequest)
			if err != nil && !strings.Contains(err.Message, "WebSocket") {
				t.Errorf("%v: %s", headers, err.Message)
			}
		}
	}
	for _, headers := range [][]string{
		{"Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA"},
		{"Upgrade:"}, {"Upgrade: H2C ,"}, {"Connection: upgrade"},
	} {
		if _, err := parseRoute(asReceived(t, "POST", "/v1/chat/completions", headers...), "portkey/"); err != nil {
			t.Errorf("%v: %v", headers, err)
		}
	}
}

func TestTarget_LongPathsAreRefused(t *testing.T) {
	long := "/v1/" + strings.Repeat("a", maxPath-len("/v1/"))
	if _, err := parseRoute(asReceived(t, "POST", long+"?"+strings.Repeat("b", 2*maxPath)), "portkey/"); err != nil {
		t.Errorf("the longest path: %v", err)
	}
	for _, target := range []string{long + "a", "/" + strings.Repeat("%61", maxPath/3+1)} {
		_, err := parseRoute(asReceived(t, "POST", target), "portkey/")
		refusedWith(t, err, http.StatusRequestURITooLong, apierror.CodeRequestTooLarge)
	}
}

func TestTarget_QueriesThatTwoReadersCouldReadDifferentlyAreRefused(t *testing.T) {
	for _, query := range []string{"a=1;b=2", ";", "a=1#b", "#", "a=%zz", "%=1", "a=%1", "a=caf\xc3\xa9", "a=\xff"} {
		_, err := parseRoute(asReceived(t, "GET", "/v1/files?"+query), "portkey/")
		refusedWith(t, err, http.StatusBadRequest, apierror.CodeInvalidRequest)
		if err != nil && strings.Contains(query, ";") && !strings.Contains(err.Message, "';'") {
			t.Errorf("%q: %s", query, err.Message)
		}
		if t.Failed() {
			t.Fatalf("at %q", query)
		}
	}
	for _, query := range []string{"", "a", "a=1&b=2", "a[]=1&b={\"x\":[1|2]}", "a=%3B%23%26+%00%C3%A9", "&&", "a=b=c?d/e\\"} {
		if _, err := parseRoute(asReceived(t, "GET", "/v1/files?"+query), "portkey/"); err != nil {
			t.Errorf("%q: %v", query, err)
		}
	}
}

// Vault takes PUT for POST, and an app that goes from Vault to the gateway changes only
// host and port. Providers tell the two apart.
func TestTarget_PutIsReadAsPostWhereVaultsAppsSendIt(t *testing.T) {
	for path, want := range map[string]string{
		chatPath:                               "POST",
		promptPath:                             "POST",
		"/v1/another/proxy/a/v1/x":             "POST", // which is told so
		"/v1/chat/proxy/a/v1/chat/completions": "POST",
		"/t/ticket/proxy/a/v1/x":               "POST",
		"/v1/chat/completions":                 "PUT",
		portkeysPath:                           "PUT",
		"/v1/files/f":                          "PUT",
		"/v1/" + testMount + "config":          "PUT",
		"/v1/proxy/a":                          "PUT",
		"/proxy/a/v1/x":                        "PUT",
		"/healthz":                             "PUT",
		"/":                                    "PUT",
		"*":                                    "PUT",
	} {
		r := httptest.NewRequest("PUT", "/", nil)
		r.URL.Path = path
		if got := asVaultReads(r); got.Method != want || got.URL.Path != path || r.Method != "PUT" {
			t.Errorf("%s: %s", path, got.Method)
		}
		for _, method := range []string{"GET", "DELETE", "PATCH"} {
			r.Method = method
			if got := asVaultReads(r); got.Method != method {
				t.Errorf("%s of %s: %s", method, path, got.Method)
			}
		}
	}
}

func TestTarget_PutOnAMountsPathIsServedAsThePostThatItIsInVault(t *testing.T) {
	r := newPromptRig(t)
	for _, path := range []string{chatPath, promptPath} {
		text := hello
		if path == promptPath {
			text = called
		}
		wantOK(t, r.send(request("PUT", path, "tok", text)))
		if got := r.provider.last(t); got.method != "POST" {
			t.Errorf("%s: the provider got a %s", path, got.method)
		}
		if a := r.vault.questions()[r.vault.count()-1]; a.method != "POST" {
			t.Errorf("%s: Vault was asked about a %s", path, a.method)
		}
	}
	// It is the same question.
	asked := r.vault.count()
	if wantOK(t, r.chat("tok", hello)); r.vault.count() != asked {
		t.Error("Vault was asked again")
	}
	wantRefusal(t, r.send(request("PUT", "/v1/files/f", "tok", hello)), 405, apierror.CodeMethodNotAllowed)
}

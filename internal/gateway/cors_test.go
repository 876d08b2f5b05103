// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

func mustCORS(t *testing.T, origins ...string) *cors {
	t.Helper()
	c, err := newCORS(origins)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// preflighted is the answer to a preflight; nil if it was none.
func preflighted(t *testing.T, c *cors, method string, headers ...string) *http.Response {
	t.Helper()
	r := asReceived(t, method, "/v1/chat/completions", headers...)
	if !isPreflight(r) {
		return nil
	}
	w := httptest.NewRecorder()
	c.preflight(w, r)
	return w.Result()
}

func TestCORS_OriginsThatNoBrowserSendsAreRefused(t *testing.T) {
	many := make([]string, maxOrigins+1)
	for i := range many {
		many[i] = "https://a.test"
	}
	for _, c := range []struct {
		origins []string
		says    string
	}{
		{[]string{""}, "no origin"},
		{[]string{"app.example.com"}, "https://app.example.com:8443"},
		{[]string{"localhost:3000"}, "no origin"},
		{[]string{"https://"}, "no origin"},
		{[]string{"https://:8443"}, "no origin"},
		{[]string{"//app.example.com"}, "no origin"},
		{[]string{"https:app.example.com"}, "no origin"},
		{[]string{"https://app.example.com:port"}, "no origin"},
		{[]string{"data:text/html"}, "no origin"},
		{[]string{"https://app.example.com/"}, "slash at the end"},
		{[]string{"https://app.example.com/path"}, "path"},
		{[]string{"https://app.example.com?x"}, "more than"},
		{[]string{"https://app.example.com#x"}, "more than"},
		{[]string{"https://user@app.example.com"}, "user"},
		{[]string{"https://*.example.com"}, "list each"},
		{[]string{"https://App.example.com"}, "lower case"},
		{[]string{"HTTPS://app.example.com"}, "lower case"},
		{[]string{"https://bücher.example"}, "xn--"},
		{[]string{"https://a.test,https://b.test"}, "slash at the end"},
		{[]string{"https://a.test,b.test"}, "a character"},
		{[]string{"https://a.test:443"}, "leave it out"},
		{[]string{"http://a.test:80"}, "leave it out"},
		{[]string{"https://a.test:"}, "leave it out"},
		{[]string{"null"}, "sandboxed"},
		{[]string{"*", "https://a.test"}, "the others"},
		{[]string{"https://a.test", "*"}, "the others"},
		{[]string{"https://a.test", "https://b.test/"}, "item 2"},
		{many, "most is 100"},
	} {
		if _, err := newCORS(c.origins); err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "allowed_origins") {
			t.Errorf("%.80q: %v; want an error that says %q", c.origins, err, c.says)
		}
	}
	mustCORS(t, "https://app.example.com", "http://localhost:3000", "https://a.test:8443", "http://a.test:443", "http://[::1]:3000",
		"http://192.168.0.1", "capacitor://localhost", "chrome-extension://abcdefgh", "https://xn--bcher-kva.example")
}

func TestCORS_PreflightOfAnAllowedPageIsAnsweredWithoutACredential(t *testing.T) {
	const asked = "authorization,content-type, x-portkey-virtual-key,x-stainless-lang"
	for configured, allow := range map[string]string{"https://app.test": "https://app.test", "*": "*"} {
		got := preflighted(t, mustCORS(t, configured), "OPTIONS", "Origin: https://app.test",
			"Access-Control-Request-Method: POST", "Access-Control-Request-Headers: "+asked)
		if got == nil || got.StatusCode != http.StatusNoContent {
			t.Fatalf("%s: %v", configured, got)
		}
		for name, want := range map[string]string{
			"Access-Control-Allow-Origin": allow, "Access-Control-Allow-Methods": "GET, POST, DELETE",
			"Access-Control-Allow-Headers": asked, "Access-Control-Max-Age": "600", "Vary": "Origin",
			"Access-Control-Allow-Credentials": "", "Access-Control-Expose-Headers": "",
		} {
			if got.Header.Get(name) != want {
				t.Errorf("%s: %s is %q, want %q", configured, name, got.Header.Get(name), want)
			}
		}
	}
}

func TestCORS_PreflightOfAnyOtherPageLearnsNothing(t *testing.T) {
	const method = "Access-Control-Request-Method: POST"
	on := mustCORS(t, "https://app.test", "http://localhost:3000")
	for name, c := range map[string]struct {
		cors    *cors
		headers []string
	}{
		"nil":                 {nil, []string{"Origin: https://app.test", method}},
		"off":                 {mustCORS(t), []string{"Origin: https://app.test", method}},
		"off, empty origin":   {mustCORS(t), []string{"Origin:", method}},
		"another host":        {on, []string{"Origin: https://evil.test", method}},
		"another scheme":      {on, []string{"Origin: http://app.test", method}},
		"another port":        {on, []string{"Origin: http://localhost:3001", method}},
		"a longer name":       {on, []string{"Origin: https://app.test.evil.test", method}},
		"a name before it":    {on, []string{"Origin: https://evilapp.test", method}},
		"null":                {on, []string{"Origin: null", method}},
		"empty":               {on, []string{"Origin:", method}},
		"two, one allowed":    {on, []string{"Origin: https://app.test", "Origin: https://evil.test", method}},
		"two in one":          {on, []string{"Origin: https://app.test, https://evil.test", method}},
		"two under wild card": {mustCORS(t, "*"), []string{"Origin: https://a.test", "Origin: https://b.test", method}},
	} {
		got := preflighted(t, c.cors, "OPTIONS", c.headers...)
		if got == nil || got.StatusCode != http.StatusForbidden || len(got.Header) > 0 {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestCORS_WhatIsNoPreflightIsPassedOn(t *testing.T) {
	const origin, method = "Origin: https://app.test", "Access-Control-Request-Method: POST"
	for name, c := range map[string]struct {
		method  string
		headers []string
	}{
		"a request of a page": {"POST", []string{origin}},
		"POST":                {"POST", []string{origin, method}},
		"GET":                 {"GET", []string{origin, method}},
		"without origin":      {"OPTIONS", []string{method}},
		"without method":      {"OPTIONS", []string{origin}},
		"with empty method":   {"OPTIONS", []string{origin, "Access-Control-Request-Method:"}},
	} {
		for _, c2 := range []*cors{nil, mustCORS(t, "https://app.test")} {
			if got := preflighted(t, c2, c.method, c.headers...); got != nil {
				t.Errorf("%s: %+v", name, got)
			}
		}
	}
}

func TestCORS_HeadersThatAreNoNamesAreNotRepeated(t *testing.T) {
	for _, asked := range []string{"", "a,,b", "a b", "a:b", "x\"y", "x(y)", "é", ",", "a,", strings.Repeat("a", maxAskedHeaders+1)} {
		got := preflighted(t, mustCORS(t, "*"), "OPTIONS", "Origin: https://app.test",
			"Access-Control-Request-Method: POST", "Access-Control-Request-Headers: "+asked)
		if got == nil || got.StatusCode != http.StatusNoContent || len(got.Header["Access-Control-Allow-Headers"]) > 0 {
			t.Errorf("%.40q: %+v", asked, got)
		}
	}
	got := preflighted(t, mustCORS(t, "*"), "OPTIONS", "Origin: https://app.test", "Access-Control-Request-Method: POST",
		"Access-Control-Request-Headers: a", "Access-Control-Request-Headers: x-!#$%&'*+.^_`|~9")
	if names := got.Header.Get("Access-Control-Allow-Headers"); names != "a,x-!#$%&'*+.^_`|~9" {
		t.Errorf("two lines: %q", names)
	}
}

func TestCORS_AnswersCanBeReadByAllowedPagesOnly(t *testing.T) {
	exact, every := mustCORS(t, "https://app.test"), mustCORS(t, "*")
	for name, c := range map[string]struct {
		cors   *cors
		origin []string
		allow  string
		vary   []string
	}{
		"allowed":             {exact, []string{"Origin: https://app.test"}, "https://app.test", []string{"Accept-Encoding", "Origin"}},
		"another":             {exact, []string{"Origin: https://evil.test"}, "", []string{"Accept-Encoding", "Origin"}},
		"no page":             {exact, nil, "", []string{"Accept-Encoding", "Origin"}},
		"every":               {every, []string{"Origin: https://evil.test"}, "*", []string{"Accept-Encoding"}},
		"every, after a hop":  {every, []string{"Origin: null"}, "*", []string{"Accept-Encoding"}},
		"every, no page":      {every, nil, "", []string{"Accept-Encoding"}},
		"off":                 {mustCORS(t), []string{"Origin: https://app.test"}, "", []string{"Accept-Encoding"}},
		"nil":                 {nil, []string{"Origin: https://app.test"}, "", []string{"Accept-Encoding"}},
		"two of them at once": {exact, []string{"Origin: https://app.test", "Origin: https://app.test"}, "", []string{"Accept-Encoding", "Origin"}},
	} {
		h := http.Header{"Vary": {"Accept-Encoding"}}
		c.cors.apply(h, asReceived(t, "POST", "/v1/x", c.origin...))
		exposed := h.Get("Access-Control-Expose-Headers")
		if h.Get("Access-Control-Allow-Origin") != c.allow || !slices.Equal(h["Vary"], c.vary) || (exposed != "") != (c.allow != "") {
			t.Errorf("%s: %v", name, h)
		}
		if len(h["Access-Control-Allow-Credentials"]) > 0 || strings.Contains(exposed, "*") {
			t.Errorf("%s: %v", name, h)
		}
	}
}

func TestCORS_ListIsItsOwn(t *testing.T) {
	origins := []string{"https://app.test"}
	c, err := newCORS(origins)
	if err != nil {
		t.Fatal(err)
	}
	origins[0] = "https://evil.test"
	h := http.Header{}
	c.apply(h, asReceived(t, "POST", "/v1/x", "Origin: https://evil.test"))
	if h.Get("Access-Control-Allow-Origin") != "" {
		t.Error("the caller's list was kept")
	}
}

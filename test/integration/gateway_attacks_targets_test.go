// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// targets are request lines and hosts that name another server, or none.
func (a *attacked) targets(t *testing.T) {
	host := strings.TrimPrefix(a.url, "http://")
	get := "/v1/" + proxyPath(a.mount, "open", "v1/models")
	for name, c := range map[string]struct {
		text   string
		status int
	}{
		"absolute":                 {a.line("GET", "http://gateway"+get), 400},
		"absolute, of the gateway": {a.line("GET", "http://"+host+get), 400},
		"absolute, of a provider":  {a.line("GET", "http://"+a.shut.Addr()+"/v1/models"), 400},
		"absolute, of Vault":       {a.line("GET", a.vault.Addr+"/v1/sys/health"), 400},
		"absolute, by https":       {a.line("GET", "https://gateway"+get), 400},
		"authority":                {a.line("GET", a.shut.Addr()), 400},
		"CONNECT":                  {a.line("CONNECT", a.shut.Addr()), 405},
		"CONNECT, a path":          {a.line("CONNECT", get), 405},
		"TRACE":                    {a.line("TRACE", get), 405},
		"a star":                   {a.line("OPTIONS", "*"), 405},
		"a star, with GET":         {a.line("GET", "*"), 400},
		"OPTIONS":                  {a.line("OPTIONS", get), 405},
		"PUT":                      {a.line("PUT", "/v1/models"), 405},
		"PATCH":                    {a.line("PATCH", get), 405},
		"LIST":                     {a.line("LIST", get), 405},
		"a method in small":        {a.line("get", get), 405},
		"a method of its own":      {a.line("GET\x01", get), 400},
		"two slashes":              {a.line("GET", "//"+a.shut.Addr()+"/v1/models"), 400},
		"a backslash":              {a.line("GET", "\\"+get), 400},
		"no slash":                 {a.line("GET", get[1:]), 400},
		"a fragment":               {a.line("GET", get+"#x"), 400},
		"a space in it":            {a.line("GET", get+" x"), 400},
		"a NUL in it":              {a.line("GET", get+"\x00"), 400},
		"HTTP/0.9":                 {"GET " + get + "\r\n\r\n", 400},
		"HTTP/1.2":                 {strings.Replace(a.line("GET", get), "HTTP/1.1", "HTTP/1.2", 1), 200},
		"HTTP/3.0":                 {strings.Replace(a.line("GET", get), "HTTP/1.1", "HTTP/3.0", 1), 505},
		"lower case version":       {strings.Replace(a.line("GET", get), "HTTP/1.1", "http/1.1", 1), 400},
		"no host":                  {strings.Replace(a.line("GET", get), "Host: gateway\r\n", "", 1), 400},
		"two hosts":                {a.line("GET", get, "Host: other"), 400},
		"the same host twice":      {a.line("GET", get, "Host: gateway"), 400},
		"a user in the host":       {strings.Replace(a.line("GET", get), "Host: gateway", "Host: user:word@gateway", 1), 400},
		"a path in the host":       {strings.Replace(a.line("GET", get), "Host: gateway", "Host: gateway/x", 1), 400},
		"a space in the host":      {strings.Replace(a.line("GET", get), "Host: gateway", "Host: a b", 1), 400},
	} {
		served := 0
		if c.status == 200 {
			served = 1
		}
		a.reached(t, served, func() {
			answers, _ := a.raw(t, c.text)
			if len(answers) != 1 || answers[0].status != c.status {
				t.Errorf("%s: got %v, want %d", name, answers, c.status)
			}
		})
	}
	// Which host it is that the caller means is nothing to the gateway, or to the
	// provider.
	for _, name := range []string{"other.example.com", host + "9", "127.0.0.1:1", a.shut.Addr(), "", "[::1]:80", strings.Repeat("a", 1000)} {
		got := a.reached(t, 1, func() {
			answers, _ := a.raw(t, strings.Replace(a.usual("X-Forwarded-Host: other", "Forwarded: host=other"), "Host: gateway", "Host: "+name, 1))
			if len(answers) != 1 || answers[0].status != http.StatusOK {
				t.Errorf("%q: %v", name, answers)
			}
		})
		if len(got) == 1 && got[0].Host != a.up.Addr() {
			t.Errorf("for the host %q the provider was asked as %q", name, got[0].Host)
		}
	}
	a.serves(t)
}

// strays are ways to write a segment that leads elsewhere.
func strays() []string {
	return []string{
		"..", ".", "...", "%2e%2e", "%2E%2e", ".%2e", "%2e", "..%2f", "%2f", "%2F..%2F", "%5c", "%5C..%5C", "..\\", "\\..\\", "",
		";", "..;", ";x=y/..", "..;/", "%3b", "%00", "..%00", "%25", "%252e%252e", "%252f", "%25252e", "%c0%ae%c0%ae", "%e0%80%ae", "%u002e",
		"%", "%2", "%zz", "%0d%0aX:%20y", "%0a", "%20", "%09", "%7f", "%23", "%3f", "%ff", "%ef%bc%8f", "%e2%80%ae", "\x7f", "\xff", "|", "^", "`", "{", "\"", "<",
	}
}

// paths lead from one virtual key to another, or from a provider's API to the rest of
// its server, in the eyes of somebody.
func (a *attacked) paths(t *testing.T) {
	base := "/v1/" + a.mount
	var tried []string
	for _, s := range strays() {
		tried = append(tried,
			base+"/proxy/open/"+s+"/shut/v1/models", base+"/proxy/"+s+"/v1/models", base+"/proxy/open/v1/"+s+"/models", base+"/proxy/open/v1/models/"+s,
			base+"/proxy/open/"+s, base+"/"+s+"/proxy/open/v1/models", base+"/proxy/open"+s+"/v1/models", base+"/proxy/open/v1/models"+s+"/../../../shut/v1/models",
			base+"/proxy/shut/"+s+"/open/v1/models", "/v1/models/"+s, "/"+s+"/v1/models", "/v1/"+s+"/sys/mounts",
			"/t/"+strings.Repeat("A", 43)+"/proxy/"+s+"/v1/models", "/t/"+strings.Repeat("A", 43)+"/"+s+"/open/v1/models", "/t/"+s+"/proxy/open/v1/models",
		)
	}
	odd, asked := 0, len(a.asks(t, a.mount+"/proxy/shut"))
	for _, target := range tried {
		text := a.line("GET", target, "X-Portkey-Virtual-Key: open", "Connection: close")
		before := a.up.Received()
		answers, _ := a.raw(t, text)
		if len(answers) != 1 {
			t.Errorf("%q: %d answers", target, len(answers))
			continue
		}
		received := a.up.Received() - before
		switch got := answers[0].status; {
		case got >= 400 && got < 500 && received == 0:
			odd++
		case received > 1 || received == 0:
			t.Errorf("%q: %d, and %d requests reached the provider", target, got, received)
		default: // it was harmless, and must have arrived as it was meant
			if r := lastRequest(t, a.up); !strings.HasSuffix(target, strings.TrimPrefix(r.Path, "/v1/")) || strings.ContainsAny(r.Path, "%\\;") || strings.Contains(r.Path, "..") {
				t.Errorf("%q reached the provider as %q", target, r.Path)
			}
		}
	}
	if odd < len(tried)/2 {
		t.Errorf("only %d of %d were refused, so that the test proves little", odd, len(tried))
	}
	if n := len(a.asks(t, a.mount+"/proxy/shut")) - asked; n != 0 {
		t.Errorf("Vault was asked about the other virtual key %d times", n)
	}
	a.serves(t)
	a.pathsAtVault(t, tried)
}

// pathsAtVault sends the same to Vault's own address, which follows other rules: what
// passes must not leave the provider's API.
func (a *attacked) pathsAtVault(t *testing.T, tried []string) {
	before, shut := a.up.Received(), a.shut.Received()
	addr := strings.TrimPrefix(a.vault.Addr, "http://")
	for _, target := range tried {
		if strings.HasPrefix(target, "/t/") {
			continue
		}
		_, _ = a.converse(t, addr, a.line("GET", target, "Connection: close"))
	}
	for _, r := range append(a.up.Requests()[before:], a.shut.Requests()[shut:]...) {
		path, err := url.PathUnescape(r.Path)
		if err != nil || !strings.HasPrefix(path, "/v1/") || strings.ContainsAny(path, "%\\;?#\r\n\x00") || strings.Contains(path, "..") || strings.Contains(path, "//") {
			t.Errorf("through Vault, %s reached a provider", r.Path)
		}
	}
	if n := a.shut.Received() - shut; n != 0 { // its token may, but no target above names it before anything else
		t.Errorf("%d requests reached the other virtual key, first as %s", n, a.shut.Requests()[shut].Path)
	}
}

// baseURLs are addresses that a provider key may not be sent to.
func (a *attacked) baseURLs(t *testing.T) {
	a.root.Write(t, mount+"/keys/inner", map[string]any{"provider": "openai-compatible", "base_url": a.vault.Addr + "/v1", "api_key": a.secret()})
	a.role(t, "inner", map[string]any{"key": "inner"})
	token := a.gatewayRig.token(t, "inner")
	a.root.Write(t, mount+"/config", map[string]any{"allowed_upstream_hosts": []string{a.up.Addr()}})
	defer a.root.Write(t, mount+"/config", map[string]any{"allowed_upstream_hosts": ""})
	for _, base := range []string{
		a.vault.Addr + "/v1", a.believing + "/v1", a.url + "/v1", "http://169.254.169.254/latest/meta-data", "https://metadata.google.internal/v1",
		"http://127.0.0.1:1/v1", "http://[::1]:8200/v1", "http://0.0.0.0:8200/v1", "http://" + a.up.Addr() + "@127.0.0.1:1/v1", "http://2130706433/v1",
		"http://" + a.up.Addr() + ".example.com/v1", "file:///etc/passwd", "gopher://127.0.0.1:1/", "unix:///run/x.sock",
	} {
		resp := do(t, a.root, http.MethodPost, mount+"/keys/elsewhere", map[string]any{"provider": "openai-compatible", "base_url": base, "api_key": a.secret()})
		if resp.Status != http.StatusBadRequest {
			t.Errorf("a key for %s was stored: %s", base, resp)
		}
	}
	resp := post(t, a.atGateway(t, token), a.chatOf("inner"), hello("up-ok"))
	wantError(t, resp, http.StatusForbidden, "upstream_not_allowed")
	a.serves(t)
}

// redirects of the provider are not followed.
func (a *attacked) redirects(t *testing.T) {
	for _, to := range []string{a.shut.URL() + "/models", a.vault.Addr + "/v1/sys/health", "http://169.254.169.254/latest", "/v1/models", "//" + a.shut.Addr() + "/v1/models", "ftp://x/"} {
		for _, code := range []int{301, 302, 303, 307, 308} {
			resp := post(t, a.atGateway(t, a.token), a.chatOf("open"), hello(fmt.Sprintf("up-redirect:%d:%s", code, to)))
			wantError(t, resp, http.StatusBadGateway, "upstream_unreachable", "redirect")
			if resp.Header.Get("Location") != "" {
				t.Errorf("the caller is sent to %q", resp.Header.Get("Location"))
			}
		}
	}
	a.serves(t)
}

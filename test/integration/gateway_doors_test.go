// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"

	"vault-plugin-secrets-portkey/test/vaulttest"
)

// errand is a request on a virtual key, whichever door it takes. The zero value
// asks for a completion of up-ok.
type errand struct {
	method string         // "" is POST
	path   string         // of the provider; "" is v1/chat/completions
	body   map[string]any // of a POST; nil is hello("up-ok")
	header http.Header
}

func (e errand) complete() errand {
	if e.method == "" {
		e.method = http.MethodPost
	}
	if e.path == "" {
		e.path = "v1/chat/completions"
	}
	if e.method == http.MethodPost && e.body == nil {
		e.body = hello("up-ok")
	}
	return e
}

// with is the errand with further headers.
func (e errand) with(header http.Header) errand {
	all := e.header.Clone()
	if all == nil {
		all = http.Header{}
	}
	maps.Copy(all, header)
	e.header = all
	return e
}

// door is a way to a virtual key.
type door struct {
	name string
	// redirect is what the gateway's setting must be for it.
	redirect string
	// gateway says that it is the gateway that asks Vault.
	gateway bool
	send    func(c caller, t *testing.T, role string, e errand) *vaulttest.Response
}

// caller is where a request comes from, and whose it is.
type caller struct {
	*gatewayRig
	source, token string
}

// doors are all ways to a virtual key with a Vault token.
func doors() []door {
	return []door{
		{"Inline", "off", false, caller.inline},
		{"GatewaySamePath", "off", true, caller.samePath},
		{"GatewayVirtualKeyInHeader", "off", true, caller.headerNames},
		{"GatewayVirtualKeyInModel", "off", true, caller.modelNames},
		{"RedirectFromVault", "all", false, caller.redirected},
	}
}

func (c caller) inline(t *testing.T, role string, e errand) *vaulttest.Response {
	t.Helper()
	return e.send(t, from(t, c.source, c.vault.Addr, c.token), proxyPath(c.mount, role, e.path))
}

func (c caller) samePath(t *testing.T, role string, e errand) *vaulttest.Response {
	t.Helper()
	return e.send(t, from(t, c.source, c.url, c.token), proxyPath(c.mount, role, e.path))
}

// headerNames asks as an OpenAI SDK does that has a default header.
func (c caller) headerNames(t *testing.T, role string, e errand) *vaulttest.Response {
	t.Helper()
	e = e.with(http.Header{"Authorization": {"Bearer " + c.token}, "X-Portkey-Virtual-Key": {role}})
	return e.send(t, from(t, c.source, c.url, ""), strings.TrimPrefix(e.path, "v1/"))
}

// modelNames asks as Portkey's SDK does, which has a placeholder for the API key.
// Without a model, the provider names the virtual key.
func (c caller) modelNames(t *testing.T, role string, e errand) *vaulttest.Response {
	t.Helper()
	e = e.with(http.Header{"X-Portkey-Api-Key": {c.token}, "Authorization": {"Bearer a-placeholder"}})
	if model, ok := e.body["model"].(string); ok {
		e.body = with(maps.Clone(e.body), map[string]any{"model": "@" + role + "/" + model})
	} else {
		e.header.Set("X-Portkey-Provider", "@"+role)
	}
	return e.send(t, from(t, c.source, c.url, ""), strings.TrimPrefix(e.path, "v1/"))
}

// redirected goes where Vault sends it.
func (c caller) redirected(t *testing.T, role string, e errand) *vaulttest.Response {
	t.Helper()
	return e.send(t, following(from(t, c.source, c.vault.Addr, c.token)), proxyPath(c.mount, role, e.path))
}

// send sends the errand to path and reads the answer.
func (e errand) send(t *testing.T, c *vaulttest.Client, path string) *vaulttest.Response {
	t.Helper()
	var body io.Reader
	if e.body != nil {
		body = bytes.NewReader(jsonOf(t, e.body))
	}
	req, err := c.NewRequest(t.Context(), e.method, path, body)
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(req.Header, e.header)
	return roundTrip(t, c, req)
}

// roundTrip sends a request and reads the answer.
func roundTrip(t *testing.T, c *vaulttest.Client, req *http.Request) *vaulttest.Response {
	t.Helper()
	resp, err := c.HTTP.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return &vaulttest.Response{Status: resp.StatusCode, Header: resp.Header, Body: text}
}

func jsonOf(t *testing.T, v any) []byte {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// try sends an errand through the door, which must be open as its redirect says,
// and says whether it reached the provider. Any other end than that or a refusal
// ends the test.
func (d door) try(t *testing.T, c caller, role string, e errand) (reached bool, resp *vaulttest.Response) {
	t.Helper()
	before := c.up.Received()
	resp = d.send(c, t, role, e.complete())
	reached = c.up.Received() > before
	if reached != (resp.Status == http.StatusOK) || !reached && resp.Status != http.StatusForbidden {
		t.Fatalf("the answer is %.1000s, and the provider was asked: %t", resp, reached)
	}
	return reached, resp
}

// sources hands out addresses of callers, each once: what one caller does wrong
// counts against its address.
type sources struct{ n int }

func (s *sources) next() string {
	s.n++
	return fmt.Sprintf("127.3.%d.%d", s.n/250, 1+s.n%250)
}

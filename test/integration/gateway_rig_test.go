// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"strings"
	"testing"

	"vault-plugin-secrets-portkey/test/upstream"
	"vault-plugin-secrets-portkey/test/vaulttest"
)

// gatewayRig is a Vault with the plugin at mount and its gateway on. Callers may
// come from any address of 127.0.0.0/8, which Linux has without further ado.
type gatewayRig struct {
	vault *vaulttest.Vault
	root  *vaulttest.Client
	mount string
	up    *upstream.Server // the provider of the provider key "main"
	// believing is the URL of Vault's listener that believes X-Forwarded-For from
	// loopback: vault_address unless the settings say otherwise.
	believing string
	url       string // the gateway's, without a slash at its end
}

// gatewayOptions say what startGateway starts. The zero value is a dev server with
// the mount "portkey" and the gateway's defaults.
type gatewayOptions struct {
	vaulttest.Options                // Config is added to
	mount             string         // "" is mount
	tune              map[string]any // of the mount
	settings          map[string]any // of the gateway, over those of openGateway
	upstream          upstream.Options
	// plain keeps the race detector out of the plugin, whose memory is measured.
	plain bool
	// off leaves the gateway off: open turns it on.
	off bool
}

// startGateway starts a Vault of one node with the plugin, a provider, and the
// gateway. In `make soak` the race detector watches the plugin.
func startGateway(t *testing.T, o gatewayOptions) *gatewayRig {
	t.Helper()
	believing := vaulttest.FreeAddr(t)
	o.Config += believingListener(believing)
	o.Race = soaking() && !o.plain
	g := &gatewayRig{vault: vaulttest.Start(t, o.Options), mount: o.mount, believing: "http://" + believing}
	if g.mount == "" {
		g.mount = mount
	}
	watchLog(t, g.vault)
	g.root = from(t, "127.0.0.1", g.vault.Addr, g.vault.RootToken)
	g.vault.Enable(t, g.mount, o.tune)
	g.up = upstream.Start(t, o.upstream)
	g.root.Write(t, g.mount+"/keys/main", map[string]any{
		"provider": "openai-compatible", "base_url": g.up.URL(), "api_key": "a-provider-key",
	})
	if !o.off {
		g.open(t, o.settings)
	}
	return g
}

// watchLog fails the test if the plugin panics or, with Options.Race, races.
func watchLog(t *testing.T, v *vaulttest.Vault) {
	t.Cleanup(func() {
		for _, word := range []string{"DATA RACE", "a request panicked", "panic: "} {
			if i := bytes.Index(v.Log(), []byte(word)); i >= 0 {
				t.Errorf("the log has: %.3000s", v.Log()[i:])
			}
		}
	})
}

// believingListener is the stanza that the gateway's help recommends, for
// Options.Config.
func believingListener(addr string) string {
	return fmt.Sprintf(`
listener "tcp" {
  address                          = %q
  tls_disable                      = true
  x_forwarded_for_authorized_addrs = "127.0.0.1"
}`, addr)
}

// open turns the gateway on, or changes its settings.
func (g *gatewayRig) open(t *testing.T, settings map[string]any) {
	t.Helper()
	all := map[string]any{"vault_address": g.believing}
	maps.Copy(all, settings)
	g.url = openGateway(t, g.root, g.mount, all)
}

// openGateway writes the gateway's settings, with a free port of loopback unless
// they name an address, and returns its URL. vault_address must be among them.
func openGateway(t *testing.T, root *vaulttest.Client, mount string, settings map[string]any) (url string) {
	t.Helper()
	all := map[string]any{"address": "127.0.0.1:0"}
	maps.Copy(all, settings)
	root.Write(t, mount+"/config/gateway", all)
	return gatewayURL(t, root, mount)
}

// gatewayURL is where `status` says that the gateway is.
func gatewayURL(t *testing.T, root *vaulttest.Client, mount string) string {
	t.Helper()
	resp := root.Read(t, mount+"/status")
	status, _ := resp.Data()["gateway"].(map[string]any)
	url, _ := status["url"].(string)
	if url == "" {
		t.Fatalf("the gateway isn't on: %s", resp)
	}
	return strings.TrimSuffix(url, "/")
}

// role makes a virtual key on the provider key "main", unless fields name another.
func (g *gatewayRig) role(t *testing.T, name string, fields map[string]any) {
	t.Helper()
	body := map[string]any{"key": "main"}
	maps.Copy(body, fields)
	g.root.Write(t, g.mount+"/roles/"+name, body)
}

// token returns a token that may use these virtual keys, and nothing else, by the
// example policy for apps.
func (g *gatewayRig) token(t *testing.T, roles ...string) string {
	t.Helper()
	names := make([]string, len(roles))
	for i, role := range roles {
		names[i] = "app-" + role
		g.vault.Policy(t, names[i], policyFile(t, "app.hcl", g.mount, role))
	}
	return g.vault.Token(t, names...)
}

// atGateway is a client of the gateway. The token is sent as X-Vault-Token; a
// leased key may be given too.
func (g *gatewayRig) atGateway(t *testing.T, token string) *vaulttest.Client {
	return from(t, "127.0.0.1", g.url, token)
}

// atVault is a client of Vault's own address, which follows no redirect.
func (g *gatewayRig) atVault(t *testing.T, token string) *vaulttest.Client {
	return from(t, "127.0.0.1", g.vault.Addr, token)
}

// from returns a client whose connections come from an address of loopback. It
// follows no redirect.
func from(t *testing.T, source, url, token string) *vaulttest.Client {
	t.Helper()
	transport := &http.Transport{
		DialContext:         (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}).DialContext,
		MaxIdleConnsPerHost: 256,
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &vaulttest.Client{Addr: url, Token: token, HTTP: &http.Client{
		Transport: transport, Timeout: patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// following is c, but that it follows redirects as SDKs do, with the body.
func following(c *vaulttest.Client) *vaulttest.Client {
	follower := *c
	client := *c.HTTP
	client.CheckRedirect = nil
	follower.HTTP = &client
	return &follower
}

// hello is a chat request.
func hello(model string) map[string]any {
	return map[string]any{"model": model, "messages": []any{map[string]any{"role": "user", "content": "Hi."}}}
}

// chatOf is the path of chat completions on a virtual key, at Vault and at the
// gateway.
func (g *gatewayRig) chatOf(role string) string { return chatPath(g.mount, role) }

// audited is a line of the audit log.
type audited struct {
	Type string `json:"type"`
	Auth struct {
		Accessor    string `json:"accessor"`
		DisplayName string `json:"display_name"`
		EntityID    string `json:"entity_id"`
		Token       string `json:"client_token"`
	} `json:"auth"`
	Request struct {
		Operation string         `json:"operation"`
		Path      string         `json:"path"`
		Remote    string         `json:"remote_address"`
		Data      map[string]any `json:"data"`
	} `json:"request"`
	Error string `json:"error"`
}

// asks returns the requests below prefix, which has the mount in it, that Vault has
// audited, refused ones included.
func (g *gatewayRig) asks(t *testing.T, prefix string) []audited {
	t.Helper()
	var found []audited
	for line := range bytes.Lines(g.vault.AuditLog()) {
		var entry audited
		if err := json.Unmarshal(line, &entry); err != nil {
			continue // still being written
		}
		// Vault audits what it refuses as a response only: an answer to each
		// request is what all have.
		if entry.Type == "response" && strings.HasPrefix(entry.Request.Path, prefix) {
			found = append(found, entry)
		}
	}
	return found
}

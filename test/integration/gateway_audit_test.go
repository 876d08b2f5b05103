// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"bytes"
	"mime/multipart"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"vault-plugin-secrets-portkey/test/vaulttest"
)

// TestGateway_AuditLogSaysWhoFromWhereWhichVirtualKeyAndModel: for what comes
// through the gateway, Vault's audit log says what it says of inline requests, and
// holds no secret in clear.
func TestGateway_AuditLogSaysWhoFromWhereWhichVirtualKeyAndModel(t *testing.T) {
	g := startGateway(t, gatewayOptions{
		Options: vaulttest.Options{LogLevel: "trace"}, // which has what plugins write
		tune:    map[string]any{"audit_non_hmac_request_keys": []string{"model"}},
	})
	n := &auditTests{gatewayRig: g, tap: startTap(t, g, nil)}
	n.role(t, "team-a", nil)
	n.token(t, "team-a") // for its policy
	login := g.vault.Userpass(t, "alice", "app-team-a")
	n.own, n.entity = login.Token, login.EntityID
	lookup := n.root.Write(t, "auth/token/lookup", map[string]any{"token": n.own}).Data()
	n.accessor, _ = lookup["accessor"].(string)
	for _, d := range doors() {
		t.Run(d.name, func(t *testing.T) { n.door(t, d) })
	}
	t.Run("ModelFromWhereverTheRequestNamesIt", n.models)
	t.Run("RefusalsAreThere", n.refusals)
	t.Run("NoSecretIsInClear", n.secrets)
}

type auditTests struct {
	*gatewayRig
	tap                   *tap
	own, entity, accessor string // of alice, whose token is own
	// more credentials that callers used
	others []string
}

// hash is what the audit log has in place of a text.
func (n *auditTests) hash(t *testing.T, text string) string {
	t.Helper()
	hash, _ := n.root.Write(t, "sys/audit-hash/file", map[string]any{"input": text}).Data()["hash"].(string)
	return hash
}

// since returns what the log has got of virtual keys while f ran.
func (n *auditTests) since(t *testing.T, f func()) []audited {
	t.Helper()
	prefix := n.mount + "/proxy/"
	before := len(n.asks(t, prefix))
	f()
	return n.asks(t, prefix)[before:]
}

// wantEntry fails the test unless the log has one entry, which says this.
func (n *auditTests) wantEntry(t *testing.T, entries []audited, operation, path, source, model string) {
	t.Helper()
	if len(entries) != 1 {
		t.Fatalf("the log has %d entries: %+v", len(entries), entries)
	}
	e := entries[0]
	for name, pair := range map[string][2]string{
		"entity":       {e.Auth.EntityID, n.entity},
		"display name": {e.Auth.DisplayName, "userpass-alice"},
		"accessor":     {e.Auth.Accessor, n.hash(t, n.accessor)},
		"token":        {e.Auth.Token, n.hash(t, n.own)},
		"address":      {e.Request.Remote, source},
		"path":         {e.Request.Path, path},
		"operation":    {e.Request.Operation, operation},
	} {
		if pair[0] != pair[1] {
			t.Errorf("the log has the %s %q, expected %q", name, pair[0], pair[1])
		}
	}
	if got, _ := e.Request.Data["model"].(string); got != model {
		t.Errorf("the log has the model %q, expected %q", got, model)
	}
}

func (n *auditTests) door(t *testing.T, d door) {
	n.open(t, map[string]any{"vault_address": n.tap.url, "redirect": d.redirect})
	c := caller{n.gatewayRig, "127.0.5.5", n.own}
	entries := n.since(t, func() {
		if reached, resp := d.try(t, c, "team-a", errand{}); !reached {
			t.Fatalf("the answer is %s", resp)
		}
	})
	n.wantEntry(t, entries, "update", n.chatOf("team-a"), "127.0.5.5", "up-ok")
	entries = n.since(t, func() {
		if reached, resp := d.try(t, c, "team-a", errand{method: http.MethodGet, path: "v1/models"}); !reached {
			t.Fatalf("the answer is %s", resp)
		}
	})
	n.wantEntry(t, entries, "read", proxyPath(n.mount, "team-a", "v1/models"), "127.0.5.5", "")
}

// models: what Vault sees and logs is the model that the provider gets, also where
// the path or a form names it.
func (n *auditTests) models(t *testing.T) {
	n.vault.Policy(t, "app-team-a", `path "`+n.mount+`/proxy/team-a/*" { capabilities = ["read", "update"] }`)
	c := caller{n.gatewayRig, "127.0.5.6", n.own}
	e := errand{path: "v1beta/models/gemini-x:generateContent", body: map[string]any{"contents": []any{}}}
	entries := n.since(t, func() { c.samePath(t, "team-a", e.complete()) })
	n.wantEntry(t, entries, "update", proxyPath(n.mount, "team-a", e.path), "127.0.5.6", "gemini-x")

	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	_ = w.WriteField("model", "up-ok") // to memory
	file, _ := w.CreateFormFile("file", "speech.wav")
	_, _ = file.Write([]byte("some sound"))
	_ = w.Close()
	at := from(t, c.source, n.url, n.own)
	path := proxyPath(n.mount, "team-a", "v1/audio/transcriptions")
	req, err := at.NewRequest(t.Context(), http.MethodPost, path, &form)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", w.FormDataContentType())
	entries = n.since(t, func() { wantStatus(t, roundTrip(t, at, req), http.StatusOK) })
	n.wantEntry(t, entries, "update", path, "127.0.5.6", "up-ok")
}

// refusals: who was refused what is known, too.
func (n *auditTests) refusals(t *testing.T) {
	n.role(t, "team-b", nil)
	c := caller{n.gatewayRig, "127.0.5.7", n.own}
	entries := n.since(t, func() { wantStatus(t, c.samePath(t, "team-b", errand{}.complete()), http.StatusForbidden) })
	n.wantEntry(t, entries, "update", n.chatOf("team-b"), "127.0.5.7", "up-ok")
	if !strings.Contains(entries[0].Error, "permission denied") {
		t.Errorf("the log doesn't say that it was refused: %+v", entries[0])
	}
}

// secrets: of all that the gateway sent and got, neither Vault's audit log nor any
// log has a credential, nor the prompt.
func (n *auditTests) secrets(t *testing.T) {
	key, _ := n.root.Read(t, n.mount+"/creds/team-a").Data()["api_key"].(string)
	prompt := "prompt-" + randomHex(12)
	body := hello("up-ok")
	body["messages"].([]any)[0].(map[string]any)["content"] = prompt
	for _, credential := range []string{n.own, key, "hvs." + randomHex(20)} {
		post(t, from(t, "127.0.5.8", n.url, credential), n.chatOf("team-a"), body)
		post(t, from(t, "127.0.5.8", n.url, ""), "chat/completions?key="+url.QueryEscape(credential), body)
		n.others = append(n.others, credential)
	}
	secrets := map[string]string{"the prompt": prompt}
	for _, credential := range n.others {
		secrets["the credential "+credential[:4]+"…"] = credential
	}
	n.tap.mu.Lock()
	for i, q := range n.tap.seen {
		nonce := q.nonce()
		if len(nonce) < 40 {
			t.Errorf("the nonce %q is no 256 bits", nonce)
		}
		// That of a GET stands in request_uri, which Vault 1.21 logs as it is. It is
		// worth nothing: see TestGateway_NonceCountsOnceForOneRequest.
		if q.method == http.MethodPost {
			secrets["the nonce of question "+strconv.Itoa(i)] = nonce
		}
	}
	n.tap.mu.Unlock()
	for what, secret := range secrets {
		for where, log := range map[string][]byte{"Vault's audit log": n.vault.AuditLog(), "a log": n.vault.Log()} {
			if bytes.Contains(log, []byte(secret)) {
				t.Errorf("%s has %s", where, what)
			}
		}
	}
	if len(secrets) < 8 {
		t.Errorf("there were only %d secrets to look for", len(secrets))
	}
}

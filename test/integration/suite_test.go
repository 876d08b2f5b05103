// SPDX-License-Identifier: MPL-2.0

//go:build integration

// Package integration_test proves what the engine promises end to end: a real
// Vault with a file audit device, real tokens, and a program that imitates a
// provider.
//
// Most of it shares one Vault (TestEndToEnd), for two reasons: starting one
// takes seconds, and the search for the provider's keys is worth something
// only when it comes after everything else that could have leaked them.
package integration_test

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/test/upstream"
	"vault-plugin-secrets-portkey/test/vaulttest"
)

// The two mounts. The second is tuned as the README recommends and more, and
// is impatient with providers.
const (
	mount = "portkey"
	tuned = "portkey-tuned"
)

// suite is the shared Vault with what the tests of it share.
type suite struct {
	vault *vaulttest.Vault
	// up is the provider of the key "main" of both mounts.
	up *upstream.Server
	// upstreams are all providers of this Vault.
	upstreams []*upstream.Server
	witness   *witness
	root      *vaulttest.Client
	// tokens are those that callers used.
	tokens []string

	// marker is in every provider key of a run, so that one search finds all.
	marker  string
	secrets int
	// tlsKey and leasedKey are the gateway's own secrets.
	tlsKey, leasedKey string
	// prompt is in every prompt.
	prompt string
}

func TestEndToEnd(t *testing.T) {
	s := startSuite(t)
	t.Run("Access", s.access)
	t.Run("Identity", s.identity)
	t.Run("Bodies", s.bodies)
	t.Run("Answers", s.answers)
	t.Run("Streams", s.streams)
	t.Run("ProviderFailures", s.providerFailures)
	t.Run("HostileProviders", s.hostileProviders)
	t.Run("Callers", s.callers)
	t.Run("Spending", s.spending)
	t.Run("Surface", s.surface)
	t.Run("OfficialSDKs", s.officialSDKs)
	t.Run("Rotation", s.rotation)
	t.Run("Processes", s.processes)
	t.Run("Survival", s.survival)
	t.Run("Gateway", s.gatewayTraffic)
	t.Run("Prompts", s.promptTraffic)
	// The last, for it looks at what all of them left.
	t.Run("Custody", s.custody)
}

// telemetry makes sys/metrics keep what it counts for the search.
const telemetry = `
telemetry {
  prometheus_retention_time = "1h"
  disable_hostname          = true
}`

func startSuite(t *testing.T) *suite {
	s := &suite{marker: "cu" + randomHex(5), prompt: "prompt " + randomHex(12)}
	s.witness = newWitness(s.marker)
	s.vault = vaulttest.Start(t, vaulttest.Options{Mode: vaulttest.Raft, Config: telemetry, LogLevel: "trace"})
	s.root = s.client(s.vault.RootToken)
	s.vault.Enable(t, mount, nil)
	s.vault.Enable(t, tuned, map[string]any{
		"audit_non_hmac_request_keys": []string{"model"},
		"allowed_response_headers":    []string{"x-portkey-trace-id", "retry-after", "x-upstream-echo", "set-cookie"},
		// What the README says never to do.
		"passthrough_request_headers": []string{"Authorization", "X-Vault-Token", "Cookie", "X-Portkey-Api-Key", "User-Agent", "OpenAI-Beta"},
	})
	s.root.Write(t, tuned+"/config", map[string]any{"upstream_timeout": "2s"})
	key := s.secret()
	s.up = s.provider(t, upstream.Options{Keys: []string{key}})
	for _, m := range []string{mount, tuned} {
		s.key(t, m, "main", s.up, key)
	}
	return s
}

func randomHex(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // it never fails: crypto/rand says so
	return hex.EncodeToString(b)
}

// secret returns a new provider key. It has what is spelt otherwise in URLs,
// in JSON and in base64.
func (s *suite) secret() string {
	s.secrets++
	return fmt.Sprintf("%s-%d-%s+/=&<~", s.marker, s.secrets, randomHex(8))
}

// provider starts another imitated provider, which lives as long as t.
func (s *suite) provider(t *testing.T, o upstream.Options) *upstream.Server {
	t.Helper()
	up := upstream.Start(t, o)
	s.upstreams = append(s.upstreams, up)
	return up
}

// key stores a provider key for up.
func (s *suite) key(t *testing.T, mount, name string, up *upstream.Server, secret string) {
	t.Helper()
	s.root.Write(t, mount+"/keys/"+name, map[string]any{
		"provider": "openai-compatible", "base_url": up.URL(), "api_key": secret,
	})
}

// role makes a virtual key on the provider key "main", unless fields name
// another.
func (s *suite) role(t *testing.T, mount, name string, fields map[string]any) {
	t.Helper()
	body := map[string]any{"key": "main"}
	for k, v := range fields {
		body[k] = v
	}
	s.root.Write(t, mount+"/roles/"+name, body)
}

// patience bounds every call: far longer than any takes that ends at all, and
// shorter than Vault's own 90 s, so that one that hangs fails its own test.
const patience = 45 * time.Second

// client returns a client whose every answer the witness sees.
func (s *suite) client(token string) *vaulttest.Client {
	s.tokens = append(s.tokens, token)
	c := s.vault.Client(token)
	c.HTTP = &http.Client{Transport: s.witness, Timeout: patience, CheckRedirect: c.HTTP.CheckRedirect}
	return c
}

// policyFile returns one of the repository's example policies, for other
// mounts and virtual keys than it names.
func policyFile(t *testing.T, file, mount, role string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "policies", file))
	if err != nil {
		t.Fatal(err)
	}
	return strings.NewReplacer(`"portkey/`, `"`+mount+"/", "team-a", role).Replace(string(text))
}

// app makes a virtual key and returns a client that may use it and nothing
// else, by the example policy for apps.
func (s *suite) app(t *testing.T, mount, role string, fields map[string]any) *vaulttest.Client {
	t.Helper()
	s.role(t, mount, role, fields)
	return s.client(s.appToken(t, mount, role))
}

// appToken returns a token with the example policy for apps for these roles.
func (s *suite) appToken(t *testing.T, mount string, roles ...string) string {
	t.Helper()
	names := make([]string, len(roles))
	for i, role := range roles {
		names[i] = mount + "-" + role
		s.vault.Policy(t, names[i], policyFile(t, "app.hcl", mount, role))
	}
	token := s.vault.Token(t, names...)
	s.tokens = append(s.tokens, token)
	return token
}

// chat is a chat request with a prompt that the search knows.
func (s *suite) chat(model string) map[string]any {
	return map[string]any{"model": model, "messages": []any{map[string]any{"role": "user", "content": s.prompt}}}
}

func proxyPath(mount, role, path string) string { return mount + "/proxy/" + role + "/" + path }

func chatPath(mount, role string) string { return proxyPath(mount, role, "v1/chat/completions") }

// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/test/vaulttest"
)

// TestGateway_VaultMustKnowTheCallersAddress: what the gateway does when Vault
// doesn't believe its X-Forwarded-For.
func TestGateway_VaultMustKnowTheCallersAddress(t *testing.T) {
	g := startGateway(t, gatewayOptions{})
	g.role(t, "demo", nil)
	token := g.token(t, "demo")
	plain := map[string]any{"vault_address": g.vault.Addr}
	ask := func(source string) *vaulttest.Response {
		return post(t, from(t, source, g.url, token), g.chatOf("demo"), hello("up-ok"))
	}
	wantStanza := func(source string) {
		t.Helper()
		unasked(t, g.up, func() {
			wantError(t, ask(source), http.StatusForbidden, "caller_address_unknown",
				source, `listener "tcp" {`, `x_forwarded_for_authorized_addrs = "127.0.0.1"`, "caller_address=ignore")
		})
	}

	wantCompletion(t, ask("127.0.0.2")) // at the listener that believes
	if got := g.asks(t, g.mount+"/proxy/demo/")[0].Request.Remote; got != "127.0.0.2" {
		t.Errorf("the audit log has the address %s", got)
	}

	g.open(t, plain)
	wantStanza("127.0.0.2")
	wantCompletion(t, ask("127.0.0.1")) // which is where the gateway is, too
	wantStanza("127.0.0.3")

	g.open(t, with(map[string]any{"caller_address": "ignore"}, plain))
	wantCompletion(t, ask("127.0.0.2"))

	g.open(t, with(map[string]any{"caller_address": "forwarded"}, plain))
	wantStanza("127.0.0.2") // what was granted under ignore counts no more
}

// TestGateway_VaultsQuotaIsToldAsSuch: Vault counts questions by the caller's
// address, and its no is not one to the caller's policies.
func TestGateway_VaultsQuotaIsToldAsSuch(t *testing.T) {
	g := startGateway(t, gatewayOptions{settings: map[string]any{"grant_ttl": 0}})
	g.role(t, "demo", nil)
	token := g.token(t, "demo")
	g.root.Write(t, "sys/quotas/rate-limit/slow", map[string]any{"path": g.mount + "/", "rate": 3, "interval": "60s"})
	a, b := from(t, "127.0.0.2", g.url, token), from(t, "127.0.0.3", g.url, token)
	for range 3 {
		wantCompletion(t, post(t, a, g.chatOf("demo"), hello("up-ok")))
	}
	unasked(t, g.up, func() {
		resp := post(t, a, g.chatOf("demo"), hello("up-ok"))
		wantError(t, resp, http.StatusTooManyRequests, "rate_limit_exceeded", "quota")
		if resp.Header.Get("Retry-After") == "" {
			t.Errorf("there is no retry-after: %v", resp.Header)
		}
	})
	wantCompletion(t, post(t, b, g.chatOf("demo"), hello("up-ok")))
}

// TestGateway_NoCallerIsSentFromHTTPSToHTTP: Vault listens with TLS too, and the
// gateway without and with.
func TestGateway_NoCallerIsSentFromHTTPSToHTTP(t *testing.T) {
	dir := t.TempDir()
	certificate, key := selfSigned(t)
	for name, text := range map[string]string{"cert.pem": certificate, "key.pem": key} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	secure := vaulttest.FreeAddr(t)
	g := startGateway(t, gatewayOptions{Options: vaulttest.Options{Config: fmt.Sprintf(`
listener "tcp" {
  address       = %q
  tls_cert_file = %q
  tls_key_file  = %q
}`, secure, filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))}})
	g.role(t, "demo", nil)
	token := g.token(t, "demo")
	overTLS := from(t, "127.0.0.1", "https://"+secure, token)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(certificate))
	overTLS.HTTP.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: roots}
	ask := func(c *vaulttest.Client) (location string) {
		t.Helper()
		resp := post(t, c, g.chatOf("demo"), streamed(hello("up-ok")))
		if location = resp.Header.Get("Location"); location == "" {
			wantStatus(t, resp, http.StatusOK)
		}
		return location
	}

	if to := ask(overTLS); to != "" {
		t.Errorf("a caller over https is sent to %s", to)
	}
	if to := ask(g.atVault(t, token)); !strings.HasPrefix(to, g.url) {
		t.Errorf("a caller over http is sent to %q", to)
	}
	g.open(t, map[string]any{"public_url": "http://llm.example.com"})
	if to := ask(overTLS); to != "" {
		t.Errorf("a caller over https is sent to %s", to)
	}
	g.open(t, map[string]any{"public_url": "https://llm.example.com/"})
	for _, c := range []*vaulttest.Client{overTLS, g.atVault(t, token)} {
		if to := ask(c); !strings.HasPrefix(to, "https://llm.example.com/t/") {
			t.Errorf("a caller is sent to %q", to)
		}
	}
	// With a vault_address of https nobody is known to come over http.
	g.open(t, map[string]any{"public_url": "", "vault_address": "https://" + secure, "vault_ca": certificate})
	if to := ask(g.atVault(t, token)); to != "" {
		t.Errorf("a caller is sent to %s, though Vault is at https", to)
	}
	wantCompletion(t, post(t, g.atGateway(t, token), g.chatOf("demo"), hello("up-ok")))
}

// selfSigned returns a certificate of 127.0.0.1 that signs itself, and its key.
func selfSigned(t *testing.T) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
}

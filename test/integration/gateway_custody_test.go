// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"mime/multipart"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// gatewayTraffic sends through a gateway what could leak a provider key, a prompt
// or a credential, for the search that comes after it. The gateway speaks TLS, and
// leased keys and the TLS key are searched for here.
func (s *suite) gatewayTraffic(t *testing.T) {
	certificate, key := tlsPair(t)
	s.root.Write(t, mount+"/config/gateway", map[string]any{
		"address": "127.0.0.1:0", "vault_address": s.vault.Leader(t).Addr, "caller_address": "ignore",
		"tls_certificate": certificate, "tls_key": key, "redirect": "all",
	})
	base := gatewayURL(t, s.root, mount)
	usual := s.witness.next
	s.witness.next = &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	defer func() { s.witness.next = usual }()

	up, secret := s.own(t, mount, "gated")
	s.role(t, mount, "gated", map[string]any{"key": "gated"})
	token := s.appToken(t, mount, "gated")
	leased, _ := s.root.Read(t, mount+"/creds/gated").Data()["api_key"].(string)
	s.tokens = append(s.tokens, leased)

	at := base + "/v1/" + chatPath(mount, "gated")
	for _, credential := range []string{token, leased, "hvs.wrong", "vk-wrong", ""} {
		for _, model := range []string{"up-ok", "up-echo", "up-401", "up-500", "up-garbage:http", "up-reset-mid", "up-error-event", "up-redirect:http://127.0.0.1:9/", "up-no-usage"} {
			for _, stream := range []bool{false, true} {
				body := s.chat(model)
				body["stream"], body["user"] = stream, s.prompt
				s.ask(t, http.MethodPost, at, credential, "application/json", jsonReader(t, body))
			}
		}
		s.ask(t, http.MethodGet, base+"/v1/"+proxyPath(mount, "gated", "v1/models")+"?key="+credential, credential, "", nil)
		s.ask(t, http.MethodPost, base+"/v1/audio/transcriptions", credential, "", nil)
		form, contentType := s.form(t)
		s.ask(t, http.MethodPost, base+"/v1/"+proxyPath(mount, "gated", "v1/audio/transcriptions"), credential, contentType, form)
		s.ask(t, http.MethodPost, at, credential, "application/json", strings.NewReader(`{"model":`+s.prompt))
	}
	// Through Vault, which hands out tickets.
	app := s.client(token)
	app.HTTP = &http.Client{Transport: s.witness, Timeout: patience}
	wantCompletion(t, post(t, app, chatPath(mount, "gated"), s.chat("up-ok")))
	if got := lastRequest(t, up); got.Key != secret {
		t.Error("the provider was asked with another key")
	}
	s.root.Write(t, mount+"/config/gateway", map[string]any{"redirect": "off"})
	s.tlsKey, s.leasedKey = strings.Split(key, "\n")[1], leased
}

// gatewaySecrets: they are where they belong. It comes after the search of the audit
// log, which has what it reads.
func (s *suite) gatewaySecrets(t *testing.T) {
	s.nowhere(t, "the TLS key", s.tlsKey, "/local/gateway/")
	s.nowhere(t, "a leased key", s.leasedKey, "sys/expire/")
}

// ask sends a request to the gateway; the witness looks at the answer.
func (s *suite) ask(t *testing.T, method, url, credential, contentType string, body io.Reader) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	if credential != "" {
		req.Header.Set("Authorization", "Bearer "+credential)
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("X-Portkey-Virtual-Key", "gated")
	resp, err := s.witness.RoundTrip(req)
	if err != nil {
		return // the gateway breaks answers off that the provider broke off
	}
	text, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if bytes.Contains(text, []byte(s.prompt)) && !bytes.Contains(text, []byte("up-echo")) { // the provider's echo may
		t.Errorf("%s %s: the answer repeats the prompt: %s", method, url, text)
	}
}

func (s *suite) form(t *testing.T) (io.Reader, string) {
	t.Helper()
	var text bytes.Buffer
	w := multipart.NewWriter(&text)
	for name, value := range map[string]string{"model": "up-ok", "prompt": s.prompt} {
		if err := w.WriteField(name, value); err != nil {
			t.Fatal(err)
		}
	}
	part, err := w.CreateFormFile("file", "a.wav")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(part, s.prompt) // a buffer takes all
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &text, w.FormDataContentType()
}

// nowhere searches logs and storage for a text that may stand below one part of
// storage only, and must.
func (s *suite) nowhere(t *testing.T, what, text, but string) {
	t.Helper()
	forms := [][]byte{[]byte(text)}
	for name, log := range map[string][]byte{"Vault's log": s.vault.Log(), "audit log": s.vault.AuditLog()} {
		if containsAny(log, forms) {
			t.Errorf("the %s has %s: %s", name, what, around(log, forms))
		}
	}
	found := false
	for _, path := range s.vault.RawKeys(t, "") {
		if !containsAny(s.vault.RawRead(t, path), forms) {
			continue
		}
		if !strings.Contains(path, but) {
			t.Errorf("storage has %s at %s", what, path)
		}
		found = true
	}
	if !found {
		t.Errorf("%s was found nowhere in storage, so the search proves nothing", what)
	}
}

func jsonReader(t *testing.T, body any) io.Reader {
	t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.NewReader(text)
}

// tlsPair is a certificate for loopback, with its key, as PEM.
func tlsPair(t *testing.T) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
}

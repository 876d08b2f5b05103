// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

// exactCaller sends bytes and takes bytes: it asks for no encoding, follows
// redirects with the body, and keeps trailers.
type exactCaller struct {
	url, token string
	http       *http.Client
}

// to is the same caller at another URL.
func (c *exactCaller) to(url string) *exactCaller {
	return &exactCaller{url: url, token: c.token, http: c.http}
}

// exactAnswer is what it got. Err is what cut the body short.
type exactAnswer struct {
	Status          int
	Proto           string
	Header, Trailer http.Header
	Body            []byte
	Err             error
}

// exactly returns a caller of the gateway.
func (g *gatewayRig) exactly(t *testing.T, token string) *exactCaller {
	t.Helper()
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 16}
	t.Cleanup(transport.CloseIdleConnections)
	return &exactCaller{url: g.url, token: token, http: &http.Client{Transport: transport, Timeout: patience}}
}

// do sends a request to a path, with a leading slash.
func (c *exactCaller) do(t *testing.T, method, path string, header http.Header, body io.Reader) *exactAnswer {
	t.Helper()
	resp := c.open(t, method, path, header, body)
	defer func() { _ = resp.Body.Close() }()
	a := &exactAnswer{Status: resp.StatusCode, Proto: resp.Proto, Header: resp.Header}
	a.Body, a.Err = io.ReadAll(resp.Body)
	a.Trailer = resp.Trailer
	return a
}

// open is do without reading the answer's body.
func (c *exactCaller) open(t *testing.T, method, path string, header http.Header, body io.Reader) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, c.url+path, body)
	if err != nil {
		t.Fatal(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for name, values := range header {
		req.Header[name] = values
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp
}

// json sends a body of JSON.
func (c *exactCaller) json(t *testing.T, path string, body []byte) *exactAnswer {
	t.Helper()
	return c.do(t, http.MethodPost, path, nil, bytes.NewReader(body))
}

// wantBody ends the test unless the answer came whole, with that status and body.
func (a *exactAnswer) wantBody(t *testing.T, status int, body string) {
	t.Helper()
	if a.Status != status || a.Err != nil {
		t.Fatalf("status %d, expected %d (%v): %.500q", a.Status, status, a.Err, a.Body)
	}
	wantBytes(t, "the caller received", a.Body, []byte(body))
}

// wantBytes ends the test unless got is want, and shows where they part.
func wantBytes(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	at := 0
	for at < min(len(got), len(want)) && got[at] == want[at] {
		at++
	}
	around := func(b []byte) []byte { return b[max(0, at-40):min(len(b), at+80)] }
	t.Fatalf("%s %d bytes, expected %d; from byte %d on\n%q\nexpected\n%q", what, len(got), len(want), at, around(got), around(want))
}

// proxied is the path of a virtual key at the gateway, and at Vault.
func (g *gatewayRig) proxied(role, path string) string {
	return "/v1/" + proxyPath(g.mount, role, path)
}

// overTLS turns TLS on at the gateway, and returns a caller that speaks HTTP/2 with
// it.
func (g *gatewayRig) overTLS(t *testing.T, token string) *exactCaller {
	t.Helper()
	server := httptest.NewTLSServer(nil) // it brings a certificate for 127.0.0.1
	server.Close()
	pair := server.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	g.open(t, map[string]any{
		"tls_certificate": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]})),
		"tls_key":         string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})),
	})
	pool := x509.NewCertPool()
	pool.AddCert(server.Certificate())
	transport := &http.Transport{
		DisableCompression: true, ForceAttemptHTTP2: true,
		TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &exactCaller{url: g.url, token: token, http: &http.Client{Transport: transport, Timeout: patience}}
}

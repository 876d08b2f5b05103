// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestListenConfig_CheckNamesTheSettingAtFault(t *testing.T) {
	good, other := issue(t, 1, nil), issue(t, 2, nil)
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	odd, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	gone := issue(t, 3, nil, func(c *x509.Certificate) { c.NotAfter = time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC) })
	early := issue(t, 4, nil, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(30 * time.Minute) })
	for name, tc := range map[string]struct {
		change func(*ListenConfig)
		want   string
	}{
		"no port":             {func(c *ListenConfig) { c.Address = "127.0.0.1" }, "address: this isn't host:port"},
		"port too large":      {func(c *ListenConfig) { c.Address = "127.0.0.1:65536" }, "address: the port isn't"},
		"port by name":        {func(c *ListenConfig) { c.Address = "127.0.0.1:https" }, "address: the port isn't"},
		"mistyped IP":         {func(c *ListenConfig) { c.Address = "127.0.0.256:80" }, "address: the host"},
		"URL":                 {func(c *ListenConfig) { c.Address = "http://127.0.0.1:80" }, "address:"},
		"host with a space":   {func(c *ListenConfig) { c.Address = "a b:80" }, "address: the host"},
		"plain HTTP anywhere": {func(c *ListenConfig) { c.Address = ":8300" }, "plain_http: other machines"},
		"plain HTTP by name":  {func(c *ListenConfig) { c.Address = "llm.example.com:8300" }, "plain_http: "},
		"plain HTTP on IPv6":  {func(c *ListenConfig) { c.Address = "[2001:db8::1]:8300" }, "plain_http: "},
		"no connections":      {func(c *ListenConfig) { c.MaxConnections = 0 }, "max_connections: "},
		"negative limit":      {func(c *ListenConfig) { c.KeepAlive = -1 }, "negative"},
		"no key":              {func(c *ListenConfig) { c.Certificate = good.certificate }, "tls_key: missing"},
		"no certificate":      {func(c *ListenConfig) { c.Key = good.key }, "tls_certificate: missing"},
		"other key":           {func(c *ListenConfig) { c.Certificate, c.Key = good.certificate, other.key }, "tls_key: doesn't belong"},
		"wrong order": {func(c *ListenConfig) {
			c.Certificate, c.Key = append(append([]byte{}, other.certificate...), good.certificate...), good.key
		}, "tls_certificate: the certificate of tls_key must come first"},
		"expired":              {gone.in, "tls_certificate: expired at 2001-02-03T04:05:06Z"},
		"not yet valid":        {early.in, "tls_certificate: not valid before "},
		"weak":                 {issue(t, 5, weak).in, "tls_key: an RSA key of 1024 bits"},
		"curve that TLS lacks": {issue(t, 6, odd).in, "tls_key: must be RSA"},
		"no PEM":               {func(c *ListenConfig) { c.Certificate, c.Key = []byte("x"), good.key }, "tls_certificate: holds no PEM"},
		"no certificate in it": {func(c *ListenConfig) { c.Certificate, c.Key = pemBlock("CERTIFICATE", []byte("x")), good.key }, "tls_certificate: certificate 1 can't"},
		"key in certificate":   {func(c *ListenConfig) { c.Certificate, c.Key = slices.Concat(good.key, good.certificate), good.key }, "tls_certificate: holds a private key"},
		"certificate as key":   {func(c *ListenConfig) { c.Certificate, c.Key = good.certificate, good.certificate }, "tls_key: holds no PEM"},
		"broken key":           {func(c *ListenConfig) { c.Certificate, c.Key = good.certificate, pemBlock("PRIVATE KEY", []byte("x")) }, "tls_key: can't be parsed"},
		"encrypted key": {func(c *ListenConfig) {
			c.Certificate, c.Key = good.certificate, pemBlock("ENCRYPTED PRIVATE KEY", []byte("x"))
		}, "tls_key: is encrypted"},
	} {
		t.Run(name, func(t *testing.T) {
			err := listenConfig(tc.change).Check()
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Check: %v, want %s", err, tc.want)
			}
		})
	}
}

func TestListenConfig_CheckAcceptsWhatWorks(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	chain := issue(t, 1, nil)
	chain.certificate = append(chain.certificate, issue(t, 2, nil).certificate...)
	for name, change := range map[string]func(*ListenConfig){
		"loopback":           func(*ListenConfig) {},
		"loopback elsewhere": func(c *ListenConfig) { c.Address = "127.9.9.9:80" },
		"IPv6 loopback":      func(c *ListenConfig) { c.Address = "[::1]:8300" },
		"mapped loopback":    func(c *ListenConfig) { c.Address = "[::ffff:127.0.0.1]:8300" },
		"localhost":          func(c *ListenConfig) { c.Address = "LocalHost.:8300" },
		"plain if allowed":   func(c *ListenConfig) { c.Address, c.PlainHTTP = "0.0.0.0:8300", true },
		"all addresses":      func(c *ListenConfig) { chain.in(c); c.Address = ":8300" },
		"a name":             func(c *ListenConfig) { chain.in(c); c.Address = "llm_gateway-1.example.com:443" },
		"RSA":                issue(t, 3, key).in,
		"Ed25519":            issue(t, 4, edwards).in,
		"PKCS #1": func(c *ListenConfig) {
			c.Certificate, c.Key = issue(t, 5, key).certificate, pemBlock("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key))
		},
		"SEC 1 after its parameters": func(c *ListenConfig) {
			c.Certificate = issue(t, 6, ec).certificate
			c.Key = append(pemBlock("EC PARAMETERS", []byte{6, 5, 43, 129, 4, 0, 34}), pemBlock("EC PRIVATE KEY", sec1)...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := listenConfig(change).Check(); err != nil {
				t.Errorf("Check: %v", err)
			}
		})
	}
}

func TestListenConfig_SameAddressHoweverWritten(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		same bool
	}{
		{"127.0.0.1:80", "127.0.0.1:080", true},
		{"0.0.0.0:80", ":80", true},
		{"[::]:80", ":80", true},
		{"[::ffff:10.0.0.1]:80", "10.0.0.1:80", true},
		{"[0:0::1]:80", "[::1]:80", true},
		{"LLM.example:80", "llm.example:80", true},
		{"127.0.0.1:80", "127.0.0.1:81", false},
		{"127.0.0.1:80", ":80", false},
		{"127.0.0.1:80", "[::1]:80", false},
	} {
		if sameAddress(tc.a, tc.b) != tc.same {
			t.Errorf("%s and %s: same is %v", tc.a, tc.b, !tc.same)
		}
	}
}

// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"runtime/pprof"
	"strings"
	"testing"
	"time"
)

// soon is how long a test waits for what should happen at once.
const soon = time.Minute

// issued is a certificate that signed itself, with its key.
type issued struct {
	certificate, key []byte // PEM
	leaf             *x509.Certificate
}

// issue makes a certificate for loopback with this serial number; key is made
// if nil.
func issue(t testing.TB, serial int64, key crypto.Signer, change ...func(*x509.Certificate)) issued {
	t.Helper()
	if key == nil {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		key = k
	}
	c := &x509.Certificate{
		SerialNumber:          big.NewInt(serial),
		Subject:               pkix.Name{CommonName: "gateway test"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		DNSNames:              []string{"localhost"},
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	for _, f := range change {
		f(c)
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return issued{pemBlock("CERTIFICATE", der), pemBlock("PRIVATE KEY", private), leaf}
}

func pemBlock(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// listenConfig listens on a free port of loopback.
func listenConfig(change ...func(*ListenConfig)) *ListenConfig {
	c := &ListenConfig{Address: "127.0.0.1:0", MaxConnections: 1000}
	for _, f := range change {
		f(c)
	}
	return c
}

func (i issued) in(c *ListenConfig) { c.Certificate, c.Key = i.certificate, i.key }

// clientConfig trusts these certificates.
func clientConfig(trusted ...issued) *tls.Config {
	pool := x509.NewCertPool()
	for _, i := range trusted {
		pool.AddCert(i.leaf)
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
}

// newClient keeps connections; it speaks HTTP/2 if asked to.
func newClient(t testing.TB, h2 bool, trusted ...issued) *http.Client {
	t.Helper()
	tr := &http.Transport{TLSClientConfig: clientConfig(trusted...), ForceAttemptHTTP2: h2, MaxIdleConnsPerHost: 100}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 3 * soon}
}

// openListener returns a Listener that is closed when the test ends.
func openListener(t testing.TB, handler http.HandlerFunc, change ...func(*ListenerOptions)) *Listener {
	t.Helper()
	o := ListenerOptions{Handler: handler, Retry: 10 * time.Millisecond}
	for _, f := range change {
		f(&o)
	}
	l := NewListener(o)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), soon)
		defer cancel()
		l.Close(ctx)
		if ctx.Err() != nil {
			t.Error("the listener couldn't be closed")
		}
	})
	return l
}

func apply(t testing.TB, l *Listener, c *ListenConfig) {
	t.Helper()
	if err := l.Apply(c); err != nil {
		t.Fatal(err)
	}
}

func sayOK(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }

// getFrom asks for a URL, and returns the answer with its body read.
func getFrom(t testing.TB, c *http.Client, url string) (*http.Response, string) {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

// until waits for what must come true, and says what it was if it doesn't.
func until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(soon); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it never came true that %s", what)
		}
	}
}

// received returns what ch brings, which must be soon.
func received[T any](t testing.TB, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(soon):
		t.Fatalf("waited in vain for %s", what)
		panic("not reached")
	}
}

// accepts reports whether somebody listens at address.
func accepts(address string) bool {
	c, err := net.DialTimeout("tcp", address, soon)
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}

// dialTCP opens a connection that fails rather than hang.
func dialTCP(t testing.TB, address string) net.Conn {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, soon)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(soon))
	return c
}

// leavesNoGoroutine runs f and fails if a goroutine that began in it is left.
// A label tells them from those of other tests.
func leavesNoGoroutine(t *testing.T, f func()) {
	t.Helper()
	pprof.Do(t.Context(), pprof.Labels("began_in", t.Name()), func(context.Context) { f() })
	var profile bytes.Buffer
	for end := time.Now().Add(soon); ; time.Sleep(5 * time.Millisecond) {
		profile.Reset()
		if err := pprof.Lookup("goroutine").WriteTo(&profile, 1); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(profile.String(), `"began_in":"`+t.Name()) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("goroutines are left:\n%s", profile.String())
		}
	}
}

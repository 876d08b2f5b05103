// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"bufio"
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// served is the serial number of the certificate that a new handshake sees.
func served(t *testing.T, address string, trusted ...issued) int64 {
	t.Helper()
	c, err := tls.Dial("tcp", address, clientConfig(trusted...))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
}

// keepAsking has n clients with a connection each ask again and again, until
// stop is called, and returns once each has had an answer. It fails the test if
// one of them gets anything but ok. answers counts.
func keepAsking(t *testing.T, n int, url string, trusted ...issued) (answers *atomic.Int64, stop func()) {
	t.Helper()
	answers = new(atomic.Int64)
	end := make(chan struct{})
	var busy, first sync.WaitGroup
	first.Add(n)
	for i := range n {
		c := newClient(t, i%2 == 1, trusted...)
		busy.Go(func() {
			answered := sync.OnceFunc(first.Done)
			defer answered()
			for {
				select {
				case <-end:
					return
				default:
				}
				resp, err := c.Post(url, "text/plain", strings.NewReader("hello"))
				if err != nil {
					t.Error(err)
					return
				}
				body, err := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if err != nil || string(body) != "ok" {
					t.Errorf("answer %q, %v", body, err)
					return
				}
				answers.Add(1)
				answered()
			}
		})
	}
	stop = sync.OnceFunc(func() { close(end); busy.Wait() })
	t.Cleanup(stop)
	first.Wait()
	return answers, stop
}

func TestListener_ReplacesCertificateWithoutBreakingConnections(t *testing.T) {
	const clients = 50
	pairs := []issued{issue(t, 1, nil), issue(t, 2, nil)}
	l := openListener(t, sayOK)
	apply(t, l, listenConfig(pairs[0].in))
	address := l.Status().Address
	answers, stop := keepAsking(t, clients, "https://"+address, pairs[0]) // a new handshake with the other one would fail
	for i := range 10 {
		pair := pairs[(i+1)%2]
		before := answers.Load()
		apply(t, l, listenConfig(pair.in))
		if got := served(t, address, pairs...); got != pair.leaf.SerialNumber.Int64() {
			t.Errorf("a new handshake saw certificate %d", got)
		}
		until(t, "the clients go on", func() bool { return t.Failed() || answers.Load() > before+clients })
	}
	if st := l.Status(); st.Address != address || st.Connections < clients {
		t.Errorf("status: %+v", st)
	}
	stop()
}

func TestListener_ReplacesLimitsWithoutBreakingConnections(t *testing.T) {
	pair := issue(t, 1, nil)
	l := openListener(t, sayOK)
	apply(t, l, listenConfig(pair.in))
	address := l.Status().Address
	answers, stop := keepAsking(t, 10, "https://"+address, pair)
	for i := range 15 {
		before := answers.Load()
		apply(t, l, listenConfig(pair.in, func(c *ListenConfig) { c.MaxHeaderBytes = 10_000 + i }))
		until(t, "the clients go on", func() bool { return t.Failed() || answers.Load() > before+20 })
	}
	stop()
	r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+address, nil)
	r.Header.Set("X-Long", strings.Repeat("x", 20_000))
	resp, err := newClient(t, false, pair).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("status %d under the new limits", resp.StatusCode)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.servers) > 10 {
		t.Errorf("%d servers are kept", len(l.servers))
	}
}

func TestListener_OpenConnectionsAreAskedToReconnectWhenLimitsChange(t *testing.T) {
	l := openListener(t, sayOK)
	apply(t, l, listenConfig())
	address := l.Status().Address
	c := idle(t, address)
	apply(t, l, listenConfig(func(c *ListenConfig) { c.MaxHeaderBytes = 10_000 }))
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if !resp.Close {
		t.Errorf("the answer keeps the connection: %v", resp.Header)
	}
	if resp, _ := getFrom(t, newClient(t, false), "http://"+address); resp.Close {
		t.Error("a new connection is closed too")
	}
}

func TestListener_TurnsTLSOnAndOffAtTheSameAddress(t *testing.T) {
	h := newHeld()
	pair := issue(t, 1, nil)
	l := openListener(t, h.ServeHTTP)
	apply(t, l, listenConfig())
	address := l.Status().Address
	answer := h.ask(t, newClient(t, false), "http://"+address)
	received(t, "the request", h.began)
	quiet := idle(t, address)

	apply(t, l, listenConfig(pair.in))
	if l.Status().Address != address {
		t.Fatal("the socket was replaced")
	}
	if _, err := quiet.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("an idle connection without TLS: %v", err)
	}
	getFrom(t, newClient(t, true, pair), "https://"+address)
	if resp, body := getFrom(t, newClient(t, false), "http://"+address); resp.StatusCode != http.StatusBadRequest {
		t.Errorf("plain HTTP to TLS: %d %s", resp.StatusCode, body)
	}
	close(h.let)
	if a := received(t, "the answer", answer); a != "ok" {
		t.Errorf("the request in flight: %s", a)
	}
	apply(t, l, listenConfig())
	getFrom(t, newClient(t, false), "http://"+address)
}

func TestListener_SpeaksHTTP2AndTLS12OrNewer(t *testing.T) {
	pair := issue(t, 1, nil)
	l := openListener(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) })
	apply(t, l, listenConfig(pair.in))
	address := l.Status().Address
	for want, h2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2.0": true} {
		if _, got := getFrom(t, newClient(t, h2, pair), "https://"+address); got != want {
			t.Errorf("protocol %s, want %s", got, want)
		}
	}
	for version, ok := range map[uint16]bool{tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		tc := clientConfig(pair)
		tc.MinVersion, tc.MaxVersion = version, version
		c, err := tls.Dial("tcp", address, tc)
		if err == nil {
			_ = c.Close()
		}
		if ok != (err == nil) || !ok && !strings.Contains(err.Error(), "protocol version") {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
	}
}

func TestListener_DoesNotSpeakHTTP2WithoutTLS(t *testing.T) {
	l := openListener(t, sayOK)
	apply(t, l, listenConfig())
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	defer tr.CloseIdleConnections()
	if resp, err := (&http.Client{Transport: tr, Timeout: soon}).Get("http://" + l.Status().Address); err == nil {
		_ = resp.Body.Close()
		t.Errorf("answer by %s", resp.Proto)
	}
}

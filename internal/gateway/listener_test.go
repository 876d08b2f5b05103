// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// held is a handler whose requests to /held wait to be let go.
type held struct {
	began chan context.Context
	let   chan struct{}
}

func newHeld() *held {
	return &held{began: make(chan context.Context, 100), let: make(chan struct{})}
}

func (h *held) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/held" {
		h.began <- r.Context()
		select {
		case <-h.let:
		case <-r.Context().Done():
			return
		}
	}
	sayOK(w, r)
}

// ask sends a request to be held, and brings its answer, or the error.
func (h *held) ask(t *testing.T, c *http.Client, base string) <-chan string {
	t.Helper()
	got := make(chan string, 1)
	go func() {
		resp, err := c.Get(base + "/held")
		if err != nil {
			got <- err.Error()
			return
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			got <- err.Error()
			return
		}
		got <- string(body)
	}()
	return got
}

// idle opens a connection that has had one answer.
func idle(t *testing.T, address string) net.Conn {
	t.Helper()
	c := dialTCP(t, address)
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4096)
	for got := ""; !strings.HasSuffix(got, "\r\n\r\nok"); {
		n, err := c.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		got += string(b[:n])
	}
	return c
}

func TestListener_ANewAddressIsServedAndTheOldOneLeftInOrder(t *testing.T) {
	h := newHeld()
	l := openListener(t, h.ServeHTTP)
	apply(t, l, listenConfig())
	old := l.Status().Address
	c := newClient(t, false)
	answer := h.ask(t, c, "http://"+old)
	received(t, "the request", h.began)
	quiet := idle(t, old)

	// 127.0.0.1:0 again would be the same address.
	apply(t, l, listenConfig(func(c *ListenConfig) { c.Address = "localhost:0" }))
	if now := l.Status().Address; now == old {
		t.Fatal("the address is the old one")
	}
	if accepts(old) {
		t.Error("the old address still accepts")
	}
	if _, err := quiet.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("an idle connection of the old address: %v", err)
	}
	if _, body := getFrom(t, c, "http://"+l.Status().Address); body != "ok" {
		t.Errorf("the new address answers %q", body)
	}
	close(h.let)
	if a := received(t, "the answer", answer); a != "ok" {
		t.Errorf("the request in flight: %s", a)
	}
	until(t, "the old address's connections are gone", func() bool { return l.Status().Connections == 1 })
}

func TestListener_NilStopsListeningAndLetsRequestsFinish(t *testing.T) {
	h := newHeld()
	pair := issue(t, 1, nil)
	l := openListener(t, h.ServeHTTP)
	apply(t, l, listenConfig(pair.in))
	address := l.Status().Address
	if got := l.Status().CertificateExpires; !got.Equal(pair.leaf.NotAfter) {
		t.Errorf("the certificate expires %v", got)
	}
	for _, h2 := range []bool{false, true} {
		answer := h.ask(t, newClient(t, h2, pair), "https://"+address)
		received(t, "the request", h.began)
		defer func() {
			if a := received(t, "the answer", answer); a != "ok" {
				t.Errorf("the request in flight: %s", a)
			}
			until(t, "the connections are gone", func() bool { return l.Status().Connections == 0 })
		}()
	}
	apply(t, l, nil)
	if st := l.Status(); st.Address != "" || st.Problem != "" || !st.CertificateExpires.IsZero() {
		t.Errorf("status: %+v", st)
	}
	if accepts(address) {
		t.Error("it still accepts")
	}
	apply(t, l, nil)
	close(h.let)
}

func TestListener_RequestsOfALeftAddressAreCutOffAfterABound(t *testing.T) {
	h := newHeld()
	l := openListener(t, h.ServeHTTP, func(o *ListenerOptions) { o.Leave = 20 * time.Millisecond })
	apply(t, l, listenConfig())
	answer := h.ask(t, newClient(t, false), "http://"+l.Status().Address)
	ctx := received(t, "the request", h.began)
	apply(t, l, nil)
	received(t, "the end of the request", ctx.Done())
	if a := received(t, "the client's error", answer); a == "ok" {
		t.Error("there was an answer")
	}
}

func TestListener_ApplyThatFailsChangesNothing(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	pair, other := issue(t, 1, nil), issue(t, 2, nil)
	l := openListener(t, sayOK)
	apply(t, l, listenConfig(pair.in))
	before := l.Status()
	c := newClient(t, false, pair)
	getFrom(t, c, "https://"+before.Address)
	for want, change := range map[string]func(*ListenConfig){
		"address " + taken.Addr().String() + " is already in use by another program; choose another with address=… or stop it": func(c *ListenConfig) { c.Address = taken.Addr().String() },
		"tls_key: doesn't belong":     func(c *ListenConfig) { c.Key = other.key },
		"isn't one of this machine's": func(c *ListenConfig) { c.Address = "192.0.2.1:0" },
		"max_connections":             func(c *ListenConfig) { c.MaxConnections = 0 },
		"tls_certificate: expired at": issue(t, 3, nil, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }).in,
	} {
		err := l.Apply(listenConfig(pair.in, change))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Apply: %v, want %s", err, want)
		}
	}
	getFrom(t, c, "https://"+before.Address)
	if after := l.Status(); after.Address != before.Address || after.Problem != "" || after.Connections != 1 || !after.CertificateExpires.Equal(before.CertificateExpires) {
		t.Errorf("status: %+v, it was %+v", after, before)
	}
}

func TestListener_ItsOwnSocketIsNotInTheWayOfAWiderAddress(t *testing.T) {
	h := newHeld()
	l := openListener(t, h.ServeHTTP)
	apply(t, l, listenConfig())
	old := l.Status().Address
	_, port, _ := net.SplitHostPort(old)
	c := newClient(t, false)
	answer := h.ask(t, c, "http://"+old)
	received(t, "the request", h.began)

	wide := listenConfig(func(c *ListenConfig) { c.Address, c.PlainHTTP = "0.0.0.0:"+port, true })
	other, err := net.Listen("tcp", "127.0.0.2:"+port)
	if err != nil {
		t.Skip("this machine has one loopback address:", err)
	}
	if err := l.Apply(wide); err == nil || !strings.Contains(err.Error(), "in use by another program") {
		t.Errorf("Apply with another program in the way: %v", err)
	}
	if st := l.Status(); st.Address != old || st.Problem != "" {
		t.Errorf("status after that: %+v", st)
	}
	getFrom(t, newClient(t, false), "http://"+old)

	_ = other.Close()
	apply(t, l, wide)
	getFrom(t, newClient(t, false), "http://127.0.0.2:"+port)
	close(h.let)
	if a := received(t, "the answer", answer); a != "ok" {
		t.Errorf("the request in flight: %s", a)
	}
	apply(t, l, listenConfig(func(c *ListenConfig) { c.Address = old }))
	if accepts("127.0.0.2:" + port) {
		t.Error("the wide address is still open")
	}
	getFrom(t, newClient(t, false), "http://"+old)
}

func TestListener_AnAddressLostInAMoveIsTakenBackWhenItIsFree(t *testing.T) {
	var stolen atomic.Bool
	l := openListener(t, sayOK, func(o *ListenerOptions) {
		o.Listen = func(network, address string) (net.Listener, error) {
			if stolen.Load() && strings.HasPrefix(address, "127.0.0.1:") {
				return nil, errors.New("stolen")
			}
			return net.Listen(network, address)
		}
	})
	apply(t, l, listenConfig())
	old := l.Status().Address
	_, port, _ := net.SplitHostPort(old)
	other, err := net.Listen("tcp", "127.0.0.2:"+port)
	if err != nil {
		t.Skip("this machine has one loopback address:", err)
	}
	defer other.Close()
	stolen.Store(true)
	if l.Apply(listenConfig(func(c *ListenConfig) { c.Address, c.PlainHTTP = ":"+port, true })) == nil {
		t.Error("Apply succeeded")
	}
	until(t, "the problem is shown", func() bool { return strings.Contains(l.Status().Problem, "stolen; retrying every 10ms since 2") })
	if st := l.Status(); st.Address != "" {
		t.Errorf("status: %+v", st)
	}
	stolen.Store(false)
	// Its setting says port 0, so that any will do.
	until(t, "it listens", func() bool { return l.Status().Address != "" })
	getFrom(t, newClient(t, false), "http://"+l.Status().Address)
}

func TestListener_PlainHTTPIsRefusedWhereANameLeadsAway(t *testing.T) {
	l := openListener(t, sayOK, func(o *ListenerOptions) {
		o.Listen = func(network, _ string) (net.Listener, error) { return net.Listen(network, "0.0.0.0:0") }
	})
	if err := l.Apply(listenConfig(func(c *ListenConfig) { c.Address = "localhost:0" })); err == nil || !strings.HasPrefix(err.Error(), "plain_http: ") {
		t.Errorf("Apply: %v", err)
	}
	if st := l.Status(); st.Address != "" {
		t.Errorf("it listens at %s", st.Address)
	}
}

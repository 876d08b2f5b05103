// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// inUse is an address that somebody holds until the listener is closed.
func inUse(t *testing.T) (string, net.Listener) {
	t.Helper()
	k, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Close() })
	return k.Addr().String(), k
}

func listenAt(address string) func(*ListenConfig) {
	return func(c *ListenConfig) { c.Address = address }
}

func TestListener_StartGetsAnAddressOnceItIsFree(t *testing.T) {
	address, other := inUse(t)
	l := openListener(t, sayOK)
	l.Start(listenConfig(listenAt(address)))
	want := "address " + address + " is already in use by another program; choose another with address=… or stop it; retrying every 10ms since 2"
	until(t, "the problem is shown", func() bool { return strings.HasPrefix(l.Status().Problem, want) })
	if st := l.Status(); st.Address != "" {
		t.Errorf("it listens at %s", st.Address)
	}
	_ = other.Close()
	until(t, "it listens", func() bool { return l.Status().Address == address })
	if st := l.Status(); st.Problem != "" {
		t.Errorf("the problem is still %q", st.Problem)
	}
	getFrom(t, newClient(t, false), "http://"+address)
}

func TestListener_StartGoesOnAfterAnApplyThatFails(t *testing.T) {
	address, other := inUse(t)
	l := openListener(t, sayOK)
	l.Start(listenConfig(listenAt(address)))
	if l.Apply(listenConfig(listenAt(address))) == nil || l.Apply(listenConfig(listenAt("192.0.2.1:0"))) == nil {
		t.Fatal("Apply succeeded")
	}
	_ = other.Close()
	until(t, "it listens", func() bool { return l.Status().Address == address })
}

func TestListener_StartEndsWithASuccessfulApply(t *testing.T) {
	for name, c := range map[string]*ListenConfig{"other address": listenConfig(), "off": nil} {
		t.Run(name, func(t *testing.T) {
			address, other := inUse(t)
			tries := make(chan struct{}, 1000)
			l := openListener(t, sayOK, func(o *ListenerOptions) {
				o.Listen = func(network, asked string) (net.Listener, error) {
					if asked == address {
						tries <- struct{}{}
					}
					return net.Listen(network, asked)
				}
			})
			l.Start(listenConfig(listenAt(address)))
			received(t, "an attempt", tries)
			apply(t, l, c)
			_ = other.Close()
			for len(tries) > 0 {
				<-tries
			}
			time.Sleep(100 * time.Millisecond)
			if len(tries) > 0 || accepts(address) || l.Status().Problem != "" {
				t.Errorf("%d attempts after Apply; status %+v", len(tries), l.Status())
			}
		})
	}
}

func TestListener_StartServesACertificateThatExpiredMeanwhile(t *testing.T) {
	old := issue(t, 1, nil, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	l := openListener(t, sayOK)
	l.Start(listenConfig(old.in))
	until(t, "it listens", func() bool { return l.Status().Address != "" })
	st := l.Status()
	if !strings.HasPrefix(st.Problem, "tls_certificate: expired at ") || !st.CertificateExpires.Equal(old.leaf.NotAfter) {
		t.Errorf("status: %+v", st)
	}
	c := newClient(t, false)
	c.Transport.(*http.Transport).TLSClientConfig.InsecureSkipVerify = true
	getFrom(t, c, "https://"+st.Address)

	renewed := issue(t, 2, nil)
	apply(t, l, listenConfig(renewed.in))
	if st := l.Status(); st.Problem != "" || !st.CertificateExpires.Equal(renewed.leaf.NotAfter) {
		t.Errorf("status after renewal: %+v", st)
	}
}

func TestListener_StartShowsWhyItCanNot(t *testing.T) {
	l := openListener(t, sayOK)
	l.Start(nil)
	l.Start(listenConfig(func(c *ListenConfig) { c.Key = []byte("x") }))
	if p := l.Status().Problem; !strings.HasPrefix(p, "tls_certificate: missing") {
		t.Errorf("problem: %q", p)
	}
	apply(t, l, listenConfig())
	if p := l.Status().Problem; p != "" {
		t.Errorf("problem after Apply: %q", p)
	}
}

func TestListener_NothingStartsAfterClose(t *testing.T) {
	leavesNoGoroutine(t, func() {
		address, _ := inUse(t)
		l := openListener(t, sayOK)
		l.Start(listenConfig(listenAt(address))) // trying when it is closed
		ctx, cancel := context.WithTimeout(t.Context(), soon)
		defer cancel()
		l.Close(ctx)
		l.Start(listenConfig())
		for _, c := range []*ListenConfig{listenConfig(), nil} {
			if err := l.Apply(c); !errors.Is(err, ErrListenerClosed) {
				t.Errorf("Apply: %v", err)
			}
		}
		l.Close(ctx)
		if st := l.Status(); st != (ListenerStatus{}) || ctx.Err() != nil {
			t.Errorf("status: %+v, %v", st, ctx.Err())
		}
	})
}

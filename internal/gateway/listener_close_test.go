// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// deaf is a client that asks for a lot and reads nothing.
func deaf(t *testing.T, address string, trusted issued) *tls.Conn {
	t.Helper()
	c, err := tls.Dial("tcp", address, clientConfig(trusted))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.NetConn().Close() })
	_ = c.NetConn().(*net.TCPConn).SetReadBuffer(4096)
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	return c
}

func TestListener_CloseUnderLoadEndsAllAndLeavesNothingBehind(t *testing.T) {
	pair := issue(t, 1, nil)
	leavesNoGoroutine(t, func() {
		var under, begun atomic.Int64
		l := NewListener(ListenerOptions{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			under.Add(1)
			defer under.Add(-1)
			begun.Add(1)
			if r.URL.Path == "/stream" {
				for r.Context().Err() == nil {
					if _, err := io.WriteString(w, "event\n"); err != nil {
						break
					}
					_ = http.NewResponseController(w).Flush()
					time.Sleep(time.Millisecond)
				}
				return
			}
			sayOK(w, r)
		})})
		defer l.Close(t.Context())
		apply(t, l, listenConfig(pair.in))
		address := l.Status().Address
		var busy sync.WaitGroup
		for i := range 20 {
			path := "/"
			if i%4 < 2 {
				path = "/stream"
			}
			tr := &http.Transport{TLSClientConfig: clientConfig(pair), ForceAttemptHTTP2: i%2 == 0}
			busy.Go(func() {
				defer tr.CloseIdleConnections()
				for {
					resp, err := (&http.Client{Transport: tr}).Get("https://" + address + path)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close()
				}
			})
		}
		for range 5 {
			deaf(t, address, pair)
		}
		until(t, "there is load", func() bool { return begun.Load() > 100 })
		ctx, cancel := context.WithTimeout(t.Context(), soon)
		defer cancel()
		began := time.Now()
		l.Close(ctx)
		if ctx.Err() != nil {
			t.Error("Close waited for something that doesn't end")
		}
		t.Logf("Close took %v", time.Since(began))
		if n := under.Load(); n != 0 {
			t.Errorf("%d handlers are still running", n)
		}
		if st := l.Status(); st.Connections != 0 || accepts(address) {
			t.Errorf("status: %+v", st)
		}
		busy.Wait()
	})
}

func TestListener_CloseCancelsRequestsWithItsCause(t *testing.T) {
	pair := issue(t, 1, nil)
	for name, h2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			causes := make(chan error, 1)
			began := make(chan struct{})
			l := openListener(t, func(_ http.ResponseWriter, r *http.Request) {
				// It reads nothing, so that net/http doesn't see the connection's end.
				close(began)
				<-r.Context().Done()
				causes <- context.Cause(r.Context())
			})
			apply(t, l, listenConfig(pair.in))
			body, stop := io.Pipe()
			defer stop.Close()
			go func() {
				resp, err := newClient(t, h2, pair).Post("https://"+l.Status().Address, "text/plain", body)
				if err == nil {
					_ = resp.Body.Close()
				}
			}()
			received(t, "the request", began)
			ctx, cancel := context.WithTimeout(t.Context(), soon)
			defer cancel()
			l.Close(ctx)
			if err := received(t, "the cause", causes); !errors.Is(err, ErrListenerClosed) {
				t.Errorf("cause: %v", err)
			}
		})
	}
}

func TestListener_CloseWaitsForHandlersNoLongerThanItsContext(t *testing.T) {
	began, let := make(chan struct{}), make(chan struct{})
	var returned atomic.Bool
	l := openListener(t, func(http.ResponseWriter, *http.Request) {
		close(began)
		<-let
		returned.Store(true)
	})
	apply(t, l, listenConfig())
	c := dialTCP(t, l.Status().Address)
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	received(t, "the request", began)

	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	l.Close(short)
	if short.Err() == nil {
		t.Error("Close returned while a handler was running")
	}
	time.AfterFunc(20*time.Millisecond, func() { close(let) })
	long, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	l.Close(long)
	if !returned.Load() {
		t.Error("Close returned before the handler")
	}
}

func TestListener_ASocketThatIsBoundDuringCloseIsClosedToo(t *testing.T) {
	var l *Listener
	var address string
	l = openListener(t, sayOK, func(o *ListenerOptions) {
		o.Listen = func(network, asked string) (net.Listener, error) {
			k, err := net.Listen(network, asked)
			if err == nil {
				address = k.Addr().String()
				l.Close(t.Context())
			}
			return k, err
		}
	})
	if err := l.Apply(listenConfig()); !errors.Is(err, ErrListenerClosed) {
		t.Errorf("Apply: %v", err)
	}
	if accepts(address) || l.Status().Address != "" {
		t.Errorf("%s accepts connections", address)
	}
}

func TestListener_ConcurrentCallsAndCloseLeaveNothingBehind(t *testing.T) {
	pair := issue(t, 1, nil)
	leavesNoGoroutine(t, func() {
		l := NewListener(ListenerOptions{Handler: http.HandlerFunc(sayOK), Retry: time.Millisecond, Leave: time.Second})
		ctx, stop := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer stop()
		var busy sync.WaitGroup
		repeat := func(f func(i int)) {
			busy.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					f(i)
				}
			})
		}
		for worker := range 2 {
			repeat(func(i int) {
				c := listenConfig()
				switch (i + worker) % 5 {
				case 0:
					pair.in(c)
				case 1:
					c.Address = "localhost:0"
				case 2:
					c.KeepAlive = time.Duration(i+1) * time.Second
				case 3:
					l.Start(c)
					return
				case 4:
					c = nil
				}
				if err := l.Apply(c); err != nil && !errors.Is(err, ErrListenerClosed) {
					t.Error(err)
				}
			})
		}
		tr := &http.Transport{TLSClientConfig: clientConfig(pair)}
		defer tr.CloseIdleConnections()
		repeat(func(int) {
			for _, scheme := range []string{"http://", "https://"} {
				if resp, err := (&http.Client{Transport: tr}).Get(scheme + l.Status().Address); err == nil {
					_ = resp.Body.Close()
				}
			}
		})
		repeat(func(i int) { l.SetDraining(i%2 == 0) })
		busy.Go(func() {
			<-ctx.Done()
			both, cancel := context.WithTimeout(context.Background(), soon)
			defer cancel()
			busy.Go(func() { l.Close(both) })
			l.Close(both)
			if both.Err() != nil {
				t.Error("Close waited for something that doesn't end")
			}
		})
		busy.Wait()
		if st := l.Status(); st != (ListenerStatus{Refused: st.Refused}) {
			t.Errorf("status: %+v", st)
		}
	})
}

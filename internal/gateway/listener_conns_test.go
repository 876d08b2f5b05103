// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func TestListener_ConnectionsPastTheMostAreClosedAndCounted(t *testing.T) {
	l := openListener(t, sayOK)
	few := listenConfig(func(c *ListenConfig) { c.MaxConnections = 3 })
	apply(t, l, few)
	address := l.Status().Address
	var kept []net.Conn
	for range 3 {
		kept = append(kept, idle(t, address))
	}
	for range 2 {
		if n, err := dialTCP(t, address).Read(make([]byte, 1)); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a connection too many: %d bytes, %v", n, err)
		}
	}
	if st := l.Status(); st.Connections != 3 || st.Refused != 2 {
		t.Errorf("status: %+v", st)
	}
	_ = kept[0].Close()
	until(t, "the connection is gone", func() bool { return l.Status().Connections == 2 })
	idle(t, address)

	apply(t, l, listenConfig(func(c *ListenConfig) { c.MaxConnections = 4 }))
	idle(t, address)
	apply(t, l, few) // those that are open stay
	if st := l.Status(); st.Connections != 4 || st.Refused != 2 {
		t.Errorf("status: %+v", st)
	}
}

func TestListener_ASlowHeaderOrHandshakeEndsTheConnection(t *testing.T) {
	pair := issue(t, 1, nil)
	for name, secure := range map[string]func(*ListenConfig){"header": func(*ListenConfig) {}, "handshake": pair.in} {
		t.Run(name, func(t *testing.T) {
			l := openListener(t, func(http.ResponseWriter, *http.Request) { t.Error("the handler was called") })
			apply(t, l, listenConfig(secure, func(c *ListenConfig) { c.ReadHeaderTimeout = 100 * time.Millisecond }))
			c := dialTCP(t, l.Status().Address)
			end := time.Now().Add(soon)
			// A byte now and then doesn't prolong it. \x16 begins a handshake.
			for text := "\x16\x03\x01\x01" + strings.Repeat("\x00", 1<<20); ; text = text[1:] {
				if name == "header" {
					text = "GET / HTTP/1.1\r\nHost: x\r\n" + text
					name = ""
				}
				if _, err := io.WriteString(c, text[:1]); err != nil {
					break
				}
				if time.Now().After(end) {
					t.Fatal("the connection is still open")
				}
				time.Sleep(5 * time.Millisecond)
			}
			until(t, "the connection is gone", func() bool { return l.Status().Connections == 0 })
		})
	}
}

func TestListener_AStreamOutlivesTheHeaderTimeout(t *testing.T) {
	l := openListener(t, func(w http.ResponseWriter, _ *http.Request) {
		for range 10 {
			time.Sleep(20 * time.Millisecond)
			_, _ = io.WriteString(w, "event\n")
			_ = http.NewResponseController(w).Flush()
		}
	})
	apply(t, l, listenConfig(func(c *ListenConfig) { c.ReadHeaderTimeout, c.KeepAlive = 30*time.Millisecond, 30*time.Millisecond }))
	if _, body := getFrom(t, newClient(t, false), "http://"+l.Status().Address); strings.Count(body, "event") != 10 {
		t.Errorf("answer %q", body)
	}
	until(t, "the idle connection is gone", func() bool { return l.Status().Connections == 0 })
}

func TestListener_OversizeHeadersAreAnsweredWith431(t *testing.T) {
	pair := issue(t, 1, nil)
	l := openListener(t, sayOK)
	apply(t, l, listenConfig(pair.in))
	for _, h2 := range []bool{false, true} {
		for size, want := range map[int]int{55 << 10: http.StatusOK, 70 << 10: http.StatusRequestHeaderFieldsTooLarge} {
			r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+l.Status().Address, nil)
			for i := range size >> 10 { // one that is too long ends an HTTP/2 connection
				r.Header.Set("X-Long-"+strconv.Itoa(i), strings.Repeat("x", 1000))
			}
			resp, err := newClient(t, h2, pair).Do(r)
			if h2 && want != http.StatusOK && err != nil && strings.Contains(err.Error(), "peer's advertised limit") {
				continue // the client was told the limit, and keeps to it
			}
			if err != nil {
				t.Errorf("HTTP/2 %v, %d bytes: %v", h2, size, err)
				continue
			}
			_ = resp.Body.Close()
			if resp.StatusCode != want {
				t.Errorf("HTTP/2 %v, %d bytes: status %d", h2, size, resp.StatusCode)
			}
		}
	}
}

// A socket closed with bytes unread sends a reset, which takes the answer away
// from a caller who is still sending.
func TestListener_ACallerStillSendingReadsTheWhole431(t *testing.T) {
	l := openListener(t, sayOK)
	apply(t, l, listenConfig())
	c := dialTCP(t, l.Status().Address)
	go func() { _, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nX-Long: "+strings.Repeat("x", 300_000)) }()
	answer, err := io.ReadAll(c)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 431 ") {
		t.Errorf("answer %q, %v", answer, err)
	}
}

func TestListener_OptionsOfTheServerGoToTheHandler(t *testing.T) {
	l := openListener(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusTeapot) })
	apply(t, l, listenConfig())
	c := dialTCP(t, l.Status().Address)
	_, _ = io.WriteString(c, "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != http.StatusTeapot {
		t.Errorf("answer %v, %v", resp, err)
	}
}

func TestListener_DrainingAsksCallersToGoAndCutsOffNothing(t *testing.T) {
	pair := issue(t, 1, nil)
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("http2 %v", h2), func(t *testing.T) {
			var addresses sync.Map
			l := openListener(t, func(w http.ResponseWriter, r *http.Request) {
				addresses.Store(r.RemoteAddr, true)
				sayOK(w, r)
			})
			apply(t, l, listenConfig(pair.in))
			url := "https://" + l.Status().Address
			dialled := func() (n int) {
				addresses.Range(func(any, any) bool { n++; return true })
				return n
			}
			c := newClient(t, h2, pair)
			getFrom(t, c, url)
			getFrom(t, c, url)
			if dialled() != 1 {
				t.Fatalf("%d connections for two requests", dialled())
			}
			l.SetDraining(true)
			if resp, _ := getFrom(t, c, url); dialled() != 1 || !h2 && !resp.Close {
				t.Errorf("while draining: %d connections, close %v", dialled(), resp.Close)
			}
			until(t, "the connection is gone", func() bool { return l.Status().Connections == 0 })
			getFrom(t, c, url)
			l.SetDraining(false)
			until(t, "the next connection is gone", func() bool { return l.Status().Connections == 0 })
			getFrom(t, c, url)
			getFrom(t, c, url)
			if dialled() != 3 {
				t.Errorf("%d connections in the end", dialled())
			}
		})
	}
}

func TestListener_APanicIsLoggedWithoutWhatTheCallerSent(t *testing.T) {
	pair := issue(t, 1, nil)
	lines := make(chan string, 100)
	l := openListener(t, func(_ http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/value":
			panic("vk-secret")
		case "/runtime":
			var none []int
			_ = none[len(r.URL.Path)]
		}
		panic(http.ErrAbortHandler)
	}, func(o *ListenerOptions) { o.Log = func(m string) { lines <- m } })
	apply(t, l, listenConfig(pair.in))
	for _, h2 := range []bool{false, true} {
		for path, want := range map[string]string{"/value": "a string\n", "/runtime": "index out of range [8] with length 0\n", "/abort": ""} {
			resp, err := newClient(t, h2, pair).Get("https://" + l.Status().Address + path)
			if err == nil {
				_ = resp.Body.Close()
				t.Errorf("%s: status %d", path, resp.StatusCode)
			}
			if want == "" {
				continue
			}
			line := received(t, "the log", lines)
			if !strings.Contains(line, want) || !strings.Contains(line, "listener_conns_test.go") || strings.Contains(line, "vk-secret") {
				t.Errorf("%s: %s", path, line)
			}
		}
	}
	for len(lines) > 0 {
		t.Errorf("more lines: %s", <-lines)
	}
}

func TestListener_APortScanDoesNotFillTheLog(t *testing.T) {
	var lines atomic.Int64
	now := time.Now()
	l := openListener(t, sayOK, func(o *ListenerOptions) {
		o.Now = func() time.Time { return now }
		o.Log = func(m string) {
			lines.Add(1)
			if !strings.Contains(m, "TLS handshake error") {
				t.Errorf("line %q", m)
			}
		}
	})
	apply(t, l, listenConfig(issue(t, 1, nil).in))
	for range 50 {
		c := dialTCP(t, l.Status().Address)
		_, _ = io.WriteString(c, "SSH-2.0-scan\r\n")
		_, _ = io.Copy(io.Discard, c)
	}
	if n := lines.Load(); n != logBurst {
		t.Errorf("%d lines", n)
	}
}

// failing is a socket that can't accept while it is broken.
type failing struct {
	net.Listener
	broken atomic.Bool
}

func (f *failing) Accept() (net.Conn, error) {
	if f.broken.Load() {
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return f.Listener.Accept()
}

func TestListener_AcceptingRecoversFromAFailure(t *testing.T) {
	f := new(failing)
	f.broken.Store(true)
	l := openListener(t, sayOK, func(o *ListenerOptions) {
		o.Listen = func(network, address string) (opened net.Listener, err error) {
			f.Listener, err = net.Listen(network, address)
			return f, err
		}
	})
	apply(t, l, listenConfig())
	until(t, "the problem is shown", func() bool {
		return strings.HasPrefix(l.Status().Problem, "connections can't be accepted: ")
	})
	f.broken.Store(false)
	getFrom(t, newClient(t, false), "http://"+l.Status().Address)
	if p := l.Status().Problem; p != "" {
		t.Errorf("the problem is still %q", p)
	}
}

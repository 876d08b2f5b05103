// SPDX-License-Identifier: MPL-2.0

package upstream

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestRequests_AreRecordedExactly(t *testing.T) {
	s := Start(t, Options{})
	body := "{ \"model\":\"up-ok\" ,\"messages\":[{\"content\":\"é\\u00e9\"}], \"x\": 9007199254740993}\n"
	r := newRequest(t, http.MethodPost, s.URL()+"/chat/completions?a=1&a=%202", body)
	r.Header.Set("X-Own", "yes")
	roundTrip(client(t), r).ok(t)
	got := s.Requests()
	if len(got) != 1 {
		t.Fatalf("%d requests", len(got))
	}
	g := got[0]
	if g.Method != "POST" || g.Path != "/v1/chat/completions" || g.RawQuery != "a=1&a=%202" || !slices.Equal(g.Query["a"], []string{"1", " 2"}) {
		t.Errorf("%s %s ? %s %v", g.Method, g.Path, g.RawQuery, g.Query)
	}
	if string(g.Body) != body || g.Header.Get("X-Own") != "yes" || g.Proto != "HTTP/1.1" || g.Key != "sk-test" || g.Model != "up-ok" {
		t.Errorf("%+v", g)
	}
	if g.Host != s.Addr() || g.RemoteAddr == "" {
		t.Errorf("host %q from %q", g.Host, g.RemoteAddr)
	}
	g.Body[0] = 'X'
	if s.Requests()[0].Body[0] == 'X' {
		t.Error("the record can be changed from outside")
	}
}

func TestHang_SeesTheClientCancel(t *testing.T) {
	for _, useTLS := range []bool{false, true} {
		s := Start(t, Options{TLS: useTLS})
		c := client(t)
		if useTLS {
			c.Transport = trusting(t, s)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		r := newRequest(t, http.MethodPost, s.URL()+"/chat/completions", chatCall("up-hang", "")).WithContext(ctx)
		go func() { ended <- roundTrip(c, r).err }()
		s.WaitRequests(t, 1)
		if g := s.Requests()[0]; g.Done || g.Cancelled {
			t.Errorf("tls=%t: over before it was cancelled: %+v", useTLS, g)
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("tls=%t: %v", useTLS, err)
		}
		s.WaitCancelled(t, 1)
		if g := s.Requests()[0]; !g.Done || !g.Cancelled || g.Status != 0 {
			t.Errorf("tls=%t: %+v", useTLS, g)
		}
	}
}

func TestHangMid_SendsHalfAndSeesTheClientCancel(t *testing.T) {
	s := Start(t, Options{})
	for i, extra := range []string{`,"stream":true`, ""} {
		ctx, cancel := context.WithCancel(context.Background())
		res, err := client(t).Do(newRequest(t, http.MethodPost, s.URL()+"/chat/completions", chatCall("up-hang-mid", extra)).WithContext(ctx))
		if err != nil {
			t.Fatal(err)
		}
		first := make([]byte, 32)
		if _, err := io.ReadFull(bufio.NewReader(res.Body), first); err != nil {
			t.Errorf("no first half%s: %v", extra, err)
		}
		cancel()
		_ = res.Body.Close()
		s.WaitCancelled(t, i+1)
	}
}

func TestAnswered_IsNotCancelled(t *testing.T) {
	s := Start(t, Options{})
	r := newRequest(t, http.MethodPost, s.URL()+"/chat/completions", chatCall("up-ok", ""))
	r.Close = true
	roundTrip(client(t), r).ok(t)
	// The connection ends with the answer, and Close waits for the handler.
	s.Close()
	if g := s.Requests()[0]; !g.Done || g.Cancelled || g.Status != 200 {
		t.Errorf("%+v", g)
	}
}

func TestClose_EndsEveryAnswerWithoutCallingItCancelled(t *testing.T) {
	for _, model := range []string{"up-hang", "up-hang-mid", "up-slow:60000", "up-big:16000000"} {
		t.Run(model, func(t *testing.T) {
			s := Start(t, Options{})
			const clients = 2
			for range clients {
				// A client that never reads: a large answer can't get out.
				conn, err := net.Dial("tcp", s.Addr())
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				sendRaw(t, conn, chatCall(model, ""))
			}
			s.WaitRequests(t, clients)
			s.Close()
			for _, g := range s.Requests() {
				if !g.Done || g.Cancelled {
					t.Errorf("done=%t cancelled=%t", g.Done, g.Cancelled)
				}
			}
			s.Close()
		})
	}
}

func TestClose_ReturnsThoughClientsPipeline(t *testing.T) {
	s := Start(t, Options{})
	var conns []net.Conn
	for range 8 {
		conn, err := net.Dial("tcp", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conns = append(conns, conn)
		sendRaw(t, conn, chatCall("up-hang", ""))
	}
	s.WaitRequests(t, len(conns))
	// net/http doesn't see a connection's end behind a second request.
	for _, conn := range conns {
		sendRaw(t, conn, chatCall("up-hang", ""))
	}
	s.Close()
}

func TestUploadBrokenOff_IsCancelledAndKeepsWhatArrived(t *testing.T) {
	s := Start(t, Options{})
	conn, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("POST /v1/chat/completions HTTP/1.1\r\nHost: upstream\r\nContent-Length: 100\r\n\r\nhalf")); err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	s.WaitCancelled(t, 1)
	if g := s.Requests()[0]; string(g.Body) != "half" || !g.Cancelled {
		t.Errorf("body %q, cancelled %t", g.Body, g.Cancelled)
	}
}

func TestBody_HasALimit(t *testing.T) {
	s := Start(t, Options{})
	if r := post(t, s, "/chat/completions", strings.Repeat(" ", maxBody+1)); r.status != http.StatusRequestEntityTooLarge {
		t.Errorf("%d, %v", r.status, r.err)
	}
}

// sendRaw sends a chat completion request as HTTP/1.1.
func sendRaw(t *testing.T, conn net.Conn, body string) {
	t.Helper()
	if _, err := fmt.Fprintf(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: upstream\r\nContent-Length: %d\r\n\r\n%s", len(body), body); err != nil {
		t.Fatal(err)
	}
}

func TestWait_GivesUp(t *testing.T) {
	var j journal
	if j.wait(time.Millisecond, func() bool { return false }) {
		t.Error("it saw what never came")
	}
}

func TestConnections_CountsReuse(t *testing.T) {
	s := Start(t, Options{})
	c := client(t)
	for range 3 {
		roundTrip(c, newRequest(t, http.MethodGet, s.URL()+"/models", "")).ok(t)
	}
	if n := s.Connections(); n != 1 {
		t.Errorf("%d connections for one client", n)
	}
	get(t, s, "/models").ok(t)
	if n := s.Connections(); n != 2 {
		t.Errorf("%d connections for two clients", n)
	}
}

func TestDiscard_CountsButKeepsNothing(t *testing.T) {
	s := Start(t, Options{Discard: true})
	get(t, s, "/models").ok(t)
	s.WaitRequests(t, 1)
	if s.Received() != 1 || len(s.Requests()) != 0 {
		t.Errorf("received %d, kept %d", s.Received(), len(s.Requests()))
	}
}

// trusting is a transport that trusts the server's CA alone and offers HTTP/2.
func trusting(tb testing.TB, s *Server) *http.Transport {
	tb.Helper()
	pem, err := os.ReadFile(s.CAFile())
	if err != nil {
		tb.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		tb.Fatal("no certificate in the CA's file")
	}
	t := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true}
	tb.Cleanup(t.CloseIdleConnections)
	return t
}

func TestTLS_ServesBothProtocolsToWhoeverTrustsTheCA(t *testing.T) {
	s := Start(t, Options{TLS: true})
	for _, want := range []string{"HTTP/2.0", "HTTP/1.1"} {
		transport := trusting(t, s)
		if want == "HTTP/1.1" {
			transport.ForceAttemptHTTP2 = false
		}
		c := &http.Client{Transport: transport}
		roundTrip(c, newRequest(t, http.MethodGet, s.URL()+"/models", "")).ok(t)
		requests := s.Requests()
		if got := requests[len(requests)-1].Proto; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		for _, model := range []string{"up-reset", "up-reset-mid", "up-garbage:http"} {
			r := roundTrip(c, newRequest(t, http.MethodPost, s.URL()+"/chat/completions", chatCall(model, "")))
			if r.err == nil {
				t.Errorf("%s over %s: a whole answer %q", model, want, r.body)
			}
		}
	}
	var unknown x509.UnknownAuthorityError
	if r := get(t, s, "/models"); !errors.As(r.err, &unknown) {
		t.Errorf("without the CA: %v", r.err)
	}
	s.Close()
	if _, err := os.Stat(s.CAFile()); !os.IsNotExist(err) {
		t.Errorf("the CA's file is left: %v", err)
	}
}

func TestProxy_RecordsAndReachesOnlyWhatIsRouted(t *testing.T) {
	s := Start(t, Options{TLS: true, Hosts: []string{"api.example.test"}})
	p := StartProxy(t)
	p.Route("api.example.test:443", s.Addr())
	transport := trusting(t, s)
	u, err := url.Parse(p.URL())
	if err != nil {
		t.Fatal(err)
	}
	transport.Proxy = http.ProxyURL(u)
	c := &http.Client{Transport: transport}
	roundTrip(c, newRequest(t, http.MethodGet, "https://api.example.test/v1/models", "")).ok(t)
	if r := roundTrip(c, newRequest(t, http.MethodGet, s.URL()+"/models", "")); r.err == nil || !strings.Contains(r.err.Error(), "Bad Gateway") {
		t.Errorf("without a route: %d, %v", r.status, r.err)
	}
	if got, want := p.Hosts(), []string{"api.example.test:443", s.Addr()}; !slices.Equal(got, want) {
		t.Errorf("hosts %q, want %q", got, want)
	}
	if got := s.Requests()[0].Host; got != "api.example.test" {
		t.Errorf("host %q", got)
	}
}

func TestServer_TakesManyClientsAtOnce(t *testing.T) {
	s := Start(t, Options{Keys: []string{"sk-test", "sk-other"}})
	c := client(t)
	const clients, each = 16, 20
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			for j := range each {
				if i == 0 {
					s.SetKeys("sk-test", "sk-other")
				}
				r := roundTrip(c, newRequest(t, http.MethodPost, s.URL()+"/chat/completions", chatCall("up-ok", []string{"", `,"stream":true`}[j%2])))
				if r.status != 200 || !bytes.Contains(r.body, []byte("Hello")) {
					t.Errorf("%d %v %q", r.status, r.err, r.body)
				}
				_ = s.Requests()
			}
		})
	}
	s.WaitRequests(t, clients*each)
	wg.Wait()
	if n := s.Received(); n != clients*each {
		t.Errorf("%d received", n)
	}
}

// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
)

const (
	// maxStreams is of one HTTP/2 connection; a client that needs more opens
	// another, and MaxConnections counts it.
	maxStreams = 250
	// maxFrame is the smallest that HTTP/2 allows (RFC 9113 §4.2): net/http
	// keeps a buffer of the largest frame seen for as long as the connection.
	maxFrame = 16 << 10
)

// server is one http.Server, for as long as its limits stand. It is also the
// net.Listener that its http.Server accepts from, so that ending it leaves the
// socket alone.
type server struct {
	listenLimits
	owner       *Listener
	http        *http.Server
	certificate atomic.Pointer[tls.Certificate]
	open        atomic.Int64 // connections
	handoff     chan net.Conn
	retired     chan struct{}
	retiring    sync.Once
	ended       atomic.Bool // accepts no more
	leaving     atomic.Bool // asks callers to reconnect
	departing   bool        // guarded by owner.mu
}

// startServer returns a server that waits for connections. mu is held, and l
// isn't closed.
func (l *Listener) startServer(s *listenSettings) *server {
	srv := &server{listenLimits: s.listenLimits, owner: l, handoff: make(chan net.Conn), retired: make(chan struct{})}
	srv.certificate.Store(s.certificate)
	srv.http = &http.Server{
		Handler:                      srv,
		DisableGeneralOptionsHandler: true,
		ReadHeaderTimeout:            s.readHeader,
		IdleTimeout:                  s.keepAlive,
		MaxHeaderBytes:               s.headerBytes,
		ErrorLog:                     l.errors,
		BaseContext:                  func(net.Listener) context.Context { return l.ctx },
		ConnContext:                  withConn,
		Protocols:                    new(http.Protocols),
		HTTP2:                        &http.HTTP2Config{MaxConcurrentStreams: maxStreams, MaxReadFrameSize: maxFrame},
		// No ReadTimeout and WriteTimeout: a stream may last.
	}
	srv.http.Protocols.SetHTTP1(true)
	serve := srv.http.Serve
	if s.secure {
		srv.http.Protocols.SetHTTP2(true)
		srv.http.TLSConfig = tlsConfig(srv.certificate.Load)
		serve = func(from net.Listener) error { return srv.http.ServeTLS(from, "", "") }
	}
	l.servers = append(l.servers, srv)
	l.background.Go(func() {
		_ = serve(srv) // ends when retired, with no news in its error
		srv.ended.Store(true)
	})
	return srv
}

// take hands a connection to the http.Server, unless s is retired.
func (s *server) take(c *conn) bool {
	c.server = s
	s.open.Add(1)
	select {
	case s.handoff <- c:
		return true
	case <-s.retired:
		s.open.Add(-1)
		return false
	}
}

// retire takes no more connections. Those that are open are asked to
// reconnect after their next answer.
func (s *server) retire() {
	s.leaving.Store(true)
	s.retiring.Do(func() { close(s.retired) })
}

// Accept implements net.Listener for the http.Server.
func (s *server) Accept() (net.Conn, error) {
	select {
	case c := <-s.handoff:
		return c, nil
	case <-s.retired:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener for the http.Server.
func (s *server) Close() error {
	s.retire()
	return nil
}

// Addr implements net.Listener. Nothing asks for it.
func (s *server) Addr() net.Addr { return &net.TCPAddr{} }

// ServeHTTP is what all requests go through on their way to the handler.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l := s.owner
	if !l.requests.enter() {
		panic(http.ErrAbortHandler)
	}
	defer func() {
		l.requests.exit()
		if v := recover(); v != nil {
			if err, ok := v.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
				l.panics.add(describePanic(v))
			}
			panic(http.ErrAbortHandler) // net/http ends the request without a line of its own
		}
	}()
	if l.draining.Load() || s.leaving.Load() {
		// Not http.Server.SetKeepAlivesEnabled, which closes idle
		// connections though a request may be on its way. Over HTTP/2
		// net/http makes a GOAWAY of it.
		w.Header().Set("Connection", "close")
	}
	l.options.Handler.ServeHTTP(w, r)
}

// describePanic keeps the value to itself unless it is the runtime's, for it
// may be made of what a caller sent.
func describePanic(v any) string {
	what := fmt.Sprintf("a %T", v)
	if e, ok := v.(runtime.Error); ok {
		what = e.Error()
	}
	return "panic while answering a request of the gateway: " + what + "\n" + string(debug.Stack())
}

// requestGate counts requests under way until it is closed.
type requestGate struct {
	under  atomic.Int64
	closed atomic.Bool
	once   sync.Once
	done   chan struct{} // closed when it is closed and none is under way
}

// enter reports whether a request may begin; if so, exit must follow.
func (g *requestGate) enter() bool {
	// Counted first: either this sees closed, or close sees the count.
	g.under.Add(1)
	if g.closed.Load() {
		g.exit()
		return false
	}
	return true
}

func (g *requestGate) exit() {
	if g.under.Add(-1) == 0 && g.closed.Load() {
		g.once.Do(func() { close(g.done) })
	}
}

func (g *requestGate) close() {
	g.closed.Store(true)
	if g.under.Load() == 0 {
		g.once.Do(func() { close(g.done) })
	}
}

// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// slowestAccept bounds the pause after connections couldn't be accepted.
const slowestAccept = time.Second

// socket is a bound address.
type socket struct {
	net.Listener
	configured string                 // the address as it was asked for
	server     atomic.Pointer[server] // takes the connections
	problem    atomic.Pointer[string] // why none can be accepted; nil if they can
	closed     chan struct{}
	closing    sync.Once
}

// openSocket begins to accept from opened. mu is held, and l isn't closed.
func (l *Listener) openSocket(opened net.Listener, configured string, s *server) {
	k := &socket{Listener: opened, configured: configured, closed: make(chan struct{})}
	k.server.Store(s)
	l.socket = k
	l.background.Go(func() { l.accept(k) })
}

// close frees the address before it returns.
func (k *socket) close() {
	k.closing.Do(func() {
		close(k.closed)
		_ = k.Listener.Close() //nolint:staticcheck // k.Close would be read as close
	})
}

// serves reports whether a socket for address would be this one.
func (k *socket) serves(address string) bool {
	return sameAddress(k.configured, address) || sameAddress(k.Addr().String(), address)
}

// port is 0 if k isn't TCP.
func (k *socket) port() int {
	if a, ok := k.Addr().(*net.TCPAddr); ok {
		return a.Port
	}
	return 0
}

// accept takes connections from k until it is closed. A failure, such as that
// the process has no more file descriptors, is waited out.
func (l *Listener) accept(k *socket) {
	const shortest = 5 * time.Millisecond
	pause := shortest
	for {
		c, err := k.Accept()
		if err == nil {
			if pause > shortest {
				pause = shortest
				k.problem.Store(nil)
			}
			l.admit(k, c)
			continue
		}
		select {
		case <-k.closed:
			return
		case <-time.After(pause):
		}
		text := "connections can't be accepted: " + err.Error()
		k.problem.Store(&text)
		l.errors.Print(text)
		pause = min(2*pause, slowestAccept)
	}
}

// admit hands a connection to the server, or closes it if there are too many.
func (l *Listener) admit(k *socket, accepted net.Conn) {
	c := &conn{Conn: accepted, owner: l}
	if l.connections.Add(1) > l.maxConnections.Load() {
		l.connections.Add(-1)
		l.refused.Add(1)
		_ = accepted.Close()
		return
	}
	for {
		s := k.server.Load()
		if s.take(c) {
			return
		}
		if k.server.Load() == s { // retired, and none came after it: k is closed
			l.connections.Add(-1)
			_ = accepted.Close()
			return
		}
	}
}

// conn is a connection that is counted until it is closed.
type conn struct {
	net.Conn
	owner    *Listener
	server   *server
	closed   atomic.Bool
	gatherer gatherer
}

// Write fails after the listener was closed. Closing a TLS connection writes
// an alert, which a caller that doesn't read could hold up for seconds.
func (c *conn) Write(b []byte) (int, error) {
	if c.owner.requests.closed.Load() {
		return 0, net.ErrClosed
	}
	return c.gatherer.write(c.Conn, b)
}

// CloseWrite lets net/http end an answer such as 431 so that a caller who is
// still sending reads it rather than a reset.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

func (c *conn) Close() error {
	if c.closed.CompareAndSwap(false, true) {
		c.server.open.Add(-1)
		c.owner.connections.Add(-1)
	}
	return c.Conn.Close()
}

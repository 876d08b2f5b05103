// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"context"
	"errors"
	"log"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// ErrListenerClosed is what Apply returns after Close, and the cause
// (context.Cause) of the contexts of requests that Close cuts off.
var ErrListenerClosed = errors.New("the gateway's listener is closed")

// ListenerOptions are what a Listener works with.
type ListenerOptions struct {
	// Handler answers the requests. A panic in it is logged without its value,
	// which may hold what a caller sent, and ends that request alone.
	Handler http.Handler
	// Log takes messages about connections and panics. They are limited in
	// rate and hold no request content. nil drops them.
	Log func(message string)
	// Retry is how long Start waits between attempts; 1 s if 0.
	Retry time.Duration
	// Leave is how long requests may go on after their address was left; 10
	// minutes if 0.
	Leave time.Duration
	// Listen opens a socket; nil means net.ListenConfig's, with its TCP keep-alive.
	Listen func(network, address string) (net.Listener, error)
	// Now is the clock for a certificate's validity, the log's rate and
	// Status; time.Now if nil.
	Now func() time.Time
}

// Listener is the listening side of the gateway. A socket accepts connections
// and hands them to the current server; both can be replaced without the
// other. All methods are safe for concurrent use, and only Apply waits for
// name resolution.
//
// An open stream takes about 24 KiB over HTTP/1, 34 KiB with TLS (two goroutines'
// stacks, buffers of 4 KiB each way and the record's), and 10 KiB over HTTP/2
// (one of 100 on a connection). That is net/http's and crypto/tls's share; the
// Listener's own is 0.1 KiB. Measured with 2,000 streams on Go 1.26; what isn't collected
// yet comes on top, such as what handshakes left.
type Listener struct {
	options ListenerOptions
	ctx     context.Context
	stop    context.CancelCauseFunc
	errors  *log.Logger
	panics  *limitedLog

	requests       requestGate
	draining       atomic.Bool
	connections    atomic.Int64
	refused        atomic.Int64
	maxConnections atomic.Int64

	// applying is held by whoever binds or replaces; it comes before mu.
	applying sync.Mutex

	mu         sync.Mutex
	closed     bool
	socket     *socket            // nil: doesn't listen
	servers    []*server          // the socket's, and those with connections left
	installed  *listenSettings    // nil: turned off
	problem    string             // of Start
	retry      context.CancelFunc // ends Start's attempts; nil: there are none
	background sync.WaitGroup     // Add only with mu held and closed false
	ended      chan struct{}      // closed when background is empty, after Close
}

// ListenerStatus is what an operator wants to know of a Listener.
type ListenerStatus struct {
	// Address is as bound, with the port that the system chose; "" if none.
	Address string
	// Problem says what is wrong and since when; "" if nothing is.
	Problem string
	// Connections are those open now; Refused, those closed at once because
	// MaxConnections were open, since NewListener.
	Connections, Refused int64
	// CertificateExpires is zero without TLS.
	CertificateExpires time.Time
}

// NewListener returns a Listener that doesn't listen yet.
func NewListener(o ListenerOptions) *Listener {
	if o.Log == nil {
		o.Log = func(string) {}
	}
	if o.Retry <= 0 {
		o.Retry = time.Second
	}
	if o.Leave <= 0 {
		o.Leave = 10 * time.Minute
	}
	if o.Listen == nil {
		o.Listen = func(network, address string) (net.Listener, error) {
			return new(net.ListenConfig).Listen(context.Background(), network, address)
		}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	l := &Listener{options: o, ended: make(chan struct{})}
	l.ctx, l.stop = context.WithCancelCause(context.Background())
	// Apart, so that a port scanner's lines don't push out a panic's.
	l.errors = log.New(oneLine{newLimitedLog(o.Now, o.Log)}, "", 0)
	l.panics = newLimitedLog(o.Now, o.Log)
	l.requests.done = make(chan struct{})
	return l
}

// Apply makes the listener be as c says; nil leaves the address and listens no
// more. On an error nothing has changed.
//
// The same address keeps its socket: certificates and limits are replaced with
// no connection dropped and no gap in accepting. Connections that are open
// then keep their old limits, but after their next answer they are asked to
// reconnect. Turning TLS on or off closes those of the other kind as if their
// address was left.
//
// A new address is bound before the old one is left; only where the old one is
// itself in the way (127.0.0.1:8300 to 0.0.0.0:8300) it is closed for the
// moment, and bound again if the new one can't be. On leaving an address the
// requests in flight may go on for ListenerOptions.Leave; idle connections are
// closed.
//
// It ends the attempts of Start, unless it fails.
func (l *Listener) Apply(c *ListenConfig) error {
	l.applying.Lock()
	defer l.applying.Unlock()
	if c == nil {
		return l.turnOff()
	}
	s, err := c.settings()
	if err == nil {
		err = s.checkValidity(l.options.Now())
	}
	if err != nil {
		return err
	}
	return l.install(s)
}

// Start is Apply for start-up, and returns at once. Where the address can't be
// bound, such as because a process that is ending still holds it, it tries
// every ListenerOptions.Retry until it can, is closed, or Apply succeeds. A
// certificate that has expired meanwhile is served all the same, for it would
// be if the process hadn't been restarted. Problems are shown by Status.
func (l *Listener) Start(c *ListenConfig) {
	if c == nil {
		return
	}
	s, err := c.settings()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	if err != nil {
		l.endRetries()
		l.problem = err.Error()
		return
	}
	l.startTrying(s)
}

// startTrying begins attempts to install s, and ends others. mu is held, and l
// isn't closed.
func (l *Listener) startTrying(s *listenSettings) {
	l.endRetries()
	ctx, cancel := context.WithCancel(l.ctx)
	l.retry = cancel
	l.background.Go(func() { l.keepTrying(ctx, s) })
}

// keepTrying goes on until s is installed or ctx ends.
func (l *Listener) keepTrying(ctx context.Context, s *listenSettings) {
	ticker := time.NewTicker(l.options.Retry)
	defer ticker.Stop()
	since := l.options.Now().UTC().Format(time.RFC3339)
	for !l.tryOnce(ctx, s, since) {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// tryOnce reports whether there is nothing more to try.
func (l *Listener) tryOnce(ctx context.Context, s *listenSettings, since string) bool {
	l.applying.Lock()
	defer l.applying.Unlock()
	if ctx.Err() != nil {
		return true
	}
	err := l.install(s)
	if err == nil {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if ctx.Err() == nil {
		l.problem = err.Error() + "; retrying every " + l.options.Retry.String() + " since " + since
	}
	return false
}

// endRetries ends Start's attempts. mu is held.
func (l *Listener) endRetries() {
	if l.retry != nil {
		l.retry()
		l.retry = nil
	}
	l.problem = ""
}

// Status is a snapshot. It never waits for Apply.
func (l *Listener) Status() ListenerStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	st := ListenerStatus{Problem: l.problem, Connections: l.connections.Load(), Refused: l.refused.Load()}
	if l.socket == nil {
		return st
	}
	st.Address = l.socket.Addr().String()
	if p := l.socket.problem.Load(); st.Problem == "" && p != nil {
		st.Problem = *p
	}
	if c := l.installed.certificate; c != nil {
		st.CertificateExpires = c.Leaf.NotAfter
		if err := l.installed.checkValidity(l.options.Now()); st.Problem == "" && err != nil {
			st.Problem = err.Error()
		}
	}
	return st
}

// SetDraining says whether callers are asked to go elsewhere: while on, the
// answer to each request that begins tells the caller to close the connection
// (Connection: close; GOAWAY over HTTP/2). Connections are accepted and
// requests are handed to the handler as ever, and nothing is cut off.
func (l *Listener) SetDraining(on bool) { l.draining.Store(on) }

// Close stops listening, closes every connection at once and cancels the
// contexts of the requests in flight, with ErrListenerClosed as the cause.
// Then it waits for their handlers to return, until ctx ends. It can be called
// again; afterwards Apply fails and Start does nothing.
func (l *Listener) Close(ctx context.Context) {
	l.mu.Lock()
	first := !l.closed
	l.closed = true
	l.requests.close()
	l.endRetries()
	l.stop(ErrListenerClosed)
	if l.socket != nil {
		l.socket.close()
		l.socket = nil
	}
	if first {
		for _, s := range l.servers {
			// Not here: a server that shuts down may hold its lock.
			l.background.Go(func() { _ = s.http.Close() })
		}
		go func() {
			l.background.Wait()
			close(l.ended)
		}()
	}
	l.mu.Unlock()

	for _, done := range []<-chan struct{}{l.requests.done, l.ended} {
		select {
		case <-done:
		case <-ctx.Done():
			return
		}
	}
}

// SPDX-License-Identifier: MPL-2.0

package upstream

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"
)

// Proxy is an HTTP CONNECT proxy that records what it is asked for, for tests
// of HTTPS_PROXY. It reaches only what Route names, so no test leaves the
// machine by it. Its methods are safe for concurrent use.
type Proxy struct {
	url  string
	http *http.Server

	mu     sync.Mutex
	routes map[string]string
	hosts  []string
	conns  map[net.Conn]struct{} // hijacked, both ends of each tunnel
	closed bool
	wg     sync.WaitGroup
}

// StartProxy runs a Proxy on a free loopback port until the test ends, and fails
// the test if it can't.
func StartProxy(tb testing.TB) *Proxy {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatalf("upstream: listen for the proxy: %v", err)
	}
	p := &Proxy{
		url:    "http://" + l.Addr().String(),
		routes: map[string]string{},
		conns:  map[net.Conn]struct{}{},
	}
	p.http = &http.Server{Handler: p, ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0)}
	go func() { _ = p.http.Serve(l) }() // it ends when close closes l
	tb.Cleanup(func() {
		_ = l.Close()
		p.close()
	})
	return p
}

// URL is the value for HTTPS_PROXY.
func (p *Proxy) URL() string { return p.url }

// Route makes the proxy dial address, host:port, for whoever asks for hostport.
// Without a route it answers 502.
func (p *Proxy) Route(hostport, address string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.routes[hostport] = address
}

// Hosts are the host:port of all CONNECTs so far, in order, routed or not.
func (p *Proxy) Hosts() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.hosts)
}

// ServeHTTP serves one CONNECT; it is for net/http to call.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect {
		http.Error(w, "this proxy only does CONNECT", http.StatusNotImplemented)
		return
	}
	p.mu.Lock()
	p.hosts = append(p.hosts, r.Host)
	address, ok := p.routes[r.Host]
	p.mu.Unlock()
	if !ok {
		http.Error(w, fmt.Sprintf("no route to %s", r.Host), http.StatusBadGateway)
		return
	}
	target, err := (&net.Dialer{}).DialContext(r.Context(), "tcp", address)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	client, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		_ = target.Close()
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if _, err := client.Write([]byte("HTTP/1.1 200 Connection established\r\n\r\n")); err != nil {
		_ = client.Close()
		_ = target.Close()
		return
	}
	p.tunnel(client, buffered, target)
}

// tunnel copies both ways until one side ends; then it closes both.
func (p *Proxy) tunnel(client net.Conn, fromClient io.Reader, target net.Conn) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		_ = client.Close()
		_ = target.Close()
		return
	}
	p.conns[client], p.conns[target] = struct{}{}, struct{}{}
	p.wg.Add(2)
	p.mu.Unlock()

	copyAndClose := func(to net.Conn, from io.Reader) {
		defer p.wg.Done()
		_, _ = io.Copy(to, from) // a broken tunnel is the ends' business
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, c := range []net.Conn{client, target} {
			_ = c.Close()
			delete(p.conns, c)
		}
	}
	go copyAndClose(target, fromClient)
	go copyAndClose(client, target)
}

// close ends every tunnel and waits for them.
func (p *Proxy) close() {
	_ = p.http.Close() // what it could fail to close is closed below
	p.mu.Lock()
	p.closed = true
	for c := range p.conns {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
}

// SPDX-License-Identifier: MPL-2.0

// Command reverseproxy is what the gateway is measured against: the standard
// library's httputil.ReverseProxy, with the pools that make it fast and nothing
// else in its way. It prints its base URL and serves until it is ended.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"sync"
	"time"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "`address` to listen on")
	to := flag.String("to", "", "base `URL` that requests are passed on to")
	flag.Parse()
	if err := run(*listen, *to); err != nil {
		fmt.Fprintln(os.Stderr, "reverseproxy:", err)
		os.Exit(1)
	}
}

func run(listen, to string) error {
	target, err := url.Parse(to)
	if err != nil || target.Host == "" {
		return fmt.Errorf("-to %q isn't a base URL", to)
	}
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", listen)
	if err != nil {
		return err
	}
	fmt.Printf("http://%s\n", l.Addr())
	server := &http.Server{Handler: handler(newProxy(target)), ReadHeaderTimeout: 10 * time.Second}
	return server.Serve(l)
}

// handler lets the server leave a request's body alone while the answer is
// written. Otherwise it closes the body at the answer's first byte, and an
// upstream as quick as the bench's answers before the transport has seen the
// body's end: the transport takes the closed body for an error, and ends the
// connection in the middle of the answer.
func handler(proxy http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex() // HTTP/2 has it anyway
		proxy.ServeHTTP(w, r)
	})
}

// newProxy keeps as many connections to the upstream as the gateway's own
// transport does.
func newProxy(target *url.URL) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
			MaxIdleConns:        4096,
			MaxIdleConnsPerHost: 1024,
			IdleConnTimeout:     90 * time.Second,
		},
		BufferPool: &buffers{},
		// A caller that goes away as the bench ends is no news.
		ErrorLog: log.New(io.Discard, "", 0),
	}
}

// buffers is a pool of what answers are copied through.
type buffers struct{ pool sync.Pool }

var _ httputil.BufferPool = (*buffers)(nil)

// Get returns 32 KiB, the size that ReverseProxy itself would allocate.
func (b *buffers) Get() []byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return *p
	}
	return make([]byte, 32<<10)
}

// Put takes back what Get returned.
func (b *buffers) Put(p []byte) { b.pool.Put(&p) }

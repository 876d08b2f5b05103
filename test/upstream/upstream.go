// SPDX-License-Identifier: MPL-2.0

// Package upstream is a test instrument that behaves like an LLM provider over
// real HTTP: OpenAI's API on the wire, down to SSE framing and error bodies.
// It records all that it receives, misbehaves when asked to, and is controlled
// from Go. Integration tests and benchmarks put it where a provider would be.
//
// It is no part of the product, and it is not the sandbox provider
// (internal/sandbox), which users meet.
//
// # Behaviour
//
// The request's model name selects what happens, so that an unmodified SDK can
// ask for it. Numbers have upper bounds; a name with bad arguments is answered
// with a 400 that says what was expected.
//
//	up-ok                        the usual answer
//	up-slow:<ms>                 the usual answer, that much later
//	up-stream:<events>:<ms>      that many tokens; as a stream, one each <ms>
//	up-random:<min>:<max>[:<ms>] from <min> to <max> tokens, at random, after up
//	                             to <ms> at random
//	up-hang                      reads the request and never answers
//	up-hang-mid                  stops half-way through the answer, connection open
//	up-reset                     resets the connection before any answer
//	up-reset-mid                 resets the connection half-way through the answer
//	up-garbage                   200 with a body that is not JSON
//	up-garbage:http              bytes that are not HTTP, on HTTP/1.1; on HTTP/2 a reset stream
//	up-garbage:short             200 with less body than Content-Length says
//	up-<status>                  that status, 400 to 599, with OpenAI's error body
//	up-redirect:[<code>:]<url>   a redirect there; 307 unless another code is given
//	up-big:<bytes>               an answer of exactly that many bytes if not streamed,
//	                             of about that many if streamed
//	up-echo                      the request's headers and body in the message content
//	                             and in the header X-Upstream-Echo
//	up-error-event               an error in mid-stream; 500 if not streamed
//	up-comments                  a stream with comments, CRLF line ends and odd splits
//	up-no-usage                  no usage anywhere
//	up-gzip                      gzip if the request accepts it
//
// A model of Options.Models behaves as up-ok; any other is OpenAI's 404
// model_not_found. Server.Behave overrides the model, also for endpoints that
// have none.
//
// # Usage
//
// Prompt tokens are the bytes of all text of the request's messages, prompt,
// input or instructions, divided by 4 and rounded up; a number in a token array
// counts as one token. The usual answer is AnswerText, which is 5 tokens;
// up-stream has as many tokens as events, up-random as many as it drew, up-big
// one a 16 KiB, up-echo one.
// max_tokens, max_completion_tokens and max_output_tokens cut the answer, and n
// multiplies it.
//
// # What would be billed
//
// Server.Delivered adds up, by API key and model, what a provider would bill:
// an answer's prompt and completion tokens in full, at the moment when the
// status 200 is sent. That is so whether the answer says so (up-no-usage),
// breaks off (up-hang-mid, up-reset-mid, up-error-event as a stream), can't be
// read (up-garbage, up-garbage:short; as the usual answer), or has nobody left
// to read it: a client that goes away during a delay is billed at once. A
// transcription is billed as a request without tokens. Nothing is billed for
// models and for whatever has another status or none (up-<status>,
// up-redirect, up-reset, up-hang, up-garbage:http), nor for what Close breaks
// off before its status.
package upstream

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// AnswerText is the text that up-ok answers with.
const AnswerText = "Hello from the upstream."

// Options say how a Server listens and whom it answers. The zero value is plain
// HTTP on a free loopback port, any key.
type Options struct {
	// Addr is the address to listen on; "" is a free port of 127.0.0.1.
	Addr string
	// TLS serves HTTPS with a certificate of a CA made for this Server, and
	// offers HTTP/2.
	TLS bool
	// Hosts are further names of the certificate, beside localhost and
	// 127.0.0.1. They need not resolve: see Proxy.
	Hosts []string
	// Keys are the API keys accepted; none means that any request is, also
	// one without a key.
	Keys []string
	// KeyHeader is the header that carries the key, bare. "" is
	// Authorization with the scheme Bearer.
	KeyHeader string
	// Models are ordinary model names that behave as up-ok; nil is
	// gpt-4o-mini, gpt-4o and text-embedding-3-small.
	Models []string
	// Delay comes before every answer.
	Delay time.Duration
	// Discard keeps no requests, only their number and the times at which they
	// arrived: for benchmarks, whose memory must not grow by more than that,
	// 8 bytes a request.
	Discard bool
	// Seed makes the numbers of up-random the same in every run, as far as
	// requests come in the same order; 0 is a seed that nobody knows.
	Seed int64
}

// Server is a running upstream. Its methods are safe for concurrent use.
type Server struct {
	options  Options
	listener *countingListener
	http     *http.Server
	dir      string // holds the CA's file; "" without TLS
	caFile   string
	journal  journal
	meter    *meter
	dice     *dice
	keys     atomic.Pointer[map[string]bool]
	forced   atomic.Pointer[string]

	closed   chan struct{} // closed by Close: hanging answers end
	closing  sync.Once
	mu       sync.Mutex // guards inflight.Add against inflight.Wait
	inflight sync.WaitGroup
}

// Start runs a Server until the test ends, and fails the test if it can't.
func Start(tb testing.TB, o Options) *Server {
	tb.Helper()
	s, err := New(o)
	if err != nil {
		tb.Fatalf("upstream: %v", err)
	}
	tb.Cleanup(s.Close)
	return s
}

// New runs a Server until Close. It fails if the address can't be listened on
// or, with TLS, if the CA's file can't be written.
func New(o Options) (*Server, error) {
	if o.Addr == "" {
		o.Addr = "127.0.0.1:0"
	}
	if o.Models == nil {
		o.Models = []string{"gpt-4o-mini", "gpt-4o", "text-embedding-3-small"}
	}
	s := &Server{options: o, meter: newMeter(), dice: newDice(o.Seed), closed: make(chan struct{})}
	s.journal.discard = o.Discard
	s.SetKeys(o.Keys...)
	s.http = &http.Server{
		Handler:           s,
		ReadHeaderTimeout: time.Minute,
		// A client that resets is what many tests are about, no news.
		ErrorLog: log.New(io.Discard, "", 0),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c)
		},
	}
	if o.TLS {
		if err := s.certify(); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("tcp", o.Addr)
	if err != nil {
		s.removeDir()
		return nil, fmt.Errorf("listen on %s: %w", o.Addr, err)
	}
	s.listener = &countingListener{Listener: l}
	go s.serve()
	return s, nil
}

// certify makes the CA and the certificate, and writes the CA's file.
func (s *Server) certify() error {
	caPEM, certificate, err := newCertificate(s.options.Hosts)
	if err != nil {
		return fmt.Errorf("make the certificate: %w", err)
	}
	s.http.TLSConfig = &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
	if s.dir, err = os.MkdirTemp("", "upstream-ca-"); err != nil {
		return fmt.Errorf("make a folder for the CA: %w", err)
	}
	s.caFile = filepath.Join(s.dir, "ca.pem")
	if err := os.WriteFile(s.caFile, caPEM, 0o600); err != nil {
		s.removeDir()
		return fmt.Errorf("write the CA: %w", err)
	}
	return nil
}

func (s *Server) serve() {
	// Both return when Close closes the listener; before that there is
	// nobody to tell, and clients see the connection refused.
	if s.options.TLS {
		_ = s.http.ServeTLS(s.listener, "", "")
		return
	}
	_ = s.http.Serve(s.listener)
}

// Close stops the server: it breaks all connections off, and returns when every
// handler has ended. Requests that it breaks off don't count as cancelled. More
// than one call is harmless.
func (s *Server) Close() {
	s.closing.Do(func() {
		s.mu.Lock()
		close(s.closed)
		s.mu.Unlock()
		_ = s.http.Close() // its listener is all that could fail to close
		// http.Server.Close misses the listener if Serve hasn't begun.
		_ = s.listener.Close()
		s.inflight.Wait()
		s.removeDir()
	})
}

func (s *Server) removeDir() {
	if s.dir != "" {
		_ = os.RemoveAll(s.dir) // a temporary folder: the system's to clean otherwise
	}
}

// URL is the base URL that an SDK or a provider key is given, with the version:
// http://127.0.0.1:<port>/v1.
func (s *Server) URL() string {
	scheme := "http"
	if s.options.TLS {
		scheme = "https"
	}
	return scheme + "://" + s.Addr() + "/v1"
}

// Addr is the address listened on, host:port.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// CAFile is the path of the CA's certificate as PEM, as SSL_CERT_FILE wants it;
// "" without TLS.
func (s *Server) CAFile() string { return s.caFile }

// SetKeys replaces the accepted API keys at once: a request that was admitted
// before is still answered. No keys at all means that any request is accepted.
func (s *Server) SetKeys(keys ...string) {
	set := make(map[string]bool, len(keys))
	for _, k := range keys {
		set[k] = true
	}
	s.keys.Store(&set)
}

// Behave makes every request from now on behave as if its model were the one
// named here, such as "up-429" or "up-slow:50"; "" ends that. It panics on a
// name that is no behaviour, for that is a mistake in the test.
func (s *Server) Behave(name string) {
	if name != "" {
		if _, ok, err := parseBehaviour(name); err != nil || !ok {
			panic(fmt.Sprintf("upstream: Behave(%q): no such behaviour (%v)", name, err))
		}
	}
	s.forced.Store(&name)
}

// Connections is the number of TCP connections accepted so far.
func (s *Server) Connections() int { return int(s.listener.accepted.Load()) }

// begin counts a handler in, and says false if the server is closing.
func (s *Server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isClosed() {
		return false
	}
	s.inflight.Add(1)
	return true
}

func (s *Server) isClosed() bool {
	select {
	case <-s.closed:
		return true
	default:
		return false
	}
}

type countingListener struct {
	net.Listener
	accepted atomic.Int64
}

// Accept counts what it accepts.
func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.accepted.Add(1)
	}
	return c, err
}

// connKey is the context key of a request's connection.
type connKey struct{}

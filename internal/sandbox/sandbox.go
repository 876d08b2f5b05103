// SPDX-License-Identifier: MPL-2.0

// Package sandbox is the built-in test provider: a deterministic stand-in for
// an LLM provider, for trying limits and writing tests without a key, a network
// or a bill. It is no LLM: its answers are made of a fixed list of words, and
// only their shape, their length and their usage mean anything.
//
// It speaks chat completions, completions, embeddings, responses and models in
// OpenAI's wire formats, streamed and whole. The name of the model selects
// behaviour, such as sandbox-small:latency=200ms:fail=429; see Models and
// docs/sandbox.md for the grammar. The wire formats were taken from the types
// of the openai packages for Node 7 and Python 3.54 and from
// https://platform.openai.com/docs/api-reference.
//
// The same request gets the same answer, byte for byte but for the time of
// creation; streamed or whole, it says the same and costs the same. The package
// keeps nothing from one request to the next and knows nothing of Vault,
// virtual keys or limits.
package sandbox

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Clock is the time by which the sandbox dates its answers and keeps its pace.
// Implementations must be safe for concurrent use.
type Clock interface {
	// Now is the current time. Successive values must not step back, or the
	// pace of streams is off.
	Now() time.Time
	// Sleep returns nil once d has passed, or ctx's error as soon as ctx ends.
	// It is only called with a d above 0.
	Sleep(ctx context.Context, d time.Duration) error
}

// Options are the parameters of New. The zero value is ready for use.
type Options struct {
	// Clock is the sandbox's time; nil stands for real time.
	Clock Clock
}

// Sandbox is the provider. It is safe for concurrent use.
type Sandbox struct {
	clock  Clock
	models []Model
	bodies sync.Pool // of *bytes.Buffer: request bodies while they are decoded
}

var (
	_ http.RoundTripper = (*Sandbox)(nil)
	_ http.Handler      = (*Sandbox)(nil)
)

// New returns a provider with the models that Models lists.
func New(o Options) *Sandbox {
	s := &Sandbox{clock: o.Clock, models: Models()}
	if s.clock == nil {
		s.clock = realTime{}
	}
	s.bodies.New = func() any { return new(bytes.Buffer) }
	return s
}

type realTime struct{}

func (realTime) Now() time.Time { return time.Now() }

func (realTime) Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// errReset is what a client sees of a connection that the provider resets.
var errReset = &net.OpError{Op: "read", Net: "sandbox", Err: syscall.ECONNRESET}

// RoundTrip answers a request whose URL's path starts with /v1; scheme and host
// are not looked at. It returns when the answer's header is due. The body of a
// streamed answer gives one event a Read, when it is due, and must be closed.
// Reads fail with the context's error once the request's context has ended.
//
// The error is the context's, a failure to read the request's body, or the
// connection error that the model's name asked for. It may be called from many
// goroutines.
func (s *Sandbox) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		defer req.Body.Close()
	}
	a, err := s.serve(req)
	if err != nil {
		return nil, err
	}
	resp := &http.Response{
		Status:     strconv.Itoa(a.status) + " " + http.StatusText(a.status),
		StatusCode: a.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: a.header, ContentLength: a.length, Request: req,
	}
	if a.stream == nil {
		resp.Body = io.NopCloser(bytes.NewReader(a.body))
	} else {
		resp.Body = newStreamBody(req.Context(), s.clock, a.stream)
	}
	return resp, nil
}

// ServeHTTP is the same provider as a handler. Each event of a stream is
// flushed. Where RoundTrip fails, it aborts the connection.
func (s *Sandbox) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a, err := s.serve(r)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	for name, values := range a.header {
		w.Header()[name] = values
	}
	w.WriteHeader(a.status)
	if a.stream == nil {
		_, _ = w.Write(a.body) // an error means that nobody reads any more
		return
	}
	body := newStreamBody(r.Context(), s.clock, a.stream)
	defer body.Close()
	if err := deliver(w, body); err != nil {
		panic(http.ErrAbortHandler)
	}
}

// deliver copies body to w and flushes what each Read gave. A writer that can't
// flush gets the bytes all the same.
func deliver(w http.ResponseWriter, body io.Reader) error {
	control := http.NewResponseController(w)
	buf := make([]byte, 32<<10)
	for {
		n, readErr := body.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
		}
		if n > 0 || readErr != nil {
			if err := control.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
				return err
			}
		}
		if errors.Is(readErr, io.EOF) {
			return nil
		}
		if readErr != nil {
			return readErr
		}
	}
}

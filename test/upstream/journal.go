// SPDX-License-Identifier: MPL-2.0

package upstream

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// waitLimit is how long the Wait methods wait before they fail the test: longer
// than a busy machine takes, shorter than go test's own limit.
const waitLimit = 30 * time.Second

// Request is what the server received, byte for byte, and what became of it.
type Request struct {
	// Method and Path are as received; Path is not decoded.
	Method, Path string
	// RawQuery is the query without "?"; Query is the same, decoded.
	RawQuery string
	Query    url.Values
	Header   http.Header
	Host     string
	// Body is the exact body; what had arrived of it if the client broke off.
	Body []byte
	// Proto is "HTTP/1.1" or "HTTP/2.0".
	Proto string
	// RemoteAddr tells connections apart.
	RemoteAddr string
	// Key is the API key that came with it, "" for none.
	Key string
	// Model is the model that it named, "" for none.
	Model string
	// Status is the HTTP status that was answered; 0 if none was, or not yet.
	Status int
	// Done says that the server is through with it.
	Done bool
	// Cancelled says that the client went away before the answer was
	// complete. It implies Done.
	Cancelled bool
}

// journal keeps the requests in the order in which they had arrived in full.
type journal struct {
	discard bool

	mu        sync.Mutex
	requests  []Request
	received  int
	finished  int
	cancelled int
	changed   chan struct{} // closed at the next change; nil while nobody waits
}

// add keeps a request and returns its place, for finish.
func (j *journal) add(r Request) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.received++
	j.wake()
	if j.discard {
		return -1
	}
	j.requests = append(j.requests, r)
	return len(j.requests) - 1
}

// finish notes how the request at that place ended.
func (j *journal) finish(place, status int, cancelled bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.finished++
	if cancelled {
		j.cancelled++
	}
	j.wake()
	if place < 0 {
		return
	}
	r := &j.requests[place]
	r.Status, r.Done, r.Cancelled = status, true, cancelled
}

// wake must be called with mu held.
func (j *journal) wake() {
	if j.changed != nil {
		close(j.changed)
		j.changed = nil
	}
}

// wait returns when enough says so, and false if that takes too long.
func (j *journal) wait(limit time.Duration, enough func() bool) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		j.mu.Lock()
		if enough() {
			j.mu.Unlock()
			return true
		}
		if j.changed == nil {
			j.changed = make(chan struct{})
		}
		changed := j.changed
		j.mu.Unlock()
		select {
		case <-changed:
		case <-timer.C:
			return false
		}
	}
}

// describe lists what arrived, for a test's failure.
func (j *journal) describe() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "%d received, %d cancelled", j.received, j.cancelled)
	for i, r := range j.requests {
		fmt.Fprintf(&b, "\n%d: %s %s model=%q status=%d done=%t cancelled=%t",
			i+1, r.Method, r.Path, r.Model, r.Status, r.Done, r.Cancelled)
	}
	return b.String()
}

// Requests returns copies of all requests that arrived in full, in that order;
// none with Options.Discard. Header and Query are shared: don't change them.
func (s *Server) Requests() []Request {
	s.journal.mu.Lock()
	defer s.journal.mu.Unlock()
	out := make([]Request, len(s.journal.requests))
	for i, r := range s.journal.requests {
		r.Body = bytes.Clone(r.Body)
		out[i] = r
	}
	return out
}

// Received is the number of requests that arrived, also with Options.Discard.
func (s *Server) Received() int {
	s.journal.mu.Lock()
	defer s.journal.mu.Unlock()
	return s.journal.received
}

// WaitRequests returns when at least n requests have arrived, counted from the
// server's start, and fails the test after 30 s. The server may not have
// answered them yet.
func (s *Server) WaitRequests(tb testing.TB, n int) {
	tb.Helper()
	if !s.journal.wait(waitLimit, func() bool { return s.journal.received >= n }) {
		tb.Fatalf("upstream: waited %v for %d requests: %s", waitLimit, n, s.journal.describe())
	}
}

// WaitCancelled returns when the clients of at least n requests, counted from
// the server's start, have gone away before their answer was complete, and
// fails the test after 30 s.
func (s *Server) WaitCancelled(tb testing.TB, n int) {
	tb.Helper()
	if !s.journal.wait(waitLimit, func() bool { return s.journal.cancelled >= n }) {
		tb.Fatalf("upstream: waited %v for %d cancelled requests: %s", waitLimit, n, s.journal.describe())
	}
}

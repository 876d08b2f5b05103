// SPDX-License-Identifier: MPL-2.0

package upstream

import (
	"maps"
	"slices"
	"sync"
	"testing"
	"time"
)

// DeliveredKey is what answers are added up by.
type DeliveredKey struct {
	// Key is the API key that came with the requests, "" for none.
	Key string
	// Model is the model that they named, not one that Behave put in its place.
	Model string
}

// Delivered is what a provider would bill for. The package comment says what
// counts.
type Delivered struct {
	// Requests is the number of answers.
	Requests int
	// PromptTokens and CompletionTokens are those of all of them.
	PromptTokens, CompletionTokens int
}

// meter adds up what is delivered, and when and how closely requests came in.
// It keeps 8 bytes a request.
type meter struct {
	started time.Time // with a monotonic reading; arrivals count from here

	mu        sync.Mutex
	delivered map[DeliveredKey]Delivered
	arrivals  []int64 // nanoseconds since started, in about that order
	underWay  int
	most      int // of underWay
}

func newMeter() *meter {
	return &meter{started: time.Now(), delivered: map[DeliveredKey]Delivered{}}
}

// arrive counts a request in that arrived at that time.
func (m *meter) arrive(at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.arrivals = append(m.arrivals, int64(at.Sub(m.started)))
	m.underWay++
	m.most = max(m.most, m.underWay)
}

// leave counts a request out.
func (m *meter) leave() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.underWay--
}

// bill adds an answer.
func (m *meter) bill(k DeliveredKey, cost usage) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.delivered[k]
	d.Requests++
	d.PromptTokens += cost.prompt
	d.CompletionTokens += cost.completion
	m.delivered[k] = d
}

// Delivered is what a provider would have billed until now, also with
// Options.Discard. WaitIdle makes sure that nothing is still to be added.
func (s *Server) Delivered() map[DeliveredKey]Delivered {
	s.meter.mu.Lock()
	defer s.meter.mu.Unlock()
	return maps.Clone(s.meter.delivered)
}

// DeliveredTotal is the sum of Delivered over all keys and models.
func (s *Server) DeliveredTotal() Delivered {
	var sum Delivered
	for _, d := range s.Delivered() {
		sum.Requests += d.Requests
		sum.PromptTokens += d.PromptTokens
		sum.CompletionTokens += d.CompletionTokens
	}
	return sum
}

// MaxConcurrent is the most requests that were under way at once. A request is
// under way from when it has arrived in full until the last of its answer is
// about to be sent: not until it has been sent, for a client that keeps to a
// limit asks again as soon as it has the answer, before this side has noted
// the end. One whose client went away is under way until that is noticed.
func (s *Server) MaxConcurrent() int {
	s.meter.mu.Lock()
	defer s.meter.mu.Unlock()
	return s.meter.most
}

// Arrivals are the times at which requests arrived, whatever was answered, in
// order; also with Options.Discard. They have monotonic readings: a clock that
// is set changes no difference between them. A request that is still being
// read isn't among them.
func (s *Server) Arrivals() []time.Time {
	s.meter.mu.Lock()
	since := slices.Clone(s.meter.arrivals)
	s.meter.mu.Unlock()
	slices.Sort(since) // two goroutines may have entered in the other order
	out := make([]time.Time, len(since))
	for i, d := range since {
		out[i] = s.meter.started.Add(time.Duration(d))
	}
	return out
}

// WaitIdle returns when the server is through with all requests that have
// arrived in full, and fails the test after 30 s. After clients that were
// killed, Delivered is complete only then.
func (s *Server) WaitIdle(tb testing.TB) {
	tb.Helper()
	if !s.journal.wait(waitLimit, func() bool { return s.journal.finished == s.journal.received }) {
		tb.Fatalf("upstream: waited %v for all requests to end: %s", waitLimit, s.journal.describe())
	}
}

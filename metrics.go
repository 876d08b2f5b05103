// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"sync"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"vault-plugin-secrets-portkey/internal/price"
	"vault-plugin-secrets-portkey/internal/relay"
)

// metrics are the mount's own, in a registry of its own.
type metrics struct {
	registry  *prometheus.Registry
	requests  *prometheus.CounterVec
	tokens    *prometheus.CounterVec
	cost      *prometheus.CounterVec
	inFlight  prometheus.Gauge
	writes    prometheus.Counter
	exceeded  *prometheus.CounterVec
	duration  *prometheus.HistogramVec
	firstByte *prometheus.HistogramVec

	mu     sync.Mutex
	series map[seriesKey]*series
}

func newMetrics() *metrics {
	const ns = "portkey"
	seconds := []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}
	m := &metrics{
		series:   map[seriesKey]*series{},
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: ns, Name: "requests_total",
			Help: "Requests on virtual keys, by how they ended."}, []string{"role", "model", "outcome"}),
		tokens: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: ns, Name: "tokens_total",
			Help: "Tokens by kind; cached is part of input, reasoning part of output."}, []string{"role", "model", "kind"}),
		cost: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: ns, Name: "cost_usd_total",
			Help: "Cost in US dollars, by how it is known: reported, estimated or unconfirmed."}, []string{"role", "model", "basis"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{Namespace: ns, Name: "requests_in_flight", Help: "Requests under way."}),
		writes:   prometheus.NewCounter(prometheus.CounterOpts{Namespace: ns, Name: "storage_writes_total", Help: "Writes to Vault's storage."}),
		exceeded: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: ns, Name: "bound_exceeded_total",
			Help: "Requests that used more than the limits held for them; all of it was charged."}, []string{"role", "model"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: ns, Name: "request_duration_seconds",
			Help: "From admission to the end of the answer.", Buckets: seconds}, []string{"outcome"}),
		firstByte: prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: ns, Name: "time_to_first_byte_seconds",
			Help: "From admission to the first byte of the provider's answer.", Buckets: seconds}, []string{"outcome"}),
	}
	m.registry.MustRegister(m.requests, m.tokens, m.cost, m.inFlight, m.writes, m.exceeded, m.duration, m.firstByte)
	return m
}

// seriesKey tells apart requests that count in different series.
type seriesKey struct{ role, model, outcome, basis string }

// series are those that one kind of request counts in: to look each up by its labels
// takes longer than to count. Those that are nil haven't been needed.
type series struct {
	requests, exceeded, cost prometheus.Counter
	tokens                   [len(tokenKinds)]prometheus.Counter
	duration, firstByte      prometheus.Observer
}

var tokenKinds = [...]struct {
	name string
	unit price.Unit
}{{"input", price.Input}, {"cached", price.CacheRead}, {"output", price.Output}, {"reasoning", price.OutputReasoning}}

// observe counts one request. Models are labelled by the price entry that they
// matched, because the names themselves come from callers and have no bound.
func (m *metrics) observe(o *relay.Outcome) {
	model := "(unpriced)"
	switch {
	case o.Price != nil:
		model = o.Price.Model
	case o.Model == "":
		model = "(none)"
	}
	of := seriesKey{o.VirtualKey, model, string(o.Result), string(o.Basis)}
	m.mu.Lock()
	s := m.series[of]
	if s == nil {
		s = &series{requests: m.requests.WithLabelValues(of.role, model, of.outcome)}
		m.series[of] = s
	}
	m.lookUp(s, of, o)
	m.mu.Unlock()

	s.requests.Inc()
	if o.Result == relay.Refused {
		return
	}
	if o.BoundExceeded {
		s.exceeded.Inc()
	}
	s.duration.Observe(o.Ended.Sub(o.Started).Seconds())
	if !o.FirstByte.IsZero() {
		s.firstByte.Observe(o.FirstByte.Sub(o.Started).Seconds())
	}
	for i, kind := range tokenKinds {
		if n := o.Usage[kind.unit]; n > 0 {
			s.tokens[i].Add(float64(n))
		}
	}
	if o.Cost.Total > 0 {
		s.cost.Add(float64(o.Cost.Total) / float64(price.USD))
	}
}

// lookUp finds the series that o counts in, and that s lacks. mu is held.
func (m *metrics) lookUp(s *series, of seriesKey, o *relay.Outcome) {
	if o.Result == relay.Refused {
		return
	}
	if s.duration == nil {
		s.duration = m.duration.WithLabelValues(of.outcome)
	}
	if s.firstByte == nil && !o.FirstByte.IsZero() {
		s.firstByte = m.firstByte.WithLabelValues(of.outcome)
	}
	if s.exceeded == nil && o.BoundExceeded {
		s.exceeded = m.exceeded.WithLabelValues(of.role, of.model)
	}
	for i, kind := range tokenKinds {
		if s.tokens[i] == nil && o.Usage[kind.unit] > 0 {
			s.tokens[i] = m.tokens.WithLabelValues(of.role, of.model, kind.name)
		}
	}
	if s.cost == nil && o.Cost.Total > 0 {
		s.cost = m.cost.WithLabelValues(of.role, of.model, of.basis)
	}
}

// countedStorage counts writes.
type countedStorage struct {
	logical.Storage
	writes prometheus.Counter
}

// Put implements logical.Storage.
func (s countedStorage) Put(ctx context.Context, entry *logical.StorageEntry) error {
	s.writes.Inc()
	return s.Storage.Put(ctx, entry)
}

// Delete implements logical.Storage.
func (s countedStorage) Delete(ctx context.Context, key string) error {
	s.writes.Inc()
	return s.Storage.Delete(ctx, key)
}

func (b *backend) pathMetrics() []*framework.Path {
	return []*framework.Path{{
		Pattern: "metrics",
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback: b.readMetrics, Summary: "Read the metrics, as Prometheus text.", ForwardPerformanceStandby: true,
				Responses: map[int][]framework.Response{http.StatusOK: {{Description: "Prometheus text format.", MediaType: "text/plain"}}},
			},
		},
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "metrics"},
		HelpSynopsis: "Metrics of the mount, as Prometheus text.",
		HelpDescription: "Needs a token with read on this path: in a scrape configuration, `authorization: {credentials: <token>}` and " +
			"`metrics_path: /v1/<mount>/metrics`. They are counted since the process started.",
	}}
}

func (b *backend) readMetrics(context.Context, *logical.Request, *framework.FieldData) (*logical.Response, error) {
	families, err := b.metrics.registry.Gather()
	if err != nil {
		return nil, fmt.Errorf("gathering metrics: %w", err)
	}
	format := expfmt.NewFormat(expfmt.TypeTextPlain)
	var text bytes.Buffer
	encoder := expfmt.NewEncoder(&text, format)
	for _, family := range families {
		if err := encoder.Encode(family); err != nil {
			return nil, fmt.Errorf("writing metrics: %w", err)
		}
	}
	return &logical.Response{Data: map[string]any{
		logical.HTTPStatusCode: http.StatusOK, logical.HTTPContentType: string(format), logical.HTTPRawBody: text.Bytes(),
	}}, nil
}

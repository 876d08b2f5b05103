// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"bytes"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// sample is one series of the metrics; of a histogram, its count.
type sample struct {
	name   string
	labels map[string]string
	value  float64
}

// samples are what a mount's metrics say.
type samples []sample

// sum adds the series of that name that have these labels, given as name and
// value in turns.
func (all samples) sum(name string, labels ...string) (total float64) {
	for _, one := range all {
		matches := one.name == name
		for i := 0; i < len(labels); i += 2 {
			matches = matches && one.labels[labels[i]] == labels[i+1]
		}
		if matches {
			total += one.value
		}
	}
	return total
}

// readMetrics reads a mount's metrics with Prometheus's own parser.
func (s *suite) readMetrics(t *testing.T, mount string) (all samples) {
	t.Helper()
	resp := s.root.Read(t, mount+"/metrics")
	if got := resp.Header.Get("Content-Type"); !strings.HasPrefix(got, "text/plain; version=0.0.4") {
		t.Errorf("the metrics' content type is %q", got)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(resp.Body))
	if err != nil {
		t.Fatalf("the metrics are no Prometheus text: %v\n%s", err, resp.Body)
	}
	for name, family := range families {
		if family.GetHelp() == "" {
			t.Errorf("%s has no help", name)
		}
		for _, m := range family.GetMetric() {
			one := sample{name: name, labels: map[string]string{}}
			for _, label := range m.GetLabel() {
				one.labels[label.GetName()] = label.GetValue()
			}
			one.value = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			all = append(all, one)
		}
	}
	return all
}

// pluginMetrics: the mount's own metrics, as Prometheus reads them.
func (s *suite) pluginMetrics(t *testing.T) {
	t.Run("NeedATokenWithReadOnThem", func(t *testing.T) {
		wantStatus(t, do(t, s.client(""), http.MethodGet, mount+"/metrics", nil), http.StatusForbidden)
		app := s.app(t, mount, "metered", nil)
		wantVaults403(t, do(t, app, http.MethodGet, mount+"/metrics", nil))
		s.vault.Policy(t, "scraper", `path "portkey/metrics" { capabilities = ["read"] }`)
		wantStatus(t, do(t, s.client(s.vault.Token(t, "scraper")), http.MethodGet, mount+"/metrics", nil), http.StatusOK)
	})
	t.Run("SayWhatAVirtualKeyUsedAndCost", s.metricsOfRole)
	t.Run("ShowRequestsInFlight", func(t *testing.T) {
		up, _ := s.own(t, mount, "in-flight")
		app := s.app(t, mount, "in-flight", map[string]any{"key": "in-flight"})
		s.leave(t, app, chatPath(mount, "in-flight"), s.chat("up-hang"), func() {
			up.WaitRequests(t, 1)
			if n := s.readMetrics(t, mount).sum("portkey_requests_in_flight"); n != 1 {
				t.Errorf("%v in flight, expected 1", n)
			}
		})
		eventually(t, "none to be in flight", func() bool { return s.readMetrics(t, mount).sum("portkey_requests_in_flight") == 0 })
	})
	t.Run("StorageIsWrittenOnceASecondUnderLoadAndNothingIsMissed", s.writesUnderLoad)
}

func (s *suite) metricsOfRole(t *testing.T) {
	app := s.app(t, mount, "counted", map[string]any{"models": "up-*,gpt-4o*"})
	for _, m := range []string{"up-ok", "up-ok", "up-429", "gpt-4o-mini"} {
		post(t, app, chatPath(mount, "counted"), s.chat(m))
	}
	post(t, app, chatPath(mount, "counted"), with(s.chat("up-reset"), map[string]any{"max_tokens": 3}))
	post(t, app, chatPath(mount, "counted"), s.chat("not-allowed"))

	all, used := s.readMetrics(t, mount), usageOf(t, s.root, mount+"/usage/counted").Total
	for outcome, n := range map[string]float64{"succeeded": 3, "failed": 2, "refused": 1} {
		if got := all.sum("portkey_requests_total", "role", "counted", "outcome", outcome); got != n {
			t.Errorf("%v requests %s, expected %v", got, outcome, n)
		}
	}
	for kind, n := range map[string]int64{"input": used.Input, "output": used.Output} {
		if got := all.sum("portkey_tokens_total", "role", "counted", "kind", kind); got != float64(n) || n == 0 {
			t.Errorf("%v %s tokens, usage has %d", got, kind, n)
		}
	}
	cost := map[string]string{"reported": times(2, completionUSD(s.promptTokens(), 5)), "unconfirmed": used.UncertainIn}
	for basis, text := range cost {
		want, err := strconv.ParseFloat(text, 64)
		if got := all.sum("portkey_cost_usd_total", "role", "counted", "basis", basis); err != nil || want == 0 || math.Abs(got-want) > 1e-12 {
			t.Errorf("%v USD are %s, usage has %s", got, basis, text)
		}
	}
	if got := sum(cost["reported"], cost["unconfirmed"]); used.Cost != got {
		t.Errorf("usage says that it cost %s, expected %s", used.Cost, got)
	}
	for _, histogram := range []string{"portkey_request_duration_seconds", "portkey_time_to_first_byte_seconds"} {
		if all.sum(histogram, "outcome", "succeeded") < 3 {
			t.Errorf("%s counted too few", histogram)
		}
	}
	// Callers make up names of models; series are only of those with a price.
	for _, one := range all {
		if m := one.labels["model"]; one.labels["role"] == "counted" && m != "up-*" && m != "(unpriced)" {
			t.Errorf("a caller's name of a model became a label: %v", one)
		}
	}
	// The other mount is another process, with metrics of its own.
	if n := s.readMetrics(t, tuned).sum("portkey_requests_total", "role", "counted"); n != 0 {
		t.Errorf("the other mount counted %v", n)
	}
}

func (s *suite) writesUnderLoad(t *testing.T) {
	const loops, lasting = 4, 4 * time.Second
	app := s.app(t, mount, "loaded", nil)
	writes := func() float64 { return s.readMetrics(t, mount).sum("portkey_storage_writes_total") }
	began, before := time.Now(), writes()
	var done, failed atomic.Int64
	var running sync.WaitGroup
	for range loops {
		running.Go(func() {
			for time.Since(began) < lasting {
				resp, err := app.Do(t.Context(), http.MethodPost, chatPath(mount, "loaded"), s.chat("up-ok"))
				if err != nil || resp.Status != http.StatusOK {
					failed.Add(1)
					return
				}
				done.Add(1)
			}
		})
	}
	running.Wait()
	written, took := writes()-before, time.Since(began).Seconds()
	t.Logf("%d requests in %.1f s, %v writes", done.Load(), took, written)
	if failed.Load() != 0 {
		t.Errorf("%d loops failed", failed.Load())
	}
	// One a second, for one virtual key with one caller; twice that is allowed,
	// and what other virtual keys had left to write.
	if most := 2*took + 4; written > most || written < 1 {
		t.Errorf("%v writes in %.1f s, expected from 1 to %.0f", written, took, most)
	}
	if done.Load() < 10*int64(took) {
		t.Errorf("only %d requests in %.1f s: that is no load", done.Load(), took)
	}
	n := done.Load()
	s.wantUsage(t, mount, "loaded", spent(n, n*s.promptTokens(), n*5, times(n, completionUSD(s.promptTokens(), 5))))
}

// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"bytes"
	"fmt"
	"net/http"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// metricsText reads the metrics as a scraper does.
func (m *mount) metricsText() string {
	m.t.Helper()
	answer, err := rawAnswer(m.must(logical.ReadOperation, "metrics", nil))
	if err != nil || answer.Status != http.StatusOK || !strings.HasPrefix(answer.Type, "text/plain; version=0.0.4") {
		m.t.Fatalf("answered %+v %v", answer, err)
	}
	return answer.Body
}

// series are all series by name and labels; of a histogram, its count and sum.
func (m *mount) series() map[string]float64 {
	m.t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(bytes.NewBufferString(m.metricsText()))
	if err != nil {
		m.t.Fatal(err)
	}
	all := map[string]float64{}
	for name, family := range families {
		if family.GetHelp() == "" {
			m.t.Errorf("%s has no help", name)
		}
		for _, metric := range family.GetMetric() {
			labels := make([]string, 0, 3)
			for _, label := range metric.GetLabel() {
				labels = append(labels, label.GetName()+"="+label.GetValue())
			}
			sort.Strings(labels)
			id := name + "{" + strings.Join(labels, ",") + "}"
			switch {
			case metric.Histogram != nil:
				all[id+".count"], all[id+".sum"] = float64(metric.GetHistogram().GetSampleCount()), metric.GetHistogram().GetSampleSum()
			case metric.Gauge != nil:
				all[id] = metric.GetGauge().GetValue()
			default:
				all[id] = metric.GetCounter().GetValue()
			}
		}
	}
	return all
}

func wantSeries(t *testing.T, got, want map[string]float64) {
	t.Helper()
	for id, value := range want {
		if v, found := got[id]; !found || v < value*0.999999 || v > value*1.000001 {
			t.Errorf("%s is %v (there: %v), want %v", id, v, found, value)
		}
	}
}

func TestMetrics_CountRequestsTokensCostAndTimes(t *testing.T) {
	m, up, c := newPricedMount(t, &logical.InmemStorage{})
	m.write("prices/openai/m", map[string]any{"input": 1, "cache_read": "0.5", "output": 10})
	m.patch("roles/r", map[string]any{"models": []string{"m"}})
	up.answer = func(*http.Request) (*http.Response, error) {
		c.advance(2 * time.Second)
		return answerWith(http.StatusOK, "application/json", `{"choices":[{}],"usage":{"prompt_tokens":1000,"completion_tokens":100,`+
			`"prompt_tokens_details":{"cached_tokens":400},"completion_tokens_details":{"reasoning_tokens":30}}}`), nil
	}
	for range 3 {
		m.chat("r", "m").want(t, http.StatusOK, "")
	}
	up.answer = always(http.StatusTooManyRequests)
	m.chat("r", "m").want429(t)
	m.chat("r", "secret-model").want(t, http.StatusForbidden, "model_not_allowed")
	m.chat("nobody", "m").want(t, http.StatusNotFound, "virtual_key_not_found")

	got := m.series()
	wantSeries(t, got, map[string]float64{
		"portkey_requests_total{model=m,outcome=succeeded,role=r}":        3,
		"portkey_requests_total{model=m,outcome=failed,role=r}":           1,
		"portkey_requests_total{model=(unpriced),outcome=refused,role=r}": 1,
		"portkey_tokens_total{kind=input,model=m,role=r}":                 3000,
		"portkey_tokens_total{kind=cached,model=m,role=r}":                1200,
		"portkey_tokens_total{kind=output,model=m,role=r}":                300,
		"portkey_tokens_total{kind=reasoning,model=m,role=r}":             90,
		"portkey_cost_usd_total{basis=reported,model=m,role=r}":           3 * 0.0018,
		"portkey_request_duration_seconds{outcome=succeeded}.count":       3,
		"portkey_request_duration_seconds{outcome=succeeded}.sum":         6,
		"portkey_request_duration_seconds{outcome=failed}.count":          1,
		"portkey_time_to_first_byte_seconds{outcome=succeeded}.count":     3,
		"portkey_time_to_first_byte_seconds{outcome=succeeded}.sum":       6,
		"portkey_time_to_first_byte_seconds{outcome=failed}.count":        1,
		"portkey_requests_in_flight{}":                                    0,
	})
	if n := len(got); n != 18 { // those, two sums of 0, and storage writes
		t.Errorf("%d series: %v", n, got)
	}
}

func TestMetrics_AgreeWithUsage(t *testing.T) {
	m, _, c := newPricedMount(t, &logical.InmemStorage{})
	m.write("prices/openai/m*", map[string]any{"input": 1, "output": 10})
	for i := range 3 {
		m.write(fmt.Sprint("roles/r", i), map[string]any{"key": "a"})
	}
	m.spread(c, 2, 40)
	got := m.series()
	_, rows := m.usageOf("usage", map[string]any{"group_by": "role", "to": "2026-06-01", "from": "2026-04-01"})
	for _, row := range rows {
		wantSeries(t, got, map[string]float64{
			fmt.Sprintf("portkey_requests_total{model=m*,outcome=succeeded,role=%s}", row["role"]): row["requests"].(float64),
			fmt.Sprintf("portkey_tokens_total{kind=input,model=m*,role=%s}", row["role"]):          row["input_tokens"].(float64),
		})
	}
}

func TestMetrics_NamesThatCallersMakeUpMakeNoSeries(t *testing.T) {
	m, _, _ := newPricedMount(t, &logical.InmemStorage{})
	m.write("prices/openai/own-*", map[string]any{"input": 1, "output": 1})
	call := func(i int) {
		for _, name := range []string{"made-up-", "own-", "gpt-4o-mini\n\x00", "\xff", "{=\"", "gpt-4o-2024-"} {
			m.chat("r", fmt.Sprint(name, i))
			m.proxyAs(fmt.Sprint("entity", i), "r", fmt.Sprint("v1/path", i), chatBody(name))
			m.chat(fmt.Sprint("role", i), name)
		}
	}
	call(0)
	before := m.series()
	for i := range 100 {
		call(i)
	}
	after := m.series()
	for id := range after {
		if _, known := before[id]; !known {
			t.Errorf("a new series: %s", id)
		}
		for _, made := range []string{"made-up", "own-1", "entity", "path", "role1", "\xff"} {
			if strings.Contains(id, made) {
				t.Errorf("%s is in the series %s", made, id)
			}
		}
	}
}

func TestMetrics_TwoBackendsShareNothing(t *testing.T) {
	one, _, _ := newPricedMount(t, &logical.InmemStorage{})
	two, _, _ := newPricedMount(t, &logical.InmemStorage{})
	one.chat("r", "m").want(t, http.StatusOK, "")
	const id = "portkey_requests_total{model=(unpriced),outcome=succeeded,role=r}"
	wantSeries(t, one.series(), map[string]float64{id: 1})
	if v, found := two.series()[id]; found {
		t.Errorf("the other backend counted %v", v)
	}
}

func TestMetrics_InFlightGoesUpAndDown(t *testing.T) {
	m, up, _ := newPricedMount(t, &logical.InmemStorage{})
	arrived, release := make(chan struct{}), make(chan struct{})
	up.answer = func(r *http.Request) (*http.Response, error) {
		arrived <- struct{}{}
		<-release
		return usageAnswer(1, 1)(r)
	}
	first, second := m.inBackground("r"), m.inBackground("r")
	<-arrived
	<-arrived
	wantSeries(t, m.series(), map[string]float64{"portkey_requests_in_flight{}": 2})
	close(release)
	<-first
	<-second
	wantSeries(t, m.series(), map[string]float64{"portkey_requests_in_flight{}": 0})
}

func TestMetrics_StorageWritesAreCounted(t *testing.T) {
	storage := &faultyStorage{Storage: &logical.InmemStorage{}}
	m, _, _ := newPricedMount(t, storage)
	before, counted := storage.count(), m.series()["portkey_storage_writes_total{}"]
	m.write("prices/openai/m", map[string]any{"input": 1, "output": 1})
	m.delete("prices/openai/m")
	m.write("config", map[string]any{"time_zone": "Europe/Berlin"})
	if n := m.series()["portkey_storage_writes_total{}"] - counted; n != 3 || storage.count()-before != 3 {
		t.Errorf("%v writes counted, of %d", n, storage.count()-before)
	}
}

func TestMetrics_CanBeReadWhileRequestsAreCounted(t *testing.T) {
	m, _, _ := newPricedMount(t, &logical.InmemStorage{})
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 25 {
				m.chat("r", "gpt-4o")
			}
		})
		all.Go(func() {
			for range 10 {
				m.series()
			}
		})
	}
	all.Wait()
	wantSeries(t, m.series(), map[string]float64{"portkey_requests_total{model=gpt-4o,outcome=succeeded,role=r}": 100})
}

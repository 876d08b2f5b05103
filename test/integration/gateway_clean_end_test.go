// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/test/vaulttest"
)

// streamEnd is how a stream ended for its caller.
type streamEnd struct {
	status int
	text   []byte
	err    error
	at     time.Time
}

// errorCode is that of the error event that the stream ended with, empty for none.
func (e streamEnd) errorCode() string {
	_, event, _ := bytes.Cut(e.text, []byte("\nevent: error\ndata: "))
	var body struct {
		Error struct{ Code, Message string }
	}
	if json.Unmarshal(event, &body) != nil {
		return ""
	}
	return body.Error.Code
}

// streams has so many callers ask for a stream, with Vault tokens and leased keys,
// and returns when all have begun. wait waits for how they end.
func (v *virtual) streams(t *testing.T, n int, a ask) (wait func() []streamEnd) {
	t.Helper()
	ends := make([]streamEnd, n)
	var begun, ended sync.WaitGroup
	begun.Add(n)
	callers := v.clients(t, n, patience)
	for i := range ends {
		ended.Go(func() {
			e := &ends[i]
			defer func() { e.at = time.Now() }()
			req, err := callers[i].NewRequest(t.Context(), http.MethodPost, chatPath(mount, v.name), bytes.NewReader(a.text()))
			if e.err = err; err == nil {
				var resp *http.Response
				if resp, e.err = callers[i].HTTP.Do(req); e.err == nil {
					defer func() { _ = resp.Body.Close() }()
					e.status = resp.StatusCode
					begun.Done()
					e.text, e.err = io.ReadAll(resp.Body)
					return
				}
			}
			begun.Done()
		})
	}
	begun.Wait()
	return func() []streamEnd {
		ended.Wait()
		return ends
	}
}

// wantWhole fails the test unless the streams ended as they should.
func wantWhole(t *testing.T, ends []streamEnd) {
	t.Helper()
	for _, e := range ends {
		if e.status != http.StatusOK || e.err != nil || !bytes.HasSuffix(e.text, []byte("data: [DONE]\n\n")) {
			t.Errorf("a stream ended with %d, %v, %q", e.status, e.err, e.text[max(0, len(e.text)-400):])
		}
	}
}

// wantCut fails the test unless the streams ended with an error event, which says
// that the gateway ended them, at the latest then. Vault doesn't wait for long, so
// where the machine is busy a few may see no more than that their connection broke.
func wantCut(t *testing.T, ends []streamEnd, latest time.Time) {
	t.Helper()
	codes := map[string]int{}
	for _, e := range ends {
		code := e.errorCode()
		codes[code]++
		if e.status != http.StatusOK || code == "" && e.err == nil {
			t.Errorf("a stream that the gateway cut ended with %d, %q", e.status, e.text[max(0, len(e.text)-400):])
		}
		if e.at.After(latest) {
			t.Errorf("a stream ended %v too late", e.at.Sub(latest))
		}
	}
	if told := codes["gateway_unavailable"]; told+codes[""] != len(ends) || told < len(ends)*9/10 {
		t.Errorf("%d streams that the gateway cut were told %v, expected gateway_unavailable", len(ends), codes)
	}
}

// TestGatewayCleanEnd: a reload, a seal and a step-down while many stream through
// the gateway end each stream with an error event, keep Vault waiting for 2 s at
// most, and leave exact figures.
func TestGatewayCleanEnd(t *testing.T) {
	t.Parallel()
	r := startGatewayRig(t, vaulttest.Options{Mode: vaulttest.Raft}, nil)
	node := r.vault.Nodes()[0]
	t.Run("DrainLetsStreamsEnd", r.drainFirst)
	t.Run("DrainCutsWhatTakesTooLong", r.drainCuts)
	t.Run("AddressInUse", r.addressInUse)
	ends := []struct {
		name string
		do   func(t *testing.T)
	}{
		{"Reload", func(t *testing.T) { r.vault.Reload(t, mount) }},
		{"Seal", func(t *testing.T) { r.vault.Seal(t) }},
	}
	if soaking() { // alone, a node leads again after 10 s
		ends = append(ends, struct {
			name string
			do   func(t *testing.T)
		}{"StepDown", func(t *testing.T) {
			wantStatus(t, do(t, node.Client(r.vault.RootToken), http.MethodPut, "sys/step-down", nil), http.StatusNoContent)
			eventually(t, "the old leader's gateway to close", func() bool { return r.gateway.refusesConnections(t.Context()) })
		}})
	}
	for _, end := range ends {
		t.Run(end.name, func(t *testing.T) {
			for i := range rounds(1, 10) {
				began := time.Now()
				end.do(t)
				idle := time.Since(began)
				r.revive(t)
				r.gateway.awaitReady(t)
				r.endWhileStreaming(t, fmt.Sprintf("%s-%d", strings.ToLower(end.name), i), idle, end.do)
			}
		})
	}
}

// endWhileStreaming ends the plugin while long streams and a load are under way, some
// of which the provider never answers. Without any, it takes idle.
func (r *rig) endWhileStreaming(t *testing.T, name string, idle time.Duration, end func(*testing.T)) {
	t.Helper()
	const streams, most = 60, 2 * time.Second
	long := r.limited(t, name+"-streams", "usd=10000/month", "requests=100000/day", "concurrent=1000")
	a := ask{model: "up-stream:1000:50", prompt: 100, cap: 2000, stream: true}
	wait := long.streams(t, streams, a)
	v := r.limited(t, name, "usd=50/month", "requests=100000/day", "tokens=100000000/hour")
	random := randomAsk("up-random:1:400:400")
	l := &load{v: v, harsh: true, next: func(r *rand.Rand) ask {
		a := random(r)
		if r.IntN(40) == 0 {
			a.model = "up-hang"
		}
		return a
	}}
	ctx, stopAll := contextOf(t)
	began := time.Now()
	ended := l.start(ctx, v.clients(t, crashClients, patience))
	eventually(t, "a load", func() bool { return l.succeeded() > 100 })
	at := time.Now()
	end(t)
	took := time.Since(at)
	wantCut(t, wait(), time.Now().Add(time.Second))
	stopAll()
	ended()
	r.revive(t)
	r.gateway.awaitReady(t)
	l.report(t, began)
	t.Logf("it took %v without load and %v with it", idle, took)
	if took > idle+most+5*time.Second {
		t.Errorf("it took %v without load and %v with it", idle, took)
	}
	v.wantExactAfterEnd(t)
	long.wantChargedOnce(t, a, streams)
	if s := long.standing(t); s.Total.Requests != streams || s.Limits[0].Unattributed != 0 {
		t.Errorf("after a clean end with %d streams under way %+v", streams, s)
	}
	wantWhole(t, long.streams(t, 2, ask{model: "up-stream:3:1", prompt: 10, cap: 10, stream: true})())
}

// wantExactAfterEnd fails the test unless limits on money, requests and tokens count
// what the record does, with nothing that nobody can account for.
func (v *virtual) wantExactAfterEnd(t *testing.T) {
	t.Helper()
	s := v.recorded(t)
	d := v.up.DeliveredTotal()
	for _, row := range s.Limits {
		if delivered := in(row.Unit, d); row.Unattributed != 0 || int64(row.Used) < delivered || int64(row.Used-row.Unconfirmed) > delivered {
			t.Errorf("%d was delivered, and after a clean end the limit counts %+v", delivered, row)
		}
	}
	usd, requests, tokens := s.Limits[0], int64(s.Limits[1].Used), s.Limits[2]
	if int64(usd.Used) != s.cost(t) || int64(tokens.Used) != s.Total.Input+s.Total.Output {
		t.Errorf("the limits count %+v, and the record is %+v", s.Limits, s.Total)
	}
	// The record has those too that ended before they were sent, which cost nothing.
	if unsent := s.Total.Requests - requests; unsent < 0 || unsent > s.Total.Failed-s.Total.Unconfirmed {
		t.Errorf("the limit counts %d requests, and the record is %+v", requests, s.Total)
	}
	if said, err := nano(s.Total.UncertainIn); err != nil || int64(usd.Unconfirmed) != said || said == 0 {
		t.Errorf("%d is unconfirmed on the limit, and %s in the record (%v)", usd.Unconfirmed, s.Total.UncertainIn, err)
	}
}

// gatewayStatus is what status says of the gateway.
func (r *rig) gatewayStatus(t *testing.T) map[string]any {
	t.Helper()
	status, _ := r.root.Read(t, mount+"/status").Data()["gateway"].(map[string]any)
	return status
}

// drain writes config/gateway/drain, and returns how many requests are under way.
func (r *rig) drain(t *testing.T, body map[string]any, draining bool) int {
	t.Helper()
	said := r.root.Write(t, mount+"/config/gateway/drain", body)
	if got := said.Data()["draining"]; got != draining {
		t.Errorf("draining is %v: %s", got, said)
	}
	n, _ := said.Data()["streams"].(float64)
	return int(n)
}

// wantDraining fails the test unless the gateway takes no new requests, says so to
// load balancers, and lives.
func (v *virtual) wantDraining(t *testing.T, callers []*vaulttest.Client) {
	t.Helper()
	for _, c := range callers {
		resp := v.post(t, c, ask{model: "up-ok", prompt: 10, cap: 10})
		wantError(t, resp, http.StatusServiceUnavailable, "gateway_unavailable")
		if resp.Header.Get("Retry-After") == "" {
			t.Errorf("a 503 without retry-after: %s", resp)
		}
	}
	for path, want := range map[string]int{"/readyz": http.StatusServiceUnavailable, "/healthz": http.StatusOK} {
		if got := v.gateway.at(t.Context(), path); got != want {
			t.Errorf("%s of a draining gateway says %d, expected %d", path, got, want)
		}
	}
}

// drainFirst: with a drain before a reload no stream is broken off; without one
// after all, callers are served again.
func (r *rig) drainFirst(t *testing.T) {
	v := r.limited(t, "drained", "usd=10000/month", "requests=100000/day", "concurrent=1000")
	a := ask{model: "up-stream:60:50", prompt: 100, cap: 300, stream: true} // 3 s
	callers := v.clients(t, 2, patience)
	const streams = 20
	wait := v.streams(t, streams, a)
	if n := r.drain(t, map[string]any{"timeout": "60s"}, true); n == 0 || n > streams {
		t.Errorf("%d requests are under way when a drain begins, expected %d", n, streams)
	}
	v.wantDraining(t, callers)
	r.drain(t, map[string]any{"cancel": true}, false)
	r.gateway.awaitReady(t)
	wantStatus(t, v.post(t, callers[1], ask{model: "up-ok", prompt: 100, cap: 300}), http.StatusOK)
	r.drain(t, map[string]any{"timeout": "60s"}, true)
	eventually(t, "the streams to end", func() bool { return r.gatewayStatus(t)["streams"] == 0.0 })
	r.vault.Reload(t, mount)
	wantWhole(t, wait())
	r.healthy(t)
	r.gateway.awaitReady(t) // a drain ends with the process
	for _, c := range callers {
		wantStatus(t, v.post(t, c, ask{model: "up-ok", prompt: 100, cap: 300}), http.StatusOK)
	}
	if s := v.wantExact(t); s.Total.Requests != streams+3 || s.Total.Failed != 0 {
		t.Errorf("after a drain and a reload %+v", s.Total)
	}
}

// drainCuts: what a drain's timeout cuts is settled, and told why.
func (r *rig) drainCuts(t *testing.T) {
	v := r.limited(t, "cut", "usd=10000/month", "requests=100000/day", "concurrent=1000")
	a := ask{model: "up-stream:1000:50", prompt: 100, cap: 2000, stream: true}
	const streams = 20
	wait := v.streams(t, streams, a)
	began := time.Now()
	r.drain(t, map[string]any{"timeout": "1s"}, true)
	ends := wait()
	wantCut(t, ends, began.Add(attempt))
	for _, e := range ends {
		if e.at.Sub(began) < time.Second {
			t.Errorf("a stream was cut %v after the drain began, which said 1 s", e.at.Sub(began))
		}
	}
	v.up.WaitCancelled(t, streams)
	v.wantChargedOnce(t, a, streams)
	v.wantDraining(t, v.clients(t, 2, patience))
	r.drain(t, map[string]any{"cancel": true}, false)
	wantWhole(t, v.streams(t, 2, ask{model: "up-stream:3:1", prompt: 10, cap: 10, stream: true})())
}

// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/test/vaulttest"
)

// TestCleanEnd: a reload, a seal and a step-down, with requests under way,
// leave exact figures and keep Vault waiting for no longer than the requests
// take, and 2 s.
func TestCleanEnd(t *testing.T) {
	t.Parallel()
	r := startRig(t, vaulttest.Options{Mode: vaulttest.Raft})
	// Vault ends no request on the inline path: it waits for the slowest.
	const slowest = 2 * time.Second
	r.root.Write(t, mount+"/config", map[string]any{"inline_max_concurrent": 512, "upstream_timeout": "2s"})
	node := r.vault.Nodes()[0]
	for _, end := range []struct {
		name string
		do   func(t *testing.T)
	}{
		{"Reload", func(t *testing.T) {
			r.vault.Reload(t, mount)
			r.healthy(t)
		}},
		{"Seal", func(t *testing.T) {
			r.vault.Seal(t)
			if pids := r.vault.PluginPIDs(); len(pids) != 0 {
				t.Errorf("the sealed Vault has the plugin processes %v", pids)
			}
		}},
		{"StepDown", func(t *testing.T) {
			began := time.Now()
			wantStatus(t, do(t, node.Client(r.vault.RootToken), http.MethodPut, "sys/step-down", nil), http.StatusNoContent)
			eventually(t, "the plugin of the old leader to end", func() bool { return len(r.vault.PluginPIDs()) == 0 })
			if took := time.Since(began); took > 9*time.Second {
				t.Logf("it took %v, so another plugin may have begun", took)
			}
		}},
	} {
		t.Run(end.name, func(t *testing.T) {
			for i := range rounds(1, 10) {
				began := time.Now()
				end.do(t)
				idle := time.Since(began)
				r.revive(t)
				r.endUnderLoad(t, fmt.Sprintf("%s-%d", end.name, i), idle, slowest, end.do)
			}
		})
	}
}

// healthy waits until the plugin answers.
func (r *rig) healthy(t *testing.T) {
	t.Helper()
	eventually(t, "the plugin to answer", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		resp, err := r.root.Do(ctx, http.MethodGet, mount+"/healthz", nil)
		return err == nil && resp.Status == http.StatusOK
	})
}

// revive unseals Vault if it is sealed, and waits until the plugin answers.
func (r *rig) revive(t *testing.T) {
	t.Helper()
	r.vault.Unseal(t)
	r.healthy(t)
}

// endUnderLoad ends the plugin with requests under way, some of which the
// provider never answers, and holds the figures before and after together.
func (r *rig) endUnderLoad(t *testing.T, name string, idle, slowest time.Duration, end func(*testing.T)) {
	v := r.limited(t, name, "usd=50/month", "requests=100000/day", "tokens=100000000/hour")
	random := randomAsk("up-random:1:400:400")
	l := &load{v: v, harsh: true, next: func(r *rand.Rand) ask {
		a := random(r)
		if r.IntN(40) == 0 {
			a.model = "up-hang"
		}
		return a
	}}
	l.judge = func(a ask, resp *vaulttest.Response) verdict {
		if a.model == "up-hang" && resp.Status == http.StatusGatewayTimeout {
			return again
		}
		return l.untilSpent(a, resp)
	}
	ctx, stopAll := contextOf(t)
	began := time.Now()
	wait := l.start(ctx, v.clients(t, crashClients, patience))
	eventually(t, "a load", func() bool { return l.succeeded() > 100 })
	at := time.Now()
	end(t)
	took := time.Since(at)
	stopAll()
	wait()
	r.revive(t)
	l.report(t, began)
	t.Logf("it took %v without load and %v with it, where the slowest request takes %v", idle, took, slowest)
	if took > idle+slowest+5*time.Second {
		t.Errorf("it took %v without load and %v with it", idle, took)
	}
	s, d := v.settled(t), v.up.DeliveredTotal()
	for _, row := range s.Limits {
		if row.Unattributed != 0 {
			t.Errorf("after a clean end %+v", row)
		}
		if delivered := in(row.Unit, d); int64(row.Used) < delivered || int64(row.Used-row.Unconfirmed) > delivered {
			t.Errorf("%d was delivered, and the limit counts %+v", delivered, row)
		}
	}
	if int64(s.Limits[0].Used) != s.cost(t) || int64(s.Limits[1].Used) != s.Total.Requests {
		t.Errorf("the limits count %+v, and the record is %+v", s.Limits, s.Total)
	}
	if unconfirmed, err := nano(s.Total.UncertainIn); err != nil || int64(s.Limits[0].Unconfirmed) != unconfirmed || unconfirmed == 0 {
		t.Errorf("%d is unconfirmed on the limit, and %s in the record (%v)", s.Limits[0].Unconfirmed, s.Total.UncertainIn, err)
	}
}

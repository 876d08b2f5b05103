// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/test/vaulttest"
)

// at asks the gateway itself, and returns the status; 0 for no answer.
func (g *gatewayDoor) at(ctx context.Context, path string) int {
	return statusOf(ctx, g.told.to, g.url+path)
}

// statusOf gets a URL and returns the status; 0 for no answer.
func statusOf(ctx context.Context, by http.RoundTripper, url string) int {
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0
	}
	resp, err := by.RoundTrip(req)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// awaitReady waits until the gateway takes requests, and returns for how long.
func (g *gatewayDoor) awaitReady(t *testing.T) time.Duration {
	t.Helper()
	began := time.Now()
	eventually(t, "the gateway to be ready", func() bool { return g.at(t.Context(), "/readyz") == http.StatusOK })
	return time.Since(began)
}

// refusesConnections says whether nobody listens at the gateway's address.
func (g *gatewayDoor) refusesConnections(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.url+"/healthz", nil)
	if err != nil {
		return false
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err == nil {
		_ = resp.Body.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// checkHealth asks healthz through Vault, as a load balancer does, until the test
// ends: this is what has Vault start a plugin that died while callers only speak to
// the gateway. Without it, Vault does so within a minute.
func (r *rig) checkHealth(t *testing.T) {
	ctx, stop := contextOf(t)
	var asking sync.WaitGroup
	asking.Go(func() {
		for ctx.Err() == nil {
			call, cancel := context.WithTimeout(ctx, attempt)
			_, _ = r.root.Do(call, http.MethodGet, mount+"/healthz", nil) // how it fails is for the load to show
			cancel()
			select {
			case <-ctx.Done():
			case <-time.After(300 * time.Millisecond):
			}
		}
	})
	t.Cleanup(func() { stop(); asking.Wait() })
}

// TestGatewayCrash: whatever process is killed or stopped under the gateway's load,
// limits hold as over any crash, and callers are served again.
func TestGatewayCrash(t *testing.T) {
	t.Parallel()
	r := startGatewayRig(t, vaulttest.Options{Mode: vaulttest.Raft}, nil)
	t.Run("PluginKilled", func(t *testing.T) {
		r.checkHealth(t)
		for i := range rounds(1, 20) {
			r.crash(t, fmt.Sprintf("killed-%d", i), r.part(), func(*virtual) {
				r.vault.Nodes()[0].KillPlugins(t)
				t.Logf("the gateway is back after %v", r.gateway.awaitReady(t))
			})
		}
	})
	if soaking() {
		t.Run("PluginKilledManyTimes", r.gatewayKilledManyTimes)
		t.Run("PluginKilledAndNobodyAsksVault", func(t *testing.T) {
			r.vault.Nodes()[0].KillPlugins(t)
			began := time.Now()
			for r.gateway.at(t.Context(), "/readyz") != http.StatusOK {
				if time.Sleep(time.Second); time.Since(began) > 3*time.Minute {
					t.Fatal("Vault doesn't start a killed plugin by itself")
				}
			}
			t.Logf("Vault started the plugin by itself after %v", time.Since(began))
		})
	}
	for i := range rounds(1, 5) {
		if soaking() { // else the leader of three is, in TestGatewayFailover
			t.Run(fmt.Sprintf("VaultKilled-%d", i), func(t *testing.T) {
				r.crash(t, fmt.Sprintf("vault-killed-%d", i), r.part(), func(*virtual) { r.killVault(t) })
			})
		}
		t.Run(fmt.Sprintf("VaultPaused-%d", i), func(t *testing.T) { r.pauseVault(t, fmt.Sprintf("paused-%d", i)) })
	}
}

// killVault kills Vault, which leaves the gateway without one, and starts another.
// Nobody asks that for anything.
func (r *rig) killVault(t *testing.T) {
	t.Helper()
	old := r.vault.PluginPIDs()
	killed := time.Now()
	r.vault.Kill()
	eventually(t, "the orphaned gateway to close", func() bool { return r.gateway.refusesConnections(t.Context()) })
	t.Logf("the orphaned gateway closed after %v", time.Since(killed))
	r.vault.Restart(t)
	t.Logf("the gateway is back %v after Vault", r.gateway.awaitReady(t))
	if slices.ContainsFunc(r.vault.PluginPIDs(), func(pid int) bool { return slices.Contains(old, pid) }) {
		t.Errorf("of the old plugins %v one is still there", old)
	}
}

// gatewayKilledManyTimes: every crash adds to what is unattributed no more than its
// own.
func (r *rig) gatewayKilledManyTimes(t *testing.T) {
	r.checkHealth(t)
	v := r.limited(t, "often", "usd=20/month")
	l := &load{v: v, next: randomAsk(usual), harsh: true}
	began := time.Now()
	ctx, stopAll := contextOf(t)
	wait := l.start(ctx, v.clients(t, 10, attempt))
	const kills = 60
	for i := range kills + 1 {
		before := l.succeeded()
		eventually(t, "requests to go well between crashes", func() bool { return l.succeeded() > before+5 })
		if i < kills {
			time.Sleep(time.Duration(r.dice.IntN(1500)) * time.Millisecond)
			r.vault.Nodes()[0].KillPlugins(t)
		}
	}
	stopAll()
	wait()
	l.report(t, began)
	v.wantWrittenOff(t, v.wantCovered(t, kills, 10))
}

// pauseVault stops Vault under load: the gateway's process lives, and admits
// nothing once storage hasn't confirmed it for 5 s. It goes on when Vault does, and
// then all figures are exact.
func (r *rig) pauseVault(t *testing.T, name string) {
	node := r.vault.Nodes()[0]
	v, free := r.limited(t, name, "usd=1/month"), r.virtual(t, name+"-without-limits", nil)
	l := &load{v: v, next: randomAsk(usual), harsh: true}
	clients, others := v.clients(t, crashClients, patience), free.clients(t, 2, patience)
	for _, c := range others { // the gateway knows what Vault says of them
		free.wantServed(t, c)
	}
	began := time.Now()
	wait := l.start(t.Context(), clients)
	eventually(t, "a part of the budget to be spent", func() bool { return in("usd", v.up.DeliveredTotal()) >= 0.3e9 })
	node.Pause(t)
	at := time.Now()
	// What was sent just before arrives a moment later.
	time.Sleep(7 * time.Second)
	v.up.WaitIdle(t)
	received, before := v.up.Received(), l.succeeded()
	var asking sync.WaitGroup
	asking.Go(func() { v.wantClosed(t, clients[:2]) })
	asking.Go(func() { free.wantClosed(t, others) })
	asking.Wait()
	time.Sleep(time.Duration(rounds(0, 10)) * time.Second)
	if now := v.up.Received(); now != received {
		t.Errorf("%d requests were sent while Vault's storage was away for long", now-received)
	}
	node.Continue(t)
	t.Logf("stopped for %v; the gateway is back %v later", time.Since(at), r.gateway.awaitReady(t))
	wait()
	l.report(t, began)
	if now := l.succeeded(); now == before {
		t.Errorf("no request went well afterwards; %d did before", before)
	}
	row := v.settled(t).Limits[0]
	delivered := in("usd", v.up.DeliveredTotal())
	if int64(row.Used-row.Unconfirmed) > delivered || int64(row.Used) < delivered || delivered > int64(row.Max) || row.Unattributed != 0 {
		t.Errorf("after a pause %+v, and %d was delivered", row, delivered)
	}
	if row.Unconfirmed == 0 && int64(row.Used) != delivered {
		t.Errorf("after a pause %d is used and %d was delivered", row.Used, delivered)
	}
}

// probe is what wantServed and wantClosed ask.
func probe(stream bool) map[string]any {
	return ask{model: "up-ok", prompt: 10, cap: 300, stream: stream}.body()
}

// wantServed fails the test unless the gateway serves a caller, streaming or not.
func (v *virtual) wantServed(t *testing.T, c *vaulttest.Client) {
	t.Helper()
	for _, stream := range []bool{false, true} {
		wantStatus(t, post(t, c, chatPath(mount, v.name), probe(stream)), http.StatusOK)
	}
}

// wantClosed fails the test unless the gateway whose address these clients know, and
// which has served them before, refuses them with 503, and sends nothing to the provider. It may be called from
// any goroutine.
func (v *virtual) wantClosed(t *testing.T, clients []*vaulttest.Client) {
	t.Helper()
	unasked(t, v.up, func() {
		var asking sync.WaitGroup
		asking.Go(func() {
			if status := statusOf(t.Context(), clients[0].HTTP.Transport, clients[0].Addr+"/readyz"); status != http.StatusServiceUnavailable {
				t.Errorf("/readyz of a gateway that may not act says %d", status)
			}
		})
		for _, c := range clients {
			for _, stream := range []bool{false, true} {
				asking.Go(func() {
					resp, err := c.Do(t.Context(), http.MethodPost, chatPath(mount, v.name), probe(stream))
					if err != nil {
						t.Errorf("%s: no answer of a gateway that may not act: %v", v.name, err)
						return
					}
					var body struct{ Error struct{ Code string } }
					_ = resp.Decode(&body) // what isn't JSON has no code
					if resp.Status != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" || body.Error.Code == "" {
						t.Errorf("%s: a gateway that may not act says %s", v.name, resp)
					}
				})
			}
		}
		asking.Wait()
	})
}

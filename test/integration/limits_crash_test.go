// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/test/vaulttest"
)

// A crash, of whatever process, may make a limit count more than was used, by
// no more than one 64th of it and what was under way; never less, and never may
// more be used than the limit allows.

// crashClients is how many clients ask during crashes.
const crashClients = 40

// wantCovered fails the test unless every limit holds after so many crashes
// under a load of so many clients. It returns what stands on the first.
func (v *virtual) wantCovered(t *testing.T, crashes, clients int) limitRow {
	t.Helper()
	s := v.settled(t)
	for _, row := range s.Limits {
		v.wantRowCovered(t, row, crashes, clients)
	}
	return s.Limits[0]
}

func (v *virtual) wantRowCovered(t *testing.T, row limitRow, crashes, clients int) {
	t.Helper()
	d := v.up.DeliveredTotal()
	delivered, used := in(row.Unit, d), int64(row.Used)
	// What was under way at a crash is at its worst case.
	each := ask{model: usual, prompt: 400, cap: 500, stream: true}.worst(row.Unit)
	most := int64(crashes) * (int64(row.Max)/64 + int64(clients)*each)
	t.Logf("%s %s after %d crashes: %d used of %d, %d delivered; %d unattributed of at most %d, %d unconfirmed",
		v.name, row.Limit, crashes, used, row.Max, delivered, row.Unattributed, most, row.Unconfirmed)
	switch {
	case delivered > int64(row.Max):
		t.Errorf("overspent: %d was delivered and %d allowed", delivered, row.Max)
	case used < delivered:
		t.Errorf("undercounted: %d is used and %d was delivered", used, delivered)
	case used > int64(row.Max):
		t.Errorf("%d is used of %d", used, row.Max)
	}
	if int64(row.Unattributed) > most {
		t.Errorf("%d is unattributed after %d crashes, at most %d may be", row.Unattributed, crashes, most)
	}
	if named := used - int64(row.Unattributed) - int64(row.Unconfirmed); named > delivered {
		t.Errorf("%d is counted with somebody's name on it, and %d was delivered", named, delivered)
	}
}

// wantWrittenOff writes off what is unattributed, and fails the test unless
// exactly that is gone.
func (v *virtual) wantWrittenOff(t *testing.T, before limitRow) {
	t.Helper()
	v.root.Write(t, mount+"/usage/"+v.name+"/write-off", nil)
	after := v.standing(t).Limits[0]
	if after.Used != before.Used-before.Unattributed || after.Unattributed != 0 || after.Unconfirmed != before.Unconfirmed {
		t.Errorf("a write-off of %+v gave %+v", before, after)
	}
}

// crash has clients spend a virtual key to its end, and breaks something when
// about part of the budget is spent. Clients go on afterwards.
func (r *rig) crash(t *testing.T, name string, part float64, breakIt func(v *virtual)) {
	v := r.limited(t, name, "usd=1.5/month", "requests=5000/week")
	l := &load{v: v, next: randomAsk(usual), harsh: true}
	began := time.Now()
	wait := l.start(t.Context(), v.clients(t, crashClients, attempt))
	at := int64(part * 1.5e9)
	eventually(t, "a part of the budget to be spent", func() bool { return in("usd", v.up.DeliveredTotal()) >= at })
	before := l.succeeded()
	breakIt(v)
	wait()
	l.report(t, began)
	if after := l.succeeded(); after == before {
		t.Errorf("no request went well after the crash; before it %d did", before)
	}
	v.wantWrittenOff(t, v.wantCovered(t, 1, crashClients))
	// What was written off can be spent, and no more than that.
	l = &load{v: v, next: randomAsk(usual), harsh: true}
	l.run(t, v.clients(t, 5, patience))
	if row := v.settled(t).Limits[0]; row.Used > row.Max {
		t.Errorf("after the write-off %d is used of %d", row.Used, row.Max)
	}
}

// part is how much of a budget is spent when something happens: at random, but
// early enough for something to be left after it.
func (r *rig) part() float64 { return 0.05 + 0.65*r.dice.Float64() }

// TestCrash_PluginKilled: the plugin is killed at random moments.
func TestCrash_PluginKilled(t *testing.T) {
	t.Parallel()
	r := startRig(t, vaulttest.Options{})
	for i := range rounds(3, 20) {
		r.crash(t, fmt.Sprintf("killed-%d", i), r.part(), func(*virtual) {
			r.vault.Nodes()[0].KillPlugins(t)
		})
	}
}

// TestCrash_PluginKilledManyTimes: every crash adds to what is unattributed no
// more than its own.
func TestCrash_PluginKilledManyTimes(t *testing.T) {
	t.Parallel()
	r := startRig(t, vaulttest.Options{})
	v := r.limited(t, "often", "usd=20/month")
	l := &load{v: v, next: randomAsk(usual), harsh: true}
	began := time.Now()
	ctx, stopAll := contextOf(t)
	wait := l.start(ctx, v.clients(t, 10, patience))
	kills := rounds(5, 60)
	for range kills {
		before := l.succeeded()
		eventually(t, "requests to go well between crashes", func() bool { return l.succeeded() > before+5 })
		time.Sleep(time.Duration(r.dice.IntN(1500)) * time.Millisecond)
		r.vault.Nodes()[0].KillPlugins(t)
	}
	before := l.succeeded()
	eventually(t, "requests to go well after the last crash", func() bool { return l.succeeded() > before+5 })
	stopAll()
	wait()
	l.report(t, began)
	row := v.wantCovered(t, kills, 10)
	v.wantWrittenOff(t, row)
}

// TestCrash_VaultKilled: Vault itself is killed at random moments. Its plugin
// ends by itself.
func TestCrash_VaultKilled(t *testing.T) {
	t.Parallel()
	r := startRig(t, vaulttest.Options{Mode: vaulttest.Raft})
	for i := range rounds(1, 5) {
		r.crash(t, fmt.Sprintf("vault-killed-%d", i), r.part(), func(*virtual) {
			old := r.vault.PluginPIDs()
			if len(old) != 1 {
				t.Fatalf("plugin processes %v", old)
			}
			killed := time.Now()
			r.vault.Kill()
			eventually(t, "the orphaned plugin to end itself", func() bool { return len(r.vault.PluginPIDs()) == 0 })
			t.Logf("the orphaned plugin ended in %v", time.Since(killed))
			r.vault.Restart(t)
			if slices.Contains(r.vault.PluginPIDs(), old[0]) {
				t.Errorf("the old plugin %d is still there", old[0])
			}
		})
	}
}

// TestCrash_VaultPaused: while Vault is stopped nothing is admitted, for its
// storage gives no answer, and afterwards all figures are exact.
func TestCrash_VaultPaused(t *testing.T) {
	t.Parallel()
	r := startRig(t, vaulttest.Options{Mode: vaulttest.Raft})
	node := r.vault.Nodes()[0]
	for i := range rounds(1, 5) {
		v := r.limited(t, fmt.Sprintf("paused-%d", i), "usd=0.8/month")
		l := &load{v: v, next: randomAsk(usual), harsh: true}
		began := time.Now()
		wait := l.start(t.Context(), v.clients(t, crashClients, patience))
		at := int64(0.4e9)
		eventually(t, "a part of the budget to be spent", func() bool { return in("usd", v.up.DeliveredTotal()) >= at })
		node.Pause(t)
		// A process that storage hasn't confirmed for 5 s admits nothing; what
		// it sent just before arrives a moment later.
		time.Sleep(7 * time.Second)
		v.up.WaitIdle(t)
		received, delivered := v.up.Received(), in("usd", v.up.DeliveredTotal())
		time.Sleep(time.Duration(rounds(1, 10)) * time.Second)
		if now := v.up.Received(); now != received {
			t.Errorf("%d requests were sent while Vault's storage was away for long", now-received)
		}
		if delivered > 0.8e9 {
			t.Errorf("%d was delivered", delivered)
		}
		node.Continue(t)
		wait()
		l.report(t, began)
		row := v.settled(t).Limits[0]
		d := in("usd", v.up.DeliveredTotal())
		t.Logf("%d received while paused; %+v, delivered %d", received, row, d)
		if int64(row.Used) < d || d > int64(row.Max) || row.Unattributed != 0 || int64(row.Used-row.Unconfirmed) > d {
			t.Errorf("after a pause %+v, and %d was delivered", row, d)
		}
		if row.Unconfirmed == 0 && int64(row.Used) != d {
			t.Errorf("after a pause %d is used and %d was delivered", row.Used, d)
		}
		wantStatus(t, do(t, r.root, http.MethodGet, mount+"/healthz", nil), http.StatusOK)
	}
}

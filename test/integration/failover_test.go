// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/test/upstream"
	"vault-plugin-secrets-portkey/test/vaulttest"
)

// TestFailover: the leader of three nodes is lost in every way, under load, and
// limits hold as over any crash.
func TestFailover(t *testing.T) {
	t.Parallel()
	r := startRig(t, vaulttest.Options{Mode: vaulttest.Raft, Nodes: 3})
	for i := range rounds(1, 5) {
		name := func(what string) string { return fmt.Sprintf("%s-%d", what, i) }
		t.Run(name("Killed"), func(t *testing.T) {
			old := r.vault.Leader(t)
			r.crash(t, name("killed"), r.part(), func(*virtual) {
				old.Kill()
				t.Logf("%s leads after %s was killed", r.vault.Leader(t), old)
			})
			old.Restart(t)
		})
		t.Run(name("SteppedDown"), func(t *testing.T) {
			r.crash(t, name("stepped-down"), r.part(), func(*virtual) {
				began := time.Now()
				t.Logf("%s leads after %v", r.vault.StepDown(t), time.Since(began))
			})
		})
		t.Run(name("CutOff"), func(t *testing.T) {
			old := r.vault.Leader(t)
			r.crash(t, name("cut-off"), r.part(), func(v *virtual) {
				r.vault.CutOff(t, old)
				t.Logf("%s leads after %s was cut off", r.vault.Leader(t), old)
				v.wantPowerless(t, old)
				r.vault.Rejoin(t, old)
			})
		})
		t.Run(name("Paused"), func(t *testing.T) {
			old := r.vault.Leader(t)
			r.crash(t, name("paused"), r.part(), func(v *virtual) {
				old.Pause(t)
				t.Logf("%s leads after %s was paused", r.vault.Leader(t), old)
				// It wakes up, takes itself for the leader, and reaches nobody.
				r.vault.CutOff(t, old)
				old.Continue(t)
				v.wantPowerless(t, old)
				r.vault.Rejoin(t, old)
			})
		})
	}
}

// wantPowerless sends requests to a node that was the leader and reaches no
// other: what its plugin lets through must have been counted by the new leader
// already, and once the node knows that it lost it is nothing at all.
func (v *virtual) wantPowerless(t *testing.T, old *vaulttest.Node) {
	t.Helper()
	// By the model they can be told apart at the provider; and the node can't
	// hand them on.
	probe := func(model string) (delivered upstream.Delivered) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		token := v.vault.RootToken
		var group sync.WaitGroup
		for range 10 {
			group.Go(func() {
				// How it fails is Vault's affair.
				_, _ = old.Client(token).Do(ctx, http.MethodPost, chatPath(mount, v.name), ask{model: model, prompt: 10, cap: 300}.body())
			})
		}
		group.Wait()
		v.up.WaitIdle(t)
		for key, d := range v.up.Delivered() {
			if key.Model == model {
				delivered = d
			}
		}
		return delivered
	}
	t.Logf("at once, the old leader let %+v through", probe("up-random:7:77"))
	eventually(t, "the old leader to know that it isn't", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		resp, err := old.Client("").Do(ctx, http.MethodGet, "sys/health", nil)
		return err == nil && resp.Status != http.StatusOK
	})
	if got := probe("up-random:8:88"); got.Requests != 0 {
		t.Errorf("a node that isn't the leader let %+v through", got)
	}
}

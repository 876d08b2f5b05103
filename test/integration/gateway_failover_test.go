// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/test/vaulttest"
)

// TestGatewayFailover: the leader of three nodes is lost in every way while callers
// use the gateway. They are served again, by the gateway of the next leader; limits
// hold as over any crash; and a node that isn't active takes no requests.
func TestGatewayFailover(t *testing.T) {
	t.Parallel()
	r := startGatewayRig(t, vaulttest.Options{Mode: vaulttest.Raft, Nodes: 3}, nil)
	for i := range rounds(1, 5) {
		name := func(what string) string { return fmt.Sprintf("%s-%d", what, i) }
		t.Run(name("SteppedDown"), func(t *testing.T) {
			r.lose(t, name("stepped-down"), func(*vaulttest.Node) { r.vault.StepDown(t) })
		})
		t.Run(name("Killed"), func(t *testing.T) {
			r.lose(t, name("killed"), func(old *vaulttest.Node) {
				old.Kill()
				eventually(t, "its plugin to end", func() bool { return len(old.PluginPIDs()) == 0 })
			}).Restart(t)
		})
		t.Run(name("CutOff"), func(t *testing.T) { r.loseAlive(t, name("cut-off"), true) })
		if soaking() { // else a single node is, in TestGatewayCrash
			t.Run(name("Paused"), func(t *testing.T) { r.loseAlive(t, name("paused"), false) })
		}
	}
}

// lose has the leader be lost under load, and returns it. how loses it.
func (r *rig) lose(t *testing.T, name string, how func(old *vaulttest.Node)) *vaulttest.Node {
	t.Helper()
	old := r.vault.Leader(t)
	r.wantServedBy(t, old)
	r.crash(t, name, r.part(), func(*virtual) {
		began := time.Now()
		how(old)
		leader := r.vault.Leader(t)
		r.wantServedBy(t, leader)
		t.Logf("%s serves %v after %s began to be lost", leader, time.Since(began), old)
	})
	return old
}

// loseAlive has a leader be lost whose gateway lives on: cut off from the others
// while it runs, or stopped first. Callers whom it knows keep asking it.
func (r *rig) loseAlive(t *testing.T, name string, running bool) {
	t.Helper()
	v := r.limited(t, name+"-probe", "usd=10/month")
	callers := v.clients(t, 2, attempt)
	r.gateway.awaitReady(t)
	for _, c := range callers {
		v.wantServed(t, c)
	}
	r.lose(t, name, func(old *vaulttest.Node) {
		defer r.vault.Rejoin(t, old)
		if running {
			r.vault.CutOff(t, old)
			t.Logf("%s leads after %s was cut off", r.vault.Leader(t), old)
		} else {
			v.pauseLeader(t, old, callers)
		}
		v.wantShut(t, old, callers)
	})
	v.wantCovered(t, 1, len(callers))
}

// pauseLeader stops the leader's Vault, then has it wake up cut off from the others,
// where it takes itself for the leader. In between its gateway lives and refuses all.
func (v *virtual) pauseLeader(t *testing.T, old *vaulttest.Node, callers []*vaulttest.Client) {
	t.Helper()
	old.Pause(t)
	paused := time.Now()
	t.Logf("%s leads after %s was paused", v.vault.Leader(t), old)
	// The address is the old one's still: on machines of their own the two would
	// be at it at the same time.
	if pids := v.gateway.listeners(t); pids != nil && !slices.Equal(pids, old.PluginPIDs()) {
		t.Errorf("the processes %v listen while %s is paused, expected %v", pids, old, old.PluginPIDs())
	}
	// What it let in just before arrives a moment later.
	time.Sleep(7*time.Second - time.Since(paused))
	v.up.WaitIdle(t)
	v.wantClosed(t, callers)
	v.vault.CutOff(t, old)
	old.Continue(t)
}

// wantShut sends requests to the gateway of a node that was the leader and reaches
// no other, until it closes, as it does once the node knows that it lost. What it
// lets through before, the new leader counts already.
func (v *virtual) wantShut(t *testing.T, old *vaulttest.Node, callers []*vaulttest.Client) {
	t.Helper()
	before := v.up.Received()
	eventually(t, "the gateway of the old leader to close", func() bool {
		ours := old.PluginPIDs()
		listens := v.gateway.listeners(t)
		if listens == nil || !slices.ContainsFunc(listens, func(pid int) bool { return slices.Contains(ours, pid) }) {
			return len(ours) == 0
		}
		var asking sync.WaitGroup
		for _, c := range callers {
			asking.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				// How it fails is Vault's affair.
				_, _ = c.Do(ctx, http.MethodPost, chatPath(mount, v.name), probe(true))
			})
		}
		asking.Wait()
		return false
	})
	v.up.WaitIdle(t)
	t.Logf("until it closed, the old leader's gateway let %d requests through", v.up.Received()-before)
}

// wantServedBy waits until the gateway is ready, and fails the test unless it is
// this node's, and no other process listens at its address.
func (r *rig) wantServedBy(t *testing.T, leader *vaulttest.Node) {
	t.Helper()
	r.gateway.awaitReady(t)
	if pids := r.gateway.listeners(t); pids != nil && !slices.Equal(pids, leader.PluginPIDs()) {
		t.Errorf("the processes %v listen, and %s, which leads, has %v", pids, leader, leader.PluginPIDs())
	}
}

// listeners are the plugins, of all nodes, that listen at the gateway's address. It
// is nil where the system doesn't say: outside Linux.
func (g *gatewayDoor) listeners(t *testing.T) []int {
	t.Helper()
	_, port, _ := strings.Cut(g.addr, ":")
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	sockets, err := listening(number)
	if err != nil {
		t.Logf("nobody says who listens: %v", err)
		return nil
	}
	pids := []int{}
	for _, pid := range g.vault.PluginPIDs() {
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid)) // none, if it has just ended
		if slices.ContainsFunc(files, func(file string) bool {
			to, _ := os.Readlink(file)
			return slices.Contains(sockets, to)
		}) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// listening returns the sockets that listen at a port, as links in /proc/<pid>/fd
// name them (https://docs.kernel.org/networking/proc_net_tcp.html).
func listening(port int) (sockets []string, err error) {
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(text)) {
			const listen = "0A"
			if f := strings.Fields(line); len(f) > 9 && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) && f[3] == listen {
				sockets = append(sockets, "socket:["+f[9]+"]")
			}
		}
	}
	return sockets, nil
}

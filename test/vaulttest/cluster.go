// SPDX-License-Identifier: MPL-2.0

//go:build unix

package vaulttest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"
)

// startDev starts the dev server and waits until it is ready.
func (v *Vault) startDev(ctx context.Context) error {
	v.RootToken = "root"
	n := v.nodes[0]
	if err := n.start(ctx); err != nil {
		return err
	}
	return n.await(ctx, "become active", n.active)
}

// startRaft starts, initialises and unseals the first node, then has the
// others join it one by one.
func (v *Vault) startRaft(ctx context.Context) error {
	first := v.nodes[0]
	if err := first.start(ctx); err != nil {
		return err
	}
	var init struct {
		Keys      []string `json:"keys_base64"`
		RootToken string   `json:"root_token"`
	}
	shares := map[string]any{"secret_shares": 1, "secret_threshold": 1}
	if err := v.api(ctx, first.Addr, "PUT", "sys/init", shares, &init); err != nil {
		return err
	}
	if len(init.Keys) == 0 {
		return errors.New("sys/init gave no unseal key")
	}
	v.unsealKey, v.RootToken = init.Keys[0], init.RootToken
	if err := first.unseal(ctx); err != nil {
		return err
	}
	if err := first.await(ctx, "become active", first.active); err != nil {
		return err
	}
	if err := first.await(ctx, "listen for its cluster", first.servesCluster); err != nil {
		return err
	}
	if len(v.nodes) == 1 {
		return nil
	}
	// Vault waits 10 s before it lets a new node vote.
	if err := v.api(ctx, first.Addr, "POST", "sys/storage/raft/autopilot/configuration",
		map[string]any{"server_stabilization_time": "1s"}, nil); err != nil {
		return err
	}
	for _, n := range v.nodes[1:] {
		if err := n.join(ctx, first); err != nil {
			return err
		}
	}
	return first.await(ctx, "have all nodes vote", v.allVote)
}

// join starts a new node and makes it part of the leader's cluster.
func (n *Node) join(ctx context.Context, leader *Node) error {
	if err := n.start(ctx); err != nil {
		return err
	}
	if err := n.v.api(ctx, n.Addr, "POST", "sys/storage/raft/join", map[string]any{"leader_api_addr": leader.Addr}, nil); err != nil {
		return err
	}
	if err := n.unseal(ctx); err != nil {
		return err
	}
	return n.await(ctx, "become a standby", func(ctx context.Context) bool {
		return n.health(ctx) == http.StatusTooManyRequests // what sys/health calls a standby
	})
}

// allVote says whether every node is a voter in Raft.
func (v *Vault) allVote(ctx context.Context) bool {
	var raft struct {
		Data struct {
			Config struct {
				Servers []struct {
					Voter bool `json:"voter"`
				} `json:"servers"`
			} `json:"config"`
		} `json:"data"`
	}
	if v.api(ctx, v.Addr, "GET", "sys/storage/raft/configuration", nil, &raft) != nil {
		return false
	}
	voters := 0
	for _, server := range raft.Data.Config.Servers {
		if server.Voter {
			voters++
		}
	}
	return voters == len(v.nodes)
}

// health returns the status of sys/health: 200 active, 429 standby, 501 not
// initialised, 503 sealed; 0 if there is no answer in time, as from a node that
// is paused.
func (n *Node) health(ctx context.Context) int {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	resp, err := n.Client("").Do(ctx, "GET", "sys/health", nil)
	if err != nil {
		return 0
	}
	return resp.Status
}

func (n *Node) active(ctx context.Context) bool { return n.health(ctx) == http.StatusOK }

// sealed says whether the node is sealed; with an error, it isn't known.
func (n *Node) sealed(ctx context.Context) (bool, error) {
	var status struct {
		Sealed bool `json:"sealed"`
	}
	err := n.v.api(ctx, n.Addr, "GET", "sys/seal-status", nil, &status)
	return status.Sealed, err
}

// unseal gives the node its key and waits until it is unsealed. A node that
// joins says so only once it has its data from the leader.
func (n *Node) unseal(ctx context.Context) error {
	if err := n.v.api(ctx, n.Addr, "PUT", "sys/unseal", map[string]any{"key": n.v.unsealKey}, nil); err != nil {
		return err
	}
	return n.await(ctx, "be unsealed", func(ctx context.Context) bool {
		sealed, err := n.sealed(ctx)
		return err == nil && !sealed
	})
}

// Seal seals the node, which must be the leader: Vault seals no standby.
func (n *Node) Seal(tb testing.TB) {
	tb.Helper()
	if err := n.v.api(tb.Context(), n.Addr, "PUT", "sys/seal", nil, nil); err != nil {
		tb.Fatalf("vaulttest: seal: %v", err)
	}
	if err := n.await(tb.Context(), "be sealed", func(ctx context.Context) bool {
		sealed, err := n.sealed(ctx)
		return err == nil && sealed
	}); err != nil {
		tb.Fatalf("vaulttest: %v", err)
	}
}

// Unseal unseals the node. It doesn't wait for an election: Vault.Leader does.
func (n *Node) Unseal(tb testing.TB) {
	tb.Helper()
	if n.v.unsealKey == "" {
		tb.Fatal("vaulttest: a dev server isn't unsealed again: use Mode: vaulttest.Raft")
	}
	if err := n.unseal(tb.Context()); err != nil {
		tb.Fatalf("vaulttest: unseal: %v\n%s", err, n.v.logTail())
	}
}

// Nodes returns the nodes in the order of their names.
func (v *Vault) Nodes() []*Node { return append([]*Node(nil), v.nodes...) }

// Leader waits until a node is active and returns it. Nodes that are paused or
// cut off don't count, whatever they believe themselves.
func (v *Vault) Leader(tb testing.TB) *Node {
	tb.Helper()
	return v.leaderOtherThan(tb, nil)
}

// StepDown makes the leader give up its leadership, waits until another node
// has it (or the same, if it is the only one), and returns that.
func (v *Vault) StepDown(tb testing.TB) *Node {
	tb.Helper()
	old := v.Leader(tb)
	if err := v.api(tb.Context(), old.Addr, "PUT", "sys/step-down", nil, nil); err != nil {
		tb.Fatalf("vaulttest: step-down: %v", err)
	}
	if len(v.nodes) == 1 {
		old = nil
	}
	return v.leaderOtherThan(tb, old)
}

func (v *Vault) leaderOtherThan(tb testing.TB, old *Node) *Node {
	tb.Helper()
	leader, err := v.awaitLeader(tb.Context(), old)
	if err != nil {
		tb.Fatalf("vaulttest: %v\n%s", err, v.logTail())
	}
	return leader
}

// awaitLeader waits, for at most startTimeout, until a node other than old,
// which may be nil, is active.
func (v *Vault) awaitLeader(ctx context.Context, old *Node) (*Node, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, n := range v.nodes {
			if n != old && n.present() && n.active(ctx) {
				return n, nil
			}
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for an active node: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// Seal seals the leader and returns when it is sealed. In a cluster another
// node takes over.
func (v *Vault) Seal(tb testing.TB) {
	tb.Helper()
	v.Leader(tb).Seal(tb)
}

// Unseal unseals every running node and waits for a leader.
func (v *Vault) Unseal(tb testing.TB) {
	tb.Helper()
	for _, n := range v.nodes {
		if n.running() {
			n.Unseal(tb)
		}
	}
	v.Leader(tb)
}

// Kill ends every node's Vault with SIGKILL. Plugins are left to themselves,
// as in a real crash, until the test is over.
func (v *Vault) Kill() {
	for _, n := range v.nodes {
		n.Kill()
	}
}

// Restart ends and starts every node, one by one, unseals them and waits for
// a leader. Nodes that were killed are started too. Needs Mode Raft.
func (v *Vault) Restart(tb testing.TB) {
	tb.Helper()
	for _, n := range v.nodes {
		n.Restart(tb)
	}
	v.Leader(tb)
}

// String names the node and its address, for messages of tests.
func (n *Node) String() string { return fmt.Sprintf("%s (%s)", n.Name, n.Addr) }

// SPDX-License-Identifier: MPL-2.0

//go:build integration && unix

package vaulttest

import (
	"context"
	"errors"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// awaitStandby waits until a node says that it is a standby.
func awaitStandby(t *testing.T, n *Node) {
	t.Helper()
	if err := n.await(t.Context(), "become a standby", func(ctx context.Context) bool {
		return n.health(ctx) == http.StatusTooManyRequests
	}); err != nil {
		t.Fatal(err)
	}
}

// wantNote reads the note at a node, which forwards if it is a standby. One that
// has only just learnt of a new leader sends callers there (307) until it has
// a connection of its own to it.
func wantNote(t *testing.T, n *Node, when, want string) {
	t.Helper()
	var got any
	if err := n.await(t.Context(), "answer "+when, func(ctx context.Context) bool {
		resp, err := n.Client(n.v.RootToken).Do(ctx, "GET", "notes/note", nil)
		if err != nil || resp.Status != http.StatusOK {
			return false
		}
		got = resp.Data()["text"]
		return true
	}); err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("%s: %s reads %v, want %s", when, n, got, want)
	}
}

func TestCutOff_LeaderIsReplacedAndFollowsWhenItRejoins(t *testing.T) {
	t.Parallel()
	v := Start(t, Options{Mode: Raft, Nodes: 3, PluginBinary: notesBinary(t)})
	v.Enable(t, "notes", nil)
	root := v.Balanced(v.RootToken, 10*time.Second)
	root.Write(t, "notes/note", map[string]any{"text": "first"})

	old := v.Leader(t)
	begin := time.Now()
	v.CutOff(t, old)
	awaitStandby(t, old)
	t.Logf("%s stepped down %v after it was cut off", old.Name, time.Since(begin))
	leader := v.Leader(t)
	t.Logf("%s leads %v after %s was cut off", leader.Name, time.Since(begin), old.Name)

	// Of the three, the two still are a cluster.
	leader.Client(v.RootToken).Write(t, "notes/note", map[string]any{"text": "second"})
	for _, n := range v.Nodes() {
		if n != old {
			wantNote(t, n, "meanwhile", "second")
		}
	}
	// A client that follows the leader learns of it by one failure.
	if resp, err := root.Do(t.Context(), "POST", "notes/note", `{"text":"lost"}`); err == nil && resp.Status < 300 {
		t.Errorf("a node that is cut off took a write: %s", resp)
	}
	root.Write(t, "notes/note", map[string]any{"text": "third"})
	// The third has its API, and nobody to turn to.
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if resp, err := old.Client(v.RootToken).Do(ctx, "POST", "notes/note", map[string]any{"text": "lost"}); err == nil && resp.Status < 300 {
		t.Errorf("a node that is cut off took a write: %s", resp)
	}

	v.Rejoin(t, old)
	begin = time.Now()
	if err := old.await(t.Context(), "follow again", func(ctx context.Context) bool {
		ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		resp, err := old.Client(v.RootToken).Do(ctx, "GET", "notes/note", nil)
		return err == nil && resp.Data()["text"] == "third"
	}); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s hands requests on %v after it joined again", old.Name, time.Since(begin))
	if now := v.Leader(t); now != leader || old.health(t.Context()) != http.StatusTooManyRequests {
		t.Errorf("%s led, now %s does; %s has the health %d", leader.Name, now.Name, old.Name, old.health(t.Context()))
	}
	root.Write(t, "notes/note", map[string]any{"text": "fourth"})
	v.StepDown(t)
	for _, n := range v.Nodes() {
		wantNote(t, n, "after a step-down", "fourth")
	}
}

func TestCutOff_OfAStandbyDisturbsNobodyElse(t *testing.T) {
	t.Parallel()
	v := Start(t, Options{Mode: Raft, Nodes: 3, PluginBinary: notesBinary(t)})
	v.Enable(t, "notes", nil)
	leader := v.Leader(t)
	standbys := slices.DeleteFunc(v.Nodes(), func(n *Node) bool { return n == leader })
	v.CutOff(t, standbys[0])
	root := leader.Client(v.RootToken)
	// Longer than a leader goes on that has lost its followers.
	for deadline := time.Now().Add(8 * time.Second); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		root.Write(t, "notes/note", map[string]any{"text": "kept"})
		wantNote(t, standbys[1], "meanwhile", "kept")
	}
	v.Rejoin(t, standbys[0])
	// Its votes asked for an election meanwhile, or it was known that it was
	// only cut off: either is Raft's to choose.
	v.Leader(t)
	if err := standbys[0].await(t.Context(), "follow again", func(ctx context.Context) bool {
		resp, err := standbys[0].Client(v.RootToken).Do(ctx, "GET", "notes/note", nil)
		return err == nil && resp.Data()["text"] == "kept"
	}); err != nil {
		t.Error(err)
	}
	if now := v.Leader(t); now != leader {
		t.Errorf("%s led, and %s does after %s joined again", leader.Name, now.Name, standbys[0].Name)
	}
}

func TestBalanced_FollowsTheLeaderThroughItsLosses(t *testing.T) {
	t.Parallel()
	v := Start(t, Options{Mode: Raft, Nodes: 3, PluginBinary: notesBinary(t)})
	v.Enable(t, "notes", nil)
	for _, c := range []struct {
		name string
		lose func()
	}{
		{"a step-down", func() { v.StepDown(t) }},
		{"a kill of the leader", func() { v.Leader(t).Kill() }},
	} {
		var failed, done atomic.Int64
		ctx, cancel := context.WithCancel(t.Context())
		var clients sync.WaitGroup
		for range 8 {
			clients.Go(func() {
				client := v.Balanced(v.RootToken, 5*time.Second)
				for ctx.Err() == nil {
					if resp, err := client.Do(t.Context(), "POST", "notes/note", `{"text":"x"}`); err != nil || resp.Status >= 300 {
						failed.Add(1)
					} else {
						done.Add(1)
					}
				}
			})
		}
		begin := time.Now()
		c.lose()
		v.Leader(t)
		took, before := time.Since(begin), done.Load()
		if err := v.Leader(t).await(t.Context(), "serve again", func(context.Context) bool { return done.Load() >= before+100 }); err != nil {
			t.Error(err)
		}
		cancel()
		clients.Wait()
		t.Logf("%s: another node led after %v; %d calls failed, %d went through", c.name, took, failed.Load(), done.Load())
		// Each client fails when the leader goes, and perhaps again before
		// the new one has started its plugin.
		if failed.Load() > 100 {
			t.Errorf("%s: %d calls failed", c.name, failed.Load())
		}
	}
}

func TestPause_LeaderIsReplacedAndFollowsWhenItContinues(t *testing.T) {
	t.Parallel()
	v := Start(t, Options{Mode: Raft, Nodes: 3, PluginBinary: notesBinary(t)})
	v.Enable(t, "notes", nil)
	root := v.Balanced(v.RootToken, 2*time.Second)
	root.Write(t, "notes/note", map[string]any{"text": "first"})

	old := v.Leader(t)
	begin := time.Now()
	old.Pause(t)
	if resp, err := root.Do(t.Context(), "POST", "notes/note", `{"text":"unsure"}`); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a paused node answered %v, %v", resp, err)
	}
	root.Write(t, "notes/note", map[string]any{"text": "second"})
	t.Logf("a write went through %v after the leader was paused", time.Since(begin))
	leader := v.Leader(t)
	if leader == old {
		t.Fatalf("%s leads while it is paused", old.Name)
	}

	begin = time.Now()
	old.Continue(t)
	awaitStandby(t, old)
	t.Logf("%s is a standby %v after it went on", old.Name, time.Since(begin))
	if now := v.Leader(t); now != leader {
		t.Errorf("%s led, now %s does", leader.Name, now.Name)
	}
	// What the call did that had no answer is for the cluster to say; the note
	// is whole either way.
	text, _ := root.Read(t, "notes/note").Data()["text"].(string)
	if text != "second" && text != "unsure" {
		t.Errorf("the note is %q", text)
	}
	t.Logf("the note is %q", text)
}

func TestPause_StopsVaultButNotItsPlugins(t *testing.T) {
	t.Parallel()
	var dir string
	var group int
	ok := t.Run("a test", func(t *testing.T) {
		v := Start(t, Options{PluginBinary: notesBinary(t)})
		v.Enable(t, "notes", nil)
		n := v.Leader(t)
		dir, group = v.dir, n.current().pid
		plugins := n.PluginPIDs()
		n.Pause(t)
		if n.health(t.Context()) != 0 {
			t.Error("a paused node answers")
		}
		if len(plugins) != 1 || isStopped(plugins[0]) || !slices.Equal(n.PluginPIDs(), plugins) {
			t.Errorf("the plugins were %v and are %v", plugins, n.PluginPIDs())
		}
		n.Continue(t)
		v.Client(v.RootToken).Write(t, "notes/note", map[string]any{"text": "x"})
		n.Pause(t)
	})
	if !ok {
		return
	}
	if pids := groupMembers(group); len(pids) != 0 {
		t.Errorf("processes left of a test that ended with its Vault paused: %v", pids)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("files left in %s (%v)", dir, err)
	}
}

func TestKillPlugins_LeavesVaultToStartThemAgain(t *testing.T) {
	t.Parallel()
	v := Start(t, Options{PluginBinary: notesBinary(t)})
	v.Enable(t, "notes", nil)
	v.Enable(t, "more/notes", nil)
	n, root := v.Leader(t), v.Client(v.RootToken)
	root.Write(t, "notes/note", map[string]any{"text": "kept"})
	killed := n.KillPlugins(t)
	if len(killed) != 2 || len(n.PluginPIDs()) != 0 {
		t.Errorf("killed %v, left %v", killed, n.PluginPIDs())
	}
	// Vault answers 500 until it has noticed.
	if err := n.await(t.Context(), "start the plugin again", func(ctx context.Context) bool {
		resp, err := root.Do(ctx, "GET", "notes/note", nil)
		return err == nil && resp.Data()["text"] == "kept"
	}); err != nil {
		t.Error(err)
	}
}

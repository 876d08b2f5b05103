// SPDX-License-Identifier: MPL-2.0

//go:build integration && unix

package vaulttest

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestRaft_KeepsItsDataOverSealKillAndRestart(t *testing.T) {
	t.Parallel()
	v := Start(t, Options{Mode: Raft, PluginBinary: notesBinary(t)})
	v.Enable(t, "notes", nil)
	root := v.Client(v.RootToken)
	root.Write(t, "notes/note", map[string]any{"text": "kept"})
	addr := v.Addr
	check := func(after string) {
		t.Helper()
		if got := root.Read(t, "notes/note").Data()["text"]; got != "kept" {
			t.Fatalf("after %s the note is %v", after, got)
		}
		if v.Addr != addr {
			t.Fatalf("after %s the address is %s, was %s", after, v.Addr, addr)
		}
	}
	check("writing")

	v.Seal(t)
	if got := v.Nodes()[0].health(t.Context()); got != http.StatusServiceUnavailable {
		t.Errorf("health of a sealed Vault: %d", got)
	}
	if pids := v.PluginPIDs(); len(pids) != 0 {
		t.Errorf("plugins of a sealed Vault run: %v", pids)
	}
	v.Unseal(t)
	check("unsealing")

	v.Restart(t)
	check("a restart")

	orphans := v.PluginPIDs()
	v.Kill()
	if v.nodes[0].running() || len(orphans) != 1 {
		t.Errorf("killed, and running: %v; plugins before: %v", v.nodes[0].running(), orphans)
	}
	audited := len(v.AuditLog())
	v.Restart(t)
	check("a kill")
	if len(v.AuditLog()) <= audited {
		t.Error("the audit device is off after a restart")
	}
	if pids := v.PluginPIDs(); !slices.ContainsFunc(pids, func(pid int) bool { return !slices.Contains(orphans, pid) }) {
		t.Errorf("plugins %v after the kill, %v before: none is new", pids, orphans)
	}
}

func TestRaft_ThreeNodesElectAndKeepTheirData(t *testing.T) {
	t.Parallel()
	v := Start(t, Options{Mode: Raft, Nodes: 3, PluginBinary: notesBinary(t)})
	if len(v.Nodes()) != 3 || !v.allVote(t.Context()) {
		t.Fatalf("nodes %v, all vote: %v", v.Nodes(), v.allVote(t.Context()))
	}
	v.Enable(t, "notes", nil)
	first := v.Leader(t)
	first.Client(v.RootToken).Write(t, "notes/note", map[string]any{"text": "kept"})
	for _, n := range v.Nodes() { // standbys forward
		if got := n.Client(v.RootToken).Read(t, "notes/note").Data()["text"]; got != "kept" {
			t.Errorf("%s reads %v", n, got)
		}
	}

	second := v.StepDown(t)
	if second == first {
		t.Fatalf("%s leads after it stepped down", first)
	}
	second.Kill()
	third := v.Leader(t)
	if third == second {
		t.Fatalf("%s leads after it was killed", second)
	}
	if got := third.Client(v.RootToken).Read(t, "notes/note").Data()["text"]; got != "kept" {
		t.Errorf("after two elections the note is %v", got)
	}
	second.Restart(t)
	if err := second.await(t.Context(), "join in again", func(ctx context.Context) bool {
		health := second.health(ctx)
		return health == http.StatusOK || health == http.StatusTooManyRequests
	}); err != nil {
		t.Error(err)
	}
	v.Restart(t)
	if got := v.Leader(t).Client(v.RootToken).Read(t, "notes/note").Data()["text"]; got != "kept" {
		t.Errorf("after a restart of all nodes the note is %v", got)
	}
}

func TestRaw_ShowsEveryStoredEntry(t *testing.T) {
	t.Parallel()
	v := Start(t, Options{Mode: Raft, PluginBinary: notesBinary(t)})
	v.Enable(t, "notes", nil)
	root := v.Client(v.RootToken)
	root.Write(t, "sys/mounts/kv", map[string]any{"type": "kv", "options": map[string]any{"version": "1"}})
	const needle = "findme-7d1f0c3ab2"
	root.Write(t, "notes/note", map[string]any{"text": "G" + needle}) // G is how compressed values begin
	root.Write(t, "kv/app with spaces/é", map[string]any{"word": needle})
	// Identity entries are compressed.
	root.Write(t, "identity/entity", map[string]any{"name": "alice", "metadata": map[string]any{"word": needle}})

	var plugin, kv, identity int
	for _, path := range v.RawSearch(t, "", []byte(needle)) {
		switch mountOf(t, v, path) {
		case "notes/":
			plugin++
		case "kv/":
			kv++
		case "identity/":
			identity++
		default:
			t.Errorf("found in %s too", path)
		}
	}
	if plugin != 1 || kv != 1 || identity != 1 {
		t.Errorf("found %d times in the plugin's storage, %d in kv's, %d in identity's; want 1 each", plugin, kv, identity)
	}
	if got := v.RawSearch(t, "", []byte("never-written-anywhere")); len(got) != 0 {
		t.Errorf("found what isn't there: %v", got)
	}
	if keys := v.RawKeys(t, ""); !slices.Contains(keys, "core/mounts") || !slices.IsSorted(keys) {
		t.Errorf("keys %v", keys)
	}
}

// mountOf returns the path of the mount that a storage entry belongs to.
func mountOf(t *testing.T, v *Vault, path string) string {
	t.Helper()
	var mounts struct {
		Data map[string]struct {
			UUID string `json:"uuid"`
		} `json:"data"`
	}
	if err := v.Client(v.RootToken).Read(t, "sys/mounts").Decode(&mounts); err != nil {
		t.Fatal(err)
	}
	for mount, m := range mounts.Data {
		if strings.HasPrefix(path, "logical/"+m.UUID+"/") {
			return mount
		}
	}
	return ""
}

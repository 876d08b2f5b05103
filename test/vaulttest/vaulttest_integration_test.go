// SPDX-License-Identifier: MPL-2.0

//go:build integration && unix

package vaulttest

import (
	"bytes"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

// notes is the small plugin that these tests load.
var notes = sync.OnceValues(func() (builtPlugin, error) { return build("./test/vaulttest/testdata/notes", false) })

func notesBinary(t *testing.T) string {
	t.Helper()
	built, err := notes()
	if err != nil {
		t.Fatal(err)
	}
	return built.path
}

func TestDev_AuditsFromTheStartAndCapturesTheLog(t *testing.T) {
	t.Parallel()
	v := Start(t, Options{})
	root := v.Client(v.RootToken)
	root.Write(t, "secret/data/app", map[string]any{"data": map[string]any{"word": "a-secret-in-clear"}})

	audit := v.AuditLog()
	if !bytes.Contains(audit, []byte(`"path":"secret/data/app"`)) {
		t.Errorf("the write isn't in the audit log:\n%s", audit)
	}
	if bytes.Contains(audit, []byte("a-secret-in-clear")) {
		t.Error("the audit log shows a value in clear")
	}
	if log := v.Log(); !bytes.Contains(log, []byte("server started!")) || !bytes.Contains(log, []byte("core: ")) {
		t.Errorf("the log isn't Vault's:\n%s", log)
	}
	if status := root.Read(t, "sys/seal-status").JSON(); status["storage_type"] != "inmem" {
		t.Errorf("storage is %v", status["storage_type"])
	}
}

func TestStart_KeepsTheCallersEnvironmentOut(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://proxy.invalid:1")
	t.Setenv("VAULT_LOG_LEVEL", "no such level")
	v := Start(t, Options{PluginBinary: notesBinary(t), Env: []string{"NOTES_GIVEN=yes"}})
	v.Enable(t, "notes", nil)
	root := v.Client(v.RootToken)
	for name, want := range map[string]string{"HTTPS_PROXY": "", "NOTES_GIVEN": "yes"} {
		if got := root.Read(t, "notes/environment/"+name).Data()["value"]; got != want {
			t.Errorf("the plugin sees %s=%v, want %q", name, got, want)
		}
	}
}

func TestEnable_RunsThePluginAndReloadReplacesItsProcess(t *testing.T) {
	t.Parallel()
	v := Start(t, Options{PluginBinary: notesBinary(t), Config: `log_requests_level = "info"`})
	v.Enable(t, "notes", map[string]any{"allowed_response_headers": []string{"Retry-After"}})
	v.Enable(t, "more/notes/", nil)
	root := v.Client(v.RootToken)
	root.Write(t, "notes/note", map[string]any{"text": "hello"})
	if got := root.Read(t, "notes/note").Data()["text"]; got != "hello" {
		t.Errorf("read %v", got)
	}
	tune := root.Read(t, "sys/mounts/notes/tune").Data()
	if headers, _ := tune["allowed_response_headers"].([]any); len(headers) != 1 {
		t.Errorf("the mount's tuning is %v", tune)
	}
	if !bytes.Contains(v.Log(), []byte("the notes plugin is ready")) {
		t.Error("the plugin's own log lines aren't captured")
	}
	if !bytes.Contains(v.Log(), []byte("completed_request")) {
		t.Error("Options.Config has no effect")
	}

	before := v.PluginPIDs()
	if len(before) != 2 {
		t.Fatalf("plugin processes %v, want one for each mount", before)
	}
	v.Reload(t, "notes")
	if got := root.Read(t, "notes/note").Data()["text"]; got != "hello" {
		t.Errorf("after the reload: %v", got)
	}
	after := v.PluginPIDs()
	kept := slices.DeleteFunc(slices.Clone(after), func(pid int) bool { return !slices.Contains(before, pid) })
	if len(after) != 2 || len(kept) != 1 {
		t.Errorf("plugin processes were %v and are %v after one of the two was reloaded", before, after)
	}
}

func TestEnable_BuildsTheProjectsPluginWhenNoneIsNamed(t *testing.T) {
	t.Parallel()
	v := Start(t, Options{})
	v.Enable(t, "portkey", nil)
	var mount struct {
		Data struct {
			Type          string `json:"type"`
			RunningSHA256 string `json:"running_sha256"`
		} `json:"data"`
	}
	if err := v.Client(v.RootToken).Read(t, "sys/mounts/portkey").Decode(&mount); err != nil {
		t.Fatal(err)
	}
	if mount.Data.Type != pluginName || len(mount.Data.RunningSHA256) != 64 || len(v.PluginPIDs()) != 1 {
		t.Errorf("mounted %+v with processes %v", mount.Data, v.PluginPIDs())
	}
}

func TestToken_HasExactlyItsPolicies(t *testing.T) {
	t.Parallel()
	v := Start(t, Options{})
	v.Policy(t, "reader", `path "secret/data/open" { capabilities = ["read"] }`)
	token := v.Token(t, "reader")
	root := v.Client(v.RootToken)
	root.Write(t, "secret/data/open", map[string]any{"data": map[string]any{"a": "b"}})
	app := v.Client(token)
	app.Read(t, "secret/data/open")
	for _, path := range []string{"secret/data/closed", "auth/token/lookup-self"} { // the second is in `default`
		resp, err := app.Do(t.Context(), "GET", path, nil)
		if err != nil || resp.Status != 403 || len(resp.Errors()) == 0 {
			t.Errorf("%s: %v, %v", path, resp, err)
		}
	}
}

func TestUserpass_IsAnEntityInItsGroups(t *testing.T) {
	t.Parallel()
	v := Start(t, Options{})
	alice, again, bob := v.Userpass(t, "alice"), v.Userpass(t, "alice", "some-policy"), v.Userpass(t, "bob")
	if alice.EntityID == "" || alice.EntityID != again.EntityID || alice.EntityID == bob.EntityID || alice.Token == again.Token {
		t.Errorf("alice %+v, again %+v, bob %+v", alice, again, bob)
	}
	group := v.Group(t, "team", alice.EntityID, bob.EntityID)
	if smaller := v.Group(t, "team", bob.EntityID); group == "" || smaller != group {
		t.Errorf("group %q became %q", group, smaller)
	}
	root := v.Client(v.RootToken)
	members, _ := root.Read(t, "identity/group/id/"+group).Data()["member_entity_ids"].([]any)
	if len(members) != 1 || members[0] != bob.EntityID {
		t.Errorf("members %v", members)
	}
	self := v.Client(again.Token).Read(t, "auth/token/lookup-self").Data()
	policies, _ := self["policies"].([]any)
	if self["entity_id"] != alice.EntityID || !slices.Contains(toStrings(policies), "some-policy") {
		t.Errorf("alice's token: %v", self)
	}
	aliases, _ := root.Read(t, "identity/entity/id/"+alice.EntityID).Data()["aliases"].([]any)
	if alias, ok := aliases[0].(map[string]any); !ok || alias["mount_accessor"] != alice.MountAccessor || alias["name"] != "alice" {
		t.Errorf("aliases %v", aliases)
	}
}

func TestEnd_LeavesNeitherProcessesNorFiles(t *testing.T) {
	t.Parallel()
	var dir string
	var group int
	ok := t.Run("a test", func(t *testing.T) {
		v := Start(t, Options{PluginBinary: notesBinary(t)})
		v.Enable(t, "notes", nil)
		dir, group = v.dir, v.nodes[0].current().pid
		v.Kill() // the plugin is an orphan now
		if len(groupMembers(group)) == 0 {
			t.Error("the plugin ended with Vault, so this proves nothing")
		}
	})
	if !ok {
		return
	}
	if pids := groupMembers(group); len(pids) != 0 {
		t.Errorf("processes left: %v", pids)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("files left in %s (%v)", dir, err)
	}
}

func TestStart_SaysWhyVaultDidNotStart(t *testing.T) {
	t.Parallel()
	bin, err := vaultBinary(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	v, err := launch(t.Context(), bin, Options{Config: `listener "tcp" {`})
	defer v.destroy()
	if err == nil || !strings.Contains(err.Error(), "ended before it could listen") {
		t.Errorf("error: %v", err)
	}
	if !bytes.Contains(v.logTail(), []byte("hcl")) {
		t.Errorf("the log's end doesn't show Vault's complaint:\n%s", v.logTail())
	}
}

// Another program may take a port between its choice and Vault's start. The
// cluster's port matters most: Vault goes on without it.
func TestStart_NoticesThatAnAddressWasTaken(t *testing.T) {
	t.Parallel()
	bin, err := vaultBinary(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, address := range map[string]func(*Node) string{
		"of the API":     func(n *Node) string { return n.host },
		"of the cluster": func(n *Node) string { return n.cluster },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := &Vault{opts: Options{Mode: Raft}, bin: bin, http: newHTTPClient()}
			defer v.destroy()
			if err := errors.Join(v.makeDir(), v.makeNodes(1)); err != nil {
				t.Fatal(err)
			}
			l, err := net.Listen("tcp", address(v.nodes[0]))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if err := v.startRaft(t.Context()); !errors.Is(err, errPortTaken) {
				t.Errorf("error %v, want %v", err, errPortTaken)
			}
		})
	}
}

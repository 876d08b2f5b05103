// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"net/http"
	"slices"
	"syscall"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/test/upstream"
	"vault-plugin-secrets-portkey/test/vaulttest"
)

// processes: one mount is one process, and what happens to one is nothing to
// the other.
func (s *suite) processes(t *testing.T) {
	s.root.Write(t, tuned+"/config", map[string]any{"upstream_timeout": "60s"})
	defer s.root.Write(t, tuned+"/config", map[string]any{"upstream_timeout": "2s"})
	t.Run("TwoMountsAreTwoProcesses", func(t *testing.T) {
		if pids := s.vault.PluginPIDs(); len(pids) != 2 {
			t.Fatalf("two mounts have the plugin processes %v", pids)
		}
		s.renew(t, mount)
		s.renew(t, tuned)
	})
	for _, c := range []struct{ calling, other string }{{mount, tuned}, {tuned, mount}} {
		t.Run("ReloadOf_"+c.other+"_DisturbsNoCallOf_"+c.calling, func(t *testing.T) {
			s.survivesMeanwhile(t, c.calling, func() { s.renew(t, c.other) })
		})
		t.Run("DeathOf_"+c.other+"_DisturbsNoCallOf_"+c.calling, func(t *testing.T) {
			s.survivesMeanwhile(t, c.calling, func() { s.dieAndRevive(t, c.other) })
		})
	}
	t.Run("KeysAndRolesOutliveAReload", func(t *testing.T) {
		app := s.app(t, mount, "reloaded", nil)
		s.vault.Reload(t, mount)
		wantCompletion(t, post(t, app, chatPath(mount, "reloaded"), s.chat("up-ok")))
	})
}

// renew reloads a mount and returns the id of its new process.
func (s *suite) renew(t *testing.T, mount string) int {
	t.Helper()
	before := s.vault.PluginPIDs()
	s.vault.Reload(t, mount)
	// Vault starts the new process when it is asked for something.
	wantStatus(t, do(t, s.client(""), http.MethodGet, mount+"/healthz", nil), http.StatusOK)
	after := s.vault.PluginPIDs()
	fresh := slices.DeleteFunc(slices.Clone(after), func(pid int) bool { return slices.Contains(before, pid) })
	if len(before) != 2 || len(after) != 2 || len(fresh) != 1 {
		t.Fatalf("the plugin processes were %v, and are %v after one of two mounts was reloaded", before, after)
	}
	return fresh[0]
}

// dieAndRevive kills a mount's process and has the next request revive it.
func (s *suite) dieAndRevive(t *testing.T, mount string) {
	t.Helper()
	s.kill(t, mount, s.renew(t, mount))
}

// kill kills the process of a mount, which is that of pid, and has it revived.
func (s *suite) kill(t *testing.T, mount string, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the killed process to be gone", func() bool { return !slices.Contains(s.vault.PluginPIDs(), pid) })
	// A load balancer's questions are enough. Vault answers 500 for the moment
	// that it takes it to notice.
	eventually(t, "healthz to revive the plugin", func() bool {
		resp := do(t, s.client(""), http.MethodGet, mount+"/healthz", nil)
		return resp.Status == http.StatusOK && string(resp.Body) == "ok\n"
	})
	if pids := s.vault.PluginPIDs(); len(pids) != 2 || slices.Contains(pids, pid) {
		t.Errorf("the plugin processes are %v", pids)
	}
}

// survivesMeanwhile has a call under way on a mount while something happens.
func (s *suite) survivesMeanwhile(t *testing.T, mount string, happens func()) {
	t.Helper()
	app := s.app(t, mount, "long", nil)
	before := s.up.Received()
	type outcome struct {
		resp *vaulttest.Response
		err  error
	}
	ended := make(chan outcome, 1)
	go func() {
		resp, err := app.Do(t.Context(), http.MethodPost, chatPath(mount, "long"), s.chat("up-slow:3000"))
		ended <- outcome{resp, err}
	}()
	s.up.WaitRequests(t, before+1)
	happens()
	got := <-ended
	if got.err != nil {
		t.Fatalf("the call: %v", got.err)
	}
	wantCompletion(t, got.resp)
	if n := s.up.Received() - before; n != 1 {
		t.Errorf("the provider received the call %d times", n)
	}
}

// survival: what is stored works again after Vault was away.
func (s *suite) survival(t *testing.T) {
	app := s.app(t, mount, "survivor", map[string]any{"models": "up-ok", "note": "kept"})
	s.root.Write(t, mount+"/config", map[string]any{"inline_max_concurrent": 7})
	key, role := s.root.Read(t, mount+"/keys/main").Data(), s.root.Read(t, mount+"/roles/survivor").Data()
	wantCompletion(t, post(t, app, chatPath(mount, "survivor"), s.chat("up-ok")))
	used := s.allUsage(t, mount)
	check := func(t *testing.T) {
		s.wantSameUsage(t, mount, used)
		wantCompletion(t, post(t, app, chatPath(mount, "survivor"), s.chat("up-ok")))
		wantError(t, post(t, app, chatPath(mount, "survivor"), s.chat("up-echo")), http.StatusForbidden, "model_not_allowed")
		if got := s.root.Read(t, mount+"/config").Data()["inline_max_concurrent"]; got != 7.0 {
			t.Errorf("config: inline_max_concurrent is %v", got)
		}
		again := s.root.Read(t, mount+"/keys/main").Data()
		if again["fingerprint"] != key["fingerprint"] || again["version"] != key["version"] {
			t.Errorf("the key was %v and is %v", key, again)
		}
		if got := s.root.Read(t, mount+"/roles/survivor").Data(); got["id"] != role["id"] || got["note"] != "kept" {
			t.Errorf("the role was %v and is %v", role, got)
		}
		used = s.allUsage(t, mount)
	}
	t.Run("KeysRolesConfigAndUsageOutliveARestartOfVault", func(t *testing.T) {
		s.vault.Restart(t)
		check(t)
	})
	t.Run("KeysRolesConfigAndUsageOutliveASeal", func(t *testing.T) {
		s.vault.Seal(t)
		eventually(t, "the sealed Vault's plugins to end", func() bool { return len(s.vault.PluginPIDs()) == 0 })
		s.vault.Unseal(t)
		check(t)
	})
}

func TestPlugin_EndsItselfWhenVaultIsKilled(t *testing.T) {
	v := vaulttest.Start(t, vaulttest.Options{})
	v.Enable(t, mount, nil)
	up := upstream.Start(t, upstream.Options{})
	root := v.Client(v.RootToken)
	root.Write(t, mount+"/keys/main", map[string]any{"provider": "vllm", "base_url": up.URL()})
	root.Write(t, mount+"/roles/r", map[string]any{"key": "main"})
	go func() {
		_, _ = root.Do(t.Context(), http.MethodPost, chatPath(mount, "r"), map[string]any{"model": "up-hang"})
	}()
	up.WaitRequests(t, 1)
	if len(v.PluginPIDs()) != 1 {
		t.Fatalf("plugin processes %v", v.PluginPIDs())
	}
	killed := time.Now()
	v.Kill()
	eventually(t, "the orphaned plugin to end itself", func() bool { return len(v.PluginPIDs()) == 0 })
	t.Logf("it took %v", time.Since(killed))
	up.WaitCancelled(t, 1)
}

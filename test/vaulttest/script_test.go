// SPDX-License-Identifier: MPL-2.0

//go:build unix

package vaulttest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// fakeGo stands for the go command in tests of scripts/vault.sh: its build
// takes a moment, is counted in $COUNT, and fails if there is a file $FAIL.
const fakeGo = `
case "$1 $2" in
"list -m") echo 2025-01-02T03:04:05Z; exit ;;
"list -deps") echo "go: downloading example.com/a v1.0.0" >&2; echo a/package; exit ;;
esac
echo build >>"$COUNT"
echo example.com/a >&2
if [ -e "$FAIL" ]; then echo "main.go:1:1: a mistake" >&2; exit 1; fi
while [ "$1" != -o ]; do shift; done
sleep 1
printf '#!/bin/sh\necho "Vault v%s, built for a test"\n' "$(sed -n 's/^require .*vault v//p' go.mod)" >"$2"
chmod +x "$2"
`

// scriptHost is a machine on which scripts/vault.sh runs: only these programs
// are on its PATH.
type scriptHost struct{ bin, home string }

func newScriptHost(t *testing.T, flock bool) scriptHost {
	t.Helper()
	h := scriptHost{bin: t.TempDir(), home: t.TempDir()}
	tools := []string{"bash", "sh", "cat", "mkdir", "rm", "mv", "sed", "grep", "tail", "cut", "uname", "dirname", "basename", "sleep", "chmod"}
	if flock {
		tools = append(tools, "flock")
	}
	for _, tool := range append(tools, "sha256sum", "shasum") {
		path, err := exec.LookPath(tool)
		if err != nil {
			continue // sha256sum on macOS, shasum on Linux, flock on macOS
		}
		if err := os.Symlink(path, filepath.Join(h.bin, tool)); err != nil {
			t.Fatal(err)
		}
	}
	h.program(t, "go", fakeGo)
	return h
}

// program puts a shell script on the machine's PATH.
func (h scriptHost) program(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(h.bin, name)
	if err := writeProgram(path, []byte("#!/bin/sh\n"+text)); err != nil {
		t.Fatal(err)
	}
	return path
}

// run runs scripts/vault.sh and returns what it wrote.
func (h scriptHost) run(env ...string) (stdout, stderr string, err error) {
	root, err := moduleRoot()
	if err != nil {
		return "", "", err
	}
	var out, log bytes.Buffer
	cmd := exec.Command(filepath.Join(root, "scripts", "vault.sh"))
	cmd.Dir = h.home
	cmd.Env = append([]string{"PATH=" + h.bin, "HOME=" + h.home, "COUNT=" + h.count(), "FAIL=" + filepath.Join(h.home, "fail")}, env...)
	cmd.Stdout, cmd.Stderr = &out, &log
	err = cmd.Run()
	return out.String(), log.String(), err
}

func (h scriptHost) count() string { return filepath.Join(h.home, "builds") }

// builds returns how often something was built.
func (h scriptHost) builds(t *testing.T) int {
	t.Helper()
	log, err := os.ReadFile(h.count())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return bytes.Count(log, []byte("\n"))
}

func TestVaultScript_TakesVaultBinFirst(t *testing.T) {
	t.Parallel()
	h := newScriptHost(t, true)
	h.program(t, "vault", `echo "Vault v1.99.0"`)
	bao := h.program(t, "bao", "")
	if out, log, err := h.run("VAULT_BIN=" + bao); out != bao+"\n" || log != "" || err != nil {
		t.Errorf("%q, %q, %v", out, log, err)
	}
	relative, err := filepath.Rel(h.home, bao)
	if err != nil {
		t.Fatal(err)
	}
	out, log, err := h.run("VAULT_BIN=" + relative)
	if !filepath.IsAbs(out) || err != nil {
		t.Errorf("a relative path gives %q, %q, %v", out, log, err)
	}
	for _, bad := range []string{"/no/such/vault", h.home} {
		out, log, err := h.run("VAULT_BIN=" + bad)
		if out != "" || err == nil || !strings.Contains(log, "VAULT_BIN="+bad) {
			t.Errorf("VAULT_BIN=%s: %q, %q, %v", bad, out, log, err)
		}
	}
}

func TestVaultScript_TakesTheVaultOnPathIfItIsRecentEnough(t *testing.T) {
	t.Parallel()
	for said, good := range map[string]bool{
		"Vault v1.16.0 (abc), built 2024-03-25T12:01:32Z": true,
		"Vault v1.21.1, built 2025-11-18T21:04:32Z":       true,
		"Vault v2.0.0":             true,
		"Vault v1.17.0-rc1":        true,
		"Vault v1.15.9 (abc)":      false,
		"Vault v0.99.0":            false,
		"Vault v1.20.0+ent (abc)":  false,
		"OpenBao v2.6.2 (abc)":     false,
		"Vault (version unknown)":  false,
		"HashiCorp Vaulting v1.99": false,
	} {
		t.Run(said, func(t *testing.T) {
			t.Parallel()
			h := newScriptHost(t, true)
			h.program(t, "go", "exit 1") // building would fail
			path := h.program(t, "vault", fmt.Sprintf("echo '%s'", said))
			out, log, err := h.run()
			if good && (out != path+"\n" || log != "" || err != nil) {
				t.Errorf("not taken: %q, %q, %v", out, log, err)
			}
			if !good && (out != "" || err == nil || !strings.Contains(log, path)) {
				t.Errorf("taken, or not said why not: %q, %q, %v", out, log, err)
			}
		})
	}
}

func TestVaultScript_BuildsOnceForAllWhoAsk(t *testing.T) {
	t.Parallel()
	for name, flock := range map[string]bool{"with flock": true, "without flock": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newScriptHost(t, flock)
			paths := make([]string, 4)
			var asking sync.WaitGroup
			for i := range paths {
				asking.Go(func() {
					out, log, err := h.run()
					if err != nil {
						t.Errorf("%v\n%s", err, log)
					}
					paths[i] = strings.TrimSuffix(out, "\n")
				})
			}
			asking.Wait()
			for _, path := range paths {
				if path == "" || path != paths[0] {
					t.Errorf("paths %q", paths)
				}
			}
			if !strings.HasPrefix(paths[0], filepath.Join(h.home, ".cache", "vault-plugin-secrets-portkey")+"/") {
				t.Errorf("built at %s", paths[0])
			}
			if out, log, err := h.run(); out != paths[0]+"\n" || log != "" || err != nil {
				t.Errorf("asked again: %q, %q, %v", out, log, err)
			}
			if n := h.builds(t); n != 1 {
				t.Errorf("built %d times", n)
			}
			for _, pattern := range []string{"vault.tmp.*", "lock.*"} {
				left, err := filepath.Glob(filepath.Join(filepath.Dir(paths[0]), pattern))
				if err != nil || len(left) != 0 {
					t.Errorf("left behind: %v, %v", left, err)
				}
			}
		})
	}
}

func TestVaultScript_TakesOverTheLockOfAKilledBuild(t *testing.T) {
	t.Parallel()
	h := newScriptHost(t, false)
	out, log, err := h.run()
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	dir := filepath.Dir(out)
	gone := exec.Command("/bin/sh", "-c", "exit 0")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(filepath.Join(dir, "vault")), os.Mkdir(filepath.Join(dir, "lock.d"), 0o700),
		os.WriteFile(filepath.Join(dir, "lock.d", "pid"), fmt.Append(nil, gone.Process.Pid), 0o600)); err != nil {
		t.Fatal(err)
	}
	if again, log, err := h.run(); again != out || err != nil {
		t.Errorf("%q, %q, %v", again, log, err)
	}
}

func TestVaultScript_ShowsWhyABuildFailedAndTriesAgain(t *testing.T) {
	t.Parallel()
	h := newScriptHost(t, true)
	fail := filepath.Join(h.home, "fail")
	if err := os.WriteFile(fail, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cache := filepath.Join(h.home, "another cache")
	out, log, err := h.run("PORTKEY_CACHE=" + cache)
	if out != "" || err == nil || !strings.Contains(log, "a mistake") || !strings.Contains(log, "build.log") || !strings.Contains(log, "VAULT_BIN") {
		t.Errorf("%q, %q, %v", out, log, err)
	}
	if err := os.Remove(fail); err != nil {
		t.Fatal(err)
	}
	out, log, err = h.run("PORTKEY_CACHE=" + cache)
	if !strings.HasPrefix(out, cache+"/") || !strings.Contains(log, "building Vault") || err != nil {
		t.Errorf("after the mistake is gone: %q, %q, %v", out, log, err)
	}
}

func TestVaultScript_WithoutGoSaysWhatToDo(t *testing.T) {
	t.Parallel()
	h := newScriptHost(t, true)
	if err := os.Remove(filepath.Join(h.bin, "go")); err != nil {
		t.Fatal(err)
	}
	out, log, err := h.run()
	if out != "" || err == nil || !strings.Contains(log, "Install Go (1.") || !strings.Contains(log, "VAULT_BIN") {
		t.Errorf("%q, %q, %v", out, log, err)
	}
}

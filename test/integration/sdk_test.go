// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// officialSDKs runs the suites of test/clients, each the unmodified package
// with a base URL and a Vault token.
func (s *suite) officialSDKs(t *testing.T) {
	// The token may use the missing virtual key, so that its absence is the
	// plugin's 404; not the denied one, which exists.
	s.root.Write(t, mount+"/keys/sandbox", map[string]any{"provider": "sandbox"})
	s.role(t, mount, "sdk", map[string]any{"models": "up-*"})
	s.role(t, mount, "sdk-sandbox", map[string]any{"key": "sandbox", "models": "sandbox-*"})
	s.role(t, mount, "sdk-denied", nil)
	token := s.appToken(t, mount, "sdk", "sdk-sandbox", "sdk-missing")
	base := func(role string) string { return s.vault.Addr + "/v1/" + proxyPath(mount, role, "v1") }
	common := []string{
		"OPENAI_API_KEY=" + token, "DENIED_BASE_URL=" + base("sdk-denied"), "MISSING_BASE_URL=" + base("sdk-missing"),
		"DENIED_MODEL=a-model-that-is-refused",
	}
	for provider, env := range map[string][]string{
		"ImitatedProvider": {"OPENAI_BASE_URL=" + base("sdk")},
		"Sandbox": {
			"OPENAI_BASE_URL=" + base("sdk-sandbox"), "MODEL=sandbox-small", "EMBEDDING_MODEL=sandbox-embedding",
			"ERROR_MODEL=sandbox-small:fail={status}",
		},
	} {
		env = slices.Concat(common, env)
		t.Run("Node_"+provider, func(t *testing.T) {
			folder := clients(t, "node")
			node, err := exec.LookPath("node")
			if err != nil {
				t.Fatalf("node is missing: run `make test`, which says what it needs (%v)", err)
			}
			if _, err := os.Stat(filepath.Join(folder, "node_modules", "openai")); err != nil {
				t.Fatalf("the Node SDK isn't installed: run `make test`, which does that (%v)", err)
			}
			s.runSuite(t, folder, env, node, "--test")
		})
		t.Run("Python_"+provider, func(t *testing.T) {
			python := os.Getenv("PYTHON_CLIENTS")
			if python == "" {
				t.Fatal("PYTHON_CLIENTS isn't set: run `make test`, which installs the Python SDK and sets it")
			}
			s.runSuite(t, clients(t, "python"), env, python, "-m", "unittest", "-v")
		})
	}
}

func clients(t *testing.T, language string) string {
	t.Helper()
	folder, err := filepath.Abs(filepath.Join("..", "clients", language))
	if err != nil {
		t.Fatal(err)
	}
	return folder
}

// runSuite runs one suite, which exits 0 if all of its cases passed.
func (s *suite) runSuite(t *testing.T, folder string, env []string, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = folder
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "PYTHONDONTWRITEBYTECODE=1"}, env...)
	said, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, said)
	}
	if !bytes.Contains(said, []byte("models")) {
		t.Errorf("the suite names no cases, so it proves nothing:\n%s", said)
	}
	if forms := spellings(s.marker); containsAny(said, forms) {
		t.Errorf("the suite printed the provider's key: %s", around(said, forms))
	}
}

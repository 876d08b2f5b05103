// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"net/http"
	"os"
	"os/exec"
	"testing"

	"vault-plugin-secrets-portkey/test/vaulttest"
)

// TestLimits_OfficialSDKs: what the official SDKs make of refusals. A budget
// that is used up isn't asked for again; what may pass is, when it says so.
func TestLimits_OfficialSDKs(t *testing.T) {
	t.Parallel()
	r := startRig(t, vaulttest.Options{})
	for _, language := range []string{"node", "python"} {
		t.Run(language, func(t *testing.T) {
			keys := map[string]*virtual{
				"SPENT": r.limited(t, "spent-"+language, "requests=1/day"),
				"SMALL": r.limited(t, "small-"+language, "output_tokens=1000/day"),
				"BUSY":  r.limited(t, "busy-"+language, "concurrent=1"),
			}
			spent := keys["SPENT"]
			wantStatus(t, spent.post(t, spent.client(t), ask{model: "up-ok", prompt: 10, cap: 10}), http.StatusOK)
			token := r.vault.Token(t, "spent-"+language, "small-"+language, "busy-"+language)
			env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "PYTHONDONTWRITEBYTECODE=1", "OPENAI_API_KEY=" + token}
			for name, v := range keys {
				env = append(env, name+"_BASE_URL="+r.vault.Addr+"/v1/"+proxyPath(mount, v.name, "v1"))
			}
			name, args := os.Getenv("PYTHON_CLIENTS"), []string{"-m", "unittest", "-v", "limits"}
			if language == "node" {
				name, args = "node", []string{"--test", "limits.js"}
			}
			if name == "" {
				t.Fatal("PYTHON_CLIENTS isn't set: run `make test`, which installs the Python SDK and sets it")
			}
			cmd := exec.CommandContext(t.Context(), name, args...)
			cmd.Dir, cmd.Env = clients(t, language), env
			said, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%v\n%s", err, said)
			}
			// As the plugin counts them: one try each.
			if s := spent.standing(t); s.Total.Refused != 2 || s.Total.Requests != 1 {
				t.Errorf("two calls on a budget that is used up were %+v", s.Total)
			}
			if s := keys["SMALL"].standing(t); s.Total.Refused != 1 || s.Total.Requests != 0 {
				t.Errorf("one call larger than the limit was %+v", s.Total)
			}
			busy := keys["BUSY"]
			busy.settled(t)
			if s := busy.standing(t); s.Total.Refused == 0 || s.Total.Requests < 4 || busy.up.MaxConcurrent() != 1 {
				t.Errorf("calls of which one is allowed at once were %+v, up to %d at once", s.Total, busy.up.MaxConcurrent())
			}
		})
	}
}

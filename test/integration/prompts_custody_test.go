// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"net/http"
	"strings"
	"testing"
)

// promptTraffic calls prompt templates with what could leak a provider key or the
// value of a variable, for the search that comes after it. Vault's audit log has the
// names of variables, and the keys in their values, in clear.
func (s *suite) promptTraffic(t *testing.T) {
	for _, m := range []string{mount, tuned} {
		up, secret := s.own(t, m, "prompted")
		s.role(t, m, "prompted", map[string]any{"key": "prompted"})
		s.root.Write(t, m+"/prompts/searched", map[string]any{
			"virtual_key": "prompted", "variables": "question", "messages": `[{"role":"user","content":"{{question}}"}]`, "locked": "temperature",
		})
		s.vault.Policy(t, m+"-prompted", `path "`+m+`/prompts/searched/*" { capabilities = ["update"] }`)
		app := s.client(s.vault.Token(t, m+"-prompted"))
		given := map[string]any{"question": s.prompt}
		for _, model := range []string{"up-ok", "up-echo", "up-401", "up-500", "up-garbage:http", "up-reset-mid", "up-error-event", "up-no-usage"} {
			for _, stream := range []bool{false, true} {
				if m == tuned && model == "up-echo" {
					continue // its header, which this mount lets pass, shows the prompt in the audit log
				}
				post(t, app, m+"/prompts/searched/completions", map[string]any{"variables": given, "model": model, "stream": stream})
			}
		}
		if got := lastRequest(t, up); got.Key != secret || !strings.Contains(string(got.Body), s.prompt) {
			t.Errorf("the provider was asked with another key, or without the variable: %s", got.Body)
		}
		wantStatus(t, post(t, app, m+"/prompts/searched/render", map[string]any{"variables": given}), http.StatusOK)
		for _, wrong := range []map[string]any{
			{"variables": s.prompt}, {"variables": []any{s.prompt}}, {"variables": given, "virtual_key": s.prompt}, {"variables": given, "temperature": 1},
			{"variables": given, "model": "up-ok", "messages": s.prompt}, {"variables": map[string]any{"question": map[string]any{"a": []any{s.prompt}}}, "max_tokens": s.prompt},
		} {
			post(t, app, m+"/prompts/searched/completions", wrong)
		}
	}
}

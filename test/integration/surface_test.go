// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"net/http"
	"strings"
	"testing"
)

// surface: what people and tools see of the engine.
func (s *suite) surface(t *testing.T) {
	t.Run("PathHelpNamesEachPathFamilyAndReadsWell", s.pathHelp)
	t.Run("OpenAPIDocumentHasThePathsWithResponseSchemas", s.openAPI)
	t.Run("VersionIsThatOfTheRunningPlugin", s.version)
	t.Run("HealthNeedsNoTokenAndStatusDoes", s.health)
	t.Run("ConfigNeedsSudo", s.sudo)
	t.Run("APathThatIsNoneIs404WithGuidance", func(t *testing.T) {
		resp := do(t, s.root, http.MethodGet, mount+"/nothing/here", nil)
		wantStatus(t, resp, http.StatusNotFound)
		if text := strings.Join(resp.Errors(), " "); !strings.Contains(text, "vault path-help "+mount+"/") {
			t.Errorf("the error gives no guidance: %s", resp)
		}
	})
}

// help returns the text of `vault path-help path`.
func (s *suite) help(t *testing.T, path string) string {
	t.Helper()
	text, _ := s.root.Read(t, path+"?help=1").JSON()["help"].(string)
	return text
}

func (s *suite) pathHelp(t *testing.T) {
	all := s.help(t, mount+"/")
	for _, family := range []string{"config", "providers/", "keys/", "rotate", "verify", "roles/", "proxy/", "prompts/", "publish", "render", "usage", "prices/", "status", "metrics", "healthz", "Virtual keys for LLM providers"} {
		if !strings.Contains(all, family) {
			t.Errorf("the mount's help doesn't name %q:\n%s", family, all)
		}
	}
	for path, says := range map[string]string{
		"config": "upstream_timeout", "providers": "catalogue", "providers/openai": "catalogue",
		"keys": "provider keys", "keys/x": "api_key", "keys/x/rotate": "verify", "keys/x/verify": "provider",
		"roles": "virtual keys", "roles/x": "models", "proxy/x": "prompt", "proxy/x/v1/models": "base_url",
		"prompts": "prompt templates", "prompts/x": "virtual_key", "prompts/x@1": "never changes", "prompts/x/versions": "versions", "prompts/x/publish": "Publish", "prompts/x/render": "variables",
		"usage": "group_by", "usage/x": "group_by", "prices": "overrides", "prices/openai": "overrides", "prices/openai/gpt-4o": "built-in table",
		"status": "Version", "metrics": "Prometheus", "healthz": "ok",
	} {
		text := s.help(t, mount+"/"+path)
		if !strings.Contains(text, says) {
			t.Errorf("the help of %s doesn't say %q:\n%s", path, says, text)
		}
		for _, bad := range []string{"<no description>", "No help", "no help", "%!", "TODO"} {
			if strings.Contains(all+text, bad) {
				t.Errorf("the help of %s says %q:\n%s", path, bad, text)
			}
		}
	}
}

func (s *suite) openAPI(t *testing.T) {
	var document struct {
		Paths map[string]map[string]any `json:"paths"`
	}
	if err := s.root.Read(t, "sys/internal/specs/openapi").Decode(&document); err != nil {
		t.Fatal(err)
	}
	for path, methods := range map[string][]string{
		"config": {"get", "post", "delete"}, "providers/": {"get"}, "providers/{id}": {"get"},
		"keys/": {"get"}, "keys/{name}": {"get", "post", "delete"}, "keys/{name}/rotate": {"post"}, "keys/{name}/verify": {"post"},
		"roles/": {"get"}, "roles/{name}": {"get", "post", "delete"}, "status": {"get"}, "healthz": {"get"},
		"usage/": {"get"}, "usage/{role}": {"get"}, "metrics": {"get"},
		"prompts/": {"get"}, "prompts/{name}": {"get", "post", "delete"}, "prompts/{name}@{version}": {"get"}, "prompts/{name}/versions/": {"get"}, "prompts/{name}/publish": {"post"},
		"prices/": {"get"}, "prices/{provider}/": {"get"}, "prices/{provider}/{model}": {"get", "post", "delete"},
		"proxy/{virtual_key}": {"post"}, "proxy/{virtual_key}/{provider_path}": {"get", "post", "delete"},
	} {
		there := document.Paths["/"+mount+"/"+path]
		if there == nil {
			t.Errorf("no path /%s/%s", mount, path)
			continue
		}
		for _, method := range methods {
			operation, _ := there[method].(map[string]any)
			responses, _ := operation["responses"].(map[string]any)
			if operation["summary"] == nil || len(responses) == 0 {
				t.Errorf("%s %s has the summary %v and the responses %v", method, path, operation["summary"], responses)
				continue
			}
			ok, _ := responses["200"].(map[string]any)
			if ok["description"] != nil && (path == "healthz" || path == "metrics" || strings.HasSuffix(path, "{provider_path}")) {
				continue // their answers are none of Vault's shape
			}
			if _, empty := responses["204"]; !empty && ok["content"] == nil {
				t.Errorf("%s %s: its answer has no schema: %v", method, path, responses)
			}
		}
	}
}

func (s *suite) version(t *testing.T) {
	running := s.root.Read(t, "sys/mounts/"+mount).Data()["running_plugin_version"]
	said := s.root.Read(t, mount+"/status").Data()["version"]
	if text, _ := said.(string); running != said || !strings.HasPrefix(text, "v") {
		t.Errorf("Vault says that version %v runs, status says %v", running, said)
	}
}

func (s *suite) health(t *testing.T) {
	nobody := s.client("")
	resp := do(t, nobody, http.MethodGet, mount+"/healthz", nil)
	if resp.Status != http.StatusOK || string(resp.Body) != "ok\n" || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") {
		t.Errorf("healthz without a token: %s", resp)
	}
	for _, path := range []string{"status", "config", "keys/main", "roles/team-a", "prompts/x", "providers/openai", "usage", "usage/team-a", "prices/openai/gpt-4o", "metrics"} {
		wantStatus(t, do(t, nobody, http.MethodGet, mount+"/"+path, nil), http.StatusForbidden)
	}
	data := s.root.Read(t, mount+"/status").Data()
	if data["state"] != "active" || data["problem"] != "" {
		t.Errorf("status: %v", data)
	}
}

func (s *suite) sudo(t *testing.T) {
	s.vault.Policy(t, "config-plain", `path "portkey/config" { capabilities = ["read", "update", "delete"] }`)
	s.vault.Policy(t, "config-sudo", `path "portkey/config" { capabilities = ["read", "update", "delete", "sudo"] }`)
	plain, sudo := s.client(s.vault.Token(t, "config-plain")), s.client(s.vault.Token(t, "config-sudo"))
	wantVaults403(t, do(t, plain, http.MethodGet, mount+"/config", nil))
	wantVaults403(t, post(t, plain, mount+"/config", map[string]any{"upstream_timeout": "3s"}))
	wantVaults403(t, do(t, plain, http.MethodDelete, mount+"/config", nil))
	sudo.Write(t, mount+"/config", map[string]any{"upstream_timeout": "50s"})
	if got := sudo.Read(t, mount+"/config").Data()["upstream_timeout"]; got != 50.0 {
		t.Errorf("upstream_timeout is %v", got)
	}
	sudo.Delete(t, mount+"/config")
}

// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"net/http"
	"testing"
	"time"
)

// access: who may do what with which virtual key, and in which state it is.
func (s *suite) access(t *testing.T) {
	t.Run("AppGetsACompletionWithNothingButItsVaultToken", s.appGetsCompletion)
	t.Run("PolicyOfAnotherVirtualKeyIsVaults403AndTheProviderHearsNothing", s.deniedByPolicy)
	t.Run("AppPolicyOpensNothingButItsVirtualKey", s.appPolicyIsNarrow)
	t.Run("VaultPolicyOnModelRefusesOtherModelsAndNone", s.policyOnModel)
	t.Run("OperatorPolicyManagesVirtualKeysButNotProviderKeys", s.operatorPolicy)
	t.Run("ModelOutsideTheAllowListIs403ThatNamesThoseAllowed", s.deniedModel)
	t.Run("DisabledIs403AndEnablingWorksAtOnce", s.disabled)
	t.Run("ExpiredIs403", s.expired)
	t.Run("DeletedIs404AtOnce", s.deleted)
	t.Run("UnknownVirtualKeyIs404ThatNamesIt", s.unknown)
}

func (s *suite) appGetsCompletion(t *testing.T) {
	app := s.app(t, mount, "team-a", nil)
	wantCompletion(t, post(t, app, chatPath(mount, "team-a"), s.chat("up-ok")))
	got := lastRequest(t, s.up)
	if got.Path != "/v1/chat/completions" || got.Status != http.StatusOK {
		t.Errorf("the provider received %s %s and answered %d", got.Method, got.Path, got.Status)
	}

	// As an SDK sends it: the token is the API key.
	bearer := s.client("")
	req, err := bearer.NewRequest(t.Context(), http.MethodGet, proxyPath(mount, "team-a", "v1/models"), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+app.Token)
	resp, err := bearer.HTTP.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("with the token as Bearer: status %d", resp.StatusCode)
	}

	// As a person does.
	data := post(t, app, mount+"/proxy/team-a", map[string]any{"model": "up-ok", "prompt": s.prompt}).Data()
	if data["content"] != "Hello from the upstream." || data["trace_id"] == "" {
		t.Errorf("vault write %s/proxy/team-a gives %v", mount, data)
	}
}

func (s *suite) deniedByPolicy(t *testing.T) {
	app := s.app(t, mount, "policy-own", nil)
	s.role(t, mount, "policy-other", nil)
	unasked(t, s.up, func() {
		wantVaults403(t, post(t, app, chatPath(mount, "policy-other"), s.chat("up-ok")))
		wantVaults403(t, post(t, app, mount+"/proxy/policy-other", map[string]any{"model": "up-ok", "prompt": "Hi"}))
		wantVaults403(t, do(t, app, http.MethodGet, proxyPath(mount, "policy-other", "v1/models"), nil))
		nobody := s.client(s.vault.Token(t, "no-such-policy"))
		wantVaults403(t, post(t, nobody, chatPath(mount, "policy-own"), s.chat("up-ok")))
		wantVaults403(t, post(t, s.client("hvs.no-such-token"), chatPath(mount, "policy-own"), s.chat("up-ok")))
		wantStatus(t, post(t, s.client(""), chatPath(mount, "policy-own"), s.chat("up-ok")), http.StatusForbidden)
	})
}

func (s *suite) appPolicyIsNarrow(t *testing.T) {
	app := s.app(t, mount, "narrow", nil)
	for _, path := range []string{"keys/main", "roles/narrow", "config", "status", "providers/openai", "usage", "usage/narrow", "prices/openai/gpt-4o", "metrics"} {
		wantVaults403(t, do(t, app, http.MethodGet, mount+"/"+path, nil))
		wantVaults403(t, do(t, app, "LIST", mount+"/"+path, nil))
	}
	unasked(t, s.up, func() {
		wantVaults403(t, do(t, app, http.MethodDelete, proxyPath(mount, "narrow", "v1/models/gpt-4o"), nil))
	})
}

func (s *suite) policyOnModel(t *testing.T) {
	s.role(t, mount, "one-model", nil)
	s.vault.Policy(t, "one-model", policyFile(t, "app-one-model.hcl", mount, "one-model"))
	app := s.client(s.vault.Token(t, "one-model"))
	body := s.chat("gpt-4o-mini")
	body["temperature"] = 0.2
	wantCompletion(t, post(t, app, chatPath(mount, "one-model"), body))
	unasked(t, s.up, func() {
		wantVaults403(t, post(t, app, chatPath(mount, "one-model"), s.chat("gpt-4o")))
		without := s.chat("")
		delete(without, "model")
		wantVaults403(t, post(t, app, chatPath(mount, "one-model"), without))
		wantVaults403(t, post(t, app, proxyPath(mount, "one-model", "v1/embeddings"), map[string]any{"model": "gpt-4o-mini", "input": "x"}))
	})
}

func (s *suite) operatorPolicy(t *testing.T) {
	s.vault.Policy(t, "operator", policyFile(t, "operator.hcl", mount, "team-a"))
	operator := s.client(s.vault.Token(t, "operator"))
	operator.Write(t, mount+"/roles/by-operator", map[string]any{"key": "main", "models": "up-*"})
	operator.Patch(t, mount+"/roles/by-operator", map[string]any{"note": "of the platform team"})
	operator.Read(t, mount+"/roles/by-operator")
	operator.Read(t, mount+"/keys/main")
	operator.Read(t, mount+"/providers/openai")
	operator.Read(t, mount+"/status")
	for _, path := range []string{"roles", "keys", "providers"} {
		if len(operator.List(t, mount+"/"+path)) == 0 {
			t.Errorf("the operator sees no %s", path)
		}
	}
	operator.Delete(t, mount+"/roles/by-operator")

	for _, path := range []string{"keys/main", "keys/new", "keys/main/rotate", "keys/main/verify", "config"} {
		wantVaults403(t, post(t, operator, mount+"/"+path, map[string]any{"provider": "sandbox", "api_key": s.secret()}))
	}
	wantVaults403(t, do(t, operator, http.MethodDelete, mount+"/keys/main", nil))
	s.role(t, mount, "not-for-operators", nil)
	unasked(t, s.up, func() {
		wantVaults403(t, post(t, operator, chatPath(mount, "not-for-operators"), s.chat("up-ok")))
	})
}

func (s *suite) deniedModel(t *testing.T) {
	app := s.app(t, mount, "by-model", map[string]any{"models": "up-ok,gpt-4o*"})
	wantCompletion(t, post(t, app, chatPath(mount, "by-model"), s.chat("gpt-4o-mini")))
	unasked(t, s.up, func() {
		for _, model := range []string{"up-echo", "GPT-4o", "", " up-ok", "up-ok\u0000"} {
			resp := post(t, app, chatPath(mount, "by-model"), s.chat(model))
			if model == "" {
				wantError(t, resp, http.StatusBadRequest, "model_required", "up-ok", "gpt-4o*")
				continue
			}
			wantError(t, resp, http.StatusForbidden, "model_not_allowed", "up-ok", "gpt-4o*", "by-model")
		}
		wantError(t, post(t, app, mount+"/proxy/by-model", map[string]any{"model": "up-echo", "prompt": "Hi"}),
			http.StatusForbidden, "model_not_allowed", "up-echo")
		// Two readers of this body could see two models.
		wantError(t, post(t, app, chatPath(mount, "by-model"), map[string]any{"model": "up-ok", "Model": "up-echo", "messages": []any{}}),
			http.StatusBadRequest, "invalid_request", "odel")
	})
	s.root.Patch(t, mount+"/roles/by-model", map[string]any{"models": "up-echo"})
	wantStatus(t, post(t, app, chatPath(mount, "by-model"), s.chat("up-echo")), http.StatusOK)
	wantError(t, post(t, app, chatPath(mount, "by-model"), s.chat("up-ok")), http.StatusForbidden, "model_not_allowed", "up-echo")
}

func (s *suite) disabled(t *testing.T) {
	app := s.app(t, mount, "off", map[string]any{"enabled": false})
	unasked(t, s.up, func() {
		wantError(t, post(t, app, chatPath(mount, "off"), s.chat("up-ok")), http.StatusForbidden, "virtual_key_disabled", "off")
		wantError(t, do(t, app, http.MethodGet, proxyPath(mount, "off", "v1/models"), nil), http.StatusForbidden, "virtual_key_disabled")
	})
	s.root.Patch(t, mount+"/roles/off", map[string]any{"enabled": true})
	wantCompletion(t, post(t, app, chatPath(mount, "off"), s.chat("up-ok")))
	s.root.Write(t, mount+"/roles/off", map[string]any{"enabled": false})
	wantError(t, post(t, app, chatPath(mount, "off"), s.chat("up-ok")), http.StatusForbidden, "virtual_key_disabled")
}

func (s *suite) expired(t *testing.T) {
	past := time.Now().Add(-time.Hour).UTC().Truncate(time.Second).Format(time.RFC3339)
	app := s.app(t, mount, "expired", map[string]any{"expires_at": past})
	unasked(t, s.up, func() {
		wantError(t, post(t, app, chatPath(mount, "expired"), s.chat("up-ok")), http.StatusForbidden, "virtual_key_expired", "expired", past)
	})
	s.root.Patch(t, mount+"/roles/expired", map[string]any{"ttl": "1h"})
	wantCompletion(t, post(t, app, chatPath(mount, "expired"), s.chat("up-ok")))
}

func (s *suite) deleted(t *testing.T) {
	app := s.app(t, mount, "deleted", nil)
	wantCompletion(t, post(t, app, chatPath(mount, "deleted"), s.chat("up-ok")))
	s.root.Delete(t, mount+"/roles/deleted")
	unasked(t, s.up, func() {
		wantError(t, post(t, app, chatPath(mount, "deleted"), s.chat("up-ok")), http.StatusNotFound, "virtual_key_not_found", "deleted")
	})
}

func (s *suite) unknown(t *testing.T) {
	app := s.client(s.appToken(t, mount, "no-such-role"))
	unasked(t, s.up, func() {
		wantError(t, post(t, app, chatPath(mount, "no-such-role"), s.chat("up-ok")), http.StatusNotFound, "virtual_key_not_found", "no-such-role")
		wantError(t, do(t, app, http.MethodGet, proxyPath(mount, "no-such-role", "v1/models"), nil), http.StatusNotFound, "virtual_key_not_found")
		wantError(t, post(t, app, mount+"/proxy/no-such-role", map[string]any{"model": "up-ok", "prompt": "Hi"}), http.StatusNotFound, "virtual_key_not_found")
	})
}

// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"vault-plugin-secrets-portkey/test/upstream"
	"vault-plugin-secrets-portkey/test/vaulttest"
)

// custody: provider keys are nowhere but below the mounts' keys/, prompts in no
// log, and callers' tokens at no provider, after all that the other tests did.
func (s *suite) custody(t *testing.T) {
	t.Run("AProviderThatEchoesTheKeyIsMasked", s.echoes)
	t.Run("RefusalsOfLimitsHoldNoKeyAndNoPrompt", s.limitRefusals)
	t.Run("WritesThatFailDoNotRepeatTheKey", s.failingWrites)
	t.Run("NoPathOfTheMountsShowsAKeyOrAPrompt", s.walk)
	t.Run("NoAnswerOrErrorHeldAKey", func(t *testing.T) {
		s.witness.mu.Lock()
		defer s.witness.mu.Unlock()
		if s.witness.usual == 0 {
			t.Error("no answer had the provider's usual text, so nothing was looked into")
		}
		for _, leak := range s.witness.leaks {
			t.Errorf("a provider key was answered to %s", leak)
		}
		t.Logf("%d answers searched", s.witness.answers)
	})
	t.Run("NeitherLogNorAuditNorMetricsHoldAKeyOrAPrompt", s.logs)
	t.Run("StorageHoldsKeysBelowTheKeysPrefixAlone", s.storage)
	t.Run("TheGatewaysSecretsAreWhereTheyBelong", s.gatewaySecrets)
	t.Run("NoTokenOfACallerReachedAProvider", s.callersTokens)
}

func (s *suite) echoes(t *testing.T) {
	for _, m := range []string{mount, tuned} {
		up, secret := s.own(t, m, "echo")
		app := s.app(t, m, "echo", map[string]any{"key": "echo"})
		for _, stream := range []bool{false, true} {
			body := s.chat("up-echo")
			if m == tuned {
				// The header is in the audit log in clear, since this mount's
				// tuning lets it pass, and it echoes the prompt.
				body["messages"] = []any{}
			}
			body["stream"] = stream
			resp := post(t, app, chatPath(m, "echo"), body)
			wantStatus(t, resp, http.StatusOK)
			if !bytes.Contains(resp.Body, []byte("Bearer "+strings.Repeat("*", len(secret)))) {
				t.Errorf("the echo of the header isn't there, or isn't masked: %s", resp)
			}
			if header := resp.Header.Get("X-Upstream-Echo"); m == tuned && !strings.Contains(header, "Bearer ***") {
				t.Errorf("the echo in a header isn't there, or isn't masked: %q", header)
			}
			if got := lastRequest(t, up); got.Key != secret {
				t.Error("the provider was asked with another key")
			}
		}
		data := post(t, app, m+"/proxy/echo", map[string]any{"model": "up-echo", "prompt": "Hi"}).Data()
		if content, _ := data["content"].(string); !strings.Contains(content, "Bearer ***") {
			t.Errorf("the CLI's answer: %v", data)
		}
	}
	// OpenAI's 401 shows a part of the key; of one as short as this, all.
	up := s.provider(t, upstream.Options{Keys: []string{"another key"}})
	s.key(t, mount, "short", up, s.marker)
	app := s.app(t, mount, "short", map[string]any{"key": "short"})
	resp := post(t, app, chatPath(mount, "short"), s.chat("up-ok"))
	wantStatus(t, resp, http.StatusUnauthorized)
	if !bytes.Contains(resp.Body, []byte("provided: "+strings.Repeat("*", len(s.marker))+".")) {
		t.Errorf("the provider's 401: %s", resp)
	}
	if got := post(t, s.root, mount+"/keys/short/verify", nil).Data()["result"]; got != "refused" {
		t.Errorf("verify says %v", got)
	}
}

// limitRefusals: what limits answer when they refuse, of which the witness sees
// each, and the counts that they leave in storage, which are searched too.
func (s *suite) limitRefusals(t *testing.T) {
	for _, m := range []string{mount, tuned} {
		up, _ := s.own(t, m, "limited")
		app := s.app(t, m, "limited", map[string]any{"key": "limited"})
		for _, c := range []struct {
			code   string
			status int
			limits []string
			body   map[string]any
		}{
			{"budget_exceeded", http.StatusPaymentRequired, []string{"requests=1/day", "requests=100/hour per entity"}, s.chat("up-ok")},
			{"rate_limit_exceeded", http.StatusTooManyRequests, []string{"requests=1/minute"}, s.chat("up-ok")},
			{"request_exceeds_limit", http.StatusForbidden, []string{"tokens=10/day"}, s.chat("up-ok")},
			{"cost_unbounded", http.StatusForbidden, []string{"usd=1/month"}, with(s.chat("up-ok"), map[string]any{"tools": []any{map[string]any{"type": "web_search"}}})},
			{"model_not_priced", http.StatusForbidden, []string{"usd=1/month"}, s.chat("gpt-4o")},
		} {
			s.root.Patch(t, m+"/roles/limited", map[string]any{"limits": c.limits})
			var resp *vaulttest.Response
			for range 2 {
				resp = post(t, app, chatPath(m, "limited"), c.body)
			}
			wantError(t, resp, c.status, c.code)
			if bytes.Contains(resp.Body, []byte(s.prompt)) {
				t.Errorf("%s shows the prompt: %s", c.code, resp)
			}
		}
		if up.Received() == 0 {
			t.Error("the provider was never asked")
		}
		s.root.Patch(t, m+"/roles/limited", map[string]any{"limits": []string{"requests=100/day"}})
	}
}

// failingWrites puts keys where slips put them.
func (s *suite) failingWrites(t *testing.T) {
	up, _ := s.own(t, mount, "slips")
	for path, bodies := range s.slips() {
		for i, body := range bodies {
			for _, method := range []string{http.MethodPost, http.MethodPatch} {
				resp := do(t, s.root, method, mount+"/"+path, body)
				if resp.Status < 400 || resp.Status >= 500 {
					t.Errorf("%s %s, slip %d: status %d", method, path, i, resp.Status)
				}
				if forms := spellings(s.marker); containsAny(resp.Body, forms) {
					t.Errorf("%s %s, slip %d: the error repeats the key: %s", method, path, i, around(resp.Body, forms))
				}
			}
		}
	}
	app := s.app(t, mount, "slips", map[string]any{"key": "slips"})
	wantCompletion(t, post(t, app, chatPath(mount, "slips"), s.chat("up-ok")))
	if got := s.root.Read(t, mount+"/keys/slips").Data()["version"]; got != 1.0 || lastRequest(t, up).Status != http.StatusOK {
		t.Errorf("the key isn't what it was, but version %v", got)
	}
}

// slips are writes that fail, by path, with a key in each. Not among them are
// those that nobody could know for one: another text where text belongs.
func (s *suite) slips() map[string][]map[string]any {
	key := s.secret
	twice := func(field string, wrap func(string) any) map[string]any {
		k := key()
		return map[string]any{"api_key": k, field: wrap(k)}
	}
	text := func(k string) any { return k }
	inMap := func(k string) any { return map[string]any{"a": k} }
	return map[string][]map[string]any{
		"keys/slips": {
			// The field's name is wrong.
			{"api_keyy": key()}, {"apikey": key(), "api_key": key()},
			// The key is in the wrong form.
			{"api_key": map[string]any{"value": key()}}, {"api_key": []any{key()}}, {"api_key": s.marker[:7]},
			{"api_key": "a " + key()}, {"api_key": key() + "\n" + key()}, {"api_key": "ключ" + key()},
			// It is where it would be shown.
			twice("provider", text), twice("base_url", text), twice("note", text), twice("metadata", inMap), twice("headers", inMap),
			twice("note", func(k string) any { return "it is " + k }),
			{"base_url": "https://example.com/v1?key=" + key(), "api_key": key()}, {"base_url": "https://user:" + key() + "@example.com/v1", "api_key": key()},
			{"base_url": key()}, {"headers": "Authorization=Bearer " + key()}, {"headers": map[string]any{"X-Custom": "a\n" + key()}},
			{"headers": map[string]any{"X-Api-Key": key()}},
			// Something else is wrong.
			{"api_key": key(), "provider": "no-such-provider"}, {"provider": "sandbox", "api_key": key()},
			{"api_key": key(), "base_url": "http://provider.example.com/v1"},
			// It is in a field of another type.
			{"note": map[string]any{"a": key()}}, {"provider": []any{key()}, "api_key": key()}, {"base_url": map[string]any{"a": key()}},
			{"metadata": map[string]any{"a": []any{key()}}},
		},
		"keys/slips/rotate": {
			{"api_keyy": key()}, {"api_key": []any{key()}}, {"verify": key(), "api_key": key()}, {"api_key": key(), "verify": true},
		},
		"keys/none/rotate": {{"api_key": key()}},
		"roles/slips": {
			{"key": "main", "limits": key()}, {"key": "main", "modelss": key()}, {"key": "main", "ttl": key()},
			{"key": "main", "limits": []any{key()}}, {"key": "main", "limits": "usd=" + key() + "/month"}, {"key": "main", "limits": "usd=1/" + key()},
			{"key": "main", "limits": []any{map[string]any{"unit": key(), "max": 1}}},
			{"key": "main", "limits": `[{"unit":"usd","max":"` + key() + `","window":"month"}]`},
			{"key": "main", "limits": "usd=1/month per " + key()}, {"key": "main", "limits": "usd=1/month " + key()},
			{"key": "main", "enforcement": key()}, {"key": "main", "alert_thresholds": key()}, {"key": "main", "min_output_tokens": key()},
			{"key": "main", "lower_cap": key()}, {"key": "main", "allow_unbounded": key()},
			{"key": "main", "default_params": key()}, {"key": "main", "enabled": key()}, {"key": "main", "note": []any{key(), 1}},
		},
		// A virtual key with limits, which limitRefusals has made.
		"usage/limited/reset":     {{"limit": key()}, {"entity": "a/" + key()}, {"limits": key()}, {"limit": "usd=1/" + key()}},
		"usage/limited/write-off": {{"limit": key()}, {"entity": "a " + key()}, {"unconfirmed": key()}, {"limit": []any{key()}}},
		"prices/openai/slips": {
			{"input": key(), "output": "1"}, {"per_request": key()}, {"inputs": key()}, {"input": map[string]any{"a": key()}},
			{"context_window": key(), "input": "1"},
		},
		"config/gateway": {
			{"address": key()}, {"address": "127.0.0.1:0", "vault_address": key()}, {"tls_keyy": key()},
			{"address": "127.0.0.1:0", "vault_address": "http://127.0.0.1:1", "tls_key": key()},
			{"address": "127.0.0.1:0", "vault_address": "http://127.0.0.1:1", "tls_certificate": key()},
			{"address": "127.0.0.1:0", "vault_address": "http://127.0.0.1:1", "vault_ca": key()},
			{"address": "127.0.0.1:0", "vault_address": "http://127.0.0.1:1", "public_url": key()},
			{"address": "127.0.0.1:0", "vault_address": "http://127.0.0.1:1", "redirect": key(), "grant_fields": key()},
			{"address": "127.0.0.1:0", "vault_address": "http://127.0.0.1:1", "allowed_origins": key()},
			{"address": "127.0.0.1:0", "vault_address": "http://127.0.0.1:1", "grant_ttl": key()},
		},
		"config/gateway/drain": {{"timeout": key()}, {"cancel": key()}},
		"config":               {{"upstream_timeout": key()}, {"time_zone": key()}, {"default_output_cap": key()}, {"inline_max_concurrent": key()}, {"allowed_hosts": key()}},
	}
}

// walk reads and lists every path of the mounts; the witness looks at it.
func (s *suite) walk(t *testing.T) {
	for _, m := range []string{mount, tuned} {
		paths := []string{"config", "config/gateway", "creds", "status", "metrics", "healthz", "keys", "roles", "providers", "proxy", "usage", "prices", ""}
		for _, family := range []string{"keys", "roles", "providers"} {
			names := s.root.List(t, m+"/"+family)
			if len(names) == 0 {
				t.Errorf("nothing to walk at %s/%s", m, family)
			}
			for _, name := range names {
				paths = append(paths, family+"/"+name, family+"/"+name+"/rotate", family+"/"+name+"/verify")
			}
		}
		paths = append(paths, s.usageAndPrices(t, m)...)
		for _, path := range paths {
			for _, ask := range []string{"", "?list=true", "?help=1", "?group_by=day,model,entity"} {
				if resp := do(t, s.root, http.MethodGet, m+"/"+path+ask, nil); bytes.Contains(resp.Body, []byte(s.prompt)) {
					t.Errorf("%s%s shows a prompt", path, ask)
				}
			}
			do(t, s.root, "LIST", m+"/"+path, nil)
		}
	}
	s.root.Read(t, "sys/internal/specs/openapi")
}

// usageAndPrices are the paths with what was spent, and with its prices.
func (s *suite) usageAndPrices(t *testing.T, mount string) (paths []string) {
	t.Helper()
	roles, providers := s.root.List(t, mount+"/usage"), s.root.List(t, mount+"/prices")
	if len(roles) == 0 || len(providers) == 0 {
		t.Errorf("%s has usage of %q and prices of %q", mount, roles, providers)
	}
	for _, role := range roles {
		paths = append(paths, "usage/"+role)
	}
	for _, provider := range providers {
		paths = append(paths, "prices/"+provider)
		for _, model := range s.root.List(t, mount+"/prices/"+provider) {
			paths = append(paths, "prices/"+provider+model)
		}
	}
	return paths
}

func (s *suite) logs(t *testing.T) {
	app := s.app(t, tuned, "audited", nil)
	wantCompletion(t, post(t, app, chatPath(tuned, "audited"), s.chat("up-ok")))
	metrics := s.root.Read(t, "sys/metrics?format=prometheus").Body
	prompt := [][]byte{[]byte(s.prompt)}
	for name, c := range map[string]struct {
		text    []byte
		control string
	}{
		"Vault's log": {s.vault.Log(), "[TRACE]"},
		"audit log":   {s.vault.AuditLog(), `"path":"` + chatPath(tuned, "audited") + `"`},
		"metrics":     {metrics, "vault_core_unsealed"},
	} {
		if !bytes.Contains(c.text, []byte(c.control)) {
			t.Errorf("the %s doesn't have %q, so it isn't what was to be searched:\n%.2000s", name, c.control, c.text)
		}
		for what, forms := range map[string][][]byte{"a provider key": spellings(s.marker), "a prompt": prompt} {
			if containsAny(c.text, forms) {
				t.Errorf("the %s has %s: %s", name, what, around(c.text, forms))
			}
		}
	}
	// What the recommended tuning shows is the model, and nothing else.
	shown := auditedBody(t, s.vault.AuditLog(), chatPath(tuned, "audited"))
	if messages := fmt.Sprint(shown["messages"]); shown["model"] != "up-ok" || !strings.Contains(messages, "hmac-sha256:") {
		t.Errorf("the audit log has the body %v, expected the model in clear and the messages not", shown)
	}
}

// auditedBody returns what the audit log has of the body of the last request
// to path.
func auditedBody(t *testing.T, log []byte, path string) map[string]any {
	t.Helper()
	var body map[string]any
	for line := range bytes.Lines(log) {
		var entry struct {
			Request struct {
				Path string
				Data map[string]any
			}
		}
		if err := json.Unmarshal(line, &entry); err != nil {
			t.Fatalf("the audit log has the line %q: %v", line, err)
		}
		if entry.Request.Path == path {
			body = entry.Request.Data
		}
	}
	return body
}

func (s *suite) storage(t *testing.T) {
	var allowed []string
	for _, m := range []string{mount, tuned} {
		uuid, _ := s.root.Read(t, "sys/mounts/"+m).Data()["uuid"].(string)
		allowed = append(allowed, "logical/"+uuid+"/keys/")
	}
	forms, prompt, gone := spellings(s.marker), []byte(s.prompt), s.outdatedKeys(t)
	found := map[string]int{}
	all := s.vault.RawKeys(t, "")
	for _, m := range allowed {
		for _, family := range []string{"local/usage/", "local/ledger/accounts/", "prices/", "roles/"} {
			prefix := strings.TrimSuffix(m, "keys/") + family
			if !slices.ContainsFunc(all, func(path string) bool { return strings.HasPrefix(path, prefix) }) {
				t.Errorf("storage has nothing at %s, so the search isn't of all that there is", prefix)
			}
		}
	}
	for _, path := range all {
		value := s.vault.RawRead(t, path)
		if bytes.Contains(value, prompt) {
			t.Errorf("storage has a prompt at %s", path)
		}
		if containsAny(value, gone) {
			t.Errorf("storage has a key that was rotated or deleted at %s", path)
		}
		if !containsAny(value, forms) {
			continue
		}
		i := slices.IndexFunc(allowed, func(prefix string) bool { return strings.HasPrefix(path, prefix) })
		if i < 0 {
			t.Errorf("storage has a provider key at %s: %s", path, around(value, forms))
			continue
		}
		found[allowed[i]]++
	}
	// Where they must be: so the search does find them.
	for i, m := range []string{mount, tuned} {
		if found[allowed[i]] == 0 {
			t.Errorf("no provider key of %s was found in storage, so the search proves nothing", m)
		}
	}
	t.Logf("%d entries searched", len(all))
}

// outdatedKeys returns what is distinctive of a key that was rotated and of one
// that was deleted.
func (s *suite) outdatedKeys(t *testing.T) [][]byte {
	t.Helper()
	_, rotated := s.own(t, mount, "outdated")
	deleted := s.secret()
	s.root.Write(t, mount+"/keys/outdated/rotate", map[string]any{"api_key": deleted})
	s.root.Delete(t, mount+"/keys/outdated")
	var distinctive [][]byte
	for _, key := range []string{rotated, deleted} {
		word, _, _ := strings.Cut(key, "+") // what JSON doesn't escape
		distinctive = append(distinctive, []byte(word))
	}
	return distinctive
}

func (s *suite) callersTokens(t *testing.T) {
	var tokens [][]byte
	for _, token := range s.tokens {
		if token != "" {
			tokens = append(tokens, []byte(token))
		}
	}
	searched := 0
	for _, up := range s.upstreams {
		for _, r := range up.Requests() {
			searched++
			var text bytes.Buffer
			text.WriteString(r.Method + " " + r.Path + "?" + r.RawQuery + "\n")
			_ = r.Header.Write(&text) // a buffer takes all
			text.Write(r.Body)
			if containsAny(text.Bytes(), tokens) {
				t.Errorf("a caller's token reached the provider: %s", around(text.Bytes(), tokens))
			}
			for name := range r.Header {
				if strings.HasPrefix(name, "X-Vault-") || strings.HasPrefix(name, "X-Portkey-") || name == "Cookie" {
					t.Errorf("the header %s reached the provider", name)
				}
			}
		}
	}
	if searched == 0 || len(tokens) == 0 {
		t.Errorf("%d requests were searched for %d tokens", searched, len(tokens))
	}
	t.Logf("%d requests searched for %d tokens", searched, len(tokens))
}

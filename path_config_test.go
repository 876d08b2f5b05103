// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

func TestConfig_DefaultsAreShownAndRestored(t *testing.T) {
	m := newMount(t, Options{})
	defaults := map[string]any{
		"upstream_timeout": 60, "inline_max_concurrent": 64, "inline_max_answer_bytes": 32 << 20,
		"allowed_upstream_hosts": []string{}, "plaintext_upstream_hosts": []string{},
		"default_output_cap": 16_384, "time_zone": "UTC",
	}
	wantFields(t, m.read("config"), defaults)
	m.write("config", map[string]any{"upstream_timeout": "30s", "inline_max_concurrent": 3, "allowed_upstream_hosts": "*.example.com, api.openai.com"})
	m.write("config", map[string]any{"inline_max_answer_bytes": 4096, "default_output_cap": 100, "time_zone": "Europe/Berlin"})
	wantFields(t, m.read("config"), map[string]any{
		"upstream_timeout": 30, "inline_max_concurrent": 3, "inline_max_answer_bytes": 4096, "default_output_cap": 100, "time_zone": "Europe/Berlin",
		"allowed_upstream_hosts": []string{"*.example.com", "api.openai.com"},
	})
	m.write("config", map[string]any{"upstream_timeout": 0, "inline_max_concurrent": 0, "inline_max_answer_bytes": 0, "allowed_upstream_hosts": "", "default_output_cap": 0, "time_zone": ""})
	wantFields(t, m.read("config"), defaults)
	m.write("config", map[string]any{"inline_max_concurrent": 3})
	m.delete("config")
	wantFields(t, m.read("config"), defaults)
}

func TestConfig_BadInputIsRefusedAndChangesNothing(t *testing.T) {
	m := newMount(t, Options{})
	m.write("config", map[string]any{"inline_max_concurrent": 3})
	for _, c := range []struct {
		field string
		value any
		want  string
	}{
		{"upstream_timeout", "81s", "between 1s and 1m20s"},
		{"upstream_timeout", -1, "upstream_timeout must be"},
		{"upstream_timeout", "300ms", "shorter than a second"},
		{"inline_max_concurrent", -1, "between 1 and 4096"},
		{"inline_max_concurrent", 4097, "between 1 and 4096"},
		{"inline_max_concurrent", "many", "inline_max_concurrent"},
		{"inline_max_answer_bytes", 1023, "between 1024 and"},
		{"inline_max_answer_bytes", 1e300, "inline_max_answer_bytes"},
		{"allowed_upstream_hosts", "https://api.openai.com", "without scheme or path"},
		{"allowed_upstream_hosts", "me@api.openai.com", "write a host name"},
		{"plaintext_upstream_hosts", "*", "write a host name"},
		{"default_output_cap", -1, "between 1 and 10000000 tokens"},
		{"default_output_cap", 10_000_001, "between 1 and 10000000 tokens"},
		{"default_output_cap", "many", "default_output_cap"},
		{"time_zone", "Europe/Berlln", "Europe/Berlin or UTC"},
		{"time_zone", "Local", "no time zone"},
		{"time_zone", "../../etc/passwd", "no time zone"},
		{"time_zone", strings.Repeat("x", 1000), "no time zone"},
		{"upstream_timeuot", 5, `did you mean "upstream_timeout"`},
	} {
		m.refused(logical.UpdateOperation, "config", map[string]any{c.field: c.value}, c.want)
	}
	wantFields(t, m.read("config"), map[string]any{"inline_max_concurrent": 3, "upstream_timeout": 60, "default_output_cap": 16_384, "time_zone": "UTC"})
}

func TestConfig_PlainHTTPIsOnlyForLoopbackAndNamedHosts(t *testing.T) {
	m := newMount(t, Options{})
	key := func(base string) map[string]any {
		return map[string]any{"provider": "openai-compatible", "base_url": base, "api_key": secretA}
	}
	for _, base := range []string{"http://localhost:8000/v1", "http://127.0.0.1/v1", "http://127.9.9.9:1/v1", "http://[::1]:8000/v1", "https://llm.example.com/v1"} {
		m.write("keys/ok", key(base))
	}
	for _, base := range []string{
		"http://llm.example.com/v1", "http://10.0.0.5:8000/v1", "http://localhost.example.com/v1", "http://127.0.0.1.example.com/v1", "http://[2001:db8::1]/v1",
	} {
		m.refused(logical.UpdateOperation, "keys/a", key(base), "must be https", "plaintext_upstream_hosts=")
	}
	m.write("config", map[string]any{"plaintext_upstream_hosts": "10.0.0.5:8000,*.Internal"})
	m.write("keys/a", key("http://10.0.0.5:8000/v1"))
	m.write("keys/b", key("http://LLM.internal:9000/v1"))
	m.refused(logical.UpdateOperation, "keys/c", key("http://10.0.0.5:8001/v1"), "must be https")
	m.refused(logical.UpdateOperation, "keys/c", key("http://internal/v1"), "must be https")
}

func TestConfig_AllowedUpstreamHostsAreTheOnlyOnes(t *testing.T) {
	up := &upstream{}
	m := newMount(t, Options{Transport: up})
	m.write("keys/openai", openaiKey(secretA))
	m.write("keys/sandbox", map[string]any{"provider": "sandbox"})
	m.write("roles/r", map[string]any{"key": "openai"})
	m.write("roles/s", map[string]any{"key": "sandbox"})
	wantWarning(t, m.write("config", map[string]any{"allowed_upstream_hosts": "*.example.com"}), `provider key "openai" can't be used`)

	m.chat("r", "m").want(t, http.StatusForbidden, "upstream_not_allowed")
	m.chat("s", "m").want(t, http.StatusOK, "") // is no host
	m.refused(logical.UpdateOperation, "keys/groq", map[string]any{"provider": "groq", "api_key": secretA}, "allowed_upstream_hosts (*.example.com)")
	m.refused(logical.UpdateOperation, "keys/x", map[string]any{"provider": "vllm", "base_url": "http://localhost:1/v1"}, "allowed_upstream_hosts")
	m.write("keys/own", map[string]any{"provider": "vllm", "base_url": "https://llm.EXAMPLE.com/v1", "api_key": secretA})
	for _, sent := range up.requests() {
		if sent.URL != "sandbox://sandbox/v1/chat/completions" {
			t.Errorf("sent to %s", sent.URL)
		}
	}
	m.delete("config")
	m.chat("r", "m").want(t, http.StatusOK, "")
}

func TestConfig_StoredIsSaidEvenIfTheKeysCannotBeChecked(t *testing.T) {
	storage := &faultyStorage{Storage: &logical.InmemStorage{}}
	m := newMountOn(t, Options{}, storage)
	storage.failLists(errors.New("no list today"))
	wantWarning(t, m.write("config", map[string]any{"inline_max_concurrent": 3}), "the settings are stored", "no list today")
	wantFields(t, m.read("config"), map[string]any{"inline_max_concurrent": 3})
}

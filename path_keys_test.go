// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// openaiKey is what makes a provider key of OpenAI.
func openaiKey(secret string) map[string]any {
	return map[string]any{"provider": "openai", "api_key": secret}
}

func TestKey_ReadShowsAllButTheSecret(t *testing.T) {
	c := newClock()
	m := newMount(t, Options{Now: c.now})
	m.write("keys/a", map[string]any{
		"provider": "openai", "api_key": secretA, "organization": "org-1", "headers": "X-Team=blue",
		"note": "for the team", "metadata": map[string]any{"owner": "jo"},
	})
	data := m.read("keys/a")
	wantFields(t, data, map[string]any{
		"provider": "openai", "base_url": "https://api.openai.com/v1", "organization": "org-1",
		"headers": map[string]any{"X-Team": "blue"}, "note": "for the team", "metadata": map[string]any{"owner": "jo"},
		"fingerprint": fingerprintA, "version": 1, "created_at": "2026-05-01T12:00:00Z", "rotated_at": "2026-05-01T12:00:00Z",
	})
	if _, shown := data["api_key"]; shown {
		t.Error("api_key is shown")
	}
}

func TestKey_WithoutSecretHasNoFingerprint(t *testing.T) {
	m := newMount(t, Options{})
	m.write("keys/a", map[string]any{"provider": "sandbox"})
	wantFields(t, m.read("keys/a"), map[string]any{"fingerprint": "", "version": 1})
}

func TestKey_DeletedIsGoneAndMissingIsNothing(t *testing.T) {
	m := newMount(t, Options{})
	m.write("keys/a", openaiKey(secretA))
	m.delete("keys/a")
	if data := m.read("keys/a"); data != nil {
		t.Errorf("deleted, yet read: %v", data)
	}
	m.delete("keys/a") // once more is no error
	m.refused(logical.PatchOperation, "keys/a", map[string]any{"note": "x"}, "create it first")
	if len(entries(t, m.storage)) != startWrites {
		t.Errorf("storage still holds %v", entries(t, m.storage))
	}
}

func TestKey_VersionAndRotationTimeChangeOnlyWithTheSecret(t *testing.T) {
	c := newClock()
	m := newMount(t, Options{Now: c.now})
	m.write("keys/a", openaiKey(secretA))
	for _, step := range []struct {
		op   logical.Operation
		data map[string]any
		want map[string]any
	}{
		{logical.UpdateOperation, map[string]any{"note": "n"}, map[string]any{"version": 1, "rotated_at": "2026-05-01T12:00:00Z", "note": "n"}},
		{logical.UpdateOperation, openaiKey(secretA), map[string]any{"version": 1, "rotated_at": "2026-05-01T12:00:00Z", "note": "n"}},
		{logical.PatchOperation, map[string]any{"note": nil}, map[string]any{"version": 1, "rotated_at": "2026-05-01T12:00:00Z", "note": ""}},
		{logical.UpdateOperation, openaiKey(secretB), map[string]any{"version": 2, "rotated_at": "2026-05-01T16:00:00Z", "fingerprint": fingerprintB}},
		{logical.PatchOperation, map[string]any{"api_key": secretA}, map[string]any{"version": 3, "rotated_at": "2026-05-01T17:00:00Z", "fingerprint": fingerprintA}},
	} {
		c.advance(time.Hour)
		m.must(step.op, "keys/a", step.data)
		wantFields(t, m.read("keys/a"), step.want)
	}
	wantFields(t, m.read("keys/a"), map[string]any{"created_at": "2026-05-01T12:00:00Z"})
}

func TestKey_PatchMergesMapsAndNullRemoves(t *testing.T) {
	m := newMount(t, Options{})
	m.write("keys/a", map[string]any{
		"provider": "openai", "api_key": secretA, "organization": "org-1", "project": "p-1", "note": "n",
		"metadata": map[string]any{"a": "1", "b": "2"}, "headers": map[string]any{"X-A": "1"},
	})
	m.patch("keys/a", map[string]any{"organization": nil, "metadata": map[string]any{"b": nil, "c": "3"}})
	data := m.read("keys/a")
	wantFields(t, data, map[string]any{
		"metadata": map[string]any{"a": "1", "c": "3"}, "headers": map[string]any{"X-A": "1"}, "note": "n", "project": "p-1", "fingerprint": fingerprintA,
	})
	if _, still := data["organization"]; still {
		t.Error("null did not remove the organization")
	}
	// A write replaces a map, and an empty value clears a field.
	m.write("keys/a", map[string]any{"metadata": map[string]any{"d": "4"}, "project": "", "headers": map[string]any{}})
	data = m.read("keys/a")
	wantFields(t, data, map[string]any{"metadata": map[string]any{"d": "4"}, "headers": map[string]any{}})
	if _, still := data["project"]; still {
		t.Error("an empty value did not clear the project")
	}
}

func TestKey_WhiteSpaceAroundTheSecretIsRemovedWithAWarning(t *testing.T) {
	m := newMount(t, Options{})
	wantWarning(t, m.write("keys/a", openaiKey(secretA+"\n")), "white space")
	wantFields(t, m.read("keys/a"), map[string]any{"fingerprint": fingerprintA})
}

func TestKey_BadInputIsRefusedAndNeverQuotesTheSecret(t *testing.T) {
	m := newMount(t, Options{})
	m.write("keys/old", openaiKey(secretB))
	with := func(more map[string]any) map[string]any {
		data := openaiKey(secretA)
		for name, v := range more {
			data[name] = v
		}
		return data
	}
	many := map[string]any{}
	for i := range maxMetadataLen + 1 {
		many[fmt.Sprint("k", i)] = "v"
	}
	for name, c := range map[string]struct {
		data map[string]any
		want string
	}{
		"no provider":                {map[string]any{"api_key": secretA}, "provider is missing"},
		"unknown provider":           {with(map[string]any{"provider": "opnai"}), `did you mean "openai"`},
		"no secret":                  {map[string]any{"provider": "openai"}, "needs api_key"},
		"secret in a list":           {map[string]any{"provider": "openai", "api_key": []any{secretA, secretB}}, "api_key must be text"},
		"secret in a map":            {map[string]any{"provider": "openai", "api_key": map[string]any{"key": secretA}}, "api_key must be text"},
		"secret in the note":         {with(map[string]any{"note": "it is " + secretA}), "note or metadata holds the api_key"},
		"secret in metadata":         {with(map[string]any{"metadata": map[string]any{"a": secretA}}), "note or metadata holds the api_key"},
		"secret names metadata":      {with(map[string]any{"metadata": map[string]any{secretA: "a"}}), "note or metadata holds the api_key"},
		"secret as provider":         {with(map[string]any{"provider": secretA}), "provider holds the api_key"},
		"secret in a note's map":     {with(map[string]any{"note": map[string]any{"a": secretA}}), "note must be text"},
		"secret in metadata's map":   {with(map[string]any{"metadata": map[string]any{"a": []any{secretA, 1}}}), "metadata must be"},
		"secret in metadata's list":  {with(map[string]any{"metadata": []any{secretA}}), "metadata must be"},
		"secret for none":            {map[string]any{"provider": "sandbox", "api_key": secretA}, "takes no api_key"},
		"secret with a line break":   {openaiKey(secretA + "\n" + secretB), "api_key holds"},
		"secret in base_url":         {with(map[string]any{"base_url": "https://example.com/" + secretA}), "base_url holds the api_key"},
		"secret in a query":          {with(map[string]any{"base_url": "https://example.com/v1?key=" + secretA}), "query"},
		"secret in a header":         {with(map[string]any{"headers": map[string]any{"X-A": secretA}}), "holds the api_key"},
		"secret in a field":          {with(map[string]any{"organization": secretA + "!"}), "organization"},
		"misspelt field":             {with(map[string]any{"base_ulr": "https://example.com"}), `did you mean "base_url"`},
		"misspelt secret":            {map[string]any{"provider": "openai", "apikey": secretA}, `did you mean "api_key"`},
		"field of another provider":  {with(map[string]any{"region": "us-west-2"}), "region"},
		"credentials header":         {with(map[string]any{"headers": map[string]any{"Authorization": "x"}}), "credentials"},
		"note too long":              {with(map[string]any{"note": strings.Repeat("é", maxNoteLen)}), "note is"},
		"too much metadata":          {with(map[string]any{"metadata": many}), "metadata has"},
		"metadata value too long":    {with(map[string]any{"metadata": map[string]any{"a": strings.Repeat("x", maxValueLen+1)}}), "metadata"},
		"metadata without a name":    {with(map[string]any{"metadata": map[string]any{"": "x"}}), "metadata"},
		"metadata that is no map":    {with(map[string]any{"metadata": 5}), "metadata"},
		"base_url of another scheme": {with(map[string]any{"base_url": "file:///etc/passwd"}), "base_url"},
	} {
		t.Run(name, func(t *testing.T) {
			m.t = t
			m.refused(logical.UpdateOperation, "keys/a", c.data, c.want)
			if m.read("keys/a") != nil {
				t.Error("refused, yet stored")
			}
		})
	}
	m.t = t
	m.refused(logical.UpdateOperation, "keys/"+strings.Repeat("n", maxNameLen+1), openaiKey(secretA), "the name is")
	m.write("keys/"+strings.Repeat("n", maxNameLen), openaiKey(secretA))
	wantFields(t, m.read("keys/old"), map[string]any{"fingerprint": fingerprintB, "version": 1})
}

func TestKey_DestinationChangesOnlyWithTheSecret(t *testing.T) {
	for name, c := range map[string]struct{ key, change map[string]any }{
		"provider":                    {openaiKey(secretA), map[string]any{"provider": "groq"}},
		"base_url":                    {openaiKey(secretA), map[string]any{"base_url": "https://evil.example.com/v1"}},
		"base_url's port":             {map[string]any{"provider": "vllm", "base_url": "https://llm.example.com/v1", "api_key": secretA}, map[string]any{"base_url": "https://llm.example.com:8443/v1"}},
		"base_url's path":             {map[string]any{"provider": "vllm", "base_url": "https://llm.example.com/v1", "api_key": secretA}, map[string]any{"base_url": "https://llm.example.com/other"}},
		"provider with same base_url": {map[string]any{"provider": "vllm", "base_url": "https://llm.example.com/v1", "api_key": secretA}, map[string]any{"provider": "openai-compatible"}},
		"region":                      {map[string]any{"provider": "bedrock", "region": "us-west-2", "api_key": secretA}, map[string]any{"region": "us-east-1"}},
		"resource":                    {map[string]any{"provider": "azure-openai", "resource": "mine", "api_key": secretA}, map[string]any{"resource": "theirs"}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, op := range []logical.Operation{logical.UpdateOperation, logical.PatchOperation} {
				m := newMount(t, Options{})
				m.write("keys/a", c.key)
				before := m.read("keys/a")
				m.refused(op, "keys/a", c.change, "give api_key again")
				if now := m.read("keys/a"); !reflect.DeepEqual(now, before) {
					t.Fatalf("refused, yet now %v", now)
				}
				changed := map[string]any{"api_key": secretB}
				for field, v := range c.change {
					changed[field] = v
				}
				m.must(op, "keys/a", changed)
				if now := m.read("keys/a"); reflect.DeepEqual(now["base_url"], before["base_url"]) && now["provider"] == before["provider"] {
					t.Fatalf("with api_key, yet the destination stays: %v", now)
				}
			}
		})
	}
}

// Where the secret is optional, an empty or absent one must not count as brought.
func TestKey_NoSpellingOfAnAbsentSecretLeadsTheStoredOneElsewhere(t *testing.T) {
	for _, op := range []logical.Operation{logical.UpdateOperation, logical.PatchOperation} {
		for name, absent := range map[string]any{"null": nil, "empty": "", "blank": "  "} {
			t.Run(fmt.Sprint(op, " ", name), func(t *testing.T) {
				up := &upstream{}
				m := newMount(t, Options{Transport: up})
				m.write("keys/a", map[string]any{"provider": "openai-compatible", "base_url": "https://good.example.com/v1", "api_key": secretA})
				m.write("roles/r", map[string]any{"key": "a"})
				// Refused or not, the secret must not be led elsewhere.
				_, _ = m.call(op, "keys/a", map[string]any{"base_url": "https://evil.example.com/v1", "api_key": absent})
				m.chat("r", "m")
				if sent := up.last(t); strings.Contains(sent.URL, "evil") && strings.Contains(fmt.Sprint(sent.Header), secretA) {
					t.Errorf("the stored secret was sent to %s", sent.URL)
				}
			})
		}
	}
}

func TestKey_PatchWithNullRemovesTheSecret(t *testing.T) {
	m := newMount(t, Options{})
	m.write("keys/a", map[string]any{"provider": "openai-compatible", "base_url": "https://llm.example.com/v1", "api_key": secretA})
	m.patch("keys/a", map[string]any{"api_key": nil})
	wantFields(t, m.read("keys/a"), map[string]any{"fingerprint": "", "version": 2})
	m.write("keys/b", openaiKey(secretA))
	m.refused(logical.PatchOperation, "keys/b", map[string]any{"api_key": nil}, "needs api_key")
	wantFields(t, m.read("keys/b"), map[string]any{"fingerprint": fingerprintA, "version": 1})
}

func TestKey_ListPagesAndShowsDetails(t *testing.T) {
	m := newMount(t, Options{})
	for _, name := range []string{"b", "a", "c"} {
		m.write("keys/"+name, openaiKey(secretA))
	}
	resp := m.must(logical.ListOperation, "keys/", nil)
	if got := resp.Data["keys"]; !reflect.DeepEqual(got, []string{"a", "b", "c"}) {
		t.Errorf("listed %v", got)
	}
	info := overJSON(t, resp.Data["key_info"].(map[string]any))
	wantFields(t, info["b"].(map[string]any), map[string]any{"provider": "openai", "fingerprint": fingerprintA, "version": 1})
	resp = m.must(logical.ListOperation, "keys/", map[string]any{"after": "a", "limit": 1})
	if got := resp.Data["keys"]; !reflect.DeepEqual(got, []string{"b"}) {
		t.Errorf("the page behind a is %v", got)
	}
	if resp := m.must(logical.ListOperation, "roles/", nil); len(resp.Data) != 0 {
		t.Errorf("there are no roles, yet listed: %v", resp.Data)
	}
}

func TestKey_ListNamesDamagedEntriesAndShowsTheOthers(t *testing.T) {
	m := newMount(t, Options{})
	m.write("keys/good", openaiKey(secretA))
	if err := m.storage.Put(t.Context(), &logical.StorageEntry{Key: "keys/bad", Value: []byte(`{"api_key":"` + secretB)}); err != nil {
		t.Fatal(err)
	}
	resp := m.must(logical.ListOperation, "keys/", nil)
	if got := resp.Data["keys"]; !reflect.DeepEqual(got, []string{"bad", "good"}) {
		t.Errorf("listed %v", got)
	}
	wantWarning(t, resp, "keys/bad is damaged")
	if info := resp.Data["key_info"].(map[string]any); info["good"] == nil {
		t.Errorf("details: %v", info)
	}
	m.delete("keys/bad") // the way out
}

func TestKey_InUseCannotBeDeletedAndTheErrorNamesTheRoles(t *testing.T) {
	m := newMount(t, Options{})
	m.write("keys/a", openaiKey(secretA))
	m.write("keys/b", openaiKey(secretB))
	m.write("roles/one", map[string]any{"key": "a"})
	m.write("roles/two", map[string]any{"key": "a"})
	m.refused(logical.DeleteOperation, "keys/a", nil, "one, two", "delete them or give them another key")
	m.write("roles/one", map[string]any{"key": "b"})
	m.refused(logical.DeleteOperation, "keys/a", nil, "(two)")
	m.delete("roles/two")
	m.delete("keys/a")
	m.refused(logical.DeleteOperation, "keys/b", nil, "(one)")

	for i := range 25 {
		m.write(fmt.Sprintf("roles/r%02d", i), map[string]any{"key": "b"})
	}
	m.refused(logical.DeleteOperation, "keys/b", nil, "one, r00", "r18 and 6 more")
}

func TestKey_StaleReferencesDoNotKeepAKeyAndAreRemoved(t *testing.T) {
	m := newMount(t, Options{})
	m.write("keys/a", openaiKey(secretA))
	m.write("keys/b", openaiKey(secretB))
	m.write("roles/elsewhere", map[string]any{"key": "b"})
	for _, name := range []string{"gone", "elsewhere"} {
		if err := m.storage.Put(t.Context(), &logical.StorageEntry{Key: refPrefix + "a/" + name, Value: []byte("{}")}); err != nil {
			t.Fatal(err)
		}
	}
	m.delete("keys/a")
	for key := range entries(t, m.storage) {
		if strings.HasPrefix(key, refPrefix+"a/") {
			t.Errorf("%s stays", key)
		}
	}
	m.refused(logical.DeleteOperation, "keys/b", nil, "elsewhere")
}

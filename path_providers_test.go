// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"slices"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

func TestProviders_EveryListedOneCanBeRead(t *testing.T) {
	m := newMount(t, Options{})
	resp := m.must(logical.ListOperation, "providers/", nil)
	ids := resp.Data["keys"].([]string)
	if !slices.Contains(ids, "openai") || !slices.Contains(ids, "sandbox") || !slices.IsSorted(ids) {
		t.Errorf("listed %q", ids)
	}
	for _, id := range ids {
		wantFields(t, m.read("providers/"+id), map[string]any{"id": id})
		if info := resp.Data["key_info"].(map[string]any)[id].(map[string]any); info["name"] == "" {
			t.Errorf("%s has no name in the list", id)
		}
	}
	wantFields(t, m.read("providers/azure-openai"), map[string]any{
		"auth": "header Api-Key", "api_key": "required", "routes": map[string]any{"v1": "/v1"}, "formats": []string{"openai"},
	})
}

func TestProviders_UnknownNamesTheNearest(t *testing.T) {
	m := newMount(t, Options{})
	m.refused(logical.ReadOperation, "providers/opnai", nil, `did you mean "openai"`)
}

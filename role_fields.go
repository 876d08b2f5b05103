// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"maps"

	"github.com/hashicorp/vault/sdk/framework"
)

// roleFields are the fields that a write of a virtual key may have.
func roleFields() map[string]*framework.FieldSchema {
	list := func(description string) *framework.FieldSchema {
		return &framework.FieldSchema{Type: framework.TypeCommaStringSlice, Description: description}
	}
	fields := limitFields()
	maps.Copy(fields, map[string]*framework.FieldSchema{
		"name":                 {Type: framework.TypeString, Description: "Name of the virtual key; apps use it."},
		"key":                  {Type: framework.TypeString, Description: "Name of the provider key that it uses."},
		"models":               list("Models that may be used, as globs: gpt-4o*,text-embedding-3-small. Empty allows every model."),
		"enabled":              {Type: framework.TypeBool, Default: true, Description: "Whether it may be used."},
		"expires_at":           {Type: framework.TypeString, Description: "When it stops working, as 2027-01-31T00:00:00Z or Unix seconds; empty for never."},
		"ttl":                  {Type: framework.TypeSignedDurationSecond, Description: "Sets expires_at to so long from now, such as 720h; 0 for never."},
		"allowed_entity_ids":   list("Vault entities that may use it, by id. Where all allowed_ lists are empty, Vault's policies alone decide; else one match in any of them is needed."),
		"allowed_entity_names": list("Vault entities that may use it, by name."),
		"allowed_group_ids":    list("Vault identity groups whose members may use it, by id."),
		"allowed_group_names":  list("Vault identity groups whose members may use it, by name."),
		"allowed_aliases":      list("Aliases that may use it, as <mount accessor>/<alias name>."),
		"default_params":       {Type: framework.TypeMap, Description: "Request parameters filled in where the caller left them out, as a JSON object."},
		"forced_params":        {Type: framework.TypeMap, Description: "Request parameters that win over the caller's, as a JSON object."},
		"note":                 {Type: framework.TypeString, Description: "Free text for people."},
		"metadata":             {Type: framework.TypeKVPairs, Description: "Free name=value pairs."},
	})
	return fields
}

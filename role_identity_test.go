// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

func TestIdentity_WhoMayUseARestrictedRole(t *testing.T) {
	entity := func() *logical.Entity {
		return &logical.Entity{ID: "id-1", Name: "jo", Aliases: []*logical.Alias{{MountAccessor: "auth_userpass_1", Name: "jo/ann"}}}
	}
	groups := []*logical.Group{{ID: "g-0", Name: "others"}, {ID: "g-1", Name: "platform"}}
	lookup := errors.New("identity store is down")
	for name, c := range map[string]struct {
		role   map[string]any
		entity string // the caller's
		change func(*identityView)
		status int
	}{
		"no restriction, no entity":      {status: 200},
		"no restriction, entity":         {entity: "id-1", status: 200},
		"no restriction needs no lookup": {entity: "id-1", change: func(v *identityView) { v.entityErr, v.groupsErr = lookup, lookup }, status: 200},

		"entity id":                  {role: map[string]any{"allowed_entity_ids": "id-0,id-1"}, entity: "id-1", status: 200},
		"entity id needs no lookup":  {role: map[string]any{"allowed_entity_ids": "id-1"}, entity: "id-1", change: func(v *identityView) { v.entityErr, v.groupsErr = lookup, lookup }, status: 200},
		"another entity id":          {role: map[string]any{"allowed_entity_ids": "id-0"}, entity: "id-1", status: 403},
		"id is not compared as name": {role: map[string]any{"allowed_entity_names": "id-1"}, entity: "id-1", status: 403},
		"entity name":                {role: map[string]any{"allowed_entity_names": "jo"}, entity: "id-1", status: 200},
		"entity name in other case":  {role: map[string]any{"allowed_entity_names": "Jo"}, entity: "id-1", status: 403},
		"another entity name":        {role: map[string]any{"allowed_entity_names": "joe"}, entity: "id-1", status: 403},
		"alias":                      {role: map[string]any{"allowed_aliases": "auth_userpass_1/jo/ann"}, entity: "id-1", status: 200},
		"alias of another mount":     {role: map[string]any{"allowed_aliases": "auth_userpass_2/jo/ann"}, entity: "id-1", status: 403},
		"alias cut elsewhere":        {role: map[string]any{"allowed_aliases": "auth_userpass_1/jo"}, entity: "id-1", status: 403},
		"group id":                   {role: map[string]any{"allowed_group_ids": "g-1"}, entity: "id-1", status: 200},
		"group name":                 {role: map[string]any{"allowed_group_names": "platform"}, entity: "id-1", status: 200},
		"another group":              {role: map[string]any{"allowed_group_names": "admins", "allowed_group_ids": "g-9"}, entity: "id-1", status: 403},
		"one of several lists":       {role: map[string]any{"allowed_entity_names": "joe", "allowed_group_names": "platform"}, entity: "id-1", status: 200},

		"restricted, no entity":   {role: map[string]any{"allowed_group_names": "platform"}, status: 403},
		"restricted, empty id":    {role: map[string]any{"allowed_entity_ids": "id-1"}, status: 403},
		"entity that is disabled": {role: map[string]any{"allowed_entity_names": "jo"}, entity: "id-1", change: func(v *identityView) { v.EntityVal.Disabled = true }, status: 403},
		"disabled, but in a group": {role: map[string]any{"allowed_entity_names": "jo", "allowed_group_names": "platform"}, entity: "id-1",
			change: func(v *identityView) { v.EntityVal.Disabled = true }, status: 403},
		"entity that is gone": {role: map[string]any{"allowed_entity_names": "jo"}, entity: "id-1", change: func(v *identityView) { v.EntityVal = nil }, status: 403},
		"entity lookup fails": {role: map[string]any{"allowed_entity_names": "jo"}, entity: "id-1", change: func(v *identityView) { v.entityErr = lookup }, status: 503},
		"group lookup fails":  {role: map[string]any{"allowed_group_ids": "g-1"}, entity: "id-1", change: func(v *identityView) { v.groupsErr = lookup }, status: 503},
		"group lookup isn't needed": {role: map[string]any{"allowed_entity_names": "jo", "allowed_group_ids": "g-9"}, entity: "id-1",
			change: func(v *identityView) { v.groupsErr = lookup }, status: 200},
	} {
		t.Run(name, func(t *testing.T) {
			m, up, _ := newProxyMount(t, c.role)
			m.system.EntityVal, m.system.GroupsVal = entity(), groups
			if c.change != nil {
				c.change(m.system)
			}
			code := map[int]string{403: "identity_not_allowed", 503: "storage_unavailable"}[c.status]
			m.proxyAs(c.entity, "r", "v1/chat/completions", chatBody("m")).want(t, c.status, code)
			if c.status != http.StatusOK {
				wantNothingSent(t, up)
			}
		})
	}
}

func TestIdentity_TheCLIPathIsJudgedToo(t *testing.T) {
	m, up, _ := newProxyMount(t, map[string]any{"allowed_entity_ids": "id-1"})
	m.cli(map[string]any{"model": "m", "prompt": "Hello"}).want(t, http.StatusForbidden, "identity_not_allowed")
	wantNothingSent(t, up)
}

func TestIdentity_TheRefusalSaysWhyAndNamesNobodyElse(t *testing.T) {
	m, _, _ := newProxyMount(t, map[string]any{"allowed_entity_names": "boss", "allowed_group_names": "board"})
	for entity, want := range map[string]string{"": "belongs to no Vault entity", "id-7": "id-7"} {
		body := m.proxyAs(entity, "r", "v1/chat/completions", chatBody("m")).Body
		if !strings.Contains(body, want) || strings.Contains(body, "boss") || strings.Contains(body, "board") {
			t.Errorf("entity %q is told %s", entity, body)
		}
	}
}

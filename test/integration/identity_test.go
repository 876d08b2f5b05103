// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"net/http"
	"testing"
)

// identity: virtual keys that only some of Vault's entities and groups may use.
func (s *suite) identity(t *testing.T) {
	s.vault.Policy(t, "everything", `path "portkey/proxy/*" { capabilities = ["read", "update"] }`)
	alice, bob := s.vault.Userpass(t, "alice", "everything"), s.vault.Userpass(t, "bob", "everything")
	group := s.vault.Group(t, "llm-users", alice.EntityID)
	for name, fields := range map[string]map[string]any{
		"EntityID":            {"allowed_entity_ids": alice.EntityID},
		"EntityName":          {"allowed_entity_names": "alice"},
		"Alias":               {"allowed_aliases": alice.MountAccessor + "/alice"},
		"GroupID":             {"allowed_group_ids": group},
		"GroupName":           {"allowed_group_names": "llm-users"},
		"OneMatchInAnyOfMany": {"allowed_entity_names": "carol", "allowed_group_names": "nobody,llm-users", "allowed_aliases": "x/y"},
	} {
		t.Run("By"+name+"AdmitsThatOneAndNobodyElse", func(t *testing.T) {
			role := "by-" + name
			s.role(t, mount, role, fields)
			wantCompletion(t, post(t, s.client(alice.Token), chatPath(mount, role), s.chat("up-ok")))
			unasked(t, s.up, func() {
				wantError(t, post(t, s.client(bob.Token), chatPath(mount, role), s.chat("up-ok")), http.StatusForbidden, "identity_not_allowed", role)
				none := s.client(s.vault.Token(t, "everything"))
				wantError(t, post(t, none, chatPath(mount, role), s.chat("up-ok")), http.StatusForbidden, "identity_not_allowed", "no Vault entity")
				wantError(t, post(t, s.root, chatPath(mount, role), s.chat("up-ok")), http.StatusForbidden, "identity_not_allowed", "no Vault entity")
			})
		})
	}
	t.Run("LeavingTheGroupWorksAtOnce", func(t *testing.T) {
		s.role(t, mount, "members", map[string]any{"allowed_group_names": "llm-users"})
		wantCompletion(t, post(t, s.client(alice.Token), chatPath(mount, "members"), s.chat("up-ok")))
		s.vault.Group(t, "llm-users", bob.EntityID)
		wantError(t, post(t, s.client(alice.Token), chatPath(mount, "members"), s.chat("up-ok")), http.StatusForbidden, "identity_not_allowed")
		wantCompletion(t, post(t, s.client(bob.Token), chatPath(mount, "members"), s.chat("up-ok")))
	})
}

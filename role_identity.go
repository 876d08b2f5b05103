// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"fmt"
	"net/http"
	"slices"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-portkey/internal/apierror"
)

// restricted says whether the role narrows down whom Vault's policies admit.
func (r *role) restricted() bool {
	return len(r.EntityIDs)+len(r.EntityNames)+len(r.GroupIDs)+len(r.GroupNames)+len(r.Aliases) > 0
}

// authorise says whether the caller with this entity id may use the role: nil,
// or the answer for the caller. One match in any list is enough. Names are
// compared with what Vault says of the entity now, since a plugin can't look
// an entity up by name.
func (r *role) authorise(system logical.SystemView, name, entityID string) *apierror.Error {
	if !r.restricted() {
		return nil
	}
	if entityID == "" {
		return identityNotAllowed(name, "the token belongs to no Vault entity (root tokens and orphan tokens without an alias have none)")
	}
	if slices.Contains(r.EntityIDs, entityID) {
		return nil
	}
	matches, err := r.matchesIdentity(system, entityID)
	if err != nil {
		return &apierror.Error{
			Status: http.StatusServiceUnavailable, Type: apierror.TypeAPI, Code: apierror.CodeStorage,
			Message: fmt.Sprintf("Vault could not say who the caller is, so virtual key %q stays closed: %s", name, err),
		}
	}
	if !matches {
		return identityNotAllowed(name, fmt.Sprintf("entity %s is not among those that it allows", entityID))
	}
	return nil
}

func (r *role) matchesIdentity(system logical.SystemView, entityID string) (bool, error) {
	if len(r.EntityNames)+len(r.Aliases) > 0 {
		entity, err := system.EntityInfo(entityID)
		if err != nil {
			return false, fmt.Errorf("looking up the entity: %w", err)
		}
		if entity != nil && entity.Disabled {
			return false, nil
		}
		if entity != nil && (slices.Contains(r.EntityNames, entity.Name) || r.matchesAlias(entity)) {
			return true, nil
		}
	}
	if len(r.GroupIDs)+len(r.GroupNames) == 0 {
		return false, nil
	}
	groups, err := system.GroupsForEntity(entityID)
	if err != nil {
		return false, fmt.Errorf("looking up the entity's groups: %w", err)
	}
	return slices.ContainsFunc(groups, func(g *logical.Group) bool {
		return slices.Contains(r.GroupIDs, g.ID) || slices.Contains(r.GroupNames, g.Name)
	}), nil
}

func (r *role) matchesAlias(entity *logical.Entity) bool {
	return slices.ContainsFunc(entity.Aliases, func(a *logical.Alias) bool {
		return slices.Contains(r.Aliases, a.MountAccessor+"/"+a.Name)
	})
}

func identityNotAllowed(name, why string) *apierror.Error {
	return &apierror.Error{
		Status: http.StatusForbidden, Type: apierror.TypeInvalidRequest, Code: apierror.CodeIdentityNotAllowed,
		Message: fmt.Sprintf("virtual key %q may not be used by this caller: %s", name, why),
	}
}

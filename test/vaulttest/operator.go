// SPDX-License-Identifier: MPL-2.0

//go:build unix

package vaulttest

import (
	"context"
	"fmt"
	"strings"
	"testing"
)

// api calls Vault at addr with the root token, and reads the answer into
// what into points at unless that is nil. A status of 400 and above is an error.
func (v *Vault) api(ctx context.Context, addr, method, path string, body, into any) error {
	c := Client{Addr: addr, Token: v.RootToken, HTTP: v.http}
	resp, err := c.Do(ctx, method, path, body)
	if err != nil {
		return err
	}
	if resp.Status >= 400 {
		return fmt.Errorf("%s %s: %s", method, path, resp)
	}
	if into == nil {
		return nil
	}
	return resp.Decode(into)
}

// root is api at the active node, for which it waits, and ends the test if it
// fails. As an operator would, it tries again if the node lost its leadership
// meanwhile, which a machine that stands still for a second is enough for.
func (v *Vault) root(tb testing.TB, method, path string, body, into any) {
	tb.Helper()
	for try := 1; ; try++ {
		err := v.api(tb.Context(), v.Leader(tb).Addr, method, path, body, into)
		if err == nil {
			return
		}
		if try == 3 || !lostLeadership(err) {
			tb.Fatalf("vaulttest: %v", err)
		}
	}
}

// lostLeadership says whether a call failed because the node doesn't lead any more.
func lostLeadership(err error) bool {
	for _, said := range []string{"node is not the leader", "local node not active", "Vault is sealed"} {
		if strings.Contains(err.Error(), said) {
			return true
		}
	}
	return false
}

// Client returns a client of the first node with a token, which may be empty.
func (v *Vault) Client(token string) *Client { return v.nodes[0].Client(token) }

// Enable registers the plugin with its SHA-256 and mounts it at path. tune is
// the mount's configuration as `vault secrets enable` has it, such as
// allowed_response_headers; nil for Vault's defaults.
func (v *Vault) Enable(tb testing.TB, path string, tune map[string]any) {
	tb.Helper()
	name, sum, err := v.installPlugin()
	if err != nil {
		tb.Fatalf("vaulttest: %v", err)
	}
	v.root(tb, "PUT", "sys/plugins/catalog/secret/"+name, map[string]any{"sha256": sum, "command": name}, nil)
	v.root(tb, "POST", "sys/mounts/"+strings.Trim(path, "/"), map[string]any{"type": name, "config": tune}, nil)
}

// Reload reloads the plugin of one mount: Vault ends its process and starts
// another.
func (v *Vault) Reload(tb testing.TB, mountPath string) {
	tb.Helper()
	v.root(tb, "PUT", "sys/plugins/reload/backend", map[string]any{"mounts": []string{strings.Trim(mountPath, "/") + "/"}}, nil)
}

// Policy writes a policy.
func (v *Vault) Policy(tb testing.TB, name, hcl string) {
	tb.Helper()
	v.root(tb, "PUT", "sys/policies/acl/"+name, map[string]any{"policy": hcl}, nil)
}

// Token returns a token with exactly these policies, not even `default`, and
// no entity. It needs one policy at least, for Vault would give a token
// without any those of its parent, which is root.
func (v *Vault) Token(tb testing.TB, policies ...string) string {
	tb.Helper()
	if len(policies) == 0 {
		tb.Fatal("vaulttest: Token needs a policy; name one that doesn't exist for a token that may do nothing")
	}
	var answer loginAnswer
	v.root(tb, "POST", "auth/token/create", map[string]any{
		"policies": policies, "no_default_policy": true, "ttl": "1h",
	}, &answer)
	return answer.Auth.ClientToken
}

// Login is someone that Vault knows as an entity.
type Login struct {
	// Token is a token of the entity.
	Token string
	// EntityID and EntityName are the entity's; the name is the user's.
	EntityID, EntityName string
	// MountAccessor is that of the userpass mount: <MountAccessor>/<user> is
	// the alias of the entity.
	MountAccessor string
}

type loginAnswer struct {
	Auth struct {
		ClientToken string `json:"client_token"`
		EntityID    string `json:"entity_id"`
	} `json:"auth"`
}

// Userpass logs a user in, with these policies besides `default`. The user,
// an entity of the same name and the alias that ties them are made at the
// first login; a later one replaces the policies.
func (v *Vault) Userpass(tb testing.TB, user string, policies ...string) Login {
	tb.Helper()
	const password = "a password of a test"
	login := Login{EntityName: user, MountAccessor: v.userpassAccessor(tb)}
	v.root(tb, "POST", "auth/userpass/users/"+user, map[string]any{"password": password, "token_policies": policies}, nil)

	v.root(tb, "POST", "identity/entity/name/"+user, map[string]any{}, nil)
	var entity struct {
		Data struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	v.root(tb, "GET", "identity/entity/name/"+user, nil, &entity)
	login.EntityID = entity.Data.ID
	v.root(tb, "POST", "identity/entity-alias", map[string]any{
		"name": user, "canonical_id": login.EntityID, "mount_accessor": login.MountAccessor,
	}, nil)

	var answer loginAnswer
	v.root(tb, "POST", "auth/userpass/login/"+user, map[string]any{"password": password}, &answer)
	if answer.Auth.EntityID != login.EntityID {
		tb.Fatalf("vaulttest: %s logged in as entity %s, not %s", user, answer.Auth.EntityID, login.EntityID)
	}
	login.Token = answer.Auth.ClientToken
	return login
}

// userpassAccessor returns the accessor of auth/userpass, mounted when needed.
func (v *Vault) userpassAccessor(tb testing.TB) string {
	tb.Helper()
	type mounts struct {
		Data map[string]struct {
			Accessor string `json:"accessor"`
		} `json:"data"`
	}
	for {
		var auth mounts
		v.root(tb, "GET", "sys/auth", nil, &auth)
		if mount, ok := auth.Data["userpass/"]; ok {
			return mount.Accessor
		}
		v.root(tb, "POST", "sys/auth/userpass", map[string]any{"type": "userpass"}, nil)
	}
}

// Group makes an identity group with these entities as its members, or
// replaces the members of the one with that name, and returns its id.
func (v *Vault) Group(tb testing.TB, name string, entityIDs ...string) string {
	tb.Helper()
	v.root(tb, "POST", "identity/group/name/"+name, map[string]any{"member_entity_ids": entityIDs}, nil)
	var group struct {
		Data struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	v.root(tb, "GET", "identity/group/name/"+name, nil, &group)
	return group.Data.ID
}

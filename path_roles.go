// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/go-uuid"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/helper/locksutil"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-portkey/internal/ledger"
	"vault-plugin-secrets-portkey/internal/relay"
	"vault-plugin-secrets-portkey/internal/wire"
)

// rolePrefix holds the virtual keys; refPrefix holds, per provider key, an
// empty entry for each virtual key that uses it, so that nobody has to read
// every role to know that a key is in use.
const (
	rolePrefix = "roles/"
	refPrefix  = "keyrefs/"
)

// role is a virtual key. A stored one is never changed in place.
type role struct {
	// ID tells a role from one of the same name that was there before it.
	ID            string                     `json:"id"`
	Name          string                     `json:"name"`
	Key           string                     `json:"key"`
	Models        []string                   `json:"models,omitempty"`
	Disabled      bool                       `json:"disabled,omitempty"`
	ExpiresAt     time.Time                  `json:"expires_at,omitzero"`
	EntityIDs     []string                   `json:"allowed_entity_ids,omitempty"`
	EntityNames   []string                   `json:"allowed_entity_names,omitempty"`
	GroupIDs      []string                   `json:"allowed_group_ids,omitempty"`
	GroupNames    []string                   `json:"allowed_group_names,omitempty"`
	Aliases       []string                   `json:"allowed_aliases,omitempty"`
	DefaultParams map[string]json.RawMessage `json:"default_params,omitempty"`
	ForcedParams  map[string]json.RawMessage `json:"forced_params,omitempty"`
	Note          string                     `json:"note,omitempty"`
	Metadata      map[string]string          `json:"metadata,omitempty"`
	CreatedAt     time.Time                  `json:"created_at"`
	UpdatedAt     time.Time                  `json:"updated_at"`
	roleLimits

	limits *ledger.Policy // made by prepare
}

// prepare checks what needs no storage; the error is the user's.
func (r *role) prepare() error {
	if r.Key == "" {
		return fmt.Errorf("key is missing: name the provider key that this virtual key uses; `vault list <mount>/keys` shows them")
	}
	for _, pattern := range r.Models {
		if strings.ContainsAny(pattern, " \t\r\n") || len(pattern) > 256 {
			return fmt.Errorf("models: %.60q is no model name; write names or globs such as gpt-4o* without spaces", pattern)
		}
	}
	for _, alias := range r.Aliases {
		if accessor, name, found := strings.Cut(alias, "/"); !found || accessor == "" || name == "" {
			return fmt.Errorf("allowed_aliases: %.80q must be <mount accessor>/<alias name>; `vault auth list` shows the accessors", alias)
		}
	}
	for field, list := range map[string][]string{
		"models": r.Models, "allowed_entity_ids": r.EntityIDs, "allowed_entity_names": r.EntityNames,
		"allowed_group_ids": r.GroupIDs, "allowed_group_names": r.GroupNames, "allowed_aliases": r.Aliases,
	} {
		if len(list) > maxListLen {
			return fmt.Errorf("%s has %d items; the most is %d", field, len(list), maxListLen)
		}
	}
	var err error
	r.limits, err = r.policy(r.Name, r.ID)
	return err
}

// state is what operators can set.
func (r *role) state() map[string]any {
	expires := ""
	if !r.ExpiresAt.IsZero() {
		expires = r.ExpiresAt.Format(time.RFC3339)
	}
	state := r.roleLimits.state()
	maps.Copy(state, map[string]any{
		"key": r.Key, "models": orEmpty(r.Models), "enabled": !r.Disabled, "expires_at": expires,
		"allowed_entity_ids": orEmpty(r.EntityIDs), "allowed_entity_names": orEmpty(r.EntityNames),
		"allowed_group_ids": orEmpty(r.GroupIDs), "allowed_group_names": orEmpty(r.GroupNames), "allowed_aliases": orEmpty(r.Aliases),
		"default_params": paramsData(r.DefaultParams), "forced_params": paramsData(r.ForcedParams),
		"note": r.Note, "metadata": orEmptyMap(r.Metadata),
	})
	return state
}

func (r *role) responseData() map[string]any {
	data := r.state()
	data["id"] = r.ID
	data["created_at"] = r.CreatedAt.Format(time.RFC3339)
	data["updated_at"] = r.UpdatedAt.Format(time.RFC3339)
	return data
}

func paramsData(params map[string]json.RawMessage) map[string]any {
	data := make(map[string]any, len(params))
	for name, raw := range params {
		data[name] = raw
	}
	return data
}

func (b *backend) pathRoles() []*framework.Path {
	fields := roleFields()
	shown := map[string]*framework.FieldSchema{
		"id":         {Type: framework.TypeString, Required: true, Description: "Tells this virtual key from an earlier one of the same name."},
		"created_at": {Type: framework.TypeTime, Required: true, Description: "When it was made."},
		"updated_at": {Type: framework.TypeTime, Required: true, Description: "When it was last changed."},
	}
	for name, field := range fields {
		if name != "name" && name != "ttl" {
			shown[name] = field
		}
	}
	written := map[int][]framework.Response{
		http.StatusOK:        {{Description: "Stored, with what it is now.", Fields: shown}},
		http.StatusNoContent: {{Description: "Stored."}},
	}
	attrs := &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "virtual-key", ItemType: "Virtual key"}
	return []*framework.Path{
		b.listPath(rolePrefix, "virtual keys", attrs, b.describeRole),
		{
			Pattern:        rolePrefix + framework.GenericNameRegex("name"),
			Fields:         fields,
			ExistenceCheck: b.roleExists,
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.CreateOperation: &framework.PathOperation{Callback: b.writeRole, Summary: "Make a virtual key.", Responses: written},
				logical.UpdateOperation: &framework.PathOperation{Callback: b.writeRole, Summary: "Change a virtual key; fields not named stay.", Responses: written},
				logical.PatchOperation:  &framework.PathOperation{Callback: b.patchRole, Summary: "Merge into a virtual key; null removes.", Responses: written},
				logical.ReadOperation:   &framework.PathOperation{Callback: b.readRole, Summary: "Read a virtual key.", Responses: ok("The virtual key.", shown)},
				logical.DeleteOperation: &framework.PathOperation{Callback: b.deleteRole, Summary: "Delete a virtual key.", Responses: noContent()},
			},
			DisplayAttrs:    attrs,
			HelpSynopsis:    "A virtual key: what apps use instead of a provider's API key.",
			HelpDescription: rolesHelp,
		},
	}
}

func (b *backend) roleExists(ctx context.Context, req *logical.Request, d *framework.FieldData) (bool, error) {
	r, err := b.roles.get(ctx, req.Storage, d.Get("name").(string))
	return r != nil, err
}

func (b *backend) readRole(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	r, err := b.roles.get(ctx, req.Storage, d.Get("name").(string))
	if err != nil || r == nil {
		return nil, err
	}
	resp := &logical.Response{Data: r.responseData()}
	statuses, err := b.limitStatus(ctx, req.Storage, r)
	if err != nil {
		resp.AddWarning("what the limits have counted can't be read: " + err.Error())
	}
	addThresholdWarnings(resp, statuses)
	return resp, nil
}

func (b *backend) describeRole(ctx context.Context, storage logical.Storage, name string) (map[string]any, error) {
	r, err := b.roles.get(ctx, storage, name)
	if err != nil || r == nil {
		return nil, err
	}
	statuses, err := b.limitStatus(ctx, storage, r)
	if err != nil {
		return nil, err
	}
	data := r.responseData()
	return map[string]any{
		"key": data["key"], "models": data["models"], "enabled": data["enabled"], "expires_at": data["expires_at"], "note": data["note"],
		"limits": strings.Join(r.texts(), "; "), "nearest_limit": nearestLimit(statuses),
	}, nil
}

func (b *backend) writeRole(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	return b.changeRole(ctx, req, d, func(old *role) (*role, error) {
		r := &role{}
		if old != nil {
			*r = *old
		}
		return r, b.applyRole(r, old, d)
	})
}

func (b *backend) patchRole(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	return b.changeRole(ctx, req, d, func(old *role) (*role, error) {
		if old == nil {
			return nil, errNoEntry
		}
		state := old.state()
		if _, given := d.Raw["ttl"]; given && d.Raw["expires_at"] == nil {
			delete(state, "expires_at")
		}
		merged, err := mergePatch(state, d)
		if err != nil {
			return nil, err
		}
		r := &role{ID: old.ID, CreatedAt: old.CreatedAt}
		return r, b.applyRole(r, old, merged)
	})
}

// changeRole stores what change makes of the role of that name, nil for none.
// An error of change is the user's.
func (b *backend) changeRole(ctx context.Context, req *logical.Request, d *framework.FieldData, change func(*role) (*role, error)) (*logical.Response, error) {
	if err := errors.Join(unknownFields(req, d), wholeSeconds(d, "ttl")); err != nil {
		return logical.ErrorResponse(err.Error()), nil
	}
	name := d.Get("name").(string)
	lock := locksutil.LockForKey(b.roleLocks, name)
	lock.Lock()
	defer lock.Unlock()

	old, err := b.roles.get(ctx, req.Storage, name)
	if err != nil {
		return nil, err
	}
	r, err := change(old)
	if err != nil {
		return respond(err)
	}
	if err := checkText(name, r.Note, r.Metadata); err != nil {
		return respond(err)
	}
	r.Name = name
	if err := r.prepare(); err != nil {
		return respond(err)
	}
	r.UpdatedAt = b.now().UTC().Truncate(time.Second)
	if old == nil {
		r.CreatedAt = r.UpdatedAt
		if r.ID, err = uuid.GenerateUUID(); err != nil {
			return nil, fmt.Errorf("making an id: %w", err)
		}
	}
	if err := b.storeRole(ctx, req.Storage, name, r, old); err != nil {
		return respond(err)
	}
	return b.roleWarnings(r, old), nil
}

// storeRole writes the reference before the role and removes the former one
// after it: a reference too many is found out when the key is deleted, one too
// few would let a key go that is in use.
func (b *backend) storeRole(ctx context.Context, storage logical.Storage, name string, r, old *role) error {
	lock := locksutil.LockForKey(b.keyLocks, r.Key)
	lock.RLock()
	defer lock.RUnlock()
	key, err := b.keys.get(ctx, storage, r.Key)
	if err != nil {
		return err
	}
	if key == nil {
		return fmt.Errorf("there is no provider key %q; `vault list <mount>/keys` shows those that there are", r.Key)
	}
	if err := storage.Put(ctx, &logical.StorageEntry{Key: refPrefix + r.Key + "/" + name, Value: []byte("{}")}); err != nil {
		return storageErrorf("storing the reference to key %s: %w", r.Key, err)
	}
	if err := b.roles.put(ctx, storage, name, r); err != nil {
		return err
	}
	if old != nil && old.Key != r.Key {
		b.dropReference(ctx, storage, old.Key, name)
	}
	return nil
}

// dropReference removes the note that the role uses the key. That it stays is
// harmless (see rolesOfKey), so a failure is logged and not returned: the
// change itself is stored.
func (b *backend) dropReference(ctx context.Context, storage logical.Storage, key, name string) {
	if err := storage.Delete(ctx, refPrefix+key+"/"+name); err != nil {
		b.Logger().Warn("a reference from a virtual key to its former provider key stays until that key is deleted", "role", name, "key", key, "error", err)
	}
}

// rolesOfKey returns the names of the roles that use the key, in order, and
// removes references that no longer hold. The caller holds the key's lock.
func (b *backend) rolesOfKey(ctx context.Context, storage logical.Storage, key string) ([]string, error) {
	names, err := storage.List(ctx, refPrefix+key+"/")
	if err != nil {
		return nil, storageErrorf("listing the virtual keys of key %s: %w", key, err)
	}
	users := names[:0:0]
	for _, name := range names {
		r, err := b.roles.get(ctx, storage, name)
		if err != nil {
			return nil, err
		}
		if r != nil && r.Key == key {
			users = append(users, name)
			continue
		}
		b.dropReference(ctx, storage, key, name)
	}
	return users, nil
}

func (b *backend) roleWarnings(r, old *role) *logical.Response {
	resp := &logical.Response{Warnings: r.limitWarnings(old)}
	if !r.ExpiresAt.IsZero() && !b.now().Before(r.ExpiresAt) {
		resp.AddWarning(fmt.Sprintf("expires_at (%s) is in the past: the virtual key can't be used", r.ExpiresAt.Format(time.RFC3339)))
	}
	for name := range r.ForcedParams {
		if _, both := r.DefaultParams[name]; both {
			resp.AddWarning(fmt.Sprintf("%q is in default_params and in forced_params; the forced value always wins", name))
		}
	}
	for where, params := range map[string]map[string]json.RawMessage{"default_params": r.DefaultParams, "forced_params": r.ForcedParams} {
		var model string
		if json.Unmarshal(params["model"], &model) == nil && !relay.Allows(r.Models, model) {
			resp.AddWarning(fmt.Sprintf("the model %q of %s is not among the models allowed (%s)", model, where, strings.Join(r.Models, ", ")))
		}
	}
	if b.view.SystemView.ReplicationState().HasState(consts.ReplicationPerformancePrimary | consts.ReplicationPerformanceSecondary) {
		resp.AddWarning("this cluster replicates: the virtual key works on every cluster, each with its own provider traffic and its own count of every limit")
	}
	if len(resp.Warnings) == 0 {
		return nil
	}
	resp.Data = r.responseData()
	return resp
}

func (b *backend) deleteRole(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	lock := locksutil.LockForKey(b.roleLocks, name)
	lock.Lock()
	defer lock.Unlock()
	// An entry that can't be read can still be deleted; it leaves a reference
	// behind, which is harmless (see rolesOfKey).
	old, _ := b.roles.get(ctx, req.Storage, name)
	if err := b.roles.delete(ctx, req.Storage, name); err != nil {
		return nil, err
	}
	if old != nil {
		b.dropReference(ctx, req.Storage, old.Key, name)
		b.dropCounts(ctx, old.ID)
	}
	return nil, nil
}

// applyRole sets the fields that d gives. old is the role before, nil for none.
func (b *backend) applyRole(r, old *role, d *framework.FieldData) error {
	setString(d, "key", &r.Key)
	setString(d, "note", &r.Note)
	setMap(d, "metadata", &r.Metadata)
	for name, to := range map[string]*[]string{
		"models": &r.Models, "allowed_entity_ids": &r.EntityIDs, "allowed_entity_names": &r.EntityNames,
		"allowed_group_ids": &r.GroupIDs, "allowed_group_names": &r.GroupNames, "allowed_aliases": &r.Aliases,
	} {
		setList(d, name, to)
	}
	if v, ok := d.GetOk("enabled"); ok {
		r.Disabled = !v.(bool)
	}
	before := &roleLimits{}
	if old != nil {
		before = &old.roleLimits
	}
	if err := b.applyLimits(&r.roleLimits, before, d); err != nil {
		return err
	}
	if err := setParams(d, "default_params", &r.DefaultParams); err != nil {
		return err
	}
	if err := setParams(d, "forced_params", &r.ForcedParams); err != nil {
		return err
	}
	return b.applyExpiry(r, d)
}

func setParams(d *framework.FieldData, field string, to *map[string]json.RawMessage) error {
	v, ok := d.GetOk(field)
	if !ok {
		return nil
	}
	params := map[string]json.RawMessage{}
	for name, value := range v.(map[string]any) {
		raw, err := json.Marshal(value)
		if err != nil {
			return fmt.Errorf("%s: %q: %w", field, name, err)
		}
		for other := range params {
			if strings.EqualFold(name, other) {
				return fmt.Errorf("%s: %q and %q differ in case only; give one of them", field, name, other)
			}
		}
		for _, key := range wire.PolicyKeys() {
			if name != key && strings.EqualFold(name, key) {
				return fmt.Errorf("%s: write %q as %q", field, name, key)
			}
		}
		if _, isText := value.(string); name == "model" && !isText {
			return fmt.Errorf("%s: \"model\" must be a string", field)
		}
		params[name] = raw
	}
	*to = params
	return nil
}

const rolesHelp = `
Vault's policies decide who may call proxy/<name>/…; the fields here narrow that
down further. Deleting a virtual key or setting enabled=false works at once.

    vault write <mount>/roles/team-a key=openai models='gpt-4o*' ttl=720h
    vault write <mount>/roles/team-b key=openai default_params='{"temperature":0.2}'
    vault write <mount>/roles/team-c key=openai limits="usd=100/month" limits="requests=60/minute per entity"
    vault patch <mount>/roles/team-a enabled=false

In a patch, null restores the default: no expiry, enabled, no restriction.
`

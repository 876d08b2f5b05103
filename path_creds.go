// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-portkey/internal/apierror"
	"vault-plugin-secrets-portkey/internal/relay"
)

const (
	credsPrefix = "creds/"
	// leasedKeyType stands in Vault's leases: it must not change.
	leasedKeyType = "leased_key"
	// leasedHash is the one thing that a lease says to the plugin.
	leasedHash = "hash"
)

func leasedKeyFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"api_key": {
			Type: framework.TypeString, Required: true, Description: "The leased key; it isn't shown again.",
			DisplayAttrs: &framework.DisplayAttributes{Sensitive: true},
		},
		"base_url": {Type: framework.TypeString, Required: true, Description: "What an OpenAI SDK's base_url has to be; empty while the gateway is off."},
		"role":     {Type: framework.TypeString, Required: true, Description: "Name of the virtual key that it is for."},
	}
}

func (b *backend) leasedKeySecret() *framework.Secret {
	return &framework.Secret{Type: leasedKeyType, Fields: leasedKeyFields(), Renew: b.renewLeasedKey, Revoke: b.revokeLeasedKey}
}

func (b *backend) pathCreds() []*framework.Path {
	return []*framework.Path{{
		Pattern: credsPrefix + framework.GenericNameRegex("role"),
		Fields: map[string]*framework.FieldSchema{
			"role": {Type: framework.TypeString, Description: "Name of the virtual key."},
			"ttl":  {Type: framework.TypeSignedDurationSecond, Query: true, Description: "How long the key lasts if it isn't renewed, such as 1h; the mount's default lease TTL if left out."},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback: b.readCreds, Summary: "Lease a key for a virtual key.", ForwardPerformanceStandby: true,
				Responses: ok("A new key, with a lease.", leasedKeyFields()),
			},
		},
		DisplayAttrs:    &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationVerb: "generate", OperationSuffix: "leased-key"},
		HelpSynopsis:    "A key of its own for an app that can't hold a Vault token.",
		HelpDescription: credsHelp,
	}}
}

// readCreds makes a key. Its entry is stored before the answer: a key that
// nobody got is harmless, one that isn't known here would be useless.
func (b *backend) readCreds(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	asked, err := askedTTL(req, d)
	if err != nil {
		return respond(err)
	}
	if err := b.activity.await(ctx); err != nil {
		return vaultError(notActive(err))
	}
	r, refusal := b.leasableRole(ctx, req.Storage, d.Get("role").(string), req.EntityID)
	if refusal != nil {
		return vaultError(refusal)
	}
	now := b.now().UTC()
	term, err := b.leaseTerm(r, now, now, asked)
	if err != nil {
		return respond(err)
	}
	key, hash, err := b.leased.generate()
	if err != nil {
		return nil, err
	}
	k := &leasedKey{
		Hash: hash, Role: r.Name, RoleID: r.ID, EntityID: req.EntityID, DisplayName: req.DisplayName,
		IssuedAt: now, Expires: now.Add(term.ttl), TTL: asked,
	}
	if err := b.leased.entries.put(ctx, req.Storage, hash, k); err != nil {
		return nil, err
	}
	// Who comes with it at once has it in memory, and isn't taken for a guesser.
	if _, err := b.leased.find(ctx, req.Storage, hash); err != nil {
		b.Logger().Debug("a new leased key couldn't be read back yet", "error", err)
	}
	at := b.gateway.Place()
	resp := b.leaseAnswer(k, key, at.URL, term)
	if at.OnlyHere() {
		resp.AddWarning("base_url leads to the gateway from Vault's own machine alone; `vault write <mount>/config/gateway public_url=<URL>` says how apps reach it")
	}
	return resp, nil
}

// askedTTL returns the TTL that the request asks for, 0 for none. An error is
// the caller's.
func askedTTL(req *logical.Request, d *framework.FieldData) (time.Duration, error) {
	if err := errors.Join(unknownFields(req, d), wholeSeconds(d, "ttl")); err != nil {
		return 0, err
	}
	ttl, given := d.GetOk("ttl")
	if !given {
		return 0, nil
	}
	if ttl.(int) <= 0 {
		return 0, fmt.Errorf("ttl is %ds; it must be a second or more, or be left out for the mount's default", ttl)
	}
	return time.Duration(ttl.(int)) * time.Second, nil
}

// leasableRole returns the role called name, if the caller with this entity id
// may lease a key for it now.
func (b *backend) leasableRole(ctx context.Context, storage logical.Storage, name, entityID string) (*role, *apierror.Error) {
	r, err := b.roles.get(ctx, storage, name)
	if err != nil {
		return nil, storageUnavailable(err)
	}
	if r == nil {
		return nil, relay.NotFound(name)
	}
	if refusal := r.authorise(b.System(), name, entityID); refusal != nil {
		return nil, refusal
	}
	closed := func(code, format string, args ...any) *apierror.Error {
		return &apierror.Error{Status: http.StatusForbidden, Type: apierror.TypeInvalidRequest, Code: code, Message: fmt.Sprintf(format, args...)}
	}
	if r.Disabled {
		return nil, closed(apierror.CodeVirtualKeyDisabled, "virtual key %q is disabled; `vault patch <mount>/roles/%s enabled=true` enables it", name, name)
	}
	if !r.ExpiresAt.IsZero() && !b.now().Before(r.ExpiresAt) {
		return nil, closed(apierror.CodeVirtualKeyExpired, "virtual key %q expired at %s; `vault patch <mount>/roles/%s ttl=…` lets it live on",
			name, r.ExpiresAt.Format(time.RFC3339), name)
	}
	return r, nil
}

// vaultError is e as an error of Vault's, with the same status.
func vaultError(e *apierror.Error) (*logical.Response, error) {
	return nil, logical.CodedError(e.Status, e.Message)
}

// leaseTerm is how long a lease lasts: ttl from now, and with renewals max from
// its beginning. Both are whole seconds, and at least one: Vault takes 0 for its
// own default.
type leaseTerm struct {
	ttl, max time.Duration
	warning  string // that ttl is less than what was asked for
}

// leaseTerm returns the term of a lease on r, issued then, for which asked is
// asked for now; 0 asks for the mount's default. An error is the caller's, but
// for a storageError.
func (b *backend) leaseTerm(r *role, issued, now time.Time, asked time.Duration) (leaseTerm, error) {
	t := leaseTerm{ttl: asked, max: b.System().MaxLeaseTTL()}
	if asked < time.Second {
		t.ttl = b.System().DefaultLeaseTTL()
	}
	if t.ttl < time.Second || t.max < time.Second {
		return t, storageErrorf("Vault gave no lease TTL of the mount; try again")
	}
	bound := "the mount's max_lease_ttl"
	if !r.ExpiresAt.IsZero() && r.ExpiresAt.Sub(issued) < t.max {
		t.max, bound = r.ExpiresAt.Sub(issued), "the expiry of virtual key "+r.Name
	}
	left := issued.Add(t.max).Sub(now).Truncate(time.Second)
	if left <= 0 {
		return t, fmt.Errorf("%s leaves the leased key no time; read <mount>/%s%s for a new one", bound, credsPrefix, r.Name)
	}
	if t.ttl > left {
		t.ttl = left
		if asked > 0 {
			t.warning = fmt.Sprintf("ttl was %s, but %s allows no more than %s: that is what the lease has", asked, bound, left)
		}
	}
	t.ttl, t.max = t.ttl.Truncate(time.Second), t.max.Truncate(time.Second)
	return t, nil
}

// leaseAnswer is the answer with a new key. publicURL is the gateway's, empty
// while it is off.
func (b *backend) leaseAnswer(k *leasedKey, key, publicURL string, term leaseTerm) *logical.Response {
	base := ""
	if publicURL != "" {
		base = strings.TrimRight(publicURL, "/") + "/v1"
	}
	resp := b.Secret(leasedKeyType).Response(
		map[string]any{"api_key": key, "base_url": base, "role": k.Role},
		map[string]any{leasedHash: k.Hash},
	)
	resp.Secret.TTL, resp.Secret.MaxTTL = term.ttl, term.max
	if term.warning != "" {
		resp.AddWarning(term.warning)
	}
	if base == "" {
		resp.AddWarning("the gateway is off, and nothing else takes this key; `vault write <mount>/config/gateway address=<host:port> …` turns it on, see `vault path-help <mount>/config/gateway`")
	}
	return resp
}

// renewLeasedKey is called by Vault for a lease that is to be renewed. What it
// refuses lets the lease run out. The answer has no data: Vault forgets the key
// that it kept in the lease until then.
//
// Vault computes the lease's new end from the increment, its own maximum and
// MaxTTL (framework.CalculateTTL), so that it comes to the same as leaseTerm.
func (b *backend) renewLeasedKey(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	hash, err := leaseHash(req)
	if err != nil {
		return nil, err
	}
	if err := b.activity.await(ctx); err != nil {
		return vaultError(notActive(err))
	}
	var term leaseTerm
	err = b.leased.change(ctx, req.Storage, hash, func(k *leasedKey) (*leasedKey, error) {
		var err error
		k, term, err = b.extend(ctx, req, k)
		return k, err
	})
	if err != nil {
		return respond(err)
	}
	resp := &logical.Response{Secret: req.Secret}
	resp.Secret.TTL, resp.Secret.MaxTTL = term.ttl, term.max
	return resp, nil
}

// extend returns what a renewal makes of k. An error is the caller's, but for a
// storageError.
func (b *backend) extend(ctx context.Context, req *logical.Request, k *leasedKey) (*leasedKey, leaseTerm, error) {
	now := b.now().UTC()
	if k == nil || k.expired(now) {
		return nil, leaseTerm{}, fmt.Errorf("the leased key was revoked or has expired, and can't be renewed; read <mount>/%s<virtual key> for a new one", credsPrefix)
	}
	r, refusal := b.leasableRole(ctx, req.Storage, k.Role, k.EntityID)
	if refusal != nil && refusal.Status >= http.StatusInternalServerError {
		return nil, leaseTerm{}, storageErrorf("%w", refusal)
	}
	if refusal != nil {
		return nil, leaseTerm{}, refusal
	}
	if !k.belongsTo(r) {
		return nil, leaseTerm{}, fmt.Errorf("virtual key %q was deleted since the key was leased, and another has its name; read <mount>/%s%s for a new one", k.Role, credsPrefix, k.Role)
	}
	asked := req.Secret.Increment
	if asked <= 0 {
		asked = k.TTL
	}
	term, err := b.leaseTerm(r, k.IssuedAt, now, asked)
	renewed := *k
	renewed.Expires = now.Add(term.ttl)
	return &renewed, term, err
}

// revokeLeasedKey is called by Vault for a lease that has ended. It works in any
// state of the instance, and for a key that is gone. An error makes Vault try
// again; here the key is invalid already.
func (b *backend) revokeLeasedKey(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	hash, err := leaseHash(req)
	if err != nil {
		return nil, err
	}
	return nil, b.leased.revoke(ctx, req.Storage, hash)
}

// leaseHash returns the hash that names the lease's key.
func leaseHash(req *logical.Request) (string, error) {
	hash, _ := req.Secret.InternalData[leasedHash].(string)
	if raw, err := hex.DecodeString(hash); err != nil || 8*len(raw) != leasedBits {
		return "", fmt.Errorf("the lease names no leased key: what Vault kept of it is damaged")
	}
	return hash, nil
}

const credsHelp = `
Each read makes a new key that works at the gateway wherever an SDK puts its API
key, without the app ever seeing a Vault token. The key chooses the virtual key.

    vault read <mount>/creds/team-a ttl=1h

It ends with its lease: at its TTL unless renewed, when it is revoked, and with
the token that read it. It ends at once when the virtual key is deleted, disabled
or expired. Only its hash is stored.

Vault's policies are asked once, when the key is read. For as long as the lease
lasts they aren't asked again, so keep it short where policies change.
`

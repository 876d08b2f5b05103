// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"context"
	"encoding/json"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-portkey/internal/apierror"
	"vault-plugin-secrets-portkey/internal/gateway"
	"vault-plugin-secrets-portkey/internal/relay"
)

// door is the mount as the gateway sees it.
type door struct {
	b *backend
	// storage is the mount's, once the instance is active.
	storage atomic.Pointer[logical.Storage]
	// path is where the mount is in Vault. Nobody tells a plugin; every request
	// does.
	path atomic.Pointer[string]
}

var _ gateway.Mount = (*door)(nil)

// mountPathEntry keeps the path for the next process, which may get its first
// request by the gateway.
const mountPathEntry = localPrefix + "mount-path"

// Path implements gateway.Mount.
func (d *door) Path() string {
	if p := d.path.Load(); p != nil {
		return *p
	}
	return ""
}

// learn notes where a request found the mount.
func (d *door) learn(path string) {
	if path != "" && path != d.Path() {
		d.path.Store(&path)
	}
}

// open lets the gateway in: the instance is active. It returns what keeps the path
// in storage, to be called now and then.
func (d *door) open(ctx context.Context, storage logical.Storage) (keep func(context.Context)) {
	d.storage.Store(&storage)
	stored := ""
	if entry, err := storage.Get(ctx, mountPathEntry); err == nil && entry != nil && json.Unmarshal(entry.Value, &stored) == nil {
		d.path.CompareAndSwap(nil, &stored)
	}
	return func(ctx context.Context) {
		path := d.Path()
		if path == stored {
			return
		}
		value, _ := json.Marshal(path) // strings always marshal
		if err := storage.Put(ctx, &logical.StorageEntry{Key: mountPathEntry, Value: value}); err != nil {
			d.b.Logger().Warn("the path of the mount could not be written; it will be tried again", "error", err)
			return
		}
		stored = path
	}
}

// Admits implements gateway.Mount: this instance acts for the mount, and storage has
// lately confirmed it.
func (d *door) Admits(ctx context.Context) *apierror.Error {
	if err := d.b.activity.await(ctx); err != nil {
		return notActive(err)
	}
	if err := d.b.ledger.Load().Confirm(ctx); err != nil {
		return notActive(err)
	}
	return nil
}

// LeasedKey implements gateway.Mount.
func (d *door) LeasedKey(ctx context.Context, key string, lookUp bool) (*gateway.Lease, *apierror.Error) {
	k := d.b.knownLeasedKey(key)
	if k == nil && lookUp {
		var err error
		if k, err = d.b.leasedKey(ctx, *d.storage.Load(), key); err != nil {
			return nil, storageUnavailable(err)
		}
	}
	if k == nil {
		return nil, nil
	}
	r, err := d.b.roles.get(ctx, *d.storage.Load(), k.Role)
	if err != nil {
		return nil, storageUnavailable(err)
	}
	if !k.belongsTo(r) {
		return nil, nil
	}
	return &gateway.Lease{Role: k.Role, Caller: gateway.Caller{Entity: k.EntityID, DisplayName: k.DisplayName}}, nil
}

// Request implements gateway.Mount.
func (d *door) Request(ctx context.Context, name string, caller gateway.Caller) (*relay.Request, *apierror.Error) {
	storage := *d.storage.Load()
	settings, err := d.b.readSettings(ctx, storage)
	if err != nil {
		return nil, storageUnavailable(err)
	}
	return d.b.relayRequest(ctx, storage, settings, name, payer{entity: caller.Entity}, nil)
}

// Prompt implements gateway.Mount.
func (d *door) Prompt(ctx context.Context, call *gateway.PromptCall) ([]byte, *relay.Request, *apierror.Error) {
	storage := *d.storage.Load()
	settings, err := d.b.readSettings(ctx, storage)
	if err != nil {
		return nil, nil, storageUnavailable(err)
	}
	return d.b.runPrompt(ctx, storage, settings, call, nil)
}

// A sentinel lease watches over the grants of one token: Vault ends it when the
// token is revoked.
const (
	sentinelType  = "grant"
	sentinelToken = "token"
)

func (b *backend) sentinelSecret() *framework.Secret {
	return &framework.Secret{
		Type: sentinelType,
		Fields: map[string]*framework.FieldSchema{
			"granted": {Type: framework.TypeBool, Description: "Vault has let the caller in."},
		},
		DefaultDuration: gateway.LeaseTTL,
		Revoke: func(_ context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
			if token, ok := req.Secret.InternalData[sentinelToken].(string); ok {
				b.gateway.Revoke(token)
			}
			return nil, nil // always: nothing outlives this process
		},
	}
}

// nonceOf returns the gateway's nonce in a request that the gateway might have put,
// and takes it out.
func nonceOf(req *logical.Request) (nonce string, given bool) {
	v, given := req.Data[gateway.NonceField]
	if !given {
		return "", false
	}
	delete(req.Data, gateway.NonceField)
	nonce, _ = v.(string)
	return nonce, true
}

// testify answers the gateway, which asks in a caller's name: by now Vault has let
// the caller in.
func (b *backend) testify(req *logical.Request, nonce string) *logical.Response {
	t := &gateway.Testimony{
		Nonce: nonce, Method: methodOf(req.Operation), Path: req.Path, Caller: callerOf(req),
	}
	if req.Operation == logical.UpdateOperation {
		t.Fields = req.Data
	} else {
		t.Query = queryOf(req.Data).Encode()
	}
	if req.Connection != nil {
		t.Remote = req.Connection.RemoteAddr
	}
	lease, refusal := b.gateway.Testify(t)
	if refusal != nil {
		answer := newBufferedAnswer(0)
		refusal.Write(answer)
		return answer.response()
	}
	data := map[string]any{"granted": true}
	if !lease {
		return &logical.Response{Data: data}
	}
	resp := b.Secret(sentinelType).Response(data, map[string]any{sentinelToken: t.Token})
	resp.Secret.TTL, resp.Secret.MaxTTL, resp.Secret.Renewable = gateway.LeaseTTL, gateway.LeaseTTL, false
	return resp
}

// redirect sends the caller of an inline request on to the gateway; nil if the
// request is to be answered here.
func (b *backend) redirect(req *logical.Request) *logical.Response {
	if req.WrapInfo != nil && req.WrapInfo.TTL > 0 { // a wrapped answer hides the redirect
		return nil
	}
	r := &gateway.Inline{Method: methodOf(req.Operation), Path: req.Path, Caller: callerOf(req)}
	if req.Operation == logical.UpdateOperation {
		r.Fields = req.Data
	} else {
		r.Query = queryOf(req.Data).Encode()
	}
	if req.Connection != nil {
		r.TLS, r.Remote = req.Connection.ConnState != nil, req.Connection.RemoteAddr
	}
	if location := b.gateway.Redirect(r); location != "" {
		return &logical.Response{Redirect: location}
	}
	return nil
}

func callerOf(req *logical.Request) gateway.Caller {
	return gateway.Caller{
		Entity: req.EntityID, DisplayName: req.DisplayName, Accessor: req.ClientTokenAccessor, Token: req.ClientToken,
	}
}

func methodOf(operation logical.Operation) string {
	switch operation {
	case logical.ReadOperation:
		return http.MethodGet
	case logical.DeleteOperation:
		return http.MethodDelete
	}
	return http.MethodPost
}

// startGateway opens the listener, if the gateway is on. It says whether that is
// settled.
func (b *backend) startGateway(ctx context.Context, storage logical.Storage) bool {
	b.gatewayLock.Lock()
	defer b.gatewayLock.Unlock()
	err := b.startStored(ctx, storage)
	if err == nil {
		b.gatewayProblem.Store(nil)
		return true
	}
	if old := b.gatewayProblem.Swap(new(err.Error())); old == nil || *old != err.Error() {
		b.Logger().Warn("the gateway can't be started; it will be tried again", "error", err)
	}
	return false
}

// startStored starts the gateway with the stored settings, unless it is on or there
// are none. gatewayLock is held.
func (b *backend) startStored(ctx context.Context, storage logical.Storage) error {
	if b.gateway.Status().On {
		return nil
	}
	s, err := b.gatewayStore.get(ctx, storage, gatewayEntry)
	if s == nil || err != nil {
		return err
	}
	return b.gateway.Start(s.runtime())
}

// gatewayStatus is what `status` says of the gateway.
func (b *backend) gatewayStatus() map[string]any {
	s := b.gateway.Status()
	problem := s.Problem
	if p := b.gatewayProblem.Load(); p != nil {
		problem = *p
	}
	expires := ""
	if !s.CertificateExpires.IsZero() {
		expires = s.CertificateExpires.UTC().Format(time.RFC3339)
	}
	return map[string]any{
		"on": s.On, "address": s.Address, "url": b.gateway.URL(), "problem": problem, "draining": s.Draining,
		"streams": s.Streams, "connections": s.Connections, "refused_connections": s.Refused,
		"certificate_expires": expires, "mount_path": b.door.Path(),
	}
}

// SPDX-License-Identifier: MPL-2.0

// Package portkey is a Vault secrets engine that gives applications LLM
// completions without ever giving them a provider's API key.
//
// An operator stores provider keys at keys/ and makes virtual keys on them at
// roles/. An app calls proxy/<role>/…, with nothing but its Vault token, as if
// it were the provider; Vault's policies have judged the call by the time it
// arrives here, and the relay takes it to the provider with the real key.
package portkey

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/helper/errutil"
	"github.com/hashicorp/vault/sdk/helper/locksutil"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-portkey/internal/gateway"
	"vault-plugin-secrets-portkey/internal/ledger"
	"vault-plugin-secrets-portkey/internal/provider"
	"vault-plugin-secrets-portkey/internal/relay"
	"vault-plugin-secrets-portkey/internal/sandbox"
	"vault-plugin-secrets-portkey/internal/usage"
)

// Options are what the engine takes from outside.
type Options struct {
	// Version is reported to Vault and by `status`; it must be a semantic
	// version with a leading v.
	Version string
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Transport takes requests to providers; nil means relay.NewTransport.
	Transport http.RoundTripper
}

// Factory returns the function by which Vault makes one backend per mount.
func Factory(o Options) logical.Factory {
	return func(ctx context.Context, conf *logical.BackendConfig) (logical.Backend, error) {
		b, err := newBackend(o)
		if err != nil {
			return nil, err
		}
		if err := b.Setup(ctx, conf); err != nil {
			return nil, err
		}
		return b, nil
	}
}

// Setup is the logical.Backend implementation.
func (b *backend) Setup(ctx context.Context, conf *logical.BackendConfig) error {
	b.view = &systemView{SystemView: conf.System}
	own := *conf
	own.System = b.view
	return b.Backend.Setup(ctx, &own)
}

// backend is the engine of one mount.
type backend struct {
	*framework.Backend
	version string
	now     func() time.Time
	view    *systemView // what Vault says of itself

	catalogue *provider.Catalogue
	relay     *relay.Relay
	transport http.RoundTripper
	activity  *activity
	inline    inlineCalls
	buffered  byteBudget
	prices    *prices
	usage     *usage.Log
	metrics   *metrics
	ledger    atomic.Pointer[ledger.Ledger] // once this instance is active
	alerts    alerts
	wallClock bool // now isn't the machine's clock

	settings *entryStore[settings]
	keys     *entryStore[providerKey]
	roles    *entryStore[role]
	leased   *leasedKeys
	prompts  *promptTemplates

	gateway        *gateway.Gateway
	door           *door
	gatewayStore   *entryStore[gatewaySettings]
	gatewayLock    sync.Mutex
	gatewayProblem atomic.Pointer[string] // why it can't be started

	// One lock per name, striped. A role's lock is taken before a key's.
	keyLocks, roleLocks, promptLocks []*locksutil.LockEntry
	settingsLock                     sync.Mutex
}

// How many decoded entries stay in memory: more than a busy mount uses in a
// minute, and no more than some 10 MB.
const (
	cachedRoles = 8192
	cachedKeys  = 1024
)

func newBackend(o Options) (*backend, error) {
	b := &backend{
		version:   o.Version,
		now:       o.Now,
		transport: o.Transport,
		keyLocks:  locksutil.CreateLocks(),
		roleLocks: locksutil.CreateLocks(),

		promptLocks: locksutil.CreateLocks(),

		alerts:    make(alerts, 256),
		wallClock: o.Now != nil,
	}
	if b.now == nil {
		b.now = time.Now
	}
	var streams http.RoundTripper
	if b.transport == nil {
		provider := sandbox.New(sandbox.Options{})
		b.transport, streams = relay.NewTransport(provider), relay.NewStreamTransport(provider)
	}
	b.activity = newActivity(b)
	b.relay = relay.New(relay.Options{Transport: b.transport, Streams: streams, Now: b.now, Panicked: func(stack string) {
		b.Logger().Error("a request panicked", "stack", stack)
	}})

	b.door = &door{b: b}
	b.gateway = gateway.New(gateway.Options{Mount: b.door, Relay: b.relay, Log: func(message string) { b.Logger().Warn(message) }})

	b.metrics = newMetrics()
	b.usage = usage.New(usage.Options{Prefix: usagePrefix, Now: b.now})

	var errs [8]error
	b.catalogue, errs[0] = provider.Load()
	b.settings, errs[1] = newEntryStore("", 1, (*settings).prepare)
	b.keys, errs[2] = newEntryStore(keyPrefix, cachedKeys, b.prepareKey)
	b.roles, errs[3] = newEntryStore(rolePrefix, cachedRoles, (*role).prepare)
	b.prices, errs[4] = newPrices()
	b.leased, errs[5] = newLeasedKeys()
	b.gatewayStore, errs[6] = newEntryStore(gatewayPrefix, 1, (*gatewaySettings).prepare)
	b.prompts, errs[7] = newPromptTemplates()
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	b.settings.absent = &settings{}

	b.Backend = &framework.Backend{
		Help:           backendHelp,
		BackendType:    logical.TypeLogical,
		RunningVersion: o.Version,
		Paths: framework.PathAppend(
			b.pathConfig(),
			b.pathProviders(),
			b.pathKeys(),
			b.pathRoles(),
			b.pathProxy(),
			b.pathPrompts(),
			b.pathGateway(),
			b.pathCreds(),
			b.pathUsage(),
			b.pathUsageLimits(),
			b.pathPrices(),
			b.pathStatus(),
			b.pathMetrics(),
		),
		PathsSpecial: &logical.Paths{
			Root:            []string{settingsName, gatewayName, gatewayName + "/drain"},
			Unauthenticated: []string{"healthz"},
			SealWrapStorage: []string{keyPrefix, gatewayPrefix},
			LocalStorage:    []string{localPrefix},
		},
		Secrets:        []*framework.Secret{b.leasedKeySecret(), b.sentinelSecret()},
		InitializeFunc: b.activity.initialize,
		Invalidate:     b.invalidate,
		Clean:          b.clean,
	}
	return b, nil
}

// HandleRequest is the logical.Backend implementation. It adds to the
// framework what the framework leaves to each path: JSON text for map fields,
// and an answer with guidance where no path matches.
func (b *backend) HandleRequest(ctx context.Context, req *logical.Request) (*logical.Response, error) {
	req.Storage = countedStorage{req.Storage, b.metrics.writes}
	b.door.learn(req.MountPoint)
	if err := b.prepare(req); err != nil {
		return logical.ErrorResponse(err.Error()), nil
	}
	resp, err := b.Backend.HandleRequest(ctx, req)
	if errors.Is(err, logical.ErrUnsupportedPath) && req.Path != "" {
		return nil, logical.CodedError(http.StatusNotFound, fmt.Sprintf(
			"there is nothing at %s%s; `vault path-help %s` lists the paths, and a name is made of letters, digits, '-', '_' and '.'",
			req.MountPoint, req.Path, req.MountPoint))
	}
	return resp, err
}

// prepare checks and completes what every request brings.
func (b *backend) prepare(req *logical.Request) error {
	path := b.Route(req.Path)
	if path == nil || path.TakesArbitraryInput {
		return nil
	}
	if strings.Contains(req.Path, "..") {
		return fmt.Errorf("a name can't hold two dots in a row")
	}
	if err := prepareData(req.Data, path); err != nil {
		return err
	}
	if req.Operation != logical.PatchOperation {
		return refuseNull(req.Data)
	}
	return nil
}

// HandleExistenceCheck is the logical.Backend implementation.
func (b *backend) HandleExistenceCheck(ctx context.Context, req *logical.Request) (bool, bool, error) {
	if err := b.prepare(req); err != nil {
		// The one kind of error that Vault takes for the caller's fault here.
		return false, false, errutil.UserError{Err: err.Error()}
	}
	return b.Backend.HandleExistenceCheck(ctx, req)
}

// invalidate drops what is cached of an entry that another node changed.
func (b *backend) invalidate(_ context.Context, key string) {
	b.settings.invalidate(key)
	b.keys.invalidate(key)
	b.roles.invalidate(key)
	b.prices.invalidate(key)
	b.leased.entries.invalidate(key)
	b.prompts.invalidate(key)
	b.gatewayStore.invalidate(key)
}

// clean ends the mount's work. Vault holds locks meanwhile, so it is quick.
func (b *backend) clean(context.Context) {
	b.activity.end()
	b.relay.CloseIdleConnections()
}

const backendHelp = `
Virtual keys for LLM providers.

Provider keys are stored at keys/ and never shown again. Virtual keys are made
on them at roles/: many can share one provider key, each with its own allowed
models, callers and expiry. Apps call proxy/<virtual key>/v1/… with a Vault
token, exactly as they would call the provider: set an OpenAI SDK's base_url to
<vault address>/v1/<mount>/proxy/<virtual key>/v1 and its api_key to the token.

To try it without a provider:

    vault write <mount>/keys/test provider=sandbox
    vault write <mount>/roles/demo key=test
    vault write <mount>/proxy/demo model=sandbox-small prompt="Hello"
`

// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-portkey/internal/gateway"
)

// gatewayName is the path of the gateway's settings. They belong to this cluster
// alone, since its addresses do, and hold a TLS key.
const (
	gatewayName   = "config/gateway"
	gatewayPrefix = localPrefix + "gateway/"
	gatewayEntry  = "settings"
)

// gatewaySettings are as they are stored. The zero value of a field means its
// default.
type gatewaySettings struct {
	Address        string   `json:"address"`
	PublicURL      string   `json:"public_url,omitempty"`
	Certificate    string   `json:"tls_certificate,omitempty"`
	Key            string   `json:"tls_key,omitempty"`
	PlainHTTP      bool     `json:"plain_http,omitempty"`
	VaultAddress   string   `json:"vault_address"`
	VaultCA        string   `json:"vault_ca,omitempty"`
	VaultNamespace string   `json:"vault_namespace,omitempty"`
	GrantTTL       *int     `json:"grant_ttl,omitempty"` // seconds
	GrantFields    string   `json:"grant_fields,omitempty"`
	Redirect       string   `json:"redirect,omitempty"`
	CallerAddress  string   `json:"caller_address,omitempty"`
	AllowedOrigins []string `json:"allowed_origins,omitempty"`
	MaxBodyBytes   int      `json:"max_body_bytes,omitempty"`
	MaxConnections int      `json:"max_connections,omitempty"`
	MaxStreams     int      `json:"max_streams,omitempty"`
	Upstream       int      `json:"upstream_timeout,omitempty"` // seconds
	Idle           int      `json:"idle_timeout,omitempty"`     // seconds
}

// Defaults and bounds of the gateway's settings.
const (
	defaultGrantTTL        = 60
	maxGrantTTL            = 3600
	defaultGatewayBody     = 64 << 20
	maxGatewayBody         = 512 << 20
	defaultConnections     = 10_000
	maxConnections         = 1_000_000
	defaultGatewayUpstream = 600
	maxGatewayUpstream     = 24 * 3600
	defaultIdle            = 300
	defaultDrain           = 60
	maxDrain               = 3600
)

// Values of the settings that are words.
const (
	grantFieldsAll, grantFieldsModel   = "all", "model"
	addressForwarded, addressIgnore    = "forwarded", "ignore"
	redirectStream, redirectAll, noWay = string(gateway.RedirectStream), string(gateway.RedirectAll), string(gateway.RedirectOff)
)

func orDefault[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

func (s *gatewaySettings) grantTTL() int {
	if s.GrantTTL == nil {
		return defaultGrantTTL
	}
	return *s.GrantTTL
}

// prepare completes stored settings, which were checked when they were written. What
// is wrong with them by now, such as their certificate's age, must not keep anybody
// from reading and changing them.
func (s *gatewaySettings) prepare() error { return nil }

// check says which setting is wrong and what is right.
func (s *gatewaySettings) check() error {
	switch {
	case s.Address == "":
		return errors.New("address is missing: write the address to listen on, such as 127.0.0.1:8300")
	case s.VaultAddress == "":
		return errors.New("vault_address is missing: write the URL of this Vault's API as the gateway is to ask it, such as http://127.0.0.1:8210")
	}
	for _, word := range []struct {
		name, value string
		known       []string
	}{
		{"grant_fields", s.GrantFields, []string{grantFieldsAll, grantFieldsModel}},
		{"redirect", s.Redirect, []string{redirectStream, redirectAll, noWay}},
		{"caller_address", s.CallerAddress, []string{addressForwarded, addressIgnore}},
	} {
		if err := oneOf(word.name, word.value, word.known); err != nil {
			return err
		}
	}
	for _, n := range []struct {
		name              string
		value, least, max int
	}{
		{"grant_ttl", s.grantTTL(), 0, maxGrantTTL},
		{"max_body_bytes", orDefault(s.MaxBodyBytes, defaultGatewayBody), 1024, maxGatewayBody},
		{"max_connections", orDefault(s.MaxConnections, defaultConnections), 1, maxConnections},
		{"max_streams", orDefault(s.MaxStreams, defaultConnections), 1, maxConnections},
		{"upstream_timeout", orDefault(s.Upstream, defaultGatewayUpstream), 1, maxGatewayUpstream},
		{"idle_timeout", orDefault(s.Idle, defaultIdle), 1, maxGatewayUpstream},
	} {
		if n.value < n.least || n.value > n.max {
			return fmt.Errorf("%s is %d; it must be between %d and %d", n.name, n.value, n.least, n.max)
		}
	}
	if err := s.readableKey(); err != nil {
		return err
	}
	return s.runtime().Check()
}

// readableKey finds a private key in a setting that can be read.
func (s *gatewaySettings) readableKey() error {
	shown := s.responseData()
	for _, name := range slices.Sorted(maps.Keys(shown)) {
		if strings.Contains(fmt.Sprint(shown[name]), "PRIVATE KEY-----") {
			return fmt.Errorf("%s: holds a private key, and this setting can be read; give the key as tls_key alone", name)
		}
	}
	return nil
}

func oneOf(name, value string, known []string) error {
	if value == "" {
		return nil
	}
	for _, word := range known {
		if value == word {
			return nil
		}
	}
	return fmt.Errorf("%s: this is none of its values; write one of %v", name, known)
}

// runtime is the settings as the gateway takes them.
func (s *gatewaySettings) runtime() *gateway.Settings {
	seconds := func(n, otherwise int) time.Duration { return time.Duration(orDefault(n, otherwise)) * time.Second }
	return &gateway.Settings{
		Listen: gateway.ListenConfig{
			Address: s.Address, Certificate: []byte(s.Certificate), Key: []byte(s.Key), PlainHTTP: s.PlainHTTP,
			MaxConnections: orDefault(s.MaxConnections, defaultConnections),
		},
		PublicURL: s.PublicURL, VaultAddress: s.VaultAddress, VaultCA: []byte(s.VaultCA), VaultNamespace: s.VaultNamespace,
		GrantTTL: time.Duration(s.grantTTL()) * time.Second, ModelOnly: s.GrantFields == grantFieldsModel,
		Redirect:            gateway.Redirect(orDefault(s.Redirect, redirectStream)),
		IgnoreCallerAddress: s.CallerAddress == addressIgnore, AllowedOrigins: s.AllowedOrigins,
		MaxBodyBytes: int64(orDefault(s.MaxBodyBytes, defaultGatewayBody)), MaxStreams: orDefault(s.MaxStreams, defaultConnections),
		UpstreamTimeout: seconds(s.Upstream, defaultGatewayUpstream), IdleTimeout: seconds(s.Idle, defaultIdle),
	}
}

// responseData is what an operator may read: all but the TLS key.
func (s *gatewaySettings) responseData() map[string]any {
	return map[string]any{
		"address": s.Address, "public_url": s.PublicURL, "tls_certificate": s.Certificate, "plain_http": s.PlainHTTP,
		"vault_address": s.VaultAddress, "vault_ca": s.VaultCA, "vault_namespace": s.VaultNamespace,
		"grant_ttl": int64(s.grantTTL()), "grant_fields": orDefault(s.GrantFields, grantFieldsAll),
		"redirect": orDefault(s.Redirect, redirectStream), "caller_address": orDefault(s.CallerAddress, addressForwarded),
		"allowed_origins": orEmpty(s.AllowedOrigins),
		"max_body_bytes":  orDefault(s.MaxBodyBytes, defaultGatewayBody), "max_connections": orDefault(s.MaxConnections, defaultConnections),
		"max_streams": orDefault(s.MaxStreams, defaultConnections), "upstream_timeout": int64(orDefault(s.Upstream, defaultGatewayUpstream)),
		"idle_timeout": int64(orDefault(s.Idle, defaultIdle)),
	}
}

func (b *backend) pathGateway() []*framework.Path {
	fields := gatewayFields()
	shown := gatewayFields()
	delete(shown, "tls_key")
	drained := map[string]*framework.FieldSchema{
		"draining": {Type: framework.TypeBool, Required: true, Description: "Whether the gateway refuses new requests."},
		"streams":  {Type: framework.TypeInt64, Required: true, Description: "Requests that are still under way."},
	}
	attributes := func(suffix string) *framework.DisplayAttributes {
		return &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: suffix}
	}
	return []*framework.Path{
		{
			Pattern: gatewayName,
			Fields:  fields,
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.ReadOperation: &framework.PathOperation{
					Callback: b.readGateway, Summary: "Read the gateway's settings.", Responses: ok("The settings in force.", shown),
				},
				logical.UpdateOperation: &framework.PathOperation{
					Callback: b.writeGateway, Summary: "Turn the gateway on, or change its settings; those not named stay.",
					ForwardPerformanceStandby: true, Responses: noContent(),
				},
				logical.DeleteOperation: &framework.PathOperation{
					Callback: b.deleteGateway, Summary: "Turn the gateway off.", ForwardPerformanceStandby: true, Responses: noContent(),
				},
			},
			DisplayAttrs:    attributes("gateway-configuration"),
			HelpSynopsis:    "The gateway: a listener of the plugin's own, for streams and uploads.",
			HelpDescription: gatewayHelp,
		},
		{
			Pattern: gatewayName + "/drain",
			Fields: map[string]*framework.FieldSchema{
				"timeout": {Type: framework.TypeDurationSecond, Default: defaultDrain, Description: "How long the requests under way may go on: up to 1h."},
				"cancel":  {Type: framework.TypeBool, Description: "Take requests again."},
			},
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.UpdateOperation: &framework.PathOperation{
					Callback: b.drainGateway, Summary: "Let the gateway end its requests and take no new ones.",
					ForwardPerformanceStandby: true, Responses: ok("What is under way still.", drained),
				},
			},
			DisplayAttrs: attributes("gateway-drain"),
			HelpSynopsis: "Let the gateway end its requests, before a reload or a step-down.",
			HelpDescription: "It answers at once; write it again, or read status, to see how many requests are left. Those that are left after the timeout are ended. " +
				"It lasts until cancel=true, or until the gateway is turned off; a change of settings doesn't end it.",
		},
	}
}

func (b *backend) readGateway(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	s, err := b.gatewayStore.get(ctx, req.Storage, gatewayEntry)
	if s == nil || err != nil {
		return nil, err
	}
	return &logical.Response{Data: s.responseData()}, nil
}

func (b *backend) writeGateway(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	if err := errors.Join(unknownFields(req, d), wholeSeconds(d, "grant_ttl"), wholeSeconds(d, "upstream_timeout"), wholeSeconds(d, "idle_timeout")); err != nil {
		return logical.ErrorResponse(err.Error()), nil
	}
	if err := b.activity.await(ctx); err != nil {
		return nil, logical.CodedError(http.StatusServiceUnavailable, err.Error())
	}
	b.gatewayLock.Lock()
	defer b.gatewayLock.Unlock()
	old, err := b.gatewayStore.get(ctx, req.Storage, gatewayEntry)
	if err != nil {
		return nil, err
	}
	s := gatewaySettings{}
	if old != nil {
		s = *old
	}
	s.merge(d)
	if err := s.check(); err != nil {
		return logical.ErrorResponse(err.Error()), nil
	}
	// It listens before the settings are stored: an address that can't be used
	// is refused, and the one before goes on.
	err = b.gateway.ApplyIf(s.runtime(), func() error { return b.gatewayStore.put(ctx, req.Storage, gatewayEntry, &s) })
	if err != nil {
		return respond(err)
	}
	b.gatewayProblem.Store(nil)
	return s.warnings(b.gateway.Status(), b.gateway.Place()), nil
}

func (s *gatewaySettings) merge(d *framework.FieldData) {
	for name, to := range map[string]*string{
		"address": &s.Address, "public_url": &s.PublicURL, "tls_certificate": &s.Certificate, "tls_key": &s.Key,
		"vault_address": &s.VaultAddress, "vault_ca": &s.VaultCA, "vault_namespace": &s.VaultNamespace,
		"grant_fields": &s.GrantFields, "redirect": &s.Redirect, "caller_address": &s.CallerAddress,
	} {
		setString(d, name, to)
	}
	for name, to := range map[string]*int{
		"max_body_bytes": &s.MaxBodyBytes, "max_connections": &s.MaxConnections, "max_streams": &s.MaxStreams,
		"upstream_timeout": &s.Upstream, "idle_timeout": &s.Idle,
	} {
		if v, ok := d.GetOk(name); ok {
			*to = v.(int)
		}
	}
	if v, ok := d.GetOk("grant_ttl"); ok {
		ttl := v.(int)
		s.GrantTTL = &ttl
	}
	if v, ok := d.GetOk("plain_http"); ok {
		s.PlainHTTP = v.(bool)
	}
	setList(d, "allowed_origins", &s.AllowedOrigins)
}

func (b *backend) deleteGateway(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	b.gatewayLock.Lock()
	defer b.gatewayLock.Unlock()
	if err := b.gatewayStore.delete(ctx, req.Storage, gatewayEntry); err != nil {
		return nil, err
	}
	b.gatewayProblem.Store(nil)
	return nil, b.gateway.Apply(nil)
}

func (b *backend) drainGateway(_ context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	if err := errors.Join(unknownFields(req, d), wholeSeconds(d, "timeout")); err != nil {
		return logical.ErrorResponse(err.Error()), nil
	}
	timeout := d.Get("timeout").(int)
	if timeout < 0 || timeout > maxDrain {
		return logical.ErrorResponse(fmt.Sprintf("timeout is %ds; it must be between 0s and 1h", timeout)), nil
	}
	if !b.gateway.Status().On {
		return logical.ErrorResponse("the gateway is off, so there is nothing to drain"), nil
	}
	if d.Get("cancel").(bool) {
		b.gateway.Undrain()
	} else {
		b.gateway.Drain(time.Duration(timeout) * time.Second)
	}
	status := b.gateway.Status()
	return &logical.Response{Data: map[string]any{"draining": status.Draining, "streams": status.Streams}}, nil
}

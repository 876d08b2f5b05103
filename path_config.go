// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // time_zone works on machines without a zone database too

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/ryanuber/go-glob"
)

// settingsName is the path and the storage entry of the mount-wide settings.
const settingsName = "config"

// settings are mount-wide. The zero value of a field means its default, so
// that a later version may change defaults.
type settings struct {
	UpstreamTimeoutSeconds int      `json:"upstream_timeout,omitempty"`
	InlineMaxConcurrent    int      `json:"inline_max_concurrent,omitempty"`
	InlineMaxAnswerBytes   int      `json:"inline_max_answer_bytes,omitempty"`
	AllowedUpstreamHosts   []string `json:"allowed_upstream_hosts,omitempty"`
	PlaintextUpstreamHosts []string `json:"plaintext_upstream_hosts,omitempty"`
	DefaultOutputCap       int      `json:"default_output_cap,omitempty"`
	TimeZone               string   `json:"time_zone,omitempty"`

	zone *time.Location // made by prepare
}

// Defaults and bounds. Vault ends a request after 90 s by default, with an
// answer that no SDK understands; our own timeout must come well before.
const (
	defaultUpstreamTimeout = 60 * time.Second
	maxUpstreamTimeout     = 80 * time.Second
	defaultInlineCalls     = 64
	maxInlineCalls         = 4096
	defaultAnswerBytes     = 32 << 20
	maxAnswerBytes         = 256 << 20
	defaultOutputCap       = 16_384
	maxOutputCap           = 10_000_000
)

func (s *settings) upstreamTimeout() time.Duration {
	if s.UpstreamTimeoutSeconds == 0 {
		return defaultUpstreamTimeout
	}
	return time.Duration(s.UpstreamTimeoutSeconds) * time.Second
}

func (s *settings) inlineMaxConcurrent() int {
	if s.InlineMaxConcurrent == 0 {
		return defaultInlineCalls
	}
	return s.InlineMaxConcurrent
}

func (s *settings) inlineMaxAnswerBytes() int {
	if s.InlineMaxAnswerBytes == 0 {
		return defaultAnswerBytes
	}
	return s.InlineMaxAnswerBytes
}

func (s *settings) outputCap() int {
	if s.DefaultOutputCap == 0 {
		return defaultOutputCap
	}
	return s.DefaultOutputCap
}

// location is the zone in which days begin.
func (s *settings) location() *time.Location {
	if s.zone == nil {
		return time.UTC
	}
	return s.zone
}

// prepare checks the settings; the error says which is wrong and what is right.
func (s *settings) prepare() error {
	if t := s.upstreamTimeout(); t < time.Second || t > maxUpstreamTimeout {
		return fmt.Errorf("upstream_timeout is %s; it must be between 1s and %s, since Vault itself ends a request after 90s", t, maxUpstreamTimeout)
	}
	if n := s.inlineMaxConcurrent(); n < 1 || n > maxInlineCalls {
		return fmt.Errorf("inline_max_concurrent is %d; it must be between 1 and %d", n, maxInlineCalls)
	}
	if n := s.inlineMaxAnswerBytes(); n < 1024 || n > maxAnswerBytes {
		return fmt.Errorf("inline_max_answer_bytes is %d; it must be between 1024 and %d", n, maxAnswerBytes)
	}
	if n := s.outputCap(); n < 1 || n > maxOutputCap {
		return fmt.Errorf("default_output_cap is %d; it must be between 1 and %d tokens", n, maxOutputCap)
	}
	zone, err := time.LoadLocation(s.TimeZone)
	if err != nil || s.TimeZone == "Local" {
		// It isn't repeated, for it may be a secret that was put in the wrong place.
		return errors.New("time_zone: this is no time zone; write one such as Europe/Berlin or UTC")
	}
	s.zone = zone
	for _, host := range slices.Concat(s.AllowedUpstreamHosts, s.PlaintextUpstreamHosts) {
		if strings.ContainsAny(host, "/@ ") || strings.Trim(host, "*.:") == "" {
			return fmt.Errorf("host %q: write a host name such as api.openai.com, *.example.com or 10.0.0.5:8000, without scheme or path", host)
		}
	}
	return nil
}

// permits says whether base may be an upstream, and why not.
func (s *settings) permits(base *url.URL) error {
	if base.Scheme != "http" && base.Scheme != "https" {
		return nil // the sandbox, which is no host
	}
	if len(s.AllowedUpstreamHosts) > 0 && !matchesHost(s.AllowedUpstreamHosts, base) {
		return fmt.Errorf("upstream host %q is not among the mount's allowed_upstream_hosts (%s)",
			base.Host, strings.Join(s.AllowedUpstreamHosts, ", "))
	}
	if base.Scheme == "https" || isLoopback(base.Hostname()) || matchesHost(s.PlaintextUpstreamHosts, base) {
		return nil
	}
	return fmt.Errorf("base_url must be https, since the provider key would cross the network in clear; "+
		"for a host that you trust with it, `vault write <mount>/config plaintext_upstream_hosts=%s`", base.Host)
}

// matchesHost compares globs with the host, and with host:port.
func matchesHost(globs []string, u *url.URL) bool {
	host, hostport := strings.ToLower(u.Hostname()), strings.ToLower(u.Host)
	if u.Port() == "" {
		hostport = net.JoinHostPort(host, map[string]string{"https": "443", "http": "80"}[u.Scheme])
	}
	return slices.ContainsFunc(globs, func(pattern string) bool {
		pattern = strings.ToLower(pattern)
		return glob.Glob(pattern, host) || glob.Glob(pattern, hostport)
	})
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// readSettings returns the mount's settings, the defaults where none were
// written.
func (b *backend) readSettings(ctx context.Context, storage logical.Storage) (*settings, error) {
	return b.settings.get(ctx, storage, settingsName)
}

func (s *settings) responseData() map[string]any {
	return map[string]any{
		"upstream_timeout":         int64(s.upstreamTimeout() / time.Second),
		"inline_max_concurrent":    s.inlineMaxConcurrent(),
		"inline_max_answer_bytes":  s.inlineMaxAnswerBytes(),
		"allowed_upstream_hosts":   orEmpty(s.AllowedUpstreamHosts),
		"plaintext_upstream_hosts": orEmpty(s.PlaintextUpstreamHosts),
		"default_output_cap":       s.outputCap(),
		"time_zone":                s.location().String(),
	}
}

// orEmpty makes an absent list an empty one, for JSON.
func orEmpty(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

func (b *backend) pathConfig() []*framework.Path {
	fields := map[string]*framework.FieldSchema{
		"upstream_timeout": {
			Type: framework.TypeDurationSecond, Default: int(defaultUpstreamTimeout / time.Second),
			Description: "How long the provider may take for a whole answer on the inline path: 1s to 80s. 0 restores the default.",
		},
		"inline_max_concurrent": {
			Type: framework.TypeInt, Default: defaultInlineCalls,
			Description: "How many inline calls may run at once; more get 429. Vault can't seal or change mounts while one runs. 0 restores the default.",
		},
		"inline_max_answer_bytes": {
			Type: framework.TypeInt, Default: defaultAnswerBytes,
			Description: "The largest answer that the inline path buffers, in bytes. 0 restores the default.",
		},
		"allowed_upstream_hosts": {
			Type:        framework.TypeCommaStringSlice,
			Description: "The only hosts that provider keys may be sent to, as globs of host or host:port. Empty allows any.",
		},
		"plaintext_upstream_hosts": {
			Type:        framework.TypeCommaStringSlice,
			Description: "Hosts that may be reached by plain http, as globs of host or host:port. Loopback always may.",
		},
		"default_output_cap": {
			Type: framework.TypeInt, Default: defaultOutputCap,
			Description: "How many output tokens a request may use that names no cap, or fewer where its model allows fewer: what hard limits reserve and send as its cap, and what is charged when the outcome is unknown. 0 restores the default.",
		},
		"time_zone": {
			Type: framework.TypeString, Default: "UTC",
			Description: "The zone in which days begin, such as Europe/Berlin.",
		},
	}
	return []*framework.Path{{
		Pattern: settingsName,
		Fields:  fields,
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback: b.readConfig, Summary: "Read the mount-wide settings.",
				Responses: ok("The settings in force.", fields),
			},
			logical.UpdateOperation: &framework.PathOperation{
				Callback: b.writeConfig, Summary: "Change mount-wide settings; those not named stay.",
				Responses: noContent(),
			},
			logical.DeleteOperation: &framework.PathOperation{
				Callback: b.deleteConfig, Summary: "Restore every default.",
				Responses: noContent(),
			},
		},
		DisplayAttrs:    &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "configuration"},
		HelpSynopsis:    "Mount-wide settings: timeouts, caps of the inline path, and where provider keys may go.",
		HelpDescription: configHelp,
	}}
}

func (b *backend) readConfig(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	s, err := b.readSettings(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	return &logical.Response{Data: s.responseData()}, nil
}

func (b *backend) writeConfig(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	if err := errors.Join(unknownFields(req, d), wholeSeconds(d, "upstream_timeout")); err != nil {
		return logical.ErrorResponse(err.Error()), nil
	}
	b.settingsLock.Lock()
	defer b.settingsLock.Unlock()
	old, err := b.readSettings(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	s := *old
	for name, to := range map[string]*int{
		"upstream_timeout": &s.UpstreamTimeoutSeconds, "inline_max_concurrent": &s.InlineMaxConcurrent, "inline_max_answer_bytes": &s.InlineMaxAnswerBytes,
		"default_output_cap": &s.DefaultOutputCap,
	} {
		if v, ok := d.GetOk(name); ok {
			*to = v.(int)
		}
	}
	setList(d, "allowed_upstream_hosts", &s.AllowedUpstreamHosts)
	setList(d, "plaintext_upstream_hosts", &s.PlaintextUpstreamHosts)
	setString(d, "time_zone", &s.TimeZone)
	if err := s.prepare(); err != nil {
		return logical.ErrorResponse(err.Error()), nil
	}
	if err := b.settings.put(ctx, req.Storage, settingsName, &s); err != nil {
		return nil, err
	}
	return b.warnOfRefusedKeys(ctx, req.Storage, &s), nil
}

// warnOfRefusedKeys names the stored keys whose upstream the settings refuse:
// their next use fails.
func (b *backend) warnOfRefusedKeys(ctx context.Context, storage logical.Storage, s *settings) *logical.Response {
	resp := &logical.Response{}
	names, err := b.keys.list(ctx, storage)
	if err != nil {
		resp.AddWarning("the settings are stored, but the provider keys could not be checked against them: " + err.Error())
	}
	for _, name := range names {
		key, err := b.keys.get(ctx, storage, name)
		if err == nil && key != nil {
			err = s.permits(key.target.Base())
		}
		if err != nil {
			resp.AddWarning(fmt.Sprintf("provider key %q can't be used: %s", name, err))
		}
	}
	if len(resp.Warnings) == 0 {
		return nil
	}
	return resp
}

func (b *backend) deleteConfig(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	b.settingsLock.Lock()
	defer b.settingsLock.Unlock()
	return nil, b.settings.delete(ctx, req.Storage, settingsName)
}

const configHelp = `
The settings apply to every provider key and virtual key of the mount, from the
next request on. The path needs sudo in a policy.
`

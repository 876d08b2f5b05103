// SPDX-License-Identifier: MPL-2.0

//go:build unix

package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"vault-plugin-secrets-portkey/bench/internal/chat"
)

// virtualKey is the virtual key of every mount, upstreamKey the provider's.
const virtualKey, upstreamKey = "bench", "sk-bench-upstream-0123456789"

// sandboxKey is the virtual key on the plugin's own sandbox.
const sandboxKey = "sandbox"

// mount enables a plugin at a path of its own name, with a provider key for the
// upstream, prices for its models, and a virtual key whose limits are kept but
// never reached. A mount that is there already stays.
func (s *stage) mount(ctx context.Context, plugin string) (*vault, error) {
	v, err := s.theVault(ctx)
	if err != nil {
		return nil, err
	}
	var mounts struct{ Data map[string]any }
	if err := v.call(ctx, http.MethodGet, "sys/mounts", nil, &mounts); err != nil {
		return nil, err
	}
	if mounts.Data[plugin+"/"] != nil {
		return v, nil
	}
	type write struct {
		path string
		body map[string]any
	}
	limits := []string{"usd=1000000/month", "requests=1000000000/minute", "tokens=1000000000000/day"}
	writes := []write{
		{"sys/mounts/" + plugin, map[string]any{"type": plugin}},
		{plugin + "/keys/bench", map[string]any{"provider": "openai-compatible", "base_url": s.upstream + "/v1", "api_key": upstreamKey}},
		{plugin + "/keys/sandbox", map[string]any{"provider": "sandbox"}},
		{plugin + "/roles/" + virtualKey, map[string]any{"key": "bench", "limits": limits}},
		{plugin + "/roles/" + sandboxKey, map[string]any{"key": "sandbox", "limits": limits}},
	}
	for _, kib := range s.options.bodies {
		writes = append(writes, write{plugin + "/prices/openai-compatible/" + chat.Model(kib), map[string]any{"input": "0.15", "output": "0.6"}})
	}
	for _, w := range writes {
		if err := v.call(ctx, http.MethodPost, w.path, w.body, nil); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// proxyPath is where a mount answers for the virtual key, in Vault and on the
// gateway alike.
func proxyPath(mount string) string { return "/v1/" + mount + "/proxy/" + virtualKey + chat.Path }

// startInline asks through Vault; the mount has no gateway.
func (s *stage) startInline(ctx context.Context) (endpoint, error) {
	return s.throughVault(ctx, "proxy", virtualKey)
}

// startNoop asks the same mount for the same answer, which it has ready.
func (s *stage) startNoop(ctx context.Context) (endpoint, error) {
	return s.throughVault(ctx, "noop", virtualKey)
}

// startInlineSandbox is startInline with the plugin's own sandbox for a provider, so
// that nothing but Vault and the plugin is measured.
func (s *stage) startInlineSandbox(ctx context.Context) (endpoint, error) {
	return s.throughVault(ctx, "proxy", sandboxKey)
}

// startNoopSandbox asks for the sandbox's answer, which the mount has ready.
func (s *stage) startNoopSandbox(ctx context.Context) (endpoint, error) {
	return s.throughVault(ctx, "noop", sandboxKey)
}

func (s *stage) throughVault(ctx context.Context, path, virtualKey string) (endpoint, error) {
	v, err := s.mount(ctx, pluginInline)
	if err != nil {
		return endpoint{}, err
	}
	return endpoint{
		addr: v.addr, path: "/v1/" + pluginInline + "/" + path + "/" + virtualKey + chat.Path, header: []string{"Authorization: Bearer " + v.token},
		processes: func() []int { return v.withPlugin(pluginInline) },
	}, nil
}

// startGateway asks the gateway with a Vault token, whose grant it keeps.
func (s *stage) startGateway(ctx context.Context) (endpoint, error) {
	v, e, err := s.gateway(ctx, pluginGateway, "60s")
	if err != nil {
		return endpoint{}, err
	}
	e.header = []string{"Authorization: Bearer " + v.token}
	return e, nil
}

// startGatewayLeased asks the same gateway with a leased key.
func (s *stage) startGatewayLeased(ctx context.Context) (endpoint, error) {
	v, e, err := s.gateway(ctx, pluginGateway, "60s")
	if err != nil {
		return endpoint{}, err
	}
	var leased struct {
		Data struct {
			APIKey string `json:"api_key"`
		}
	}
	if err := v.call(ctx, http.MethodGet, pluginGateway+"/creds/"+virtualKey, nil, &leased); err != nil {
		return endpoint{}, err
	}
	e.header = []string{"Authorization: Bearer " + leased.Data.APIKey}
	return e, nil
}

// startGatewayAsk asks a gateway that asks Vault each time. Vault's own work
// counts for it.
func (s *stage) startGatewayAsk(ctx context.Context) (endpoint, error) {
	v, e, err := s.gateway(ctx, pluginAsk, "0")
	if err != nil {
		return endpoint{}, err
	}
	e.header = []string{"Authorization: Bearer " + v.token}
	e.processes = func() []int { return v.withPlugin(pluginAsk) }
	return e, nil
}

// gateway turns a mount's gateway on, unless it is. The endpoint has no
// credential yet.
func (s *stage) gateway(ctx context.Context, plugin, grantTTL string) (*vault, endpoint, error) {
	v, err := s.mount(ctx, plugin)
	if err != nil {
		return nil, endpoint{}, err
	}
	addr := s.gateways[plugin]
	if addr == "" {
		if addr, err = freeAddr(); err != nil {
			return nil, endpoint{}, err
		}
		if err := v.call(ctx, http.MethodPost, plugin+"/config/gateway", map[string]any{
			"address": addr, "vault_address": "http://" + v.addr, "caller_address": "ignore", "grant_ttl": grantTTL,
		}, nil); err != nil {
			return nil, endpoint{}, err
		}
		if err := s.answers(ctx, v.process, "http://"+addr+"/readyz", 20*time.Second); err != nil {
			return nil, endpoint{}, fmt.Errorf("the gateway of %s: %w", plugin, err)
		}
		s.gateways[plugin] = addr
	}
	return v, endpoint{addr: addr, path: proxyPath(plugin), processes: func() []int { return v.plugin(plugin) }}, nil
}

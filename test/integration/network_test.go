// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"

	"vault-plugin-secrets-portkey/test/upstream"
	"vault-plugin-secrets-portkey/test/vaulttest"
)

// Neither name resolves: .test and .invalid never do (RFC 6761).
const (
	proxiedHost = "llm.example.test"
	directHost  = "direct.example.invalid"
)

func TestNetwork_HTTPSProxyIsHonouredHTTP2IsUsedAndConnectionsAreKept(t *testing.T) {
	up := upstream.Start(t, upstream.Options{TLS: true, Hosts: []string{proxiedHost}})
	plain := upstream.Start(t, upstream.Options{})
	proxy := upstream.StartProxy(t)
	proxy.Route(proxiedHost+":443", up.Addr())
	v := vaulttest.Start(t, vaulttest.Options{Env: []string{
		"HTTPS_PROXY=" + proxy.URL(), "NO_PROXY=" + directHost, "SSL_CERT_FILE=" + up.CAFile(),
	}})
	v.Enable(t, mount, nil)
	root := v.Client(v.RootToken)
	for name, url := range map[string]string{
		"proxied": "https://" + proxiedHost + "/v1", "direct": "https://" + directHost + "/v1", "tls": up.URL(), "plain": plain.URL(),
	} {
		root.Write(t, mount+"/keys/"+name, map[string]any{"provider": "openai-compatible", "base_url": url})
		root.Write(t, mount+"/roles/"+name, map[string]any{"key": name})
	}
	ask := func(role string) *vaulttest.Response {
		return post(t, root, chatPath(mount, role), map[string]any{"model": "up-ok", "messages": []any{}})
	}

	t.Run("ThroughTheProxyWithHTTP2", func(t *testing.T) {
		wantCompletion(t, ask("proxied"))
		got := lastRequest(t, up)
		if want := []string{proxiedHost + ":443"}; !slices.Equal(proxy.Hosts(), want) || got.Host != proxiedHost {
			t.Errorf("the proxy was asked for %v, the provider as %s", proxy.Hosts(), got.Host)
		}
		if got.Proto != "HTTP/2.0" {
			t.Errorf("the provider was asked by %s", got.Proto)
		}
		// Its tunnel is kept like any connection.
		wantCompletion(t, ask("proxied"))
		if hosts := proxy.Hosts(); len(hosts) != 1 {
			t.Errorf("the proxy was asked for %v", hosts)
		}
	})
	t.Run("AHostInNoProxyIsNotAskedThroughIt", func(t *testing.T) {
		resp := ask("direct")
		if resp.Status != http.StatusBadGateway && resp.Status != http.StatusGatewayTimeout {
			t.Errorf("a host that doesn't exist: %s", resp)
		}
		if slices.Contains(proxy.Hosts(), directHost+":443") {
			t.Errorf("the proxy was asked for %v", proxy.Hosts())
		}
	})
	t.Run("HTTP2CallsShareOneConnection", func(t *testing.T) {
		wantCompletion(t, ask("tls"))
		before := up.Connections()
		askMany(t, root, "tls")
		if n := up.Connections() - before; n != 0 {
			t.Errorf("%d new connections", n)
		}
	})
	t.Run("HTTP11ConnectionsAreReused", func(t *testing.T) {
		for range 20 {
			wantCompletion(t, ask("plain"))
		}
		if n := plain.Connections(); n != 1 {
			t.Errorf("20 calls, one after another, took %d connections", n)
		}
		askMany(t, root, "plain")
		// Two for each caller: Go dials ahead when none is free at once.
		if n := plain.Connections(); n > 2*callers {
			t.Errorf("%d callers took %d connections", callers, n)
		}
	})
}

const callers = 8

// askMany has many callers ask ten times each.
func askMany(t *testing.T, c *vaulttest.Client, role string) {
	t.Helper()
	var asking sync.WaitGroup
	failures := make(chan error, callers)
	for range callers {
		asking.Go(func() {
			for range 10 {
				resp, err := c.Do(t.Context(), http.MethodPost, chatPath(mount, role), map[string]any{"model": "up-ok", "messages": []any{}})
				if err != nil || resp.Status != http.StatusOK {
					failures <- fmt.Errorf("%v %w", resp, err)
					return
				}
			}
		})
	}
	asking.Wait()
	close(failures)
	for err := range failures {
		t.Error(err)
	}
}

// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
)

// addressInUse: an address that another program has is refused, and nothing
// changes. If one has the gateway's own when the plugin starts, that is tried again
// and shown.
func (r *rig) addressInUse(t *testing.T) {
	v := r.limited(t, "address", "requests=1000/day")
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	before := r.root.Read(t, mount+"/config/gateway").Data()
	wait := v.streams(t, 4, ask{model: "up-stream:20:50", prompt: 100, cap: 300, stream: true})
	resp := post(t, r.root, mount+"/config/gateway", map[string]any{"address": other.Addr().String(), "grant_ttl": "5s"})
	if said := strings.Join(resp.Errors(), ""); resp.Status != http.StatusBadRequest || !strings.Contains(said, other.Addr().String()+" is already in use") {
		t.Errorf("an address in use: %s", resp)
	}
	if after := r.root.Read(t, mount+"/config/gateway").Data(); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("a refused write changed %v\nto %v", before, after)
	}
	wantWhole(t, v.streams(t, 2, ask{model: "up-stream:3:1", prompt: 10, cap: 10, stream: true})())
	wantWhole(t, wait())

	var squatter net.Listener
	eventually(t, "the gateway's address to be taken", func() bool {
		if len(r.vault.PluginPIDs()) > 0 { // anybody's request makes Vault start another
			r.vault.Nodes()[0].KillPlugins(t)
		}
		squatter, err = net.Listen("tcp", r.gateway.addr)
		return err == nil
	})
	defer func() { _ = squatter.Close() }()
	r.healthy(t)
	status := func() (url, problem string) {
		s := r.gatewayStatus(t)
		url, _ = s["url"].(string)
		problem, _ = s["problem"].(string)
		return url, problem
	}
	eventually(t, "status to show the problem", func() bool {
		url, problem := status()
		return url == "" && strings.Contains(problem, r.gateway.addr+" is already in use") && strings.Contains(problem, "retrying")
	})
	app := r.vault.Balanced(r.vault.Token(t, v.name), patience)
	wantStatus(t, v.post(t, app, ask{model: "up-ok", prompt: 10, cap: 10, stream: true}), http.StatusOK) // not redirected
	_ = squatter.Close()
	t.Logf("the gateway is up %v after its address was free", r.gateway.awaitReady(t))
	if url, problem := status(); url != r.gateway.url || problem != "" {
		t.Errorf("the gateway's URL is %q and its problem %q", url, problem)
	}
	wantWhole(t, v.streams(t, 2, ask{model: "up-stream:3:1", prompt: 10, cap: 10, stream: true})())
}

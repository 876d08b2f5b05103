// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/test/vaulttest"
)

// gatewayDoor is the way to a rig's virtual keys by the gateway.
type gatewayDoor struct {
	*gatewayRig
	addr string // host:port, the same over restarts, unless settings name another
	told *told
}

// startGatewayRig is startRig with the gateway on, and callers going there: half of
// them with Vault tokens, half with leased keys.
//
// Three nodes ask Vault by a load balancer, which is where vault_address points in such
// a cluster. Their callers know three addresses: see startCluster.
func startGatewayRig(t *testing.T, o vaulttest.Options, settings map[string]any) *rig {
	t.Helper()
	believing := vaulttest.FreeAddr(t)
	if o.Nodes <= 1 {
		o.Config += believingListener(believing)
	}
	r := startRig(t, o)
	g := &gatewayRig{vault: r.vault, root: r.root, mount: mount, believing: "http://" + believing}
	if o.Nodes > 1 {
		g.believing = balanced(t, r.vault)
		settings = with(map[string]any{"caller_address": "ignore"}, settings)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 256}
	t.Cleanup(transport.CloseIdleConnections)
	r.gateway = &gatewayDoor{gatewayRig: g, addr: vaulttest.FreeAddr(t), told: &told{to: transport, nano: map[string]int64{}}}
	r.gateway.open(t, with(map[string]any{"address": r.gateway.addr}, settings))
	return r
}

// balanced is the URL of a load balancer before the active node, which asks every node
// for its health a few times a second.
func balanced(t *testing.T, v *vaulttest.Vault) string {
	t.Helper()
	var active atomic.Pointer[url.URL]
	for _, n := range v.Nodes() {
		to, err := url.Parse(n.Addr)
		if err != nil {
			t.Fatal(err)
		}
		active.CompareAndSwap(nil, to)
		ctx, stop := contextOf(t)
		var asking sync.WaitGroup
		asking.Go(func() {
			for ctx.Err() == nil {
				call, cancel := context.WithTimeout(ctx, time.Second)
				if resp, err := n.Client("").Do(call, http.MethodGet, "sys/health", nil); err == nil && resp.Status == http.StatusOK {
					active.Store(to)
				}
				cancel()
				time.Sleep(200 * time.Millisecond)
			}
		})
		t.Cleanup(func() { stop(); asking.Wait() })
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 256}
	proxy := &httputil.ReverseProxy{
		Transport: transport,
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(active.Load()) },
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
			w.WriteHeader(http.StatusBadGateway) // no news where nodes are killed
		},
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fullDuplex(w)
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		server.Close()
		transport.CloseIdleConnections()
	})
	return server.URL
}

// client returns a client of the gateway with a Vault token or a leased key.
// timeout bounds a call.
func (g *gatewayDoor) client(credential string, timeout time.Duration) *vaulttest.Client {
	return &vaulttest.Client{Addr: g.url, Token: credential, HTTP: &http.Client{Transport: g.told, Timeout: timeout}}
}

// leaser is the policy that lets a token lease keys of the virtual key.
func (v *virtual) leaser(t *testing.T) string {
	t.Helper()
	name := "lease-" + v.name
	v.vault.Policy(t, name, fmt.Sprintf("path %q { capabilities = [\"read\"] }", mount+"/creds/"+v.name))
	return name
}

// lease returns a key of the virtual key, leased with a token.
func (v *virtual) lease(t *testing.T, token string) string {
	t.Helper()
	c := v.vault.Balanced(token, patience)
	for try := 1; ; try++ {
		resp := do(t, c, http.MethodGet, mount+"/creds/"+v.name, nil)
		if key, _ := resp.Data()["api_key"].(string); key != "" {
			return key
		}
		// A node that has just lost its leadership is asked once, no more.
		if resp.Status < http.StatusInternalServerError || try == 5 {
			t.Fatalf("no leased key: %s", resp)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// told adds up what the gateway says that answers cost, by the path that was asked.
// It is safe for concurrent use.
type told struct {
	to   http.RoundTripper
	mu   sync.Mutex
	nano map[string]int64
	odd  []string
}

// RoundTrip implements http.RoundTripper.
func (o *told) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := o.to.RoundTrip(req)
	if err == nil && resp.StatusCode == http.StatusOK {
		resp.Body = &toldBody{ReadCloser: resp.Body, resp: resp, end: func() { o.add(req.URL.Path, resp) }}
	}
	return resp, err
}

// add takes the cost of an answer that came whole, from wherever it is.
func (o *told) add(path string, resp *http.Response) {
	const name = "X-Portkey-Cost"
	text := resp.Header.Get(name) + resp.Trailer.Get(name)
	n, err := nano(text)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.nano[path] += n
	if err != nil && len(o.odd) < 5 {
		o.odd = append(o.odd, fmt.Sprintf("%s: an answer that cost %q: %v", path, text, err))
	}
}

// toldBody calls end when the body has come whole.
type toldBody struct {
	io.ReadCloser
	resp *http.Response
	end  func()
}

// Read implements io.Reader.
func (b *toldBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) && b.end != nil {
		b.end()
		b.end = nil
	}
	return n, err
}

// wantTold fails the test unless the answers on a virtual key said that they cost,
// together, what usage says.
func (v *virtual) wantTold(t *testing.T) {
	t.Helper()
	said := v.gateway.told
	said.mu.Lock()
	defer said.mu.Unlock()
	if got, want := said.nano["/v1/"+chatPath(mount, v.name)], v.standing(t).cost(t); got != want {
		t.Errorf("%s: answers said that they cost %d nano-dollars together, and usage says %d", v.name, got, want)
	}
	for _, text := range said.odd {
		t.Error(text)
	}
}

// TestGatewayLimits_Exhaustion: many clients at once, streaming or not, with Vault
// tokens and with leased keys, spend a virtual key to its end. What the provider
// delivered is what the limit allows, and what answers and usage say, to the
// nano-dollar.
func TestGatewayLimits_Exhaustion(t *testing.T) {
	t.Parallel()
	r := startGatewayRig(t, vaulttest.Options{}, nil)
	for round := range rounds(1, 5) {
		exhaust := func(name string, clients int, limits ...string) {
			t.Run(fmt.Sprintf("%s-%d", name, round), func(t *testing.T) {
				role := fmt.Sprintf("%s-%d", strings.ToLower(name), round)
				r.exhaust(t, role, clients, limits...)
				(&virtual{rig: r, name: role}).wantTold(t)
			})
		}
		exhaust("USD", rounds(100, 200), "usd=1/month")
		exhaust("Requests", rounds(60, 100), "requests=300/day")
		exhaust("Tokens", rounds(60, 100), "tokens=60000/total")
		if soaking() {
			exhaust("InputTokens", 50, "input_tokens=10000/week")
			exhaust("OutputTokens", 50, "output_tokens=40000/30d")
			exhaust("ThreeAtOnce", 100, "usd=0.7/month", "requests=250/week", "tokens=70000/day on up-*")
		}
		t.Run(fmt.Sprintf("Concurrent-%d", round), func(t *testing.T) { r.concurrency(t, fmt.Sprintf("concurrent-%d", round)) })
		t.Run(fmt.Sprintf("SlotIsFreeAtTheEndOfAStream-%d", round), func(t *testing.T) { r.slotAtStreamsEnd(t, fmt.Sprintf("slot-%d", round)) })
		t.Run(fmt.Sprintf("PerEntity-%d", round), func(t *testing.T) { r.perEntityAtGateway(t, fmt.Sprintf("entity-%d", round)) })
	}
}

// slotAtStreamsEnd: a caller that has read a stream to its end, as clients do that
// look for [DONE], may ask again at once: its slot is free.
func (r *rig) slotAtStreamsEnd(t *testing.T, name string) {
	v := r.limited(t, name, "concurrent=1")
	c := v.client(t)
	a := ask{model: "up-stream:3:0", prompt: 10, cap: 100, stream: true}
	refused := 0
	const asked = 200
	for range asked {
		req, err := c.NewRequest(t.Context(), http.MethodPost, chatPath(mount, name), bytes.NewReader(a.text()))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.HTTP.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != http.StatusOK {
			refused++
		}
		lines := bufio.NewScanner(resp.Body)
		for lines.Scan() && lines.Text() != "data: [DONE]" {
			continue
		}
		defer func() { _ = resp.Body.Close() }() // not before: that would be going away
	}
	if refused > 0 {
		t.Errorf("of %d requests, each made when the one before had ended, %d were refused", asked, refused)
	}
}

// perEntityAtGateway: a leased key counts for the entity of the token that leased
// it, together with that token; callers without an entity share one count, however
// they come.
func (r *rig) perEntityAtGateway(t *testing.T, name string) {
	v := r.limited(t, name, "usd=0.15/month per entity", "usd=5/month")
	loads := map[string]*load{} // by entity, as usage/<role> names them
	clients := map[string][]*vaulttest.Client{}
	add := func(entity, token string) {
		for i, credential := range []string{token, v.lease(t, token)} {
			for range 4 + i {
				clients[entity] = append(clients[entity], v.gateway.client(credential, patience))
			}
		}
		if loads[entity] == nil { // a model of its own tells them apart at the provider
			loads[entity] = &load{v: v, next: randomAsk(fmt.Sprintf("up-random:%d:400:100", len(loads)+1))}
		}
	}
	for i := range 3 {
		login := r.vault.Userpass(t, fmt.Sprintf("%s-user-%d", name, i), name, v.leaser(t))
		add(login.EntityID, login.Token)
	}
	for range 2 {
		add("none", r.vault.Token(t, name, v.leaser(t)))
	}
	began := time.Now()
	var group sync.WaitGroup
	for entity, l := range loads {
		group.Go(l.start(t.Context(), clients[entity]))
	}
	group.Wait()
	byModel, total := map[string]int64{}, int64(0)
	s := v.settled(t)
	for key, d := range v.up.Delivered() {
		byModel[key.Model] += in("usd", d)
		total += in("usd", d)
	}
	for entity, l := range loads {
		l.report(t, began)
		i := slices.IndexFunc(s.Limits, func(row limitRow) bool { return row.Entity == entity })
		if i < 0 {
			t.Errorf("usage doesn't show %s: %+v", entity, s.Limits)
			continue
		}
		a := l.next(r.dice)
		a.prompt, a.cap = 400, minOutput
		row, delivered := s.Limits[i], byModel[a.model]
		if int64(row.Used) != delivered || delivered > int64(row.Max) || delivered <= int64(row.Max)-a.least("usd") {
			t.Errorf("entity %s has used %d of %d, and %d was delivered", entity, row.Used, row.Max, delivered)
		}
	}
	if int64(s.Limits[0].Used) != total || s.cost(t) != total {
		t.Errorf("all together have used %+v, the record has %s, and %d was delivered", s.Limits[0], s.Total.Cost, total)
	}
	v.wantTold(t)
}

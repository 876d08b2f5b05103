// SPDX-License-Identifier: MPL-2.0

//go:build integration && linux

package integration_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/test/vaulttest"
)

const (
	// freshness is for how long a gateway takes requests after Vault's storage last
	// confirmed that it may.
	freshness = 5 * time.Second
	// slack is what a busy machine may add until a request that was let in is at the
	// provider.
	slack = 5 * time.Second
	// resumption is how long apps may be without service when the leader is lost: an
	// election, and the start of the mount and its plugin, on a busy machine.
	resumption = time.Minute
	// appTimeout is how long an app waits for an answer before it tries another address.
	appTimeout = 5 * time.Second
)

// TestGatewayFailover: the leader of three nodes is lost in every way while callers
// use the gateway at three addresses. They are served again, by the gateway of the next
// leader; limits hold as over any crash; the old leader's gateway lets nobody in any
// more, though it is asked all the time; and one of a standby takes no connections.
func TestGatewayFailover(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	for i := range rounds(1, 5) {
		for _, l := range []loss{
			{name: "SteppedDown", begin: func(t *testing.T, _ *vaulttest.Node) { c.vault.StepDown(t) }},
			{
				name:  "Killed",
				begin: func(_ *testing.T, old *vaulttest.Node) { old.Kill() },
				end:   func(t *testing.T, old *vaulttest.Node) { old.Restart(t) },
			},
			{name: "CutOff", begin: c.cutOff, end: c.rejoin},
			// Vault stops and its gateway lives on. Then it wakes up cut off from the
			// others, where it takes itself for the leader.
			{
				name:  "Paused",
				begin: func(t *testing.T, old *vaulttest.Node) { old.Pause(t) },
				wake: func(t *testing.T, old *vaulttest.Node) {
					c.cutOff(t, old)
					old.Continue(t)
				},
				end: c.rejoin,
			},
		} {
			t.Run(fmt.Sprintf("%s-%d", l.name, i), func(t *testing.T) {
				c.lose(t, fmt.Sprintf("%s-%d", strings.ToLower(l.name), i), l)
			})
		}
	}
}

func (c *cluster) cutOff(t *testing.T, n *vaulttest.Node) { c.vault.CutOff(t, n) }
func (c *cluster) rejoin(t *testing.T, n *vaulttest.Node) { c.vault.Rejoin(t, n) }

// loss is how a leader is lost.
type loss struct {
	name string
	// begin loses it.
	begin func(t *testing.T, old *vaulttest.Node)
	// wake has one whose gateway outlives its leadership find out; nil if it finds out
	// by itself.
	wake func(t *testing.T, old *vaulttest.Node)
	// end has it be a standby; nil if it is one.
	end func(t *testing.T, old *vaulttest.Node)
}

// lose has the leader be lost under load.
func (c *cluster) lose(t *testing.T, name string, how loss) {
	old := c.vault.Leader(t)
	c.gateway.awaitReady(t)
	c.wantOpenOnlyAt(t, old)
	app := c.limited(t, name+"-app", "usd=10/month")
	apps := app.clients(t, 2, appTimeout)
	for _, a := range apps {
		app.awaitServed(t, a)
	}
	c.crash(t, name, c.part(), func(*virtual) {
		asked := c.keepAsking(t, name, old)
		began := time.Now()
		how.begin(t, old)
		leader := c.vault.Leader(t)
		eventually(t, "the next leader's gateway to be ready", func() bool {
			return statusOf(t.Context(), c.fronts[leader].http, "http://"+c.fronts[leader].host+"/readyz") == http.StatusOK
		})
		for _, a := range apps { // they know three addresses
			app.awaitServed(t, a)
		}
		took := time.Since(began)
		t.Logf("%s serves %v after %s began to be lost", leader, took, old)
		if took > resumption {
			t.Errorf("apps were without service for %v, at most %v is expected", took, resumption)
		}

		asked.untilClosed(t, began, how.wake != nil)
		if how.wake != nil {
			asked.wantClosed(t)
			woken := time.Now()
			how.wake(t, old)
			asked.untilClosed(t, woken, false)
		}
		asked.stop()
		if how.end != nil {
			how.end(t, old)
		}
		asked.wantAccounted(t)
		c.wantOpenOnlyAt(t, leader)
	})
}

// awaitServed waits until a caller is served, who tries again.
func (v *virtual) awaitServed(t *testing.T, caller *vaulttest.Client) {
	t.Helper()
	for end := time.Now().Add(resumption); ; time.Sleep(20 * time.Millisecond) {
		resp, err := caller.Do(t.Context(), http.MethodPost, chatPath(mount, v.name), probe(true))
		if err == nil && resp.Status == http.StatusOK {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("a caller of %s isn't served for %v; last: %v, %v", caller.Addr, resumption, resp, err)
		}
	}
}

// asked is a gateway whose node loses its leadership, and callers who know its address
// alone and whom it knows. It is the only one that sends the provider of their virtual
// keys anything.
type asked struct {
	*cluster
	old     *vaulttest.Node
	keys    []*virtual // with limits, and without
	callers [][]*vaulttest.Client
	stop    func() // ends the asking, and waits for it
}

// keepAsking asks a gateway all the time, with Vault tokens and leased keys.
func (c *cluster) keepAsking(t *testing.T, name string, old *vaulttest.Node) *asked {
	t.Helper()
	a := &asked{cluster: c, old: old, keys: []*virtual{
		c.limited(t, name+"-asked", "usd=10/month"), c.virtual(t, name+"-asked-without-limits", nil),
	}}
	ctx, cancel := contextOf(t)
	var asking sync.WaitGroup
	a.stop = func() { cancel(); asking.Wait() }
	var served atomic.Int64
	for _, v := range a.keys {
		var callers []*vaulttest.Client
		for _, app := range v.clients(t, 2, attempt) {
			caller := c.at(old, app)
			v.awaitServed(t, caller)
			callers = append(callers, caller)
			asking.Go(func() {
				for ctx.Err() == nil {
					call, done := context.WithTimeout(ctx, time.Second)
					// How it fails is Vault's affair.
					resp, err := caller.Do(call, http.MethodPost, chatPath(mount, v.name), probe(true))
					done()
					if err == nil && resp.Status == http.StatusOK {
						served.Add(1)
					}
					time.Sleep(20 * time.Millisecond)
				}
			})
		}
		a.callers = append(a.callers, callers)
	}
	eventually(t, "the leader to serve those who keep asking", func() bool { return served.Load() > 20 })
	return a
}

// untilClosed waits until the gateway has closed, or, if that isn't expected yet, long
// enough to see whether it lets anybody in. It fails the test if a request was at the
// provider later than it may have been let in.
func (a *asked) untilClosed(t *testing.T, lost time.Time, stays bool) {
	t.Helper()
	const last = freshness + slack
	wait := last + 3*time.Second // in which it could go wrong
	if stays {
		time.Sleep(wait - time.Since(lost))
		if ports := a.ports(t, a.old); len(ports) != 1 {
			t.Errorf("%s listens at %v, so that nothing was seen of a gateway that lives on", a.old, ports)
		}
	} else {
		for len(a.ports(t, a.old)) > 0 && time.Since(lost) < wait {
			time.Sleep(50 * time.Millisecond)
		}
		if ports := a.ports(t, a.old); len(ports) > 0 {
			t.Errorf("%s still listens at %v, %v after it was lost", a.old, ports, time.Since(lost))
		}
	}
	for _, v := range a.keys {
		late, latest, number := 0, time.Duration(0), 0
		for _, at := range v.up.Arrivals() {
			since := at.Sub(lost)
			if since <= 0 {
				continue
			}
			latest = max(latest, since)
			if number++; since > last {
				late++
			}
		}
		t.Logf("%s: the lost leader's gateway let %d requests through, the last %v after the loss", v.name, number, latest)
		if late > 0 {
			t.Errorf("%s: %d requests were at the provider more than %v after %s was lost, the last after %v", v.name, late, last, a.old, latest)
		}
	}
}

// wantClosed fails the test unless the gateway, which is still there, refuses all.
func (a *asked) wantClosed(t *testing.T) {
	t.Helper()
	for i, v := range a.keys {
		v.wantClosed(t, a.callers[i])
	}
}

// wantAccounted fails the test unless the next leader counts what the lost one let
// through.
func (a *asked) wantAccounted(t *testing.T) {
	t.Helper()
	a.keys[0].wantCovered(t, 1, len(a.callers[0]))
}

// ports is where a node's gateway listens; none if it doesn't.
func (c *cluster) ports(t *testing.T, n *vaulttest.Node) []int {
	t.Helper()
	ports, err := gatewayPorts(n)
	if err != nil {
		t.Fatal(err)
	}
	return ports
}

// wantOpenOnlyAt fails the test unless this node's gateway is open, and those of the
// others take no connections, whoever comes.
func (c *cluster) wantOpenOnlyAt(t *testing.T, leader *vaulttest.Node) {
	t.Helper()
	v := c.virtual(t, fmt.Sprintf("open-%d", time.Now().UnixNano()), nil)
	for _, n := range c.vault.Nodes() {
		if n == leader {
			if ports := c.ports(t, n); len(ports) != 1 {
				t.Errorf("%s leads and listens at %v", n, ports)
			}
			continue
		}
		if ports := c.ports(t, n); len(ports) > 0 {
			t.Errorf("%s doesn't lead and listens at %v", n, ports)
		}
		for _, app := range v.clients(t, 2, attempt) {
			if resp, err := c.at(n, app).Do(t.Context(), http.MethodPost, chatPath(mount, v.name), probe(false)); err == nil {
				t.Errorf("%s doesn't lead and answers %s", n, resp)
			}
		}
	}
	if n := v.up.Received(); n > 0 {
		t.Errorf("gateways of standbys let %d requests through", n)
	}
}

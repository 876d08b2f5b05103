// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/test/vaulttest"
)

// TestLimits_Exhaustion: many clients at once spend a virtual key to its end,
// and what the provider delivered is what the limit allows.
func TestLimits_Exhaustion(t *testing.T) {
	t.Parallel()
	r := startRig(t, vaulttest.Options{})
	for round := range rounds(1, 5) {
		name := func(what string) string { return fmt.Sprintf("%s-%d", what, round) }
		t.Run(name("USD"), func(t *testing.T) { r.exhaust(t, name("usd"), 200, "usd=1/month") })
		t.Run(name("Requests"), func(t *testing.T) { r.exhaust(t, name("requests"), 100, "requests=300/day") })
		t.Run(name("Tokens"), func(t *testing.T) { r.exhaust(t, name("tokens"), 100, "tokens=60000/total") })
		t.Run(name("InputTokens"), func(t *testing.T) { r.exhaust(t, name("input"), 50, "input_tokens=10000/week") })
		t.Run(name("OutputTokens"), func(t *testing.T) { r.exhaust(t, name("output"), 50, "output_tokens=40000/30d") })
		t.Run(name("ThreeAtOnce"), func(t *testing.T) {
			r.exhaust(t, name("three"), 100, "usd=0.7/month", "requests=250/week", "tokens=70000/day on up-*")
		})
		t.Run(name("Concurrent"), func(t *testing.T) { r.concurrency(t, name("concurrent")) })
		t.Run(name("PerEntity"), func(t *testing.T) { r.perEntity(t, name("entity")) })
	}
}

// exhaust has clients spend a virtual key until each was told that it is spent.
func (r *rig) exhaust(t *testing.T, name string, clients int, limits ...string) {
	v := r.limited(t, name, limits...)
	writes := r.storageWrites(t)
	l := &load{v: v, next: randomAsk("up-random:1:400:300")}
	l.run(t, v.clients(t, clients, patience))
	s := v.wantExact(t)
	t.Logf("%d writes to storage for %d requests", r.storageWrites(t)-writes, s.Total.Requests)
	spent := false
	for _, row := range s.Limits {
		// The largest request that there was, made as small as it may be.
		least := ask{model: usual, prompt: 400, cap: minOutput, stream: true}.least(row.Unit)
		delivered := in(row.Unit, v.up.DeliveredTotal())
		spent = spent || delivered > int64(row.Max)-least
		if int64(row.Remaining) != int64(row.Max)-delivered {
			t.Errorf("%s has %d remaining, and %d of %d was delivered", row.Limit, row.Remaining, delivered, row.Max)
		}
	}
	if !spent {
		t.Errorf("no limit was spent when all clients were refused: %+v", s.Limits)
	}
	if got, want := s.Total.Refused, l.refused(); got != want {
		t.Errorf("the record has %d refused, and clients were refused %d times", got, want)
	}
}

// refused is how often clients were refused.
func (l *load) refused() (n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for what, count := range l.tally {
		if what != "200" {
			n += int64(count)
		}
	}
	return n
}

// concurrency: never more at once than allowed, as many as allowed, and slots
// are free again whatever becomes of requests.
func (r *rig) concurrency(t *testing.T, name string) {
	const most = 7
	v := r.limited(t, name, fmt.Sprintf("concurrent=%d", most), "requests=250/day")
	l := &load{v: v, next: func(r *rand.Rand) ask {
		a := randomAsk("up-random:1:50:40")(r)
		if r.IntN(8) == 0 {
			a.model = "up-500"
		}
		return a
	}}
	l.judge = func(a ask, resp *vaulttest.Response) verdict {
		if resp.Status == http.StatusInternalServerError {
			return again // the provider's
		}
		return l.untilSpent(a, resp)
	}
	l.run(t, v.clients(t, 60, patience))
	if got := v.up.MaxConcurrent(); got != most {
		t.Errorf("%d requests were under way at once, expected %d", got, most)
	}
	s := v.settled(t)
	if used, delivered := int64(s.Limits[1].Used), int64(v.up.DeliveredTotal().Requests); used != delivered || used != 250 {
		t.Errorf("%d requests are used, %d were delivered, expected 250", used, delivered)
	}
	// All slots are there: so many run at the same time, and one more is refused.
	v.root.Patch(t, mount+"/roles/"+name, map[string]any{"limits": []string{fmt.Sprintf("concurrent=%d", most)}})
	received := v.up.Received()
	c := v.client(t)
	var group sync.WaitGroup
	for range most {
		group.Go(func() {
			resp, err := c.Do(t.Context(), http.MethodPost, chatPath(mount, name), ask{model: "up-slow:1500", cap: 10}.body())
			if err != nil || resp.Status != http.StatusOK {
				t.Errorf("one of %d at once: %v %v", most, resp, err)
			}
		})
	}
	v.up.WaitRequests(t, received+most)
	resp := v.post(t, c, ask{model: "up-ok", cap: 10})
	group.Wait()
	wantError(t, resp, http.StatusTooManyRequests, "rate_limit_exceeded", "concurrent=7")
	wantStatus(t, v.post(t, c, ask{model: "up-ok", cap: 10}), http.StatusOK)
}

// perEntity: each entity has a budget of its own, callers without one share
// theirs, and all share the virtual key's.
func (r *rig) perEntity(t *testing.T, name string) {
	v := r.limited(t, name, "usd=0.15/month per entity", "usd=5/month")
	// Who calls, as usage/<role> names them, with how many clients, on a model
	// that tells them apart at the provider.
	type caller struct {
		entity, model string
		clients       []*vaulttest.Client
	}
	var callers []caller
	for i := range 3 {
		login := v.vault.Userpass(t, fmt.Sprintf("%s-user-%d", name, i), v.name)
		c := caller{entity: login.EntityID, model: fmt.Sprintf("up-random:%d:400:100", i+2)}
		for range 15 {
			c.clients = append(c.clients, v.vault.Balanced(login.Token, patience))
		}
		callers = append(callers, c)
	}
	nobody := caller{entity: "none", model: "up-random:1:400:100"}
	for range 5 { // tokens, with children of theirs
		nobody.clients = append(nobody.clients, v.client(t), v.client(t), v.client(t))
	}
	callers = append(callers, nobody)

	var group sync.WaitGroup
	loads := make([]*load, len(callers))
	for i, c := range callers {
		loads[i] = &load{v: v, next: randomAsk(c.model)}
		group.Go(loads[i].start(t.Context(), c.clients))
	}
	began := time.Now()
	group.Wait()
	for _, l := range loads {
		l.report(t, began)
	}
	s := v.settled(t)
	byModel := map[string]int64{}
	for key, d := range v.up.Delivered() {
		byModel[key.Model] += in("usd", d)
	}
	for _, c := range callers {
		i := slices.IndexFunc(s.Limits, func(row limitRow) bool { return row.Entity == c.entity })
		if i < 0 {
			t.Errorf("usage doesn't show %s: %+v", c.entity, s.Limits)
			continue
		}
		row, delivered := s.Limits[i], byModel[c.model]
		least := ask{model: c.model, prompt: 400, cap: minOutput, stream: true}.least("usd")
		if int64(row.Used) != delivered || delivered > int64(row.Max) || delivered <= int64(row.Max)-least {
			t.Errorf("entity %s has used %d of %d, and %d was delivered", c.entity, row.Used, row.Max, delivered)
		}
	}
	if total := in("usd", v.up.DeliveredTotal()); int64(s.Limits[0].Used) != total || s.cost(t) != total {
		t.Errorf("all together have used %+v, the record has %s, and %d was delivered", s.Limits[0], s.Total.Cost, total)
	}
}

// TestLimits_RatePerMinute: in any stretch of a minute no more requests are
// admitted than the limit says.
func TestLimits_RatePerMinute(t *testing.T) {
	t.Parallel()
	const most = 20
	r := startRig(t, vaulttest.Options{})
	v := r.limited(t, "rate", fmt.Sprintf("requests=%d/minute", most))
	lasts := time.Duration(rounds(75, 600)) * time.Second
	c := v.client(t)
	var sent []time.Time
	began := time.Now()
	for time.Since(began) < lasts {
		at := time.Now()
		resp := v.post(t, c, ask{model: "up-ok", cap: 10})
		if resp.Status == http.StatusOK {
			sent = append(sent, at)
			// Bursts, and one now and then.
			time.Sleep(time.Duration(v.dice.IntN(3)) * 500 * time.Millisecond * time.Duration(v.dice.IntN(2)))
			continue
		}
		wantError(t, resp, http.StatusTooManyRequests, "rate_limit_exceeded", "requests=20/minute")
		if resp.Header.Get("Retry-After") == "" {
			t.Fatalf("a 429 without retry-after: %s", resp)
		}
		time.Sleep(200 * time.Millisecond)
	}
	arrivals := v.up.Arrivals()
	if len(arrivals) != len(sent) || len(sent) <= most {
		t.Fatalf("%d were answered and %d arrived in %v", len(sent), len(arrivals), lasts)
	}
	// A request was sent before it was admitted, and admitted before it arrived.
	for i := range len(sent) - most {
		if apart := arrivals[i+most].Sub(sent[i]); apart < time.Minute {
			t.Errorf("requests %d and %d are %v apart: more than %d in a minute", i, i+most, apart, most)
		}
	}
	t.Logf("%d requests in %v", len(sent), lasts)
}

// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/test/upstream"
	"vault-plugin-secrets-portkey/test/vaulttest"
)

// How other gateways fail, by their issue trackers, is a numbered list. Here are
// the lines that are best shown with a real Vault; the others:
//
//	 1  concurrent calls all pass the check        TestLimits_Exhaustion
//	 3  a counter doubles or leaks under load      TestLimits_Exhaustion, wantExact
//	 4  a cancelled request keeps its hold         TestOthersFail05, and internal/relay
//	 6  a streamed call is priced 0                TestLimits_Exhaustion: half are streams
//	 9  concurrent requests pass a token limit     TestLimits_Exhaustion/Tokens
//	10  a refused request keeps its tokens         TestLimits_Exhaustion/ThreeAtOnce
//	11  a floor larger than the limit              internal/ledger, internal/relay
//	12  a slot isn't released after a timeout      TestLimits_Exhaustion/Concurrent, and internal/ledger
//	13  a refusal for concurrency uses a request   TestLimits_Exhaustion/Concurrent
//	16  cached tokens are billed twice             TestEndToEnd/Spending/CachedAndReasoningTokensArePricedOnce
//	17  other routes bypass the budget             TestOthersFail02, and the root package
//	19  a misspelt field is ignored                the root package
//	21  editing a limit resets its use             internal/ledger, and the root package
//	22  an unpriced model bypasses the budget      internal/relay, and the root package

// spend spends a virtual key to its end.
func (v *virtual) spend(t *testing.T) {
	t.Helper()
	l := &load{v: v, next: randomAsk(usual)}
	l.judge = func(a ask, resp *vaulttest.Response) verdict {
		// Of windows of an hour or less.
		if resp.Status == http.StatusTooManyRequests && strings.Contains(string(resp.Body), "rate_limit_exceeded") {
			return stop
		}
		return l.untilSpent(a, resp)
	}
	l.run(t, v.clients(t, 10, patience))
}

// wantSpent fails the test unless a virtual key that is spent lets nothing
// through, whatever way it is asked.
func (v *virtual) wantSpent(t *testing.T) {
	t.Helper()
	unasked(t, v.up, func() {
		c := v.client(t)
		text := strings.Repeat("p", 500)
		var group sync.WaitGroup
		for path, body := range map[string]map[string]any{
			"v1/chat/completions": {"messages": []any{map[string]any{"role": "user", "content": text}}},
			"v1/completions":      {"prompt": text},
			"v1/responses":        {"input": text},
			"v1/embeddings":       {"input": text},
			"":                    {"prompt": text},
		} {
			for _, stream := range []bool{false, true, false, true} {
				body := with(map[string]any{"model": "up-ok"}, body)
				if stream {
					body["stream"] = true
				}
				at := proxyPath(mount, v.name, path)
				if path == "" {
					delete(body, "stream")
					at = mount + "/proxy/" + v.name
				}
				group.Go(func() {
					resp, err := c.Do(t.Context(), http.MethodPost, at, body)
					if err != nil {
						t.Errorf("%s: %v", at, err)
						return
					}
					if resp.Status != http.StatusPaymentRequired || !strings.Contains(string(resp.Body), "is used up") {
						t.Errorf("%s: %s", at, resp)
					}
				})
			}
		}
		group.Wait()
	})
}

// A key over its budget is still served.
func TestOthersFail02_AKeyOverItsBudgetIsServedByNoRouteAndNoProcess(t *testing.T) {
	t.Parallel()
	r := startRig(t, vaulttest.Options{Mode: vaulttest.Raft})
	v := r.limited(t, "spent", "requests=30/month")
	v.spend(t)
	v.wantSpent(t)
	r.vault.Reload(t, mount)
	v.wantSpent(t)
	r.vault.Nodes()[0].KillPlugins(t)
	r.healthy(t)
	v.wantSpent(t)
	r.vault.Restart(t)
	v.wantSpent(t)
	v.wantExact(t)
}

// A client that disconnects in mid-stream is billed nothing, or the upstream is
// left running.
func TestOthersFail05_AClientThatDisconnectsIsChargedAndItsUpstreamEnds(t *testing.T) {
	t.Parallel()
	r := startRig(t, vaulttest.Options{})
	v := r.limited(t, "gone", "usd=1/month", "concurrent=8")
	c := v.client(t)
	for i, stream := range []bool{true, false, true} {
		ctx, leave := contextOf(t)
		a := ask{model: "up-hang-mid", prompt: 100, cap: 300, stream: stream}
		ended := make(chan error, 1)
		go func() {
			_, err := c.Do(ctx, http.MethodPost, chatPath(mount, v.name), a.body())
			ended <- err
		}()
		v.up.WaitRequests(t, i+1)
		leave()
		if err := <-ended; err == nil {
			t.Fatal("the client got an answer")
		}
		v.up.WaitCancelled(t, i+1)
		// All that was held is charged: the prompt's bound, and the output's cap.
		row := v.settled(t).Limits[0]
		least := int64(i+1) * in("usd", upstream.Delivered{PromptTokens: a.prompt, CompletionTokens: a.cap})
		if most := int64(i+1) * a.worst("usd"); int64(row.Used) < least || int64(row.Used) > most || row.Unconfirmed != row.Used {
			t.Errorf("after %d clients that left %+v is used, expected %d to %d, all unconfirmed", i+1, row, least, most)
		}
	}
	if delivered := in("usd", v.up.DeliveredTotal()); int64(v.standing(t).Limits[0].Used) < delivered {
		t.Errorf("%d was delivered", delivered)
	}
}

// The reset job fails silently, or the stored figure resets and the one in
// memory doesn't.
func TestOthersFail07_AResetHoldsInMemoryAndInStorage(t *testing.T) {
	t.Parallel()
	r := startRig(t, vaulttest.Options{})
	v := r.limited(t, "reset", "requests=20/month")
	for _, renew := range []func(){
		func() {},
		func() { r.vault.Reload(t, mount) },
		func() { r.vault.Nodes()[0].KillPlugins(t); r.healthy(t) },
	} {
		v.spend(t)
		v.wantSpent(t)
		r.root.Write(t, mount+"/usage/reset/reset", nil)
		renew()
		if row := v.row(t); row.Used != 0 || row.Remaining != 20 {
			t.Errorf("after a reset %+v", row)
		}
		wantStatus(t, v.post(t, v.client(t), ask{model: "up-ok", cap: 10}), http.StatusOK)
	}
}

// One level never resets.
func TestOthersFail08_EveryLevelStartsAnewWhenItsWindowEnds(t *testing.T) {
	t.Parallel()
	r := startRig(t, vaulttest.Options{})
	levels := map[string]string{
		"shared": "requests=3/1m", "entity": "requests=3/1m per entity", "model": "requests=3/1m on up-*",
		"usd": "usd=0.02/1m", "usd-entity": "usd=0.02/1m per entity on up-*", "tokens": "tokens=2000/1m",
	}
	keys, rows := map[string]*virtual{}, map[string]limitRow{}
	for name, limit := range levels {
		v := r.limited(t, name, limit)
		v.spend(t)
		keys[name], rows[name] = v, v.row(t)
		if rows[name].Used == 0 {
			t.Errorf("nothing was spent: %+v", rows[name])
		}
	}
	for name, row := range rows {
		v := keys[name]
		resets, err := time.Parse(time.RFC3339, row.ResetsAt)
		if err != nil || time.Until(resets) > time.Minute {
			t.Fatalf("%+v: %v", row, err)
		}
		time.Sleep(time.Until(resets))
		wantStatus(t, v.post(t, v.client(t), ask{model: "up-ok", prompt: 10, cap: 20}), http.StatusOK)
		if after := v.row(t); after.Used >= row.Used || after.ResetsAt == row.ResetsAt {
			t.Errorf("%+v, and after the end of its window %+v", row, after)
		}
	}
}

// Shutdown loses buffered spend.
func TestOthersFail14_AShutdownLosesNothing(t *testing.T) {
	t.Parallel()
	r := startRig(t, vaulttest.Options{Mode: vaulttest.Raft})
	v := r.limited(t, "shutdown", "usd=1/month", "requests=1000/day", "tokens=1000000/hour")
	c := v.client(t)
	for name, shutdown := range map[string]func(){
		"Reload":  func() { r.vault.Reload(t, mount) },
		"Seal":    func() { r.vault.Seal(t); r.vault.Unseal(t) },
		"Restart": func() { r.vault.Restart(t) },
	} {
		for range 20 {
			wantStatus(t, v.post(t, c, ask{model: "up-random:1:50", prompt: 10, cap: 100}), http.StatusOK)
		}
		shutdown()
		if v.wantExact(t); t.Failed() {
			t.Fatalf("after %s", name)
		}
	}
}

// A flush that fails drops what it held.
func TestOthersFail15_WhatStorageDidNotTakeIsKept(t *testing.T) {
	t.Parallel()
	r := startRig(t, vaulttest.Options{})
	v := r.limited(t, "flush", "usd=1/month", "requests=1000/day")
	c := v.client(t)
	wantStatus(t, v.post(t, c, ask{model: "up-ok", cap: 10}), http.StatusOK)
	const n = 10
	var group sync.WaitGroup
	for range n {
		group.Go(func() {
			resp, err := c.Do(t.Context(), http.MethodPost, chatPath(mount, v.name), ask{model: "up-slow:1000", prompt: 10, cap: 100}.body())
			if err != nil || resp.Status != http.StatusOK {
				t.Errorf("a request over a pause of storage: %v %v", resp, err)
			}
		})
	}
	v.up.WaitRequests(t, n+1)
	// They end while Vault, which has the storage, is stopped: a write of the
	// record of usage is given up after 1.5 s.
	r.vault.Nodes()[0].Pause(t)
	v.up.WaitIdle(t)
	time.Sleep(4 * time.Second)
	r.vault.Nodes()[0].Continue(t)
	group.Wait()
	v.wantExact(t)
	r.vault.Reload(t, mount)
	v.wantExact(t)
}

// A deleted or disabled key still works from a cache.
func TestOthersFail18_ADisabledOrDeletedKeyWorksForNobodyAtOnce(t *testing.T) {
	t.Parallel()
	r := startRig(t, vaulttest.Options{})
	v := r.limited(t, "off", "requests=100000/month")
	l := &load{v: v, next: randomAsk("up-random:1:20:20")}
	l.judge = func(_ ask, resp *vaulttest.Response) verdict {
		if resp.Status != http.StatusForbidden && resp.Status != http.StatusNotFound {
			l.strange("%s", resp)
		}
		return pause
	}
	ctx, stopAll := contextOf(t)
	began := time.Now()
	wait := l.start(ctx, v.clients(t, 20, patience))
	for what, change := range map[string]struct{ off, on func() }{
		"disabled": {
			func() { r.root.Patch(t, mount+"/roles/off", map[string]any{"enabled": false}) },
			func() { r.root.Patch(t, mount+"/roles/off", map[string]any{"enabled": true}) },
		},
		"deleted": {
			func() { r.root.Delete(t, mount+"/roles/off") },
			func() { v.write(t, map[string]any{"limits": "requests=100000/month"}) },
		},
		"expired": {
			func() { r.root.Patch(t, mount+"/roles/off", map[string]any{"expires_at": "2020-01-01T00:00:00Z"}) },
			func() { r.root.Patch(t, mount+"/roles/off", map[string]any{"expires_at": ""}) },
		},
	} {
		before := l.succeeded()
		eventually(t, "requests to go well", func() bool { return l.succeeded() > before+20 })
		change.off()
		v.up.WaitIdle(t) // those that had been admitted
		time.Sleep(200 * time.Millisecond)
		received := v.up.Received()
		time.Sleep(500 * time.Millisecond)
		if now := v.up.Received(); now != received {
			t.Errorf("%d requests were sent on a virtual key that is %s", now-received, what)
		}
		change.on()
	}
	stopAll()
	wait()
	l.report(t, began)
}

// Replicas multiply the cap.
func TestOthersFail20_ThreeNodesHaveOneCap(t *testing.T) {
	t.Parallel()
	r := startRig(t, vaulttest.Options{Mode: vaulttest.Raft, Nodes: 3})
	v := r.limited(t, "replicas", "usd=0.3/month", "requests=500/minute", "concurrent=9")
	var clients []*vaulttest.Client
	for i := range 30 {
		node := r.vault.Nodes()[i%3]
		if i < 3 {
			clients = append(clients, node.Client(r.vault.Token(t, v.name)))
			continue
		}
		clients = append(clients, node.Client(clients[i%3].Token))
	}
	// Standbys learn of new tokens a moment later.
	for _, c := range clients[:3] {
		eventually(t, "the token to work at "+c.Addr, func() bool {
			return do(t, c, http.MethodGet, proxyPath(mount, v.name, "v1/models"), nil).Status == http.StatusOK
		})
	}
	l := &load{v: v, next: randomAsk("up-random:1:400:50")}
	l.run(t, clients)
	if got := v.up.MaxConcurrent(); got > 9 {
		t.Errorf("%d requests were under way at once, 9 are allowed", got)
	}
	s, d := v.settled(t), v.up.DeliveredTotal()
	if used, delivered := int64(s.Limits[0].Used), in("usd", d); used != delivered || delivered > 0.3e9 {
		t.Errorf("%d is used, and %d was delivered", used, delivered)
	}
}

// A ping comment in an SSE stream breaks the proxy.
func TestOthersFail23_CommentsInAStreamPassAndAreNotCounted(t *testing.T) {
	t.Parallel()
	r := startRig(t, vaulttest.Options{})
	v := r.limited(t, "comments", "usd=1/month", "tokens=100000/day")
	c := v.client(t)
	for range 5 {
		resp := v.post(t, c, ask{model: "up-comments", prompt: 10, cap: 100, stream: true})
		wantStatus(t, resp, http.StatusOK)
		if !bytes.Contains(resp.Body, []byte("\n:")) && !bytes.HasPrefix(resp.Body, []byte(":")) {
			t.Errorf("the stream has no comments: %s", resp)
		}
		if !bytes.Contains(resp.Body, []byte("data: [DONE]")) {
			t.Errorf("the stream has no end: %s", resp)
		}
	}
	v.wantExact(t)
}

// An error in mid-stream is swallowed.
func TestOthersFail24_AnErrorInMidStreamIsToldAndCharged(t *testing.T) {
	t.Parallel()
	r := startRig(t, vaulttest.Options{})
	for i, model := range []string{"up-error-event", "up-reset-mid"} {
		v := r.limited(t, fmt.Sprintf("broken-%d", i), "usd=1/month")
		a := ask{model: model, prompt: 10, cap: 300, stream: true}
		resp := v.post(t, v.client(t), a)
		wantStatus(t, resp, http.StatusOK)
		if text := string(resp.Body); !strings.Contains(text, `"error"`) || strings.Contains(text, "[DONE]") {
			t.Errorf("%s: the stream doesn't say that it broke off: %s", model, text)
		}
		row := v.settled(t).Limits[0]
		if delivered := in("usd", v.up.DeliveredTotal()); int64(row.Used) < delivered || int64(row.Used) > a.worst("usd") || row.Unconfirmed != row.Used {
			t.Errorf("%s: %+v, and %d was delivered", model, row, delivered)
		}
	}
}

// No retry-after.
func TestOthersFail25_EveryRefusalThatMayPassSaysWhenToTryAgain(t *testing.T) {
	t.Parallel()
	r := startRig(t, vaulttest.Options{})
	hold := func(v *virtual) (release func()) {
		ctx, cancel := contextOf(t)
		c := v.client(t)
		received := v.up.Received()
		go func() {
			_, _ = c.Do(ctx, http.MethodPost, chatPath(mount, v.name), ask{model: "up-hang", prompt: 10, cap: 300}.body())
		}()
		v.up.WaitRequests(t, received+1)
		return cancel
	}
	for name, c := range map[string]struct {
		limit, code string
		held        bool
		least, most time.Duration
	}{
		"rate":       {"requests=1/minute", "rate_limit_exceeded", false, 50 * time.Second, 65 * time.Second},
		"token-rate": {"tokens=700/minute", "rate_limit_exceeded", false, 50 * time.Second, 65 * time.Second},
		"hour":       {"requests=1/hour", "rate_limit_exceeded", false, 58 * time.Minute, 63 * time.Minute},
		"concurrent": {"concurrent=1", "rate_limit_exceeded", true, time.Second, time.Second},
		"reserved":   {"usd=0.005/month", "budget_reserved", true, time.Second, time.Second},
	} {
		v := r.limited(t, name, c.limit)
		a := ask{model: "up-stream:300:0", prompt: 10, cap: 300}
		if c.held {
			defer hold(v)()
		} else {
			wantStatus(t, v.post(t, v.client(t), a), http.StatusOK)
		}
		resp := v.post(t, v.client(t), a)
		wantError(t, resp, http.StatusTooManyRequests, c.code)
		after, err := time.ParseDuration(resp.Header.Get("Retry-After") + "s")
		if err != nil || after < c.least || after > c.most {
			t.Errorf("%s: retry-after is %q (%v), expected %v to %v", c.limit, resp.Header.Get("Retry-After"), err, c.least, c.most)
		}
	}
}

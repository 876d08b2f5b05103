// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/test/vaulttest"
)

// basis is how a request that didn't end well is settled.
type basis int

const (
	nothing    basis = iota // it costs nothing
	worstCase               // the outcome is unknown
	asReported              // the provider's usage
)

// Each request of endings asks for two choices of at most seven tokens.
const (
	choices   = 2
	outputCap = 7
)

// endings: a request is settled once, however it ends.
func (s *suite) endings(t *testing.T) {
	nobody := s.deadAddress(t)
	s.root.Write(t, tuned+"/keys/nobody", map[string]any{"provider": "openai-compatible", "base_url": "http://" + nobody + "/v1", "api_key": s.secret()})
	for _, c := range []struct {
		name, model string
		stream      bool
		status      int
		failed      int64
		basis       basis
	}{
		{"ProvidersError400", "up-400", false, 400, 1, nothing},
		{"ProvidersError401", "up-401", false, 401, 1, nothing},
		{"ProvidersError429", "up-429", true, 429, 1, nothing},
		{"ProvidersError500", "up-500", false, 500, 1, nothing},
		{"ErrorInsteadOfAnAnswer", "up-error-event", false, 500, 1, nothing},
		{"NoSuchModel", "no-such-model", false, 404, 1, nothing},
		{"Redirect", "up-redirect:307:http://127.0.0.1:9/", false, 502, 1, nothing},
		{"NobodyListens", "up-ok", false, 502, 1, nothing},
		{"TimeoutBeforeTheFirstByte", "up-hang", false, 504, 1, worstCase},
		{"TimeoutBeforeTheFirstByteOfAStream", "up-hang", true, 504, 1, worstCase},
		{"TimeoutAfterTheFirstByte", "up-hang-mid", false, 504, 1, worstCase},
		{"TimeoutAfterTheFirstByteOfAStream", "up-hang-mid", true, 200, 1, worstCase},
		{"ResetBeforeTheAnswer", "up-reset", false, 502, 1, worstCase},
		{"ResetBeforeTheAnswerOfAStream", "up-reset", true, 502, 1, worstCase},
		{"ResetInTheAnswer", "up-reset-mid", false, 502, 1, worstCase},
		{"ResetInTheStream", "up-reset-mid", true, 200, 1, worstCase},
		{"ShortAnswer", "up-garbage:short", false, 502, 1, worstCase},
		{"NoHTTP", "up-garbage:http", false, 502, 1, worstCase},
		// The caller got all of it, whatever it is.
		{"NoJSON", "up-garbage", false, 200, 0, worstCase},
		{"ErrorEvent", "up-error-event", true, 200, 1, worstCase},
		{"NoUsage", "up-no-usage", false, 200, 0, worstCase},
		{"NoUsageInTheStream", "up-no-usage", true, 200, 0, worstCase},
		{"Success", "up-ok", false, 200, 0, asReported},
		{"SuccessOfAStream", "up-ok", true, 200, 0, asReported},
	} {
		t.Run(c.name, func(t *testing.T) {
			role, fields := "ends-"+c.name, map[string]any(nil)
			if c.name == "NobodyListens" {
				fields = map[string]any{"key": "nobody"}
			}
			app := s.app(t, tuned, role, fields)
			body := with(s.chat(c.model), map[string]any{"n": choices, "max_tokens": outputCap, "stream": c.stream})
			wantStatus(t, post(t, app, chatPath(tuned, role), body), c.status)
			s.wantSettled(t, tuned, role, c.failed, c.basis)
		})
	}
	t.Run("ProviderThatBreaksOffIsEstimatedWhereOnlyWhatWasStreamedIsBilled", s.estimated)
	t.Run("RefusedIsCountedAndCostsNothing", s.refusals)
}

// deadAddress is one where nobody listens.
func (s *suite) deadAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close() // nobody listens there now
	return l.Addr().String()
}

// wantSettled fails the test unless the virtual key has one request, settled
// as said.
func (s *suite) wantSettled(t *testing.T, mount, role string, failed int64, by basis) {
	t.Helper()
	got := usageOf(t, s.root, mount+"/usage/"+role).Total
	want := spent(1, 0, 0, "0")
	want.Failed = failed
	switch by {
	case asReported:
		want.Input, want.Output = s.promptTokens(), choices*5
		want.Cost = completionUSD(want.Input, want.Output)
	case worstCase:
		// The bound of the input is above every way to count it, and no more
		// than the whole request as text with some for messages and framing.
		if most := int64(len(s.prompt)) + 500; got.Input < int64(len(s.prompt)) || got.Input > most {
			t.Errorf("%d input tokens are charged for a prompt of %d bytes", got.Input, len(s.prompt))
		}
		want.Input, want.Output, want.Unconfirmed = got.Input, choices*outputCap, 1
		want.Cost = completionUSD(want.Input, want.Output)
		want.UncertainIn = want.Cost
	}
	if got != want {
		t.Errorf("the usage of %s is\n%+v\nexpected\n%+v", role, got, want)
	}
}

// estimated: the catalogue says of the sandbox that a stream that broke off is
// charged for what was streamed.
func (s *suite) estimated(t *testing.T) {
	s.root.Write(t, tuned+"/keys/sandbox", map[string]any{"provider": "sandbox"})
	for _, fail := range []string{"cut", "stall", "error-event"} {
		role := "ends-sandbox-" + fail
		app := s.app(t, tuned, role, map[string]any{"key": "sandbox"})
		body := with(streamed(s.chat("sandbox-small:tokens=400:fail="+fail)), map[string]any{"max_tokens": 1000})
		wantStatus(t, post(t, app, chatPath(tuned, role), body), http.StatusOK)
		got := usageOf(t, s.root, tuned+"/usage/"+role).Total
		if fail == "error-event" { // it didn't break off: nobody knows what the error costs
			if got.Requests != 1 || got.Failed != 1 || got.Unconfirmed != 1 || got.Output != 1000 {
				t.Errorf("an error event: %+v", got)
			}
			continue
		}
		if got.Requests != 1 || got.Failed != 1 || got.Estimated != 1 || got.Unconfirmed != 0 || got.Cost != got.EstimatedIn {
			t.Errorf("%s: %+v, expected one estimated request", fail, got)
		}
		// Half of 400 tokens of four bytes came; a token is a byte or more.
		if got.Output < 200 || got.Output > 800 || got.Cost != usd(tokens{got.Input, "0.15"}, tokens{got.Output, "0.6"}) {
			t.Errorf("%s: %+v for half of 400 tokens", fail, got)
		}
	}
}

func (s *suite) refusals(t *testing.T) {
	app := s.app(t, tuned, "ends-refused", map[string]any{"models": "up-ok"})
	unasked(t, s.up, func() {
		wantError(t, post(t, app, chatPath(tuned, "ends-refused"), s.chat("up-echo")), http.StatusForbidden, "model_not_allowed")
		wantStatus(t, post(t, app, chatPath(tuned, "ends-refused"), with(s.chat("up-ok"), map[string]any{"max_tokens": -1})), http.StatusBadRequest)
		s.root.Patch(t, tuned+"/roles/ends-refused", map[string]any{"enabled": false})
		wantError(t, post(t, app, chatPath(tuned, "ends-refused"), s.chat("up-ok")), http.StatusForbidden, "virtual_key_disabled")
		s.root.Patch(t, tuned+"/roles/ends-refused", map[string]any{"enabled": true, "allowed_entity_names": "nobody"})
		wantError(t, post(t, app, chatPath(tuned, "ends-refused"), s.chat("up-ok")), http.StatusForbidden, "identity_not_allowed")
	})
	s.wantUsage(t, tuned, "ends-refused", counts{Refused: 4, Cost: "0", UncertainIn: "0", EstimatedIn: "0"})
	// What Vault itself refuses, the plugin doesn't see, and a virtual key that
	// doesn't exist has no usage.
	ghost := s.client(s.appToken(t, tuned, "ghost"))
	wantStatus(t, post(t, ghost, chatPath(tuned, "ghost"), s.chat("up-ok")), http.StatusNotFound)
	s.wantUsage(t, tuned, "ghost", counts{Cost: "0", UncertainIn: "0", EstimatedIn: "0"})
}

// leave has a caller go away some time after its request has arrived.
func (s *suite) leave(t *testing.T, app *vaulttest.Client, path string, body map[string]any, arrived func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := app.Do(ctx, http.MethodPost, path, body)
		ended <- err
	}()
	arrived()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatalf("the caller got %v", err)
	}
}

// callersGone: a caller that goes away is charged as if nobody knew what the
// provider did since, once.
func (s *suite) callersGone(t *testing.T) {
	for _, c := range []struct {
		name, model string
		stream      bool
	}{
		{"BeforeTheFirstByte", "up-hang", false},
		{"BeforeTheFirstByteOfAStream", "up-hang", true},
		{"InTheAnswer", "up-hang-mid", false},
		{"InTheStream", "up-hang-mid", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			role := "gone-" + c.name
			up, _ := s.own(t, mount, role)
			app := s.app(t, mount, role, map[string]any{"key": role})
			body := with(s.chat(c.model), map[string]any{"n": choices, "max_tokens": outputCap, "stream": c.stream})
			s.leave(t, app, chatPath(mount, role), body, func() {
				up.WaitRequests(t, 1)
				time.Sleep(200 * time.Millisecond) // what the provider sends is on its way; nobody can see it arrive
			})
			up.WaitCancelled(t, 1)
			s.awaitRequests(t, role, 1)
			s.wantSettled(t, mount, role, 1, worstCase)
			// It stays one request when more come.
			wantCompletion(t, post(t, app, chatPath(mount, role), s.chat("up-ok")))
			if got := usageOf(t, s.root, mount+"/usage/"+role).Total; got.Requests != 2 || got.Failed != 1 || got.Unconfirmed != 1 {
				t.Errorf("after one more: %+v", got)
			}
			if n := up.Received(); n != 2 {
				t.Errorf("the provider received %d requests", n)
			}
		})
	}
	t.Run("InAStreamThatIsBilledAsStreamed", func(t *testing.T) {
		s.root.Write(t, mount+"/keys/sandbox", map[string]any{"provider": "sandbox"})
		app := s.app(t, mount, "gone-sandbox", map[string]any{"key": "sandbox"})
		body := with(streamed(s.chat("sandbox-small:tps=100:tokens=5000")), map[string]any{"max_tokens": 10_000})
		s.leave(t, app, chatPath(mount, "gone-sandbox"), body, func() {
			eventually(t, "the request to be under way", func() bool { return s.readMetrics(t, mount).sum("portkey_requests_in_flight") >= 1 })
			time.Sleep(time.Second) // about 100 tokens
		})
		s.awaitRequests(t, "gone-sandbox", 1)
		got := usageOf(t, s.root, mount+"/usage/gone-sandbox").Total
		if got.Failed != 1 || got.Estimated != 1 || got.Unconfirmed != 0 || got.Cost != got.EstimatedIn || got.Output == 0 || got.Output >= 10_000 {
			t.Errorf("the usage is %+v, expected an estimate of what was streamed", got)
		}
		if want := usd(tokens{got.Input, "0.15"}, tokens{got.Output, "0.6"}); got.Cost != want {
			t.Errorf("it costs %s, expected %s", got.Cost, want)
		}
	})
}

// awaitRequests waits until so many requests of a virtual key are settled:
// nobody answers a caller that is gone.
func (s *suite) awaitRequests(t *testing.T, role string, n int64) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d requests of %s to be settled", n, role), func() bool {
		return usageOf(t, s.root, mount+"/usage/"+role).Total.Requests >= n
	})
}

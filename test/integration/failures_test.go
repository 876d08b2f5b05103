// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"testing"

	"vault-plugin-secrets-portkey/test/upstream"
)

// providerFailures: a provider that fails gives the app an error that says so,
// never a hang, and never another try of a request that may cost money.
func (s *suite) providerFailures(t *testing.T) {
	app := s.app(t, tuned, "failures", nil)
	for _, c := range []struct {
		model, code string
		status      int
	}{
		{"up-hang", "upstream_timeout", http.StatusGatewayTimeout},
		{"up-slow:60000", "upstream_timeout", http.StatusGatewayTimeout},
		{"up-hang-mid", "upstream_timeout", http.StatusGatewayTimeout},
		{"up-reset", "upstream_unreachable", http.StatusBadGateway},
		{"up-reset-mid", "upstream_unreachable", http.StatusBadGateway},
		{"up-garbage:http", "upstream_unreachable", http.StatusBadGateway},
		{"up-garbage:short", "upstream_unreachable", http.StatusBadGateway},
	} {
		t.Run(c.model+"_IsAskedOnceAndEndsWith_"+c.code, func(t *testing.T) {
			before := s.up.Received()
			wantError(t, post(t, app, chatPath(tuned, "failures"), s.chat(c.model)), c.status, c.code, s.up.Addr())
			if n := s.up.Received() - before; n != 1 {
				t.Errorf("the provider received %d requests, expected 1", n)
			}
		})
	}
	t.Run("ATimeoutCancelsAtTheProvider", func(t *testing.T) {
		up, secret := s.own(t, tuned, "slow")
		slow := s.app(t, tuned, "slow", map[string]any{"key": "slow"})
		wantError(t, post(t, slow, chatPath(tuned, "slow"), s.chat("up-hang")), http.StatusGatewayTimeout, "upstream_timeout")
		up.WaitCancelled(t, 1)
		if got := lastRequest(t, up); got.Key != secret {
			t.Error("it came with another key")
		}
	})
	t.Run("NobodyListensIs502", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_ = l.Close() // nobody listens there now
		s.root.Write(t, tuned+"/keys/gone", map[string]any{"provider": "vllm", "base_url": "http://" + l.Addr().String() + "/v1", "api_key": s.secret()})
		gone := s.app(t, tuned, "gone", map[string]any{"key": "gone"})
		wantError(t, post(t, gone, chatPath(tuned, "gone"), s.chat("up-ok")), http.StatusBadGateway, "upstream_unreachable", l.Addr().String())
		if got := post(t, s.root, tuned+"/keys/gone/verify", nil).Data()["result"]; got != "unreachable" {
			t.Errorf("verify says %v", got)
		}
	})
	t.Run("ARedirectIsNotFollowed", func(t *testing.T) {
		thief := s.provider(t, upstream.Options{})
		for _, code := range []string{"301", "302", "303", "307", "308"} {
			model := "up-redirect:" + code + ":" + thief.URL() + "/chat/completions"
			resp := post(t, app, chatPath(tuned, "failures"), s.chat(model))
			wantError(t, resp, http.StatusBadGateway, "upstream_unreachable", "redirect", code)
			if resp.Header.Get("Location") != "" {
				t.Error("the caller is sent there")
			}
		}
		if n := thief.Received(); n != 0 {
			t.Errorf("the other host received %d requests", n)
		}
	})
}

// own starts a provider with a key of its own and stores that under name.
func (s *suite) own(t *testing.T, mount, name string) (up *upstream.Server, secret string) {
	t.Helper()
	secret = s.secret()
	up = s.provider(t, upstream.Options{Keys: []string{secret}})
	s.key(t, mount, name, up, secret)
	return up, secret
}

// callers: what becomes of a request whose caller goes away, or comes too many
// at once.
func (s *suite) callers(t *testing.T) {
	t.Run("OneThatGoesAwayCancelsAtTheProvider", func(t *testing.T) {
		up, _ := s.own(t, mount, "cancelled")
		app := s.app(t, mount, "cancelled", map[string]any{"key": "cancelled"})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			_, err := app.Do(ctx, http.MethodPost, chatPath(mount, "cancelled"), s.chat("up-hang"))
			ended <- err
		}()
		up.WaitRequests(t, 1)
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the caller got %v", err)
		}
		up.WaitCancelled(t, 1)
		wantCompletion(t, post(t, app, chatPath(mount, "cancelled"), s.chat("up-ok")))
	})
	t.Run("OneTooManyGets429AndTheRestAreServed", func(t *testing.T) {
		up, _ := s.own(t, tuned, "crowd")
		app := s.app(t, tuned, "crowd", map[string]any{"key": "crowd"})
		s.root.Write(t, tuned+"/config", map[string]any{"inline_max_concurrent": 2, "upstream_timeout": "60s"})
		defer s.root.Write(t, tuned+"/config", map[string]any{"inline_max_concurrent": 0, "upstream_timeout": "2s"})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ended := make(chan struct{}, 2)
		for range 2 {
			go func() {
				_, _ = app.Do(ctx, http.MethodPost, chatPath(tuned, "crowd"), s.chat("up-hang")) // cancelled below
				ended <- struct{}{}
			}()
		}
		up.WaitRequests(t, 2)
		resp := post(t, app, chatPath(tuned, "crowd"), s.chat("up-ok"))
		wantError(t, resp, http.StatusTooManyRequests, "rate_limit_exceeded", "inline_max_concurrent")
		if resp.Header.Get("Retry-After") == "" {
			t.Error("it doesn't say when to come again")
		}
		cancel()
		<-ended
		<-ended
		up.WaitCancelled(t, 2)
		// The plugin frees a place a moment after the provider sees the end.
		eventually(t, "a place to be free", func() bool {
			return post(t, app, chatPath(tuned, "crowd"), s.chat("up-ok")).Status == http.StatusOK
		})
	})
}

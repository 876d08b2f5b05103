// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// sdkFailure is a call that fails, and what an SDK's exception must be.
type sdkFailure struct {
	name, role, key string
	model           string
	do              string
	status          int
	code            string
	says            string
	// class is the exception's, other that of the packages for which it isn't.
	class string
	other map[string]string
}

// TestGateway_SDKsRaiseTheirOwnExceptions: each refusal and failure is the exception
// that the package has for it, and its message says in words what is wrong.
func TestGateway_SDKsRaiseTheirOwnExceptions(t *testing.T) {
	t.Parallel()
	g := startGateway(t, gatewayOptions{})
	for name, limit := range map[string]string{"spent": "requests=1/day", "small": "output_tokens=1000/day", "busy": "concurrent=1", "free": "concurrent=100"} {
		g.role(t, name, map[string]any{"limits": []string{limit}})
	}
	g.role(t, "denied", nil)
	token := g.token(t, "spent", "small", "busy", "free", "missing")
	wantCompletion(t, post(t, g.atGateway(t, token), g.chatOf("spent"), hello("up-ok")))
	holder := g.exactly(t, token)
	holder.http.Timeout = 0 // it must last longer than the others
	eventually(t, "a stream to hold the only place", func() bool {
		held := holder.open(t, http.MethodPost, g.proxied("busy", chatRoute), nil, strings.NewReader(`{"model":"up-hang-mid","messages":[],"stream":true}`))
		t.Cleanup(func() { _ = held.Body.Close() })
		if held.StatusCode != http.StatusOK {
			text, _ := io.ReadAll(held.Body)
			t.Logf("it got %d %s", held.StatusCode, text)
		}
		return held.StatusCode == http.StatusOK
	})

	// What OpenAI's Python package has for statuses without a class of their own.
	python := map[string]string{"python": "APIStatusError"}
	failures := []sdkFailure{
		{name: "budget used up", role: "spent", status: 402, code: "budget_exceeded", says: "is used up", class: "APIError", other: python},
		{name: "larger than the limit", role: "small", status: 403, code: "request_exceeds_limit", says: "make it smaller", class: "PermissionDeniedError"},
		{name: "refused by Vault", role: "denied", status: 403, code: "permission_denied", says: "Vault refuses this token here (permission denied)", class: "PermissionDeniedError"},
		{name: "too many at once", role: "busy", status: 429, code: "rate_limit_exceeded", says: "under way on the limit concurrent=1", class: "RateLimitError"},
		{name: "no such virtual key", role: "missing", status: 404, code: "virtual_key_not_found", says: "does not exist", class: "NotFoundError"},
		{name: "no such leased key", role: "free", key: "vk-never-was", status: 401, code: "credential_invalid", says: "this leased key has expired", class: "AuthenticationError"},
		{name: "refused by the provider", role: "free", model: "up-400", status: 400, code: "refused_by_upstream", says: "refuses every request", class: "BadRequestError"},
		{name: "failed by the provider", role: "free", model: "up-503", status: 503, code: "engine_overloaded", says: "currently overloaded", class: "InternalServerError"},
		{name: "provider unreachable", role: "free", model: "up-reset", status: 502, code: "upstream_unreachable", says: "could not be reached or broke off", class: "InternalServerError"},
		{name: "broken off in mid-stream", role: "free", model: "up-reset-mid", do: "stream", says: "broke off", class: "APIError"},
		{name: "error in mid-stream", role: "free", model: "up-error-event", do: "stream", says: "The server had an error", class: "APIError"},
	}
	for _, language := range sdkLanguages {
		// Not in parallel: they might wait for their turn until idle_timeout ends the
		// stream that holds the place.
		t.Run(language, func(t *testing.T) {
			var calls []sdkCall
			want := map[string]sdkFailure{}
			for _, f := range failures {
				for _, door := range g.sdkDoors(language, f.role, token)[1:3] {
					if f.name == "error in mid-stream" && language == "node" && door.SDK == "portkey" {
						continue // it takes a provider's error for a chunk, of whomever it comes
					}
					call := f.call(t, door)
					calls, want[call.Name] = append(calls, call), f
				}
			}
			for name, end := range runCalls(t, language, calls) {
				want[name].check(t, language, name, &end)
			}
		})
	}
}

// call is the call that fails, at a door.
func (f sdkFailure) call(t *testing.T, door sdkCall) sdkCall {
	door.Name += ": " + f.name
	door.Do = "chat"
	if f.do != "" {
		door.Do = f.do
	}
	if f.key != "" {
		door.Key = f.key
	}
	model := f.model
	if model == "" {
		model = "up-ok"
	}
	door.Params = params(t, with(hello(model), map[string]any{"max_tokens": 5000}))
	return door
}

func (f sdkFailure) check(t *testing.T, language, name string, end *sdkEnd) {
	t.Helper()
	class := f.class
	if other, found := f.other[language]; found {
		class = other
	}
	switch e := end.Error; {
	case e == nil:
		t.Errorf("%s: it succeeded: %q", name, end.Text)
	case e.Class != class || e.Status != f.status || f.code != "" && e.Code != f.code || !strings.Contains(e.Message, f.says):
		t.Errorf("%s: %s, status %d, code %v: %q; expected %s, %d, %q, and words like %q", name, e.Class, e.Status, e.Code, e.Message, class, f.status, f.code, f.says)
	case f.do == "stream" && len(end.Arrivals) == 0:
		t.Errorf("%s: nothing of the stream came before the error", name)
	}
}

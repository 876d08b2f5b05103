// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
)

// accepts answers 200 to requests with this secret, and 401 to others.
func accepts(secret string) func(*http.Request) (*http.Response, error) {
	return func(r *http.Request) (*http.Response, error) {
		if r.Header.Get("Authorization") == "Bearer "+secret {
			return answerWith(http.StatusOK, "application/json", "{}"), nil
		}
		return always(http.StatusUnauthorized)(r)
	}
}

func TestRotate_ReplacesTheSecretForTheNextRequest(t *testing.T) {
	up, c := &upstream{}, newClock()
	m := newMount(t, Options{Transport: up, Now: c.now})
	m.write("keys/a", map[string]any{"provider": "openai", "api_key": secretA, "note": "n"})
	m.write("roles/r", map[string]any{"key": "a"})
	m.chat("r", "m").want(t, http.StatusOK, "")
	c.advance(time.Hour)
	resp := m.write("keys/a/rotate", map[string]any{"api_key": secretB})
	wantFields(t, overJSON(t, resp.Data), map[string]any{
		"version": 2, "fingerprint": fingerprintB, "note": "n", "created_at": "2026-05-01T12:00:00Z", "rotated_at": "2026-05-01T13:00:00Z",
	})
	m.chat("r", "m").want(t, http.StatusOK, "")
	sent := up.requests()
	for i, want := range []string{secretA, secretB} {
		if got := sent[i].Header.Get("Authorization"); got != "Bearer "+want {
			t.Errorf("request %d carried %q", i, got)
		}
	}
}

func TestRotate_RefusesWhatWouldChangeNothingOrIsNoSecret(t *testing.T) {
	m := newMount(t, Options{Transport: &upstream{}})
	m.refused(logical.UpdateOperation, "keys/a/rotate", map[string]any{"api_key": secretB}, "create it first")
	m.write("keys/a", openaiKey(secretA))
	m.refused(logical.UpdateOperation, "keys/a/rotate", nil, "api_key is missing")
	m.refused(logical.UpdateOperation, "keys/a/rotate", map[string]any{"api_key": " "}, "api_key is missing")
	m.refused(logical.UpdateOperation, "keys/a/rotate", map[string]any{"api_key": secretA}, "already stored")
	m.refused(logical.UpdateOperation, "keys/a/rotate", map[string]any{"api_key": secretB + "\x01"}, "api_key holds")
	m.refused(logical.UpdateOperation, "keys/a/rotate", map[string]any{"api_key": []string{secretB, secretB}}, "must be text")
	m.refused(logical.UpdateOperation, "keys/a/rotate", map[string]any{"api_key": secretB, "base_url": "https://evil.example.com"}, `unknown field "base_url"`)
	m.write("keys/s", map[string]any{"provider": "sandbox"})
	m.refused(logical.UpdateOperation, "keys/s/rotate", map[string]any{"api_key": secretB}, "takes no api_key")
	wantFields(t, m.read("keys/a"), map[string]any{"version": 1, "fingerprint": fingerprintA})
}

func TestRotate_RemovesWhiteSpaceWithAWarning(t *testing.T) {
	m := newMount(t, Options{})
	m.write("keys/a", openaiKey(secretA))
	wantWarning(t, m.write("keys/a/rotate", map[string]any{"api_key": "\t" + secretB}), "white space")
	wantFields(t, m.read("keys/a"), map[string]any{"fingerprint": fingerprintB})
}

func TestRotate_WithVerifyKeepsTheOldSecretUnlessTheNewOneIsAccepted(t *testing.T) {
	for name, c := range map[string]struct {
		answer  func(*http.Request) (*http.Response, error)
		refusal string // empty: rotated
		warning string
	}{
		"accepted":        {answer: accepts(secretB)},
		"refused":         {answer: accepts(secretA), refusal: "refused"},
		"unreachable":     {answer: unreachable, refusal: "unreachable"},
		"provider broken": {answer: always(http.StatusInternalServerError), refusal: "unreachable"},
		"inconclusive":    {answer: always(http.StatusOK), warning: "could not be checked"},
	} {
		t.Run(name, func(t *testing.T) {
			up := &upstream{answer: c.answer}
			m := newMount(t, Options{Transport: up})
			m.write("keys/a", openaiKey(secretA))
			rotation := map[string]any{"api_key": secretB, "verify": true}
			if c.refusal != "" {
				m.refused(logical.UpdateOperation, "keys/a/rotate", rotation, "the old key stays", c.refusal)
				wantFields(t, m.read("keys/a"), map[string]any{"version": 1, "fingerprint": fingerprintA})
			} else {
				wantWarning(t, m.write("keys/a/rotate", rotation), c.warning)
				wantFields(t, m.read("keys/a"), map[string]any{"version": 2, "fingerprint": fingerprintB})
			}
			if got := up.requests()[0].Header.Get("Authorization"); got != "Bearer "+secretB {
				t.Errorf("checked with %q", got)
			}
		})
	}
}

func TestVerify_SaysWhatTheProviderMakesOfTheStoredSecret(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(*http.Request) (*http.Response, error)
		result string
		status int
	}{
		"accepted":     {accepts(secretA), "valid", 200},
		"refused":      {accepts(secretB), "refused", 401},
		"unreachable":  {unreachable, "unreachable", 0},
		"inconclusive": {always(http.StatusOK), "inconclusive", 200},
	} {
		t.Run(name, func(t *testing.T) {
			up := &upstream{answer: c.answer}
			m := newMount(t, Options{Transport: up})
			m.write("keys/a", openaiKey(secretA))
			data := overJSON(t, m.write("keys/a/verify", nil).Data)
			wantFields(t, data, map[string]any{"result": c.result, "http_status": c.status})
			if !strings.Contains(data["detail"].(string), "https://api.openai.com/v1/models") {
				t.Errorf("detail %q doesn't say what was asked", data["detail"])
			}
		})
	}
}

func TestVerify_NothingIsAskedWhereItMustNotBe(t *testing.T) {
	up := &upstream{}
	m := newMount(t, Options{Transport: up})
	m.refused(logical.UpdateOperation, "keys/a/verify", nil, "create it first")
	m.write("keys/a", openaiKey(secretA))
	m.write("config", map[string]any{"allowed_upstream_hosts": "llm.example.com"})
	m.refused(logical.UpdateOperation, "keys/a/verify", nil, "allowed_upstream_hosts")
	m.refused(logical.UpdateOperation, "keys/a/rotate", map[string]any{"api_key": secretB, "verify": true}, "allowed_upstream_hosts")

	standby := newStandby(t, Options{Transport: up}, consts.ReplicationUnknown, m.storage)
	standby.write("config", map[string]any{"allowed_upstream_hosts": ""})
	wantFields(t, standby.write("keys/a/verify", nil).Data, map[string]any{"result": "unreachable"})
	if n := len(up.requests()); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
}

// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/internal/apierror"
)

func TestAsk_PutsTheCallersOwnQuestionAndNothingElseOfTheRequest(t *testing.T) {
	r := newRig(t, func(s *Settings) { s.VaultNamespace = "team" })
	r.vault.token("tok", nil)
	wantOK(t, r.chat("tok", hello, "Cookie", "a=b", "X-Forwarded-For", "203.0.113.9", "X-Vault-Wrap-TTL", "60", "X-Portkey-Metadata", "{}", "User-Agent", "app"))
	a := r.vault.questions()[0]
	if a.method != http.MethodPost || a.role != "team-a" || a.path != "v1/chat/completions" || a.token != "tok" {
		t.Errorf("Vault was asked %s on %s, %s, with the token %q", a.method, a.role, a.path, a.token)
	}
	if a.fields["model"] != "gpt-4o" || a.fields["messages"] != nil || a.fields["temperature"] != 0.5 || len(a.fields) != 4 || len(a.nonce) != 43 {
		t.Errorf("Vault was shown %s", a.body)
	}
	for name, want := range map[string]string{
		"X-Forwarded-For": testSource, "X-Vault-Namespace": "team", "Content-Type": "application/json", "Authorization": "",
		"Cookie": "", "X-Vault-Wrap-Ttl": "", "X-Portkey-Metadata": "", "User-Agent": "vault-plugin-secrets-portkey gateway",
	} {
		if got := strings.Join(a.header.Values(name), "|"); got != want {
			t.Errorf("Vault got the header %s: %q, want %q", name, got, want)
		}
	}
	if got := r.mount.lastCaller(t); got.Entity != "entity-tok" || got.DisplayName != "display-tok" || got.Accessor != "accessor-tok" || got.Token != "salted-tok" {
		t.Errorf("the mount was told that it is %+v", got)
	}
}

func TestAsk_BringsTheNonceInTheQueryOfAGetAndDelete(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", nil)
	for _, method := range []string{http.MethodGet, http.MethodDelete} {
		target := "/v1/" + testMount + "proxy/team-a/v1/chat/completions/c-1?limit=2&after=a%20b&limit=3&key=placeholder&empty"
		wantOK(t, r.send(request(method, target, "tok", "")))
		a := r.vault.questions()[r.vault.count()-1]
		if a.method != method || a.path != "v1/chat/completions/c-1" || a.body != "" || len(a.nonce) != 43 {
			t.Errorf("Vault was asked %+v", a)
		}
		if list, _ := a.fields["limit"].([]any); len(list) != 2 || a.fields["after"] != "a b" || a.fields["empty"] != "" || a.fields["key"] != nil {
			t.Errorf("Vault was shown %v", a.fields)
		}
		if got := r.provider.last(t); got.method != method || got.query != "limit=2&after=a%20b&limit=3&empty" || strings.Contains(got.query, NonceField) {
			t.Errorf("the provider got %+v", got)
		}
	}
}

// failedAnswers are what Vault can say after it has passed a request on to the plugin.
var failedAnswers = map[string]struct {
	answer func(http.ResponseWriter, *asked) bool
	status int
	code   string
}{
	"400": {says(400, "failed to register lease"), 403, apierror.CodePermissionDenied},
	"403": {says(403, "permission denied"), 403, apierror.CodePermissionDenied},
	"404": {says(404, "no handler for route"), 400, apierror.CodeInvalidRequest},
	"429": {says(429, "request path \"x\": rate limit quota exceeded"), 429, apierror.CodeRateLimitExceeded},
	"500": {says(500, "internal error"), 503, apierror.CodeVaultUnavailable},
	"503": {says(503, "Vault is sealed"), 503, apierror.CodeVaultUnavailable},
	"307": {elsewhere(307), 503, apierror.CodeVaultUnavailable},
	"301": {elsewhere(301), 503, apierror.CodeVaultUnavailable},
	"cut": {cutOff, 503, apierror.CodeVaultUnavailable},
}

func says(status int, what string) func(http.ResponseWriter, *asked) bool {
	return func(w http.ResponseWriter, _ *asked) bool {
		vaultSays(w, status, what)
		return true
	}
}

// A plugin that didn't make the nonce says so. That isn't the caller's fault.
func TestAsk_AnotherInstancesNoIsNoWordOnTheCaller(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", nil)
	r.vault.misbehave(func(w http.ResponseWriter, _ *asked) bool {
		badNonce("this nonce was not made here").Write(w)
		return true
	}, nil)
	for range maxFailures + 1 {
		wantRefusal(t, r.chat("tok", hello), 503, apierror.CodeVaultUnavailable, "another instance")
	}
	r.vault.misbehave(nil, nil)
	wantOK(t, r.chat("tok", hello))
}

func elsewhere(status int) func(http.ResponseWriter, *asked) bool {
	return func(w http.ResponseWriter, _ *asked) bool {
		w.Header().Set("Location", "http://192.0.2.1/v1/x")
		w.WriteHeader(status)
		return true
	}
}

func TestAsk_TestimonyWithoutVaultsYesIsNoGrantAndEndsTheSessionOfItsLease(t *testing.T) {
	for name, c := range failedAnswers {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.vault.newcomers = true
			r.vault.token("tok", nil)
			r.vault.misbehave(nil, c.answer)
			wantRefusal(t, r.chat("tok", hello), c.status, c.code)
			if n := len(r.provider.requests()); n != 0 {
				t.Fatalf("%d requests reached the provider", n)
			}
			r.clock.advance(refusalTTL) // of a no that is kept
			r.vault.misbehave(nil, nil)
			wantOK(t, r.chat("tok", hello))
			if n := r.vault.count(); n != 2 {
				t.Errorf("Vault was asked %d times, want twice", n)
			}
			// The first lease wasn't made: nothing watches over the token unless
			// another is.
			if n := r.vault.leasesOf("tok"); n != 1 {
				t.Fatalf("%d leases watch over the token, want one", n)
			}
			r.vault.revoke("tok")
			wantRefusal(t, r.chat("tok", hello), 403, apierror.CodePermissionDenied)
		})
	}
}

func TestAsk_VaultsYesWithoutTestimonyIsNoGrant(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", nil)
	r.vault.misbehave(says(200, ""), nil)
	for range 2 { // nothing is kept
		wantRefusal(t, r.chat("tok", hello), 503, apierror.CodeVaultUnavailable, "vault_address")
	}
	if n := r.vault.count(); n != 2 || len(r.provider.requests()) != 0 {
		t.Errorf("Vault was asked %d times, and %d requests reached the provider", n, len(r.provider.requests()))
	}
}

func TestAsk_FollowsNoRedirectAndUsesNoProxy(t *testing.T) {
	var stolen []string
	thief := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		stolen = append(stolen, r.Header.Get("X-Vault-Token"))
	}))
	defer thief.Close()
	r := newRig(t)
	r.vault.token("tok", nil)
	for _, status := range []int{301, 302, 303, 307, 308} {
		r.vault.misbehave(func(w http.ResponseWriter, a *asked) bool {
			w.Header().Set("Location", thief.URL+"/v1/"+a.path)
			w.WriteHeader(status)
			return true
		}, nil)
		if got := r.chat("tok", hello); got.status < 400 {
			t.Errorf("%d: got %d %s", status, got.status, got.body)
		}
	}
	if len(stolen) != 0 {
		t.Errorf("another server got the tokens %q", stolen)
	}
	if r.live.Load().vault.transport.Proxy != nil {
		t.Error("the client of Vault takes a proxy from its environment")
	}
}

func TestAsk_TellsATokenOnItsLastUseToGoToVault(t *testing.T) {
	r := newRig(t)
	r.vault.newcomers = true
	r.vault.token("tok", nil)
	r.vault.misbehave(nil, says(400, "1 error occurred:\n\t* Secret cannot be returned; token had one use left\n\n"))
	wantRefusal(t, r.chat("tok", hello), 403, apierror.CodePermissionDenied, "last use", "token had one use left")
	r.apply(t, func(s *Settings) { s.GrantTTL = 0 }) // then there is no lease that could be the reason
	wantRefusal(t, r.chat("tok", hello), 400, apierror.CodeInvalidRequest, "token had one use left")
}

func TestAsk_QuotaOfVaultsIsPassedOn(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", nil)
	r.vault.misbehave(func(w http.ResponseWriter, _ *asked) bool {
		w.Header().Set("Retry-After", "7")
		vaultSays(w, 429, "rate limit quota exceeded")
		return true
	}, nil)
	for range maxFailures + 1 { // a quota isn't a wrong credential
		got := r.chat("tok", hello)
		wantRefusal(t, got, 429, apierror.CodeRateLimitExceeded, "rate limit quota exceeded")
		if got.header.Get("Retry-After") != "7" {
			t.Errorf("Retry-After is %q", got.header.Get("Retry-After"))
		}
	}
}

func TestAsk_RefusalsAreKeptForTwoSecondsAndEachForItsQuestion(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", func(a *asked) bool { return a.fields["model"] == "gpt-4o" })
	const no = `{"model":"o3"}`
	wantRefusal(t, r.chat("tok", no), 403, apierror.CodePermissionDenied, "permission denied", NonceField)
	r.clock.advance(refusalTTL - 1)
	wantRefusal(t, r.chat("tok", no), 403, apierror.CodePermissionDenied, "permission denied")
	if n := r.vault.count(); n != 1 {
		t.Errorf("Vault was asked %d times within the two seconds", n)
	}
	wantOK(t, r.chat("tok", hello))
	r.vault.token("tok", nil) // its policy allows it now
	r.clock.advance(1)
	wantOK(t, r.chat("tok", no))
	if n := r.vault.count(); n != 3 {
		t.Errorf("Vault was asked %d times", n)
	}
}

func TestAsk_TTLZeroAsksEachTimeAndWantsNoLease(t *testing.T) {
	r := newRig(t, func(s *Settings) { s.GrantTTL = 0 })
	r.vault.token("tok", nil)
	for range 3 {
		wantOK(t, r.chat("tok", hello))
	}
	r.vault.revoke("tok")
	for range 2 {
		wantRefusal(t, r.chat("tok", hello), 403, apierror.CodePermissionDenied)
	}
	r.vault.token("tok", nil)
	wantOK(t, r.chat("tok", hello))
	if n := r.vault.count(); n != 6 || r.vault.leasesOf("tok") != 0 {
		t.Errorf("Vault was asked %d times and made %d leases", n, r.vault.leasesOf("tok"))
	}
	if slices.ContainsFunc(r.vault.questions(), func(a asked) bool { return a.lease }) {
		t.Error("a lease was wanted")
	}
}

func TestAsk_VaultGoneIsNoYesButGrantsGoOnForTheirTTL(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", nil)
	wantOK(t, r.chat("tok", hello))
	r.vault.misbehave(cutOff, nil)
	wantRefusal(t, r.chat("tok", `{"model":"another"}`), 503, apierror.CodeVaultUnavailable)
	r.clock.advance(time.Minute - 1)
	wantOK(t, r.chat("tok", hello))
	r.clock.advance(1)
	wantRefusal(t, r.chat("tok", hello), 503, apierror.CodeVaultUnavailable)
	r.vault.server.Close()
	wantRefusal(t, r.chat("tok", hello), 503, apierror.CodeVaultUnavailable)
}

func TestAsk_ErrorsHoldNeitherTokenNorNonce(t *testing.T) {
	r := newRig(t)
	r.vault.token("s3cr3t-token", nil)
	target := "/v1/" + testMount + "proxy/team-a/v1/models"
	for name, c := range failedAnswers {
		r.vault.misbehave(nil, c.answer)
		for _, req := range []*http.Request{request("GET", target, "s3cr3t-token", ""), chatRequest("s3cr3t-token", hello)} {
			got := r.send(req)
			a := r.vault.questions()[r.vault.count()-1]
			if strings.Contains(got.body, "s3cr3t-token") || strings.Contains(got.body, a.nonce) {
				t.Errorf("%s: the answer is %s", name, got.body)
			}
			r.clock.advance(time.Minute)
		}
	}
	r.vault.server.Close()
	if got := r.send(request("GET", target, "s3cr3t-token", "")); strings.Contains(got.body, "s3cr3t") || strings.Contains(got.body, NonceField) {
		t.Errorf("the answer is %s", got.body)
	}
}

func TestAsk_NeedsThePathOfTheMount(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", nil)
	r.mount.set(func(m *fakeMount) { m.path = "" })
	got := r.send(request("POST", "/v1/chat/completions", "tok", hello, "x-portkey-virtual-key", "team-a"))
	wantRefusal(t, got, 503, apierror.CodeVaultUnavailable, "path of the mount")
	if r.vault.count() != 0 {
		t.Error("Vault was asked")
	}
}

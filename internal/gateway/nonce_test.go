// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"context"
	"encoding/base64"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/internal/apierror"
)

// pendingChat is a question about a chat that is under way, and the testimony that
// fits it.
func pendingChat(t testing.TB, g *Gateway) (*pending, *Testimony) {
	t.Helper()
	fields := map[string]any{"model": "m", "n": 1.0}
	seen, err := canonical(fields)
	if err != nil {
		t.Fatal(err)
	}
	p := &pending{
		method: http.MethodPost, path: "proxy/team-a/v1/chat/completions", fields: seen,
		source: netip.MustParseAddr(testSource), wantLease: true,
	}
	nonce, key := g.nonces.open(p)
	t.Cleanup(func() { g.nonces.close(key) })
	return p, &Testimony{
		Nonce: nonce, Method: p.method, Path: p.path, Fields: fields, Remote: testSource, Caller: Caller{Token: "salted"},
	}
}

func wantCode(t testing.TB, err *apierror.Error, code string) {
	t.Helper()
	if err == nil || err.Code != code || err.Status != http.StatusForbidden {
		t.Fatalf("the error is %+v, want %s", err, code)
	}
}

func TestNonce_CountsOnce(t *testing.T) {
	r := newRig(t)
	p, testimony := pendingChat(t, r.Gateway)
	if lease, err := r.Testify(testimony); err != nil || !lease || !p.testified || p.caller.Token != "salted" {
		t.Fatalf("%t %v %+v", lease, err, p)
	}
	lease, err := r.Testify(testimony)
	if wantCode(t, err, apierror.CodeNonceInvalid); lease {
		t.Error("a lease is wanted for nothing")
	}
}

func TestNonce_CountsOnceForManyAtOnce(t *testing.T) {
	r := newRig(t)
	for range 20 {
		_, testimony := pendingChat(t, r.Gateway)
		var taken atomic.Int64
		var all sync.WaitGroup
		for range 32 {
			all.Go(func() {
				if _, err := r.Testify(testimony); err == nil {
					taken.Add(1)
				}
			})
		}
		all.Wait()
		if n := taken.Load(); n != 1 {
			t.Fatalf("a nonce counted %d times", n)
		}
	}
}

func TestNonce_ThatTheGatewayDidNotMakeIsRefused(t *testing.T) {
	r := newRig(t)
	_, testimony := pendingChat(t, r.Gateway)
	for _, nonce := range []string{"", "x", testimony.Nonce[1:], testimony.Nonce + "A", strings.ToLower(testimony.Nonce), strings.Repeat("A", 43)} {
		forged := *testimony
		forged.Nonce = nonce
		_, err := r.Testify(&forged)
		wantCode(t, err, apierror.CodeNonceInvalid)
		if strings.Contains(err.Message, testimony.Nonce) {
			t.Errorf("the error shows a nonce: %s", err.Message)
		}
	}
	if _, err := r.Testify(testimony); err != nil {
		t.Errorf("guesses harmed the nonce that was made: %v", err)
	}
}

func TestNonce_IsForOneRequestFromOneAddress(t *testing.T) {
	r := newRig(t)
	for name, c := range map[string]struct {
		change func(*Testimony)
		code   string
	}{
		"method":          {func(t *Testimony) { t.Method = http.MethodGet }, apierror.CodeNonceInvalid},
		"role":            {func(t *Testimony) { t.Path = "proxy/team-b/v1/chat/completions" }, apierror.CodeNonceInvalid},
		"prompt":          {func(t *Testimony) { t.Path = "prompts/team-a/v1/chat/completions" }, apierror.CodeNonceInvalid},
		"below elsewhere": {func(t *Testimony) { t.Path = "team-a/v1/chat/completions" }, apierror.CodeNonceInvalid},
		"path":            {func(t *Testimony) { t.Path += "/x" }, apierror.CodeNonceInvalid},
		"query":           {func(t *Testimony) { t.Query = "a=b" }, apierror.CodeNonceInvalid},
		"value":           {func(t *Testimony) { t.Fields = map[string]any{"model": "m2", "n": 1.0} }, apierror.CodeNonceInvalid},
		"field more":      {func(t *Testimony) { t.Fields = map[string]any{"model": "m", "n": 1.0, "x": nil} }, apierror.CodeNonceInvalid},
		"field less":      {func(t *Testimony) { t.Fields = map[string]any{"model": "m"} }, apierror.CodeNonceInvalid},
		"no fields":       {func(t *Testimony) { t.Fields = nil }, apierror.CodeNonceInvalid},
		"value's type":    {func(t *Testimony) { t.Fields = map[string]any{"model": "m", "n": "1"} }, apierror.CodeNonceInvalid},
		"address":         {func(t *Testimony) { t.Remote = "192.0.2.8" }, apierror.CodeCallerAddress},
		"gateway's":       {func(t *Testimony) { t.Remote = "127.0.0.1" }, apierror.CodeCallerAddress},
		"no address":      {func(t *Testimony) { t.Remote = "" }, apierror.CodeCallerAddress},
		"address in text": {func(t *Testimony) { t.Remote = testSource + ", 127.0.0.1" }, apierror.CodeCallerAddress},
		"address's port":  {func(t *Testimony) { t.Remote = testSource + ":4711" }, apierror.CodeCallerAddress},
	} {
		p, testimony := pendingChat(t, r.Gateway)
		changed := *testimony
		c.change(&changed)
		lease, err := r.Testify(&changed)
		if wantCode(t, err, c.code); lease || p.session != nil || p.failure == nil || p.caller.Token != "" {
			t.Errorf("%s: the question got %+v", name, p)
		}
		if _, err = r.Testify(testimony); err == nil {
			t.Errorf("%s: the nonce counts still", name)
		}
	}
	if len(r.sessions.tokens) != 0 {
		t.Error("what was refused made a session")
	}
}

func TestNonce_AddressesThatAreTheSameAreTheSame(t *testing.T) {
	r := newRig(t)
	for _, c := range [][2]string{
		{testSource, "::ffff:" + testSource}, {"2001:db8::7", "2001:db8:0::0007"}, {"fe80::1", "fe80::1%eth0"},
	} {
		p, testimony := pendingChat(t, r.Gateway)
		p.source, testimony.Remote = netip.MustParseAddr(c[0]), c[1]
		if _, err := r.Testify(testimony); err != nil {
			t.Errorf("%s for %s: %v", c[1], c[0], err)
		}
	}
	p, testimony := pendingChat(t, r.Gateway)
	p.source, testimony.Remote = netip.Addr{}, "203.0.113.1"
	if _, err := r.Testify(testimony); err != nil {
		t.Errorf("caller_address=ignore: %v", err)
	}
}

func TestNonce_UnknownAddressTellsTheOperatorWhatToWrite(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", nil)
	r.vault.forgets = true
	got := r.chat("tok", hello)
	wantRefusal(t, got, 403, apierror.CodeCallerAddress, testSource, `listener "tcp" {`, "x_forwarded_for_authorized_addrs", "caller_address=ignore")
	if n := len(r.provider.requests()); n != 0 {
		t.Errorf("%d requests reached the provider", n)
	}
	wantRefusal(t, r.chat("tok", hello), 403, apierror.CodeCallerAddress)
	if n := r.vault.count(); n != 2 {
		t.Error("the refusal was kept, though the operator may have put it right")
	}
	r.apply(t, func(s *Settings) { s.IgnoreCallerAddress = true })
	wantOK(t, r.chat("tok", hello))
}

func TestNonce_IsLongAndKeptAsAHash(t *testing.T) {
	r := newRig(t)
	seen := map[string]bool{}
	for range 100 {
		_, testimony := pendingChat(t, r.Gateway)
		if raw, err := base64.RawURLEncoding.DecodeString(testimony.Nonce); err != nil || len(raw) != 32 || seen[testimony.Nonce] {
			t.Fatalf("the nonce %q has %d bytes, or is an old one", testimony.Nonce, len(raw))
		}
		seen[testimony.Nonce] = true
		for key := range r.nonces.pending {
			if strings.Contains(testimony.Nonce, string(key[:])) || string(key[:]) == testimony.Nonce[:32] {
				t.Fatal("memory holds a nonce")
			}
		}
	}
}

func TestNonce_OfAQuestionThatEndsJustBeforeItsTestimonyIsRefused(t *testing.T) {
	r := newRig(t)
	p, testimony := pendingChat(t, r.Gateway)
	if said := p.end(); said.testified {
		t.Error("nobody has testified")
	}
	lease, err := r.Testify(testimony)
	if wantCode(t, err, apierror.CodeNonceInvalid); lease || len(r.sessions.tokens) != 0 {
		t.Error("it made a session though nobody waits for its lease")
	}
}

// Vault may go on with a question that the gateway has given up.
func TestNonce_OfAQuestionThatWasGivenUpIsRefused(t *testing.T) {
	r := newRig(t, func(s *Settings) { s.GrantTTL = 0 }) // so that the caller's end is the question's
	r.vault.token("tok", nil)
	h := newHeldVault()
	defer h.release()
	refused := make(chan bool, 1)
	r.vault.misbehave(h.hold, func(http.ResponseWriter, *asked) bool {
		refused <- false
		return false
	})
	ctx, leave := context.WithCancel(t.Context())
	done := r.inBackground(chatRequest("tok", hello).WithContext(ctx))
	a := received(t, "the question", h.arrived)
	leave()
	received(t, "the caller's end", done)
	_, err := r.Testify(a.testimony(Caller{Token: "salted-tok"}, testSource))
	wantCode(t, err, apierror.CodeNonceInvalid)
	h.release()
	select {
	case <-refused:
		t.Error("the testimony was taken")
	case <-time.After(50 * time.Millisecond):
	}
}

// A lease that nobody waits for any more may not have been made: Vault drops what it
// was doing when its caller goes.
func TestNonce_OfAQuestionGivenUpAfterItsTestimonyLeavesNoSessionWithoutALease(t *testing.T) {
	r := newRig(t)
	r.vault.newcomers = true
	r.vault.token("tok", nil)
	h := newHeldVault()
	defer h.release()
	r.vault.misbehave(nil, func(w http.ResponseWriter, a *asked) bool {
		if h.hold(w, a); !a.lease {
			return false
		}
		return cutOff(w, a)
	})
	ctx, giveUp := context.WithCancel(t.Context())
	done := make(chan *apierror.Error, 1)
	go func() {
		q := &question{token: "tok", source: netip.MustParseAddr(testSource), method: "POST", path: "proxy/team-a/v1/x", shown: []byte(`{}`)}
		_, err := r.ask(ctx, r.live.Load(), q, &digest{}, false)
		done <- err
	}()
	if a := received(t, "the testimony", h.arrived); !a.lease {
		t.Fatal("it took no lease")
	}
	giveUp()
	if err := received(t, "the end of the question", done); err == nil {
		t.Fatal("a question that was given up was granted")
	}
	h.release()
	r.vault.misbehave(nil, nil)
	wantOK(t, r.chat("tok", hello))
	if n := r.vault.leasesOf("tok"); n != 1 {
		t.Errorf("%d leases watch over the grant", n)
	}
}

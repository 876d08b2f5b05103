// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/internal/apierror"
)

// ofModel is a chat with a model, and so a question of its own.
func ofModel(model any) string { return fmt.Sprintf(`{"model":"m-%v"}`, model) }

func TestSession_OneLeaseWatchesOverAllGrantsOfAToken(t *testing.T) {
	r := newRig(t)
	r.vault.newcomers = true
	r.vault.token("a", nil)
	r.vault.token("b", nil)
	for i := range 5 {
		wantOK(t, r.chat("a", ofModel(i)))
		wantOK(t, r.send(from("192.0.2.99:1", chatRequest("a", ofModel(i)))))
	}
	wantOK(t, r.chat("b", hello))
	if a, b := r.vault.leasesOf("a"), r.vault.leasesOf("b"); a != 1 || b != 1 {
		t.Errorf("%d leases of a and %d of b, want one each", a, b)
	}
}

func TestSession_QuestionsAtOnceTakeOneLease(t *testing.T) {
	r := newRig(t)
	r.vault.newcomers = true
	r.vault.token("a", nil)
	h := newHeldVault()
	defer h.release()
	r.vault.misbehave(h.hold, nil)
	var replies []<-chan reply
	for i := range 32 {
		replies = append(replies, r.inBackground(chatRequest("a", ofModel(i))))
	}
	for range replies {
		received(t, "a question", h.arrived)
	}
	h.release()
	for _, done := range replies {
		wantOK(t, received(t, "an answer", done))
	}
	if n := r.vault.leasesOf("a"); n != 1 {
		t.Errorf("%d leases", n)
	}
}

func TestSession_TakesAnotherLeaseWhenTheFirstIsOver(t *testing.T) {
	r := newRig(t)
	r.vault.newcomers = true
	r.vault.token("a", nil)
	for i, c := range []struct {
		after  time.Duration
		leases int
	}{{0, 1}, {LeaseTTL - 1, 1}, {1, 2}, {LeaseTTL - 1, 2}, {3 * LeaseTTL, 3}} {
		r.clock.advance(c.after)
		wantOK(t, r.chat("a", ofModel(i)))
		if n := r.vault.leasesOf("a"); n != c.leases {
			t.Errorf("step %d: %d leases, want %d", i, n, c.leases)
		}
	}
}

func TestSession_RevocationEndsAllGrantsOfItsTokenAndNoOthers(t *testing.T) {
	r := newRig(t)
	for _, token := range []string{"a", "b", "aa"} {
		r.vault.token(token, nil)
		for i := range 4 {
			wantOK(t, r.chat(token, ofModel(i)))
		}
	}
	r.vault.revoke("a")
	before := r.vault.count()
	for i := range 4 {
		wantRefusal(t, r.chat("a", ofModel(i)), 403, apierror.CodePermissionDenied)
		wantOK(t, r.chat("b", ofModel(i)))
		wantOK(t, r.chat("aa", ofModel(i)))
	}
	if n := r.vault.count() - before; n != 4 {
		t.Errorf("Vault was asked %d times, want once for each grant that ended", n)
	}
}

// Vault ends a lease when its time is over too; then the token is still valid.
func TestSession_LeaseThatEndsMakesVaultBeAskedAgain(t *testing.T) {
	r := newRig(t)
	r.vault.newcomers = true
	r.vault.token("a", nil)
	wantOK(t, r.chat("a", hello))
	r.Revoke("salted-a")
	r.Revoke("salted-a")
	r.Revoke("salted-unknown")
	r.Revoke("")
	wantOK(t, r.chat("a", hello))
	if asks, leases := r.vault.count(), r.vault.leasesOf("a"); asks != 2 || leases != 2 {
		t.Errorf("%d questions and %d leases, want two of each", asks, leases)
	}
}

func TestSession_RevocationBetweenTestimonyAndAnswerIsHeard(t *testing.T) {
	r := newRig(t)
	r.vault.token("a", nil)
	wantOK(t, r.chat("a", hello)) // which takes the lease
	r.vault.misbehave(nil, func(http.ResponseWriter, *asked) bool {
		r.vault.revoke("a")
		return false // Vault has let the request in before, and answers 200
	})
	wantOK(t, r.chat("a", ofModel(1))) // it was judged before
	r.vault.misbehave(nil, nil)
	for _, body := range []string{hello, ofModel(1)} {
		wantRefusal(t, r.chat("a", body), 403, apierror.CodePermissionDenied)
	}
	if n := len(r.provider.requests()); n != 2 {
		t.Errorf("%d requests reached the provider", n)
	}
}

// Vault has looked at the token already, ends its leases, and only then brings the
// question to the plugin.
func TestSession_RevocationBetweenVaultsLookAndTestimonyIsHeard(t *testing.T) {
	r := newRig(t)
	r.vault.token("a", nil)
	wantOK(t, r.chat("a", hello)) // which takes the lease
	looks := 0
	r.vault.token("a", func(*asked) bool {
		looks++
		r.Revoke("salted-a")
		return looks == 1
	})
	wantOK(t, r.chat("a", ofModel(1))) // it was judged before
	wantRefusal(t, r.chat("a", ofModel(1)), 403, apierror.CodePermissionDenied)
	wantRefusal(t, r.chat("a", hello), 403, apierror.CodePermissionDenied)
	if n := len(r.provider.requests()); n != 2 {
		t.Errorf("%d requests reached the provider", n)
	}
}

// A request that begins after a revocation may find a question under way on which Vault
// said yes before it.
func TestSession_RequestAfterARevocationIsNotLetInByAQuestionFromBeforeIt(t *testing.T) {
	r := newRig(t)
	r.vault.token("a", nil)
	h := newHeldVault()
	defer h.release()
	r.vault.misbehave(nil, h.hold)
	before := r.inBackground(chatRequest("a", hello))
	received(t, "Vault's yes", h.arrived)
	r.vault.revoke("a")
	after := r.inBackground(chatRequest("a", hello))
	until(t, "both are under way", func() bool { return r.calls.count() == 2 })
	time.Sleep(20 * time.Millisecond) // for the second to join the first
	h.release()
	wantRefusal(t, received(t, "the answer", after), 403, apierror.CodePermissionDenied)
	received(t, "the answer from before", before)
}

func TestSession_LeaseThatEndsDuringAQuestionLeavesItsWordForThatRequestAlone(t *testing.T) {
	r := newRig(t)
	r.vault.token("a", nil)
	r.vault.misbehave(nil, func(http.ResponseWriter, *asked) bool {
		r.Revoke("salted-a")
		return false
	})
	wantOK(t, r.chat("a", hello))
	r.vault.misbehave(nil, nil)
	wantOK(t, r.chat("a", hello))
	if n := r.vault.count(); n != 2 {
		t.Errorf("%d questions", n)
	}
}

// Nobody hears of the revocation of a token between Vault's look at it and its lease.
// What came with the lease therefore counts once, and the next question is kept.
func TestSession_GrantOfATokenThatHadNoLeaseCountsOnce(t *testing.T) {
	r := newRig(t)
	r.vault.newcomers = true
	r.vault.token("a", nil)
	for i, want := range []int{1, 2, 2, 2} {
		wantOK(t, r.chat("a", hello))
		if n := r.vault.count(); n != want {
			t.Errorf("request %d: Vault was asked %d times, want %d", i, n, want)
		}
	}
	if n := r.vault.leasesOf("a"); n != 1 {
		t.Errorf("%d leases", n)
	}
}

// The lease of one question watches over the grants of others. If it fails, they are
// over too.
func TestSession_LeaseThatFailsEndsGrantsThatReliedOnIt(t *testing.T) {
	for name, c := range failedAnswers {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.vault.newcomers = true
			r.vault.token("a", nil)
			h := newHeldVault()
			defer h.release()
			r.vault.misbehave(nil, func(w http.ResponseWriter, a *asked) bool {
				if !a.lease {
					return false
				}
				h.hold(w, a)
				return c.answer(w, a)
			})
			first := r.inBackground(chatRequest("a", ofModel(1)))
			received(t, "the question that takes the lease", h.arrived)
			wantOK(t, r.chat("a", ofModel(2)))
			h.release()
			wantRefusal(t, received(t, "the first one's answer", first), c.status, c.code)
			r.vault.misbehave(nil, nil)
			before := r.vault.count()
			wantOK(t, r.chat("a", ofModel(2)))
			if n := r.vault.count() - before; n != 1 {
				t.Error("a grant goes on that no lease watches over")
			}
			if n := r.vault.leasesOf("a"); n != 1 {
				t.Errorf("%d leases were made", n)
			}
		})
	}
}

func TestSession_TokenRevokedWhileItsLeaseIsMadeIsRefused(t *testing.T) {
	r := newRig(t)
	r.vault.newcomers = true
	r.vault.token("a", nil)
	r.vault.misbehave(nil, func(http.ResponseWriter, *asked) bool {
		r.vault.revoke("a") // there is no lease yet, so that nobody is told
		return false
	})
	got := r.chat("a", hello)
	if got.status == http.StatusOK {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	r.vault.misbehave(nil, nil)
	wantRefusal(t, r.chat("a", hello), 403, apierror.CodePermissionDenied)
}

func TestSessions_SweepEndsThoseWhoseLeaseShouldHaveEndedLongAgo(t *testing.T) {
	var s sessions
	at := clockStart
	first, leased := s.join("a", true, s.count(), at)
	if again, more := s.join("a", true, s.count(), at); !leased || more || again != first {
		t.Fatal("the second question of a token doesn't join the first")
	}
	s.sweep(at.Add(LeaseTTL + time.Minute))
	if first.over.Load() != 0 || len(s.tokens) != 1 {
		t.Error("it ended too early")
	}
	s.sweep(at.Add(LeaseTTL + time.Minute + 1))
	if first.over.Load() == 0 || len(s.tokens) != 0 {
		t.Error("it didn't end")
	}
	if next, leased := s.join("a", true, s.count(), at.Add(2*LeaseTTL)); !leased || next == first || next.over.Load() != 0 {
		t.Error("there is no new session with a lease after it")
	}
}

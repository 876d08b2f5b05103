// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/internal/apierror"
)

// heldVault lets questions wait in Vault: arrived tells of each, and release lets all go
// on.
type heldVault struct {
	arrived chan *asked
	gate    chan struct{}
	once    sync.Once
}

func newHeldVault() *heldVault {
	return &heldVault{arrived: make(chan *asked, 1000), gate: make(chan struct{})}
}

func (h *heldVault) hold(_ http.ResponseWriter, a *asked) bool {
	h.arrived <- a
	<-h.gate
	return false
}

func (h *heldVault) release() { h.once.Do(func() { close(h.gate) }) }

// inBackground sends a request, and hands out its reply.
func (r *rig) inBackground(req *http.Request) <-chan reply {
	done := make(chan reply, 1)
	go func() { done <- r.send(req) }()
	return done
}

func TestAsk_SameQuestionsAtTheSameTimeAreOneCall(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", nil)
	h := newHeldVault()
	defer h.release()
	r.vault.misbehave(h.hold, nil)
	var replies []<-chan reply
	for range 64 {
		replies = append(replies, r.inBackground(chatRequest("tok", hello)))
	}
	received(t, "a question", h.arrived)
	until(t, "all are under way", func() bool { return r.calls.count() == 64 })
	h.release()
	for _, done := range replies {
		wantOK(t, received(t, "an answer", done))
	}
	if n := r.vault.count(); n != 1 {
		t.Errorf("Vault was asked %d times for 64 same questions", n)
	}
	if n := len(r.provider.requests()); n != 64 {
		t.Errorf("%d requests reached the provider", n)
	}
}

func TestAsk_RefusalReachesAllWhoAskedTogether(t *testing.T) {
	r := newRig(t)
	h := newHeldVault()
	defer h.release()
	r.vault.misbehave(h.hold, nil)
	var replies []<-chan reply
	for range 30 { // more than a source may fail
		replies = append(replies, r.inBackground(chatRequest("wrong", hello)))
	}
	received(t, "a question", h.arrived)
	until(t, "all are under way", func() bool { return r.calls.count() == 30 })
	h.release()
	for _, done := range replies {
		wantRefusal(t, received(t, "an answer", done), 403, apierror.CodePermissionDenied)
	}
	if n := r.vault.count(); n != 1 {
		t.Errorf("Vault was asked %d times", n)
	}
}

func TestAsk_FirstWhoAskedCanGoWithoutHarmToTheOthers(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", nil)
	h := newHeldVault()
	defer h.release()
	r.vault.misbehave(h.hold, nil)
	ctx, leave := context.WithCancel(t.Context())
	first := r.inBackground(chatRequest("tok", hello).WithContext(ctx))
	received(t, "a question", h.arrived)
	others := []<-chan reply{r.inBackground(chatRequest("tok", hello)), r.inBackground(chatRequest("tok", hello))}
	leave()
	if got := received(t, "the first one's end", first); got.status != 499 {
		t.Errorf("the first got %d %s", got.status, got.body)
	}
	until(t, "the others wait", func() bool { return r.calls.count() == 2 })
	h.release()
	for _, done := range others {
		wantOK(t, received(t, "an answer", done))
	}
	if n := r.vault.count(); n != 1 {
		t.Errorf("Vault was asked %d times", n)
	}
}

func TestAsk_CallersOfDifferentTokensNeverShareAnAnswer(t *testing.T) {
	r := newRig(t)
	h := newHeldVault()
	defer h.release()
	r.vault.misbehave(h.hold, nil)
	replies := map[string]<-chan reply{}
	for i := range 16 {
		token := fmt.Sprintf("tok-%d", i)
		if i%2 == 0 {
			r.vault.token(token, nil)
		}
		replies[token] = r.inBackground(chatRequest(token, hello))
	}
	for range replies {
		received(t, "a question", h.arrived)
	}
	h.release()
	for i := range 16 {
		got := received(t, "an answer", replies[fmt.Sprintf("tok-%d", i)])
		if i%2 == 0 {
			wantOK(t, got)
		} else {
			wantRefusal(t, got, 403, apierror.CodePermissionDenied)
		}
	}
}

func TestAsk_SettingsThatChangeForgetWhatWasGranted(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", nil)
	wantOK(t, r.chat("tok", hello))
	r.apply(t)
	wantOK(t, r.chat("tok", hello))
	if n := r.vault.count(); n != 2 {
		t.Errorf("Vault was asked %d times, want once under each settings", n)
	}
	if err := r.Apply(nil); err != nil {
		t.Fatal(err)
	}
	r.apply(t)
	wantOK(t, r.chat("tok", hello))
	if n := r.vault.count(); n != 3 {
		t.Errorf("Vault was asked %d times", n)
	}
}

func TestAsk_AnswerToAQuestionUnderOtherSettingsIsNotKept(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", nil)
	h := newHeldVault()
	defer h.release()
	r.vault.misbehave(h.hold, nil)
	old := r.inBackground(chatRequest("tok", hello))
	received(t, "a question", h.arrived)
	r.apply(t)
	h.release()
	wantOK(t, received(t, "the answer", old)) // it began before
	wantOK(t, r.chat("tok", hello))
	if n := r.vault.count(); n != 2 {
		t.Errorf("Vault was asked %d times, want once under each settings", n)
	}
}

// A request that begins once new settings are in force is judged under them, though
// the same question was put under the old ones and isn't answered yet.
func TestAsk_RequestUnderNewSettingsDoesNotJoinAQuestionUnderOldOnes(t *testing.T) {
	r := newRig(t, func(s *Settings) { s.IgnoreCallerAddress = true })
	r.vault.forgets = true // so that only caller_address=ignore lets anybody in
	r.vault.token("tok", nil)
	h := newHeldVault()
	defer h.release()
	r.vault.misbehave(h.hold, nil)
	old := r.inBackground(chatRequest("tok", hello))
	received(t, "a question", h.arrived)
	r.apply(t, func(s *Settings) { s.IgnoreCallerAddress = false })
	next := r.inBackground(chatRequest("tok", hello))
	until(t, "both are under way", func() bool { return r.calls.count() == 2 })
	select { // time to join, or to ask
	case <-h.arrived:
	case <-time.After(100 * time.Millisecond):
	}
	h.release()
	wantOK(t, received(t, "the answer under old settings", old))
	wantRefusal(t, received(t, "the answer under new settings", next), 403, apierror.CodeCallerAddress)
}

// A question may be given up at any moment of Vault's work on it. Run with -race: the
// testimony is written, and read, by different goroutines.
func TestAsk_GivenUpAtAnyMomentIsNeitherAGrantNorARace(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", nil)
	live, source := r.live.Load(), netip.MustParseAddr(testSource)
	for i := range 150 {
		ctx, giveUp := context.WithCancel(t.Context())
		r.vault.misbehave(func(http.ResponseWriter, *asked) bool {
			go func() {
				time.Sleep(time.Duration(i) * 2 * time.Microsecond)
				giveUp()
			}()
			return false
		}, nil)
		q := &question{token: "tok", source: source, method: "POST", path: "proxy/team-a/v1/x", shown: []byte(`{}`)}
		key := live.key(q)
		granted, err := r.ask(ctx, live, q, &key, false)
		giveUp()
		if (granted == nil) == (err == nil) {
			t.Fatalf("%v %v", granted, err)
		}
		if err != nil && err.Code != apierror.CodeVaultUnavailable {
			t.Fatal(err)
		}
	}
	// Whatever became of them, a lease watches over what is granted from now on.
	r.vault.misbehave(nil, nil)
	wantOK(t, r.chat("tok", hello))
	r.vault.revoke("tok")
	wantRefusal(t, r.chat("tok", hello), 403, apierror.CodePermissionDenied)
}

// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/internal/apierror"
)

// fail has a source try a wrong credential, and says whether it could.
func fail(f *failures, source string) bool {
	end, err := f.begin(netip.MustParseAddr(source))
	if err != nil {
		return false
	}
	end(true)
	return true
}

func TestFailures_AreBoundedPerSourceAndComeBackWithTime(t *testing.T) {
	c := &clock{}
	f := newFailures(c.now)
	for i := range maxFailures {
		if !fail(f, testSource) {
			t.Fatalf("after %d failures, no more are let through", i)
		}
	}
	if fail(f, testSource) {
		t.Error("one too many is let through")
	}
	if !fail(f, "192.0.2.8") {
		t.Error("the source beside it is held as well")
	}
	c.advance(refillEvery - time.Millisecond)
	if fail(f, testSource) {
		t.Error("it comes back too early")
	}
	c.advance(2 * time.Millisecond)
	if !fail(f, testSource) || fail(f, testSource) {
		t.Errorf("after %s, not exactly one is let through", refillEvery)
	}
	c.advance(time.Hour)
	for i := range maxFailures {
		if !fail(f, testSource) {
			t.Fatalf("an hour later, only %d are let through", i)
		}
	}
	if fail(f, testSource) {
		t.Error("an hour of peace counts as more than none")
	}
}

func TestFailures_CountWholeBlocksOfIPv6(t *testing.T) {
	f := newFailures((&clock{}).now)
	for i := range maxFailures {
		if !fail(f, fmt.Sprintf("2001:db8:1:2:%x::%x", i, i)) {
			t.Fatal("too few")
		}
	}
	if fail(f, "2001:db8:1:2:ffff:ffff:ffff:ffff") {
		t.Error("another address of the same /64 isn't held")
	}
	if !fail(f, "2001:db8:1:3::") {
		t.Error("another /64 is held")
	}
	if !fail(f, "32.1.13.184") {
		t.Error("an IPv4 address with the same first bits is held")
	}
}

func TestFailures_RightCredentialsDoNotCount(t *testing.T) {
	f := newFailures((&clock{}).now)
	for range 10 * maxFailures {
		end, err := f.begin(netip.MustParseAddr(testSource))
		if err != nil {
			t.Fatal(err)
		}
		end(false)
	}
}

func TestFailures_TrialsUnderWayAreBounded(t *testing.T) {
	f := newFailures((&clock{}).now)
	source := netip.MustParseAddr(testSource)
	var ends []func(bool)
	for range maxAsking {
		end, err := f.begin(source)
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, end)
	}
	if _, err := f.begin(source); err == nil || err.Status != http.StatusTooManyRequests || err.RetryAfter <= 0 {
		t.Errorf("one too many is under way: %v", err)
	}
	for _, end := range ends[1:] {
		end(false)
	}
	ends[0](true)
	// One who has failed can't have more under way than may fail still.
	for i := range maxFailures - 1 {
		if _, err := f.begin(source); err != nil {
			t.Fatalf("after one failure, %d may be under way", i)
		}
	}
	if _, err := f.begin(source); err == nil {
		t.Error("trials at once pass what may fail")
	}
}

// Many can be under way when the first of them fails. They must not count so much
// that the source is shut out for an hour.
func TestFailures_CountNoFurtherThanTheMost(t *testing.T) {
	c := &clock{}
	f := newFailures(c.now)
	source := netip.MustParseAddr(testSource)
	var ends []func(bool)
	for range maxAsking {
		end, err := f.begin(source)
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, end)
	}
	for _, end := range ends {
		end(true)
	}
	c.advance(maxFailures*refillEvery + time.Second)
	for range maxFailures {
		if !fail(f, testSource) {
			t.Fatal("the source is shut out for longer")
		}
	}
}

func TestFailures_SourcesInMemoryAreBounded(t *testing.T) {
	f := newFailures((&clock{}).now)
	for i := range maxSources + 1000 {
		fail(f, netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}).String())
	}
	if n := f.sources.Len(); n > maxSources {
		t.Errorf("%d sources are kept", n)
	}
}

func TestFailures_GuessingTokensIsNoLoadOnVault(t *testing.T) {
	r := newRig(t)
	for _, token := range []string{"good", "new"} {
		r.vault.token(token, nil)
	}
	wantOK(t, r.chat("good", hello))
	for i := range maxFailures {
		wantRefusal(t, r.chat(fmt.Sprintf("guess-%d", i), hello), 403, apierror.CodePermissionDenied)
	}
	asked := r.vault.count()
	got := r.chat("guess-more", hello)
	wantRefusal(t, got, 429, apierror.CodeTooManyFailures)
	if got.header.Get("Retry-After") != "2" {
		t.Errorf("Retry-After is %q", got.header.Get("Retry-After"))
	}
	wantOK(t, r.chat("good", hello)) // granted before
	if n := r.vault.count() - asked; n != 0 {
		t.Errorf("Vault was asked %d times more", n)
	}
	wantOK(t, r.send(from("198.51.100.1:1", chatRequest("new", hello))))
	wantRefusal(t, r.chat("new", hello), 429, apierror.CodeTooManyFailures)
	r.clock.advance(refillEvery)
	wantOK(t, r.chat("new", hello))
}

func TestFailures_SameWrongTokenCountsOnceInTwoSeconds(t *testing.T) {
	r := newRig(t)
	r.vault.token("good", nil)
	for range 10 * maxFailures { // an app with an old token
		wantRefusal(t, r.chat("old", hello), 403, apierror.CodePermissionDenied)
	}
	wantOK(t, r.chat("good", hello))
	if n := r.vault.count(); n != 2 {
		t.Errorf("Vault was asked %d times", n)
	}
}

func TestFailures_WithTTLZeroGuessingIsBoundedTheSame(t *testing.T) {
	r := newRig(t, func(s *Settings) { s.GrantTTL = 0 })
	for i := range maxFailures {
		wantRefusal(t, r.chat(fmt.Sprint("wrong-", i), hello), 403, apierror.CodePermissionDenied)
	}
	wantRefusal(t, r.chat("wrong", hello), 429, apierror.CodeTooManyFailures)
	if n := r.vault.count(); n != maxFailures {
		t.Errorf("Vault was asked %d times", n)
	}
}

// An app with an old token or leased key, whose many requests come one after another or
// at once, costs little and keeps nobody out who shares its address.
func TestFailures_SameWrongCredentialAThousandTimesIsOneGuess(t *testing.T) {
	for _, ttl := range []time.Duration{0, time.Minute} {
		for credential, status := range map[string]int{"old": 403, "vk-old": 401} {
			for _, atOnce := range []int{1, 100} {
				r := newRig(t, func(s *Settings) { s.GrantTTL = ttl })
				r.vault.token("fresh", nil)
				if atOnce > 1 { // for all to ask before the first is refused
					r.mount.slow = 20 * time.Millisecond
					r.vault.misbehave(func(http.ResponseWriter, *asked) bool {
						time.Sleep(20 * time.Millisecond)
						return false
					}, nil)
				}
				for range 1000 / atOnce {
					var all sync.WaitGroup
					for range atOnce {
						all.Go(func() {
							if got := r.chat(credential, hello); got.status != status {
								t.Errorf("TTL %s, %s: got %d %s", ttl, credential, got.status, got.body)
							}
						})
					}
					all.Wait()
				}
				most := atOnce
				if ttl == 0 { // a changed policy counts at once
					most += maxFailures
				}
				if n := r.vault.count() + r.mount.looked; n > most {
					t.Errorf("TTL %s, %s, %d at once: Vault or storage was asked %d times", ttl, credential, atOnce, n)
				}
				if failed := r.failures.of(testSource); failed != 1 {
					t.Errorf("TTL %s, %s, %d at once: it counts as %v guesses", ttl, credential, atOnce, failed)
				}
				wantOK(t, r.chat("fresh", hello))
			}
		}
	}
}

// Of many who ask the same at once, the last may come when the first have been refused,
// and have brought their source to its limit.
func TestFailures_WhoIsRefusedAlreadyIsToldSoRatherThanToWait(t *testing.T) {
	r := newRig(t, func(s *Settings) { s.GrantTTL = 0 })
	for range maxFailures {
		fail(r.failures, testSource)
	}
	live := r.live.Load()
	q := &question{token: "old", source: netip.MustParseAddr(testSource), method: "POST", path: "proxy/team-a/v1/x", shown: []byte(`{}`)}
	key := live.key(q)
	_, err := r.ask(t.Context(), live, q, &key, false)
	if err == nil || err.Code != apierror.CodeTooManyFailures {
		t.Fatalf("it got %v", err)
	}
	r.grants.refuse(&key, &grant{expires: r.now().Add(refusalTTL), refusal: denied(nil)}, r.now())
	_, err = r.ask(t.Context(), live, q, &key, false)
	wantCode(t, err, apierror.CodePermissionDenied)
}

// of is how many failures count against a source.
func (f *failures) of(source string) float64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s, ok := f.sources.Peek(sourceBlock(netip.MustParseAddr(source))); ok {
		return s.failed
	}
	return 0
}

// Several apps with old keys may be behind one address.
func TestFailures_OldLeasedKeysThatAreTriedAllTheTimeLeaveTheirAddressRoom(t *testing.T) {
	r := newRig(t)
	r.vault.token("fresh", nil)
	for range 600 { // in 10 minutes
		for i := range 10 {
			wantRefusal(t, r.chat(fmt.Sprint("vk-old-", i), hello), 401, apierror.CodeCredentialInvalid)
		}
		r.clock.advance(time.Second)
	}
	wantOK(t, r.chat("fresh", hello))
	if n := r.mount.looked; n > 10*11 {
		t.Errorf("storage was asked %d times", n)
	}
}

func TestFailures_NewLeasedKeyWorksAtOnceBesideADeadOne(t *testing.T) {
	r := newRig(t)
	wantRefusal(t, r.chat("vk-old", hello), 401, apierror.CodeCredentialInvalid)
	r.mount.set(func(m *fakeMount) { m.leased["vk-new"] = Lease{Role: "team-a"} })
	wantOK(t, r.chat("vk-new", hello))
	wantRefusal(t, r.chat("vk-old", hello), 401, apierror.CodeCredentialInvalid)
	// From another address the same is another guess.
	looked := r.mount.looked
	wantRefusal(t, r.send(from("198.51.100.1:1", chatRequest("vk-old", hello))), 401, apierror.CodeCredentialInvalid)
	if r.mount.looked != looked+1 {
		t.Errorf("storage was asked %d times more", r.mount.looked-looked)
	}
}

// A token that was good is no guess, but once Vault has refused it, it is like any
// other.
func TestFailures_TokenThatWasGoodIsBoundedOnceItIsRefused(t *testing.T) {
	for _, ttl := range []time.Duration{0, time.Minute} {
		r := newRig(t, func(s *Settings) { s.GrantTTL = ttl })
		r.vault.token("tok", nil)
		wantOK(t, r.chat("tok", hello))
		r.vault.revoke("tok")
		before := r.vault.count()
		for range 5 * maxFailures {
			if got := r.chat("tok", hello); got.status == http.StatusOK {
				t.Fatal("it was let in")
			}
		}
		if n := r.vault.count() - before; n > maxFailures+1 {
			t.Errorf("TTL %s: Vault was asked %d times", ttl, n)
		}
	}
}

func TestFailures_VaultBeingGoneIsNobodysFault(t *testing.T) {
	r := newRig(t)
	r.vault.token("good", nil)
	r.vault.misbehave(says(500, "internal error"), nil)
	for i := range 2 * maxFailures {
		wantRefusal(t, r.chat("good", ofModel(i)), 503, apierror.CodeVaultUnavailable)
	}
	r.vault.misbehave(nil, nil)
	wantOK(t, r.chat("good", hello))
}

func TestFailures_GuessingLeasedKeysIsNoLoadOnStorage(t *testing.T) {
	r := newRig(t)
	r.mount.leased["vk-good"] = Lease{Role: "team-a", Caller: Caller{Entity: "e"}}
	wantOK(t, r.chat("vk-good", hello))
	for i := range maxFailures {
		wantRefusal(t, r.chat(fmt.Sprintf("vk-%d", i), hello), 401, apierror.CodeCredentialInvalid)
	}
	looked := r.mount.looked
	wantRefusal(t, r.chat("vk-more", hello), 429, apierror.CodeTooManyFailures)
	wantOK(t, r.chat("vk-good", hello)) // found before
	if n := r.mount.looked - looked; n != 0 {
		t.Errorf("storage was asked %d times more", n)
	}
	// Tokens and leased keys are limited together.
	wantRefusal(t, r.chat("guess", hello), 429, apierror.CodeTooManyFailures)
}

func TestFailures_TrialsOfLeasedKeysEndHoweverTheyEnd(t *testing.T) {
	r := newRig(t)
	r.mount.leased["vk-good"] = Lease{Role: "team-a"}
	r.mount.set(func(m *fakeMount) { m.storage = &apierror.Error{Status: 503, Code: apierror.CodeStorage} })
	for range maxAsking + 1 {
		wantRefusal(t, r.chat("vk-good", hello), 503, apierror.CodeStorage)
	}
	r.mount.set(func(m *fakeMount) { m.storage = nil })
	wantOK(t, r.chat("vk-good", hello))
}

// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/test/vaulttest"
)

// TestGateway_GuessingIsSlowAndNoLoadOnVault: what a source may try, and whom it
// doesn't disturb.
func TestGateway_GuessingIsSlowAndNoLoadOnVault(t *testing.T) {
	g := startGateway(t, gatewayOptions{Options: vaulttest.Options{Config: telemetry}})
	n := &guessTests{g, startTap(t, g, map[string]any{"grant_ttl": "1h"})}
	n.role(t, "demo", nil)
	t.Run("TwoHundredTokens", func(t *testing.T) {
		n.guess(t, "127.0.4.1", func() string { return "hvs." + randomHex(24) }, http.StatusForbidden)
	})
	t.Run("TwoHundredLeasedKeys", func(t *testing.T) {
		n.guess(t, "127.0.4.2", leasedGuess, http.StatusUnauthorized)
	})
	t.Run("TwoHundredAtOnce", n.atOnce)
	t.Run("OneWrongTokenAgainAndAgain", n.stubborn)
	t.Run("OneDeadCredentialLeavesItsAddressAlone", n.dead)
	t.Run("LeasedKeysAreNotLookedUpInStorage", n.storage)
	t.Run("WhoeverWasLetInIsHeardStillWhenTheGrantIsOver", n.neighbours)
}

type guessTests struct {
	*gatewayRig
	tap *tap
}

// leasedGuess looks like a leased key.
func leasedGuess() string {
	return "vk-" + base64.RawURLEncoding.EncodeToString([]byte(randomHex(16)))
}

// settled are those who were let in before a source guesses: a token and a leased
// key.
func (n *guessTests) settled(t *testing.T, source string) []*vaulttest.Client {
	t.Helper()
	key, _ := n.root.Read(t, n.mount+"/creds/demo").Data()["api_key"].(string)
	var clients []*vaulttest.Client
	for _, credential := range []string{n.token(t, "demo"), key} {
		c := from(t, source, n.url, credential)
		for range 2 { // the second is for a grant that is kept
			wantCompletion(t, post(t, c, n.chatOf("demo"), hello("up-ok")))
		}
		clients = append(clients, c)
	}
	return clients
}

// guess tries 200 credentials from a source, which are refused with that status as
// long as they are tried at all.
func (n *guessTests) guess(t *testing.T, source string, credential func() string, refused int) {
	settled := n.settled(t, source)
	statuses := map[int]int{}
	began, asked := time.Now(), n.tap.count()
	unasked(t, n.up, func() {
		for range 200 {
			resp := post(t, from(t, source, n.url, credential()), n.chatOf("demo"), hello("up-ok"))
			if statuses[resp.Status]++; resp.Status == http.StatusTooManyRequests {
				wantError(t, resp, http.StatusTooManyRequests, "too_many_failures")
				if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err != nil || seconds < 1 || seconds > 60 {
					t.Errorf("retry-after is %q", resp.Header.Get("Retry-After"))
				}
			}
		}
	})
	// 20 at once, and one more each 2 s.
	most := 20 + int(time.Since(began)/(2*time.Second)) + 1
	t.Logf("200 guesses: %v, of which Vault heard %d", statuses, n.tap.count()-asked)
	if got := n.tap.count() - asked; got > most {
		t.Errorf("Vault was asked %d times", got)
	}
	if statuses[refused] < 20 || statuses[refused] > most || statuses[refused]+statuses[http.StatusTooManyRequests] != 200 {
		t.Errorf("the answers are %v, expected up to %d of %d and 429 for the rest", statuses, most, refused)
	}
	for _, c := range settled {
		wantCompletion(t, post(t, c, n.chatOf("demo"), hello("up-ok")))
	}
	other := from(t, "127.0.4.99", n.url, n.token(t, "demo"))
	wantCompletion(t, post(t, other, n.chatOf("demo"), hello("up-ok")))
	// It is let in again when it has been quiet for a while.
	fresh := from(t, source, n.url, n.token(t, "demo"))
	eventually(t, "the source to be heard again", func() bool {
		time.Sleep(time.Second)
		return post(t, fresh, n.chatOf("demo"), hello("up-ok")).Status == http.StatusOK
	})
}

// atOnce: 200 guesses at the same time, of which none has failed yet when the
// others begin.
func (n *guessTests) atOnce(t *testing.T) {
	asked := n.tap.count()
	var all sync.WaitGroup
	for range 200 {
		c := from(t, "127.0.4.3", n.url, "hvs."+randomHex(24))
		all.Go(func() {
			resp, err := c.Do(t.Context(), http.MethodPost, n.chatOf("demo"), hello("up-ok"))
			if err != nil || resp.Status != http.StatusForbidden && resp.Status != http.StatusTooManyRequests {
				t.Errorf("%v, %v", resp, err)
			}
		})
	}
	all.Wait()
	first := n.tap.count() - asked
	for range 50 {
		post(t, from(t, "127.0.4.3", n.url, "hvs."+randomHex(24)), n.chatOf("demo"), hello("up-ok"))
	}
	t.Logf("of 200 guesses at once Vault heard %d, and of 50 more %d", first, n.tap.count()-asked-first)
	if got := n.tap.count() - asked - first; got > 5 {
		t.Errorf("after them Vault was asked %d times more", got)
	}
}

// stubborn: an app with an outdated token costs little more than one question.
func (n *guessTests) stubborn(t *testing.T) {
	began, asked := time.Now(), n.tap.count()
	c := from(t, "127.0.4.4", n.url, "hvs."+randomHex(24))
	unasked(t, n.up, func() {
		for range 200 {
			wantError(t, post(t, c, n.chatOf("demo"), hello("up-ok")), http.StatusForbidden, "permission_denied")
		}
	})
	if got, most := n.tap.count()-asked, 1+int(time.Since(began)/(2*time.Second)); got > most {
		t.Errorf("for one wrong token Vault was asked %d times, expected up to %d", got, most)
	}
}

// dead: an app goes on with a leased key whose lease has ended, or with a token that was
// revoked, while Vault's yes is kept or never. Others behind its address are new.
func (n *guessTests) dead(t *testing.T) {
	defer n.open(t, map[string]any{"vault_address": n.tap.url, "grant_ttl": "1h"})
	sources := &sources{n: 4000}
	for _, ttl := range []string{"0", "1h"} {
		n.open(t, map[string]any{"vault_address": n.tap.url, "grant_ttl": ttl})
		answer := n.root.Read(t, n.mount+"/creds/demo")
		key, _ := answer.Data()["api_key"].(string)
		n.root.Write(t, "sys/leases/revoke", map[string]any{"lease_id": answer.JSON()["lease_id"], "sync": true})
		token := n.token(t, "demo")
		n.root.Write(t, "auth/token/revoke", map[string]any{"token": token})
		for credential, status := range map[string]int{key: http.StatusUnauthorized, token: http.StatusForbidden} {
			source := sources.next()
			c := from(t, source, n.url, credential)
			began, asked := time.Now(), n.tap.count()
			unasked(t, n.up, func() {
				for range 200 {
					wantStatus(t, post(t, c, n.chatOf("demo"), hello("up-ok")), status)
				}
			})
			most := 1 + int(time.Since(began)/(2*time.Second))
			if ttl == "0" { // a changed policy counts at once, but Vault isn't asked for ever
				most *= 21
			}
			if got := n.tap.count() - asked; got > most {
				t.Errorf("TTL %s, %.3s…: Vault was asked %d times, expected up to %d", ttl, credential, got, most)
			}
			wantCompletion(t, post(t, from(t, source, n.url, n.token(t, "demo")), n.chatOf("demo"), hello("up-ok")))
		}
	}
}

// storage: guesses at leased keys that aren't tried are no load on storage.
func (n *guessTests) storage(t *testing.T) {
	guess := func(times, status int) (reads int) {
		before := n.storageReads(t)
		for range times {
			wantStatus(t, post(t, from(t, "127.0.4.5", n.url, leasedGuess()), n.chatOf("demo"), hello("up-ok")), status)
		}
		return n.storageReads(t) - before
	}
	if got := guess(20, http.StatusUnauthorized); got < 20 {
		t.Fatalf("20 guesses made %d reads of storage, so that this test measures nothing", got)
	}
	// One more is tried each 2 s, and the instance reads for itself, too.
	if got := guess(1, http.StatusTooManyRequests) + guess(400, http.StatusTooManyRequests); got > 100 {
		t.Errorf("400 guesses that weren't tried made %d reads of storage", got)
	}
}

// neighbours: many apps have one address, behind a NAT or a load balancer. One that
// is refused must not keep the others out, whose grants end every minute.
func (n *guessTests) neighbours(t *testing.T) {
	n.open(t, map[string]any{"vault_address": n.tap.url, "grant_ttl": "1s"})
	settled := n.settled(t, "127.0.4.6")
	for range 60 {
		post(t, from(t, "127.0.4.6", n.url, "hvs."+randomHex(24)), n.chatOf("demo"), hello("up-ok"))
	}
	time.Sleep(1100 * time.Millisecond)
	for _, c := range settled {
		wantCompletion(t, post(t, c, n.chatOf("demo"), hello("up-ok")))
	}
}

// storageReads is Vault's metric of that.
func (n *guessTests) storageReads(t *testing.T) int {
	t.Helper()
	for line := range strings.Lines(string(n.root.Read(t, "sys/metrics?format=prometheus").Body)) {
		if text, ok := strings.CutPrefix(line, "vault_barrier_get_count "); ok {
			reads, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
			if err != nil {
				t.Fatal(err)
			}
			return int(reads)
		}
	}
	t.Fatal("Vault's metrics don't count reads of storage")
	return 0
}

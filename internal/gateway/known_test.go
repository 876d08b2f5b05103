// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"fmt"
	"net/http"
	"testing"
	"time"
)

// guess has the rig's address try tokens that Vault doesn't know, until it may try no
// more.
func (r *rig) guess(t *testing.T) {
	t.Helper()
	for i := range 2 * maxFailures {
		if got := r.chat(fmt.Sprint("guess-", i), hello); got.status == http.StatusTooManyRequests {
			return
		}
	}
	t.Fatal("nothing bounds the guesses")
}

func anotherQuestion(i int) string { return fmt.Sprintf(`{"model":"m","messages":[],"user":"u%d"}`, i) }

func TestKnown_ATokenThatVaultKnowsMayPutNewQuestionsFromAnAddressThatGuesses(t *testing.T) {
	r := newRig(t)
	r.vault.token("good", nil)
	wantOK(t, r.chat("good", hello))
	r.guess(t)
	for i := range 3 {
		wantOK(t, r.chat("good", anotherQuestion(i)))
	}
	r.vault.token("fresh", nil)
	if got := r.chat("fresh", hello); got.status != http.StatusTooManyRequests {
		t.Errorf("a token that Vault wasn't asked about got %d", got.status)
	}
	// Refused, it isn't known any more.
	r.vault.revoke("good")
	if got := r.chat("good", anotherQuestion(7)); got.status == http.StatusOK || got.status == http.StatusTooManyRequests {
		t.Errorf("revoked: %d", got.status)
	}
	if got := r.chat("good", anotherQuestion(8)); got.status != http.StatusTooManyRequests {
		t.Errorf("revoked and refused: %d", got.status)
	}
}

func TestKnown_EndsAfterAWhileAndIsBounded(t *testing.T) {
	var k knownTokens
	a, b := digest{1}, digest{2}
	k.learn(&a, true, clockStart)
	k.learn(&b, true, clockStart.Add(time.Minute))
	if !k.has(&a, clockStart.Add(knownFor-1)) || k.has(&a, clockStart.Add(knownFor)) {
		t.Error("a token is known for another time than knownFor")
	}
	k.sweep(clockStart.Add(knownFor))
	if len(k.until) != 1 || !k.has(&b, clockStart.Add(knownFor)) {
		t.Errorf("left: %v", k.until)
	}
	for i := range maxKnown + 1000 {
		k.learn(&digest{3, byte(i), byte(i >> 8), byte(i >> 16)}, true, clockStart)
	}
	if len(k.until) > maxKnown || len(k.until) < maxKnown/2 {
		t.Errorf("%d tokens are known", len(k.until))
	}
}

// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"testing"

	"vault-plugin-secrets-portkey/internal/apierror"
)

func TestLease_DeadKeyIsLookedUpAgainAfterItsTime(t *testing.T) {
	r := newRig(t)
	for round := range 3 {
		for range 10 {
			wantRefusal(t, r.chat("vk-dead", hello), 401, apierror.CodeCredentialInvalid, "vault read <mount>/creds/")
		}
		if r.mount.looked != round+1 {
			t.Errorf("round %d: storage was asked %d times", round, r.mount.looked)
		}
		r.clock.advance(deadKeyTTL)
	}
}

// That storage fails says nothing of a key.
func TestLease_FailureOfStorageIsNotKept(t *testing.T) {
	r := newRig(t)
	r.mount.leased["vk-good"] = Lease{Role: "team-a"}
	r.mount.set(func(m *fakeMount) { m.storage = &apierror.Error{Status: 503, Code: apierror.CodeStorage} })
	wantRefusal(t, r.chat("vk-good", hello), 503, apierror.CodeStorage)
	r.mount.set(func(m *fakeMount) { m.storage = nil })
	wantOK(t, r.chat("vk-good", hello))
}

// A key that is found in memory is never held to what was said before.
func TestLease_KeyInMemoryCountsMoreThanARefusal(t *testing.T) {
	r := newRig(t)
	wantRefusal(t, r.chat("vk-late", hello), 401, apierror.CodeCredentialInvalid)
	r.mount.set(func(m *fakeMount) { m.leased["vk-late"], m.cached["vk-late"] = Lease{Role: "team-a"}, true })
	wantOK(t, r.chat("vk-late", hello))
}

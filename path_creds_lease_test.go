// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

func TestCreds_ARenewalExtendsUpToTheMaximumFromTheIssue(t *testing.T) {
	m, storage, at := newLeaseMount(t)
	l, _ := m.lease(map[string]any{"ttl": "10m"})
	issued := at.now()
	for _, c := range []struct {
		at        time.Duration // since the issue
		increment time.Duration
		ttl, most time.Duration
	}{
		{5 * time.Minute, 0, 10 * time.Minute, maxLease}, // as at first
		{14 * time.Minute, 30 * time.Hour, 30 * time.Hour, maxLease},
		{20 * time.Hour, 20 * time.Hour, 20 * time.Hour, maxLease},
		{39*time.Hour + time.Minute, 10 * time.Hour, 9*time.Hour - time.Minute, maxLease},
		{47 * time.Hour, time.Minute, time.Minute, maxLease}, // shorter, if they say so
	} {
		at.advance(issued.Add(c.at).Sub(at.now()))
		if ttl, most := m.renew(l, c.increment); ttl != c.ttl || most != c.most {
			t.Errorf("after %s by %s: %s, at most %s; want %s, %s", c.at, c.increment, ttl, most, c.ttl, c.most)
		}
		if k := m.valid(l.key); k == nil || !k.Expires.Equal(at.now().Add(c.ttl)) || !k.IssuedAt.Equal(issued) {
			t.Errorf("after %s: %+v", c.at, k)
		}
		fresh := newMountOn(t, Options{Now: at.now}, storage)
		if k := fresh.valid(l.key); k == nil || *k != *m.valid(l.key) {
			t.Errorf("after %s another process sees %+v", c.at, k)
		}
	}
	at.advance(time.Minute)
	if resp, err := m.vaultAsks(logical.RenewOperation, l, 0); err != nil || !resp.IsError() || m.valid(l.key) != nil {
		t.Errorf("an expired one was renewed: %v %v", resp, err)
	}
}

func TestCreds_ARenewalEndsWithTheVirtualKey(t *testing.T) {
	m, _, at := newLeaseMount(t)
	l, _ := m.lease(map[string]any{"ttl": "10m"})
	m.write("roles/r", map[string]any{"ttl": "20m"})
	at.advance(5 * time.Minute)
	if ttl, most := m.renew(l, time.Hour); ttl != 15*time.Minute || most != 20*time.Minute {
		t.Errorf("renewed by %s, at most %s; want 15m, 20m", ttl, most)
	}
	m.write("roles/r", map[string]any{"ttl": "0"})
	if ttl, most := m.renew(l, 0); ttl != 10*time.Minute || most != maxLease {
		t.Errorf("renewed by %s, at most %s; want 10m, %s", ttl, most, maxLease)
	}
}

func TestCreds_WhatIsNotRenewedKeepsItsEnd(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*mount, *lease)
		want   string
	}{
		"disabled":            {func(m *mount, _ *lease) { m.patch("roles/r", map[string]any{"enabled": false}) }, "is disabled"},
		"expired virtual key": {func(m *mount, _ *lease) { m.patch("roles/r", map[string]any{"expires_at": "2026-05-01T12:00:00Z"}) }, "expired at"},
		"deleted":             {func(m *mount, _ *lease) { m.delete("roles/r") }, "does not exist"},
		"deleted and made anew": {func(m *mount, _ *lease) {
			m.delete("roles/r")
			m.write("roles/r", map[string]any{"key": "k"})
		}, "another has its name"},
		"ends within a second": {func(m *mount, _ *lease) {
			r, err := m.roles.get(m.t.Context(), m.storage, "r")
			if err != nil {
				m.t.Fatal(err)
			}
			changed := *r
			changed.ExpiresAt = m.now().Add(time.Millisecond)
			if err := m.roles.put(m.t.Context(), m.storage, "r", &changed); err != nil {
				m.t.Fatal(err)
			}
		}, "leaves the leased key no time"},
		"revoked": {func(m *mount, l *lease) {
			if err := m.revoke(l); err != nil {
				m.t.Fatal(err)
			}
		}, "was revoked or has expired"},
	} {
		t.Run(name, func(t *testing.T) {
			m, storage, _ := newLeaseMount(t)
			l, _ := m.lease(nil)
			c.change(m, l)
			before := leasedEntries(t, storage)
			resp, err := m.vaultAsks(logical.RenewOperation, l, time.Hour)
			if err != nil || !resp.IsError() || !strings.Contains(resp.Error().Error(), c.want) {
				t.Errorf("answered %v %v, want %q", resp, err, c.want)
			}
			for key, value := range leasedEntries(t, storage) {
				if value != before[key] {
					t.Errorf("stored %s", value)
				}
			}
		})
	}
}

func TestCreds_ALaterVirtualKeyOfTheSameNameHasNoneOfTheLeasedKeys(t *testing.T) {
	m, _, _ := newLeaseMount(t)
	l, _ := m.lease(nil)
	current := func() *role {
		r, err := m.roles.get(t.Context(), m.storage, "r")
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	m.write("roles/r", map[string]any{"note": "changed"})
	if !m.valid(l.key).belongsTo(current()) {
		t.Error("a changed virtual key loses its leased keys")
	}
	m.delete("roles/r")
	if m.valid(l.key).belongsTo(current()) {
		t.Error("it belongs to a virtual key that is gone")
	}
	m.write("roles/r", map[string]any{"key": "k"})
	if m.valid(l.key).belongsTo(current()) {
		t.Error("it belongs to a later virtual key")
	}
	if newer, _ := m.lease(nil); !m.valid(newer.key).belongsTo(current()) {
		t.Error("a new one doesn't belong to the virtual key")
	}
}

func TestCreds_RevocationIsAtOnceAndCanBeRepeated(t *testing.T) {
	m, storage, _ := newLeaseMount(t)
	l, _ := m.lease(nil)
	other, _ := m.lease(nil)
	m.valid(l.key) // is in memory now
	for range 2 {
		if err := m.revoke(l); err != nil {
			t.Error(err)
		}
		if m.valid(l.key) != nil {
			t.Error("it is valid")
		}
	}
	if m.valid(other.key) == nil || len(leasedEntries(t, storage)) != 1 {
		t.Errorf("another one went with it: %v", leasedEntries(t, storage))
	}
	fresh := newMountOn(t, Options{Now: m.now}, storage)
	if fresh.valid(l.key) != nil || fresh.valid(other.key) == nil {
		t.Error("another process sees it otherwise")
	}
	m.delete("roles/r")
	m.delete("keys/k")
	if err := m.revoke(other); err != nil {
		t.Error("without its virtual key:", err)
	}
}

func TestCreds_ADamagedLeaseTouchesNoStorage(t *testing.T) {
	m, storage, _ := newLeaseMount(t)
	l, _ := m.lease(nil)
	before := len(entries(t, storage))
	for _, hash := range []any{nil, 7, "", "../../keys/k", strings.Repeat("0", 63) + "/", strings.Repeat("0", 62)} {
		broken := *l
		broken.secret.InternalData = map[string]any{"secret_type": leasedKeyType, "hash": hash}
		if err := m.revoke(&broken); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("%v: %v", hash, err)
		}
		if _, err := m.vaultAsks(logical.RenewOperation, &broken, 0); err == nil {
			t.Errorf("%v was renewed", hash)
		}
	}
	if len(entries(t, storage)) != before || m.valid(l.key) == nil {
		t.Error("something was deleted")
	}
}

func TestStorageFault_CredsAreGivenAndRenewedOnlyIfStored(t *testing.T) {
	for name, applied := range map[string]bool{"failed": false, "lost answer": true} {
		t.Run(name, func(t *testing.T) {
			m, storage, at := newLeaseMount(t)
			l, _ := m.lease(map[string]any{"ttl": "1h"})
			storage.arm(1, applied)
			if resp, err := m.call(logical.ReadOperation, "creds/r", nil); err == nil || resp != nil {
				t.Errorf("read answered %v %v", resp, err)
			}
			storage.arm(1, applied)
			if resp, err := m.vaultAsks(logical.RenewOperation, l, 2*time.Hour); !errors.Is(err, errFault) || resp != nil {
				t.Errorf("renewal answered %v %v", resp, err)
			}
			storage.disarm()
			at.advance(time.Hour)
			if k := m.valid(l.key); (k != nil) != applied {
				t.Errorf("at its former end: %v", k)
			}
			if err := m.revoke(l); err != nil || m.valid(l.key) != nil {
				t.Errorf("revoked: %v", err)
			}
		})
	}
	m, storage, _ := newLeaseMount(t)
	l, _ := m.lease(nil)
	fresh := newMountOn(t, Options{Now: m.now}, storage)
	storage.failReads(errFault)
	if k, err := fresh.leasedKey(t.Context(), storage, l.key); !errors.Is(err, errFault) || k != nil {
		t.Errorf("lookup: %v %v", k, err)
	}
	if _, err := fresh.vaultAsks(logical.RenewOperation, l, 0); !errors.Is(err, errFault) {
		t.Errorf("renewal: %v", err)
	}
	if _, err := fresh.call(logical.ReadOperation, "creds/r", nil); err == nil || err.(logical.HTTPCodedError).Code() != http.StatusServiceUnavailable {
		t.Errorf("read: %v", err)
	}
}

func TestStorageFault_AFailedRevocationIsToldAndStillCountsHere(t *testing.T) {
	for name, applied := range map[string]bool{"failed": false, "lost answer": true} {
		t.Run(name, func(t *testing.T) {
			m, storage, _ := newLeaseMount(t)
			l, _ := m.lease(nil)
			m.valid(l.key)
			storage.arm(1, applied)
			if err := m.revoke(l); !errors.Is(err, errFault) {
				t.Errorf("Vault isn't told: %v", err)
			}
			if first, again := m.valid(l.key), m.valid(l.key); first != nil || again != nil {
				t.Error("it is valid")
			}
			if resp, err := m.vaultAsks(logical.RenewOperation, l, 0); err != nil || !resp.IsError() {
				t.Errorf("it was renewed: %v %v", resp, err)
			}
			m.leased.entries.invalidate(leasedPrefix + l.secret.InternalData["hash"].(string))
			if m.valid(l.key) != nil {
				t.Error("it is valid after an invalidation")
			}
			if stored := len(leasedEntries(t, storage)) == 1; stored == applied {
				t.Errorf("it is stored: %v", stored)
			}
			if name == "failed" {
				m.pruneLeasedKeys(t.Context(), storage) // or Vault's next try
			} else if err := m.revoke(l); err != nil {
				t.Error(err)
			}
			if m.valid(l.key) != nil || len(leasedEntries(t, storage)) != 0 || len(m.leased.revoked) != 0 {
				t.Errorf("afterwards storage has %v, memory %v", leasedEntries(t, storage), m.leased.revoked)
			}
		})
	}
}

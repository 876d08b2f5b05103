// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"encoding/base64"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/helper/testhelpers/schema"
	"github.com/hashicorp/vault/sdk/logical"
)

// The mount's lease TTLs in these tests.
const (
	defaultLease = 24 * time.Hour
	maxLease     = 48 * time.Hour
)

// newLeaseMount has the virtual key r, on a storage that can fail.
func newLeaseMount(t *testing.T) (*mount, *faultyStorage, *clock) {
	t.Helper()
	at, storage := newClock(), &faultyStorage{Storage: &logical.InmemStorage{}}
	m := newMountOn(t, Options{Now: at.now, Transport: &upstream{}}, storage)
	if m.System().DefaultLeaseTTL() != defaultLease || m.System().MaxLeaseTTL() != maxLease {
		t.Fatal("the mount has other TTLs")
	}
	m.write("keys/k", openaiKey(secretA))
	m.write("roles/r", map[string]any{"key": "k"})
	return m, storage, at
}

// lease is one as Vault keeps it.
type lease struct {
	key    string // what the app got
	path   string
	data   map[string]any
	secret logical.Secret
}

// lease reads creds/r, which must succeed, as entity e of the display name d.
func (m *mount) lease(data map[string]any) (*lease, *logical.Response) {
	m.t.Helper()
	req := &logical.Request{
		Operation: logical.ReadOperation, Path: "creds/r", Data: overJSON(m.t, data), Storage: m.storage,
		MountPoint: "portkey/", EntityID: "e", DisplayName: "d",
	}
	resp, err := m.HandleRequest(m.t.Context(), req)
	if err != nil || resp.IsError() || resp.Secret == nil {
		m.t.Fatalf("creds/r %v: %v %v", data, resp, err)
	}
	m.checkSchema(logical.ReadOperation, "creds/r", resp)
	l := &lease{path: req.Path, data: overJSON(m.t, resp.Data), secret: *resp.Secret}
	l.secret.InternalData = overJSON(m.t, resp.Secret.InternalData)
	l.key = l.data["api_key"].(string)
	m.t.Cleanup(func() { m.nothingHolds(l.key) })
	return l, resp
}

// nothingHolds looks for the key, and for the bytes in it, in storage and log.
func (m *mount) nothingHolds(key string) {
	m.t.Helper()
	text := strings.TrimPrefix(key, leasedMark)
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		m.t.Fatal(err)
	}
	all := entries(m.t, m.storage)
	all["the log"] = m.log.String()
	for where, value := range all {
		for _, form := range []string{text, string(raw), base64.StdEncoding.EncodeToString(raw)} {
			if strings.Contains(where+value, form) {
				m.t.Errorf("a leased key is in %s", where)
			}
		}
	}
}

// vaultAsks makes Vault's request for the end of a lease, or for more of it.
func (m *mount) vaultAsks(op logical.Operation, l *lease, increment time.Duration) (*logical.Response, error) {
	m.t.Helper()
	secret := l.secret
	secret.Increment = increment
	resp, err := m.HandleRequest(m.t.Context(), &logical.Request{
		Operation: op, Path: l.path, Data: l.data, Secret: &secret, Storage: m.storage, MountPoint: "portkey/",
	})
	if err == nil && resp != nil && !resp.IsError() && len(resp.Data) > 0 {
		m.t.Errorf("%s answers with data: %v", op, resp.Data)
	}
	return resp, err
}

// renew has to succeed, and returns the lease's TTL and longest TTL then.
func (m *mount) renew(l *lease, increment time.Duration) (ttl, most time.Duration) {
	m.t.Helper()
	resp, err := m.vaultAsks(logical.RenewOperation, l, increment)
	if err != nil || resp.IsError() || resp.Secret == nil {
		m.t.Fatalf("renewal: %v %v", resp, err)
	}
	if got := overJSON(m.t, resp.Secret.InternalData); got["hash"] != l.secret.InternalData["hash"] || !resp.Secret.Renewable {
		m.t.Errorf("the renewed lease is %v", resp.Secret)
	}
	return resp.Secret.TTL, resp.Secret.MaxTTL
}

func (m *mount) revoke(l *lease) error {
	m.t.Helper()
	resp, err := m.vaultAsks(logical.RevokeOperation, l, 0)
	if err == nil && resp.IsError() {
		err = resp.Error()
	}
	return err
}

// valid returns what the gateway gets for the key: nil for an invalid one.
func (m *mount) valid(key string) *leasedKey {
	m.t.Helper()
	k, err := m.leasedKey(m.t.Context(), m.storage, key)
	if err != nil {
		m.t.Errorf("lookup: %v", err)
	}
	return k
}

func TestCreds_AReadLeasesAKeyThatSaysWhoHasIt(t *testing.T) {
	m, _, at := newLeaseMount(t)
	l, resp := m.lease(nil)
	if !regexp.MustCompile(`^vk-[A-Za-z0-9_-]{43}$`).MatchString(l.key) {
		t.Errorf("the key is %q", l.key)
	}
	wantFields(t, l.data, map[string]any{"role": "r", "base_url": ""})
	wantWarning(t, resp, "the gateway is off", "config/gateway")
	if l.secret.TTL != defaultLease || l.secret.MaxTTL != maxLease || !l.secret.Renewable {
		t.Errorf("the lease is %+v", l.secret.LeaseOptions)
	}
	hash, _ := hashLeasedKey(l.key)
	if kept := l.secret.InternalData; len(kept) != 2 || kept["hash"] != hash || kept["secret_type"] != "leased_key" {
		t.Errorf("Vault's lease holds %v", kept)
	}
	r, err := m.roles.get(t.Context(), m.storage, "r")
	if err != nil {
		t.Fatal(err)
	}
	want := leasedKey{
		Hash: hash, Role: "r", RoleID: r.ID, EntityID: "e", DisplayName: "d",
		IssuedAt: at.now(), Expires: at.now().Add(defaultLease),
	}
	if k := m.valid(l.key); k == nil || *k != want {
		t.Errorf("found %+v\nwant %+v", k, want)
	}
	if entries(t, m.storage)["local/creds/"+hash] == "" {
		t.Error("it isn't stored by its hash, in this cluster alone")
	}
	if other, _ := m.lease(nil); other.key == l.key || m.valid(l.key) == nil || m.valid(other.key) == nil {
		t.Error("a second read doesn't give a key of its own")
	}
}

func TestCreds_BaseURLIsTheGateways(t *testing.T) {
	m, _, _ := newLeaseMount(t)
	for _, url := range []string{"https://llm.example:8300", "https://llm.example:8300/"} {
		resp := m.leaseAnswer(&leasedKey{Role: "r", Hash: "h"}, "vk-x", url, leaseTerm{ttl: time.Hour, max: time.Hour})
		wantFields(t, resp.Data, map[string]any{"base_url": "https://llm.example:8300/v1", "api_key": "vk-x"})
		if len(resp.Warnings) > 0 {
			t.Errorf("warnings: %q", resp.Warnings)
		}
	}
}

func TestCreds_TTL(t *testing.T) {
	for name, c := range map[string]struct {
		data    map[string]any
		expires time.Duration // the virtual key's, from now; 0 for never
		ttl     time.Duration
		most    time.Duration
		warning string
	}{
		"as text":                       {data: map[string]any{"ttl": "90m"}, ttl: 90 * time.Minute, most: maxLease},
		"as seconds":                    {data: map[string]any{"ttl": 1}, ttl: time.Second, most: maxLease},
		"the longest":                   {data: map[string]any{"ttl": "48h"}, ttl: maxLease, most: maxLease},
		"too long":                      {data: map[string]any{"ttl": "49h"}, ttl: maxLease, most: maxLease, warning: "max_lease_ttl"},
		"200 years":                     {data: map[string]any{"ttl": "6307200000"}, ttl: maxLease, most: maxLease, warning: "max_lease_ttl"},
		"beyond the virtual key":        {data: map[string]any{"ttl": "3h"}, expires: 2 * time.Hour, ttl: 2 * time.Hour, most: 2 * time.Hour, warning: "expiry of virtual key r"},
		"within the virtual key":        {data: map[string]any{"ttl": "1h"}, expires: 2 * time.Hour, ttl: time.Hour, most: 2 * time.Hour},
		"none, short virtual key":       {expires: time.Hour, ttl: time.Hour, most: time.Hour},
		"none, virtual key of 30 hours": {expires: 30 * time.Hour, ttl: defaultLease, most: 30 * time.Hour},
		"none, long virtual key":        {expires: 1000 * time.Hour, ttl: defaultLease, most: maxLease},
	} {
		t.Run(name, func(t *testing.T) {
			m, _, at := newLeaseMount(t)
			if c.expires > 0 {
				m.write("roles/r", map[string]any{"ttl": c.expires.String()})
			}
			l, resp := m.lease(c.data)
			if l.secret.TTL != c.ttl || l.secret.MaxTTL != c.most {
				t.Errorf("the lease has %s, at most %s; want %s, %s", l.secret.TTL, l.secret.MaxTTL, c.ttl, c.most)
			}
			if c.warning != "" {
				wantWarning(t, resp, c.warning)
			} else if len(resp.Warnings) != 1 { // that of the gateway
				t.Errorf("warnings: %q", resp.Warnings)
			}
			at.advance(c.ttl - time.Nanosecond)
			if m.valid(l.key) == nil {
				t.Error("it ends early")
			}
			at.advance(time.Nanosecond)
			if m.valid(l.key) != nil {
				t.Error("it is valid at its end")
			}
		})
	}
}

func TestCreds_WhatIsRefused(t *testing.T) {
	m, _, at := newLeaseMount(t)
	m.write("roles/off", map[string]any{"key": "k", "enabled": false})
	m.write("roles/old", map[string]any{"key": "k", "expires_at": at.now().Format(time.RFC3339)})
	m.write("roles/ends", map[string]any{"key": "k", "ttl": "60s"})
	at.advance(59*time.Second + time.Millisecond)
	m.write("roles/theirs", map[string]any{"key": "k", "allowed_entity_ids": "e2"})
	before := len(entries(t, m.storage))
	for name, c := range map[string]struct {
		path string
		data map[string]any
		want string
	}{
		"no such virtual key":  {path: "creds/none", want: `virtual key "none" does not exist`},
		"disabled":             {path: "creds/off", want: `virtual key "off" is disabled; `},
		"expired":              {path: "creds/old", want: `virtual key "old" expired at 2026-05-01T12:00:00Z`},
		"less than a second":   {path: "creds/ends", want: "expiry of virtual key ends leaves the leased key no time"},
		"not the caller's":     {path: "creds/theirs", want: "may not be used by this caller"},
		"negative":             {data: map[string]any{"ttl": "-1h"}, want: "ttl is -3600s; it must be a second or more"},
		"zero":                 {data: map[string]any{"ttl": 0}, want: "ttl is 0s; it must be a second or more"},
		"empty":                {data: map[string]any{"ttl": ""}, want: "ttl is 0s"},
		"below a second":       {data: map[string]any{"ttl": "900ms"}, want: "ttl is shorter than a second"},
		"garbage":              {data: map[string]any{"ttl": "soon"}, want: "ttl must be a duration"},
		"beyond all durations": {data: map[string]any{"ttl": "99999999999999999h"}, want: "ttl must be a duration"},
		"two":                  {data: map[string]any{"ttl": []any{"1h", "2h"}}, want: "ttl must be a duration"},
		"misspelt":             {data: map[string]any{"tll": "1h"}, want: `unknown field "tll" (did you mean "ttl"?)`},
		"no name":              {path: "creds/", want: "there is nothing at"},
	} {
		t.Run(name, func(*testing.T) {
			if c.path == "" {
				c.path = "creds/r"
			}
			m.refused(logical.ReadOperation, c.path, c.data, c.want)
		})
	}
	if now := len(entries(t, m.storage)); now != before {
		t.Errorf("%d entries became %d", before, now)
	}
	for path, status := range map[string]int{"creds/none": 404, "creds/off": 403, "creds/old": 403, "creds/theirs": 403} {
		_, err := m.call(logical.ReadOperation, path, nil)
		if coded, isCoded := err.(logical.HTTPCodedError); !isCoded || coded.Code() != status {
			t.Errorf("%s: %v, want %d", path, err, status)
		}
	}
}

func TestCreds_ARestrictedVirtualKeyIsLeasedAndRenewedForThoseItAllows(t *testing.T) {
	m, _, _ := newLeaseMount(t)
	m.write("roles/r", map[string]any{"allowed_entity_ids": "e"})
	l, _ := m.lease(nil)
	m.renew(l, 0)
	m.write("roles/r", map[string]any{"allowed_entity_ids": "e2"})
	if resp, err := m.vaultAsks(logical.RenewOperation, l, 0); err != nil || !strings.Contains(resp.Error().Error(), "may not be used by this caller") {
		t.Errorf("renewed: %v %v", resp, err)
	}
	m.write("roles/r", map[string]any{"allowed_entity_ids": "", "allowed_group_names": "g"})
	m.system.groupsErr = errFault
	if resp, err := m.vaultAsks(logical.RenewOperation, l, 0); err == nil || !strings.Contains(err.Error(), errFault.Error()) {
		t.Errorf("Vault can't say who it is, yet: %v %v", resp, err)
	}
}

func TestCreds_OnlyAnActiveInstanceLeasesAndRenewsAndAnyRevokes(t *testing.T) {
	active, storage, at := newLeaseMount(t)
	l, _ := active.lease(nil)
	m := newStandby(t, Options{Now: at.now}, consts.ReplicationUnknown, storage)
	if _, err := m.call(logical.ReadOperation, "creds/r", nil); err == nil || err.(logical.HTTPCodedError).Code() != http.StatusServiceUnavailable {
		t.Errorf("read: %v", err)
	}
	if _, err := m.vaultAsks(logical.RenewOperation, l, 0); err == nil || !strings.Contains(err.Error(), "not active") {
		t.Errorf("renewal: %v", err)
	}
	if err := m.revoke(l); err != nil || len(leasedEntries(t, storage)) != 0 {
		t.Errorf("revocation: %v", err)
	}
}

// leasedEntries is what storage holds of leased keys.
func leasedEntries(t *testing.T, storage logical.Storage) map[string]string {
	t.Helper()
	all := entries(t, storage)
	for key := range all {
		if !strings.HasPrefix(key, leasedPrefix) {
			delete(all, key)
		}
	}
	return all
}

func TestCreds_ThePathSaysWhatItDoes(t *testing.T) {
	m, _, _ := newLeaseMount(t)
	path := m.Route("creds/r")
	if len(path.Operations) != 1 || !path.Operations[logical.ReadOperation].Properties().ForwardPerformanceStandby {
		t.Errorf("the operations are %v", path.Operations)
	}
	_, resp := m.lease(nil)
	schema.ValidateResponse(t, schema.GetResponseSchema(t, path, logical.ReadOperation), resp, true)
	secret := m.Secret(leasedKeyType)
	for name := range resp.Data {
		if secret.Fields[name] == nil {
			t.Errorf("the secret's fields lack %s", name)
		}
	}
	if attrs := secret.Fields["api_key"].DisplayAttrs; attrs == nil || !attrs.Sensitive {
		t.Error("api_key isn't marked as sensitive")
	}
	get := m.openAPI().Paths["/creds/{role}"].Get
	if get.OperationID != "portkey-generate-leased-key" {
		t.Errorf("the operation is called %s", get.OperationID)
	}
	var query []string
	for _, p := range get.Parameters {
		query = append(query, p.Name+" "+p.In)
	}
	if strings.Join(query, ", ") != "ttl query" {
		t.Errorf("the parameters are %v", query)
	}
}

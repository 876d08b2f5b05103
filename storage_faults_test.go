// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

// writeOperation is one request that changes storage.
type writeOperation struct {
	op   logical.Operation
	path string
	data map[string]any
	// tidies is the number of the first write that only tidies up, 0 for none:
	// it and those behind it may fail unseen.
	tidies int
}

func writeOperations() map[string]writeOperation {
	return map[string]writeOperation{
		"write config":                {op: logical.UpdateOperation, path: "config", data: map[string]any{"upstream_timeout": 9}},
		"delete config":               {op: logical.DeleteOperation, path: "config"},
		"write gateway":               {op: logical.UpdateOperation, path: gatewayName, data: map[string]any{"idle_timeout": 9, "address": "127.0.0.1:0"}},
		"delete gateway":              {op: logical.DeleteOperation, path: gatewayName},
		"create key":                  {op: logical.UpdateOperation, path: "keys/new", data: openaiKey(secretA)},
		"update key":                  {op: logical.UpdateOperation, path: "keys/used", data: map[string]any{"note": "new", "api_key": secretB}},
		"patch key":                   {op: logical.PatchOperation, path: "keys/used", data: map[string]any{"note": "new"}},
		"rotate key":                  {op: logical.UpdateOperation, path: "keys/used/rotate", data: map[string]any{"api_key": secretB}},
		"delete key":                  {op: logical.DeleteOperation, path: "keys/unused"},
		"delete key, stale reference": {op: logical.DeleteOperation, path: "keys/stale"},
		"create role":                 {op: logical.UpdateOperation, path: "roles/new", data: map[string]any{"key": "unused"}},
		"update role":                 {op: logical.UpdateOperation, path: "roles/r", data: map[string]any{"note": "new"}},
		"patch role":                  {op: logical.PatchOperation, path: "roles/r", data: map[string]any{"enabled": false}},
		"move role to another key":    {op: logical.UpdateOperation, path: "roles/r", data: map[string]any{"key": "unused"}, tidies: 3},
		"delete role":                 {op: logical.DeleteOperation, path: "roles/r", tidies: 2},
	}
}

// newFaultMount has settings, a gateway, three keys and a role, on a storage that can fail.
func newFaultMount(t *testing.T) (*mount, *faultyStorage) {
	t.Helper()
	storage := &faultyStorage{Storage: &logical.InmemStorage{}}
	m := newMountOn(t, Options{Now: newClock().now, Transport: &upstream{}}, storage)
	m.write("config", map[string]any{"upstream_timeout": 5})
	m.write(gatewayName, gatewayFieldsFor(nil))
	for _, name := range []string{"used", "unused", "stale"} {
		m.write("keys/"+name, openaiKey(secretA))
	}
	m.write("roles/r", map[string]any{"key": "stale"})
	m.write("roles/r", map[string]any{"key": "used"})
	if err := storage.Put(t.Context(), &logical.StorageEntry{Key: refPrefix + "stale/r", Value: []byte("{}")}); err != nil {
		t.Fatal(err)
	}
	return m, storage
}

// TestStorageFault_AtEveryWriteLeavesWhatWasThere fails the first write of
// each operation, then the second, and so on until none is left to fail.
func TestStorageFault_AtEveryWriteLeavesWhatWasThere(t *testing.T) {
	for name, o := range writeOperations() {
		t.Run(name, func(t *testing.T) {
			n := 1
			for failWrite(t, o, n, false) {
				n++
			}
			if n == 1 {
				t.Error("the operation writes nothing: the test proves nothing")
			}
		})
	}
}

// TestStorageFault_ALostAnswerLeavesMemoryAndStorageAgreed is the same with
// writes that storage does, but says that it didn't.
func TestStorageFault_ALostAnswerLeavesMemoryAndStorageAgreed(t *testing.T) {
	for name, o := range writeOperations() {
		t.Run(name, func(t *testing.T) {
			n := 1
			for failWrite(t, o, n, true) {
				n++
			}
		})
	}
}

// tale is what became of an operation whose n-th write was to fail.
type tale struct {
	n       int
	failed  bool // there was such a write
	applied bool // storage did it, though it said otherwise
	quiet   bool // nobody needs to be told
	changed bool // what memory and storage hold is something else than before
}

// check compares it with what the caller was told.
func (w tale) check(t *testing.T, resp *logical.Response, err error) {
	t.Helper()
	switch {
	case resp.IsError():
		t.Errorf("write %d: taken for the caller's fault: %v", w.n, resp.Error())
	case w.failed && err == nil && !w.quiet:
		t.Errorf("write %d failed, and nobody was told", w.n)
	case !w.failed && err != nil:
		t.Errorf("nothing failed, yet: %v", err)
	case err != nil && !strings.Contains(err.Error(), errFault.Error()):
		t.Errorf("write %d: the error doesn't say what failed: %v", w.n, err)
	case err != nil && !w.applied && w.changed:
		t.Errorf("write %d failed, yet something changed", w.n)
	case err == nil && !w.changed:
		t.Errorf("write %d: success without effect", w.n)
	}
}

// failWrite makes the n-th write of o fail and checks what is left. It returns
// false if there was no n-th write, once it has seen o succeed.
func failWrite(t *testing.T, o writeOperation, n int, applied bool) bool {
	t.Helper()
	m, storage := newFaultMount(t)
	before := m.everything()
	if storage.failWrite != 0 {
		t.Fatal("armed too early")
	}
	storage.arm(n, applied)
	resp, err := m.call(o.op, o.path, o.data)
	failed := storage.disarm()
	now := m.everything()
	fresh := newMountOn(t, Options{Now: newClock().now}, storage)
	if stored := fresh.everything(); !reflect.DeepEqual(now, stored) {
		t.Errorf("write %d: memory says %v\nstorage says %v", n, now, stored)
	}
	checkReferences(t, storage)
	tale{n: n, failed: failed, applied: applied, quiet: mayFailUnseen(o, n), changed: !reflect.DeepEqual(now, before)}.check(t, resp, err)
	m.chat("new", "m").want(t, chatStatus(now["roles/new"] != nil), chatCode(now["roles/new"] != nil))
	// The way out is to do it again, but for what can't be done twice.
	if done := !reflect.DeepEqual(now, before); !done || !strings.HasSuffix(o.path, "/rotate") {
		m.must(o.op, o.path, o.data)
	}
	return failed
}

// mayFailUnseen says whether the failed write only tidied up: references that
// no longer hold are harmless, and are found out when the key is deleted; counts
// of a role that is gone are nobody's.
func mayFailUnseen(o writeOperation, n int) bool {
	return o.tidies > 0 && n >= o.tidies || o.path == "keys/stale" && n == 1
}

func chatStatus(usable bool) int {
	if usable {
		return http.StatusOK
	}
	return http.StatusNotFound
}

func chatCode(usable bool) string {
	if usable {
		return ""
	}
	return "virtual_key_not_found"
}

// checkReferences reads storage itself: each role's key is there, and knows
// that the role uses it.
func checkReferences(t *testing.T, storage logical.Storage) {
	t.Helper()
	all := entries(t, storage)
	for path, value := range all {
		name, isRole := strings.CutPrefix(path, rolePrefix)
		if !isRole {
			continue
		}
		var r role
		if err := json.Unmarshal([]byte(value), &r); err != nil {
			t.Fatal(err)
		}
		if _, found := all[keyPrefix+r.Key]; !found {
			t.Errorf("role %s uses key %s, which does not exist", name, r.Key)
		}
		if _, found := all[refPrefix+r.Key+"/"+name]; !found {
			t.Errorf("role %s uses key %s, which doesn't know", name, r.Key)
		}
	}
}

// forgetStart removes what each instance writes anew when it begins.
func forgetStart(all map[string]string) {
	delete(all, localPrefix+"instance")
	delete(all, ledgerPrefix+"epoch")
}

func TestStorageFault_ReadsThatFailAreErrorsAndChangeNothing(t *testing.T) {
	for name, o := range writeOperations() {
		if strings.HasPrefix(name, "delete") && name != "delete key" && name != "delete key, stale reference" {
			continue // need no read, so that damaged entries can be removed
		}
		if name == "write gateway" {
			continue // needs none either: while it is on, its settings are in memory
		}
		t.Run(name, func(t *testing.T) {
			m, storage := newFaultMount(t)
			before := entries(t, storage)
			fresh := newMountOn(t, Options{}, storage)
			forgetStart(before)
			storage.failReads(errFault)
			storage.failLists(errFault)
			resp, err := fresh.call(o.op, o.path, o.data)
			storage.disarm()
			if err == nil || resp.IsError() {
				t.Errorf("answered %v %v", resp, err)
			}
			now := entries(t, storage)
			forgetStart(now)
			if !reflect.DeepEqual(now, before) {
				t.Errorf("storage changed from %v\nto %v", before, now)
			}
			m.read("roles/r")
		})
	}
}

func TestStorageFault_ProxyStaysClosedWhileStorageCannotBeRead(t *testing.T) {
	m, storage := newFaultMount(t)
	fresh := newMountOn(t, Options{Transport: m.transport}, storage)
	storage.failReads(errFault)
	fresh.chat("r", "m").want(t, http.StatusServiceUnavailable, "storage_unavailable")
	storage.disarm()
	fresh.chat("r", "m").want(t, http.StatusOK, "")
	for _, path := range []string{"keys/used", "roles/r", "config"} {
		entry, err := storage.Get(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		if err := storage.Put(t.Context(), &logical.StorageEntry{Key: path, Value: []byte("{")}); err != nil {
			t.Fatal(err)
		}
		damaged := newMountOn(t, Options{Transport: m.transport}, storage)
		damaged.chat("r", "m").want(t, http.StatusServiceUnavailable, "storage_unavailable")
		if err := storage.Put(t.Context(), entry); err != nil {
			t.Fatal(err)
		}
	}
	if err := storage.Delete(t.Context(), "keys/used"); err != nil {
		t.Fatal(err)
	}
	missing := newMountOn(t, Options{Transport: m.transport}, storage)
	missing.chat("r", "m").want(t, http.StatusServiceUnavailable, "storage_unavailable")
	if n := len(m.transport.(*upstream).requests()); n != 1 {
		t.Errorf("%d requests were sent to the provider, want 1", n)
	}
}

func TestStorageFault_AKeyStaysWhileItsRolesCannotBeRead(t *testing.T) {
	m, storage := newFaultMount(t)
	if err := storage.Put(t.Context(), &logical.StorageEntry{Key: "roles/r", Value: []byte("{")}); err != nil {
		t.Fatal(err)
	}
	fresh := newMountOn(t, Options{}, storage)
	if resp, err := fresh.call(logical.DeleteOperation, "keys/used", nil); err == nil {
		t.Errorf("answered %v", resp)
	}
	if m.read("keys/used") == nil {
		t.Error("the key is gone, and nobody knows whether the role uses it")
	}
	fresh.delete("roles/r") // the way out
	fresh.delete("keys/used")
}

// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

// promptOperations are all requests that change templates, of which "p" has two
// versions. Writes from the one numbered tidies on may fail unseen.
func promptOperations() map[string]writeOperation {
	return map[string]writeOperation{
		"create":      {op: logical.UpdateOperation, path: "prompts/new", data: greeting("new")},
		"new version": {op: logical.UpdateOperation, path: "prompts/p", data: greeting("three")},
		"patch":       {op: logical.PatchOperation, path: "prompts/p", data: map[string]any{"model": "m"}},
		"note":        {op: logical.UpdateOperation, path: "prompts/p", data: map[string]any{"note": "new"}},
		"publish":     {op: logical.UpdateOperation, path: "prompts/p/publish", data: map[string]any{"version": 2}},
		"delete":      {op: logical.DeleteOperation, path: "prompts/p", tidies: 2},
	}
}

func newPromptFaultMount(t *testing.T) (*mount, *faultyStorage) {
	t.Helper()
	m, storage := newFaultMount(t)
	m.write("prompts/p", greeting("one"))
	m.write("prompts/p", greeting("two"))
	return m, storage
}

// promptState is all that can be seen of templates, by reads and by calls.
func (m *mount) promptState() map[string]any {
	m.t.Helper()
	all := map[string]any{}
	for _, name := range []string{"p", "new"} {
		for _, ref := range []string{name, name + "@latest", name + "@1", name + "@2", name + "@3"} {
			data := m.read("prompts/" + ref)
			delete(data, "id") // of a template that is made again
			delete(data, "created_at")
			all[ref] = data
			all[ref+"/render"] = m.promptAs("", ref+"/render", map[string]any{"variables": map[string]any{"name": "x"}}).Body
		}
		all[name+"/versions"] = m.must(logical.ListOperation, "prompts/"+name+"/versions", nil).Data["keys"]
	}
	return all
}

// TestPromptFault_AtEveryWriteLeavesAWholeTemplate fails each write of each
// operation: with applied, storage does it, and its answer is lost.
func TestPromptFault_AtEveryWriteLeavesAWholeTemplate(t *testing.T) {
	for name, o := range promptOperations() {
		for _, applied := range []bool{false, true} {
			t.Run(name+"/"+strconv.FormatBool(applied), func(t *testing.T) {
				n := 1
				for failPromptWrite(t, o, n, applied) {
					n++
				}
				if n == 1 {
					t.Error("the operation writes nothing: the test proves nothing")
				}
			})
		}
	}
}

func failPromptWrite(t *testing.T, o writeOperation, n int, applied bool) bool {
	t.Helper()
	m, storage := newPromptFaultMount(t)
	before := m.promptState()
	storage.arm(n, applied)
	resp, err := m.call(o.op, o.path, o.data)
	failed := storage.disarm()
	now := m.promptState()
	fresh := newMountOn(t, Options{Now: newClock().now}, storage)
	if stored := fresh.promptState(); !reflect.DeepEqual(now, stored) {
		t.Errorf("write %d: memory says %v\nstorage says %v", n, now, stored)
	}
	tale{n: n, failed: failed, applied: applied, quiet: o.tidies > 0 && n >= o.tidies, changed: !reflect.DeepEqual(now, before)}.check(t, resp, err)
	m.must(o.op, o.path, o.data) // the way out is to do it again
	m.delete("prompts/p")
	for key := range entries(t, storage) {
		if strings.HasPrefix(key, "prompts/p") || strings.HasPrefix(key, "promptversions/p/") {
			t.Errorf("write %d: %s is left for ever", n, key)
		}
	}
	return failed
}

func TestPromptFault_ReadsThatFailAreTheServersAndChangeNothing(t *testing.T) {
	m, storage := newPromptFaultMount(t)
	before := entries(t, storage)
	for name, o := range promptOperations() {
		if name == "delete" { // needs no read, so that damaged entries can be removed
			continue
		}
		fresh := newMountOn(t, Options{}, storage)
		storage.failReads(errFault)
		resp, err := fresh.call(o.op, o.path, o.data)
		answer := fresh.promptAs("", "p/completions", nil)
		storage.disarm()
		if err == nil || resp.IsError() {
			t.Errorf("%s: answered %v %v", name, resp, err)
		}
		answer.want(t, 503, "storage_unavailable")
	}
	now := entries(t, storage)
	forgetStart(before)
	forgetStart(now)
	if !reflect.DeepEqual(now, before) {
		t.Errorf("storage changed from %v\nto %v", before, now)
	}
	for _, key := range []string{"prompts/p", "promptversions/p/1"} {
		for _, damage := range []string{"{", `{"id":"x","published":5,"made":["2026-05-01T12:00:00Z"],"prompt_id":"x"}`} {
			entry, err := storage.Get(t.Context(), key)
			if err != nil {
				t.Fatal(err)
			}
			if err := storage.Put(t.Context(), &logical.StorageEntry{Key: key, Value: []byte(damage)}); err != nil {
				t.Fatal(err)
			}
			damaged := newMountOn(t, Options{Transport: m.transport}, storage)
			if resp, err := damaged.call(logical.ReadOperation, "prompts/p", nil); err == nil {
				t.Errorf("%s as %s is read as %v", key, damage, resp.Data)
			}
			damaged.promptAs("", "p/completions", nil).want(t, 503, "storage_unavailable")
			if err := storage.Put(t.Context(), entry); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := len(m.transport.(*upstream).requests()); n != 0 {
		t.Errorf("%d requests were sent to the provider", n)
	}
}

// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"reflect"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

// cachedStores finds every entryStore that a value leads to by pointers, structs and
// this package's types, and calls f with where it is.
func cachedStores(v reflect.Value, at string, seen map[uintptr]bool, f func(at string, store reflect.Value)) {
	for v.Kind() == reflect.Pointer && !v.IsNil() {
		if seen[v.Pointer()] {
			return
		}
		seen[v.Pointer()] = true
		v = v.Elem()
	}
	if v.Kind() != reflect.Struct || v.Type().PkgPath() != reflect.TypeFor[backend]().PkgPath() {
		return
	}
	if strings.HasPrefix(v.Type().Name(), "entryStore[") {
		f(at, v)
		return
	}
	for i := range v.NumField() {
		cachedStores(v.Field(i), at+"."+v.Type().Field(i).Name, seen, f)
	}
}

// changes counts the changes that each store has heard of.
func (m *mount) changes() map[string]uint64 {
	all := map[string]uint64{}
	cachedStores(reflect.ValueOf(m.backend), "backend", map[uintptr]bool{}, func(at string, store reflect.Value) {
		all[at] = store.FieldByName("changes").Uint()
	})
	return all
}

func TestInvalidate_ReachesEveryCachedStore(t *testing.T) {
	m := newMount(t, Options{})
	stores := map[string]string{} // to their prefix
	cachedStores(reflect.ValueOf(m.backend), "backend", map[uintptr]bool{}, func(at string, store reflect.Value) {
		stores[at] = store.FieldByName("prefix").String()
	})
	for _, known := range []string{"backend.settings", "backend.keys", "backend.roles", "backend.leased.entries", "backend.prompts.heads", "backend.gatewayStore"} {
		if _, found := stores[known]; !found {
			t.Fatalf("%s wasn't found among %v: the test proves nothing", known, stores)
		}
	}
	for at, prefix := range stores {
		before := m.changes()
		m.InvalidateKey(t.Context(), prefix+"name")
		if now := m.changes(); now[at] != before[at]+1 {
			t.Errorf("%s isn't told that %sname has changed", at, prefix)
		}
	}
	if _, err := m.prices.current(t.Context(), m.storage); err != nil {
		t.Fatal(err)
	}
	m.InvalidateKey(t.Context(), pricePrefix+"openai/m")
	if m.prices.book != nil {
		t.Error("the prices aren't told that one has changed")
	}
}

func TestInvalidate_ShowsTheGatewaysSettingsOfAnotherNode(t *testing.T) {
	storage := &logical.InmemStorage{}
	there, here := newMountOn(t, Options{}, storage), newStandby(t, Options{}, 0, storage)
	there.write(gatewayName, gatewayFieldsFor(nil))
	wantFields(t, here.read(gatewayName), map[string]any{"redirect": "stream"})
	there.write(gatewayName, map[string]any{"redirect": "off"})
	wantFields(t, here.read(gatewayName), map[string]any{"redirect": "stream"}) // else nothing was cached
	here.InvalidateKey(t.Context(), gatewayPrefix+gatewayEntry)
	wantFields(t, here.read(gatewayName), map[string]any{"redirect": "off"})
	there.delete(gatewayName)
	here.InvalidateKey(t.Context(), gatewayPrefix+gatewayEntry)
	if got := here.read(gatewayName); got != nil {
		t.Errorf("it was deleted, and is shown as %v", got)
	}
}

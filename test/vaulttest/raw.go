// SPDX-License-Identifier: MPL-2.0

//go:build unix

package vaulttest

import (
	"bytes"
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// RawKeys returns the paths of all storage entries below prefix, which is
// empty for the whole storage or ends in a slash, sorted. A mount's entries
// are below logical/<the mount's UUID>/.
//
// Left out is what Vault never shows there: its keyring, and what is stored
// beside the barrier because it is needed for unsealing.
func (v *Vault) RawKeys(tb testing.TB, prefix string) []string {
	tb.Helper()
	var keys []string
	for _, key := range v.Client(v.RootToken).List(tb, rawPath(prefix)) {
		path := prefix + key
		switch {
		case strings.HasSuffix(key, "/"):
			keys = append(keys, v.RawKeys(tb, path)...)
		case !slices.Contains(outsideBarrier(), path):
			keys = append(keys, path)
		}
	}
	slices.Sort(keys)
	return keys
}

// outsideBarrier returns the entries that sys/raw refuses to read (the keyring
// and the cluster's keys), or can't, because Vault needs them before it is
// unsealed and so doesn't encrypt them with the barrier. Seen with Vault 1.21,
// shamir seal, storage in memory and in Raft.
func outsideBarrier() []string {
	return []string{
		"core/cluster/local/info",
		"core/cluster/local/name",
		"core/hsm/barrier-unseal-keys",
		"core/keyring",
		"core/lock",
		"core/seal-config",
	}
}

// RawRead returns the plain text of a storage entry, decompressed if Vault
// compressed it. The test fails if there is none.
func (v *Vault) RawRead(tb testing.TB, path string) []byte {
	tb.Helper()
	c := v.Client(v.RootToken)
	resp, err := c.Do(tb.Context(), http.MethodGet, rawPath(path)+"?encoding=base64", nil)
	if err == nil && resp.Status != http.StatusOK {
		// Vault recognises a compressed value by its first byte, and fails on
		// one that only looks so.
		resp, err = c.Do(tb.Context(), http.MethodGet, rawPath(path)+"?encoding=base64&compressed=false", nil)
	}
	if err != nil {
		tb.Fatalf("vaulttest: %v", err)
	}
	if resp.Status != http.StatusOK {
		tb.Fatalf("vaulttest: sys/raw/%s: %s", path, resp)
	}
	text, _ := resp.Data()["value"].(string)
	value, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		tb.Fatalf("vaulttest: sys/raw/%s isn't base64: %v", path, err)
	}
	return value
}

// RawSearch returns the paths below prefix whose plain text contains needle,
// as it is or in base64, the latter at any offset. For secrets that must
// not be there.
func (v *Vault) RawSearch(tb testing.TB, prefix string, needle []byte) []string {
	tb.Helper()
	forms := append([][]byte{needle}, base64Forms(needle)...)
	var found []string
	for _, path := range v.RawKeys(tb, prefix) {
		value := v.RawRead(tb, path)
		if slices.ContainsFunc(forms, func(form []byte) bool { return bytes.Contains(value, form) }) {
			found = append(found, path)
		}
	}
	return found
}

// base64Forms returns what is surely contained in the base64 of any text that
// contains needle, in both alphabets and for each of the three ways
// that needle can lie on the encoding's groups of three bytes. Needles under 8 bytes have none: too
// little of them is sure.
func base64Forms(needle []byte) [][]byte {
	if len(needle) < 8 {
		return nil
	}
	var forms [][]byte
	for skip := range 3 {
		whole := needle[skip:]
		whole = whole[:len(whole)-len(whole)%3]
		forms = append(forms,
			[]byte(base64.StdEncoding.EncodeToString(whole)),
			[]byte(base64.URLEncoding.EncodeToString(whole)))
	}
	return forms
}

// rawPath returns the API's path of a storage entry, whose name may hold
// anything.
func rawPath(path string) string {
	parts := strings.Split(path, "/")
	for i, part := range parts {
		parts[i] = url.PathEscape(part)
	}
	return "sys/raw/" + strings.Join(parts, "/")
}

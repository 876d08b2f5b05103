// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
)

// digest is a SHA-256. Credentials are kept and looked up by theirs alone: how long
// a lookup takes then says nothing of the credential.
type digest = [sha256.Size]byte

func secretBytes() (b [32]byte) {
	_, _ = rand.Read(b[:]) // it never fails: crypto/rand says so
	return b
}

// newSecret returns 256 random bits as text for URLs, and their digest.
func newSecret() (text string, d digest) {
	b := secretBytes()
	text = base64.RawURLEncoding.EncodeToString(b[:])
	return text, sha256.Sum256([]byte(text))
}

// canonical is the digest of a JSON object's canonical text: what Vault decodes, in
// the order and the spelling of encoding/json. Numbers are what a float64 holds,
// since that is what a plugin gets of them.
func canonical(fields map[string]any) (digest, error) {
	if fields == nil {
		fields = map[string]any{}
	}
	text, err := json.Marshal(fields)
	if err != nil {
		return digest{}, fmt.Errorf("the body can't be compared: %w", err)
	}
	return sha256.Sum256(text), nil
}

// canonicalText is canonical for JSON text that is known to be one object.
func canonicalText(text []byte) (digest, error) {
	fields := map[string]any{}
	if len(text) > 0 {
		if err := json.Unmarshal(text, &fields); err != nil {
			return digest{}, fmt.Errorf("the body can't be shown to Vault: %w", err)
		}
	}
	return canonical(fields)
}

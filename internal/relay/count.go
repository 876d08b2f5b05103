// SPDX-License-Identifier: MPL-2.0

package relay

import "vault-plugin-secrets-portkey/internal/provider"

// countInput counts the input's tokens, where it is certain how the model does,
// and says whether that made the bound tighter. It costs some 10 us a KiB, so it
// is for requests that don't fit otherwise.
func (x *exchange) countInput() bool {
	input := &x.params.Input
	if x.body == nil || input.Media || input.References || !ownEndpoint(x.req.VirtualKey.Target) {
		return false
	}
	encoding := x.encodings.For(x.req.VirtualKey.Target.Provider().ID, x.params.Model)
	if encoding == nil || len(x.params.OtherModels) > 0 {
		return false
	}
	x.textTokens = x.body.TextTokens(&x.params, encoding.Count)
	x.counted = true
	return x.textTokens < input.TextBytes
}

// ownEndpoint says whether the key points at the provider itself: behind an own
// base URL, a model's name may stand for any model.
func ownEndpoint(t *provider.Target) bool { return t.Base().String() == t.Provider().BaseURL }

// inputText bounds the tokens of the input's text: as counted, or else one a
// byte, which is the least that a token can be.
func (x *exchange) inputText() int64 {
	if x.counted {
		return x.textTokens
	}
	return x.params.Input.TextBytes
}

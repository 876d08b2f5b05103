// SPDX-License-Identifier: MPL-2.0

package relay

import (
	"context"
	"runtime"
	"time"

	"vault-plugin-secrets-portkey/internal/provider"
	"vault-plugin-secrets-portkey/internal/tokens"
)

// slotWait is how long a request waits for its turn to have its tokens counted.
// Beyond that it does with the cheap bound: counting is a favour.
const slotWait = 50 * time.Millisecond

// counter counts the tokens of a relay's requests, at most half as many at a
// time as there are processors: callers choose the texts, and the rest of Vault
// must not wait for them.
type counter struct {
	encodings tokens.Encodings
	slots     chan struct{}
}

func newCounter() *counter {
	return &counter{slots: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))}
}

// acquire takes a slot, if one gets free soon.
func (c *counter) acquire(ctx context.Context) bool {
	select {
	case c.slots <- struct{}{}:
		return true
	default:
	}
	soon := time.NewTimer(slotWait)
	defer soon.Stop()
	select {
	case c.slots <- struct{}{}:
		return true
	case <-soon.C:
	case <-ctx.Done():
	}
	return false
}

func (c *counter) release() { <-c.slots }

// countInput counts the input's tokens, where it is certain how the model does,
// and says whether that made the bound tighter; it doesn't when ctx ends
// meanwhile. It is for requests that don't fit otherwise, since it takes time
// that callers can make long: for 256 KiB, the most that is counted, 1 ms with
// English, 12 with Japanese, and 32 with words made up for it.
func (x *exchange) countInput(ctx context.Context) bool {
	if ctx == nil {
		ctx = context.Background()
	}
	input, p := &x.params.Input, x.req.VirtualKey.Target.Provider()
	if x.body == nil || input.Media || input.References || len(x.params.OtherModels) > 0 || !ownEndpoint(x.req.VirtualKey.Target) {
		return false
	}
	if ctx.Err() != nil || !tokens.Known(p.ID, x.params.Model) || !x.counter.acquire(ctx) {
		return false
	}
	defer x.counter.release()
	encoding := x.counter.encodings.For(p.ID, x.params.Model)
	n := x.body.TextTokens(&x.params, func(text []byte) int64 {
		if ctx.Err() != nil { // to the end of the walk, which is quick
			return int64(len(text))
		}
		return encoding.Count(text)
	})
	if ctx.Err() != nil || n >= input.TextBytes {
		return false
	}
	x.textTokens, x.counted = n, true
	return true
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

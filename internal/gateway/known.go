// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"sync"
	"time"
)

// maxKnown bounds the tokens that are known, which take about 100 bytes each.
const maxKnown = 100_000

// knownTokens are tokens of which Vault has said lately that they may do something, by
// digests as of live.caller: their holders aren't guessing, whatever else comes from
// their address, and may put new questions.
type knownTokens struct {
	mu    sync.RWMutex
	until map[digest]time.Time
}

func (k *knownTokens) has(token *digest, now time.Time) bool {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return now.Before(k.until[*token])
}

// learn notes what Vault has said, and what counts until expires: a token that is
// refused isn't known any more, another for knownFor after that.
func (k *knownTokens) learn(token *digest, yes bool, expires time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !yes {
		delete(k.until, *token)
		return
	}
	if k.until == nil {
		k.until = map[digest]time.Time{}
	}
	if len(k.until) >= maxKnown {
		for token := range k.until { // in no order
			if delete(k.until, token); len(k.until) < maxKnown*15/16 {
				break
			}
		}
	}
	k.until[*token] = expires.Add(knownFor)
}

func (k *knownTokens) sweep(now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for token, until := range k.until {
		if !now.Before(until) {
			delete(k.until, token)
		}
	}
}

// caller is what a token is known under: a digest of it, of where it is used from,
// and of a secret.
func (l *live) caller(q *question) digest {
	return l.key(&question{token: q.token, source: q.source}) // a question has a method
}

// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"vault-plugin-secrets-portkey/internal/apierror"
)

// question is what Vault is asked: may this token do this?
type question struct {
	token  string
	source netip.Addr
	method string
	path   string // below the mount, such as proxy/<role>/v1/models
	// shown is the JSON object that Vault is shown; for GET and DELETE, query is.
	shown []byte
	query string
}

// grant is Vault's word on a question. It is immutable, but for again.
type grant struct {
	caller  Caller
	session *session
	expires time.Time
	// kept says that a yes may count for other requests too.
	kept bool
	// refusal is the answer if Vault's word is no; again is how often Vault was asked
	// nevertheless.
	refusal *apierror.Error
	again   atomic.Int32
}

// over says whether what was granted has ended: for good, or before the event of
// this number.
func (v *grant) over(since uint64) bool {
	if v.session == nil {
		return false
	}
	n := v.session.over.Load()
	return n > 0 && n <= since
}

// grants are those that count still.
type grants struct {
	mu    sync.RWMutex
	byKey map[digest]*grant
}

// maxGrants bounds the grants in memory, which take about 400 bytes each. Past it,
// some are forgotten, and Vault is asked again.
const maxGrants = 100_000

// get returns the grant of this key, nil if Vault must be asked. known says that
// Vault has said yes to this question before.
func (g *grants) get(key *digest, now time.Time) (found *grant, known bool) {
	g.mu.RLock()
	found = g.byKey[*key]
	g.mu.RUnlock()
	if found == nil || found.over(math.MaxUint64) {
		return nil, false
	}
	if !now.Before(found.expires) {
		return nil, found.refusal == nil
	}
	return found, found.refusal == nil
}

// knownFor is how long after its end a grant shows that its caller isn't guessing.
const knownFor = 10 * time.Minute

func (g *grants) put(key *digest, v *grant) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.set(key, v)
}

// refuse keeps a refusal, and says whether it is news: of those who have asked the same
// at once, it is to one.
func (g *grants) refuse(key *digest, v *grant, now time.Time) (news bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if found := g.byKey[*key]; found != nil && found.refusal != nil && now.Before(found.expires) {
		return false
	}
	g.set(key, v)
	return true
}

// refusedOr is the refusal that is kept, else err: of those who have asked the same at
// once, some may have been refused by now.
func (g *grants) refusedOr(key *digest, err *apierror.Error, now time.Time) *apierror.Error {
	if found, _ := g.get(key, now); found != nil && found.refusal != nil {
		return found.refusal
	}
	return err
}

// set is put. The lock is held.
func (g *grants) set(key *digest, v *grant) {
	if g.byKey == nil {
		g.byKey = map[digest]*grant{}
	}
	if len(g.byKey) >= maxGrants {
		for key := range g.byKey { // in no order
			if delete(g.byKey, key); len(g.byKey) < maxGrants*15/16 {
				break
			}
		}
	}
	g.byKey[*key] = v
}

func (g *grants) clear() {
	g.mu.Lock()
	defer g.mu.Unlock()
	clear(g.byKey)
}

// sweep forgets grants that count no more.
func (g *grants) sweep(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for key, v := range g.byKey {
		left := v.expires
		if v.refusal == nil {
			left = left.Add(knownFor)
		}
		if !now.Before(left) || v.over(math.MaxUint64) {
			delete(g.byKey, key)
		}
	}
}

// Sweep does what nobody waits for. It is to be called every few seconds.
func (g *Gateway) Sweep() {
	now := g.now()
	g.grants.sweep(now)
	g.known.sweep(now)
	g.sessions.sweep(now)
	g.tickets.sweep(now)
}

var keyBuffers = sync.Pool{New: func() any { b := make([]byte, 0, 1024); return &b }}

// key is what a grant is kept under: a digest of all that the question says, and of
// a secret, so that memory doesn't hold what a token could be guessed by.
func (l *live) key(q *question) digest {
	buf := keyBuffers.Get().(*[]byte)
	b := (*buf)[:0]
	b = append(b, l.seed[:]...)
	source := q.source.As16()
	b = append(b, source[:]...)
	for _, part := range [...]string{q.token, q.method, q.path, q.query} {
		b = binary.AppendUvarint(b, uint64(len(part)))
		b = append(b, part...)
	}
	b = append(b, q.shown...)
	d := sha256.Sum256(b)
	clear(b)
	if cap(b) <= 64<<10 {
		*buf = b
		keyBuffers.Put(buf)
	}
	return d
}

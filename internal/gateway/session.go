// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"sync"
	"sync/atomic"
	"time"
)

// LeaseTTL is how long a sentinel lease lives. When Vault ends it, because the
// token was revoked or because the time is over, all that was granted to the token
// ends (Gateway.Revoke).
const LeaseTTL = time.Hour

// session is what the grants of one token have in common. One that is out of the
// sessions is over.
type session struct {
	over   atomic.Bool
	leased time.Time // until when a lease watches over it; zero for never
}

// sessions are those of the tokens that hold grants, by the salted token.
type sessions struct {
	mu     sync.Mutex
	tokens map[string]*session
	// ended are the tokens whose session ended lately: what Vault said of them
	// before that counts no more, though it arrives later. ends counts ends.
	ended map[string]ending
	ends  uint64
}

// ending is the number of an end, and when it was.
type ending struct {
	n  uint64
	at time.Time
}

// count returns the number of ends so far, for join.
func (s *sessions) count() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ends
}

// join returns the session of a token, a new one if it has none, and whether a
// lease must be taken for it. Vault was asked when count returned since: of a token
// whose session has ended after that, the session is over.
func (s *sessions) join(token string, wantLease bool, since uint64, now time.Time) (*session, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended[token].n > since {
		t := &session{}
		t.over.Store(true)
		return t, false
	}
	if !wantLease {
		return &session{}, false
	}
	if s.tokens == nil {
		s.tokens = map[string]*session{}
	}
	t := s.tokens[token]
	if t == nil {
		t = &session{}
		s.tokens[token] = t
	}
	if now.Before(t.leased) {
		return t, false
	}
	t.leased = now.Add(LeaseTTL)
	return t, true
}

// end ends the session of a token.
func (s *sessions) end(token string, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended == nil {
		s.ended = map[string]ending{}
	}
	s.ends++
	s.ended[token] = ending{s.ends, now}
	if t := s.tokens[token]; t != nil {
		t.over.Store(true)
		delete(s.tokens, token)
	}
}

// sweep ends sessions whose lease should have ended long ago.
func (s *sessions) sweep(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for token, e := range s.ended {
		if now.Sub(e.at) > 2*askTimeout {
			delete(s.ended, token)
		}
	}
	for token, t := range s.tokens {
		if now.Sub(t.leased) > time.Minute {
			t.over.Store(true)
			delete(s.tokens, token)
		}
	}
}

// Revoke ends all that was granted to a token, which is salted as in Caller.Token:
// Vault has ended its lease.
func (g *Gateway) Revoke(token string) { g.sessions.end(token, g.now()) }

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
	// over is the number of the event that ended it; 0 while it lives.
	over   atomic.Uint64
	leased time.Time // until when a lease watches over it; zero for never
	// watched is the number of the event that its lease was made; 0 before.
	watched uint64
}

// sessions are those of the tokens that hold grants, by the salted token. What
// happens to them is numbered, so that it can be told what came before what.
type sessions struct {
	mu     sync.Mutex
	tokens map[string]*session
	// ended are the tokens whose session ended lately: what Vault said of them
	// before that counts no more, though it arrives later.
	ended  map[string]ending
	events uint64
}

// ending is the number of an end, and when it was.
type ending struct {
	n  uint64
	at time.Time
}

// count returns the number of the last event.
func (s *sessions) count() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.events
}

// join returns the session of a token, a new one if it has none, and whether a
// lease must be taken for it. Vault was asked when count returned since: of a token
// whose session has ended after that, the session is over.
func (s *sessions) join(token string, wantLease bool, since uint64, now time.Time) (*session, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if last := s.ended[token]; last.n > since {
		t := &session{}
		t.over.Store(last.n)
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

// watch notes that a session's lease was made.
func (s *sessions) watch(t *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events++
	t.watched = s.events
}

// watches says whether a lease already watched over the session when count returned
// since. Only then may Vault's word be kept: a token that was revoked between Vault's
// look at it and its lease would never be heard of again.
func (s *sessions) watches(t *session, since uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return t.watched > 0 && t.watched <= since
}

// end ends the session of a token.
func (s *sessions) end(token string, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended == nil {
		s.ended = map[string]ending{}
	}
	s.events++
	s.ended[token] = ending{s.events, now}
	s.drop(token)
}

// drop takes a session out. The lock is held.
func (s *sessions) drop(token string) {
	if t := s.tokens[token]; t != nil {
		t.over.Store(s.events)
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
			s.events++
			s.drop(token)
		}
	}
}

// Revoke ends all that was granted to a token, which is salted as in Caller.Token:
// Vault has ended its lease.
func (g *Gateway) Revoke(token string) { g.sessions.end(token, g.now()) }

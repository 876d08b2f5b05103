// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"net/http"
	"net/netip"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2/simplelru"

	"vault-plugin-secrets-portkey/internal/apierror"
)

// What a source may do wrong: maxFailures at once, and one more each refillEvery.
// While it has done nothing wrong, maxAsking of its questions may be under way.
const (
	maxFailures = 20
	refillEvery = 2 * time.Second
	maxAsking   = 256
	maxSources  = 16_384
)

// failures bound how fast a source can try credentials: a trial takes a question to
// Vault, or a look into storage.
type failures struct {
	now     func() time.Time
	mu      sync.Mutex
	sources *lru.LRU[netip.Prefix, *suspect]
}

// suspect is what is known of one source.
type suspect struct {
	asking int
	failed float64 // at the time at; it shrinks by one each refillEvery
	at     time.Time
}

func newFailures(now func() time.Time) *failures {
	sources, err := lru.NewLRU[netip.Prefix, *suspect](maxSources, nil)
	if err != nil {
		panic("gateway: " + err.Error()) // the size is positive
	}
	return &failures{now: now, sources: sources}
}

// sourceBlock is whom an address counts for. A host has a whole /64 of IPv6.
func sourceBlock(a netip.Addr) netip.Prefix {
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits) // the zero prefix for the zero address
	return p
}

// begin lets a source try a credential, or says when it may. The trial must be
// ended, with whether the credential was wrong.
func (f *failures) begin(source netip.Addr) (end func(failed bool), err *apierror.Error) {
	key := sourceBlock(source)
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	s, ok := f.sources.Get(key)
	if !ok {
		s = &suspect{at: now}
		f.sources.Add(key, s)
	}
	s.settle(now)
	most := maxAsking
	if s.failed > 0 {
		most = int(maxFailures - s.failed)
	}
	if s.asking >= most {
		return nil, tooManyFailures()
	}
	s.asking++
	return func(failed bool) {
		f.mu.Lock()
		defer f.mu.Unlock()
		s.asking--
		if failed {
			s.settle(f.now())
			s.failed = min(s.failed+1, maxFailures)
		}
	}, nil
}

// settle brings failed to now.
func (s *suspect) settle(now time.Time) {
	if past := now.Sub(s.at); past > 0 {
		s.failed = max(s.failed-float64(past)/float64(refillEvery), 0)
	}
	s.at = now
}

func tooManyFailures() *apierror.Error {
	return &apierror.Error{
		Status: http.StatusTooManyRequests, Type: apierror.TypeRequests, Code: apierror.CodeTooManyFailures, RetryAfter: refillEvery,
		Message: "too many requests from this address were refused lately, so that no other credential is tried for the moment; use one that is valid, and try again shortly",
	}
}

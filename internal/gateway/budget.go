// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"vault-plugin-secrets-portkey/internal/apierror"
)

// What the bodies that a gateway holds may take together, in bytes. A stranger's body
// has to be read before Vault can say whether its sender is anybody, so strangers
// share a part, and each of their sources may take as much of that as one body of the
// largest size. Beside the large ones there is room for small ones, as nearly all are:
// of smallRoom for each source, and of smallBudget in all.
const (
	bodyBudget      = 1 << 30
	strangersBudget = bodyBudget / 4
	smallBudget     = strangersBudget / 4
	smallRoom       = 4 << 20
	smallBody       = 64 << 10
)

// pace is how slowly a body may come on the whole, in bytes a second, after a first
// bodyStart.
type pace int64

// Callers have all the time that a poor line takes. At a stranger's pace the default
// of max_body_bytes has come after five and a half minutes, and not after more than an
// hour; 20 MiB may come at two megabits a second.
const (
	callersPace   pace = 16 << 10
	strangersPace pace = 256 << 10
)

// byteBudget is a number of bytes that are in use.
type byteBudget struct{ used atomic.Int64 }

// take says whether n bytes more stay within bodyBudget; if so, they are in use.
func (b *byteBudget) take(n int64) bool {
	if b.used.Add(n) > bodyBudget {
		b.used.Add(-n)
		return false
	}
	return true
}

func (b *byteBudget) give(n int64) { b.used.Add(-n) }

// bodies are what the bodies of requests hold together. The zero value is ready, and
// safe for concurrent use.
type bodies struct {
	byteBudget // all

	mu        sync.Mutex
	strangers int64 // of that, what strangers hold
	sources   map[netip.Prefix]int64
}

// takeStrange is take for a stranger's source, which may hold up to most, and a little
// more for a body that is small so far.
func (b *bodies) takeStrange(source netip.Prefix, n, most int64, small bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	inAll := int64(strangersBudget - smallBudget)
	if small {
		inAll, most = strangersBudget, most+smallRoom
	}
	if b.strangers+n > inAll || b.sources[source]+n > most || !b.take(n) {
		return false
	}
	if b.sources == nil {
		b.sources = map[netip.Prefix]int64{}
	}
	b.strangers += n
	b.sources[source] += n
	return true
}

// admit makes n bytes of a stranger's count as other callers' do.
func (b *bodies) admit(source netip.Prefix, n int64) {
	if n == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.strangers -= n
	if b.sources[source] -= n; b.sources[source] == 0 {
		delete(b.sources, source)
	}
}

// share is what one request's body has of the budget. It is used by one goroutine at
// a time.
type share struct {
	of   *bodies
	held int64
	// stranger says that nobody has vouched for the sender yet: neither Vault, of late
	// (knownTokens), nor a ticket or a leased key. Large bodies of source may hold most.
	stranger bool
	source   netip.Prefix
	most     int64
}

// take takes n bytes. The error is the caller's answer.
func (s *share) take(n int64) *apierror.Error {
	var taken bool
	if s.stranger {
		taken = s.of.takeStrange(s.source, n, s.most, s.held+n <= smallBody)
	} else {
		taken = s.of.take(n)
	}
	if !taken {
		return crowded(s.stranger)
	}
	s.held += n
	return nil
}

// vouch ends the sender's being a stranger: Vault has said yes.
func (s *share) vouch() {
	if s.stranger {
		s.stranger = false
		s.of.admit(s.source, s.held)
	}
}

// release gives back what was taken.
func (s *share) release() {
	if s.stranger {
		s.of.admit(s.source, s.held)
	}
	s.of.give(s.held)
	s.held = 0
}

func (s *share) pace() pace {
	if s.stranger {
		return strangersPace
	}
	return callersPace
}

func crowded(stranger bool) *apierror.Error {
	message := "too many large bodies are on their way at once; try again shortly"
	if stranger {
		message = "too many large bodies are on their way from callers whom Vault hasn't let in of late, at this address or in all; " +
			"try again shortly, or send a small request first: once Vault has said yes to a token, its bodies have more room"
	}
	return &apierror.Error{
		Status: http.StatusServiceUnavailable, Type: apierror.TypeAPI, Code: apierror.CodeGatewayUnavailable, RetryAfter: time.Second,
		Message: message,
	}
}

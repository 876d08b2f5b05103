// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"crypto/sha256"
	"net/http"
	"net/url"
	"sync"
	"time"

	"vault-plugin-secrets-portkey/internal/apierror"
)

// A ticket lets one request in that Vault has judged on the inline path, within
// ticketTTL.
const (
	ticketTTL  = 10 * time.Second
	maxTickets = 65_536
)

type ticket struct {
	method, path, query string // path is below the mount
	body                digest
	caller              Caller
	expires             time.Time
}

type tickets struct {
	mu   sync.Mutex
	open map[digest]*ticket
}

// put makes a ticket; empty if there are too many.
func (t *tickets) put(v *ticket) string {
	text, key := newSecret()
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.open) >= maxTickets {
		return ""
	}
	if t.open == nil {
		t.open = map[digest]*ticket{}
	}
	t.open[key] = v
	return text
}

// take returns a ticket, once; nil if it isn't valid.
func (t *tickets) take(text string, now time.Time) *ticket {
	key := sha256.Sum256([]byte(text))
	t.mu.Lock()
	defer t.mu.Unlock()
	v := t.open[key]
	delete(t.open, key)
	if v == nil || !now.Before(v.expires) {
		return nil
	}
	return v
}

func (t *tickets) sweep(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, v := range t.open {
		if !now.Before(v.expires) {
			delete(t.open, key)
		}
	}
}

// Inline is a request on the inline path that might be redirected.
type Inline struct {
	// Method is GET, POST or DELETE; Path is where it goes, below the mount.
	Method, Path string
	// Query is the encoded query string of a GET or DELETE, Fields the body of a
	// POST as Vault decoded it.
	Query  string
	Fields map[string]any
	// TLS says that the caller is known to have come over TLS: false for one who came
	// to a standby, or to a proxy that ends TLS in front of Vault.
	TLS bool
	// Remote is the address that Vault takes for the caller's.
	Remote string
	Caller
}

// Redirect returns where the caller of an inline request is to repeat it, empty if
// the request should be answered where it is.
func (g *Gateway) Redirect(r *Inline) string {
	live := g.live.Load()
	if live == nil || live.Redirect == RedirectOff || g.calls.refuses() {
		return ""
	}
	if stream, _ := r.Fields["stream"].(bool); !stream && live.Redirect != RedirectAll {
		return ""
	}
	place := g.Place()
	if !live.maySend(r, place) {
		return ""
	}
	body, err := canonical(r.Fields)
	if err != nil {
		return ""
	}
	query := withoutCredentials(r.Query)
	text := g.tickets.put(&ticket{
		method: r.Method, path: r.Path, query: query, body: body,
		caller: r.Caller, expires: g.now().Add(ticketTTL),
	})
	if text == "" {
		return ""
	}
	location := place.URL + "/t/" + text + "/" + (&url.URL{Path: r.Path}).EscapedPath()
	if query != "" {
		location += "?" + query
	}
	return location
}

// maySend says whether the caller of r may be sent to p.
func (l *live) maySend(r *Inline, p Place) bool {
	switch {
	case p.URL == "":
		return false
	case p.OnlyHere() && !isLoopback(r.Remote):
		return false // the caller would take it for its own machine
	case !p.Plain:
		return true
	}
	// Never from https to http. It isn't known of everybody who came over https, so
	// all that may be plain is what doesn't leave the caller's machine.
	return p.Loopback && !r.TLS && isPlain(l.VaultAddress)
}

// accept takes the ticket of a request whose body hasn't been read yet. It is used up.
func (g *Gateway) accept(rt route, method, query string) (*ticket, *apierror.Error) {
	t := g.tickets.take(rt.ticket, g.now())
	if t == nil {
		return nil, badTicket("this ticket has been used, has expired, or never was")
	}
	if t.method != method || t.path != rt.below(rt.role) || t.query != query {
		return nil, badTicket("this ticket is for another request")
	}
	return t, nil
}

// match says whether the ticket is for this body.
func (t *ticket) match(b *body) *apierror.Error {
	var seen digest
	var err error
	switch {
	case b.object != nil:
		seen, err = canonicalText(b.object.Bytes())
	case b.upload() != nil:
		return badTicket("this ticket is for another body")
	default:
		seen, err = canonical(nil)
	}
	if err != nil || seen != t.body {
		return badTicket("this ticket is for another body")
	}
	return nil
}

func badTicket(why string) *apierror.Error {
	return &apierror.Error{
		Status: http.StatusForbidden, Type: apierror.TypeInvalidRequest, Code: apierror.CodeTicketInvalid,
		Message: why + "; send the request to Vault again, which gives a ticket for one identical request within " + ticketTTL.String(),
	}
}

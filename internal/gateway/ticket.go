// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"crypto/sha256"
	"net/http"
	"net/url"
	"strings"
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
	// TLS says that the caller is known to have come over TLS.
	TLS bool
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
	base := g.URL()
	if base == "" || strings.HasPrefix(base, "http:") && (r.TLS || strings.HasPrefix(live.VaultAddress, "https:")) {
		return "" // never from https to http
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
	location := base + "/t/" + text + "/" + (&url.URL{Path: r.Path}).EscapedPath()
	if query != "" {
		location += "?" + query
	}
	return location
}

// asVaultReads is a request that may come by redirect, with POST for PUT, which Vault
// takes for the same: its own command line sends it.
func asVaultReads(r *http.Request) *http.Request {
	if r.Method != http.MethodPut || !strings.HasPrefix(r.URL.Path, "/t/") {
		return r
	}
	post := *r
	post.Method = http.MethodPost
	return &post
}

// redeem returns who came with a ticket for this very request.
func (g *Gateway) redeem(rt route, method, query string, b *body) (Caller, *apierror.Error) {
	t := g.tickets.take(rt.ticket, g.now())
	if t == nil {
		return Caller{}, badTicket("this ticket has been used, has expired, or never was")
	}
	if t.method != method || t.path != rt.below(rt.role) || t.query != query {
		return Caller{}, badTicket("this ticket is for another request")
	}
	var seen digest
	var err error
	switch {
	case b.object != nil:
		seen, err = canonicalText(b.object.Bytes())
	case b.upload() != nil:
		return Caller{}, badTicket("this ticket is for another body")
	default:
		seen, err = canonical(nil)
	}
	if err != nil || seen != t.body {
		return Caller{}, badTicket("this ticket is for another body")
	}
	return t.caller, nil
}

func badTicket(why string) *apierror.Error {
	return &apierror.Error{
		Status: http.StatusForbidden, Type: apierror.TypeInvalidRequest, Code: apierror.CodeTicketInvalid,
		Message: why + "; send the request to Vault again, which gives a ticket for one identical request within " + ticketTTL.String(),
	}
}

// SPDX-License-Identifier: MPL-2.0

// Package gateway is the second front door: a listener of the plugin's own, which
// streams answers as they come and takes bodies byte for byte. It authorises
// callers and reads requests; the relay does the rest, as for the inline path.
//
// Vault stays the judge. For a caller with a Vault token, the gateway makes a
// nonce that counts once and sends it, with the caller's token, to the very path
// in Vault that the caller wants to use, with what policies look at of the request.
// Vault checks the token, its policies and quotas, audits, and calls the plugin,
// which recognises the nonce (Gateway.Testify). What Vault granted is kept for the
// time of a grant, and no longer than the token lives.
//
// Callers whom Vault has asked already bring a ticket, by redirect from the inline
// path, or a leased key. Only hashes of credentials are kept.
//
// The package knows nothing of roles, provider keys or storage: it asks a Mount.
package gateway

import (
	"context"
	"net/http"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"

	"vault-plugin-secrets-portkey/internal/apierror"
	"vault-plugin-secrets-portkey/internal/relay"
)

// Caller is who makes a request, in Vault's words.
type Caller struct {
	// Entity is the id of the caller's entity, DisplayName and Accessor are the
	// token's; each may be empty.
	Entity, DisplayName, Accessor string
	// Token is the token as plugins see it: salted for the mount.
	Token string
}

// Lease is what a leased key stands for.
type Lease struct {
	// Role is the virtual key that it works on.
	Role string
	Caller
}

// Mount is the mount that a gateway serves. It is safe for concurrent use.
type Mount interface {
	// Path is where the mount is in Vault, with a slash at its end; empty while
	// that isn't known.
	Path() string
	// Admits returns nil if this instance may take requests now.
	Admits(ctx context.Context) *apierror.Error
	// LeasedKey returns what a leased key stands for; nil if it isn't valid. Only if
	// lookUp is set is storage asked for one that isn't in memory.
	LeasedKey(ctx context.Context, key string, lookUp bool) (*Lease, *apierror.Error)
	// Request returns the relay's request for a caller whom Vault has admitted to
	// the virtual key called role: all but what the caller sends.
	Request(ctx context.Context, role string, caller Caller) (*relay.Request, *apierror.Error)
	// Prompt fills in a prompt template for a caller whom Vault has admitted to it, or
	// who brings a leased key. text is JSON: with a request, the body for the
	// provider, and the request is all but that and the caller's header; without one,
	// the answer.
	Prompt(ctx context.Context, call *PromptCall) (text []byte, req *relay.Request, err *apierror.Error)
}

// Options are a gateway's parameters.
type Options struct {
	Mount Mount
	Relay *relay.Relay
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Log takes a line for the operator, without what callers sent; nil drops it.
	Log func(message string)
}

// Gateway is one mount's gateway. It is off until Apply. It is safe for concurrent
// use.
type Gateway struct {
	mount    Mount
	relay    *relay.Relay
	now      func() time.Time
	listener *Listener
	live     atomic.Pointer[live] // nil while it is off

	nonces   nonces
	grants   grants
	sessions sessions
	asking   asking
	tickets  tickets
	failures *failures
	known    knownTokens
	bodies   bodies
	calls    calls
}

// New returns a gateway that is off.
func New(o Options) *Gateway {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = func(string) {}
	}
	g := &Gateway{mount: o.Mount, relay: o.Relay, now: o.Now, failures: newFailures(o.Now)}
	g.listener = NewListener(ListenerOptions{Handler: g, Log: o.Log, Now: o.Now})
	return g
}

// ServeHTTP implements http.Handler.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	live := g.live.Load()
	r = asVaultReads(r)
	a := newAnswer(w, r, live)
	if live == nil {
		a.refuse(off())
		return
	}
	if len(r.TransferEncoding) > 0 {
		// Had it a Content-Length too, which net/http keeps to itself, something
		// on the way may have read it otherwise (RFC 9112 §6.1).
		w.Header().Set("Connection", "close")
	}
	if err := g.serve(live, a, r); err != nil {
		live.cors.apply(a.Header(), r)
		switch err.Status {
		case http.StatusUnauthorized:
			a.Header().Set("WWW-Authenticate", "Bearer")
		case http.StatusMethodNotAllowed:
			a.Header().Set("Allow", proxyMethods)
		}
		a.refuse(err)
	}
	a.linger()
	a.end()
}

// serve answers a request, or returns the error that is the answer.
func (g *Gateway) serve(live *live, a *answer, r *http.Request) *apierror.Error {
	if isPreflight(r) {
		a.own()
		live.cors.preflight(a, r)
		return nil
	}
	rt, err := parseRoute(r, g.mount.Path())
	if err != nil {
		return err
	}
	switch rt.kind {
	case kindHealth, kindReady:
		a.own()
		g.health(a, r, rt.kind == kindReady)
		return nil
	}
	c := &call{gateway: g, live: live, answer: a, http: r, route: rt, share: share{of: &g.bodies}}
	ctx, err := g.calls.enter(r.Context(), &c.underway, live.MaxStreams)
	if err != nil {
		a.Header().Set("Connection", "close")
		a.hurried = true
		return err
	}
	defer g.calls.leave(&c.underway)
	if err := g.mount.Admits(ctx); err != nil {
		return err
	}
	defer c.release()
	return c.serve(ctx)
}

func off() *apierror.Error {
	return &apierror.Error{
		Status: http.StatusServiceUnavailable, Type: apierror.TypeAPI, Code: apierror.CodeGatewayUnavailable, RetryAfter: time.Second,
		Message: "the gateway is off here; ask the active Vault node",
	}
}

// health answers a load balancer, who gets no more than a word.
func (g *Gateway) health(w http.ResponseWriter, r *http.Request, ready bool) {
	status, text := http.StatusOK, "ok\n"
	switch {
	case ready && g.mount.Path() == "":
		status, text = http.StatusServiceUnavailable, "the mount path is not known yet\n"
	case ready && g.calls.refuses():
		status, text = http.StatusServiceUnavailable, "draining\n"
	case ready && g.mount.Admits(r.Context()) != nil:
		status, text = http.StatusServiceUnavailable, "unavailable\n"
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text))
}

// sourceOf is the address that a request comes from; the zero Addr if it has none.
func sourceOf(r *http.Request) netip.Addr {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return at.Addr().Unmap().WithZone("")
}

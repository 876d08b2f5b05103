// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Redirect says which requests on the inline path Vault sends on to the gateway.
type Redirect string

// The redirects.
const (
	RedirectStream Redirect = "stream" // those that ask for a stream
	RedirectAll    Redirect = "all"
	RedirectOff    Redirect = "off"
)

// Settings are a gateway's settings. They are immutable.
type Settings struct {
	Listen ListenConfig
	// PublicURL is how apps reach the gateway, without a slash at its end; empty
	// means the listener's address.
	PublicURL string
	// VaultAddress is the URL of the Vault API that the gateway asks, VaultCA its
	// certificate authorities as PEM (empty: the system's), VaultNamespace the
	// namespace of the mount.
	VaultAddress   string
	VaultCA        []byte
	VaultNamespace string
	// GrantTTL is how long Vault's word is kept; 0 asks it every time. ModelOnly
	// shows Vault no other values than the model.
	GrantTTL  time.Duration
	ModelOnly bool
	Redirect  Redirect
	// IgnoreCallerAddress accepts Vault's word although Vault doesn't know the
	// caller's address.
	IgnoreCallerAddress bool
	// AllowedOrigins are the web origins that browsers may call from.
	AllowedOrigins []string
	// MaxBodyBytes bounds a request's body, MaxStreams the requests under way.
	MaxBodyBytes int64
	MaxStreams   int
	// UpstreamTimeout bounds an exchange with the provider, IdleTimeout each wait
	// for it in an answer; the caller has up to twice that to take what is written.
	UpstreamTimeout, IdleTimeout time.Duration
}

// live are settings with what is made of them.
type live struct {
	Settings
	seed   [32]byte // of the keys of grants: those of other settings don't count
	public Place    // zero if PublicURL is empty
	vault  *vaultClient
	cors   *cors
}

// prepare checks all but Listen; the error names the setting that is wrong.
func (s *Settings) prepare() (*live, error) {
	public, err := publicPlace(s.PublicURL)
	if err != nil {
		return nil, err
	}
	cors, err := newCORS(s.AllowedOrigins)
	if err != nil {
		return nil, err
	}
	if strings.ContainsFunc(s.VaultNamespace, unicode.IsControl) {
		return nil, errors.New("vault_namespace: holds a control character, such as a line's end; write the namespace's path alone")
	}
	vault, err := newVaultClient(s.VaultAddress, s.VaultCA, s.VaultNamespace)
	if err != nil {
		return nil, err
	}
	return &live{Settings: *s, seed: secretBytes(), public: public, vault: vault, cors: cors}, nil
}

// Check returns what is wrong with the settings, nil for nothing.
func (s *Settings) Check() error {
	if err := s.Listen.Check(); err != nil {
		return err
	}
	_, err := s.prepare()
	return err
}

// checkURL takes URLs that stay what they are when a path is written behind them, and
// in a header.
func checkURL(field, text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || strings.ContainsAny(text, "?#") {
		return fmt.Errorf("%s: write a URL such as https://llm.example.com:8300, without user, query or fragment", field)
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return fmt.Errorf("%s: holds a space or a character that isn't ASCII; write a name as DNS has it (xn--…), and a path with %%-escapes", field)
	}
	if _, err := strconv.ParseUint(u.Port(), 10, 16); err != nil && u.Port() != "" {
		return fmt.Errorf("%s: the port isn't a number from 0 to 65535", field)
	}
	return nil
}

// isPlain says whether a URL is one of http.
func isPlain(text string) bool {
	scheme, _, _ := strings.Cut(text, ":")
	return strings.EqualFold(scheme, "http")
}

// Apply makes the gateway be as s says; nil turns it off. If it fails, all stays as
// it was. Requests under way go on, and a drain stays until the gateway is off.
func (g *Gateway) Apply(s *Settings) error {
	if s == nil {
		g.live.Store(nil)
		return g.listener.Apply(nil)
	}
	return g.ApplyIf(s, func() error { return nil })
}

// ApplyIf is Apply, but that s counts only if store returns nil, which is called
// when the gateway listens as s says. If it doesn't, all else has stayed as it was,
// and the gateway goes back to listening as before, as Start does; the error is
// store's.
func (g *Gateway) ApplyIf(s *Settings, store func() error) error {
	next, err := s.prepare()
	if err != nil {
		return err
	}
	if err := g.listener.Apply(&s.Listen); err != nil {
		return err
	}
	if err := store(); err != nil {
		g.listenAsBefore()
		return err
	}
	g.turnOn(next)
	return nil
}

// listenAsBefore makes the listener be as the settings in force say, whose
// certificate may have expired since they were applied.
func (g *Gateway) listenAsBefore() {
	if before := g.live.Load(); before != nil {
		g.listener.Start(&before.Listen)
		return
	}
	_ = g.listener.Apply(nil) // fails only where it is closed anyway
}

// Start is Apply at the instance's start: where the address is still in use, it
// goes on trying, and a certificate that has expired is no reason to be off.
func (g *Gateway) Start(s *Settings) error {
	next, err := s.prepare()
	if err != nil {
		return err
	}
	g.turnOn(next)
	g.listener.Start(&s.Listen)
	return nil
}

// turnOn makes the new settings count. What was granted under others is forgotten.
func (g *Gateway) turnOn(next *live) {
	if g.live.Swap(next) == nil { // a drain was of the time before
		g.Undrain()
	}
	g.grants.clear()
}

// Place is where apps reach a gateway.
type Place struct {
	// URL has no slash at its end; empty while the gateway is off or not listening.
	URL string
	// Plain says that it is one of http, Loopback that its host is whichever machine
	// uses it.
	Plain, Loopback bool
	// Assumed says that PublicURL is empty, and URL made of the listener's address.
	Assumed bool
}

// OnlyHere says that the URL leads to the gateway from its own machine alone, and
// that nobody said that this is as it should be.
func (p Place) OnlyHere() bool { return p.Assumed && p.Loopback }

func publicPlace(text string) (Place, error) {
	if text == "" {
		return Place{}, nil
	}
	if err := checkURL("public_url", text); err != nil {
		return Place{}, err
	}
	u, err := url.Parse(text)
	return Place{URL: strings.TrimSuffix(text, "/"), Plain: isPlain(text), Loopback: isLoopback(u.Hostname())}, err
}

// assumedPlace is that of a listener at address, as bound. One on all addresses is
// reached at localhost, as is one whose address has a zone, which no URL can hold.
func assumedPlace(address string, secure bool) Place {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return Place{}
	}
	if ip, err := netip.ParseAddr(host); err != nil || ip.Unmap().IsUnspecified() || ip.Zone() != "" {
		host = "localhost"
	}
	scheme := "http"
	if secure {
		scheme = "https"
	}
	return Place{URL: scheme + "://" + net.JoinHostPort(host, port), Plain: !secure, Loopback: isLoopback(host), Assumed: true}
}

// Place is where apps reach the gateway now.
func (g *Gateway) Place() Place {
	live, status := g.live.Load(), g.listener.Status()
	if live == nil || status.Address == "" {
		return Place{}
	}
	if live.public.URL != "" {
		return live.public
	}
	return assumedPlace(status.Address, len(live.Listen.Certificate) > 0)
}

// URL is Place's.
func (g *Gateway) URL() string { return g.Place().URL }

// Status is what an operator may know of a gateway.
type Status struct {
	ListenerStatus
	// On says that it is configured, Draining that it takes no new requests.
	On, Draining bool
	// Streams are the requests under way.
	Streams int64
}

// Status returns the state of the gateway.
func (g *Gateway) Status() Status {
	return Status{
		ListenerStatus: g.listener.Status(), On: g.live.Load() != nil,
		Draining: g.calls.refuses(), Streams: g.calls.count(),
	}
}

// Drain stops taking requests, and ends those that are still under way after
// timeout. It returns at once with their number.
func (g *Gateway) Drain(timeout time.Duration) int64 {
	g.calls.drain(&timeout)
	g.listener.SetDraining(true)
	return g.calls.count()
}

// Undrain takes requests again.
func (g *Gateway) Undrain() {
	g.calls.drain(nil)
	g.listener.SetDraining(false)
}

// tellGrace is how long requests that are ended have to tell their callers, before
// connections are closed.
const tellGrace = 250 * time.Millisecond

// Close ends the gateway for good: it takes no more requests, ends those under way,
// and waits for them until ctx ends.
func (g *Gateway) Close(ctx context.Context) {
	g.calls.close()
	tell, cancel := context.WithTimeout(ctx, tellGrace)
	g.calls.wait(tell)
	cancel()
	g.listener.Close(ctx)
	if l := g.live.Swap(nil); l != nil {
		l.vault.close()
	}
}

// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"
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
	// in an answer: for the provider, and for the caller to take it.
	UpstreamTimeout, IdleTimeout time.Duration
}

// live are settings with what is made of them.
type live struct {
	Settings
	seed  [32]byte // of the keys of grants: those of other settings don't count
	vault *vaultClient
	cors  *cors
}

// prepare checks all but Listen; the error names the setting that is wrong.
func (s *Settings) prepare() (*live, error) {
	if s.PublicURL != "" {
		if err := checkURL("public_url", s.PublicURL); err != nil {
			return nil, err
		}
	}
	cors, err := newCORS(s.AllowedOrigins)
	if err != nil {
		return nil, err
	}
	vault, err := newVaultClient(s.VaultAddress, s.VaultCA, s.VaultNamespace)
	if err != nil {
		return nil, err
	}
	return &live{Settings: *s, seed: secretBytes(), vault: vault, cors: cors}, nil
}

// Check returns what is wrong with the settings, nil for nothing.
func (s *Settings) Check() error {
	if err := s.Listen.Check(); err != nil {
		return err
	}
	_, err := s.prepare()
	return err
}

func checkURL(field, text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("%s: write a URL such as https://llm.example.com:8300, without user, query or fragment", field)
	}
	return nil
}

// Apply makes the gateway be as s says; nil turns it off. If it fails, all stays as
// it was. Requests under way go on.
func (g *Gateway) Apply(s *Settings) error {
	if s == nil {
		g.live.Store(nil)
		return g.listener.Apply(nil)
	}
	next, err := s.prepare()
	if err != nil {
		return err
	}
	if err := g.listener.Apply(&s.Listen); err != nil {
		return err
	}
	g.turnOn(next)
	return nil
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
	g.live.Store(next)
	g.grants.clear()
	g.calls.drain(nil)
	g.listener.SetDraining(false)
}

// URL is how apps reach the gateway, without a slash at its end; empty while it
// is off or not listening.
func (g *Gateway) URL() string {
	live, status := g.live.Load(), g.listener.Status()
	if live == nil || status.Address == "" {
		return ""
	}
	if live.PublicURL != "" {
		return strings.TrimSuffix(live.PublicURL, "/")
	}
	scheme := "http"
	if len(live.Listen.Certificate) > 0 {
		scheme = "https"
	}
	host, port, err := net.SplitHostPort(status.Address)
	if err != nil {
		return ""
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		host = "localhost"
	}
	return scheme + "://" + net.JoinHostPort(host, port)
}

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

// SPDX-License-Identifier: MPL-2.0

package provider

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Target is a provider as one provider key reaches it. It comes from Resolve,
// is immutable, and is safe for concurrent use. No verb of fmt prints its
// secret, so that a target in a log line is harmless.
type Target struct {
	provider *Provider
	base     *url.URL
	// secret returns the API key, or "" for none. It is a function because fmt
	// prints strings that it finds inside other values, whatever methods the
	// types have; a function it can't look into.
	secret  func() string
	masks   func() []Mask   // what Masks returns
	bearer  func() []string // the header's value for SchemeBearer
	headers []header
}

// header is one header to send; the name is canonical.
type header struct{ name, value string }

// Provider returns the catalogue's entry behind t.
func (t *Target) Provider() *Provider { return t.provider }

// Base returns a copy of the base URL: its scheme is http, https or
// URLSchemeSandbox, its host is in lower case, it has no trailing slash, user,
// query or fragment.
func (t *Target) Base() *url.URL {
	u := *t.base
	return &u
}

// Endpoint is one place at a provider that a request can be sent to. It is
// the caller's; Authenticate doesn't change it.
type Endpoint struct {
	// URL is the caller's to change.
	URL *url.URL
	// Format is the wire format spoken there; empty for a probe.
	Format string

	auth   Auth
	target *Target
}

// Locate maps a provider path as an app names it to the upstream URL. The path
// has no leading slash and is already URL-decoded; rawQuery is attached as
// given and must have been checked by the caller. Errors wrap ErrBadPath for a
// path that isn't safe, or are a *NoRouteError.
func (t *Target) Locate(path, rawQuery string) (*Endpoint, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	for i := range t.provider.Routes {
		r := &t.provider.Routes[i]
		rest, ok := r.rest(path)
		if !ok {
			continue
		}
		auth := t.provider.Auth
		if r.Auth != nil {
			auth = *r.Auth
		}
		e := t.endpoint(r.To+rest, auth)
		e.URL.RawQuery = rawQuery
		e.Format = r.Format
		return e, nil
	}
	return nil, t.noRoute(path)
}

// endpoint appends a path, already checked, to the base URL.
func (t *Target) endpoint(path string, auth Auth) *Endpoint {
	u := t.Base()
	u.Path += path
	return &Endpoint{URL: u, auth: auth, target: t}
}

func (t *Target) noRoute(path string) error {
	prefixes := make([]string, len(t.provider.Routes))
	for i := range t.provider.Routes {
		prefixes[i] = t.provider.Routes[i].Prefix
	}
	slices.Sort(prefixes)
	return &NoRouteError{Provider: t.provider.ID, Path: path, Prefixes: prefixes}
}

// Authenticate sets the provider's authentication, its fixed headers and the
// key's own headers on h, whose keys must be canonical. What h holds are the
// headers of the caller that the relay lets through: they win over the
// provider's fixed headers and lose to everything else. Whatever carries
// credentials in h is removed first.
func (e *Endpoint) Authenticate(h http.Header) {
	for name := range h {
		if carriesCredential(name) {
			delete(h, name)
		}
	}
	for name, value := range e.target.provider.Headers {
		if len(h[name]) == 0 {
			h[name] = []string{value}
		}
	}
	for _, own := range e.target.headers {
		h[own.name] = []string{own.value}
	}
	secret := e.target.secret()
	if secret == "" {
		return
	}
	switch e.auth.Scheme {
	case SchemeBearer:
		h["Authorization"] = e.target.bearer()
	case SchemeHeader:
		h[e.auth.Header] = []string{secret}
	case SchemeNone:
	}
}

// bearerOf is the value of an Authorization header, made once. It is a function as
// Target.secret is.
func bearerOf(secret string) func() []string {
	value := []string{"Bearer " + secret}
	return func() []string { return value[:1:1] }
}

// WithoutSecret returns an endpoint whose Authenticate sets everything but the
// credential: the control beside a probe, which shows whether the probe's
// answer depends on the key at all.
func (e *Endpoint) WithoutSecret() *Endpoint {
	u := *e.URL
	return &Endpoint{URL: &u, Format: e.Format, auth: Auth{Scheme: SchemeNone}, target: e.target}
}

// Probe returns the request that shows whether the key is good: its method,
// where it goes, its JSON body (nil for none; the copy is the caller's), and
// which statuses mean that the key was accepted. A status that is neither
// accepted nor Refused says nothing of the key.
func (t *Target) Probe() (method string, e *Endpoint, body []byte, accepts func(status int) bool) {
	v := &t.provider.Verify
	accepts = func(status int) bool {
		return status >= 200 && status <= 299 || slices.Contains(v.Valid, status)
	}
	return v.Method, t.endpoint(v.Path, t.provider.Auth), bytes.Clone(v.Body), accepts
}

// Refused reports whether this status, in answer to the probe, means that the
// provider refused the key.
func (t *Target) Refused(status int) bool {
	return status == http.StatusUnauthorized || status == http.StatusForbidden || slices.Contains(t.provider.Verify.Refused, status)
}

// Redactions returns the spellings of the secret that must not appear in what
// a provider answers: as it is, and JSON-escaped and URL-escaped where that
// differs; longest first, none when there is no secret. The slice is the
// caller's.
func (t *Target) Redactions() []string {
	secret := t.secret()
	if secret == "" {
		return nil
	}
	return spellings(secret)
}

// Mask is one spelling of the secret that must not appear in what a provider
// answers.
type Mask struct {
	Text []byte // never empty
	// Rare is the index in Text of a byte that answers seldom have, so that a search
	// for Text has few places to look at.
	Rare int
}

// NewMask returns the mask of a spelling, which must not be empty.
func NewMask(spelling string) Mask {
	m := Mask{Text: []byte(spelling)}
	for i, c := range m.Text {
		if commonness(c) < commonness(m.Text[m.Rare]) {
			m.Rare = i
		}
	}
	return m
}

// commonness ranks bytes by how often they are in JSON with English text: the more
// often the higher.
func commonness(c byte) int {
	return 1 + strings.IndexByte("QZXJVKYWUGPBFHMRNDLSOICTEA~^%#=@!;$&*'+?/<>|\\()[]{}98765342_-jzqx10.,:vkbgwpyfmcu\"ldhrsnioate ", c)
}

// Masks is Redactions for a search, made once. The caller must not change them.
func (t *Target) Masks() []Mask { return t.masks() }

func masksOf(secret string) func() []Mask {
	var masks []Mask
	if secret != "" {
		for _, s := range spellings(secret) {
			masks = append(masks, NewMask(s))
		}
	}
	return func() []Mask { return masks }
}

func spellings(secret string) []string {
	plain := jsonEscape(secret, false)
	all := []string{
		secret,
		plain,
		jsonEscape(secret, true),
		// Some encoders, PHP's among them, escape slashes too.
		strings.ReplaceAll(plain, "/", `\/`),
		url.QueryEscape(secret),
		url.PathEscape(secret),
	}
	slices.SortFunc(all, func(a, b string) int {
		if len(a) != len(b) {
			return len(b) - len(a)
		}
		return strings.Compare(a, b)
	})
	return slices.Compact(all)
}

// jsonEscape returns s as it stands between the quotes of a JSON string. A
// secret is ASCII, so that encoding can't fail.
func jsonEscape(s string, html bool) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(html)
	_ = enc.Encode(s)
	return strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(b.String()), `"`), `"`)
}

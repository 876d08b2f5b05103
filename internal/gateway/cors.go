// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// maxOrigins bounds the list of allowed origins, and maxAskedHeaders, in bytes,
// the names of headers that a preflight may ask for.
const (
	maxOrigins      = 100
	maxAskedHeaders = 4096
)

// corsMaxAge is how long, in seconds, a browser may keep a preflight's answer.
const corsMaxAge = "600"

// exposedHeaders are those of an answer that a page may read besides the ones
// that every page may (https://fetch.spec.whatwg.org/#cors-safelisted-response-header-name).
const exposedHeaders = "Retry-After, X-Should-Retry, X-Request-Id, " +
	"X-Portkey-Trace-Id, X-Portkey-Capped, X-Portkey-Cost, X-Portkey-Usage, " +
	"X-Ratelimit-Limit-Requests, X-Ratelimit-Remaining-Requests, X-Ratelimit-Reset-Requests, " +
	"X-Ratelimit-Limit-Tokens, X-Ratelimit-Remaining-Tokens, X-Ratelimit-Reset-Tokens"

// cors says which web pages may use the gateway from a browser
// (https://fetch.spec.whatwg.org/#http-cors-protocol). Pages have to send the
// credential themselves: cookies and the like are never allowed. The zero value
// and nil allow no page. It is immutable and safe for concurrent use.
type cors struct {
	origins []string // exact; or "*" alone
}

// newCORS takes the origins as browsers send them, such as
// https://app.example.com or http://localhost:3000, or "*" alone for every
// page. The error is the user's.
func newCORS(origins []string) (*cors, error) {
	if len(origins) > maxOrigins {
		return nil, fmt.Errorf("allowed_origins has %d items; the most is %d", len(origins), maxOrigins)
	}
	for i, origin := range origins {
		if origin == "*" {
			if len(origins) > 1 {
				return nil, errors.New(`allowed_origins: "*" allows every origin; leave it out, or the others`)
			}
			continue
		}
		if err := checkOrigin(origin); err != nil {
			return nil, fmt.Errorf("allowed_origins: item %d %w", i+1, err) // it isn't shown, for it may be a secret in the wrong place
		}
	}
	return &cors{origins: slices.Clone(origins)}, nil
}

// checkOrigin accepts what a browser can send as an origin: the serialisation
// of RFC 6454 §6.2. Another spelling of the same would never match.
func checkOrigin(origin string) error {
	if origin == "null" {
		return errors.New("is the origin of every sandboxed page and local file; it can't be allowed by itself")
	}
	u, err := url.Parse(origin)
	if err != nil || u.Scheme == "" || u.Host == "" || u.Hostname() == "" {
		return errors.New("is no origin; write scheme and host, and the port if there is one, such as https://app.example.com:8443")
	}
	switch {
	case u.User != nil || strings.ContainsAny(origin, "?#") || strings.Count(origin, "/") > 2:
		return errors.New("has more than scheme, host and port; leave out user, path and a slash at the end")
	case strings.Contains(origin, "*"):
		return errors.New(`holds a "*"; list each origin, or "*" alone for every one`)
	case origin != strings.ToLower(origin):
		return errors.New("must be in lower case, as browsers send it")
	case strings.ContainsFunc(origin, func(r rune) bool { return r <= ' ' || r > '~' || r == '%' || r == ',' }):
		return errors.New("holds a character that no origin has; write an international name as browsers send it, beginning with xn--")
	case strings.HasSuffix(u.Host, ":"), u.Scheme == "https" && u.Port() == "443", u.Scheme == "http" && u.Port() == "80":
		return errors.New("gives the port that its scheme has anyway, which browsers leave out; leave it out too")
	}
	return nil
}

// isPreflight says whether r is a CORS preflight.
func isPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && len(r.Header["Origin"]) > 0 && r.Header.Get("Access-Control-Request-Method") != ""
}

// preflight answers a preflight. It needs no credential: browsers send none with
// it. A page that isn't allowed is told nothing. It must come before parseRoute.
func (c *cors) preflight(w http.ResponseWriter, r *http.Request) {
	allowed := c.allowed(r)
	if allowed == "" {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", allowed)
	h.Add("Vary", "Origin")
	h.Set("Access-Control-Allow-Methods", proxyMethods)
	if names := headerNames(r.Header["Access-Control-Request-Headers"]); names != "" {
		h.Set("Access-Control-Allow-Headers", names)
	}
	h.Set("Access-Control-Max-Age", corsMaxAge)
	w.WriteHeader(http.StatusNoContent)
}

// apply lets the page that sent r read the answer whose headers h are, if its
// origin is allowed. Whoever copies a provider's headers to h must add to Vary
// and not replace it, and leave out the provider's own Access-Control-*.
func (c *cors) apply(h http.Header, r *http.Request) {
	if c == nil || len(c.origins) == 0 {
		return
	}
	if c.origins[0] != "*" {
		h.Add("Vary", "Origin") // also where it isn't allowed, for caches
	}
	if allowed := c.allowed(r); allowed != "" {
		h.Set("Access-Control-Allow-Origin", allowed)
		h.Set("Access-Control-Expose-Headers", exposedHeaders)
	}
}

// allowed is the value of Access-Control-Allow-Origin for r; empty if its
// origin isn't allowed.
func (c *cors) allowed(r *http.Request) string {
	origin := r.Header["Origin"]
	switch {
	case c == nil || len(origin) != 1:
		return ""
	case len(c.origins) == 1 && c.origins[0] == "*":
		return "*"
	case slices.Contains(c.origins, origin[0]):
		return origin[0]
	}
	return ""
}

// headerNames is the list of header names in values, if it is one that can be
// repeated in an answer; else empty.
func headerNames(values []string) string {
	list := strings.Join(values, ",")
	if len(list) > maxAskedHeaders {
		return ""
	}
	for name := range strings.SplitSeq(list, ",") {
		if !isHeaderName(strings.Trim(name, " \t")) {
			return ""
		}
	}
	return list
}

// isHeaderName says whether s is a token of RFC 9110 §5.6.2.
func isHeaderName(s string) bool {
	for i := range len(s) {
		if !isWord(s[i]) && strings.IndexByte("!#$%&'*+-.^`|~", s[i]) < 0 {
			return false
		}
	}
	return s != ""
}

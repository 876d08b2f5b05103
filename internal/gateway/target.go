// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"vault-plugin-secrets-portkey/internal/apierror"
)

// The methods of each kind of route, as the header Allow lists them.
const (
	proxyMethods  = "GET, POST, DELETE"
	healthMethods = "GET, HEAD"
)

// maxPath bounds the path of a request as it was sent, in bytes.
const maxPath = 4096

func checkMethod(method string, health bool) *apierror.Error {
	allowed := proxyMethods
	switch {
	case health && (method == http.MethodGet || method == http.MethodHead):
		return nil
	case health:
		allowed = healthMethods
	case method == http.MethodGet || method == http.MethodPost || method == http.MethodDelete:
		return nil
	}
	return &apierror.Error{
		Status: http.StatusMethodNotAllowed, Type: apierror.TypeInvalidRequest, Code: apierror.CodeMethodNotAllowed,
		Message: fmt.Sprintf("method %.20q is not served here; use one of %s", method, allowed),
	}
}

// asVaultReads is a request with POST for PUT where an app of Vault's may send it,
// which takes the one for the other: its own command line writes by PUT. That is below
// a mount, and where Vault has redirected to.
func asVaultReads(r *http.Request) *http.Request {
	if r.Method != http.MethodPut {
		return r
	}
	below, found := strings.CutPrefix(r.URL.Path, "/v1/")
	if found && isBelowMount(http.MethodPost, below) || strings.HasPrefix(r.URL.Path, "/t/") {
		post := *r
		post.Method = http.MethodPost
		return &post
	}
	return r
}

// checkUpgrade refuses to change protocols. An offer of h2c is passed over, as
// RFC 9110 §7.8 lets a server do: Java's HTTP client makes it with every first
// request and is content with HTTP/1.1.
func checkUpgrade(values []string) *apierror.Error {
	for _, value := range values {
		for protocol := range strings.SplitSeq(value, ",") {
			if protocol = strings.Trim(protocol, " \t"); protocol != "" && !strings.EqualFold(protocol, "h2c") {
				return badRequest("", "upgrades such as WebSocket are not supported; leave the header Upgrade out")
			}
		}
	}
	return nil
}

// checkTarget makes sure that r.URL.Path is what the caller's bytes say, that
// nothing was lost in decoding them, and that the query string is one that
// every reader splits and decodes alike.
func checkTarget(r *http.Request) *apierror.Error {
	raw, _, _ := strings.Cut(r.RequestURI, "?")
	if !strings.HasPrefix(raw, "/") {
		return badRequest("", "the request target must be a path such as /v1/chat/completions; the gateway is no forward proxy, so set it as base URL and not as HTTP_PROXY")
	}
	if len(raw) > maxPath {
		return &apierror.Error{
			Status: http.StatusRequestURITooLong, Type: apierror.TypeInvalidRequest, Code: apierror.CodeRequestTooLarge,
			Message: fmt.Sprintf("the path is longer than %d bytes", maxPath),
		}
	}
	if strings.Contains(raw, "%2f") || strings.Contains(raw, "%2F") {
		return badRequest("", "the path holds an encoded slash, which servers read in different ways")
	}
	if decoded, err := url.PathUnescape(raw); err != nil || decoded != r.URL.Path {
		return badRequest("", "the path is not correctly percent-encoded")
	}
	return checkQuery(r.URL.RawQuery)
}

func checkQuery(raw string) *apierror.Error {
	for i := range len(raw) {
		if c := raw[i]; c <= ' ' || c > '~' || c == '#' || c == ';' {
			return badRequest("", fmt.Sprintf("the query string holds the byte %q; percent-encode it", c))
		}
	}
	if _, err := url.ParseQuery(raw); err != nil {
		return badRequest("", "the query string is not correctly percent-encoded")
	}
	return nil
}

// checkPath judges a decoded path without its leading slash. It may hold what
// RFC 3986 §3.3 allows in a segment, but no semicolon, which some servers cut
// parameters off at. So '%', '\', '?', '#', spaces, control characters and
// whatever isn't ASCII can't be in it, encoded once or twice.
func checkPath(path string) *apierror.Error {
	for i := range len(path) {
		if !isPathByte(path[i]) {
			return badRequest("", fmt.Sprintf("the path holds %q, which no provider's path has", path[i:i+1]))
		}
	}
	if path == "" {
		return noRoute("there is nothing at this path; the gateway serves /v1/<mount>/proxy/<virtual key>/<provider path> and the providers' own paths, such as /v1/chat/completions")
	}
	for segment := range strings.SplitSeq(path, "/") {
		// Some servers drop trailing dots, so that "..." could be "..".
		if strings.Trim(segment, ".") == "" {
			return badRequest("", "the path ends with a slash, or holds two in a row or a segment of dots")
		}
	}
	return nil
}

func isPathByte(c byte) bool {
	return isWord(c) || strings.IndexByte("/-.~!$&'()*+,=:@", c) >= 0
}

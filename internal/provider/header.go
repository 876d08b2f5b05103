// SPDX-License-Identifier: MPL-2.0

package provider

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// maxHeaderValue bounds a header's value, in bytes; common servers take 8 KiB
// for all headers together.
const maxHeaderValue = 4096

// carriesCredential reports whether services read credentials from a header
// of this name, in any letter case. It works on the words of the name, so that
// it also knows names that no list has (X-Corp-Auth-Token). It doesn't allocate.
func carriesCredential(name string) bool {
	before := ""
	for rest := name; rest != ""; {
		end := 0
		for end < len(rest) && rest[end] != '-' && rest[end] != '_' {
			end++
		}
		word := rest[:end]
		rest = rest[min(end+1, len(rest)):]
		if equalsAny(word, "authorization", "auth", "apikey", "cookie", "cookie2", "token", "secret", "password", "credential", "credentials") {
			return true
		}
		// "key" alone is no credential.
		if equalsAny(word, "key") && equalsAny(before, "api", "access", "subscription") {
			return true
		}
		before = word
	}
	return false
}

// controlledByRelay reports whether a header of this canonical name describes
// the connection or the message, and so can't be set from outside: RFC 9110
// §7.6.1 and what the relay decides itself.
func controlledByRelay(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
		// With either of these the transport would send a POST again on its own.
		"Idempotency-Key", "X-Idempotency-Key",
		"Host", "Expect", "Content-Length", "Content-Type", "Content-Encoding", "Accept-Encoding":
		return true
	}
	return false
}

// checkHeader returns the canonical form of name if a header of that name and
// value may be sent upstream. Errors don't hold the value.
func checkHeader(name, value string) (string, error) {
	if !isHeaderName(name) {
		return "", fmt.Errorf("header %q is no valid header name: use letters, digits and hyphens", name)
	}
	canonical := http.CanonicalHeaderKey(name)
	switch {
	case carriesCredential(canonical):
		return "", fmt.Errorf("header %q carries credentials: give the provider's key as api_key instead", name)
	case controlledByRelay(canonical):
		return "", fmt.Errorf("header %q is set by the plugin itself: leave it out", name)
	case strings.HasPrefix(canonical, "X-Vault-"), strings.HasPrefix(canonical, "X-Portkey-"):
		return "", fmt.Errorf("header %q is for Vault or this plugin and is never sent to a provider: leave it out", name)
	}
	if err := checkHeaderValue(value); err != nil {
		return "", fmt.Errorf("header %q: %w", name, err)
	}
	return canonical, nil
}

func checkHeaderValue(value string) error {
	switch {
	case value == "":
		return errors.New("its value is empty: leave the header out")
	case len(value) > maxHeaderValue:
		return fmt.Errorf("its value is longer than %d bytes", maxHeaderValue)
	case value[0] == ' ' || value[len(value)-1] == ' ':
		return errors.New("its value starts or ends with a space")
	}
	for i := range len(value) {
		if value[i] < ' ' || value[i] > '~' {
			return errors.New("its value holds a line break, a control character or a character outside ASCII")
		}
	}
	return nil
}

// isHeaderName reports whether s is a token of RFC 9110 §5.6.2.
func isHeaderName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !isAlphanumeric(c) && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return false
		}
	}
	return s != "" && len(s) <= 128
}

func isAlphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

func equalsAny(s string, words ...string) bool {
	for _, w := range words {
		if len(s) == len(w) && strings.EqualFold(s, w) { // header names are ASCII
			return true
		}
	}
	return false
}

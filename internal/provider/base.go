// SPDX-License-Identifier: MPL-2.0

package provider

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// maxBase bounds a base URL, in bytes.
const maxBase = 2048

// parseBase reads a base URL in the one form that all readers of URLs agree
// on, and normalises it: host in lower case, no trailing slash. Errors don't
// hold the URL, because people do put keys into URLs.
func parseBase(raw string, schemes ...string) (*url.URL, error) {
	if err := checkBaseText(raw); err != nil {
		return nil, err
	}
	u, err := url.Parse(raw)
	if err != nil {
		return nil, errors.New("base_url is no valid URL: give one such as https://llm.example.com/v1")
	}
	switch {
	case !slices.Contains(schemes, u.Scheme):
		return nil, fmt.Errorf("base_url must start with %s", strings.Join(schemes, ":// or ")+"://")
	case u.User != nil:
		return nil, errors.New("base_url holds a user name or password: remove it, and give the credential as api_key")
	case u.Opaque != "" || u.Hostname() == "":
		return nil, errors.New("base_url has no host: give one such as https://llm.example.com/v1")
	}
	if err := checkHost(u); err != nil {
		return nil, err
	}
	u.Host = strings.ToLower(u.Host)
	u.Path = strings.TrimRight(u.Path, "/")
	if u.Path != "" {
		if err := checkPath(u.Path[1:]); err != nil {
			return nil, fmt.Errorf("base_url has a path that can't be used: %w", err)
		}
	}
	return u, nil
}

func checkBaseText(raw string) error {
	if len(raw) > maxBase {
		return fmt.Errorf("base_url is longer than %d bytes", maxBase)
	}
	for _, r := range raw {
		if r <= ' ' || r == 0x7f || r == '\\' {
			return errors.New("base_url holds a space, a control character or a backslash: remove it")
		}
	}
	if strings.Contains(raw, "?") {
		return errors.New("base_url holds a query (after '?'): remove it")
	}
	if strings.Contains(raw, "#") {
		return errors.New("base_url holds a fragment (after '#'): remove it")
	}
	if strings.Contains(raw, "%") {
		return errors.New("base_url holds a percent sign: give it without URL encoding")
	}
	return nil
}

func checkHost(u *url.URL) error {
	// In brackets url.Parse takes nothing but an IPv6 address.
	if !strings.HasPrefix(u.Host, "[") && !isHostname(u.Hostname()) {
		return errors.New("base_url has an invalid host name: use letters, digits, dots and hyphens (international names in their xn-- form), without a dot at the end")
	}
	if strings.HasSuffix(u.Host, ":") {
		return errors.New("base_url has a colon without a port after its host")
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return errors.New("base_url has a port outside 1 to 65535")
		}
	}
	return nil
}

func isHostname(host string) bool {
	for label := range strings.SplitSeq(host, ".") {
		if !isLabel(label) {
			return false
		}
	}
	return len(host) <= 253
}

// isLabel reports whether s can be one label of a host name, or one segment of
// a path: nothing in it can end a host or start a path.
func isLabel(s string) bool {
	for i := range len(s) {
		if !isAlphanumeric(s[i]) && s[i] != '-' && s[i] != '_' {
			return false
		}
	}
	return s != "" && len(s) <= 63
}

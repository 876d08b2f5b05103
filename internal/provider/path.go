// SPDX-License-Identifier: MPL-2.0

package provider

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxPath bounds a provider path, in bytes.
const maxPath = 2048

// ErrBadPath is what Locate's errors wrap for a path that isn't safe to send
// to any provider.
var ErrBadPath = errors.New("invalid provider path")

// NoRouteError says that a provider has no route for a path.
type NoRouteError struct {
	// Provider is the provider's id.
	Provider string
	// Path is the path that was asked for; it passed the checks of ErrBadPath.
	Path string
	// Prefixes are the paths that the provider has, sorted.
	Prefixes []string
}

func (e *NoRouteError) Error() string {
	return fmt.Sprintf("provider %q has no route for %q; it has %s and what is below", e.Provider, e.Path, strings.Join(e.Prefixes, ", "))
}

// checkPath refuses whatever two readers of a path could understand
// differently. The path is already URL-decoded, so a '%' is either a second
// encoding or an attempt at one.
func checkPath(path string) error {
	switch {
	case path == "":
		return fmt.Errorf("%w: it is empty", ErrBadPath)
	case len(path) > maxPath:
		return fmt.Errorf("%w: it is longer than %d bytes", ErrBadPath, maxPath)
	case !utf8.ValidString(path):
		return fmt.Errorf("%w: it is not valid UTF-8", ErrBadPath)
	}
	for _, r := range path {
		switch {
		case unicode.IsControl(r):
			return fmt.Errorf("%w: it holds a control character", ErrBadPath)
		case r == '\\' || r == '%' || r == '?' || r == '#':
			return fmt.Errorf("%w: it holds %q, which no provider's path has", ErrBadPath, r)
		}
	}
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "" {
			return fmt.Errorf("%w: it starts or ends with a slash, or has two in a row", ErrBadPath)
		}
		if isDots(segment) {
			return fmt.Errorf("%w: it holds the segment %q", ErrBadPath, segment)
		}
	}
	return nil
}

// isDots reports whether a server could read the segment as "." or "..":
// some drop path parameters (";x") and some drop trailing dots and spaces.
func isDots(segment string) bool {
	name, _, _ := strings.Cut(segment, ";")
	return strings.Trim(name, ". ") == ""
}

// rest returns what is left of path after the route's prefix: empty, or with a
// leading slash.
func (r *Route) rest(path string) (string, bool) {
	rest, ok := strings.CutPrefix(path, r.Prefix)
	if !ok || rest != "" && rest[0] != '/' {
		return "", false
	}
	return rest, true
}

// SPDX-License-Identifier: MPL-2.0

package wire

import (
	"errors"
	"fmt"
	"strings"
)

// formParam is a parameter of a header: `name=value`, or `name="value"`, where
// value is the text between the quotes as it stands there.
type formParam struct {
	name, value string
	quoted      bool
}

// nextParam cuts the first parameter off s, which begins with its semicolon. It
// takes what clients write: at most one space, and only after the semicolon.
func nextParam(s string) (p formParam, rest string, err error) {
	s, ok := strings.CutPrefix(s, ";")
	s = strings.TrimPrefix(s, " ")
	n := token(s)
	if !ok || n == 0 || n == len(s) || s[n] != '=' {
		return p, "", errors.New("has parameters that are not of the form `; name=value`")
	}
	p.name, s = s[:n], s[n+1:]
	if strings.HasPrefix(s, `"`) {
		return quotedParam(p, s[1:])
	}
	n = token(s)
	p.value, rest = s[:n], s[n:]
	// Python's email package ends a value at what RFC 8187 has a meaning for.
	odd := strings.ContainsAny(p.value, "*'%") && !strings.HasSuffix(p.name, "*")
	if n == 0 || odd || rest != "" && rest[0] != ';' {
		return p, "", fmt.Errorf("has a parameter %.64q whose value must be in quotes", p.name)
	}
	return p, rest, nil
}

// quotedParam reads p's value from s, which begins after the opening quote. For
// some readers a backslash escapes what follows, for others (WHATWG HTML,
// multipart/form-data encoding) it doesn't; a quote after one ends the value for
// the latter only.
func quotedParam(p formParam, s string) (formParam, string, error) {
	var rest string
	var ok bool
	if p.value, rest, ok = strings.Cut(s, `"`); !ok {
		return p, "", fmt.Errorf("has a parameter %.64q with no closing quote", p.name)
	}
	p.quoted = true
	if slashes := len(p.value) - len(strings.TrimRight(p.value, `\`)); slashes%2 == 1 {
		return p, "", fmt.Errorf(`has a parameter %.64q with a quote after a backslash; write a quote as %%22`, p.name)
	}
	if rest != "" && rest[0] != ';' {
		return p, "", fmt.Errorf("has a parameter %.64q with something after its closing quote", p.name)
	}
	return p, rest, nil
}

// isToken says whether c may stand in a token (RFC 9110 §5.6.2).
func isToken(c byte) bool {
	switch {
	case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
		return true
	}
	return strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// token returns the length of the token at the beginning of s.
func token(s string) int {
	for i := range len(s) {
		if !isToken(s[i]) {
			return i
		}
	}
	return len(s)
}

// parseFormType reads the boundary from a form's Content-Type header, and
// whether it is in quotes. Types are case-insensitive (RFC 9110 §8.3.1), but a
// reader that compares them otherwise would take the body for something else.
func parseFormType(value string) (boundary string, quoted bool, err error) {
	rest, ok := strings.CutPrefix(value, "multipart/form-data")
	if !ok || rest != "" && rest[0] != ';' {
		return "", false, errors.New("it must begin with multipart/form-data; boundary=")
	}
	charset := false
	for rest != "" {
		var p formParam
		if p, rest, err = nextParam(rest); err != nil {
			return "", false, fmt.Errorf("it %w", err)
		}
		switch {
		case p.name == "boundary" && boundary == "":
			if boundary, quoted = p.value, p.quoted; !isBoundary(boundary) {
				return "", false, errors.New("its boundary must be 1 to 70 letters, digits and ()+_-./:=?")
			}
		case p.name == "charset" && strings.EqualFold(p.value, "utf-8") && !charset:
			charset = true
		default:
			return "", false, fmt.Errorf("its parameter %.64q may not stand there; only a boundary and charset=utf-8 may, once", p.name)
		}
	}
	if boundary == "" {
		return "", false, errors.New("it has no boundary")
	}
	return boundary, quoted, nil
}

// isBoundary says whether s is a boundary (RFC 2046 §5.1.1) without spaces and
// commas, at which some readers cut a header, and without single quotes, which
// some take for those of RFC 8187.
func isBoundary(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && strings.IndexByte("()+_-./:=?", c) < 0 {
			return false
		}
	}
	return len(s) >= 1 && len(s) <= 70
}

// checkPartType checks the Content-Type of a part. A part of parts is read as
// such by some readers. A part without a file name but of another type than text
// is a file for some, and JSON for others; text in another charset is another
// text.
func checkPartType(value string, file bool) error {
	typ, rest := value, ""
	if i := strings.IndexByte(value, ';'); i >= 0 {
		typ, rest = value[:i], value[i:]
	}
	typ = strings.ToLower(typ)
	top, sub, _ := strings.Cut(typ, "/")
	switch {
	case top == "" || sub == "" || token(top) < len(top) || token(sub) < len(sub):
		return errors.New("is not of the form type/subtype")
	case top == "multipart" || top == "message":
		return fmt.Errorf("is %s, a part with parts of its own", top)
	case !file && typ != "text/plain":
		return errors.New("needs a filename; a field may only be text/plain")
	}
	seen := map[string]bool{}
	for rest != "" {
		p, after, err := nextParam(rest)
		if err != nil {
			return err
		}
		name := strings.ToLower(p.name)
		if seen[name] {
			return fmt.Errorf("has two parameters %.64q", name)
		}
		if !file && (name != "charset" || !strings.EqualFold(p.value, "utf-8")) {
			return errors.New("has a parameter other than charset=utf-8")
		}
		seen[name], rest = true, after
	}
	return nil
}

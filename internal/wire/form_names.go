// SPDX-License-Identifier: MPL-2.0

package wire

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// maxFormName bounds the name of a field or file, in bytes.
const maxFormName = 256

// formNames knows which names a form has had, and which policy reads. Readers
// compare names with or without case; of two fields of one name they take the
// first, the last or both; some (PHP's and qs among them) make structures of
// names: `a[b]`, `a.b`.
type formNames struct {
	keys  []string
	seen  map[string]formUse // by name, in lower case
	roots map[string]formUse // by what such readers would take for the name
}

// formUse is how a name has been used.
type formUse struct {
	field        bool // and not only for files
	bare, nested bool // as it is, and with something in brackets or after a dot
}

func newFormNames(keys []string) formNames {
	return formNames{keys: keys, seen: map[string]formUse{}, roots: map[string]formUse{}}
}

// checkName refuses names that readers decode or split in different ways:
// percent-encoding, backslashes, RFC 2047's =?charset?…?=, what separates
// parameters, anything but ASCII. `_charset_` changes how fields are decoded (RFC
// 7578 §4.6).
func checkName(name string) error {
	switch {
	case name == "" || len(name) > maxFormName:
		return fmt.Errorf("the name of a part is empty or longer than %d bytes", maxFormName)
	case strings.Trim(name, " ") != name || name[0] == '[' || name[0] == '.':
		return fmt.Errorf("the name %.64q of a part begins or ends with a space, or begins with a bracket or dot", name)
	case strings.EqualFold(name, "_charset_"):
		return errors.New("it has a field _charset_; send fields in UTF-8 without it")
	}
	for i := range len(name) {
		if name[i] < ' ' || name[i] > '~' || strings.IndexByte(`\%;,=?&`, name[i]) >= 0 {
			return fmt.Errorf("the name %.64q of a part holds something other than printable ASCII, or one of \\ %% ; , = ? &", name)
		}
	}
	return nil
}

// add takes note of the name of a field or file, and refuses one that readers
// may take for another's.
func (n *formNames) add(name string, file bool) error {
	if err := n.checkKey(name, file); err != nil {
		return err
	}
	lower := strings.ToLower(name)
	if use, again := n.seen[lower]; again && !mayRepeat(lower, use.field, !file) {
		return fmt.Errorf("the form has %.64q more than once; only files may repeat, and fields whose name ends in []", name)
	}
	n.seen[lower] = formUse{field: !file}
	root := formRoot(lower)
	use := n.roots[root]
	use.field = use.field || !file
	use.bare = use.bare || root == lower
	use.nested = use.nested || root != lower
	if use.bare && use.nested && use.field {
		return fmt.Errorf("the form has %.64q both by itself and with something in brackets or after a dot", root)
	}
	n.roots[root] = use
	return nil
}

// mayRepeat says whether a name that one part has may be another's.
func mayRepeat(name string, wasField, isField bool) bool {
	if wasField != isField {
		return false
	}
	return !isField || strings.HasSuffix(name, "[]")
}

// formRoot is the name that is left where brackets and dots make structures.
func formRoot(lower string) string {
	if i := strings.IndexAny(lower, "[."); i >= 0 {
		lower = lower[:i]
	}
	return strings.TrimSpace(lower)
}

// checkKey refuses what some reader takes for a field that policy reads,
// although it isn't spelt so or is a file. PHP makes underscores of some
// characters (https://www.php.net/manual/en/language.variables.external.php).
func (n *formNames) checkKey(name string, file bool) error {
	lower := strings.ToLower(name)
	root := formRoot(lower)
	underscores := strings.Map(func(r rune) rune {
		if strings.ContainsRune(" .[", r) {
			return '_'
		}
		return r
	}, lower)
	for _, key := range n.keys {
		if like := strings.ToLower(key); root != like && underscores != like {
			continue
		}
		if file {
			return fmt.Errorf("the form has a file %.64q, which servers may read as %q; send a field", name, key)
		}
		if name != key {
			return fmt.Errorf("the form has a field %.64q, which servers may read as %q; write it so", name, key)
		}
		return nil
	}
	return nil
}

// checkValue refuses values that readers decode in different ways, and those of
// policy's fields that they may trim or cut.
func (n *formNames) checkValue(name string, value []byte) error {
	switch {
	case !utf8.Valid(value):
		return fmt.Errorf("field %.64q is not UTF-8", name)
	case bytes.IndexByte(value, 0) >= 0:
		return fmt.Errorf("field %.64q holds a NUL byte", name)
	case bytes.HasPrefix(value, []byte("\ufeff")):
		return fmt.Errorf("field %.64q begins with a byte order mark", name)
	}
	for _, key := range n.keys {
		if name != key {
			continue
		}
		if len(bytes.TrimSpace(value)) < len(value) || bytes.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return fmt.Errorf("field %q begins or ends with white space, or holds a control character", name)
		}
	}
	return nil
}

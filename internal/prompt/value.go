// SPDX-License-Identifier: MPL-2.0

package prompt

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// The Mustache library looks at values by reflection, calls every method without
// parameters that a tag happens to name, and prints with package fmt. So a JSON
// value becomes what has no such method, what the library takes for true or
// empty as mustache.js would, and what fmt prints as its text:
//
//	true, false            bool
//	null                   an empty list that prints as nothing
//	0, however written     an empty list that prints as written
//	another number         string
//	string                 string, or an object without fields where it is blank,
//	                       which the library would take for empty
//	array                  list
//	object                 object
type (
	// list is a JSON array, or an empty value. One element past its end, where
	// neither len nor range see it, lies its text.
	list []any
	// object is a JSON object: its fields and, under the empty name, which no
	// tag has, its text.
	object map[string]any
)

// Format implements fmt.Formatter, which is no method that the library calls.
func (l list) Format(f fmt.State, _ rune) { printText(f, l[:len(l)+1][len(l)]) }

// Format implements fmt.Formatter.
func (o object) Format(f fmt.State, _ rune) { printText(f, o[""]) }

func printText(w io.Writer, text any) {
	s, _ := text.(string)
	_, _ = io.WriteString(w, s) // into fmt's buffer, which takes all
}

// newList makes a list of items that prints as text.
func newList(text string, items ...any) list {
	return append(items, text)[:len(items)]
}

// decoder turns JSON into values for the library.
type decoder struct {
	left int    // of MaxValues; below 0 when that was too little
	text string // compact
	i    int    // the index of the next byte
}

// value decodes raw; the problem is for people. It is nil where that would be
// too many values.
func (d *decoder) value(raw json.RawMessage) (v any, problem string) {
	text, values, problem := compact(raw)
	if d.left -= values; problem != "" || d.left < 0 {
		return nil, problem
	}
	d.text, d.i = text, 0
	return d.next(), ""
}

// next decodes the value at the next byte.
func (d *decoder) next() any {
	switch d.text[d.i] {
	case '{':
		return d.object()
	case '[':
		return d.array()
	case '"':
		return stringValue(unquote(d.take(stringEnd(d.text, d.i))))
	}
	switch s := d.take(scalarEnd(d.text, d.i)); {
	case s == "true", s == "false":
		return s == "true"
	case s == "null":
		return newList("")
	case isZero(s):
		return newList(s)
	default:
		return s
	}
}

// take passes over the text before the index end, and returns it.
func (d *decoder) take(end int) string {
	start := d.i
	d.i = end
	return d.text[start:end]
}

func (d *decoder) object() any {
	start, o := d.i, object{}
	for d.i++; d.text[d.i] != '}'; {
		name := unquote(d.take(stringEnd(d.text, d.i)))
		d.i++ // the colon
		o[name] = d.next()
		d.comma()
	}
	d.i++
	o[""] = d.text[start:d.i]
	return o
}

func (d *decoder) array() any {
	start, items := d.i, []any(nil)
	for d.i++; d.text[d.i] != ']'; {
		items = append(items, d.next())
		d.comma()
	}
	d.i++
	return newList(d.text[start:d.i], items...)
}

func (d *decoder) comma() {
	if d.text[d.i] == ',' {
		d.i++
	}
}

func stringValue(s string) any {
	if s != "" && strings.TrimSpace(s) == "" {
		return object{"": s}
	}
	return s
}

// isZero says whether a JSON number is 0, which has many spellings: 0, -0.0, 0e5.
func isZero(number string) bool {
	mantissa, _, _ := strings.Cut(strings.ToLower(number), "e")
	return strings.Trim(mantissa, "-0.") == ""
}

// SPDX-License-Identifier: MPL-2.0

// Package wire reads and edits what differs between the providers' wire
// formats; at present it knows the OpenAI formats: which routes there are
// (KindOf), what a request asks for and what bounds its cost (ReadParams), and
// what an answer says it used (Meter).
//
// Nothing is decoded and re-encoded. An Object knows where the members of a
// request's JSON text lie, and an edit splices the text there; a Meter looks at
// an answer's bytes as they pass. Everything else goes through byte for byte.
// The package knows nothing of Vault, virtual keys, prices or limits.
package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Object is the text of one JSON object (RFC 8259) with the places of its
// top-level members. It is not safe for concurrent use. The text must not be
// changed while the Object is in use.
type Object struct {
	text    []byte
	members []member
	first   [10]member // what members uses while they are few
	close   int        // index of the closing brace
	added   []addition
	edited  bool
}

// member is a top-level member: its unescaped key (a part of the text, unless
// it had escapes), where its value lies in the text, and what Set replaced that
// value with (nil for nothing).
type member struct {
	key        []byte
	start, end int
	value      []byte
}

type addition struct {
	key   string
	value []byte
}

// SyntaxError says where a text stops being one JSON object.
type SyntaxError struct {
	// Offset counts bytes from the start of the text, from 0.
	Offset int
	// Problem is for people.
	Problem string
}

// Error implements the error interface.
func (e *SyntaxError) Error() string {
	return fmt.Sprintf("the body is not a JSON object: %s at byte %d", e.Problem, e.Offset)
}

// ParseObject finds the top-level members of text, which must be one JSON
// object in UTF-8, with nothing but white space around it. The whole text is
// validated, so that no other reader can see a different structure in it. The
// error is a *SyntaxError.
func ParseObject(text []byte) (*Object, error) {
	o := &Object{text: text}
	o.members = o.first[:0]
	if err := o.scan(); err != nil {
		return nil, err
	}
	return o, nil
}

// Get returns the raw JSON text of the top-level member key, as edited. ok is
// false when there is none. Of duplicates, the first is returned; CheckKeys
// rules duplicates out.
func (o *Object) Get(key string) (value []byte, ok bool) {
	for i := range o.members {
		if string(o.members[i].key) != key {
			continue
		}
		if o.members[i].value != nil {
			return o.members[i].value, true
		}
		return o.text[o.members[i].start:o.members[i].end], true
	}
	for i := range o.added {
		if o.added[i].key == key {
			return o.added[i].value, true
		}
	}
	return nil, false
}

// String returns the top-level member key as a string. ok is false when it is
// absent or null; the error says that it is something other than a string.
func (o *Object) String(key string) (s string, ok bool, err error) {
	raw, ok := o.Get(key)
	if !ok || bytes.Equal(raw, null) {
		return "", false, nil
	}
	if raw[0] != '"' {
		return "", false, fmt.Errorf("%q must be a string", key)
	}
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1 : len(raw)-1]), true, nil
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		return "", false, fmt.Errorf("%q must be a string: %w", key, err)
	}
	return s, true, nil
}

var null = []byte("null")

// Set makes value, which must be valid JSON, the value of the top-level member
// key: in the place where the member stands, or as a new last member.
func (o *Object) Set(key string, value []byte) {
	o.edited = true
	for i := range o.members {
		if string(o.members[i].key) == key {
			o.members[i].value = value
			return
		}
	}
	for i := range o.added {
		if o.added[i].key == key {
			o.added[i].value = value
			return
		}
	}
	o.added = append(o.added, addition{key, value})
}

// Bytes returns the text with the edits of Set spliced in; the very text that
// was parsed when there were none.
func (o *Object) Bytes() []byte {
	if !o.edited {
		return o.text
	}
	size := len(o.text)
	for i := range o.members {
		size += len(o.members[i].value)
	}
	for i := range o.added {
		size += len(o.added[i].key) + len(o.added[i].value) + 8
	}
	out := make([]byte, 0, size)
	at := 0
	for i := range o.members {
		if m := &o.members[i]; m.value != nil {
			out = append(out, o.text[at:m.start]...)
			out = append(out, m.value...)
			at = m.end
		}
	}
	out = append(out, o.text[at:o.close]...)
	for i := range o.added {
		if i > 0 || len(o.members) > 0 {
			out = append(out, ',')
		}
		out = append(append(AppendString(out, o.added[i].key), ':'), o.added[i].value...)
	}
	return append(out, o.text[o.close:]...)
}

// CheckKeys makes sure that two readers of the text can't disagree on the
// members named keys: each may stand there once, spelt exactly so. A key that
// differs in case only, after unescaping, counts as the same key, because many
// decoders (Go's among them) match keys that way.
func (o *Object) CheckKeys(keys []string) error {
	for i := range o.members {
		key := o.members[i].key
		ascii := isASCII(key)
		for _, want := range keys {
			// Some letters outside ASCII, which are longer, are folded to those inside.
			if len(key) < len(want) || ascii && len(key) > len(want) || !strings.EqualFold(string(key), want) {
				continue
			}
			if string(key) != want {
				return fmt.Errorf("the body has a key %q; write it %q", key, want)
			}
			for j := range i {
				if bytes.Equal(o.members[j].key, key) {
					return fmt.Errorf("the body has the key %q twice; send it once", key)
				}
			}
		}
	}
	return nil
}

func isASCII(b []byte) bool {
	for _, c := range b {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// AppendString appends s as a JSON string.
func AppendString[T string | []byte](text []byte, s T) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			quoted, _ := json.Marshal(string(s)) // strings always marshal
			return append(text, quoted...)
		}
	}
	return append(append(append(text, '"'), s...), '"')
}

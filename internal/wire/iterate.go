// SPDX-License-Identifier: MPL-2.0

package wire

import "iter"

// All yields the top-level members in their order, unescaped key and raw JSON
// text of the value, as edited. Neither may be changed.
func (o *Object) All() iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		for i := range o.members {
			m := &o.members[i]
			value := m.value
			if value == nil {
				value = o.text[m.start:m.end]
			}
			if !yield(m.key, value) {
				return
			}
		}
		for i := range o.added {
			if !yield([]byte(o.added[i].key), o.added[i].value) {
				return
			}
		}
	}
}

// Repeated returns a key that stands in the text more than once.
func (o *Object) Repeated() (key string, repeated bool) {
	if len(o.members) <= len(o.first) { // too few for a map to pay
		for i := range o.members {
			for j := range i {
				if string(o.members[i].key) == string(o.members[j].key) {
					return string(o.members[i].key), true
				}
			}
		}
		return "", false
	}
	seen := make(map[string]struct{}, len(o.members))
	for i := range o.members {
		if _, repeated = seen[string(o.members[i].key)]; repeated {
			return string(o.members[i].key), true
		}
		seen[string(o.members[i].key)] = struct{}{}
	}
	return "", false
}

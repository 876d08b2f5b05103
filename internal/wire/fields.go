// SPDX-License-Identifier: MPL-2.0

package wire

import "bytes"

// maxKey bounds the keys that the tap compares: the longest that it knows,
// with every byte written as an escape.
const maxKey = 6 * len("prompt_filter_results")

// mayMatter says whether a key at this place can mean anything.
func (t *tap) mayMatter() bool {
	switch t.depth {
	case 1:
		return true
	case 2:
		return t.at[2] == fieldResponse || t.at[2] == fieldGroq || t.outputDepth > 0
	case 3:
		return t.at[2] == fieldChoices || t.outputDepth > 0
	}
	return t.outputDepth > 0
}

// lookup says what the key means where it stands.
func (t *tap) lookup() field {
	if !t.mayMatter() {
		return fieldNone
	}
	key := t.key
	if bytes.IndexByte(key, '\\') >= 0 {
		key = []byte(content(key))
	}
	switch {
	case t.outputDepth > 0:
		return quietField(key)
	case t.depth == 1:
		return t.topField(key)
	case t.depth == 2:
		return innerField(key)
	}
	return t.choiceField(key)
}

// topField knows the members of an answer, and of a stream's chunk or event.
func (t *tap) topField(key []byte) field {
	switch string(key) {
	case "usage":
		return fieldUsage
	case "model":
		return fieldModel
	case "service_tier":
		return fieldTier
	case "choices":
		return fieldChoices
	case "error":
		return fieldError
	case "type":
		return fieldType
	case "response":
		if t.kind == Responses {
			return fieldResponse
		}
	case "delta":
		if t.kind == Responses {
			return fieldOutput
		}
	case "x_groq":
		return fieldGroq
	case "citations", "search_results", "prompt_filter_results":
		return fieldExtra
	}
	return fieldNone
}

// innerField knows the members of `response` and of Groq's `x_groq`.
func innerField(key []byte) field {
	switch string(key) {
	case "usage":
		return fieldUsage
	case "model":
		return fieldModel
	case "service_tier":
		return fieldTier
	case "error":
		return fieldError
	}
	return fieldNone
}

// choiceField knows the members of a choice: the generated text, and usage
// where Moonshot puts it.
func (t *tap) choiceField(key []byte) field {
	switch string(key) {
	case "delta":
		if t.kind == Chat {
			return fieldOutput
		}
	case "text":
		if t.kind == Completions {
			return fieldOutput
		}
	case "finish_reason":
		return fieldFinish
	case "usage":
		return fieldUsage
	}
	return fieldNone
}

// quietField knows what isn't generated in a delta.
func quietField(key []byte) field {
	switch string(key) {
	case "role", "type", "id":
		return fieldQuiet
	}
	return fieldNone
}

// value looks at the first byte, at index i, of the value of the pending
// field. A string's pending field is needed until it ends.
func (t *tap) value(c byte, i int) {
	as := t.pending
	if c != '"' {
		t.pending = fieldNone
	}
	switch as {
	case fieldUsage:
		t.usageValue(c, i)
	case fieldModel:
		t.stringValue(&t.model, c, i)
	case fieldTier:
		t.stringValue(&t.tier, c, i)
	case fieldType:
		t.stringValue(&t.typ, c, i)
	case fieldChoices:
		t.first = c == '['
		t.hasChoices = t.hasChoices || c != '['
	case fieldError:
		t.failed = t.failed || c != 'n'
	case fieldExtra:
		t.extra = t.extra || c != 'n'
	case fieldOutput:
		t.counted = c == '"'
	case fieldFinish:
		t.finished = t.finished || c == '"'
	}
}

// stringValue captures a string into dst; of duplicates the last counts.
func (t *tap) stringValue(dst *[]byte, c byte, i int) {
	*dst = (*dst)[:0]
	if c == '"' && t.capture == nil {
		t.begin(dst, i+1)
	}
}

// usageValue captures a usage object, unless one is there from a better place;
// of duplicates the last counts.
func (t *tap) usageValue(c byte, i int) {
	place := usageOnTop
	switch {
	case t.depth == 3:
		place = usageInChoice
	case t.depth == 2 && t.at[2] == fieldGroq:
		place = usageInGroq
	}
	if place < t.usageAt || t.capture != nil {
		return
	}
	if c != '{' {
		if place == t.usageAt {
			t.usage, t.usageAt = t.usage[:0], usageNowhere
		}
		return
	}
	t.usageAt = place
	t.begin(&t.usage, i)
}

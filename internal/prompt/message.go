// SPDX-License-Identifier: MPL-2.0

package prompt

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/cbroglie/mustache"
)

// piece is a part of a compiled body: JSON text, or the inside of a string that
// is filled in.
type piece struct {
	json string
	text *mustache.Template
}

// assembler makes pieces of messages.
type assembler struct {
	*expander
	pieces []piece
	static strings.Builder // JSON text that isn't a piece yet
}

// flush makes a piece of what is static so far.
func (a *assembler) flush() {
	if a.static.Len() > 0 {
		a.pieces = append(a.pieces, piece{json: a.static.String()})
		a.static.Reset()
	}
}

// roles are those that chat formats know.
var roles = []string{"system", "developer", "user", "assistant", "tool", "function"}

// messages appends the member "messages".
func (a *assembler) messages(messages []json.RawMessage) *Error {
	if len(messages) > MaxMessages {
		return invalid("messages", "the template has %d messages; at most %d are allowed", len(messages), MaxMessages)
	}
	a.static.WriteString(`"messages":[`)
	for i, raw := range messages {
		if i > 0 {
			a.static.WriteByte(',')
		}
		if err := a.message(fmt.Sprintf("messages[%d]", i), raw); err != nil {
			return err
		}
	}
	a.static.WriteByte(']')
	return nil
}

func (a *assembler) message(where string, raw json.RawMessage) *Error {
	const example = `write {"role":"user","content":"Hello {{name}}"}`
	text, _, problem := compact(raw)
	if problem != "" {
		return invalid(where, "%s is %s; %s", where, problem, example)
	}
	if text[0] != '{' {
		return invalid(where, "%s is not a JSON object; %s", where, example)
	}
	w := walker{assembler: a, text: text}
	if err := w.value(where); err != nil {
		return err
	}
	var fields map[string]json.RawMessage
	_ = json.Unmarshal([]byte(text), &fields) // it is an object
	if role := fields["role"]; len(role) == 0 || role[0] != '"' || !slices.Contains(roles, unquote(string(role))) {
		return invalid(where+".role", "%s.role must be one of %s; %s", where, quoteAll(roles, len(roles)), example)
	}
	if content := fields["content"]; len(content) > 0 && !strings.ContainsRune(`"[n`, rune(content[0])) {
		return invalid(where+".content", "%s.content must be a string or a list of parts; %s", where, example)
	}
	return nil
}

// walker goes through one compact message and appends it.
type walker struct {
	*assembler
	text string
	i    int // the index of the next byte
}

// copy appends the text before the index end as it is.
func (w *walker) copy(end int) {
	w.static.WriteString(w.text[w.i:end])
	w.i = end
}

// value appends the value at the next byte, which stands at path.
func (w *walker) value(path string) *Error {
	switch w.text[w.i] {
	case '{':
		return w.object(path)
	case '[':
		return w.array(path)
	case '"':
		return w.string(path)
	}
	w.copy(scalarEnd(w.text, w.i))
	return nil
}

func (w *walker) object(path string) *Error {
	seen := map[string]bool{}
	for w.copy(w.i + 1); w.text[w.i] != '}'; {
		end := stringEnd(w.text, w.i)
		key := unquote(w.text[w.i:end])
		if seen[key] {
			return invalid(path, "%s has the key %q twice; keep one", path, clip(key))
		}
		seen[key] = true
		w.copy(end + 1) // with the colon
		if err := w.value(path + "." + clip(key)); err != nil {
			return err
		}
		w.comma()
	}
	w.copy(w.i + 1)
	return nil
}

func (w *walker) array(path string) *Error {
	w.copy(w.i + 1)
	for n := 0; w.text[w.i] != ']'; n++ {
		if err := w.value(fmt.Sprintf("%s[%d]", path, n)); err != nil {
			return err
		}
		w.comma()
	}
	w.copy(w.i + 1)
	return nil
}

func (w *walker) comma() {
	if w.text[w.i] == ',' {
		w.copy(w.i + 1)
	}
}

func (w *walker) string(path string) *Error {
	end := stringEnd(w.text, w.i)
	if err := w.leaf(path, unquote(w.text[w.i:end]), w.text[w.i:end]); err != nil {
		return err
	}
	w.i = end
	return nil
}

// leaf appends a string: as it is quoted, where it has no tags.
func (a *assembler) leaf(path, text, quoted string) *Error {
	t, err := a.compile(path, text)
	if err != nil {
		return err
	}
	if t == nil {
		a.static.WriteString(quoted)
		return nil
	}
	a.static.WriteByte('"')
	a.flush()
	a.pieces = append(a.pieces, piece{text: t})
	a.static.WriteByte('"')
	return nil
}

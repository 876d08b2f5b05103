// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"

	"vault-plugin-secrets-portkey/internal/apierror"
	"vault-plugin-secrets-portkey/internal/relay"
	"vault-plugin-secrets-portkey/internal/wire"
)

// maxShown bounds a value that Vault is shown: Vault refuses strings above 1 MiB
// (max_json_string_value_length), and no policy can mean them.
const maxShown = 1 << 20

// shown is the JSON object that Vault's policies are to judge: the model, and the
// request's other fields, scalars as they are and all else as null. With modelOnly,
// no other value is shown.
func (b *body) shown(model string, modelOnly bool) ([]byte, *apierror.Error) {
	s := shownObject{text: append(make([]byte, 0, 256), '{'), modelOnly: modelOnly}
	if model != "" {
		s.add([]byte("model"), wire.AppendString(nil, model), true)
	}
	switch {
	case b.object != nil:
		for key, value := range b.object.All() {
			if string(key) == "model" && (model != "" || isUnset(value)) {
				continue
			}
			s.add(key, value, false)
		}
	case b.form != nil:
		s.fields(b.form.Fields(), b.later)
	}
	if s.tooLong != "" {
		return nil, &apierror.Error{
			Status: http.StatusRequestEntityTooLarge, Type: apierror.TypeInvalidRequest, Code: apierror.CodeRequestTooLarge, Param: s.tooLong,
			Message: fmt.Sprintf("the field %.60q is longer than %d bytes, more than Vault's policies can be asked about; "+
				"send it as a list, or ask the operator for grant_fields=model in config/gateway", s.tooLong, maxShown),
		}
	}
	return append(s.text, '}'), nil
}

// isUnset says whether a model counts as none.
func isUnset(value []byte) bool {
	var model string
	return len(value) < 8*len(relay.DefaultModel) && json.Unmarshal(value, &model) == nil && model == relay.DefaultModel
}

// shownObject builds the object.
type shownObject struct {
	text      []byte
	modelOnly bool
	tooLong   string // a field that is
}

// add adds a field with raw JSON text as its value.
func (s *shownObject) add(key, value []byte, always bool) {
	if !always && (s.modelOnly || value[0] == '{' || value[0] == '[') {
		value = []byte("null")
	}
	if value[0] == '"' && bytes.Contains(value, []byte(`\u`)) {
		value = respelt(value)
	}
	if len(value) > maxShown {
		s.tooLong = string(key)
		return
	}
	if len(s.text) > 1 {
		s.text = append(s.text, ',')
	}
	s.text = wire.AppendString(s.text, key)
	s.text = append(append(s.text, ':'), value...)
}

// respelt is a JSON string as encoding/json writes it: Vault refuses escapes that
// stand for no character, which become U+FFFD.
func respelt(value []byte) []byte {
	var text string
	if json.Unmarshal(value, &text) != nil {
		return value
	}
	value, _ = json.Marshal(text) // strings always marshal
	return value
}

// fields adds the fields of a form. One that is repeated is like a list.
func (s *shownObject) fields(lists ...[]wire.FormField) {
	count := map[string]int{}
	for _, list := range lists {
		for i := range list {
			count[list[i].Name]++
		}
	}
	for _, list := range lists {
		for i := range list {
			f := &list[i]
			n := count[f.Name]
			if n == 0 || f.Name == "model" {
				continue
			}
			count[f.Name] = 0
			value := []byte("null")
			if n == 1 && !f.File {
				value, _ = json.Marshal(string(f.Value)) // strings always marshal
			}
			s.add([]byte(f.Name), value, false)
		}
	}
}

// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"

	"vault-plugin-secrets-portkey/internal/prompt"
	"vault-plugin-secrets-portkey/internal/relay"
)

// promptFields are the fields that a write of a prompt template may have.
func promptFields() map[string]*framework.FieldSchema {
	fields := templateFields()
	maps.Copy(fields, map[string]*framework.FieldSchema{
		"name": {Type: framework.TypeString, Description: "Name of the prompt template; apps use it."},
		"cas":  {Type: framework.TypeInt, Description: "Write only if this is the number of the latest version; 0 writes only a template that doesn't exist."},
	})
	return fields
}

// templateFields are those that are shown too.
func templateFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"virtual_key": {Type: framework.TypeString, Description: "Name of the virtual key that it runs on. Its limits and restrictions hold; callers need no policy on it."},
		"messages":    {Type: framework.TypeSlice, Description: `Chat messages, as JSON: [{"role":"user","content":"Hello {{name}}"}]. Texts in them are Mustache.`},
		"prompt":      {Type: framework.TypeString, Description: "Text of a plain completion, in place of messages. It is Mustache."},
		"model":       {Type: framework.TypeString, Description: "The model; empty leaves it to the caller, or to the virtual key's default."},
		"parameters":  {Type: framework.TypeMap, Description: `Other fields of the request, as a JSON object: {"temperature":0.2}.`},
		"variables": {Type: framework.TypeSlice, Description: `Declared variables: name for one that is required, name=text for one with a default, ` +
			`or {"name":…,"required":…,"default":…,"description":…}. Others that the texts use are optional.`},
		"locked":   {Type: framework.TypeCommaStringSlice, Description: "Fields that callers may not set, such as model,max_tokens; * for all but stream and stream_options."},
		"partials": {Type: framework.TypeKVPairs, Description: "Texts by name, for {{> name}}."},
		"note":     {Type: framework.TypeString, Description: "Free text for people. It belongs to all versions: changing it makes none."},
		"metadata": {Type: framework.TypeKVPairs, Description: "Free name=value pairs, likewise."},
	}
}

// applyTemplate sets the fields that d gives. It replaces what t refers to, and
// changes none of it.
func applyTemplate(t *prompt.Template, d *framework.FieldData) error {
	var err error
	if v, ok := d.GetOk("messages"); ok {
		if t.Messages, err = jsonItems("messages", v.([]any), nil); err != nil {
			return err
		}
	}
	if v, ok := d.GetOk("variables"); ok {
		if t.Variables, err = declaredVariables(v.([]any)); err != nil {
			return err
		}
	}
	if v, ok := d.GetOk("prompt"); ok {
		t.Prompt = v.(string) // white space in it means something
	}
	setString(d, "virtual_key", &t.VirtualKey)
	if setString(d, "model", &t.Model); t.Model == relay.DefaultModel {
		t.Model = ""
	}
	setList(d, "locked", &t.Locked)
	setMap(d, "partials", &t.Partials)
	return setParams(d, "parameters", &t.Params)
}

// jsonItems are the items of a list, each of which is JSON already, or text with JSON
// in it: one item, or a list of them. Text that is neither is given to other, if
// that is there.
func jsonItems(field string, list []any, other func(text string) (json.RawMessage, error)) ([]json.RawMessage, error) {
	var items []json.RawMessage
	for _, v := range list {
		text, isText := v.(string)
		text = strings.TrimSpace(text)
		var some []json.RawMessage
		var err error
		switch {
		case !isText:
			some = make([]json.RawMessage, 1)
			some[0], err = plainJSON(v)
		case text == "":
		case text[0] == '[':
			err = json.Unmarshal([]byte(text), &some)
		case text[0] == '{':
			some = []json.RawMessage{json.RawMessage(text)}
			if !json.Valid(some[0]) {
				err = errors.New("not JSON")
			}
		case other != nil:
			some = make([]json.RawMessage, 1)
			some[0], err = other(text)
		default:
			err = errors.New("not JSON")
		}
		if err != nil {
			return nil, fmt.Errorf("%s must be a JSON list of objects; on the command line, write it to a file and give %s=@file", field, field)
		}
		items = append(items, some...)
	}
	return items, nil
}

// plainJSON is the JSON text of v, with <, > and & as they are.
func plainJSON(v any) (json.RawMessage, error) {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(v)
	return bytes.TrimSuffix(text.Bytes(), []byte("\n")), err
}

// declaredVariables reads variables, each an object or as shorthand takes it.
func declaredVariables(list []any) ([]prompt.Variable, error) {
	items, err := jsonItems("variables", list, shorthand)
	if err != nil {
		return nil, err
	}
	var variables []prompt.Variable
	for _, item := range items {
		var text string
		if json.Unmarshal(item, &text) == nil {
			if item, err = shorthand(text); err != nil {
				return nil, err
			}
		}
		var v prompt.Variable
		decoder := json.NewDecoder(bytes.NewReader(item))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&v); err != nil {
			return nil, fmt.Errorf(`variables: %.80s is no variable; write name, name=default, or {"name":"…","required":true,"default":"…","description":"…"}`, item)
		}
		variables = append(variables, v)
	}
	return variables, nil
}

// shorthand reads name, which declares a required variable, and name=text, which
// declares one with a default.
func shorthand(text string) (json.RawMessage, error) {
	name, value, hasDefault := strings.Cut(text, "=")
	v := prompt.Variable{Name: strings.TrimSpace(name), Required: !hasDefault}
	var err error
	if hasDefault {
		if v.Default, err = plainJSON(value); err != nil {
			return nil, err
		}
	}
	return plainJSON(v)
}

// templateData is what of a template people see.
func templateData(t *prompt.Template) map[string]any {
	messages := make([]any, len(t.Messages))
	for i, m := range t.Messages {
		messages[i] = m
	}
	variables := make([]any, len(t.Variables))
	for i, v := range t.Variables {
		data := map[string]any{"name": v.Name, "required": v.Required}
		if len(v.Default) > 0 {
			data["default"] = v.Default
		}
		if v.Description != "" {
			data["description"] = v.Description
		}
		variables[i] = data
	}
	return map[string]any{
		"virtual_key": t.VirtualKey, "messages": messages, "prompt": t.Prompt, "model": t.Model, "parameters": paramsData(t.Params),
		"variables": variables, "locked": orEmpty(t.Locked), "partials": orEmptyMap(t.Partials),
	}
}

// sameTemplate says whether two templates mean the same: the order of keys and white
// space in JSON don't matter.
func sameTemplate(a, b *prompt.Template) bool {
	plain := func(t *prompt.Template) (v any) {
		text, err := json.Marshal(t)
		if err != nil {
			return nil
		}
		decoder := json.NewDecoder(bytes.NewReader(text))
		decoder.UseNumber()
		if decoder.Decode(&v) != nil {
			return nil
		}
		return v
	}
	first, second := plain(a), plain(b)
	return first != nil && reflect.DeepEqual(first, second)
}

// patchedFields are the fields of a PATCH (RFC 7396) of an entry in this state:
// members of objects are merged in, null is the empty value.
func patchedFields(state map[string]any, d *framework.FieldData) (*framework.FieldData, error) {
	merged, err := mergePatch(state, d)
	if err != nil {
		return nil, err
	}
	raw := make(map[string]any, len(d.Raw))
	for name := range d.Raw {
		v, there := merged.Raw[name]
		if field := d.Schema[name]; !there && field != nil {
			v = field.Type.Zero()
		}
		raw[name] = v
	}
	return &framework.FieldData{Raw: raw, Schema: d.Schema}, nil
}

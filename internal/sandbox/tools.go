// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"bytes"
	"encoding/json"
	"reflect"
)

// tool is a tool's definition: chat completions put the function's name and
// parameters in an object of their own, responses don't.
type tool struct {
	Type       string          `json:"type"`
	Name       string          `json:"name"`
	Parameters json.RawMessage `json:"parameters"`
	Function   *function       `json:"function"`
}

func (t *tool) function() function {
	if t.Function != nil {
		return *t.Function
	}
	return function{t.Name, t.Parameters}
}

type function struct {
	Name       string          `json:"name"`
	Parameters json.RawMessage `json:"parameters"`
}

// toolChoice is "none", "auto", "required", or the name of a function.
type toolChoice struct {
	mode string // one of the words, or "function"; "" for not given
	name string
	raw  json.RawMessage // to be repeated
}

const modeFunction = "function"

// UnmarshalJSON takes a word or an object with the function's name in either
// wire format's place. Other objects, such as a list of allowed tools, leave
// the choice to the model.
func (t *toolChoice) UnmarshalJSON(b []byte) error {
	if b[0] == 'n' {
		return nil
	}
	t.raw = bytes.Clone(b)
	switch b[0] {
	case '"':
		return json.Unmarshal(b, &t.mode)
	case '{':
		var choice tool
		if err := json.Unmarshal(b, &choice); err != nil {
			return err
		}
		if t.mode = "auto"; choice.Type == modeFunction {
			t.mode, t.name = modeFunction, choice.function().Name
		}
		return nil
	}
	return wrongType(b, reflect.TypeFor[toolChoice]())
}

// forced returns the function that must be called, nil if none must: like a
// model of few words, the sandbox calls no tool of its own accord.
func (t toolChoice) forced(definitions []json.RawMessage) (*function, *apiError) {
	switch t.mode {
	case "", "none", "auto":
		return nil, nil
	case "required", modeFunction:
	default:
		return nil, invalidValue("tool_choice", t.mode, "'none', 'auto', 'required', and an object that names a function")
	}
	if len(definitions) == 0 {
		return nil, invalid("tool_choice", "", "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are specified.")
	}
	for _, raw := range definitions {
		var definition tool
		if err := decode(raw, &definition); err != nil {
			err.Param = ptr("tools")
			return nil, err
		}
		f := definition.function()
		if definition.Type == modeFunction && (t.mode == "required" || f.Name == t.name) {
			return &f, nil
		}
	}
	return nil, invalid("tool_choice", "", "Tool choice '%s' not found in 'tools' parameter.", clip(t.name))
}

// call makes g answer with a call of f.
func (g *generation) call(f *function) *apiError {
	if f == nil {
		return nil
	}
	if f.Name == "" {
		return missing("tools[0].name")
	}
	g.tool = f.Name
	arguments, err := sample("tools", f.Parameters)
	g.fixed = arguments
	return err
}

// textFormat is the form of an answer: response_format of chat completions,
// text.format of responses.
type textFormat struct {
	Type       string          `json:"type"`
	Schema     json.RawMessage `json:"schema"`
	JSONSchema *struct {
		Schema json.RawMessage `json:"schema"`
	} `json:"json_schema"`
}

// format makes g answer in f, which stands in the field param.
func (g *generation) format(param string, f *textFormat) (err *apiError) {
	if f == nil {
		return nil
	}
	switch f.Type {
	case "", "text":
	case "json_object":
		g.asJSON = true
	case "json_schema":
		schema := f.Schema
		if f.JSONSchema != nil {
			schema = f.JSONSchema.Schema
		}
		g.fixed, err = sample(param, schema)
	default:
		err = invalidValue(param+".type", f.Type, "'text', 'json_object', and 'json_schema'")
	}
	return err
}

// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"encoding/json"
	"math"
	"strings"
)

// The bounds of a value made after a schema: a schema that refers to itself
// asks for an endless one.
const (
	maxSchemaDepth  = 32
	maxSchemaValues = 1_000
	maxSchemaLength = 1_000 // of a string, in characters, or a list
)

// sample makes JSON that fits a JSON schema, for schemas of the kind that
// structured outputs and tools use: types, required properties, enum, const,
// anyOf, references within the schema, and the bounds of numbers and lengths.
// Patterns and formats aren't looked at. No schema gives {}. param is the field
// of the schema, for errors.
func sample(param string, schema json.RawMessage) (string, *apiError) {
	if len(schema) == 0 || string(schema) == "null" {
		return "{}", nil
	}
	var root map[string]any
	if err := json.Unmarshal(schema, &root); err != nil {
		return "", invalid(param, "invalid_type", "Invalid schema in '%s': expected an object.", param)
	}
	s := sampler{root: root, left: maxSchemaValues}
	text, err := json.Marshal(s.value(root, 0))
	if err != nil {
		return "", invalid(param, "invalid_value", "Invalid schema in '%s': %v.", param, err)
	}
	return string(text), nil
}

type sampler struct {
	root map[string]any
	left int // values that may still be made
}

func (s *sampler) value(node any, depth int) any {
	schema, ok := node.(map[string]any)
	if s.left--; depth > maxSchemaDepth || !ok {
		return nil
	}
	if ref, ok := schema["$ref"].(string); ok {
		return s.value(s.resolve(ref), depth+1)
	}
	if v, ok := schema["const"]; ok {
		return v
	}
	if list, ok := schema["enum"].([]any); ok && len(list) > 0 {
		return list[0]
	}
	for _, key := range []string{"anyOf", "oneOf", "allOf"} {
		if list, ok := schema[key].([]any); ok && len(list) > 0 {
			return s.value(list[0], depth+1)
		}
	}
	switch schemaType(schema) {
	case "object":
		return s.object(schema, depth)
	case "array":
		return s.array(schema, depth)
	case "string":
		return sampleString(schema)
	case "integer", "number":
		return sampleNumber(schema)
	case "boolean":
		return true
	}
	return nil
}

// schemaType is the schema's type, the first that isn't null of several, or
// what its other keywords tell.
func schemaType(schema map[string]any) string {
	switch t := schema["type"].(type) {
	case string:
		return t
	case []any:
		for _, v := range t {
			if name, ok := v.(string); ok && name != "null" {
				return name
			}
		}
	}
	if schema["properties"] != nil {
		return "object"
	}
	if schema["items"] != nil {
		return "array"
	}
	return ""
}

// resolve follows a reference such as #/$defs/step (RFC 6901).
func (s *sampler) resolve(ref string) any {
	path, ok := strings.CutPrefix(ref, "#")
	if !ok {
		return nil
	}
	var at any = s.root
	if path == "" {
		return at
	}
	unescape := strings.NewReplacer("~1", "/", "~0", "~")
	for key := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
		node, ok := at.(map[string]any)
		if !ok {
			return nil
		}
		at = node[unescape.Replace(key)]
	}
	return at
}

func (s *sampler) object(schema map[string]any, depth int) any {
	properties, _ := schema["properties"].(map[string]any)
	required, _ := schema["required"].([]any)
	out := make(map[string]any, min(len(required), maxSchemaValues))
	for _, r := range required {
		if name, ok := r.(string); ok && properties[name] != nil && s.left > 0 {
			out[name] = s.value(properties[name], depth+1)
		}
	}
	return out
}

func (s *sampler) array(schema map[string]any, depth int) any {
	n := int(bound(schema, "minItems", 0, maxSchemaLength))
	out := make([]any, 0, n)
	for len(out) < n && s.left > 0 {
		out = append(out, s.value(schema["items"], depth+1))
	}
	return out
}

func sampleString(schema map[string]any) string {
	const text = "sandbox"
	least := int(bound(schema, "minLength", 0, maxSchemaLength))
	most := int(bound(schema, "maxLength", maxSchemaLength, maxSchemaLength))
	return strings.Repeat(text, 1+least/len(text))[:min(max(len(text), least), most)]
}

// sampleNumber is 0, or the whole number in bounds that is next to it.
func sampleNumber(schema map[string]any) float64 {
	number := func(key string, otherwise float64) float64 {
		if f, ok := schema[key].(float64); ok {
			return f
		}
		return otherwise
	}
	least := max(math.Ceil(number("minimum", math.Inf(-1))), math.Floor(number("exclusiveMinimum", math.Inf(-1)))+1)
	most := min(math.Floor(number("maximum", math.Inf(1))), math.Ceil(number("exclusiveMaximum", math.Inf(1)))-1)
	if f := min(max(0, least), most); !math.IsInf(f, 0) {
		return f
	}
	return 0
}

// bound is a keyword's value from 0 to most.
func bound(schema map[string]any, key string, otherwise, most float64) float64 {
	if f, ok := schema[key].(float64); ok {
		return math.Trunc(min(max(f, 0), most))
	}
	return otherwise
}

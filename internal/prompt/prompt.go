// SPDX-License-Identifier: MPL-2.0

// Package prompt is the engine of prompt templates. Compile checks a Template,
// once, when it is written; Render fills in its variables, merges the caller's
// parameters and gives the JSON text of a provider request.
//
// What it promises:
//
//   - A value stays inside its string: whatever a variable holds, the body is
//     valid JSON with the keys, list lengths and types of the template.
//   - A value is never read as a template: {{x}} in a value stays as it is.
//   - Numbers and the caller's fields come out as they were written.
//   - A template that passed Compile can't make Render take long or much
//     memory: output, input, repetitions and nesting are bounded.
//
// The language is Mustache without set-delimiter tags, lambdas, inheritance and
// HTML escaping: {{x}}, {{{x}}} and {{&x}} are the same. What is empty is what
// mustache.js, which Portkey's users know, holds for empty: null, false, 0, ""
// and []. {{x}} prints an object or a list as compact JSON. {{.}} stands for the
// item of the section around it. A partial may not include itself.
//
// The package knows nothing of Vault, HTTP or storage, nor of what a virtual key
// is.
package prompt

import (
	"encoding/json"
	"slices"
)

// Bounds of a template, checked by Compile.
const (
	// MaxTemplateBytes bounds all texts and JSON of a template together.
	MaxTemplateBytes = 256 << 10
	// MaxExpandedBytes bounds the texts with their partials put in.
	MaxExpandedBytes = 1 << 20
	MaxMessages      = 256
	MaxVariables     = 1000
	MaxParams        = 256
	MaxPartials      = 256
	// MaxNameBytes bounds the name of a variable, a partial or a parameter, and
	// a dotted path.
	MaxNameBytes = 128
	// MaxPathParts bounds the parts of a dotted path.
	MaxPathParts = 16
	// MaxSections bounds how deeply sections may nest, through partials too.
	MaxSections = 16
	// MaxPartialDepth bounds a chain of partials that include each other.
	MaxPartialDepth = 8
	// MaxJSONDepth bounds how deeply JSON may nest, here and in Input.
	MaxJSONDepth = 64
)

// Bounds of one Render.
const (
	// DefaultMaxBytes bounds the body where Input.MaxBytes is 0.
	DefaultMaxBytes = 1 << 20
	// InputFactor times the body's bound is what the variables that the text
	// uses may hold together.
	InputFactor = 4
	// MaxValues bounds the JSON values in those variables, nested ones counted.
	MaxValues = 100_000
	// MaxSteps bounds the work, which sections repeat: passing a text or a tag is
	// a step or two, and so is every section around a tag. It is what stops lists
	// within lists that print nothing.
	MaxSteps = 500_000
	// MaxOverrides bounds the fields of Input.Overrides.
	MaxOverrides = 256
)

// Template is one version of a prompt, as it is written and stored.
type Template struct {
	// Messages are the chat messages. Every string in them may hold Mustache,
	// but for the role, and keys.
	Messages []json.RawMessage `json:"messages,omitempty"`
	// Prompt is the text of a plain completion. A template has Messages or
	// Prompt.
	Prompt string `json:"prompt,omitempty"`
	// Model is a plain string; empty leaves the model to the caller.
	Model string `json:"model,omitempty"`
	// Params are further fields of the request, such as temperature or tools.
	// They hold no Mustache: what stands in braces there is sent as it is.
	Params map[string]json.RawMessage `json:"params,omitempty"`
	// VirtualKey is for the caller of this package, which it picks a virtual key
	// for.
	VirtualKey string `json:"virtual_key,omitempty"`
	// Variables are those that have a default, a description or are required.
	// The text may use others, which are optional.
	Variables []Variable `json:"variables,omitempty"`
	// Locked names the fields that a caller may not override; see Locks.
	Locked []string `json:"locked,omitempty"`
	// Partials are texts by name, for {{> name}}.
	Partials map[string]string `json:"partials,omitempty"`
}

// Variable declares a variable of a template.
type Variable struct {
	// Name is made of letters, digits, "_" and "-". {{user.name}} uses the
	// variable "user".
	Name string `json:"name"`
	// Required makes Render refuse a call in which it is absent or null.
	Required bool `json:"required,omitempty"`
	// Default is what an absent or null variable takes; nil or null for none,
	// which renders as nothing.
	Default     json.RawMessage `json:"default,omitempty"`
	Description string          `json:"description,omitempty"`
}

// Input is one call.
type Input struct {
	// Variables that the template doesn't use are ignored.
	Variables map[string]json.RawMessage
	// Overrides are the other root-level fields of the caller's body. A null
	// counts as absent, because SDKs send nulls for what wasn't set.
	Overrides map[string]json.RawMessage
	// MaxBytes bounds the body; 0 for DefaultMaxBytes.
	MaxBytes int
}

// The codes of an Error.
const (
	// CodeInvalidTemplate comes from Compile alone.
	CodeInvalidTemplate = "invalid_template"
	CodeMissingVariable = "missing_variable"
	CodeInvalidVariable = "invalid_variable"
	CodeInvalidField    = "invalid_field"
	CodeFieldLocked     = "field_locked"
	// CodeTooLarge is the one code that means 413 rather than 400.
	CodeTooLarge = "prompt_too_large"
)

// Error is what Compile and Render refuse with; it is always the writer's or the
// caller's to mend.
type Error struct {
	Code string
	// Message says what is wrong and shows what would be right. It quotes names
	// and template text, never a variable's value.
	Message string
	// Param is the part at fault, such as "messages[2].content" or
	// "variables.name"; empty for none.
	Param string
}

// Error implements the error interface with the message alone.
func (e *Error) Error() string { return e.Message }

// How an answer is carried, rather than what is asked for.
const (
	fieldStream        = "stream"
	fieldStreamOptions = "stream_options"
)

// Locks says whether the template forbids a caller to override the root-level
// field, "model" and "virtual_key" among them. A Locked entry "*" covers all
// fields but stream and stream_options, which both Portkey SDKs choose on every
// call; those must be named.
func (t *Template) Locks(field string) bool {
	if slices.Contains(t.Locked, field) {
		return true
	}
	return slices.Contains(t.Locked, "*") && field != fieldStream && field != fieldStreamOptions
}

// SPDX-License-Identifier: MPL-2.0

package prompt

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// Render fills in the variables and merges the overrides into a request body:
// JSON text with the model first, then the messages or the prompt, then all
// other fields sorted by name. The error is an *Error.
func (c *Compiled) Render(in Input) ([]byte, error) {
	out := output{max: in.MaxBytes, steps: MaxSteps}
	if out.max <= 0 {
		out.max = DefaultMaxBytes
	}
	model, fields, err := c.merge(in.Overrides)
	if err != nil {
		return nil, err
	}
	data, err := c.data(in.Variables, out.max*InputFactor)
	if err != nil {
		return nil, err
	}
	out.raw("{")
	if model != "" {
		out.raw(`"model":` + model + ",")
	}
	for _, p := range c.pieces {
		if p.text != nil {
			out.fill(p.text, data)
		} else {
			out.raw(p.json)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		out.raw("," + string(quote(name)) + ":")
		out.raw(fields[name])
	}
	out.raw("}")
	if out.err != nil {
		return nil, out.err
	}
	return out.body, nil
}

// merge is the model and the other fields, with what the caller overrides.
func (c *Compiled) merge(overrides map[string]json.RawMessage) (model string, fields map[string]string, err *Error) {
	if len(overrides) > MaxOverrides {
		return "", nil, &Error{Code: CodeInvalidField, Message: fmt.Sprintf("the request has %d fields; at most %d are allowed", len(overrides), MaxOverrides)}
	}
	model, fields = c.modelJSON(), maps.Clone(c.params)
	known := slices.Concat(reserved, c.template.Locked, slices.Collect(maps.Keys(c.params)))
	for _, name := range slices.Sorted(maps.Keys(overrides)) {
		raw := overrides[name]
		if isNull(raw) {
			continue
		}
		if err := c.checkOverride(name, raw, known); err != nil {
			return "", nil, err
		}
		known = append(known, name)
		if name == fieldModel {
			model = string(raw)
		} else {
			fields[name] = string(raw)
		}
	}
	return model, fields, nil
}

// checkOverride says why a caller can't set the field name to raw. known are
// the names that it must not differ from in case alone: a provider may take
// both for the same field, and one may be locked.
func (c *Compiled) checkOverride(name string, raw json.RawMessage, known []string) *Error {
	refuse := func(code, format string, args ...any) *Error {
		return &Error{Code: code, Param: clip(name), Message: fmt.Sprintf(format, args...)}
	}
	if other, ok := sameButCase(known, name); ok && !slices.Contains(known, name) {
		return refuse(CodeInvalidField, "the field %q differs from %q in case alone; write %q", clip(name), other, other)
	}
	switch name {
	case fieldMessages, fieldPrompt:
		return refuse(CodeInvalidField, `%q comes from the prompt template and can't be sent; pass what it needs in "variables"`, name)
	case fieldVariables, fieldVirtualKey:
		return refuse(CodeInvalidField, "%q is no field of a provider's request", name)
	}
	text, _, problem := compact(raw)
	switch {
	case problem != "":
		return refuse(CodeInvalidField, "the field %q is %s", clip(name), problem)
	case name == fieldModel && (text[0] != '"' || text == `""`):
		return refuse(CodeInvalidField, `the field "model" must be a name, such as "gpt-4o-mini"`)
	case c.template.Locks(name) && text != c.own(name):
		return refuse(CodeFieldLocked, "the prompt template locks %q; leave it out of the request", clip(name))
	}
	return nil
}

// own is what the template itself has for a field, as compact JSON: a caller who
// sends the same overrides nothing. Without a stream field, nothing is streamed.
func (c *Compiled) own(name string) string {
	if name == fieldModel {
		return c.modelJSON()
	}
	if text, ok := c.params[name]; ok || name != fieldStream {
		return text
	}
	return "false"
}

// data is what the text needs of the variables, which may hold maxBytes.
func (c *Compiled) data(given map[string]json.RawMessage, maxBytes int) (map[string]any, *Error) {
	if err := c.checkMissing(given); err != nil {
		return nil, err
	}
	size := 0
	for _, name := range c.used {
		size += len(given[name])
	}
	if size > maxBytes {
		return nil, &Error{Code: CodeTooLarge, Param: fieldVariables, Message: fmt.Sprintf("the variables that the prompt uses hold %d bytes; at most %d are allowed", size, maxBytes)}
	}
	data := make(map[string]any, len(c.used))
	d := decoder{left: MaxValues}
	for _, name := range c.used {
		if isNull(given[name]) {
			if v := c.variables[name].value; v != nil {
				data[name] = v
			}
			continue
		}
		v, problem := d.value(given[name])
		if problem != "" {
			return nil, &Error{Code: CodeInvalidVariable, Param: "variables." + name, Message: fmt.Sprintf("the variable %q is %s", name, problem)}
		}
		data[name] = v
	}
	if d.left < 0 {
		return nil, &Error{Code: CodeTooLarge, Param: fieldVariables, Message: fmt.Sprintf("the variables that the prompt uses hold more than %d values; send shorter lists", MaxValues)}
	}
	return data, nil
}

// checkMissing names all required variables that weren't given.
func (c *Compiled) checkMissing(given map[string]json.RawMessage) *Error {
	var missing []string
	for _, v := range c.template.Variables {
		if v.Required && isNull(given[v.Name]) {
			missing = append(missing, v.Name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	e := &Error{Code: CodeMissingVariable, Param: fieldVariables}
	plural := "s"
	if len(missing) == 1 {
		e.Param, plural = "variables."+missing[0], ""
	}
	e.Message = fmt.Sprintf(`the prompt needs the variable%s %s: send "variables":{%s:"…"}`, plural, quoteAll(missing, len(missing)), quote(missing[0]))
	unknown := c.unknown(given)
	for _, name := range missing[:min(len(missing), maxGuesses)] {
		if guess := likely(name, unknown); guess != "" {
			e.Message += fmt.Sprintf("; did you mean %q where you sent %q?", name, clip(guess))
		}
	}
	return e
}

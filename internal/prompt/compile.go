// SPDX-License-Identifier: MPL-2.0

package prompt

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Compiled is a Template that was checked. It is immutable: many goroutines may
// use it at once, and the Template may change or go.
type Compiled struct {
	template  Template // Model, Locked and Variables alone
	pieces    []piece
	params    map[string]string // compact JSON
	variables map[string]variable
	uses      uses
	used      []string // all names in uses, sorted
}

// variable is a declared variable, ready to use.
type variable struct {
	required bool
	value    any // of the default, nil for none
}

// Compile checks the template. The error is an *Error that names the part at
// fault.
func (t *Template) Compile() (*Compiled, error) {
	c := &Compiled{template: Template{
		Model:     t.Model,
		Locked:    slices.Clone(t.Locked),
		Variables: slices.Clone(t.Variables),
	}}
	for _, check := range []func(*Template) *Error{checkSize, checkModel, c.declare, c.addParams, checkLocked, c.assemble} {
		if err := check(t); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func checkSize(t *Template) *Error {
	if n := size(t); n > MaxTemplateBytes {
		return invalid("", "the template has %d bytes; at most %d are allowed", n, MaxTemplateBytes)
	}
	return nil
}

// size counts all texts and JSON of a template.
func size(t *Template) int {
	n := len(t.Prompt) + len(t.Model) + len(t.VirtualKey)
	for _, m := range t.Messages {
		n += len(m)
	}
	for name, raw := range t.Params {
		n += len(name) + len(raw)
	}
	for name, text := range t.Partials {
		n += len(name) + len(text)
	}
	for _, v := range t.Variables {
		n += len(v.Name) + len(v.Default) + len(v.Description)
	}
	for _, name := range t.Locked {
		n += len(name)
	}
	return n
}

func checkModel(t *Template) *Error {
	if strings.Contains(t.Model, "{{") {
		return invalid("model", "model can't hold variables; write a plain name such as \"gpt-4o-mini\", and let the caller send another \"model\"")
	}
	return nil
}

// declare takes up the declared variables.
func (c *Compiled) declare(t *Template) *Error {
	if len(t.Variables) > MaxVariables {
		return invalid("variables", "the template declares %d variables; at most %d are allowed", len(t.Variables), MaxVariables)
	}
	c.variables = make(map[string]variable, len(t.Variables))
	d := decoder{left: MaxValues}
	for i, v := range t.Variables {
		where := fmt.Sprintf("variables[%d]", i)
		if err := checkVariable(where, v); err != nil {
			return err
		}
		if _, ok := c.variables[v.Name]; ok {
			return invalid(where+".name", "the variable %q is declared twice; keep one", v.Name)
		}
		declared := variable{required: v.Required}
		if !isNull(v.Default) {
			var problem string
			if declared.value, problem = d.value(v.Default); problem != "" {
				return invalid(where+".default", `the default of %q is %s; write a JSON value, such as "some text" with its quotes, 5 or ["a","b"]`, v.Name, problem)
			}
		}
		c.variables[v.Name] = declared
	}
	if d.left < 0 {
		return invalid("variables", "the defaults hold more than %d values", MaxValues)
	}
	return nil
}

func checkVariable(where string, v Variable) *Error {
	switch {
	case strings.Contains(v.Name, ".") && isName(strings.ReplaceAll(v.Name, ".", "")):
		root, _, _ := strings.Cut(v.Name, ".")
		return invalid(where+".name", "%q is a path into a variable; declare the variable %q, and {{%s}} reads its field", clip(v.Name), clip(root), clip(v.Name))
	case !isName(v.Name):
		return invalid(where+".name", `a variable can't be called %q: names are made of letters, digits, "_" and "-", such as "customer_name"`, clip(v.Name))
	case len(v.Name) > MaxNameBytes:
		return invalid(where+".name", "the name %q is longer than %d bytes", clip(v.Name), MaxNameBytes)
	case v.Required && !isNull(v.Default):
		return invalid(where, "the variable %q is required and has a default, which it could never take; drop one of both", v.Name)
	}
	return nil
}

// The root-level fields that aren't a caller's or a parameter's to set.
const (
	fieldModel      = "model"
	fieldMessages   = "messages"
	fieldPrompt     = "prompt"
	fieldVariables  = "variables"
	fieldVirtualKey = "virtual_key"
)

var reserved = []string{fieldModel, fieldMessages, fieldPrompt, fieldVariables, fieldVirtualKey}

// addParams takes up the parameters.
func (c *Compiled) addParams(t *Template) *Error {
	if len(t.Params) > MaxParams {
		return invalid("params", "the template has %d parameters; at most %d are allowed", len(t.Params), MaxParams)
	}
	c.params = make(map[string]string, len(t.Params))
	taken := slices.Clone(reserved)
	for _, name := range slices.Sorted(maps.Keys(t.Params)) {
		where := "params." + clip(name)
		if name == "" || len(name) > MaxNameBytes {
			return invalid("params", "the parameter %q must have a name of 1 to %d bytes, such as \"temperature\"", clip(name), MaxNameBytes)
		}
		if other, ok := sameButCase(taken, name); ok {
			if slices.Contains(reserved, other) {
				return invalid(where, "%q can't be a parameter; set the template's own field %q", name, other)
			}
			return invalid(where, "the parameters %q and %q differ in case alone; keep one", other, name)
		}
		text, _, problem := compact(t.Params[name])
		if problem != "" {
			return invalid(where, `%s is %s; write a JSON value, such as 0.2 or {"type":"json_object"}`, where, problem)
		}
		taken = append(taken, name)
		c.params[name] = text
	}
	return nil
}

// sameButCase finds name in names, as decoders that ignore case would.
func sameButCase(names []string, name string) (string, bool) {
	i := slices.IndexFunc(names, func(n string) bool { return strings.EqualFold(n, name) })
	if i < 0 {
		return "", false
	}
	return names[i], true
}

func checkLocked(t *Template) *Error {
	if len(t.Locked) > MaxParams {
		return invalid("locked", "the template locks %d fields; at most %d are allowed", len(t.Locked), MaxParams)
	}
	known := append(slices.Sorted(maps.Keys(t.Params)), reserved...)
	for i, name := range t.Locked {
		where := fmt.Sprintf("locked[%d]", i)
		if name == "" || len(name) > MaxNameBytes {
			return invalid(where, "%s must be the name of a field, such as \"model\", or \"*\" for all", where)
		}
		if other, ok := sameButCase(known, name); ok && other != name {
			return invalid(where, "%s is %q, which differs from %q in case alone; write %q", where, name, other, other)
		}
		known = append(known, name)
	}
	return nil
}

// assemble compiles the messages or the prompt.
func (c *Compiled) assemble(t *Template) *Error {
	e := newExpander()
	if err := e.add(t.Partials); err != nil {
		return err
	}
	a := assembler{expander: e}
	switch {
	case len(t.Messages) > 0 && t.Prompt != "":
		return invalid("prompt", "the template has both messages and a prompt; keep messages for chat, or the prompt for a plain completion")
	case len(t.Messages) > 0:
		if err := a.messages(t.Messages); err != nil {
			return err
		}
	case t.Prompt != "":
		a.static.WriteString(`"prompt":`)
		if err := a.leaf("prompt", t.Prompt, string(quote(t.Prompt))); err != nil {
			return err
		}
	default:
		return invalid("messages", `the template has neither messages nor a prompt; give messages, such as [{"role":"user","content":"Hello {{name}}"}]`)
	}
	a.flush()
	c.pieces, c.uses = a.pieces, e.uses
	all := maps.Clone(e.uses.surely)
	maps.Copy(all, e.uses.maybe)
	c.used = slices.Sorted(maps.Keys(all))
	return nil
}

// Names are the variables that the text uses, sorted. Within a section, a name
// may be a field of the section's value instead: it is listed where it is
// declared.
func (c *Compiled) Names() []string {
	names := maps.Clone(c.uses.surely)
	for name := range c.uses.maybe {
		if _, ok := c.variables[name]; ok {
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// Warnings tell what is odd about the template but not wrong.
func (c *Compiled) Warnings() []string {
	var warnings []string
	for _, name := range slices.Sorted(maps.Keys(c.uses.surely)) {
		if _, ok := c.variables[name]; !ok {
			warnings = append(warnings, fmt.Sprintf("the variable %q is used but not declared: it is optional, and renders as nothing when it is absent", name))
		}
	}
	for _, v := range c.template.Variables {
		if !c.uses.surely[v.Name] && !c.uses.maybe[v.Name] {
			warnings = append(warnings, fmt.Sprintf("the variable %q is declared but not used", v.Name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.params)) {
		if strings.Contains(c.params[name], "{{") {
			warnings = append(warnings, fmt.Sprintf("params.%s holds braces that are sent as they are: variables are filled in in messages and the prompt alone", name))
		}
	}
	return warnings
}

// modelJSON is the template's model as JSON, empty for none.
func (c *Compiled) modelJSON() string {
	if c.template.Model == "" {
		return ""
	}
	return string(quote(c.template.Model))
}

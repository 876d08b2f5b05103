// SPDX-License-Identifier: MPL-2.0

package prompt

import (
	"fmt"

	"github.com/cbroglie/mustache"
)

// output is a body as it grows. It stops the library at the bounds: the library
// writes the text before every tag and at the end of every section, an empty
// text too, and gives up when that fails. A value that is too long isn't taken.
type output struct {
	body  []byte
	max   int
	steps int
	err   *Error
}

// raw appends JSON text.
func (o *output) raw(json string) {
	if o.err == nil && len(o.body)+len(json) > o.max {
		o.tooLarge()
	}
	if o.err == nil {
		o.body = append(o.body, json...)
	}
}

// Write appends what stands for p within a JSON string. It implements io.Writer
// for the library.
func (o *output) Write(p []byte) (int, error) {
	if o.err != nil {
		return 0, o.err
	}
	if o.steps--; o.steps < 0 {
		o.err = &Error{Code: CodeTooLarge, Param: "variables", Message: fmt.Sprintf("the prompt takes more than %d steps to fill in; send shorter lists, or nest fewer sections in each other", MaxSteps)}
		return 0, o.err
	}
	if len(o.body)+len(p) > o.max {
		o.tooLarge()
		return 0, o.err
	}
	o.body = appendEscaped(o.body, p) // which may exceed the bound: the next text sees it
	return len(p), nil
}

func (o *output) tooLarge() {
	o.err = &Error{Code: CodeTooLarge, Message: fmt.Sprintf("the prompt is larger than %d bytes with its variables filled in; send shorter values", o.max)}
}

// fill appends what t makes of data. What went wrong is in o.err.
func (o *output) fill(t *mustache.Template, data map[string]any) {
	if o.err != nil {
		return
	}
	if err := t.FRender(o, data); err != nil && o.err == nil {
		o.err = &Error{Code: CodeInvalidTemplate, Message: "the template can't be filled in: " + err.Error()}
	}
}

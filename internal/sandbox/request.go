// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"reflect"
	"strings"
)

const (
	// maxBodyBytes bounds a request's body.
	maxBodyBytes = 32 << 20
	// maxElements bounds the values in a request's body: decoded, a value may
	// need fifty times its bytes. An honest request of that many is one of
	// token arrays, of which OpenAI takes 300,000 in all.
	maxElements = 400_000
	// keptBodyBytes bounds the buffers that are kept for the next request.
	keptBodyBytes = 1 << 20
)

// withBody reads the body of req, of at most maxBodyBytes, and hands it to use,
// which must not keep it. The error is one of reading.
func (s *Sandbox) withBody(req *http.Request, use func(body []byte) *apiError) (*apiError, error) {
	if req.ContentLength > maxBodyBytes {
		return tooLarge(), nil
	}
	if req.Body == nil {
		return use(nil), nil
	}
	buf := s.bodies.Get().(*bytes.Buffer)
	defer func() {
		if buf.Cap() <= keptBodyBytes {
			buf.Reset()
			s.bodies.Put(buf)
		}
	}()
	if _, err := buf.ReadFrom(io.LimitReader(req.Body, maxBodyBytes+1)); err != nil {
		return nil, err
	}
	if buf.Len() > maxBodyBytes {
		return tooLarge(), nil
	}
	return use(buf.Bytes()), nil
}

// decode reads a JSON object into v, a pointer to a struct, which keeps nothing
// of body.
func decode(body []byte, v any) *apiError {
	if len(bytes.TrimSpace(body)) == 0 {
		return invalid("", "", "The request has no body; send a JSON object.")
	}
	if len(body) > maxElements && elements(body) > maxElements {
		return invalid("", "", "The request has more than %d values.", maxElements)
	}
	err := json.Unmarshal(body, v)
	var syntax *json.SyntaxError
	var wrong *json.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &wrong) && wrong.Field == "":
		return invalid("", "invalid_type", "Invalid body: expected an object, but got %s instead.", got(wrong.Value))
	case errors.As(err, &wrong):
		return invalid(wrong.Field, "invalid_type", "Invalid type for '%s': expected %s, but got %s instead.",
			clip(wrong.Field), expected(wrong.Type), got(wrong.Value))
	case errors.As(err, &syntax):
		return invalid("", "", "We could not parse the JSON body of your request: %v, at byte %d.", syntax, syntax.Offset)
	}
	return invalid("", "", "We could not parse the JSON body of your request: %v.", err)
}

// elements counts the commas of a JSON text that are not within strings.
func elements(body []byte) (n int) {
	inString := false
	for i := 0; i < len(body); i++ {
		switch c := body[i]; {
		case c == '"':
			inString = !inString
		case inString && c == '\\':
			i++
		case !inString && c == ',':
			n++
		}
	}
	return n
}

// wrongType is the error of a custom decoder; decode adds the field.
func wrongType(b []byte, wanted reflect.Type) error {
	kinds := map[byte]string{'"': "string", '{': "object", '[': "array", 't': "bool", 'f': "bool", 'n': "null"}
	kind, ok := kinds[b[0]]
	if !ok {
		kind = "number"
	}
	return &json.UnmarshalTypeError{Value: kind, Type: wanted}
}

// expected says in words what a Go type takes.
func expected(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[content]():
		return "a string or an array of objects"
	case reflect.TypeFor[stringList]():
		return "a string or an array of strings"
	case reflect.TypeFor[inputs]():
		return "a string, an array of strings, an array of tokens, or an array of arrays of tokens"
	case reflect.TypeFor[inputItems]():
		return "a string or an array of items"
	case reflect.TypeFor[toolChoice]():
		return "a string or an object"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "a boolean"
	case reflect.Int64:
		return "an integer"
	case reflect.Uint32:
		return "a token, which is an integer from 0 to 4294967295"
	case reflect.Float64:
		return "a decimal"
	case reflect.String:
		return "a string"
	case reflect.Slice:
		return "an array"
	}
	return "an object"
}

// got says in words what encoding/json calls a value that it can't use.
func got(kind string) string {
	switch {
	case kind == "bool":
		return "a boolean"
	case kind == "null":
		return kind
	case kind == "object", kind == "array":
		return "an " + kind
	case strings.HasPrefix(kind, "number "):
		return "the " + clip(kind)
	}
	return "a " + clip(kind)
}

// stringList is one string or a list of strings; null is none.
type stringList []string

// UnmarshalJSON takes both forms.
func (l *stringList) UnmarshalJSON(b []byte) error {
	switch b[0] {
	case 'n':
		*l = nil
		return nil
	case '"':
		*l = make(stringList, 1)
		return json.Unmarshal(b, &(*l)[0])
	case '[':
		return json.Unmarshal(b, (*[]string)(l))
	}
	return wrongType(b, reflect.TypeFor[stringList]())
}

// within returns *v, or fallback if v is nil, and refuses what isn't between 1
// and most.
func within(param string, v *int64, fallback, most int64) (int64, *apiError) {
	const least = 1
	switch {
	case v == nil:
		return fallback, nil
	case *v < least:
		return 0, invalid(param, "integer_below_min_value",
			"Invalid '%s': integer below minimum value. Expected a value >= %d, but got %d instead.", param, least, *v)
	case *v > most:
		return 0, invalid(param, "integer_above_max_value",
			"Invalid '%s': integer above maximum value. Expected a value <= %d, but got %d instead.", param, most, *v)
	}
	return *v, nil
}

// decimal refuses what is out of bounds.
func decimal(param string, v *float64, least, most float64) *apiError {
	switch {
	case v == nil:
		return nil
	case *v < least:
		return invalid(param, "decimal_below_min_value",
			"Invalid '%s': decimal below minimum value. Expected a value >= %g, but got %g instead.", param, least, *v)
	case *v > most:
		return invalid(param, "decimal_above_max_value",
			"Invalid '%s': decimal above maximum value. Expected a value <= %g, but got %g instead.", param, most, *v)
	}
	return nil
}

// checkSampling checks what every request for text may say and has no effect
// here.
func checkSampling(temperature, topP *float64) *apiError {
	if err := decimal("temperature", temperature, 0, 2); err != nil {
		return err
	}
	return decimal("top_p", topP, 0, 1)
}

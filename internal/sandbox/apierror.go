// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"fmt"
	"net/http"
)

// The types and codes of OpenAI's errors that the sandbox gives.
const (
	typeInvalidRequest = "invalid_request_error"
	typeServer         = "server_error"

	codeModelNotFound = "model_not_found"
)

// apiError is an error as OpenAI writes it
// (https://platform.openai.com/docs/guides/error-codes).
type apiError struct {
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    *string `json:"code"`

	status     int
	allow      string // the Allow header, for 405
	retryAfter string // the Retry-After header
}

type errorAnswer struct {
	Error *apiError `json:"error"`
}

func ptr[T any](v T) *T { return &v }

// invalid is a 400 about the field param. code may be empty.
func invalid(param, code, format string, args ...any) *apiError {
	e := &apiError{status: http.StatusBadRequest, Type: typeInvalidRequest, Message: fmt.Sprintf(format, args...)}
	if param != "" {
		e.Param = &param
	}
	if code != "" {
		e.Code = &code
	}
	return e
}

func missing(param string) *apiError {
	return invalid(param, "missing_required_parameter", "Missing required parameter: '%s'.", param)
}

func invalidValue(param, got, supported string) *apiError {
	return invalid(param, "invalid_value", "Invalid value: '%s'. Supported values are: %s.", clip(got), supported)
}

func unsupported(param, why string) *apiError {
	return invalid(param, "unsupported_parameter", "Unsupported parameter: '%s'. %s", param, why)
}

func modelNotFound(name string, why error) *apiError {
	e := invalid("model", codeModelNotFound, "The model `%s` does not exist: %v.", clip(name), why)
	e.status = http.StatusNotFound
	return e
}

func wrongModel(name, has, path string) *apiError {
	e := invalid("model", "", "The model `%s` is for %s and not supported in the %s endpoint.", clip(name), has, path)
	e.status = http.StatusNotFound
	return e
}

func unknownURL(method, path string) *apiError {
	e := invalid("", "unknown_url", "Invalid URL (%s %s). The sandbox has %s.", clip(method), clip(path), pathList)
	e.status = http.StatusNotFound
	return e
}

func methodNotAllowed(method, path, allow string) *apiError {
	e := invalid("", "", "Not allowed to %s on %s. Use %s.", clip(method), clip(path), allow)
	e.status, e.allow = http.StatusMethodNotAllowed, allow
	return e
}

func tooLarge() *apiError {
	e := invalid("", "request_too_large", "The request's body is larger than %d bytes.", maxBodyBytes)
	e.status = http.StatusRequestEntityTooLarge
	return e
}

// clip keeps an error that quotes the request short.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return cutText(s, most) + "…"
}

// SPDX-License-Identifier: MPL-2.0

package upstream

import (
	"fmt"
	"net/http"
	"strings"
)

// failure is an error answer in OpenAI's shape
// (https://platform.openai.com/docs/guides/error-codes).
type failure struct {
	status  int
	message string
	kind    string // OpenAI's "type"
	param   any    // string or nil
	code    any    // string or nil
}

const (
	typeInvalid = "invalid_request_error"
	typeServer  = "server_error"
)

// retryAfterSeconds is what a 429 tells the client to wait.
const retryAfterSeconds = "7"

func (f failure) object() object {
	return object{"message": f.message, "type": f.kind, "param": f.param, "code": f.code}
}

func (f failure) json() []byte { return marshal(object{"error": f.object()}) }

// statusFailure is what OpenAI says with that status.
func statusFailure(status int, model, key string) failure {
	switch status {
	case http.StatusUnauthorized:
		return wrongKey(key)
	case http.StatusForbidden:
		return failure{status, fmt.Sprintf("You are not allowed to sample from the model `%s`.", model), typeInvalid, nil, "model_not_allowed"}
	case http.StatusNotFound:
		return noModel(model)
	case http.StatusTooManyRequests:
		return failure{status, fmt.Sprintf("Rate limit reached for %s in organization org-upstream on requests per min (RPM): Limit 3, Used 3, Requested 1. Please try again in %ss.", model, retryAfterSeconds), "requests", nil, "rate_limit_exceeded"}
	case http.StatusInternalServerError:
		return failure{status, "The server had an error while processing your request. Sorry about that!", typeServer, nil, nil}
	case http.StatusServiceUnavailable:
		return failure{status, "The engine is currently overloaded, please try again later.", typeServer, nil, "engine_overloaded"}
	}
	if status < 500 {
		return failure{status, fmt.Sprintf("Invalid request: the model `%s` refuses every request with status %d.", model, status), typeInvalid, "model", "refused_by_upstream"}
	}
	return failure{status, fmt.Sprintf("The model `%s` fails every request with status %d.", model, status), typeServer, nil, nil}
}

func noModel(model string) failure {
	return failure{http.StatusNotFound, fmt.Sprintf("The model `%s` does not exist or you do not have access to it.", model), typeInvalid, nil, "model_not_found"}
}

func badRequest(param any, code any, format string, args ...any) failure {
	return failure{http.StatusBadRequest, fmt.Sprintf(format, args...), typeInvalid, param, code}
}

// wrongKey is OpenAI's 401. Note that its message holds a part of the key.
func wrongKey(key string) failure {
	if key == "" {
		return failure{http.StatusUnauthorized, "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY). You can obtain an API key from https://platform.openai.com/account/api-keys.", typeInvalid, nil, nil}
	}
	return failure{http.StatusUnauthorized, fmt.Sprintf("Incorrect API key provided: %s. You can find your API key at https://platform.openai.com/account/api-keys.", maskKey(key)), typeInvalid, nil, "invalid_api_key"}
}

// maskKey keeps the first 8 and the last 4 bytes, as OpenAI does; a key
// too short for that is shown whole.
func maskKey(key string) string {
	if len(key) <= 12 {
		return key
	}
	return key[:8] + strings.Repeat("*", len(key)-12) + key[len(key)-4:]
}

// fail answers with f.
func (x *exchange) fail(f failure) {
	if f.status == http.StatusTooManyRequests {
		x.w.Header().Set("Retry-After", retryAfterSeconds)
	}
	x.json(f.status, f.json())
}

// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// failure is how an answer goes wrong: an HTTP status from 400 to 599, or one
// of the kinds below; 0 for not at all.
type failure int

const (
	failHang  failure = iota + 1 // never answers
	failReset                    // a connection error instead of an answer
	failCut                      // the body breaks off midway
	failStall                    // the body stops midway and stays open
	failGarbage
	failErrorEvent // an error midway in a stream
)

// failureNames are the values of the modifier fail that are no status, in the
// order of the constants.
func failureNames() []string {
	return []string{"hang", "reset", "cut", "stall", "garbage", "error-event"}
}

// failureStatuses are the statuses that can be asked for.
func failureStatuses() []int {
	return []int{
		http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound,
		http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusServiceUnavailable,
	}
}

func parseFailure(s string) (failure, error) {
	names := failureNames()
	for i, name := range names {
		if s == name {
			return failure(i + 1), nil
		}
	}
	kinds := make([]string, 0, len(names)+8)
	for _, status := range failureStatuses() {
		kind := strconv.Itoa(status)
		if s == kind {
			return failure(status), nil
		}
		kinds = append(kinds, kind)
	}
	return 0, fmt.Errorf("write one of %s", strings.Join(append(kinds, names...), ", "))
}

// midway says whether the answer starts well.
func (f failure) midway() bool { return f == failCut || f == failStall || f == failErrorEvent }

// retryAfter is what a failing model with status 429 says, in seconds.
const retryAfter = "1"

// failed is the error of a model that was asked to fail with a status, with
// the type and code that OpenAI uses for it.
func failed(status int) *apiError {
	e := &apiError{
		status: status, Type: typeInvalidRequest,
		Message: fmt.Sprintf("The model was asked to fail with status %d, by the modifier fail=%[1]d in its name.", status),
	}
	switch status {
	case http.StatusUnauthorized:
		e.Code = ptr("invalid_api_key")
	case http.StatusForbidden:
		e.Code = ptr("unsupported_country_region_territory")
	case http.StatusNotFound:
		e.Code = ptr(codeModelNotFound)
	case http.StatusTooManyRequests:
		e.Type, e.Code, e.retryAfter = "requests", ptr("rate_limit_exceeded"), retryAfter
	case http.StatusInternalServerError, http.StatusServiceUnavailable:
		e.Type = typeServer
	}
	return e
}

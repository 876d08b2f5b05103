// SPDX-License-Identifier: MPL-2.0

// Package apierror builds the errors that LLM SDKs and the Vault CLI read.
//
// An error is one JSON object in OpenAI's shape, with two members beside it: the list
// `errors`, which is what the Vault CLI prints, and `message`, without which
// portkey-ai for Node shows the whole body for a message:
//
//	{"error":{"message":"…","type":"…","param":null,"code":"…"},"errors":["…"],"message":"…"}
//
// The package knows nothing of Vault, of providers or of limits; it only fixes
// the shape and which status, type and code go together.
package apierror

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

// Error is an answer that this plugin itself gives instead of a provider's.
// It is immutable after it was built and safe for concurrent use.
type Error struct {
	// Status is the HTTP status, 400 to 599.
	Status int
	// Type is OpenAI's coarse class, such as "invalid_request_error".
	Type string
	// Code is the stable machine-readable reason; see the constructors.
	Code string
	// Param names the request field at fault; empty for none.
	Param string
	// Message is for people: what was wrong and what to do. It must hold no
	// secret, since it goes to the caller and into logs.
	Message string
	// RetryAfter is sent as the Retry-After header, rounded up to whole
	// seconds (RFC 9110 §10.2.3); 0 means none.
	RetryAfter time.Duration
}

// The classes of errors that OpenAI's SDKs know.
const (
	TypeInvalidRequest    = "invalid_request_error"
	TypeInsufficientQuota = "insufficient_quota"
	TypeRequests          = "requests"
	TypeTokens            = "tokens"
	TypeAPI               = "api_error"
)

// The codes of the errors of this version. They are part of the API: an app
// may switch on them.
const (
	CodeInvalidRequest     = "invalid_request"
	CodeModelRequired      = "model_required"
	CodeModelNotAllowed    = "model_not_allowed"
	CodeVirtualKeyNotFound = "virtual_key_not_found"
	CodePromptNotFound     = "prompt_not_found"
	CodeVirtualKeyDisabled = "virtual_key_disabled"
	CodeVirtualKeyExpired  = "virtual_key_expired"
	CodeIdentityNotAllowed = "identity_not_allowed"
	CodeRouteNotFound      = "route_not_found"
	CodeRequestTooLarge    = "request_too_large"
	CodeRateLimitExceeded  = "rate_limit_exceeded"
	CodeUnreachable        = "upstream_unreachable"
	CodeTimeout            = "upstream_timeout"
	CodeAnswerTooLarge     = "upstream_answer_too_large"
	CodeNotActive          = "not_active"
	CodeInternal           = "internal_error"
	CodeStorage            = "storage_unavailable"
	CodeCallerGone         = "caller_gone"
	CodeUpstreamNotAllowed = "upstream_not_allowed"

	CodeBudgetExceeded      = "budget_exceeded"
	CodeBudgetReserved      = "budget_reserved"
	CodeRequestExceedsLimit = "request_exceeds_limit"
	CodeCostUnbounded       = "cost_unbounded"
	CodeRouteNotMetered     = "route_not_metered"
	CodeRouteNotAllowed     = "route_not_allowed"
	CodeModelNotPriced      = "model_not_priced"
	CodeLedgerUnavailable   = "ledger_unavailable"

	CodeCredentialMissing    = "credential_missing" //nolint:gosec // a code, no credential
	CodeCredentialInvalid    = "credential_invalid" //nolint:gosec // likewise
	CodePermissionDenied     = "permission_denied"
	CodeTooManyFailures      = "too_many_failures"
	CodeCallerAddress        = "caller_address_unknown"
	CodeVirtualKeyRequired   = "virtual_key_required"
	CodeVirtualKeyMismatch   = "virtual_key_mismatch"
	CodeNonceInvalid         = "gateway_nonce_invalid"
	CodeTicketInvalid        = "ticket_invalid"
	CodeVaultUnavailable     = "vault_unavailable"
	CodeGatewayUnavailable   = "gateway_unavailable"
	CodeMethodNotAllowed     = "method_not_allowed"
	CodeUnsupportedMediaType = "unsupported_media_type"
	CodeConfigNotSupported   = "config_not_supported"
)

// Error implements the error interface with the message alone.
func (e *Error) Error() string { return e.Message }

type wireError struct {
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    string  `json:"code"`
}

// JSON is the answer's body.
func (e *Error) JSON() []byte {
	w := wireError{Message: e.Message, Type: e.Type, Code: e.Code}
	if e.Param != "" {
		w.Param = &e.Param
	}
	body, err := json.Marshal(struct {
		Error   wireError `json:"error"`
		Errors  []string  `json:"errors"`
		Message string    `json:"message"`
	}{w, []string{e.Message}, e.Message})
	if err != nil {
		// Strings always marshal: invalid UTF-8 is replaced.
		panic("apierror: strings that do not marshal: " + err.Error())
	}
	return body
}

// longestRetry is how long OpenAI's SDKs wait at the most; told to wait longer,
// some try again at once. X-Should-Retry, which they all read, keeps them from it.
const longestRetry = time.Minute

// Write answers with e on w. It must be called before anything else was
// written there.
func (e *Error) Write(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	if e.RetryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64((e.RetryAfter+time.Second-1)/time.Second), 10))
	}
	if e.RetryAfter > longestRetry {
		h.Set("X-Should-Retry", "false")
	}
	text := e.JSON()
	h.Set("Content-Length", strconv.Itoa(len(text))) // so that it is whole once it is flushed
	w.WriteHeader(e.Status)
	// A caller that went away can't be told more.
	_, _ = w.Write(text)
}

// SPDX-License-Identifier: MPL-2.0

package relay

import (
	"net/http"
	"strconv"
	"time"

	"vault-plugin-secrets-portkey/internal/ledger"
)

// tellRates puts what is left of the virtual key's own limits on requests and
// tokens into the headers that OpenAI's SDKs read
// (https://platform.openai.com/docs/guides/rate-limits#rate-limits-in-headers).
// The provider's, which are those of the provider key, give way to them.
func (x *exchange) tellRates(header http.Header) {
	if x.req.VirtualKey.Limits == nil {
		return
	}
	if left, ok := x.reservation.Tightest(ledger.Requests); ok {
		setRate(header, "Requests", left.Limit.Max, left.Amount, left.Resets)
	}
	if left, ok := x.reservation.Tightest(ledger.Tokens, ledger.InputTokens, ledger.OutputTokens); ok {
		setRate(header, "Tokens", left.Limit.Max, left.Amount, left.Resets)
	}
}

// refusedRate is tellRates for a request that a limit has refused.
func refusedRate(header http.Header, r *ledger.Refusal) {
	switch r.Limit.Unit {
	case ledger.Requests:
		setRate(header, "Requests", r.Limit.Max, max(r.Limit.Max-r.Used-r.Reserved, 0), r.RetryAfter)
	case ledger.Tokens, ledger.InputTokens, ledger.OutputTokens:
		setRate(header, "Tokens", r.Limit.Max, max(r.Limit.Max-r.Used-r.Reserved, 0), r.RetryAfter)
	}
}

func setRate(header http.Header, what string, limit, left int64, resets time.Duration) {
	values := make([]string, 3) // one allocation, as net/http does for what it reads
	values[0], values[1] = strconv.FormatInt(limit, 10), strconv.FormatInt(left, 10)
	header["X-Ratelimit-Limit-"+what], header["X-Ratelimit-Remaining-"+what] = values[0:1:1], values[1:2:2]
	name := "X-Ratelimit-Reset-" + what
	if resets <= 0 {
		delete(header, name)
		return
	}
	// As OpenAI writes them: 6m0s, 1s.
	values[2] = max(resets.Truncate(time.Second), time.Second).String()
	header[name] = values[2:3:3]
}

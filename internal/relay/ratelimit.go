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
		setRate(header, &requestRates, left.Limit.Max, left.Amount, left.Resets)
	}
	if left, ok := x.reservation.Tightest(ledger.Tokens, ledger.InputTokens, ledger.OutputTokens); ok {
		setRate(header, &tokenRates, left.Limit.Max, left.Amount, left.Resets)
	}
}

// refusedRate is tellRates for a request that a limit has refused.
func refusedRate(header http.Header, r *ledger.Refusal) {
	switch r.Limit.Unit {
	case ledger.Requests:
		setRate(header, &requestRates, r.Limit.Max, max(r.Limit.Max-r.Used-r.Reserved, 0), r.RetryAfter)
	case ledger.Tokens, ledger.InputTokens, ledger.OutputTokens:
		setRate(header, &tokenRates, r.Limit.Max, max(r.Limit.Max-r.Used-r.Reserved, 0), r.RetryAfter)
	}
}

// rateNames are the headers of one kind of limit.
type rateNames struct{ limit, remaining, reset string }

var (
	requestRates = rateNames{"X-Ratelimit-Limit-Requests", "X-Ratelimit-Remaining-Requests", "X-Ratelimit-Reset-Requests"}
	tokenRates   = rateNames{"X-Ratelimit-Limit-Tokens", "X-Ratelimit-Remaining-Tokens", "X-Ratelimit-Reset-Tokens"}
)

func setRate(header http.Header, names *rateNames, limit, left int64, resets time.Duration) {
	values := make([]string, 3) // one allocation, as net/http does for what it reads
	text := strconv.AppendInt(make([]byte, 0, 40), limit, 10)
	end := len(text)
	both := string(strconv.AppendInt(text, left, 10))
	values[0], values[1] = both[:end], both[end:]
	header[names.limit], header[names.remaining] = values[0:1:1], values[1:2:2]
	if resets <= 0 {
		delete(header, names.reset)
		return
	}
	// As OpenAI writes them: 6m0s, 1s.
	values[2] = max(resets.Truncate(time.Second), time.Second).String()
	header[names.reset] = values[2:3:3]
}

// SPDX-License-Identifier: MPL-2.0

package relay

import (
	"net/http"
	"strconv"
	"strings"

	"vault-plugin-secrets-portkey/internal/price"
)

// CostHeader and UsageHeader say, on an answer, what the request cost in USD and
// which tokens it used, where the provider reported them. Where that isn't known
// before the body begins, they are trailers (RFC 9110 §6.5).
const (
	CostHeader  = "X-Portkey-Cost"
	UsageHeader = "X-Portkey-Usage"
)

// tellUse puts what the exchange used into header, or into the trailer once the
// header has gone out. Usage that is no more than a guess isn't told.
func (x *exchange) tellUse(header http.Header) {
	if x.meter == nil {
		return
	}
	o := Outcome{}
	if o.Basis, o.Usage = x.used(); o.Basis != Reported {
		return
	}
	usage, cost := UsageHeader, CostHeader
	if x.begun {
		usage, cost = http.TrailerPrefix+UsageHeader, http.TrailerPrefix+CostHeader
	}
	values := make([]string, 2)
	values[0] = useText(&o.Usage)
	header[usage] = values[0:1:1]
	if x.charge(&o); !o.Unpriced {
		values[1] = costText(o.Cost.Total)
		header[cost] = values[1:2:2]
	}
}

// useText is a dictionary (RFC 9651 §3.2): "input=12, output=5, cached=8". Cached
// and reasoning tokens are parts of input and output, and told if there are any.
func useText(u *price.Usage) string {
	b := make([]byte, 0, 64)
	b = strconv.AppendInt(append(b, "input="...), u[price.Input], 10)
	b = strconv.AppendInt(append(b, ", output="...), u[price.Output], 10)
	for _, part := range []struct {
		name string
		n    int64
	}{{"cached", u[price.CacheRead]}, {"reasoning", u[price.OutputReasoning]}} {
		if part.n > 0 {
			b = strconv.AppendInt(append(append(append(b, ", "...), part.name...), '='), part.n, 10)
		}
	}
	return string(b)
}

// costText is an amount in USD, without trailing zeros: "0.00125".
func costText(n price.NanoUSD) string {
	whole, fraction := int64(n/price.USD), int64(n%price.USD)
	b := strconv.AppendInt(make([]byte, 0, 32), whole, 10)
	if fraction == 0 {
		return string(b)
	}
	at := len(b)
	b = strconv.AppendInt(b, int64(price.USD)+fraction, 10) // 1 and nine digits
	b[at] = '.'
	return strings.TrimRight(string(b), "0")
}

// SPDX-License-Identifier: MPL-2.0

package relay

import (
	"context"
	"errors"
	"math"
	"net/http"
	"sort"
	"strconv"
	"strings"
	"time"

	"vault-plugin-secrets-portkey/internal/apierror"
	"vault-plugin-secrets-portkey/internal/ledger"
	"vault-plugin-secrets-portkey/internal/price"
	"vault-plugin-secrets-portkey/internal/provider"
	"vault-plugin-secrets-portkey/internal/wire"
)

// CappedHeader says, on an answer, which cap on output tokens the request was
// sent with where that isn't the one that the caller gave.
const CappedHeader = "X-Portkey-Capped"

// The output that a lowered cap must leave, in tokens: less isn't worth its
// input. A reasoning model needs more, because its thoughts come first.
const (
	minOutput          = 256
	minReasoningOutput = 4096
)

// reserve holds the request's worst case against the virtual key's limits, and
// returns the body to send: body, with its cap on output as what is held has
// it.
func (x *exchange) reserve(ctx context.Context, w Answer, body *wire.Object) ([]byte, *apierror.Error) {
	policy := x.req.VirtualKey.Limits
	if policy != nil && len(policy.Limits()) > 0 {
		if err := x.findEscape(body); err != nil {
			return nil, err
		}
		if err := x.checkBounds(policy); err != nil {
			return nil, err
		}
		x.outputCap = x.params.OutputCap
		amounts, err := x.amounts(policy)
		if err != nil {
			return nil, err
		}
		request := ledger.Request{
			Entity: x.req.Entity, Model: x.limited(), Amounts: amounts, Free: x.free(), Zone: x.req.Zone,
		}
		if x.params.Kind.Metered() {
			request.Size = (*size)(x)
		}
		if refusal := x.req.Ledger.Reserve(ctx, policy, &request, &x.reservation); refusal != nil {
			refusedRate(w.Header(), refusal)
			return nil, limitError(ctx, refusal)
		}
		x.setCap(w, policy, body)
	}
	if body == nil {
		return nil, nil
	}
	return body.Bytes(), nil
}

// free says whether the request runs no model: a read, a deletion, or a route
// that costs nothing.
func (x *exchange) free() bool {
	target := x.req.VirtualKey.Target
	return !hasBody(x.req.Method) || x.params.Kind.Free() || target.Provider().Free(x.params.Kind.String()) && ownEndpoint(target)
}

// limited is the model as limits know it: providers may take a name in capitals,
// or with white space about it, for the same, and that must be no way around a
// limit.
func (x *exchange) limited() string { return strings.ToLower(strings.TrimSpace(x.params.Model)) }

// hasOutput says whether the request asks for output that can be capped.
func (x *exchange) hasOutput() bool {
	switch x.params.Kind {
	case wire.Chat, wire.Completions, wire.Responses:
		return true
	}
	return false
}

// amounts is the request's worst case, in the units of limits.
func (x *exchange) amounts(policy *ledger.Policy) (ledger.Amounts, *apierror.Error) {
	a := ledger.Amounts{}
	a[ledger.Requests], a[ledger.Concurrent] = 1, 1
	if x.free() || !x.params.Kind.Metered() {
		return a, nil
	}
	b := x.bound()
	a[ledger.InputTokens], a[ledger.OutputTokens] = b.Input, b.Output
	a[ledger.Tokens] = b.Input + min(b.Output, math.MaxInt64-b.Input)
	if policy.Counts(ledger.USD, x.limited()) {
		worst, ok := x.worstCost(b)
		if !ok {
			return a, x.notPriced(x.req.VirtualKey.Target.Provider().ID, x.params.Model)
		}
		a[ledger.USD] = int64(worst)
	}
	return a, nil
}

// worstCost is the most that a request within the bound can cost, whichever of
// its models runs.
func (x *exchange) worstCost(b price.Bound) (price.NanoUSD, bool) {
	if x.price == nil {
		return 0, false
	}
	worst, ok := x.price.WorstCase(b)
	for _, other := range x.otherPrices {
		cost, priced := other.WorstCase(b)
		worst, ok = max(worst, cost), ok && priced
	}
	return worst, ok
}

// size is an exchange as something that can be made smaller.
type size exchange

// Refine implements ledger.Size.
func (s *size) Refine() (ledger.Amounts, bool) {
	x := (*exchange)(s)
	if !x.countInput(x.ctx) {
		return ledger.Amounts{}, false
	}
	a, err := x.amounts(x.req.VirtualKey.Limits)
	return a, err == nil
}

// Lower implements ledger.Size: it finds the largest cap on output with which
// the request uses no more than most. A request that asks for more than a limit
// ever allows is not made smaller, unless it named no cap itself.
func (s *size) Lower(unit ledger.Unit, most int64, whole bool) (ledger.Amounts, bool) {
	x := (*exchange)(s)
	vk := x.req.VirtualKey
	if vk.KeepCap || !x.hasOutput() || whole && x.params.OutputCap >= 0 {
		return ledger.Amounts{}, false
	}
	now := x.perChoice()
	least := min(x.leastOutput(), now)
	// The largest cap in [least, now) that fits; least-1 is none.
	n := sort.Search(int(now-least), func(i int) bool { return !x.fits(least+int64(i), unit, most) })
	if n == 0 {
		return ledger.Amounts{}, false
	}
	before := x.outputCap
	x.outputCap = least + int64(n) - 1
	a, err := x.amounts(vk.Limits)
	if err != nil {
		x.outputCap = before
	}
	return a, err == nil
}

// fits says whether the request uses no more than most with this cap.
func (x *exchange) fits(perChoice int64, unit ledger.Unit, most int64) bool {
	before := x.outputCap
	x.outputCap = perChoice
	a, err := x.amounts(x.req.VirtualKey.Limits)
	x.outputCap = before
	return err == nil && a[unit] <= most
}

// leastOutput is what a lowered cap must leave for each choice.
func (x *exchange) leastOutput() int64 {
	vk := x.req.VirtualKey
	switch {
	case vk.MinOutputTokens > 0:
		return vk.MinOutputTokens
	case vk.Target.Provider().Reasoning(x.params.Model):
		return minReasoningOutput
	}
	return minOutput
}

// setCap makes the provider keep to what is reserved: a request without a cap
// gets one where a hard limit rests on it, and one that was made smaller gets
// the lower one. The caller can see it.
func (x *exchange) setCap(w Answer, policy *ledger.Policy, body *wire.Object) {
	if body == nil || policy.Soft() || !x.hasOutput() {
		return
	}
	model := x.limited()
	rests := policy.Counts(ledger.USD, model) || policy.Counts(ledger.Tokens, model) || policy.Counts(ledger.OutputTokens, model)
	uncapped := x.params.OutputCap < 0
	if rests && x.req.VirtualKey.Target.Provider().WantsMaxTokens() {
		x.params.EnsureCap(body, provider.CapMaxTokens)
	}
	if !rests || !uncapped && x.outputCap == x.params.OutputCap {
		return
	}
	x.outputCap = x.perChoice()
	x.params.LowerCap(body, x.outputCap, x.req.VirtualKey.Target.Provider().ChatCapField)
	x.capped = x.outputCap
	w.Header().Set(CappedHeader, strconv.FormatInt(x.outputCap, 10))
}

// chargeOf is what an outcome uses of the limits.
func (x *exchange) chargeOf(o *Outcome) ledger.Charge {
	if o.Result == Refused || !x.reached() || x.status >= http.StatusMultipleChoices {
		return ledger.Charge{}
	}
	a := ledger.Amounts{}
	a[ledger.Requests] = 1
	if x.free() || !x.params.Kind.Metered() {
		return ledger.Charge{Amounts: a}
	}
	held := &x.reservation.Amounts
	if o.Basis == Unconfirmed {
		return ledger.Charge{Amounts: *held, Unconfirmed: true}
	}
	input, output := o.Usage[price.Input], o.Usage[price.Output]
	a[ledger.InputTokens], a[ledger.OutputTokens], a[ledger.Tokens] = input, output, input+output
	a[ledger.USD] = int64(o.Cost.Total)
	if o.Unpriced {
		// Tokens of a kind without a price: it can't be less than what is held.
		a[ledger.USD] = max(a[ledger.USD], held[ledger.USD])
	}
	return ledger.Charge{Amounts: a}
}

// limitError is the answer for a request that the limits refuse.
func limitError(ctx context.Context, r *ledger.Refusal) *apierror.Error {
	e := &apierror.Error{Status: http.StatusTooManyRequests, Type: apierror.TypeRequests, Message: r.Error(), RetryAfter: max(r.RetryAfter, time.Second)}
	switch r.Reason {
	case ledger.Reserved:
		e.Code = apierror.CodeBudgetReserved
	case ledger.Busy, ledger.Rate:
		e.Code = apierror.CodeRateLimitExceeded
		if r.Limit.Window.Kind == ledger.Minute { // SDKs wait that long, and no longer
			e.RetryAfter = min(e.RetryAfter, time.Minute)
		}
		switch r.Limit.Unit {
		case ledger.Tokens, ledger.InputTokens, ledger.OutputTokens:
			e.Type = apierror.TypeTokens
		}
	case ledger.Spent:
		e.Status, e.Type, e.Code, e.RetryAfter = http.StatusPaymentRequired, apierror.TypeInsufficientQuota, apierror.CodeBudgetExceeded, 0
	case ledger.TooLarge:
		e.Status, e.Type, e.Code, e.RetryAfter = http.StatusForbidden, apierror.TypeInvalidRequest, apierror.CodeRequestExceedsLimit, 0
	case ledger.Gone:
		return gone(ctx)
	case ledger.Unavailable:
		if errors.Is(r.Cause, ledger.ErrDeleted) { // after the request had found it
			return NotFound(r.Account)
		}
		fallthrough
	default:
		e.Status, e.Type, e.Code = http.StatusServiceUnavailable, apierror.TypeAPI, apierror.CodeLedgerUnavailable
	}
	return e
}

// SPDX-License-Identifier: MPL-2.0

package relay

import (
	"context"
	"math/big"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"sync/atomic"
	"time"

	"vault-plugin-secrets-portkey/internal/apierror"
	"vault-plugin-secrets-portkey/internal/ledger"
	"vault-plugin-secrets-portkey/internal/price"
	"vault-plugin-secrets-portkey/internal/wire"
)

// Result says how a request ended.
type Result string

// The results.
const (
	// Refused: nothing was sent.
	Refused Result = "refused"
	// Failed: admitted, but without a whole answer that is no error.
	Failed Result = "failed"
	// Succeeded: the provider's whole answer reached the door.
	Succeeded Result = "succeeded"
)

// Basis says how the cost of a request is known.
type Basis string

// The bases.
const (
	// Free: nothing is charged, since the request was never fully sent, the
	// provider answered with an error status, or the route costs nothing.
	Free Basis = "free"
	// Reported: the provider's usage.
	Reported Basis = "reported"
	// Estimated: counted from what was streamed, where the catalogue says that
	// this is what the provider charges.
	Estimated Basis = "estimated"
	// Unconfirmed: the outcome is unknown, and the worst case is charged.
	Unconfirmed Basis = "unconfirmed"
)

// Outcome is how one request ended and what it cost.
type Outcome struct {
	VirtualKey string
	// Model is the model that the request names; empty for none.
	Model string
	// Price is the price entry of the model, nil if none was found.
	Price *price.Match
	// Status is the provider's HTTP status, 0 if it gave none. Code is the
	// code of the error that this plugin gave, empty if it gave none.
	Status int
	Code   string
	Result Result
	Basis  Basis
	Usage  price.Usage
	Cost   price.Cost
	// Unpriced means that tokens, or a route, have no price, so that Cost is
	// not what the request cost.
	Unpriced bool
	// BoundExceeded means that more was used than the limits held for it.
	BoundExceeded bool
	// Capped is the cap on output tokens that the request was sent with where it
	// isn't the caller's; 0 for none.
	Capped int64
	// Started is the admission; FirstByte is zero if no answer came.
	Started, FirstByte, Ended time.Time
}

// exchange is one request on its way through the pipeline.
type exchange struct {
	req     *Request
	params  wire.Params
	price   *price.Match
	started time.Time
	body    *wire.Object // as it will be sent; nil for none

	ctx         context.Context // ends with the caller; nil means never
	counter     *counter
	textTokens  int64 // of the input, if counted
	counted     bool
	reservation ledger.Reservation
	outputCap   int64  // of each choice, as it is reserved; -1 for what the request says
	capped      int64  // what was set because of limits; 0 for nothing
	escape      string // the member by which the request may run any model
	otherPrices []*price.Match

	admitted  bool        // past every check
	upload    *sentUpload // nil for none
	sent      atomic.Bool // the provider may have the whole request
	trace     httptrace.ClientTrace
	watch     watch
	status    int // the provider's, 0 before its answer
	firstByte time.Time
	begun     bool // the answer's header went to the caller
	whole     bool // the answer's body has come to its end
	failure   *apierror.Error
	charged   bool // before the answer's end was handed on
	exceeded  bool // more than was held for it

	meter     *wire.Meter
	stream    bool // the answer is one
	dropUsage bool
}

// meterAnswer prepares for the answer's body. Only a success of a metered
// route reports usage.
func (x *exchange) meterAnswer(resp *http.Response) {
	if !x.params.Kind.Metered() || resp.StatusCode >= http.StatusMultipleChoices {
		x.dropUsage = false
		return
	}
	x.stream = IsEventStream(resp.Header)
	x.dropUsage = x.dropUsage && x.stream
	x.meter = wire.NewMeter(x.params.Kind, x.stream, x.dropUsage)
}

// metered is what of the answer's bytes is handed on now.
func (x *exchange) metered(p []byte) []byte {
	if x.meter == nil {
		return p
	}
	return x.meter.Next(p)
}

func (x *exchange) finish() []byte {
	if x.meter == nil {
		return nil
	}
	return x.meter.Finish()
}

// chargeNow settles the reservation when the provider's answer is complete, before
// its end is handed on: the caller's next request might find the place of this one
// taken. Whether the caller got it all changes nothing of the charge.
func (x *exchange) chargeNow() {
	if x.charged {
		return
	}
	o := x.settle(nil, x.started) // the times don't matter
	x.charged, x.exceeded = true, x.reservation.Settle(x.chargeOf(&o))
}

// settle decides what the request is charged, by what is known of it. It is
// called once, with the error that the caller got, nil for none.
func (x *exchange) settle(err *apierror.Error, now time.Time) Outcome {
	o := Outcome{
		VirtualKey: x.req.VirtualKey.Name, Model: x.params.Model, Price: x.price, Status: x.status,
		Result: x.result(), Basis: Free, Capped: x.capped, Started: x.started, FirstByte: x.firstByte, Ended: now,
	}
	if err != nil {
		o.Code = err.Code
		if o.Result == Succeeded {
			o.Result = Failed
		}
	}
	if !x.mayCost() {
		return o
	}
	o.Basis, o.Usage = x.used()
	x.charge(&o)
	return o
}

func (x *exchange) result() Result {
	switch {
	case !x.admitted:
		return Refused
	case !x.whole || x.status >= http.StatusMultipleChoices:
		return Failed
	case x.meter != nil && x.meter.Outcome() != wire.Complete:
		return Failed
	}
	return Succeeded
}

// mayCost says whether the provider may charge for the request: it was fully
// sent or answered, on a route that can cost something (a read or a deletion
// doesn't), and not answered with an error status.
func (x *exchange) mayCost() bool {
	return x.admitted && x.reached() && !x.free() && x.status < http.StatusMultipleChoices
}

// reached says whether the provider may have the whole request.
func (x *exchange) reached() bool { return x.sent.Load() || x.status != 0 }

// used returns what the request is charged for, and how that is known.
func (x *exchange) used() (Basis, price.Usage) {
	if x.meter != nil {
		reported := x.meter.Usage()
		if reported.Known && !reported.Partial {
			return Reported, priceUsage(reported)
		}
		if x.billedAsStreamed() {
			u := x.worstCase()
			_, outputBytes := x.meter.Output() // no token is less than a byte
			u[price.Output] = min(u[price.Output], outputBytes)
			return Estimated, u
		}
	}
	return Unconfirmed, x.worstCase()
}

// billedAsStreamed says whether the catalogue has it that a stream of this
// model that broke off is charged for what was streamed. One that ended as it
// should, without usage, says nothing of what it cost.
func (x *exchange) billedAsStreamed() bool {
	globs := x.req.VirtualKey.Target.Provider().BilledAsStreamed
	return x.stream && !x.whole && len(globs) > 0 && Allows(globs, x.params.Model)
}

// priceUsage is usage in the units of prices.
func priceUsage(u wire.Usage) (p price.Usage) {
	p[price.Input], p[price.CacheRead], p[price.CacheWrite], p[price.InputAudio] = u.Input, u.CacheRead, u.CacheWrite, u.InputAudio
	p[price.Output], p[price.OutputReasoning], p[price.OutputAudio], p[price.OutputImage] = u.Output, u.Reasoning, u.OutputAudio, u.OutputImage
	p[price.Requests] = 1
	return p
}

// charge prices o.Usage.
func (x *exchange) charge(o *Outcome) {
	if !x.params.Kind.Metered() {
		o.Unpriced = true
		return
	}
	if cost, ok := x.reportedCost(); ok && o.Basis == Reported {
		o.Cost = cost
		return
	}
	if x.price == nil {
		o.Unpriced = true
		return
	}
	if o.Basis == Unconfirmed {
		worst, ok := x.worstCost(x.bound())
		o.Cost.Total, o.Unpriced = worst, !ok
		return
	}
	cost := (*price.Match).Cost
	if o.Basis == Reported && !x.meter.Usage().OutputSplit {
		cost = (*price.Match).CostUnsplit
	}
	o.Cost = cost(x.price, o.Usage)
	for _, other := range x.otherPrices { // whichever of them ran
		if c := cost(other, o.Usage); c.Total > o.Cost.Total {
			o.Cost = c
		}
	}
	o.Unpriced = o.Cost.Unpriced
}

// reportedCost is what the provider says that the answer cost, where the
// catalogue has it that this is what it charges. With a key of the customer's
// own behind a reseller, what the maker charges is added.
func (x *exchange) reportedCost() (price.Cost, bool) {
	if x.meter == nil || !x.req.VirtualKey.Target.Provider().ReportsCost {
		return price.Cost{}, false
	}
	u := x.meter.Usage()
	usd, ok := decimal(u.ProviderCostUSD)
	if ok && u.OwnKey {
		var upstream *big.Rat
		if upstream, ok = decimal(u.UpstreamCostUSD); ok {
			usd.Add(usd, upstream)
		}
	}
	if !ok || usd.Sign() <= 0 {
		return price.Cost{}, false
	}
	nano := usd.Mul(usd, new(big.Rat).SetInt64(int64(price.USD)))
	total := new(big.Int).Add(nano.Num(), new(big.Int).Sub(nano.Denom(), big.NewInt(1)))
	total.Quo(total, nano.Denom())
	if !total.IsInt64() {
		return price.Cost{}, false
	}
	return price.Cost{Total: price.NanoUSD(total.Int64())}, true
}

// decimal reads an amount from 0 to a billion.
func decimal(text string) (*big.Rat, bool) {
	// The float only rules out what would make an exact number huge.
	size, err := strconv.ParseFloat(text, 64)
	if err != nil || size < 0 || size > 1e9 || size > 0 && size < 1e-30 || len(text) > 64 {
		return nil, false
	}
	if size == 0 { // 0e-999999999 is a zero too, and would be as huge
		return new(big.Rat), true
	}
	return new(big.Rat).SetString(text)
}

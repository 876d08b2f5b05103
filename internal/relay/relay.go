// SPDX-License-Identifier: MPL-2.0

// Package relay takes a request on a virtual key to the provider and back.
//
// There is one pipeline, and every front door calls it; the doors differ only
// in how bytes come in and go out:
//
//	check the virtual key -> read the request -> policy -> reserve -> build the
//	upstream request -> send -> copy the answer back while metering -> settle
//
// Each request is settled exactly once, on every way out, and its Outcome is
// reported.
//
// It promises that the provider key goes to the provider's own endpoint and
// nowhere else: only allow-listed headers pass, redirects are not followed,
// and an answer that echoes the key is masked. It knows nothing of Vault, of
// roles in storage or of who the caller is: a door has authorised the caller
// before it calls Serve.
package relay

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"time"

	"vault-plugin-secrets-portkey/internal/apierror"
	"vault-plugin-secrets-portkey/internal/ledger"
	"vault-plugin-secrets-portkey/internal/price"
	"vault-plugin-secrets-portkey/internal/provider"
	"vault-plugin-secrets-portkey/internal/wire"
)

// VirtualKey is what the relay needs to know of a role and of the provider key
// behind it. It is immutable.
type VirtualKey struct {
	// Name is the virtual identifier that apps use.
	Name string
	// Disabled virtual keys refuse every request.
	Disabled bool
	// ExpiresAt is when the virtual key stops working; zero means never.
	ExpiresAt time.Time
	// Models is the allow-list, as globs in which * stands for any text; empty
	// allows every model.
	Models []string
	// Defaults are request members that are filled in when the caller left
	// them out; Forced ones win over the caller's. Values are JSON.
	Defaults, Forced map[string]json.RawMessage
	// Target is the provider's endpoint and its authentication.
	Target *provider.Target
	// Limits are what requests are held against; nil means none.
	Limits *ledger.Policy
	// MinOutputTokens is the least that a lowered cap on output leaves for each
	// choice; 0 means 256, or 4,096 for reasoning models.
	MinOutputTokens int64
	// KeepCap forbids lowering a request's cap on output: it is refused instead.
	KeepCap bool
	// AllowUnbounded lets requests through whose worst case nobody can say,
	// AllowUnmetered those on routes that aren't metered.
	AllowUnbounded, AllowUnmetered bool
}

// Request is one call on a virtual key, whichever door it came in by.
type Request struct {
	VirtualKey *VirtualKey
	// Method is the HTTP method for the provider.
	Method string
	// Path is the provider path as its own SDK appends it to the host, without
	// the leading slash: "v1/chat/completions".
	Path string
	// RawQuery is the encoded query string, without "?".
	RawQuery string
	// Header is the caller's; only what is on the allow-list goes on.
	Header http.Header
	// Body is the request's JSON text; empty for none. Object, if given, is the
	// same already parsed, and Body isn't read: the relay may edit it.
	Body   []byte
	Object *wire.Object
	// Upload, if given, is a body that isn't JSON, in place of the two.
	Upload *Upload
	// Timeout bounds the whole exchange with the provider, its answer
	// included; it must be positive. Idle, if positive, bounds each wait for
	// more of an answer that has begun.
	Timeout, Idle time.Duration
	// Book prices the request, from its beginning to its end; without one,
	// nothing has a price.
	Book *price.Book
	// DefaultOutputCap is how many output tokens a request may use that names
	// no cap: what is reserved for it, and charged for an unknown outcome.
	DefaultOutputCap int64
	// Ledger keeps the limits; it may be nil if the virtual key has none.
	Ledger *ledger.Ledger
	// Entity is the caller's Vault entity, empty for none; limits may count
	// entities apart. Zone is where their calendar windows begin; nil means UTC.
	Entity string
	Zone   *time.Location
	// Cancel, if given, ends the context that Serve is called with, by a cause. The
	// relay ends the exchange by it where it takes too long, rather than by a context
	// of its own. The door must call it too, after Serve.
	Cancel context.CancelCauseFunc
	// Settled, if given, is told the outcome, once, before Serve returns.
	Settled func(Outcome)
}

// Upload is a body that goes to the provider as it is read, such as a form with
// files. Its media type is the Content-Type of Request.Header.
type Upload struct {
	// Body is read once, from its beginning, and not after Serve. If its error is an
	// *apierror.Error, that is the answer, unless one has begun.
	Body io.Reader
	// Interrupt, if given, makes a Read of Body that waits for more return soon. It is
	// called when the exchange ends before all of Body was read, as it may: a provider
	// that refuses a request need not read it. What Body's error says after that counts
	// for nothing. It must not block, and isn't called after Serve.
	Interrupt func()
	// Length is its length in bytes, -1 if that isn't known.
	Length int64
	// Model is the one that it names; empty for none.
	Model string
}

// Answer is where a door takes the answer. The relay writes it like any
// handler; when the provider breaks off after the answer has begun, it calls
// Abort once and nothing more.
type Answer interface {
	http.ResponseWriter
	// Abort says that the body written so far is not the whole answer, and
	// why. The door must not let the caller take it for whole.
	Abort(*apierror.Error)
}

// Relay is the pipeline. It is safe for concurrent use.
type Relay struct {
	transport http.RoundTripper
	streams   http.RoundTripper // for requests that ask for a stream
	traced    bool              // the transport tells what it does (net/http/httptrace)
	now       func() time.Time
	panicked  func(stack string)
	counter   *counter
}

// Options are the relay's parameters.
type Options struct {
	// Transport takes requests to providers, and Streams those that ask for a
	// stream; nil is Transport. See NewTransport and NewStreamTransport.
	Transport, Streams http.RoundTripper
	// Now is the clock of expiry; nil means time.Now.
	Now func() time.Time
	// Panicked is told of a panic that was recovered, by its stack. The
	// panic's value is withheld, since it may hold a secret. nil ignores.
	Panicked func(stack string)
}

// New returns a relay.
func New(o Options) *Relay {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Panicked == nil {
		o.Panicked = func(string) {}
	}
	if o.Streams == nil {
		o.Streams = o.Transport
	}
	_, traced := o.Transport.(*http.Transport)
	return &Relay{transport: o.Transport, streams: o.Streams, traced: traced, now: o.Now, panicked: o.Panicked, counter: newCounter()}
}

// TraceHeader carries the identifier of one exchange. It is always sent,
// because Portkey's SDKs retry a 5xx answer that lacks it.
const TraceHeader = "X-Portkey-Trace-Id"

// Serve runs one request through the pipeline and writes the answer, or the
// error that stands for it, on w. It returns when the exchange is over. The
// end of ctx cancels the upstream request: the caller has gone, unless the cause
// (context.Cause) is an *apierror.Error, which is then the answer.
func (r *Relay) Serve(ctx context.Context, w Answer, req *Request) {
	x := &exchange{req: req, started: r.now(), counter: r.counter, outputCap: -1}
	defer r.settle(x)
	r.contain(func() {
		w.Header()[TraceHeader] = []string{rand.Text()}
		x.failure = unfinished // unless it returns
		x.failure = r.relay(ctx, w, x)
	})
	if x.failure != nil {
		r.contain(func() { fail(w, x.begun, x.failure) }) // a door may panic again
	}
}

// settle decides what the request is charged and tells the ledger and the door,
// each once. Should the decision panic, all that is reserved is charged.
func (r *Relay) settle(x *exchange) {
	defer x.reservation.Settle(ledger.Charge{Amounts: x.reservation.Amounts, Unconfirmed: true})
	r.contain(func() {
		o := x.settle(x.failure, r.now())
		if x.charged { // at the answer's end
			o.BoundExceeded = x.exceeded
		} else {
			o.BoundExceeded = x.reservation.Settle(x.chargeOf(&o))
		}
		if x.req.Settled != nil {
			x.req.Settled(o)
		}
	})
}

// contain calls f and reports its panic, if any, without its value.
func (r *Relay) contain(f func()) {
	defer func() {
		if recover() != nil {
			r.panicked(string(debug.Stack()))
		}
	}()
	f()
}

// fail ends the exchange with err: as the answer where none has begun, as an
// event in a stream that broke off.
func fail(w Answer, begun bool, err *apierror.Error) {
	if !begun {
		err.Write(w)
		return
	}
	if IsEventStream(w.Header()) {
		writeErrorEvent(w, err)
		flush(w) // the door may be about to close
	}
	w.Abort(err)
}

func (r *Relay) relay(ctx context.Context, w Answer, x *exchange) *apierror.Error {
	if err := r.checkVirtualKey(x.req.VirtualKey); err != nil {
		return err
	}
	body, err := x.checkRequest()
	if err != nil {
		return err
	}
	endpoint, err := locate(x.req)
	if err != nil {
		return err
	}
	x.ctx = ctx
	payload, err := x.reserve(ctx, w, body)
	if err != nil {
		return err
	}
	x.admitted = true
	cancel := x.req.Cancel
	if cancel == nil {
		ctx, cancel = context.WithCancelCause(ctx)
		defer cancel(nil)
	}
	x.watch.start(x.req.Timeout, x.req.Idle, endpoint.URL.Host, cancel)
	defer x.watch.stop()
	defer func() { _ = x.upload.end() }()
	resp, err := r.send(ctx, x, endpoint, payload)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	err = x.copyAnswer(ctx, w, resp)
	if x.upload != nil && x.begun && !x.sent.Load() {
		flush(w) // the end of the upload may be waited for
	}
	if verdict := x.upload.end(); err != nil && verdict != nil && ctx.Err() == nil {
		return verdict
	}
	return err
}

// CloseIdleConnections closes connections to providers that no request is on.
func (r *Relay) CloseIdleConnections() {
	for _, transport := range []http.RoundTripper{r.transport, r.streams} {
		if t, ok := transport.(interface{ CloseIdleConnections() }); ok {
			t.CloseIdleConnections()
		}
	}
}

// unfinished is the failure of a request that is under way; nobody changes it.
var unfinished = internalError()

func internalError() *apierror.Error {
	return &apierror.Error{
		Status: http.StatusInternalServerError, Type: apierror.TypeAPI, Code: apierror.CodeInternal,
		Message: "internal error in the virtual key plugin; its log on the Vault server has the details",
	}
}

// NotFound is the answer for a virtual key that doesn't exist.
func NotFound(name string) *apierror.Error {
	return &apierror.Error{
		Status: http.StatusNotFound, Type: apierror.TypeInvalidRequest, Code: apierror.CodeVirtualKeyNotFound,
		Message: fmt.Sprintf("virtual key %q does not exist; `vault list <mount>/roles` shows those that do", name),
	}
}

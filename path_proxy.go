// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-portkey/internal/apierror"
	"vault-plugin-secrets-portkey/internal/relay"
)

const proxyPrefix = "proxy/"

func (b *backend) pathProxy() []*framework.Path {
	answer := map[int][]framework.Response{http.StatusOK: {{
		Description: "The provider's answer, byte for byte, with the provider's status.", MediaType: "application/json",
	}}}
	operation := func(summary, verb string) framework.OperationHandler {
		return &framework.PathOperation{
			Callback: b.proxy, Summary: summary, Responses: answer,
			ForwardPerformanceStandby: true, ForwardPerformanceSecondary: false,
			DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationVerb: verb, OperationSuffix: "completion"},
		}
	}
	return []*framework.Path{
		b.pathProxyCLI(),
		{
			// The name is whatever stands there, so that a wrong one is answered
			// in the shape that SDKs read.
			Pattern: proxyPrefix + `(?P<virtual_key>[^/]+)/(?P<provider_path>.+)`,
			Fields: map[string]*framework.FieldSchema{
				"virtual_key":   {Type: framework.TypeString, Description: "Name of the virtual key."},
				"provider_path": {Type: framework.TypeString, Description: "What the provider's own SDK appends to the host, such as v1/chat/completions."},
			},
			TakesArbitraryInput: true,
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.ReadOperation:   operation("GET from the provider.", "read"),
				logical.UpdateOperation: operation("POST to the provider.", "request"),
				logical.DeleteOperation: operation("DELETE at the provider.", "delete"),
			},
			HelpSynopsis:    "The provider's API, on a virtual key.",
			HelpDescription: proxyHelp,
		},
	}
}

// proxy is the inline door: it turns Vault's request into the relay's, and the
// relay's answer into one of Vault's.
func (b *backend) proxy(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	// Names in the body may equal those of the captures, so both are read from
	// where they came: the path, and the body.
	name, path, _ := strings.Cut(strings.TrimPrefix(req.Path, proxyPrefix), "/")
	if nonce, given := nonceOf(req); given {
		return b.testify(req, nonce), nil
	}
	if elsewhere := b.redirect(req); elsewhere != nil {
		return elsewhere, nil
	}
	answer := b.serveInline(ctx, req, b.onVirtualKey(ctx, req, name, func(r *relay.Request) error {
		r.Path = path
		r.Method = methodOf(req.Operation)
		if req.Operation != logical.UpdateOperation {
			r.RawQuery = queryOf(req.Data).Encode()
			return nil
		}
		var err error
		r.Body, err = bodyOf(req.Data)
		return err
	}))
	return answer.response(), nil
}

// inlineRequest makes the relay's request of a call, all but the caller's header and
// the times. What comes of it goes to outcome.
type inlineRequest func(settings *settings, outcome *relay.Outcome) (*relay.Request, *apierror.Error)

// onVirtualKey makes the request of a call on the virtual key called name. fill adds
// what the caller sends; its error is the caller's.
func (b *backend) onVirtualKey(ctx context.Context, req *logical.Request, name string, fill func(*relay.Request) error) inlineRequest {
	return func(settings *settings, outcome *relay.Outcome) (*relay.Request, *apierror.Error) {
		call, refusal := b.relayRequest(ctx, req.Storage, settings, name, payer{entity: req.EntityID}, outcome)
		if refusal != nil {
			return nil, refusal
		}
		if err := fill(call); err != nil {
			return nil, &apierror.Error{
				Status: http.StatusBadRequest, Type: apierror.TypeInvalidRequest, Code: apierror.CodeInvalidRequest, Message: err.Error(),
			}
		}
		return call, nil
	}
}

// serveInline takes one call through checks and relay, and returns what the caller
// gets.
func (b *backend) serveInline(ctx context.Context, req *logical.Request, prepare inlineRequest) *bufferedAnswer {
	refuse := func(e *apierror.Error) *bufferedAnswer {
		answer := newBufferedAnswer(0)
		e.Write(answer)
		return answer
	}
	if err := b.activity.await(ctx); err != nil {
		return refuse(notActive(err))
	}
	settings, err := b.readSettings(ctx, req.Storage)
	if err != nil {
		return refuse(storageUnavailable(err))
	}
	limit := settings.inlineMaxConcurrent()
	if !b.inline.enter(limit) {
		return refuse(&apierror.Error{
			Status: http.StatusTooManyRequests, Type: apierror.TypeRequests, Code: apierror.CodeRateLimitExceeded, RetryAfter: time.Second,
			Message: fmt.Sprintf("%d calls are already under way on the inline path, the most that inline_max_concurrent allows; try again shortly", limit),
		})
	}
	defer b.inline.leave()
	// The instance's end waits for the calls that are counted in: one that was
	// counted after it must not go on.
	if err := b.activity.await(ctx); err != nil {
		return refuse(notActive(err))
	}

	answer := newBufferedAnswer(settings.inlineMaxAnswerBytes())
	call, refusal := prepare(settings, &answer.outcome)
	if refusal != nil {
		return refuse(refusal)
	}
	answer.redactions, answer.budget = call.VirtualKey.Target.Redactions(), &b.buffered
	defer answer.release()
	call.Header, call.Timeout = http.Header(req.Headers), settings.upstreamTimeout()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(b.activity.ctx, cancel)()
	if b.activity.ctx.Err() != nil { // it ended while storage was read, and cancel may yet be to run
		return refuse(notActive(b.activity.await(ctx)))
	}
	b.metrics.inFlight.Inc()
	defer b.metrics.inFlight.Dec()
	b.relay.Serve(ctx, answer, call)
	return answer
}

// payer is whom a request is counted for besides its virtual key: the caller's entity
// and the prompt template, each empty for none.
type payer struct{ entity, prompt string }

// relayRequest is what every door hands to the relay for a request on the virtual key
// called name: all but what the caller sends, and how long it may take. outcome, if
// given, takes what came of it.
func (b *backend) relayRequest(ctx context.Context, storage logical.Storage, settings *settings, name string, from payer, outcome *relay.Outcome) (*relay.Request, *apierror.Error) {
	vk, refusal := b.virtualKey(ctx, storage, settings, name, from.entity)
	if refusal != nil {
		if refusal.Code != apierror.CodeVirtualKeyNotFound {
			b.spend(settings, from, relay.Outcome{VirtualKey: name, Result: relay.Refused, Code: refusal.Code, Started: b.now()})
		}
		return nil, refusal
	}
	book, err := b.prices.current(ctx, storage)
	if err != nil {
		return nil, storageUnavailable(err)
	}
	return &relay.Request{
		VirtualKey: vk, Book: book, DefaultOutputCap: int64(settings.outputCap()),
		Ledger: b.ledger.Load(), Entity: from.entity, Zone: settings.location(),
		Settled: func(o relay.Outcome) {
			if outcome != nil {
				*outcome = o
			}
			b.spend(settings, from, o)
		},
	}, nil
}

// virtualKey finds the role called name and the provider key behind it, and
// says whether the caller may use it. Vault's policies have admitted the
// caller to the path already.
func (b *backend) virtualKey(ctx context.Context, storage logical.Storage, settings *settings, name, entity string) (*relay.VirtualKey, *apierror.Error) {
	r, err := b.roles.get(ctx, storage, name)
	if err != nil {
		return nil, storageUnavailable(err)
	}
	if r == nil {
		return nil, relay.NotFound(name)
	}
	if refusal := r.authorise(b.System(), name, entity); refusal != nil {
		return nil, refusal
	}
	key, err := b.keys.get(ctx, storage, r.Key)
	if err != nil {
		return nil, storageUnavailable(err)
	}
	if key == nil {
		return nil, storageUnavailable(fmt.Errorf("provider key %q of virtual key %q does not exist", r.Key, name))
	}
	if err := settings.permits(key.target.Base()); err != nil {
		return nil, &apierror.Error{
			Status: http.StatusForbidden, Type: apierror.TypeInvalidRequest, Code: apierror.CodeUpstreamNotAllowed,
			Message: fmt.Sprintf("virtual key %q can't be used: %s", name, err),
		}
	}
	return &relay.VirtualKey{
		Name: name, Disabled: r.Disabled, ExpiresAt: r.ExpiresAt, Models: r.Models,
		Defaults: r.DefaultParams, Forced: r.ForcedParams, Target: key.target,
		Limits: r.limits, MinOutputTokens: int64(r.MinOutputTokens), KeepCap: r.KeepCap,
		AllowUnbounded: r.AllowUnbounded, AllowUnmetered: r.AllowUnmetered,
	}, nil
}

func notActive(err error) *apierror.Error {
	return &apierror.Error{
		Status: http.StatusServiceUnavailable, Type: apierror.TypeAPI, Code: apierror.CodeNotActive, Message: err.Error(), RetryAfter: time.Second,
	}
}

func storageUnavailable(err error) *apierror.Error {
	return &apierror.Error{
		Status: http.StatusServiceUnavailable, Type: apierror.TypeAPI, Code: apierror.CodeStorage,
		Message: "Vault's storage gave no usable answer: " + err.Error(),
	}
}

// bodyOf is the JSON text of what Vault decoded. Vault has lost the order of
// keys and the precision of numbers beyond 2^53 by then; the gateway doesn't.
func bodyOf(data map[string]any) ([]byte, error) {
	if len(data) == 0 {
		return nil, nil
	}
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(data); err != nil {
		return nil, fmt.Errorf("the body can't be forwarded: %w", err)
	}
	return bytes.TrimSuffix(text.Bytes(), []byte("\n")), nil
}

// queryOf is the query string that Vault decoded.
func queryOf(data map[string]any) url.Values {
	query := url.Values{}
	for name, value := range data {
		switch v := value.(type) {
		case []any:
			for _, item := range v {
				query.Add(name, fmt.Sprint(item))
			}
		default:
			query.Add(name, fmt.Sprint(v))
		}
	}
	return query
}

// inlineCalls counts the inline calls under way. Vault holds locks while one
// runs, so there is a most.
type inlineCalls struct{ n atomic.Int64 }

// enter counts a call in, unless limit are under way.
func (c *inlineCalls) enter(limit int) bool {
	for {
		n := c.n.Load()
		if n >= int64(limit) {
			return false
		}
		if c.n.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (c *inlineCalls) leave() { c.n.Add(-1) }

// drain waits until no call is under way, or ctx ends.
func (c *inlineCalls) drain(ctx context.Context) {
	for c.n.Load() > 0 && ctx.Err() == nil {
		time.Sleep(2 * time.Millisecond)
	}
}

const proxyHelp = `
Point an OpenAI SDK's base_url at <vault address>/v1/<mount>/proxy/<name>/v1 and
give it a Vault token as api_key. The token needs "update" on the path for POST,
"read" for GET and "delete" for DELETE.

Vault carries JSON objects only, and one answer per call: a stream arrives whole
when it is complete, uploads don't pass, and a call ends after upstream_timeout.
`

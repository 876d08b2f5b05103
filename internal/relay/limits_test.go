// SPDX-License-Identifier: MPL-2.0

package relay

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-portkey/internal/ledger"
	"vault-plugin-secrets-portkey/internal/price"
)

// limit gives the request's virtual key these hard limits, on a ledger of its
// own in which nobody waits for reservations.
func limit(t testing.TB, req *Request, texts ...string) {
	t.Helper()
	limitWith(t, req, ledger.PolicyOptions{}, ledger.Options{QueueWait: -1}, texts...)
}

func limitSoftly(t testing.TB, req *Request, texts ...string) {
	t.Helper()
	limitWith(t, req, ledger.PolicyOptions{Soft: true}, ledger.Options{QueueWait: -1}, texts...)
}

func limitWith(t testing.TB, req *Request, p ledger.PolicyOptions, o ledger.Options, texts ...string) {
	t.Helper()
	raw := make([]any, len(texts))
	for i, text := range texts {
		raw[i] = text
	}
	limits, err := ledger.ParseLimits(raw)
	if err != nil {
		t.Fatal(err)
	}
	p.Account, p.Name, p.Limits = "id-1", req.VirtualKey.Name, limits
	if o.Storage == nil {
		o.Storage = &logical.InmemStorage{}
	}
	o.Prefix, o.Owner = "ledger/", "test"
	l, err := ledger.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(context.Background(), 0); err != nil {
			t.Error(err)
		}
	})
	vk := *req.VirtualKey
	vk.Limits = ledger.NewPolicy(p)
	req.VirtualKey, req.Ledger = &vk, l
}

// countOnly is req with limits that count everything, and alter and refuse
// nothing.
func countOnly(t testing.TB, req *Request) *Request {
	t.Helper()
	counting := *req
	limits := []string{"requests=1000000/day", "tokens=1000000000/day", "input_tokens=1000000000/total", "output_tokens=1000000000/hour", "concurrent=9"}
	var named struct{ Model string }
	if json.Unmarshal(req.Body, &named) == nil && req.Book != nil {
		if _, priced := req.Book.Find(req.VirtualKey.Target.Provider().ID, named.Model, time.Now()); priced {
			limits = append(limits, "usd=1000000000/month")
		}
	}
	limitSoftly(t, &counting, limits...)
	counting.VirtualKey.AllowUnmetered = true
	return &counting
}

// counted is what limits have counted, by unit; concurrent is what is under way.
type counted [ledger.NumUnits]int64

// countOf is what limits must count of an outcome.
func countOf(o Outcome) (c counted) {
	reached := o.Status != 0 && o.Status < http.StatusMultipleChoices || o.Basis != Free
	if o.Result == Refused || !reached {
		return c
	}
	c[ledger.Requests] = 1
	if o.Basis == Free {
		return c
	}
	c[ledger.USD] = int64(o.Cost.Total)
	c[ledger.InputTokens], c[ledger.OutputTokens] = o.Usage[price.Input], o.Usage[price.Output]
	c[ledger.Tokens] = c[ledger.InputTokens] + c[ledger.OutputTokens]
	return c
}

func statuses(t testing.TB, req *Request) []ledger.Status {
	t.Helper()
	var all []ledger.Status
	for _, perEntity := range []bool{false, true} {
		list, err := req.Ledger.Status(t.Context(), req.VirtualKey.Limits, ledger.Selection{PerEntity: perEntity, Entity: req.Entity, Zone: req.Zone})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, list...)
	}
	return all
}

// wantCounted holds every limit against want; nothing may be reserved.
func wantCounted(t testing.TB, req *Request, want counted) {
	t.Helper()
	for _, s := range statuses(t, req) {
		unit := s.Limit.Unit
		if s.Used != want[unit] || s.Reserved != 0 {
			t.Errorf("%s counts %s and holds %s, want %s", s.Limit, unit.Format(s.Used), unit.Format(s.Reserved), unit.Format(want[unit]))
		}
	}
}

// only is an amount of one unit.
func only(unit ledger.Unit, amount int64) (a ledger.Amounts) {
	a[unit] = amount
	return a
}

// spend uses so much of a unit up, on every limit of it.
func spend(t testing.TB, req *Request, unit ledger.Unit, amount int64) {
	t.Helper()
	reserve(t, req, unit, amount).Settle(ledger.Charge{Amounts: only(unit, amount)})
}

// reserve holds so much of a unit, as a request under way does.
func reserve(t testing.TB, req *Request, unit ledger.Unit, amount int64) *ledger.Reservation {
	t.Helper()
	r := &ledger.Reservation{}
	request := ledger.Request{Entity: req.Entity, Model: "m", Amounts: only(unit, amount), Zone: req.Zone}
	if refusal := req.Ledger.Reserve(t.Context(), req.VirtualKey.Limits, &request, r); refusal != nil {
		t.Fatal(refusal)
	}
	t.Cleanup(func() { r.Settle(ledger.Charge{}) })
	return r
}

// telling is a provider that keeps what it was sent.
type telling struct {
	answer script
	bodies []string
}

func (p *telling) RoundTrip(r *http.Request) (*http.Response, error) {
	text := ""
	if r.Body != nil {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		text = string(b)
	}
	p.bodies = append(p.bodies, text)
	if p.answer != nil {
		return p.answer(r)
	}
	return answers(200, jsonType, answerText)(r)
}

// served is one request, and what came of it.
type served struct {
	*recorder
	Outcome
	sent string // the body that the provider got; empty if it got none
}

func serve(t testing.TB, req *Request, answer script) served {
	t.Helper()
	provider, w := &telling{answer: answer}, newRecorder()
	o := settled(t.Context(), t, provider, w, req)
	s := served{recorder: w, Outcome: o}
	if len(provider.bodies) > 0 {
		s.sent = provider.bodies[0]
	}
	return s
}

// wantRefused says how the request was refused, and what the message says.
func (s served) wantRefused(t testing.TB, status int, errorType, errorCode string, says ...string) {
	t.Helper()
	var e struct {
		Error struct{ Message, Type, Code string }
	}
	if err := json.Unmarshal(s.Body.Bytes(), &e); err != nil {
		t.Fatalf("%d %q: %v", s.recorder.Code, s.Body, err)
	}
	if s.recorder.Code != status || e.Error.Type != errorType || e.Error.Code != errorCode {
		t.Fatalf("answered %d %s/%s, want %d %s/%s: %s", s.recorder.Code, e.Error.Type, e.Error.Code, status, errorType, errorCode, e.Error.Message)
	}
	if s.Result != Refused || s.sent != "" || s.Code != errorCode {
		t.Errorf("refused, yet %s; sent %q", s.Result, s.sent)
	}
	for _, part := range says {
		if !strings.Contains(e.Error.Message, part) {
			t.Errorf("the message %q doesn't say %q", e.Error.Message, part)
		}
	}
}

// wantAnswered says that the provider's answer came.
func (s served) wantAnswered(t testing.TB) {
	t.Helper()
	if s.recorder.Code != 200 || s.Result == Refused {
		t.Fatalf("answered %d %s", s.recorder.Code, s.Body)
	}
}

// wantCap says what cap the provider got in which member; 0 for the caller's
// own request, unchanged.
func (s served) wantCap(t testing.TB, field string, outputCap int64, of *Request) {
	t.Helper()
	header := s.Header().Get(CappedHeader)
	if outputCap == 0 {
		if s.sent != string(of.Body) || header != "" || s.Capped != 0 {
			t.Errorf("the provider got %s, %s %q, capped %d", s.sent, CappedHeader, header, s.Capped)
		}
		return
	}
	var members map[string]any
	if err := json.Unmarshal([]byte(s.sent), &members); err != nil {
		t.Fatalf("%q: %v", s.sent, err)
	}
	if members[field] != float64(outputCap) || header != fmt.Sprint(outputCap) || s.Capped != outputCap {
		t.Errorf("the provider got %s, %s %q, capped %d; want %s of %d", s.sent, CappedHeader, header, s.Capped, field, outputCap)
	}
}

// SPDX-License-Identifier: MPL-2.0

package relay

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/internal/apierror"
	"vault-plugin-secrets-portkey/internal/price"
	"vault-plugin-secrets-portkey/internal/sandbox"
)

// sandboxRequest runs on the sandbox, by the transport that the engine uses.
func sandboxRequest(t *testing.T, text string) (*Request, http.RoundTripper) {
	t.Helper()
	req := chatRequest(t, text)
	req.VirtualKey.Target = targetAt(t, "sandbox", "")
	table, err := loadTable()
	if err != nil {
		t.Fatal(err)
	}
	const perMillion = 1_000_000
	prices := map[price.Unit]price.NanoUSD{price.Input: inputRate * perMillion, price.Output: outputRate * perMillion}
	req.Book = price.NewBook(table, nil, []price.Override{{Provider: "sandbox", Model: "sandbox-*", Prices: prices}})
	transport := NewTransport(sandbox.New(sandbox.Options{}))
	t.Cleanup(transport.CloseIdleConnections)
	return req, transport
}

func sandboxText(model string, stream bool) string {
	return fmt.Sprintf(`{"model":%q,"max_tokens":50,"stream":%v,"messages":%s}`, model, stream, messages)
}

func TestSettle_AStreamThatBreaksOffIsEstimatedWhereTheCatalogueSaysSo(t *testing.T) {
	for name, c := range map[string]struct {
		model  string
		stream bool
		basis  Basis
		result Result
	}{
		"cut":                   {"sandbox-small:tokens=40:fail=cut", true, Estimated, Failed},
		"cut, reasoning hidden": {"sandbox-reasoning:fail=cut", true, Unconfirmed, Failed},
		"cut, no stream":        {"sandbox-small:tokens=40:fail=cut", false, Unconfirmed, Failed},
		"reset":                 {"sandbox-small:fail=reset", true, Unconfirmed, Failed},
		"error event":           {"sandbox-small:tokens=40:fail=error-event", true, Unconfirmed, Failed},
		"whole, without usage":  {"sandbox-small:no-usage", true, Unconfirmed, Succeeded},
		"whole":                 {"sandbox-small:tokens=40", true, Reported, Succeeded},
	} {
		t.Run(name, func(t *testing.T) {
			req, transport := sandboxRequest(t, sandboxText(c.model, c.stream))
			w := newRecorder()
			o := settled(t.Context(), t, transport, w, req)
			if o.Basis != c.basis || o.Result != c.result || o.Unpriced || o.Cost.Total <= 0 {
				t.Fatalf("settled as %+v after %s", o, w.Body)
			}
			switch c.basis {
			case Estimated:
				streamedText := int64(contentBytes(w.Body.String()))
				if want := min(outputCap, streamedText); o.Usage[price.Output] != want || o.Usage[price.Input] != int64(worstInput) {
					t.Errorf("usage %v; %d bytes were streamed", o.Usage, streamedText)
				}
				if o.Cost.Total != price.NanoUSD(o.Usage[price.Input]*inputRate+o.Usage[price.Output]*outputRate) {
					t.Errorf("cost %s of %v", o.Cost.Total, o.Usage)
				}
			case Unconfirmed:
				if o.Usage[price.Output] != outputCap {
					t.Errorf("usage %v", o.Usage)
				}
			}
		})
	}
}

// contentBytes is the length of all content of a stream's chunks, as JSON.
func contentBytes(stream string) (n int) {
	for _, part := range strings.Split(stream, `"content":"`)[1:] {
		text, _, _ := strings.Cut(part, `"`)
		n += len(text)
	}
	return n
}

func TestSettle_AnEstimateIsNeverMoreThanTheBoundAndCountsWhatWasStreamed(t *testing.T) {
	// A provider of one long chunk, and one of none, both broken off.
	for chunk, want := range map[string]int64{chunkText: 2, strings.Replace(chunkText, "Hi", strings.Repeat("x", 500), 1): outputCap, "": 0} {
		req, _ := sandboxRequest(t, sandboxText("sandbox-small", true))
		o := settled(t.Context(), t, ends(200, streamType, chunk, reset), newRecorder(), req)
		verdict{Failed, Estimated, 200, apierror.CodeUnreachable, price.Usage{price.Input: int64(worstInput), price.Output: want, price.Requests: 1},
			price.NanoUSD(int64(worstInput)*inputRate + want*outputRate), false}.check(t, o)
	}
}

func TestSettle_ASandboxThatStallsTimesOutAndIsEstimated(t *testing.T) {
	req, transport := sandboxRequest(t, sandboxText("sandbox-small:tokens=40:fail=stall", true))
	req.Timeout = 100 * time.Millisecond
	if o := settled(t.Context(), t, transport, newRecorder(), req); o.Basis != Estimated || o.Code != apierror.CodeTimeout {
		t.Errorf("settled as %+v", o)
	}
}

// costAnswer is a provider's answer with usage and this as its cost.
func costAnswer(cost string) string {
	return `{"choices":[{}],"usage":{"prompt_tokens":10,"completion_tokens":5,"cost":` + cost + `}}`
}

func TestSettle_TheProvidersOwnCostIsChargedWhereTheCatalogueTrustsIt(t *testing.T) {
	const byTable = 10*inputRate + 5*outputRate
	for cost, want := range map[string]price.NanoUSD{
		"0.0123": 12_300_000, "1.5e-7": 150, "1E-10": 1, "0.0000000015": 2, "1000000000": 1_000_000_000 * price.USD, "2": 2 * price.USD,
		// No cost to believe: the price is ours.
		"0": byTable, "-1": byTable, "-1e-9": byTable, `"NaN"`: byTable, "NaN": byTable, "null": byTable, `"2"`: byTable, "true": byTable, "[1]": byTable,
		"1e999999999": byTable, "1e-999999999": byTable, "1000000001": byTable, "9e18": byTable, "1e-31": byTable,
		"0." + strings.Repeat("0", 80) + "1": byTable, "1." + strings.Repeat("3", 200): byTable,
	} {
		name := cost[:min(len(cost), 20)]
		relay, served := upstream(t, func(w http.ResponseWriter, r *http.Request) {
			received(r)
			w.Header().Set("Content-Type", jsonType)
			_, _ = w.Write([]byte(costAnswer(cost)))
		})
		req := chatRequest(t, chatText)
		req.VirtualKey.Target = targetAt(t, "openrouter", served.VirtualKey.Target.Base().String())
		o := settled(t.Context(), t, relay.transport, newRecorder(), req)
		if cost == "NaN" { // no JSON, so no usage either
			want = price.NanoUSD(worstCost)
		}
		if o.Cost.Total != want || o.Unpriced {
			t.Errorf("cost %s was charged as %s (%s)", name, o.Cost.Total, o.Basis)
		}
	}
}

func TestSettle_TheProvidersOwnCostIsNoneWhereTheCatalogueDoesNotTrustIt(t *testing.T) {
	o := settled(t.Context(), t, answers(200, jsonType, costAnswer("0.0000001")), newRecorder(), chatRequest(t, chatText))
	if o.Cost.Total != 10*inputRate+5*outputRate {
		t.Errorf("charged %s by what the provider says", o.Cost.Total)
	}
}

func TestSettle_TheProvidersOwnCostPricesAModelWithoutPrice(t *testing.T) {
	req := chatRequest(t, `{"model":"other","messages":`+messages+`}`)
	req.VirtualKey.Target = targetAt(t, "openrouter", "http://127.0.0.1:1/v1")
	o := settled(t.Context(), t, answers(200, jsonType, costAnswer("0.5")), newRecorder(), req)
	if o.Cost.Total != price.USD/2 || o.Unpriced || o.Basis != Reported {
		t.Errorf("settled as %+v", o)
	}
}

// A running figure is no final one: of a stream that broke off, the cost so far
// is less than what is charged.
func TestSettle_TheCostOfAStreamThatBrokeOffIsNotTheRunningFigure(t *testing.T) {
	req := chatRequest(t, chatAsked)
	req.VirtualKey.Target = targetAt(t, "openrouter", "http://127.0.0.1:1/v1")
	running := `data: {"choices":[{"index":0,"delta":{"content":"Hi"}}],"usage":{"prompt_tokens":10,"completion_tokens":1,"cost":0.000000001}}` + "\n\n"
	o := settled(t.Context(), t, ends(200, streamType, running, reset), newRecorder(), req)
	verdict{Failed, Unconfirmed, 200, apierror.CodeUnreachable, worst(), price.NanoUSD(worstCost), false}.check(t, o)
}

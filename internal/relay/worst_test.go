// SPDX-License-Identifier: MPL-2.0

package relay

import (
	"fmt"
	"strings"
	"testing"

	"vault-plugin-secrets-portkey/internal/apierror"
	"vault-plugin-secrets-portkey/internal/price"
)

// tableRequest is a request at a provider itself, with the built-in prices.
func tableRequest(t testing.TB, id, body string) *Request {
	t.Helper()
	table, err := loadTable()
	if err != nil {
		t.Fatal(err)
	}
	req := chatRequest(t, body)
	req.VirtualKey.Target = targetOf(t, id)
	req.Book = price.NewBook(table, nil, nil)
	return req
}

const audioPart = `{"role":"user","content":[{"type":"input_audio","input_audio":{"data":"AAAA","format":"wav"}}]}`

// Media that a provider charges at a rate of its own have a worst case only
// where that rate is known; images in the input cost what text does.
func TestBounds_MediaWithoutAPriceOfTheirOwnAreRefused(t *testing.T) {
	const hi = `"messages":[{"role":"user","content":"hi"}]`
	image := `"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://example.com/a"}}]}]`
	for name, c := range map[string]struct {
		id, body string
		priced   bool
	}{
		"vision":                         {"openai", `{"model":"gpt-4o","max_tokens":10,` + image + `}`, true},
		"vision, at a reseller":          {"openrouter", `{"model":"openai/gpt-4o","max_tokens":10,` + image + `}`, true},
		"audio input":                    {"openai", `{"model":"gpt-4o-audio-preview","max_tokens":10,"messages":[` + audioPart + `]}`, true},
		"audio input, text alone priced": {"openai", `{"model":"gpt-4o","max_tokens":10,"messages":[` + audioPart + `]}`, false},
		"audio input, at a reseller":     {"openrouter", `{"model":"openai/gpt-audio","max_tokens":10,"messages":[` + audioPart + `]}`, false},
		"audio input at text's price":    {"google", `{"model":"gemini-2.5-pro","max_tokens":10,"messages":[` + audioPart + `]}`, true},
		"audio output":                   {"openai", `{"model":"gpt-audio","max_tokens":10,"modalities":["text","audio"],` + hi + `}`, true},
		"audio output, at a reseller":    {"openrouter", `{"model":"openai/gpt-audio","max_tokens":10,"modalities":["text","audio"],` + hi + `}`, false},
		"text of an audio model":         {"openrouter", `{"model":"openai/gpt-audio","max_tokens":10,` + hi + `}`, true},
		"image output":                   {"google", `{"model":"gemini-2.5-flash-image","max_tokens":10,"modalities":["image"],` + hi + `}`, true},
		"image output, at a reseller":    {"openrouter", `{"model":"google/gemini-2.5-flash-image","max_tokens":10,"modalities":["image","text"],` + hi + `}`, false},
		"image output, unasked":          {"openrouter", `{"model":"google/gemini-2.5-flash-image","max_tokens":10,` + hi + `}`, false},
		"image output of a text model":   {"openrouter", `{"model":"openai/gpt-4o","max_tokens":10,"modalities":["image"],` + hi + `}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			req := tableRequest(t, c.id, c.body)
			limit(t, req, "usd=1000/month")
			s := serve(t, req, answers(200, jsonType, noUsage))
			if !c.priced {
				s.wantRefused(t, 403, apierror.TypeInvalidRequest, apierror.CodeModelNotPriced)
				return
			}
			s.wantAnswered(t)
		})
	}
}

// held is what the request's worst case is, in tokens of input.
func heldInput(t *testing.T, id, body string) int64 {
	t.Helper()
	req := tableRequest(t, id, body)
	limit(t, req, "input_tokens=1000000000/day")
	serve(t, req, answers(200, jsonType, noUsage)).wantAnswered(t)
	return statuses(t, req)[0].Used
}

func TestBounds_TheContextWindowIsNoBoundOfText(t *testing.T) {
	text := strings.Repeat("x", 300_000)
	for id, model := range map[string]string{"anthropic": "claude-sonnet-4-5", "mistral-ai": "mistral-large-latest"} {
		if n := heldInput(t, id, fmt.Sprintf(`{"model":%q,"max_tokens":10,"messages":[{"role":"user","content":%q}]}`, model, text)); n < 300_000 {
			t.Errorf("%s: %d tokens are held for a text of 300,000 bytes", model, n)
		}
	}
}

func TestBounds_MediaAreHeldByAWindowThatIsNeverTooSmall(t *testing.T) {
	const image = `{"model":%q,"max_tokens":10,"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://example.com/a"}}]}]}`
	for _, c := range []struct {
		id, model   string
		least, most int64
	}{
		{"openai", "gpt-4.1", 1_047_576, 1_100_000},
		{"openai", "gpt-4o", 128_000, 140_000},
		{"anthropic", "claude-sonnet-4-5", 1_000_000, largestContext},
	} {
		if n := heldInput(t, c.id, fmt.Sprintf(image, c.model)); n < c.least || n > c.most {
			t.Errorf("%s: %d tokens are held", c.model, n)
		}
	}
}

func TestBounds_ACacheOfAnHourIsHeldAtItsPrice(t *testing.T) {
	held := func(ttl string) int64 {
		req := tableRequest(t, "openrouter", `{"model":"anthropic/claude-sonnet-4","max_tokens":10,"messages":[{"role":"user","content":[{"type":"text","text":"`+
			strings.Repeat("x", 100_000)+`","cache_control":{"type":"ephemeral","ttl":"`+ttl+`"}}]}]}`)
		limit(t, req, "usd=1000/month")
		serve(t, req, answers(200, jsonType, noUsage)).wantAnswered(t)
		return statuses(t, req)[0].Used
	}
	// 3 USD a million, to write for minutes 3.75, for an hour 6.
	if minutes, hour := held("5m"), held("1h"); hour < 600_000_000 || minutes > 400_000_000 {
		t.Errorf("%d and %d nano-USD are held", minutes, hour)
	}
}

func TestSettle_WithAnOwnKeyBehindAResellerTheMakersChargeIsAdded(t *testing.T) {
	for name, c := range map[string]struct {
		usage string
		cost  price.NanoUSD
	}{
		"a fee and the maker's":     {`"cost":0.000625,"is_byok":true,"cost_details":{"upstream_inference_cost":0.0125}`, 13_125_000},
		"no fee":                    {`"cost":0,"is_byok":true,"cost_details":{"upstream_inference_cost":1.25e-2}`, 12_500_000},
		"rounded up once":           {`"cost":1e-10,"is_byok":true,"cost_details":{"upstream_inference_cost":1e-10}`, 1},
		"the maker's isn't told":    {`"cost":0.000625,"is_byok":true,"cost_details":{"upstream_inference_cost":null}`, 12_500_000},
		"the maker's isn't there":   {`"cost":0.000625,"is_byok":true`, 12_500_000},
		"the maker's is negative":   {`"cost":0.000625,"is_byok":true,"cost_details":{"upstream_inference_cost":-1}`, 12_500_000},
		"neither costs anything":    {`"cost":0,"is_byok":true,"cost_details":{"upstream_inference_cost":0}`, 12_500_000},
		"a zero that is huge":       {`"cost":0e-999999999,"is_byok":true,"cost_details":{"upstream_inference_cost":0.5}`, 500_000_000},
		"OpenRouter's own key":      {`"cost":0.02,"is_byok":false,"cost_details":{"upstream_inference_cost":0.02}`, 20_000_000},
		"OpenRouter's, unexplained": {`"cost":0.02`, 20_000_000},
	} {
		t.Run(name, func(t *testing.T) {
			req := tableRequest(t, "openrouter", `{"model":"openai/gpt-4o","max_tokens":1000,"messages":[{"role":"user","content":"hi"}]}`)
			limit(t, req, "usd=100/month")
			answer := `{"id":"x","choices":[],"usage":{"prompt_tokens":1000,"completion_tokens":1000,"total_tokens":2000,` + c.usage + `}}`
			s := serve(t, req, answers(200, jsonType, answer))
			s.wantAnswered(t)
			if s.Cost.Total != c.cost || s.Unpriced {
				t.Errorf("it costs %s, want %s", s.Cost.Total, c.cost)
			}
		})
	}
}

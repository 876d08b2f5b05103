// SPDX-License-Identifier: MPL-2.0

package relay

import (
	"strings"
	"testing"

	"vault-plugin-secrets-portkey/internal/apierror"
	"vault-plugin-secrets-portkey/internal/ledger"
	"vault-plugin-secrets-portkey/internal/price"
)

// What the catalogue says of providers, as limits use it.

func TestCap_GivenAsMaxCompletionTokensAloneIsMaxTokensTooWhereThatMayBeAllThatIsRead(t *testing.T) {
	for id, both := range map[string]bool{"openai-compatible": true, "together-ai": true, "openai": false, "google": false} {
		req := chatRequest(t, `{"model":"m","max_completion_tokens":50,"messages":`+messages+`}`)
		if id != "openai-compatible" { // which has no address of its own, and is that of the tests
			req.VirtualKey.Target = targetOf(t, id)
		}
		limit(t, req, "tokens=100000/day")
		s := serve(t, req, nil)
		s.wantAnswered(t)
		sent := s.sent
		if !strings.Contains(sent, `"max_completion_tokens":50`) || strings.Contains(sent, `"max_tokens":50`) != both {
			t.Errorf("%s got %s", id, sent)
		}
	}
}

func TestCap_TheDefaultIsNoMoreThanAProviderTakesUnstreamed(t *testing.T) {
	for body, want := range map[string]int64{
		`{"model":"m","messages":` + messages + `}`:                                                       4096,
		`{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":` + messages + `}`: 16_384,
	} {
		req := uncappedOf(t, "fireworks-ai", "m", 0)
		req.Body = []byte(body)
		limit(t, req, "tokens=100000/day")
		s := serve(t, req, nil)
		s.wantCap(t, "max_tokens", want, req)
	}
}

func TestBounds_AResellersDearerSellerIsUnbounded(t *testing.T) {
	ask := func(id, text string) served {
		req := uncappedOf(t, id, "m", 0)
		req.Body = []byte(`{"model":"m","max_tokens":5,` + text + `"messages":` + messages + `}`)
		limit(t, req, "usd=10/month")
		return serve(t, req, nil)
	}
	ask("openrouter", `"provider":{"order":["dear"]},`).wantRefused(t, 403, apierror.TypeInvalidRequest, apierror.CodeCostUnbounded, "seller")
	ask("openrouter", ``).wantAnswered(t)
	ask("mistral-ai", `"provider":{"order":["dear"]},`).wantAnswered(t)
}

func TestModerations_AreFreeAtOpenAIAndNowhereElse(t *testing.T) {
	ask := func(id string) (served, *Request) {
		req := chatRequest(t, `{"input":"a"}`)
		req.Path = "v1/moderations"
		req.VirtualKey.Target = targetOf(t, id)
		limit(t, req, "usd=1/month", "requests=10/day")
		return serve(t, req, answers(200, jsonType, `{"results":[]}`)), req
	}
	s, req := ask("openai")
	s.wantAnswered(t)
	wantCounted(t, req, counted{ledger.USD: 0, ledger.Requests: 1})
	s, _ = ask("mistral-ai")
	s.wantRefused(t, 403, apierror.TypeInvalidRequest, apierror.CodeModelNotPriced)
}

func TestCharge_ImagesInTheOutputCostWhatTheyCostAtGoogle(t *testing.T) {
	req := chatRequest(t, `{"model":"gemini-2.5-flash-image","max_tokens":2000,"messages":`+messages+`}`)
	req.VirtualKey.Target = targetOf(t, "google")
	table, err := loadTable()
	if err != nil {
		t.Fatal(err)
	}
	req.Book = price.NewBook(table, nil, nil)
	limit(t, req, "usd=1/month")
	serve(t, req, answers(200, jsonType,
		`{"choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":1290,"total_tokens":1300}}`)).wantAnswered(t)
	const image, input = 1290 * 30_000, 10 * 300 // nano-USD, at 30 and 0.30 USD a million
	wantCounted(t, req, counted{ledger.USD: image + input})
}

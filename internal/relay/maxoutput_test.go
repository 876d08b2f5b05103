// SPDX-License-Identifier: MPL-2.0

package relay

import (
	"fmt"
	"testing"

	"vault-plugin-secrets-portkey/internal/ledger"
	"vault-plugin-secrets-portkey/internal/price"
)

// uncappedOf is a request to this model without a cap on its output, at a
// provider and at the prices of the other tests. Window 0 leaves the context
// window to the built-in table.
func uncappedOf(t testing.TB, providerID, model string, window int64) *Request {
	t.Helper()
	req := chatRequest(t, fmt.Sprintf(`{"model":%q,"messages":%s}`, model, messages))
	req.VirtualKey.Target, req.DefaultOutputCap = targetOf(t, providerID), 16_384
	table, err := loadTable()
	if err != nil {
		t.Fatal(err)
	}
	const perMillion = 1_000_000
	req.Book = price.NewBook(table, nil, []price.Override{{Provider: "*", Model: "*", ContextWindow: window, Prices: map[price.Unit]price.NanoUSD{
		price.Input: inputRate * perMillion, price.CacheRead: cachedRate * perMillion, price.Output: outputRate * perMillion,
	}}})
	return req
}

func TestCap_TheDefaultIsNoMoreThanTheModelAllows(t *testing.T) {
	for _, c := range []struct {
		provider, model string
		window          int64
		field           string
		want            int64
	}{
		{"openai", "gpt-4-turbo", 128_000, "max_completion_tokens", 4096},
		{"openai", "gpt-4-turbo", 0, "max_completion_tokens", 4096},
		{"openai", "gpt-3.5-turbo", 16_385, "max_completion_tokens", 4096},
		{"openai", "gpt-4", 8_192, "max_completion_tokens", 4096},
		{"openai", "gpt-4", 0, "max_completion_tokens", 4096},
		{"openai", "gpt-4o", 128_000, "max_completion_tokens", 16_384},
		{"anthropic", "claude-3-haiku-20240307", 200_000, "max_tokens", 4096},
		{"openrouter", "anthropic/claude-3-haiku", 200_000, "max_tokens", 4096},
		{"deepseek", "deepseek-chat", 64_000, "max_tokens", 8192},
		// Nobody knows what these allow, but the window is for input too.
		{"mistral-ai", "mine", 12_000, "max_tokens", 6000},
		{"mistral-ai", "mine", 1, "max_tokens", 1},
		{"mistral-ai", "mine", 0, "max_tokens", 16_384},
	} {
		for _, text := range []string{"usd=10/month", "tokens=100000/day", "output_tokens=100000/day"} {
			t.Run(fmt.Sprint(c.provider, "/", c.model, " of ", c.window, " ", text), func(t *testing.T) {
				req := uncappedOf(t, c.provider, c.model, c.window)
				limit(t, req, text)
				s := serve(t, req, answers(200, jsonType, noUsage))
				s.wantAnswered(t)
				s.wantCap(t, c.field, c.want, req)
				// Without usage in the answer all that was held is charged.
				wantCounted(t, req, counted{
					ledger.USD: costWith(c.want), ledger.OutputTokens: c.want, ledger.Tokens: int64(worstInput) + c.want,
				})
			})
		}
	}
}

func TestCap_WhatIsReservedForAModelThatAllowsLittleIsSettledWithWhatItUsed(t *testing.T) {
	req := uncappedOf(t, "openai", "gpt-4-turbo", 0)
	limit(t, req, "usd=10/month", "output_tokens=5000/day") // 16,384 would be refused, or cut to 5000
	s := serve(t, req, nil)
	s.wantAnswered(t)
	s.wantCap(t, "max_completion_tokens", 4096, req)
	wantCounted(t, req, counted{ledger.USD: usageCost, ledger.OutputTokens: 5})
}

func TestCap_OnlyTheDefaultIsHeldAgainstWhatTheModelAllows(t *testing.T) {
	smaller := uncappedOf(t, "openai", "gpt-4-turbo", 0)
	smaller.DefaultOutputCap = 1000
	limit(t, smaller, "usd=10/month")
	serve(t, smaller, nil).wantCap(t, "max_completion_tokens", 1000, smaller)

	own := uncappedOf(t, "openai", "gpt-4-turbo", 0)
	own.Body = []byte(`{"model":"gpt-4-turbo","max_tokens":9000,"messages":` + messages + `}`)
	limit(t, own, "usd=10/month")
	serve(t, own, nil).wantCap(t, "", 0, own) // the provider says what is wrong with it

	left := uncappedOf(t, "openai", "gpt-4-turbo", 0)
	limit(t, left, "output_tokens=10000/day")
	spend(t, left, ledger.OutputTokens, 9000)
	serve(t, left, nil).wantCap(t, "max_completion_tokens", 1000, left)

	unlimited := uncappedOf(t, "openai", "gpt-4-turbo", 0)
	serve(t, unlimited, nil).wantCap(t, "", 0, unlimited)
}

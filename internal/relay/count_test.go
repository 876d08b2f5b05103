// SPDX-License-Identifier: MPL-2.0

package relay

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/internal/apierror"
	"vault-plugin-secrets-portkey/internal/ledger"
	"vault-plugin-secrets-portkey/internal/price"
	"vault-plugin-secrets-portkey/internal/provider"
	"vault-plugin-secrets-portkey/internal/wire"
)

// longRequest is a chat of 700 tokens and six times as many bytes.
func longRequest(t testing.TB, target *provider.Target, model, part string) *Request {
	t.Helper()
	content := strings.Repeat("hello ", 700)
	req := chatRequest(t, fmt.Sprintf(`{"model":%q,"max_tokens":50,"messages":[{"role":"user","content":%q}%s]}`, model, content, part))
	req.VirtualKey.Target = target
	return req
}

func TestCount_ARequestThatFitsOnlyByItsTokensIsAdmitted(t *testing.T) {
	for name, c := range map[string]struct {
		target      *provider.Target
		model, part string
		counted     bool
	}{
		"OpenAI itself":         {targetOf(t, "openai"), "gpt-4o", "", true},
		"a model of before":     {targetOf(t, "openai"), "gpt-4-turbo", "", true},
		"an own base URL":       {targetAt(t, "openai", "http://127.0.0.1:1"), "gpt-4o", "", false},
		"another provider":      {targetOf(t, "openrouter"), "openai/gpt-4o", "", false},
		"an unknown model":      {targetOf(t, "openai"), "gpt-99", "", false},
		"with an image":         {targetOf(t, "openai"), "gpt-4o", `,{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://example.com/a"}}]}`, false},
		"a model that may fall": {targetOf(t, "openai"), "gpt-4o", `],"models":["gpt-99"],"x":[`, false},
	} {
		t.Run(name, func(t *testing.T) {
			req := longRequest(t, c.target, c.model, c.part)
			limit(t, req, "input_tokens=1000/day", "requests=10/day")
			s := serve(t, req, answers(200, jsonType, noUsage))
			if !c.counted {
				s.wantRefused(t, 403, apierror.TypeInvalidRequest, apierror.CodeRequestExceedsLimit)
				return
			}
			s.wantAnswered(t)
			used := statuses(t, req)[0].Used
			if used < 700 || used > 900 || used != s.Usage[price.Input] {
				t.Errorf("%d tokens were reserved of some 700; the outcome says %d", used, s.Usage[price.Input])
			}
		})
	}
}

func TestCount_IsLeftOutWhereTheRequestFitsAnyway(t *testing.T) {
	req := longRequest(t, targetOf(t, "openai"), "gpt-4o", "")
	limit(t, req, "input_tokens=100000/day")
	serve(t, req, answers(200, jsonType, noUsage)).wantAnswered(t)
	if used := statuses(t, req)[0].Used; used < 4200 {
		t.Errorf("%d tokens were reserved: they were counted, which takes time", used)
	}
}

// What is counted is what a lowered cap is found with, and what is charged.
func TestCount_ALoweredCapIsFoundWithTheTokensCounted(t *testing.T) {
	req := longRequest(t, targetOf(t, "openai"), "gpt-4o", "")
	req.Body = []byte(strings.Replace(string(req.Body), `"max_tokens":50`, `"max_tokens":900`, 1))
	limit(t, req, "tokens=5000/day")
	spend(t, req, ledger.Tokens, 3800)
	s := serve(t, req, answers(200, jsonType, noUsage))
	s.wantAnswered(t)
	if s.Capped < 300 || s.Capped > 500 || !strings.Contains(s.sent, fmt.Sprintf(`"max_tokens":%d,`, s.Capped)) {
		t.Errorf("capped at %d of the 1200 that were left for 700 tokens of input", s.Capped)
	}
	wantCounted(t, req, counted{ledger.Tokens: 5000})
}

// An endless context whose end is told by a number of questions.
type endingContext struct {
	context.Context
	left int
}

func (c *endingContext) Err() error {
	if c.left--; c.left < 0 {
		return context.Canceled
	}
	return nil
}

func countable(t *testing.T, c *counter) *exchange {
	t.Helper()
	req := longRequest(t, targetOf(t, "openai"), "gpt-4o", `,{"role":"user","content":"more of the same"}`)
	body, err := wire.ParseObject(req.Body)
	if err != nil {
		t.Fatal(err)
	}
	x := &exchange{req: req, counter: c, body: body}
	if x.params, err = wire.ReadParams(req.Path, body); err != nil {
		t.Fatal(err)
	}
	return x
}

// Callers choose what is counted: they must not choose how long it takes.
func TestCount_EndsWithTheCallerAndWaitsForNoTurn(t *testing.T) {
	c := newCounter()
	if x := countable(t, c); !x.countInput(nil) || !x.counted || x.inputText() > 1000 { //nolint:staticcheck // nil means for ever
		t.Fatalf("%d tokens were counted", x.textTokens)
	}
	for asked := range 4 {
		x := countable(t, c)
		if x.countInput(&endingContext{context.Background(), asked}) || x.counted || x.inputText() != x.params.Input.TextBytes {
			t.Errorf("the caller went after %d questions, and %d tokens are taken for the input", asked, x.inputText())
		}
	}
	for range cap(c.slots) {
		c.slots <- struct{}{}
	}
	start := time.Now()
	if x := countable(t, c); x.countInput(t.Context()) || x.counted {
		t.Error("more were counted at a time than may be")
	}
	if waited := time.Since(start); waited < slotWait || waited > 50*slotWait {
		t.Errorf("a request waited %v for its turn", waited)
	}
	gone, cancel := context.WithCancel(t.Context())
	time.AfterFunc(time.Millisecond, cancel)
	if countable(t, c).countInput(gone) {
		t.Error("more were counted at a time than may be")
	}
	c.release()
	if x := countable(t, c); !x.countInput(t.Context()) {
		t.Error("a slot that is free isn't used")
	}
	if len(c.slots) != cap(c.slots)-1 {
		t.Error("a slot wasn't given back")
	}
}

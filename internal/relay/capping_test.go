// SPDX-License-Identifier: MPL-2.0

package relay

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"vault-plugin-secrets-portkey/internal/apierror"
	"vault-plugin-secrets-portkey/internal/ledger"
	"vault-plugin-secrets-portkey/internal/provider"
)

// uncapped is a request without a cap on its output, of n choices.
func uncapped(t testing.TB, n int) *Request {
	t.Helper()
	choices := ""
	if n > 1 {
		choices = fmt.Sprintf(`,"n":%d`, n)
	}
	return chatRequest(t, `{"model":"m"`+choices+`,"messages":`+messages+`}`)
}

// capped is a request with a cap of its own.
func capped(t testing.TB, outputCap int) *Request {
	t.Helper()
	return chatRequest(t, fmt.Sprintf(`{"model":"m","max_tokens":%d,"messages":%s}`, outputCap, messages))
}

// targetOf is a target of a provider of the catalogue, at its own address.
func targetOf(t testing.TB, id string) *provider.Target { return targetAt(t, id, "") }

// costWith is the worst case of the tests' request with so many output tokens.
func costWith(output int64) int64 { return int64(worstInput)*inputRate + output*outputRate + rounding }

func TestCap_ARequestWithoutOneGetsTheDefaultInTheMemberThatTheProviderKnows(t *testing.T) {
	for id, field := range map[string]string{"mistral-ai": "max_tokens", "openai": "max_completion_tokens", "deepseek": "max_tokens", "groq": "max_completion_tokens", "openrouter": "max_tokens"} {
		for _, text := range []string{"usd=1/month", "tokens=100000/day", "output_tokens=100000/minute", "usd=1/hour on m"} {
			req := uncapped(t, 1)
			req.VirtualKey.Target = targetOf(t, id)
			limit(t, req, text)
			s := serve(t, req, nil)
			s.wantAnswered(t)
			s.wantCap(t, field, 1000, req)
		}
	}
	unbounded := uncapped(t, 1)
	unbounded.VirtualKey.AllowUnbounded = true // of what else it may cost
	limit(t, unbounded, "usd=1/month")
	serve(t, unbounded, nil).wantCap(t, "max_tokens", 1000, unbounded)
	req := uncapped(t, 1)
	req.Path, req.Body = "v1/responses", []byte(`{"model":"m","input":"Hello"}`)
	limit(t, req, "usd=1/month")
	serve(t, req, nil).wantCap(t, "max_output_tokens", 1000, req)
	req.Path, req.Body = "v1/completions", []byte(`{"model":"m","prompt":"Hello"}`)
	serve(t, req, nil).wantCap(t, "max_tokens", 1000, req)
}

// A cap that the provider passes over in silence is none.
func TestCap_OneThatTheProviderIgnoresIsReplaced(t *testing.T) {
	req := chatRequest(t, `{"model":"m","max_completion_tokens":5,"messages":`+messages+`}`)
	req.VirtualKey.Target = targetOf(t, "deepseek")
	limit(t, req, "usd=1/month")
	s := serve(t, req, answers(200, jsonType, noUsage))
	s.wantCap(t, "max_tokens", 1000, req)
	wantCounted(t, req, counted{ledger.USD: costWith(1000)})
}

func TestCap_NoneIsSetWhereNoHardLimitRestsOnIt(t *testing.T) {
	for name, c := range map[string]func(*Request){
		"no limits":        func(*Request) {},
		"requests":         func(r *Request) { limit(t, r, "requests=10/minute", "concurrent=2") },
		"input tokens":     func(r *Request) { limit(t, r, "input_tokens=100000/day") },
		"limit on another": func(r *Request) { limit(t, r, "usd=1/month on gpt-*", "tokens=1/day on o*") },
		"soft":             func(r *Request) { limitSoftly(t, r, "usd=1/month", "tokens=100/day") },
		"embeddings": func(r *Request) {
			limit(t, r, "tokens=100000/day")
			r.Path, r.Body = "v1/embeddings", []byte(`{"model":"m","input":"a"}`)
		},
		"cap of the caller's": func(r *Request) { limit(t, r, "usd=1/month", "output_tokens=100/day"); r.Body = []byte(chatText) },
	} {
		req := uncapped(t, 1)
		c(req)
		if req.VirtualKey.Limits == nil {
			req.VirtualKey.Limits = ledger.NewPolicy(ledger.PolicyOptions{})
		}
		t.Run(name, func(t *testing.T) {
			s := serve(t, req, nil)
			s.wantAnswered(t)
			s.wantCap(t, "", 0, req)
		})
	}
}

func TestCap_IsLoweredToWhatIsLeftOfAUsedBudget(t *testing.T) {
	const room = 300
	for _, c := range []struct {
		limit string
		unit  ledger.Unit
		max   int64
		worst int64 // of the request with that much output
	}{
		{"usd=1/month", ledger.USD, 1_000_000_000, costWith(room)},
		{"usd=1/total per entity on m*", ledger.USD, 1_000_000_000, costWith(room)},
		{"tokens=100000/day", ledger.Tokens, 100_000, int64(worstInput) + room},
		{"output_tokens=100000/30d", ledger.OutputTokens, 100_000, room},
	} {
		for _, req := range []*Request{uncapped(t, 1), capped(t, 900)} {
			limit(t, req, "requests=10/day", c.limit, "usd=1000/day")
			spend(t, req, c.unit, c.max-c.worst)
			before := statuses(t, req)
			s := serve(t, req, answers(200, jsonType, noUsage))
			s.wantAnswered(t)
			s.wantCap(t, "max_tokens", room, req)
			for i, now := range statuses(t, req) {
				if now.Limit.Unit == c.unit && before[i].Used == c.max-c.worst && now.Used != c.max {
					t.Errorf("%s: %d is used of %d", now.Limit, now.Used, c.max)
				}
			}
		}
	}
}

func TestCap_IsLoweredInEveryMemberThatTheRequestHas(t *testing.T) {
	req := chatRequest(t, `{"max_tokens":900,"model":"m","max_completion_tokens":800,"messages":`+messages+`}`)
	limit(t, req, "output_tokens=1000/day")
	spend(t, req, ledger.OutputTokens, 700)
	s := serve(t, req, nil)
	if want := `{"max_tokens":300,"model":"m","max_completion_tokens":300,"messages":` + messages + `}`; s.sent != want {
		t.Errorf("the provider got %s, want %s", s.sent, want)
	}
}

func TestCap_IsNeverLoweredBelowWhatIsUseful(t *testing.T) {
	for name, c := range map[string]struct {
		model string
		own   int64 // min_output_tokens
		least int64
	}{
		"default": {"m", 0, 256}, "reasoning": {"o3", 0, 4096}, "reasoning, reseller": {"openai/o3", 0, 4096}, "of the virtual key": {"m", 20, 20}, "reasoning, of the virtual key": {"o3", 20, 20},
	} {
		for _, short := range []int64{0, 1} {
			t.Run(fmt.Sprint(name, " ", short), func(t *testing.T) {
				req := uncapped(t, 1)
				req.Body = []byte(strings.Replace(string(req.Body), `"m"`, `"`+c.model+`"`, 1))
				req.DefaultOutputCap, req.VirtualKey.MinOutputTokens = 10_000, c.own
				limit(t, req, "output_tokens=20000/month")
				spend(t, req, ledger.OutputTokens, 20_000-c.least+short)
				s := serve(t, req, nil)
				if short > 0 {
					s.wantRefused(t, 402, apierror.TypeInsufficientQuota, apierror.CodeBudgetExceeded)
					return
				}
				s.wantAnswered(t)
				s.wantCap(t, "max_tokens", c.least, req)
			})
		}
	}
}

// What the caller asked for is enough, however little it is.
func TestCap_ARequestForLessThanTheLeastPassesAsItIs(t *testing.T) {
	req := capped(t, 10)
	limit(t, req, "output_tokens=100/month")
	for range 10 {
		s := serve(t, req, answers(200, jsonType, noUsage))
		s.wantAnswered(t)
		s.wantCap(t, "", 0, req)
	}
	serve(t, req, nil).wantRefused(t, 402, apierror.TypeInsufficientQuota, apierror.CodeBudgetExceeded)
}

func TestCap_IsLoweredOnlyForBudgets(t *testing.T) {
	for name, c := range map[string]struct {
		text   string
		change func(*Request)
		status int
		code   string
	}{
		"a minute":                {"output_tokens=1000/minute", nil, 429, apierror.CodeRateLimitExceeded},
		"an hour":                 {"output_tokens=1000/hour", nil, 429, apierror.CodeRateLimitExceeded},
		"a fixed hour":            {"output_tokens=1000/1h", nil, 429, apierror.CodeRateLimitExceeded},
		"forbidden by the role":   {"output_tokens=1000/day", func(r *Request) { r.VirtualKey.KeepCap = true }, 402, apierror.CodeBudgetExceeded},
		"a budget, to compare it": {"output_tokens=1000/day", nil, 200, ""},
	} {
		t.Run(name, func(t *testing.T) {
			req := capped(t, 900)
			if c.change != nil {
				c.change(req)
			}
			limit(t, req, c.text)
			spend(t, req, ledger.OutputTokens, 500)
			s := serve(t, req, nil)
			if s.recorder.Code != c.status || s.Code != c.code {
				t.Errorf("answered %d %s", s.recorder.Code, s.Body)
			}
			wantCounted(t, req, counted{ledger.OutputTokens: 500 + 5*b2i(c.status == 200)})
		})
	}
}

func TestCap_SoftLimitsAdmitUnchangedWhileLessThanTheMaxIsUsed(t *testing.T) {
	req := capped(t, 900)
	limitSoftly(t, req, "output_tokens=1000/day", "usd=0.000001/month", "requests=1000/day", "concurrent=1")
	spend(t, req, ledger.OutputTokens, 999)
	s := serve(t, req, nil)
	s.wantAnswered(t)
	s.wantCap(t, "", 0, req)
	serve(t, req, nil).wantRefused(t, 402, apierror.TypeInsufficientQuota, apierror.CodeBudgetExceeded, "output_tokens=1000/day", "1004 of 1000")
}

func TestCap_ReservationsInFlightLowerNothing(t *testing.T) {
	req := capped(t, 900)
	limit(t, req, "output_tokens=1000/day")
	reserve(t, req, ledger.OutputTokens, 500)
	s := serve(t, req, nil)
	s.wantRefused(t, 429, apierror.TypeRequests, apierror.CodeBudgetReserved, "500 reserved")
	if s.Header().Get("Retry-After") != "1" {
		t.Errorf("header %v", s.Header())
	}
}

func TestCap_ARequestLargerThanAWholeLimitIsRefusedUnlessItNamedNoCap(t *testing.T) {
	for _, text := range []string{"output_tokens=300/day", "output_tokens=300/minute", fmt.Sprintf("tokens=%d/total", worstInput+300), "usd=0.00071502/month"} {
		req := capped(t, 301)
		limit(t, req, text)
		serve(t, req, nil).wantRefused(t, 403, apierror.TypeInvalidRequest, apierror.CodeRequestExceedsLimit, text, "make it smaller")
		req.Body = uncapped(t, 1).Body
		s := serve(t, req, nil)
		s.wantAnswered(t)
		if !strings.HasPrefix(text, "usd") {
			s.wantCap(t, "max_tokens", 300, req)
		}
		keep := *req.VirtualKey
		keep.KeepCap = true
		req.VirtualKey = &keep
		serve(t, req, nil).wantRefused(t, 403, apierror.TypeInvalidRequest, apierror.CodeRequestExceedsLimit)
	}
}

func TestCap_EveryChoiceIsReserved(t *testing.T) {
	for body, choices := range map[string]int64{
		`{"model":"m","max_tokens":10,"n":3,"messages":` + messages + `}`:                                           3,
		`{"model":"m","max_tokens":10,"best_of":4,"n":2,"messages":` + messages + `}`:                               4,
		`{"model":"m","max_tokens":10,"prediction":{"type":"content","content":"abc"},"messages":` + messages + `}`: 0,
	} {
		req := chatRequest(t, body)
		limit(t, req, "output_tokens=100000/day", "usd=1/month")
		serve(t, req, answers(200, jsonType, noUsage)).wantAnswered(t)
		want := choices * 10
		if choices == 0 { // a cap, and the prediction
			want = 10 + int64(len(`{"type":"content","content":"abc"}`))
		}
		for _, s := range statuses(t, req) {
			if s.Limit.Unit == ledger.OutputTokens && s.Used != want {
				t.Errorf("%s reserved %d, want %d", body, s.Used, want)
			}
		}
	}
	req := chatRequest(t, `{"model":"m","max_tokens":10,"best_of":2,"prompt":["a","b","c"]}`)
	req.Path = "v1/completions"
	limit(t, req, "output_tokens=100/day")
	serve(t, req, answers(200, jsonType, noUsage)).wantAnswered(t)
	wantCounted(t, req, counted{ledger.OutputTokens: 60})
	// What is left is shared by all choices.
	req = uncapped(t, 3)
	req.VirtualKey.MinOutputTokens = 10
	limit(t, req, "output_tokens=10000/day")
	spend(t, req, ledger.OutputTokens, 9900)
	s := serve(t, req, answers(200, jsonType, noUsage))
	s.wantCap(t, "max_tokens", 33, req)
	wantCounted(t, req, counted{ledger.OutputTokens: 9999})
}

func TestCap_TheHeaderIsOursAlone(t *testing.T) {
	forging := script(func(r *http.Request) (*http.Response, error) {
		resp, err := answers(200, jsonType, answerText)(r)
		resp.Header.Set(CappedHeader, "7")
		return resp, err
	})
	req := capped(t, 50)
	limit(t, req, "usd=1/month")
	if s := serve(t, req, forging); s.Header().Get(CappedHeader) != "" {
		t.Errorf("the provider's word came through: %v", s.Header())
	}
	req.Body = uncapped(t, 1).Body
	if s := serve(t, req, forging); len(s.Header().Values(CappedHeader)) != 1 || s.Header().Get(CappedHeader) != "1000" {
		t.Errorf("the header is %v", s.Header())
	}
}

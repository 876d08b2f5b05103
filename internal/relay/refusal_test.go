// SPDX-License-Identifier: MPL-2.0

package relay

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-portkey/internal/apierror"
	"vault-plugin-secrets-portkey/internal/ledger"
	"vault-plugin-secrets-portkey/internal/price"
)

// TestRefusal_SaysWhatIsInTheWayAndWhenItEnds is the mapping from the ledger's
// reasons to answers, as SDKs act on them.
func TestRefusal_SaysWhatIsInTheWayAndWhenItEnds(t *testing.T) {
	month := time.Date(time.Now().UTC().Year(), time.Now().UTC().Month()+1, 1, 0, 0, 0, 0, time.UTC).Format(time.RFC3339)
	used := func(unit ledger.Unit, n int64) func(*testing.T, *Request) {
		return func(t *testing.T, r *Request) { spend(t, r, unit, n) }
	}
	held := func(unit ledger.Unit, n int64) func(*testing.T, *Request) {
		return func(t *testing.T, r *Request) { reserve(t, r, unit, n) }
	}
	const usd = 1_000_000_000
	for name, c := range map[string]struct {
		limit      string
		before     func(*testing.T, *Request)
		status     int
		typ, code  string
		retry      [2]int // the range of Retry-After; 0 for none
		says       []string
		mustNotTry bool
	}{
		"money spent": {"usd=1/month", used(ledger.USD, usd), 402, apierror.TypeInsufficientQuota, apierror.CodeBudgetExceeded, [2]int{},
			[]string{"usd=1/month", `"team-a"`, "1 of 1 usd used", month}, false},
		"money nearly spent": {"usd=1/total", used(ledger.USD, usd-1), 402, apierror.TypeInsufficientQuota, apierror.CodeBudgetExceeded, [2]int{},
			[]string{"0.999999999 of 1 usd used", "never resets"}, false},
		"tokens spent":            {"tokens=1000/month", used(ledger.Tokens, 990), 402, apierror.TypeInsufficientQuota, apierror.CodeBudgetExceeded, [2]int{}, []string{"tokens=1000/month", month}, false},
		"requests spent":          {"requests=3/month", used(ledger.Requests, 3), 402, apierror.TypeInsufficientQuota, apierror.CodeBudgetExceeded, [2]int{}, []string{"requests=3/month", month}, false},
		"an entity's":             {"usd=1/month per entity", used(ledger.USD, usd), 402, apierror.TypeInsufficientQuota, apierror.CodeBudgetExceeded, [2]int{}, []string{"entity e-1"}, false},
		"money reserved":          {"usd=1/month", held(ledger.USD, usd), 429, apierror.TypeRequests, apierror.CodeBudgetReserved, [2]int{1, 2}, []string{"1 reserved by requests under way", "usd=1/month"}, false},
		"tokens reserved":         {"tokens=1000/day", held(ledger.Tokens, 990), 429, apierror.TypeRequests, apierror.CodeBudgetReserved, [2]int{1, 2}, []string{"990 reserved by requests under way"}, false},
		"requests in a minute":    {"requests=3/minute", used(ledger.Requests, 3), 429, apierror.TypeRequests, apierror.CodeRateLimitExceeded, [2]int{1, 60}, []string{"requests=3/minute", "try again in"}, false},
		"reserved in a minute":    {"requests=3/minute", held(ledger.Requests, 3), 429, apierror.TypeRequests, apierror.CodeRateLimitExceeded, [2]int{1, 60}, []string{"requests=3/minute"}, false},
		"tokens in a minute":      {"tokens=1000/minute", used(ledger.Tokens, 990), 429, apierror.TypeTokens, apierror.CodeRateLimitExceeded, [2]int{1, 60}, []string{"tokens=1000/minute"}, false},
		"input in an hour":        {"input_tokens=1000/hour", used(ledger.InputTokens, 990), 429, apierror.TypeTokens, apierror.CodeRateLimitExceeded, [2]int{61, 3665}, nil, true},
		"money in an hour":        {"usd=1/hour", used(ledger.USD, usd), 429, apierror.TypeRequests, apierror.CodeRateLimitExceeded, [2]int{61, 3665}, []string{"usd=1/hour"}, true},
		"a fixed hour":            {"requests=3/1h", used(ledger.Requests, 3), 429, apierror.TypeRequests, apierror.CodeRateLimitExceeded, [2]int{1, 3600}, nil, false},
		"too many at once":        {"concurrent=2", held(ledger.Concurrent, 2), 429, apierror.TypeRequests, apierror.CodeRateLimitExceeded, [2]int{1, 2}, []string{"concurrent=2", "2 requests are under way"}, false},
		"larger than the limit":   {"tokens=100/day", nil, 403, apierror.TypeInvalidRequest, apierror.CodeRequestExceedsLimit, [2]int{}, []string{"tokens=100/day", "make it smaller"}, false},
		"larger, in a minute":     {"tokens=100/minute", nil, 403, apierror.TypeInvalidRequest, apierror.CodeRequestExceedsLimit, [2]int{}, nil, false},
		"nothing allowed":         {"usd=0/month", nil, 403, apierror.TypeInvalidRequest, apierror.CodeRequestExceedsLimit, [2]int{}, []string{"usd=0/month", "allows nothing"}, false},
		"no requests allowed":     {"requests=0/day", nil, 403, apierror.TypeInvalidRequest, apierror.CodeRequestExceedsLimit, [2]int{}, []string{"allows nothing"}, false},
		"nobody allowed":          {"concurrent=0", nil, 403, apierror.TypeInvalidRequest, apierror.CodeRequestExceedsLimit, [2]int{}, []string{"allows nothing"}, false},
		"the weightiest is named": {"concurrent=0 on m", nil, 403, apierror.TypeInvalidRequest, apierror.CodeRequestExceedsLimit, [2]int{}, []string{"concurrent=0 on m"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			req := chatRequest(t, chatText)
			req.Entity = "e-1"
			// Among limits that aren't in the way.
			limit(t, req, "requests=1000/day on m", c.limit, "usd=1000/week on m", "concurrent=100 per entity")
			if c.before != nil {
				c.before(t, req)
			}
			before := statuses(t, req)
			s := serve(t, req, nil)
			s.wantRefused(t, c.status, c.typ, c.code, c.says...)
			got := s.Header().Get("Retry-After")
			if n, _ := strconv.Atoi(got); n < c.retry[0] || n > c.retry[1] || (got == "") != (c.retry[1] == 0) {
				t.Errorf("Retry-After is %q, want from %d to %d", got, c.retry[0], c.retry[1])
			}
			if s.Header().Get("X-Should-Retry") == "false" != c.mustNotTry && name != "a fixed hour" {
				t.Errorf("X-Should-Retry is %q with Retry-After %s", s.Header().Get("X-Should-Retry"), got)
			}
			if now := statuses(t, req); fmt.Sprint(now) != fmt.Sprint(before) {
				t.Errorf("refused, yet counted: %v\nbefore %v", now, before)
			}
		})
	}
}

func TestRefusal_StorageThatFailsClosesAdmission(t *testing.T) {
	for name, fail := range map[string]func(*logical.InmemStorage){
		"reads": func(s *logical.InmemStorage) { s.FailGet(true); s.FailList(true) }, "writes": func(s *logical.InmemStorage) { s.FailPut(true) },
	} {
		t.Run(name, func(t *testing.T) {
			storage := &logical.InmemStorage{}
			req := chatRequest(t, chatText)
			limitWith(t, req, ledger.PolicyOptions{}, ledger.Options{QueueWait: -1, Storage: storage}, "usd=1/month")
			fail(storage)
			s := serve(t, req, nil)
			s.wantRefused(t, 503, apierror.TypeAPI, apierror.CodeLedgerUnavailable, `"team-a"`, "can't be recorded")
			if s.Header().Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
			storage.FailGet(false).FailPut(false).FailList(false)
			serve(t, req, nil).wantAnswered(t)
		})
	}
}

func TestRefusal_AnEndedLedgerAdmitsNothing(t *testing.T) {
	req := chatRequest(t, chatText)
	limit(t, req, "requests=1/minute")
	if err := req.Ledger.Close(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	serve(t, req, nil).wantRefused(t, 503, apierror.TypeAPI, apierror.CodeLedgerUnavailable, "is ending")
}

func TestRefusal_ACallerThatGoesWhileItWaitsIsNotServed(t *testing.T) {
	req := chatRequest(t, chatText)
	limitWith(t, req, ledger.PolicyOptions{}, ledger.Options{QueueWait: time.Hour}, "tokens=200/day")
	r := reserve(t, req, ledger.Tokens, 150)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	w := newRecorder()
	o := settled(ctx, t, answers(200, jsonType, answerText), w, req)
	verdict{Result: Refused, Basis: Free, Code: apierror.CodeCallerGone}.check(t, o)
	r.Settle(ledger.Charge{})
	wantCounted(t, req, counted{})
}

func TestRefusal_WaitsForReservationsInFlightAndThenPasses(t *testing.T) {
	req := chatRequest(t, chatText)
	limitWith(t, req, ledger.PolicyOptions{}, ledger.Options{QueueWait: time.Minute}, "tokens=200/day")
	r := reserve(t, req, ledger.Tokens, 150)
	time.AfterFunc(20*time.Millisecond, func() { r.Settle(ledger.Charge{}) })
	serve(t, req, nil).wantAnswered(t)
}

// TestRefusal_ConsumesNothing refuses requests for every other reason, on limits
// that would count them.
func TestRefusal_ConsumesNothing(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Request)
		code   string
	}{
		"disabled":     {func(r *Request) { r.VirtualKey.Disabled = true }, apierror.CodeVirtualKeyDisabled},
		"expired":      {func(r *Request) { r.VirtualKey.ExpiresAt = time.Unix(1, 0) }, apierror.CodeVirtualKeyExpired},
		"model":        {func(r *Request) { r.VirtualKey.Models = []string{"x"} }, apierror.CodeModelNotAllowed},
		"no model":     {func(r *Request) { r.Body = []byte(`{"messages":[]}`) }, apierror.CodeModelRequired},
		"no JSON":      {func(r *Request) { r.Body = []byte(`{`) }, apierror.CodeInvalidRequest},
		"no route":     {func(r *Request) { r.Path = "v9/chat/completions" }, apierror.CodeRouteNotFound},
		"no price":     {func(r *Request) { r.Body = []byte(`{"model":"other","messages":[]}`) }, apierror.CodeModelNotPriced},
		"not metered":  {func(r *Request) { r.Path = "v1/images/generations" }, apierror.CodeRouteNotMetered},
		"no bound":     {func(r *Request) { r.Body = []byte(`{"model":"m","tools":[{"type":"web_search"}],"messages":[]}`) }, apierror.CodeCostUnbounded},
		"a key's case": {func(r *Request) { r.Body = []byte(`{"model":"m","Fallbacks":["x"],"messages":[]}`) }, apierror.CodeInvalidRequest},
	} {
		t.Run(name, func(t *testing.T) {
			req := chatRequest(t, chatText)
			limit(t, req, "usd=1/month", "requests=10/minute", "tokens=1000/day", "concurrent=1")
			c.change(req)
			s := serve(t, req, nil)
			if s.Result != Refused || s.Code != c.code || s.sent != "" {
				t.Errorf("%d %s, settled as %+v", s.recorder.Code, s.Body, s.Outcome)
			}
			wantCounted(t, req, counted{})
		})
	}
}

func TestBounds_WhatCanCostAnyAmountIsRefusedOnHardBudgets(t *testing.T) {
	chat := func(member string) string { return `{"model":"m",` + member + `,"messages":` + messages + `}` }
	for name, c := range map[string]struct{ path, provider, body, says string }{
		"search tool":            {"v1/responses", "", `{"model":"m","input":"a","tools":[{"type":"web_search"}]}`, "web_search"},
		"code interpreter":       {"v1/responses", "", `{"model":"m","input":"a","tools":[{"type":"function","name":"f"},{"type":"code_interpreter"}]}`, "code_interpreter"},
		"search options":         {"", "", chat(`"web_search_options":{}`), "web_search_options"},
		"background":             {"v1/responses", "", `{"model":"m","input":"a","background":true}`, "background"},
		"stored prompt":          {"v1/responses", "", `{"model":"m","prompt":{"id":"p"}}`, "prompt"},
		"preset":                 {"", "openrouter", chat(`"preset":"p"`), "preset"},
		"plugins":                {"", "openrouter", chat(`"plugins":[{"id":"web"}]`), "plugins"},
		"search model":           {"", "", `{"model":"gpt-4o-search-preview","messages":[]}`, "gpt-4o-search-preview"},
		"online suffix":          {"", "openrouter", `{"model":"gpt-4o:online","messages":[]}`, "gpt-4o:online"},
		"search model, fallback": {"", "openrouter", chat(`"models":["m","openai/gpt-4o-search-preview"]`), "openai/gpt-4o-search-preview"},
		"online, fallback":       {"", "openrouter", chat(`"models":["m:online"]`), "m:online"},
		"model that runs tools":  {"", "groq", `{"model":"compound-beta","messages":[]}`, "compound-beta"},
		"fallbacks":              {"", "", chat(`"fallbacks":["x"]`), "fallbacks"},
		"extra_body":             {"", "", chat(`"extra_body":{"google":{"thinking_config":{}}}`), "extra_body"},
		"models in extra_body":   {"", "google", chat(`"extra_body":{"models":["x"]}`), "extra_body"},
		"more in Google's":       {"", "google", chat(`"extra_body":{"google":{"thinking_config":{},"candidate_count":9}}`), "extra_body"},
		"another's beside it":    {"", "google", chat(`"extra_body":{"google":{},"litellm":{}}`), "extra_body"},
		"text in extra_body":     {"", "google", chat(`"extra_body":"x"`), "extra_body"},
	} {
		build := func(limits func(testing.TB, *Request, ...string), text string) *Request {
			req := chatRequest(t, c.body)
			if c.path != "" {
				req.Path = c.path
			}
			if c.provider != "" {
				req.VirtualKey.Target = targetOf(t, c.provider)
			}
			limits(t, req, text)
			return req
		}
		t.Run(name, func(t *testing.T) {
			for _, text := range []string{"usd=1/month", "tokens=1000000/day", "output_tokens=1000000/minute"} {
				s := serve(t, build(limit, text), nil)
				s.wantRefused(t, 403, apierror.TypeInvalidRequest, apierror.CodeCostUnbounded, c.says, `vault patch <mount>/roles/team-a allow_unbounded=true`)
			}
			serve(t, build(limit, "requests=10/minute"), nil).wantAnswered(t)
			serve(t, build(limit, "tokens=1/day on another"), nil)
			serve(t, build(limitSoftly, "tokens=1000000/day"), nil).wantAnswered(t)
			lifted := build(limit, "tokens=9000000/day")
			lifted.VirtualKey.AllowUnbounded = true
			serve(t, lifted, nil).wantAnswered(t)
		})
	}
}

func TestBounds_WhatOnlyLooksOpenEndedPasses(t *testing.T) {
	for _, member := range []string{
		`"extra_body":{"google":{"thinking_config":{"include_thoughts":true},"cached_content":"c"}}`, `"fallbacks":null`, `"tools":[{"type":"function","function":{"name":"web_search"}}]`,
		`"service_tier":"flex"`, `"service_tier":"auto"`, `"background":false`,
	} {
		req := chatRequest(t, `{"model":"m",`+member+`,"messages":`+messages+`}`)
		req.VirtualKey.Target = targetOf(t, "google")
		limit(t, req, "usd=1/month", "tokens=1000000/day")
		serve(t, req, nil).wantAnswered(t)
	}
}

func TestBounds_AServiceTierWithoutAKnownPriceIsRefusedWhereMoneyIsLimited(t *testing.T) {
	body := `{"model":"m","max_tokens":50,"service_tier":"priority","messages":` + messages + `}`
	req := chatRequest(t, body)
	limit(t, req, "usd=1/month")
	serve(t, req, nil).wantRefused(t, 403, apierror.TypeInvalidRequest, apierror.CodeCostUnbounded, `"priority"`)
	req.VirtualKey.AllowUnbounded = true
	serve(t, req, nil).wantAnswered(t)
	req = chatRequest(t, body)
	limit(t, req, "tokens=1000/day")
	serve(t, req, nil).wantAnswered(t)
	req = chatRequest(t, body)
	limitSoftly(t, req, "usd=1/month")
	serve(t, req, nil).wantAnswered(t)
}

func TestBounds_RoutesThatAreNotMeteredAreRefusedOnBudgets(t *testing.T) {
	for _, path := range []string{
		"v1/images/generations", "v1/images/edits", "v1/audio/speech", "v1/audio/transcriptions", "v1/files", "v1/batches", "v1/fine_tuning/jobs",
		"v1/responses/compact", "v1/rerank", "v1/threads/runs", "v1/whatever",
	} {
		for _, body := range []string{`{"model":"m","prompt":"a cat"}`, ""} {
			build := func(limits func(testing.TB, *Request, ...string), texts ...string) *Request {
				req := chatRequest(t, body)
				req.Path = path
				limits(t, req, texts...)
				return req
			}
			for _, text := range []string{"usd=1/month", "tokens=1000000/day", "input_tokens=1000000/minute"} {
				for _, limits := range []func(testing.TB, *Request, ...string){limit, limitSoftly} {
					serve(t, build(limits, text), nil).wantRefused(t, 403, apierror.TypeInvalidRequest, apierror.CodeRouteNotMetered, path, "allow_unmetered=true")
				}
			}
			counting := build(limit, "requests=10/day", "concurrent=1")
			serve(t, counting, nil).wantAnswered(t)
			lifted := build(limit, "usd=1/month", "tokens=1000/day", "requests=10/day", "concurrent=1")
			lifted.VirtualKey.AllowUnmetered = true
			s := serve(t, lifted, nil)
			s.wantAnswered(t)
			if body != "" {
				wantCounted(t, counting, counted{ledger.Requests: 1})
				wantCounted(t, lifted, counted{ledger.Requests: 1})
			}
		}
	}
}

func TestBounds_AModelWithoutAPriceIsRefusedWithTheCommandThatSetsIt(t *testing.T) {
	for _, limits := range []func(testing.TB, *Request, ...string){limit, limitSoftly} {
		req := chatRequest(t, `{"model":"other","messages":`+messages+`}`)
		limits(t, req, "usd=1/month")
		serve(t, req, nil).wantRefused(t, 403, apierror.TypeInvalidRequest, apierror.CodeModelNotPriced, `"other"`, "vault write <mount>/prices/openai-compatible/other input=", "output=")
		req.Book = nil
		serve(t, req, nil).wantRefused(t, 403, apierror.TypeInvalidRequest, apierror.CodeModelNotPriced)
	}
	req := chatRequest(t, `{"model":"other","messages":`+messages+`}`)
	limit(t, req, "tokens=100000/month", "usd=1/month on gpt-*")
	serve(t, req, nil).wantAnswered(t)
	// Output has no price, and chat has output.
	table, err := loadTable()
	if err != nil {
		t.Fatal(err)
	}
	req = chatRequest(t, chatText)
	req.Book = price.NewBook(table, nil, []price.Override{{Provider: "*", Model: "m", Prices: map[price.Unit]price.NanoUSD{price.Input: 1}}})
	limit(t, req, "usd=1/month")
	serve(t, req, nil).wantRefused(t, 403, apierror.TypeInvalidRequest, apierror.CodeModelNotPriced, "not of all")
	req.Path, req.Body = "v1/embeddings", []byte(`{"model":"m","input":"a"}`)
	serve(t, req, nil).wantAnswered(t)
}

// A price of zero that was said explicitly is one.
func TestBounds_AFreeModelPassesAMoneyLimit(t *testing.T) {
	table, err := loadTable()
	if err != nil {
		t.Fatal(err)
	}
	req := chatRequest(t, chatText)
	req.Book = price.NewBook(table, nil, []price.Override{{Provider: "*", Model: "m", Prices: map[price.Unit]price.NanoUSD{price.Input: 0, price.Output: 0}}})
	limit(t, req, "usd=0.01/month")
	spend(t, req, ledger.USD, 10_000_000)
	serve(t, req, nil).wantAnswered(t)
	wantCounted(t, req, counted{ledger.USD: 10_000_000})
}

func TestBounds_OfSeveralModelsTheDearestIsReservedAndCharged(t *testing.T) {
	body := `{"model":"m","models":["m","dear"],"max_tokens":50,"messages":` + messages + `}`
	req := chatRequest(t, body)
	req.VirtualKey.Target = targetOf(t, "openrouter")
	limit(t, req, "usd=1/month")
	serve(t, req, answers(200, jsonType, noUsage)).wantAnswered(t)
	wantCounted(t, req, counted{ledger.USD: 2*(costWith(50)-rounding) + rounding})
	serve(t, req, answers(200, jsonType, answerText)).wantAnswered(t)
	wantCounted(t, req, counted{ledger.USD: 2*(costWith(50)-rounding) + rounding + 2*usageCost})
	req.Body = []byte(strings.Replace(body, "dear", "other", 1))
	serve(t, req, nil).wantRefused(t, 403, apierror.TypeInvalidRequest, apierror.CodeModelNotPriced, `"other"`)
	// The larger window is what an input of unknown size may take.
	req = chatRequest(t, `{"model":"m","models":["dear"],"max_tokens":50,"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://example.com/a"}}]}]}`)
	req.VirtualKey.Target = targetOf(t, "openrouter")
	limit(t, req, "usd=10/month", "input_tokens=90000000/day")
	serve(t, req, answers(200, jsonType, noUsage)).wantAnswered(t)
	for _, s := range statuses(t, req) {
		if s.Limit.Unit == ledger.InputTokens && s.Used != 1_000_000 {
			t.Errorf("%d input tokens were reserved", s.Used)
		}
	}
	limit(t, req, "input_tokens=90000000/day") // prices aren't asked for
	serve(t, req, answers(200, jsonType, noUsage)).wantAnswered(t)
	wantCounted(t, req, counted{ledger.InputTokens: largestContext})
}

func TestBounds_SeveralModelsAreRefusedWhereLimitsTellModelsApart(t *testing.T) {
	for name, c := range map[string]struct{ path, body string }{
		"models":           {"v1/chat/completions", `{"model":"m","models":["m","dear"],"messages":[]}`},
		"fallbacks":        {"v1/chat/completions", `{"model":"m","fallbacks":["dear"],"messages":[]}`},
		"preset":           {"v1/chat/completions", `{"model":"m","preset":"p","messages":[]}`},
		"no model":         {"v1/responses", `{"input":"a"}`},
		"batch":            {"v1/batches", `{"input_file_id":"f"}`},
		"a job of a model": {"v1/fine_tuning/jobs", `{"model":"m"}`},
	} {
		t.Run(name, func(t *testing.T) {
			build := func(limits func(testing.TB, *Request, ...string), text string) *Request {
				req := chatRequest(t, c.body)
				req.Path = c.path
				limits(t, req, text)
				return req
			}
			serve(t, build(limit, "requests=5/minute on d*"), nil).wantRefused(t, 403, apierror.TypeInvalidRequest, apierror.CodeCostUnbounded, "requests=5/minute on d*", "allow_unbounded=true")
			serve(t, build(limit, "requests=5/minute"), nil).wantAnswered(t)
			serve(t, build(limitSoftly, "requests=5/minute on d*"), nil).wantAnswered(t)
			lifted := build(limit, "requests=5/minute on d*")
			lifted.VirtualKey.AllowUnbounded = true
			serve(t, lifted, nil).wantAnswered(t)
		})
	}
	image := chatRequest(t, `{"model":"m","prompt":"a cat"}`)
	image.Path = "v1/images/generations"
	limit(t, image, "requests=5/minute on m")
	serve(t, image, nil).wantAnswered(t)
	wantCounted(t, image, counted{ledger.Requests: 1})
}

func TestBounds_InputsThatAreReadOneByOneAreEachBounded(t *testing.T) {
	long := strings.Repeat("a ", 60_000) // more than the window of model m
	for _, c := range []struct{ path, body string }{
		{"v1/embeddings", fmt.Sprintf(`{"model":"m","input":[%q,%q,%q]}`, long, long, long)},
		{"v1/moderations", fmt.Sprintf(`{"model":"m","input":[%q,%q,%q]}`, long, long, long)},
		{"v1/completions", fmt.Sprintf(`{"model":"m","max_tokens":1,"prompt":[%q,%q,%q]}`, long, long, long)},
	} {
		req := chatRequest(t, c.body)
		req.Path = c.path
		limit(t, req, "input_tokens=9000000/day", "usd=1/month")
		s := serve(t, req, answers(200, jsonType, `{"usage":{"prompt_tokens":250000,"completion_tokens":0,"total_tokens":250000}}`))
		if s.recorder.Code != http.StatusOK || s.BoundExceeded {
			t.Errorf("%s: %d, exceeded %v", c.path, s.recorder.Code, s.BoundExceeded)
		}
	}
}

// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/test/vaulttest"
)

// The prices of the imitated provider's models, in USD per million tokens:
// such that no product is a whole number of nano-dollars.
const (
	inputPrice  = "2.500001"
	outputPrice = "10.000003"
)

// spending: what every completion used and cost, and who sees it.
func (s *suite) spending(t *testing.T) {
	for _, m := range []string{mount, tuned} {
		s.root.Write(t, m+"/prices/openai-compatible/up-*", map[string]any{"input": inputPrice, "output": outputPrice})
	}
	t.Run("ExactToTheNanoDollar", s.exact)
	t.Run("CachedAndReasoningTokensArePricedOnce", s.parts)
	t.Run("AStreamWithoutTheWishForUsageHasNoUsageChunkAndIsMetered", s.unaskedUsage)
	t.Run("CommandLineShowsUsageAndCost", s.commandLine)
	t.Run("PerEntity", s.perEntity)
	t.Run("OverAllVirtualKeysIsTheSumOfEach", s.allRoles)
	t.Run("RangeAndGroupsThatMakeNoSenseAre400", s.badQueries)
	t.Run("DaysBeginInTheConfiguredZone", s.zone)
	t.Run("Endings", s.endings)
	t.Run("CallersThatGoAway", s.callersGone)
	t.Run("Prices", s.pricing)
	t.Run("Metrics", s.pluginMetrics)
	t.Run("FinancePolicyReadsUsageAndPricesAndNothingMore", s.financePolicy)
	t.Run("Durability", s.usageDurability)
}

// counts are a row or a total, as the API gives them.
type counts struct {
	Role   string `json:"role"`
	Day    string `json:"day"`
	Model  string `json:"model"`
	Entity string `json:"entity"`

	Requests    int64  `json:"requests"`
	Failed      int64  `json:"failed"`
	Refused     int64  `json:"refused"`
	Input       int64  `json:"input_tokens"`
	Cached      int64  `json:"cached_tokens"`
	Output      int64  `json:"output_tokens"`
	Reasoning   int64  `json:"reasoning_tokens"`
	Cost        string `json:"cost_usd"`
	UncertainIn string `json:"unconfirmed_usd"`
	EstimatedIn string `json:"estimated_usd"`
	Unconfirmed int64  `json:"unconfirmed"`
	Estimated   int64  `json:"estimated"`
	Unpriced    int64  `json:"unpriced"`
}

// add adds o's counts to c's, exactly.
func (c *counts) add(o counts) {
	c.Requests, c.Failed, c.Refused = c.Requests+o.Requests, c.Failed+o.Failed, c.Refused+o.Refused
	c.Input, c.Cached = c.Input+o.Input, c.Cached+o.Cached
	c.Output, c.Reasoning = c.Output+o.Output, c.Reasoning+o.Reasoning
	c.Unconfirmed, c.Estimated, c.Unpriced = c.Unconfirmed+o.Unconfirmed, c.Estimated+o.Estimated, c.Unpriced+o.Unpriced
	c.Cost = sum(c.Cost, o.Cost)
	c.UncertainIn = sum(c.UncertainIn, o.UncertainIn)
	c.EstimatedIn = sum(c.EstimatedIn, o.EstimatedIn)
}

// spent is what so many requests that went well count.
func spent(requests, input, output int64, cost string) counts {
	return counts{Requests: requests, Input: input, Output: output, Cost: cost, UncertainIn: "0", EstimatedIn: "0"}
}

// usageAnswer is an answer of usage or usage/<role>.
type usageAnswer struct {
	From  string   `json:"from"`
	To    string   `json:"to"`
	Zone  string   `json:"time_zone"`
	Total counts   `json:"total"`
	Rows  []counts `json:"rows"`
}

// usageOf reads usage at path, which may have a query.
func usageOf(t *testing.T, c *vaulttest.Client, path string) usageAnswer {
	t.Helper()
	var answer struct{ Data usageAnswer }
	if err := c.Read(t, path).Decode(&answer); err != nil {
		t.Fatalf("usage at %s: %v", path, err)
	}
	return answer.Data
}

// wantUsage fails the test unless the virtual key has exactly that total.
func (s *suite) wantUsage(t *testing.T, mount, role string, want counts) {
	t.Helper()
	if got := usageOf(t, s.root, mount+"/usage/"+role).Total; got != want {
		t.Errorf("the usage of %s is\n%+v\nexpected\n%+v", role, got, want)
	}
}

// tokens are some tokens and their price in USD per million.
type tokens struct {
	n          int64
	perMillion string
}

// usd is what one request costs, by rational arithmetic: each part rounded up
// to the nano-dollar, as an exact decimal.
func usd(parts ...tokens) string {
	total := new(big.Int)
	for _, p := range parts {
		price, ok := new(big.Rat).SetString(p.perMillion)
		if !ok {
			panic("no price: " + p.perMillion)
		}
		// A dollar a million tokens is 1,000 nano-dollars a token.
		nano := price.Mul(price, big.NewRat(1000*p.n, 1))
		up, rest := new(big.Int).QuoRem(nano.Num(), nano.Denom(), new(big.Int))
		if rest.Sign() > 0 {
			up.Add(up, big.NewInt(1))
		}
		total.Add(total, up)
	}
	return decimal(new(big.Rat).SetFrac(total, big.NewInt(1_000_000_000)))
}

// completionUSD is what the imitated provider's completion costs.
func completionUSD(input, output int64) string {
	return usd(tokens{input, inputPrice}, tokens{output, outputPrice})
}

// sum adds decimal amounts; an empty one is nothing.
func sum(amounts ...string) string {
	total := new(big.Rat)
	for _, a := range amounts {
		if n, ok := new(big.Rat).SetString(cmp.Or(a, "0")); ok {
			total.Add(total, n)
		}
	}
	return decimal(total)
}

// times is n times a decimal amount.
func times(n int64, amount string) string {
	each, ok := new(big.Rat).SetString(amount)
	if !ok {
		panic("no amount: " + amount)
	}
	return decimal(each.Mul(each, big.NewRat(n, 1)))
}

func decimal(r *big.Rat) string {
	if r.IsInt() {
		return r.Num().String()
	}
	return strings.TrimRight(r.FloatString(9), "0")
}

// promptTokens is how the imitated provider counts the suite's prompt: bytes by
// four, rounded up.
func (s *suite) promptTokens() int64 { return int64(len(s.prompt)+3) / 4 }

// with returns the body with more members.
func with(body map[string]any, members map[string]any) map[string]any {
	for name, value := range members {
		body[name] = value
	}
	return body
}

// streamed asks for a stream.
func streamed(body map[string]any) map[string]any { return with(body, map[string]any{"stream": true}) }

func (s *suite) exact(t *testing.T) {
	const chat, responses = "v1/chat/completions", "v1/responses"
	usual := int64(5) // tokens of the imitated provider's answer
	wish := map[string]any{"stream_options": map[string]any{"include_usage": true}}
	for name, c := range map[string]struct {
		path   string
		body   map[string]any
		output int64
	}{
		"Chat":                     {chat, s.chat("up-ok"), usual},
		"ChatStream":               {chat, streamed(s.chat("up-ok")), usual},
		"ChatStreamAskedForUsage":  {chat, with(streamed(s.chat("up-ok")), wish), usual},
		"ChatStreamWithComments":   {chat, streamed(s.chat("up-comments")), usual},
		"ChatStreamCompressed":     {chat, streamed(s.chat("up-gzip")), usual},
		"ChatStreamOfManyEvents":   {chat, streamed(s.chat("up-stream:500:0")), 500},
		"ChatOfThreeChoicesCapped": {chat, with(s.chat("up-ok"), map[string]any{"n": 3, "max_tokens": 2}), 6},
		"Completions":              {"v1/completions", map[string]any{"model": "up-ok", "prompt": s.prompt}, usual},
		"CompletionsStream":        {"v1/completions", map[string]any{"model": "up-ok", "prompt": s.prompt, "stream": true}, usual},
		"Responses":                {responses, map[string]any{"model": "up-ok", "input": s.prompt}, usual},
		"ResponsesStream":          {responses, map[string]any{"model": "up-ok", "input": s.prompt, "stream": true}, usual},
		"Embeddings":               {"v1/embeddings", map[string]any{"model": "up-ok", "input": s.prompt}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			role := "spent-" + name
			app := s.app(t, mount, role, nil)
			from := today(time.UTC)
			wantStatus(t, post(t, app, proxyPath(mount, role, c.path), c.body), http.StatusOK)
			wantStatus(t, post(t, app, proxyPath(mount, role, c.path), c.body), http.StatusOK)
			want := spent(2, 2*s.promptTokens(), 2*c.output, times(2, completionUSD(s.promptTokens(), c.output)))
			s.wantUsage(t, mount, role, want)

			got := usageOf(t, s.root, mount+"/usage/"+role)
			if len(got.Rows) != 1 { // the test isn't run at midnight often
				t.Fatalf("rows %+v", got.Rows)
			}
			row := got.Rows[0]
			if row.Day < from || row.Day > today(time.UTC) || row.Model != c.body["model"] {
				t.Errorf("the row is of %s and %q", row.Day, row.Model)
			}
			row.Day, row.Model = "", ""
			if row != want {
				t.Errorf("the row is\n%+v\nexpected\n%+v", row, want)
			}
		})
	}
	t.Run("OtherModelsAreOtherRows", func(t *testing.T) {
		app := s.app(t, mount, "two-models", nil)
		for _, model := range []string{"up-ok", "up-gzip", "up-ok"} {
			wantStatus(t, post(t, app, chatPath(mount, "two-models"), s.chat(model)), http.StatusOK)
		}
		each := completionUSD(s.promptTokens(), usual)
		var models []string
		for _, row := range usageOf(t, s.root, mount+"/usage/two-models?group_by=model").Rows {
			models = append(models, fmt.Sprint(row.Model, " ", row.Requests, " ", row.Cost, row.Day))
		}
		if want := []string{"up-gzip 1 " + each, "up-ok 2 " + times(2, each)}; !slices.Equal(models, want) {
			t.Errorf("rows %q, expected %q", models, want)
		}
	})
	t.Run("ARouteThatIsFreeIsARequestWithoutCost", func(t *testing.T) {
		app := s.app(t, mount, "free", nil)
		wantStatus(t, do(t, app, http.MethodGet, proxyPath(mount, "free", "v1/models"), nil), http.StatusOK)
		s.wantUsage(t, mount, "free", spent(1, 0, 0, "0"))
	})
}

// today is the day in a zone, as usage writes it.
func today(zone *time.Location) string { return time.Now().In(zone).Format(time.DateOnly) }

// parts asks the built-in sandbox, whose models report what the imitated
// provider doesn't. Prices are those of docs/sandbox.md.
func (s *suite) parts(t *testing.T) {
	s.root.Write(t, mount+"/keys/sandbox", map[string]any{"provider": "sandbox"})
	for name, c := range map[string]struct {
		model, input, cacheRead, output string
		cached, reasoning               int64
	}{
		"Cached":    {"sandbox-small:cached=5", "0.15", "0.075", "0.6", 5, 0},
		"Reasoning": {"sandbox-reasoning", "1.1", "0.55", "4.4", 0, 128},
		"Both":      {"sandbox-reasoning:cached=7:reasoning=11", "1.1", "0.55", "4.4", 7, 11},
	} {
		for _, stream := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s_Streamed_%t", name, stream), func(t *testing.T) {
				role := fmt.Sprintf("parts-%s-%t", name, stream)
				app := s.app(t, mount, role, map[string]any{"key": "sandbox"})
				// What it answers without a stream says what it used.
				resp := post(t, app, chatPath(mount, role), s.chat(c.model))
				wantStatus(t, resp, http.StatusOK)
				reported := reportedUsage(t, resp)
				requests := int64(1)
				if stream {
					wantStatus(t, post(t, app, chatPath(mount, role), streamed(s.chat(c.model))), http.StatusOK)
					requests = 2
				}
				if reported.Cached != c.cached || reported.Reasoning != c.reasoning {
					t.Fatalf("the sandbox reports %+v", reported)
				}
				want := spent(requests, requests*reported.Input, requests*reported.Output, times(requests, usd(
					tokens{reported.Input - c.cached, c.input}, tokens{c.cached, c.cacheRead}, tokens{reported.Output, c.output})))
				want.Cached, want.Reasoning = requests*c.cached, requests*c.reasoning
				s.wantUsage(t, mount, role, want)
			})
		}
	}
}

// reportedUsage is what a chat completion says that it used.
func reportedUsage(t *testing.T, resp *vaulttest.Response) counts {
	t.Helper()
	var answer struct {
		Usage struct {
			Prompt     int64 `json:"prompt_tokens"`
			Completion int64 `json:"completion_tokens"`
			Input      struct {
				Cached int64 `json:"cached_tokens"`
			} `json:"prompt_tokens_details"`
			Output struct {
				Reasoning int64 `json:"reasoning_tokens"`
			} `json:"completion_tokens_details"`
		} `json:"usage"`
	}
	if err := json.Unmarshal(resp.Body, &answer); err != nil || answer.Usage.Prompt == 0 {
		t.Fatalf("no usage in %s", resp)
	}
	u := answer.Usage
	return counts{Input: u.Prompt, Cached: u.Input.Cached, Output: u.Completion, Reasoning: u.Output.Reasoning}
}

func (s *suite) unaskedUsage(t *testing.T) {
	const chunk = `"usage":{`
	app := s.app(t, mount, "unasked", nil)
	for name, body := range map[string]map[string]any{
		"chat":           streamed(s.chat("up-ok")),
		"said no":        with(streamed(s.chat("up-ok")), map[string]any{"stream_options": map[string]any{"include_usage": false}}),
		"other options":  with(streamed(s.chat("up-comments")), map[string]any{"stream_options": map[string]any{"include_obfuscation": false}}),
		"null":           with(streamed(s.chat("up-gzip")), map[string]any{"stream_options": nil}),
		"completions":    {"model": "up-ok", "prompt": s.prompt, "stream": true},
		"one byte a cut": streamed(s.chat("up-comments")),
	} {
		path := "v1/chat/completions"
		if name == "completions" {
			path = "v1/completions"
		}
		resp := post(t, app, proxyPath(mount, "unasked", path), body)
		if text := string(resp.Body); resp.Status != http.StatusOK || strings.Contains(text, chunk) || !strings.Contains(text, "data: [DONE]") {
			t.Errorf("%s: the caller got %s", name, resp)
		}
		sent := lastRequest(t, s.up)
		var asked struct {
			StreamOptions struct {
				IncludeUsage bool `json:"include_usage"`
			} `json:"stream_options"`
		}
		if err := json.Unmarshal(sent.Body, &asked); err != nil || !asked.StreamOptions.IncludeUsage {
			t.Errorf("%s: the provider was asked for %s", name, sent.Body)
		}
		// The control: to those bytes the provider does answer with the chunk.
		if text := string(direct(t, s.up, sent.Key, http.MethodPost, path, json.RawMessage(sent.Body)).Body); !strings.Contains(text, chunk) {
			t.Errorf("%s: the provider gave no usage: %s", name, text)
		}
	}
	asked := with(streamed(s.chat("up-ok")), map[string]any{"stream_options": map[string]any{"include_usage": true}})
	if resp := post(t, app, chatPath(mount, "unasked"), asked); !strings.Contains(string(resp.Body), chunk) {
		t.Errorf("a caller who asked for usage got %s", resp)
	}
	s.wantUsage(t, mount, "unasked", spent(7, 7*s.promptTokens(), 7*5, times(7, completionUSD(s.promptTokens(), 5))))
}

func (s *suite) commandLine(t *testing.T) {
	app := s.app(t, mount, "terminal", nil)
	data := post(t, app, mount+"/proxy/terminal", map[string]any{"model": "up-ok", "prompt": s.prompt}).Data()
	usage, _ := data["usage"].(map[string]any)
	if data["cost_usd"] != completionUSD(s.promptTokens(), 5) || usage["prompt_tokens"] != float64(s.promptTokens()) || usage["completion_tokens"] != 5.0 {
		t.Errorf("vault write %s/proxy/terminal gives %v", mount, data)
	}
	data = post(t, app, mount+"/proxy/terminal", map[string]any{"model": "gpt-4o", "prompt": s.prompt}).Data()
	if data["cost_usd"] != "" {
		t.Errorf("the cost of a model without a price is %q", data["cost_usd"])
	}
	data = post(t, app, mount+"/proxy/terminal", map[string]any{"model": "up-no-usage", "prompt": s.prompt, "max_tokens": 5}).Data()
	if text, _ := data["cost_usd"].(string); !strings.Contains(text, "unconfirmed") {
		t.Errorf("the cost without the provider's usage is %q", text)
	}
}

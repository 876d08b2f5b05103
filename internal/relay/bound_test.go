// SPDX-License-Identifier: MPL-2.0

package relay

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	"vault-plugin-secrets-portkey/internal/apierror"
	"vault-plugin-secrets-portkey/internal/ledger"
)

// generous is a provider that uses as much of what a request allows as chance
// will have. It reads requests by encoding/json and knows nothing of this
// package: a token a byte of text at the most, what framing really costs, and
// the cap for each choice.
type generous struct {
	r      *rand.Rand
	bodies []string
}

type generousRequest struct {
	Model               string
	Models              []string
	Messages            []struct{ Role, Content any }
	Input, Prompt       any
	Tools               []any
	N                   *int64
	BestOf              *int64 `json:"best_of"`
	MaxTokens           *int64 `json:"max_tokens"`
	MaxCompletionTokens *int64 `json:"max_completion_tokens"`
	MaxOutputTokens     *int64 `json:"max_output_tokens"`
	Stream              bool
}

// textOf is the length of all text in v, and whether there is more than text.
func textOf(v any) (n int64, media bool) {
	switch v := v.(type) {
	case string:
		return int64(len(v)), false
	case []any:
		for _, item := range v {
			m, other := textOf(item)
			n, media = n+m, media || other
		}
	case map[string]any:
		for key, item := range v {
			m, other := textOf(item)
			n, media = n+m+int64(len(key)), media || other || key == "image_url"
		}
	}
	return n, media
}

// allowed is the most that the request can use: input, and output of all
// choices. The provider takes the larger of two caps.
func (g *generousRequest) allowed(path string) (input, output int64) {
	const window = 100_000
	inputs := int64(1)
	text, media := int64(3), false
	add := func(v any) {
		n, other := textOf(v)
		text, media = text+n, media || other
	}
	for _, m := range g.Messages {
		add(m.Content)
		text += 8
	}
	for _, v := range []any{g.Input, g.Prompt} {
		add(v)
		if list, ok := v.([]any); ok {
			inputs = int64(len(list))
			text += 4 * inputs
		}
	}
	add(any(g.Tools))
	if len(g.Tools) > 0 {
		text += 530 + 16*int64(len(g.Tools))
	}
	most := window * inputs
	for _, model := range g.Models {
		if model == "dear" {
			most = 1_000_000
		}
	}
	if input = min(text, most); media {
		input = most
	}
	perChoice, choices := int64(0), int64(1)
	for _, c := range []*int64{g.MaxTokens, g.MaxCompletionTokens, g.MaxOutputTokens} {
		if c != nil {
			perChoice = max(perChoice, *c)
		}
	}
	for _, c := range []*int64{g.N, g.BestOf} {
		if c != nil {
			choices = max(choices, *c)
		}
	}
	switch path {
	case "embeddings":
		return input, 0
	case "completions":
		choices *= inputs
	}
	return input, perChoice * choices
}

func (g *generous) RoundTrip(r *http.Request) (*http.Response, error) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	g.bodies = append(g.bodies, string(b))
	var req generousRequest
	if err := json.Unmarshal(b, &req); err != nil {
		return nil, err
	}
	path := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	input, output := req.allowed(path)
	some := func(most int64) int64 {
		if g.r.IntN(2) == 0 {
			return most
		}
		return g.r.Int64N(most + 1)
	}
	input, output = some(input), some(output)
	names := []string{"prompt_tokens", "completion_tokens", "prompt_tokens_details"}
	if path == "responses" {
		names = []string{"input_tokens", "output_tokens", "input_tokens_details"}
	}
	usage := fmt.Sprintf(`"usage":{%q:%d,%q:%d,%q:{"cached_tokens":%d}}`, names[0], input, names[1], output, names[2], g.r.Int64N(input+1))
	switch {
	case g.r.IntN(8) == 0: // no usage: the outcome is unknown
		usage = `"id":"x"`
	case g.r.IntN(7) == 0:
		return nil, errReset
	}
	if req.Stream {
		text := "data: {\"choices\":[]," + usage + "}\n\n" + chunkDone
		return answers(200, streamType, text)(r)
	}
	return answers(200, jsonType, `{"choices":[],`+usage+`}`)(r)
}

// randomRequest is a request for the generous provider: any route, sizes, caps,
// choices, models and tools.
func randomRequest(r *rand.Rand) (path, body string) {
	var members []string
	add := func(format string, args ...any) { members = append(members, fmt.Sprintf(format, args...)) }
	maybe := func(oneIn int, format string, args ...any) {
		if r.IntN(oneIn) == 0 {
			add(format, args...)
		}
	}
	text := func() string {
		letters := []string{"a", "Hello ", "ö", "\\u00e9", "🙂", "\\n", "日本"}
		return `"` + strings.Repeat(letters[r.IntN(len(letters))], r.IntN(60)) + `"`
	}
	list := func(n int, item func() string) string {
		items := make([]string, n)
		for i := range items {
			items[i] = item()
		}
		return "[" + strings.Join(items, ",") + "]"
	}
	add(`"model":"m"`)
	maybe(4, `"models":["m","dear"]`)
	maybe(3, `"user":%s`, text())
	path = []string{"chat/completions", "completions", "embeddings", "responses"}[r.IntN(4)]
	switch path {
	case "chat/completions":
		add(`"messages":%s`, list(1+r.IntN(4), func() string {
			if r.IntN(12) == 0 {
				return `{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://example.com/a.png"}}]}`
			}
			return `{"role":"user","content":` + text() + `}`
		}))
		maybe(3, `"n":%d`, 1+r.IntN(4))
		maybe(2, `"max_tokens":%d`, r.IntN(2000))
		maybe(3, `"max_completion_tokens":%d`, r.IntN(2000))
		maybe(3, `"tools":%s`, list(1+r.IntN(3), func() string { return `{"type":"function","function":{"name":"f","description":` + text() + `}}` }))
		maybe(2, `"stream":true`)
	case "completions":
		if r.IntN(2) == 0 {
			add(`"prompt":%s`, list(1+r.IntN(4), text))
		} else {
			add(`"prompt":%s`, text())
		}
		maybe(3, `"n":%d`, 1+r.IntN(4))
		maybe(3, `"best_of":%d`, 4+r.IntN(4))
		maybe(2, `"max_tokens":%d`, r.IntN(2000))
	case "embeddings":
		add(`"input":%s`, list(1+r.IntN(5), text))
	case "responses":
		add(`"input":%s`, text())
		maybe(2, `"max_output_tokens":%d`, r.IntN(2000))
	}
	r.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	return "v1/" + path, "{" + strings.Join(members, ",") + "}"
}

// TestBound_NoAnswerThatTheRequestAllowsUsesMoreThanIsReserved is rule 3: the
// reservation is never below what is charged, whatever the provider makes of
// the request; nor is any limit ever overspent.
func TestBound_NoAnswerThatTheRequestAllowsUsesMoreThanIsReserved(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	base := chatRequest(t, "")
	admitted, lowered := 0, 0
	for round := range 300 {
		r := rand.New(rand.NewPCG(seed, uint64(round)))
		req := *base
		vk := *base.VirtualKey
		vk.MinOutputTokens = int64(r.IntN(40))
		if r.IntN(2) == 0 {
			vk.Target = targetOf(t, []string{"openrouter", "openai", "mistral-ai"}[r.IntN(3)])
		}
		req.VirtualKey = &vk
		limits := []string{"usd=2/month", "tokens=3000000/day", "output_tokens=20000/total", "input_tokens=3000000/30d", "concurrent=1", "requests=1000/hour"}
		r.Shuffle(len(limits), func(i, j int) { limits[i], limits[j] = limits[j], limits[i] })
		limit(t, &req, limits[:1+r.IntN(len(limits))]...)
		provider := &generous{r: r}
		for range 25 {
			req.Path, req.Body = randomRequestBytes(r)
			before := len(provider.bodies)
			o := settled(t.Context(), t, provider, newRecorder(), &req)
			where := fmt.Sprintf("seed %d, round %d: %s %s", seed, round, req.Path, req.Body)
			if o.BoundExceeded {
				t.Fatalf("%s\nas %v\nused %v, more than was reserved", where, provider.bodies[before:], o.Usage)
			}
			if o.Result != Refused {
				admitted++
			}
			if o.Capped > 0 && o.Capped != base.DefaultOutputCap {
				lowered++
			}
			for _, s := range statuses(t, &req) {
				if s.Used > s.Limit.Max || s.Reserved != 0 || s.Exceeded != 0 {
					t.Fatalf("%s: %+v", where, s)
				}
			}
		}
	}
	if admitted < 1000 || lowered < 20 {
		t.Errorf("%d requests were admitted, %d of them with a lowered cap: the test proves little", admitted, lowered)
	}
}

func randomRequestBytes(r *rand.Rand) (path string, body []byte) {
	path, text := randomRequest(r)
	return path, []byte(text)
}

func TestBound_ARequestIsHeldByItsWorstCaseToTheToken(t *testing.T) {
	req := chatRequest(t, chatText)
	limit(t, req, "input_tokens=1000/day")
	busy := reserve(t, req, ledger.InputTokens, 1000-int64(worstInput))
	serve(t, req, nil).wantAnswered(t)
	busy.Settle(ledger.Charge{})
	reserve(t, req, ledger.InputTokens, 1000-10-int64(worstInput)+1) // 10 are used
	serve(t, req, nil).wantRefused(t, 429, apierror.TypeRequests, apierror.CodeBudgetReserved)
}

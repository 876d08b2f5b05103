// SPDX-License-Identifier: MPL-2.0

package wire

import (
	"bytes"
	"strings"
	"testing"
)

func TestMeter_ReadsEveryDocumentedShapeOfUsage(t *testing.T) {
	for name, c := range map[string]struct {
		kind Kind
		json string
		want Usage
	}{
		"chat": {Chat, `{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29}`, Usage{Input: 19, Output: 10, Total: 29}},
		"cached and audio": {Chat, `{"prompt_tokens":2006,"completion_tokens":300,"total_tokens":2306,
			"prompt_tokens_details":{"cached_tokens":1920,"audio_tokens":50},
			"completion_tokens_details":{"reasoning_tokens":128,"audio_tokens":30}}`,
			Usage{Input: 2006, CacheRead: 1920, InputAudio: 50, Output: 300, Reasoning: 128, OutputAudio: 30, Total: 2306}},
		"null details": {Chat, `{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3,"prompt_tokens_details":null,"completion_tokens_details":null}`,
			Usage{Input: 1, Output: 2, Total: 3}},
		"responses": {Responses, `{"input_tokens":328,"input_tokens_details":{"cached_tokens":64},"output_tokens":52,"output_tokens_details":{"reasoning_tokens":40},"total_tokens":380}`,
			Usage{Input: 328, CacheRead: 64, Output: 52, Reasoning: 40, Total: 380}},
		"embeddings":                  {Embeddings, `{"prompt_tokens":8,"total_tokens":8}`, Usage{Input: 8, Total: 8}},
		"embeddings, total only":      {Embeddings, `{"total_tokens":10}`, Usage{Input: 10, Total: 10}},
		"reasoning beside completion": {Chat, `{"prompt_tokens":12,"completion_tokens":1,"total_tokens":399,"completion_tokens_details":{"reasoning_tokens":386}}`, Usage{Input: 12, Output: 387, Reasoning: 386, Total: 399}},
		"reasoning in completion":     {Chat, `{"prompt_tokens":686,"completion_tokens":123,"total_tokens":809,"completion_tokens_details":{"reasoning_tokens":112}}`, Usage{Input: 686, Output: 123, Reasoning: 112, Total: 809}},
		"thoughts in the total":       {Chat, `{"prompt_tokens":20,"completion_tokens":198,"total_tokens":623}`, Usage{Input: 20, Output: 603, Reasoning: 405, Total: 623}},
		"thoughts alone":              {Chat, `{"prompt_tokens":21,"completion_tokens":0,"total_tokens":81,"completion_tokens_details":{"reasoning_tokens":60}}`, Usage{Input: 21, Output: 60, Reasoning: 60, Total: 81}},
		"deepseek":                    {Chat, `{"prompt_tokens":140,"completion_tokens":5,"total_tokens":145,"prompt_cache_hit_tokens":128,"prompt_cache_miss_tokens":12,"prompt_tokens_details":{"cached_tokens":128}}`, Usage{Input: 140, CacheRead: 128, Output: 5, Total: 145}},
		"moonshot":                    {Chat, `{"prompt_tokens":19,"completion_tokens":21,"total_tokens":40,"cached_tokens":10}`, Usage{Input: 19, CacheRead: 10, Output: 21, Total: 40}},
		"openrouter":                  {Chat, `{"prompt_tokens":194,"completion_tokens":2,"total_tokens":196,"cost":8.1e-06,"prompt_tokens_details":{"cached_tokens":0,"cache_write_tokens":100}}`, Usage{Input: 194, CacheWrite: 100, Output: 2, Total: 196, ProviderCostUSD: "8.1e-06"}},
		"perplexity":                  {Chat, `{"prompt_tokens":33,"completion_tokens":70,"total_tokens":103,"search_context_size":"low","reasoning_tokens":900,"citation_tokens":20,"num_search_queries":2,"cost":{"input_tokens_cost":0.1,"request_cost":0.005,"total_cost":0.105}}`, Usage{Input: 33, Output: 970, Reasoning: 900, Total: 103, ProviderCostUSD: "0.105"}},
		"openrouter, own key": {Chat, `{"prompt_tokens":1,"completion_tokens":2,"cost":0.000625,"is_byok":true,"cost_details":{"upstream_inference_cost":0.0125,"upstream_inference_prompt_cost":1}}`,
			Usage{Input: 1, Output: 2, ProviderCostUSD: "0.000625", OwnKey: true, UpstreamCostUSD: "0.0125"}},
		"openrouter, own key, untold":  {Chat, `{"cost":0.1,"is_byok":true,"cost_details":{"upstream_inference_cost":null}}`, Usage{ProviderCostUSD: "0.1", OwnKey: true}},
		"openrouter, its own key":      {Chat, `{"cost":0.1,"is_byok":false,"cost_details":{"upstream_inference_cost":0.1}}`, Usage{ProviderCostUSD: "0.1", UpstreamCostUSD: "0.1"}},
		"images":                       {Chat, `{"prompt_tokens":1,"completion_tokens":1300,"completion_tokens_details":{"reasoning_tokens":0,"image_tokens":1290}}`, Usage{Input: 1, Output: 1300, OutputImage: 1290}},
		"details of nothing known":     {Chat, `{"completion_tokens":5,"completion_tokens_details":{"reasoning_tokens":1,"audio_tokens":null}}`, Usage{Output: 5, Reasoning: 1}},
		"odd details":                  {Chat, `{"completion_tokens":5,"completion_tokens_details":[{"audio_tokens":9}],"prompt_tokens_details":7,"is_byok":null,"cost_details":[1]}`, Usage{Output: 5}},
		"deepinfra":                    {Chat, `{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7,"estimated_cost":2.1e-7}`, Usage{Input: 3, Output: 4, Total: 7, ProviderCostUSD: "2.1e-7"}},
		"xai":                          {Chat, `{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7,"cost_in_usd_ticks":232856000}`, Usage{Input: 3, Output: 4, Total: 7, ProviderCostUSD: "0.0232856"}},
		"xai, whole dollars":           {Chat, `{"cost_in_usd_ticks":30000000000}`, Usage{ProviderCostUSD: "3"}},
		"parts beside their whole":     {Chat, `{"prompt_tokens":10,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":100}}`, Usage{Input: 110, CacheRead: 100, Output: 1}},
		"parts together more":          {Chat, `{"prompt_tokens":10,"prompt_tokens_details":{"cached_tokens":4,"cache_write_tokens":9}}`, Usage{Input: 23, CacheRead: 4, CacheWrite: 9}},
		"no total":                     {Chat, `{"prompt_tokens":10,"completion_tokens":1}`, Usage{Input: 10, Output: 1}},
		"nothing":                      {Chat, `{}`, Usage{}},
		"odd numbers":                  {Chat, `{"prompt_tokens":-5,"completion_tokens":1.2,"total_tokens":1e999}`, Usage{Output: 1e15, Reasoning: 1e15 - 2, Total: 1e15}},
		"no numbers":                   {Chat, `{"prompt_tokens":"9","completion_tokens":[3],"total_tokens":null,"cost":"1"}`, Usage{}},
		"of duplicates, the largest":   {Chat, `{"prompt_tokens":9,"prompt_tokens":4}`, Usage{Input: 9}},
		"more audio than output":       {Chat, `{"completion_tokens":1,"completion_tokens_details":{"audio_tokens":5}}`, Usage{Output: 5, OutputAudio: 5}},
		"other members, deeply nested": {Chat, `{"a":{"prompt_tokens":7,"b":[{"usage":{}}]},"prompt_tokens":2}`, Usage{Input: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			c.want.Known = true
			body := []byte(`{"id":"1","model":"m-1","usage":` + c.json + `,"choices":[{"message":{"content":"{\"usage\":{\"prompt_tokens\":1}}"}}]}`)
			for _, parts := range [][][]byte{{body}, bytes.SplitAfter(body, nil)} {
				m := NewMeter(c.kind, false, true)
				if out := run(m, parts...); !bytes.Equal(out, body) {
					t.Errorf("the body was changed: %s", out)
				}
				got := m.Usage()
				if split := strings.Contains(c.json, `_details":{"reasoning_tokens":128,"audio`) || strings.Contains(c.json, `_details":{"audio_tokens":5`) || strings.Contains(c.json, `image_tokens`); got.OutputSplit != split {
					t.Errorf("the output's kinds are told: %v", got.OutputSplit)
				}
				if got.OutputSplit = false; got != c.want {
					t.Errorf("\n got %+v\nwant %+v", got, c.want)
				}
				if m.Model() != "m-1" || m.Outcome() != Complete {
					t.Errorf("model %q, %v", m.Model(), m.Outcome())
				}
			}
		})
	}
}

func TestMeter_TakesUsageFromWhereItBelongs(t *testing.T) {
	const long = "usage0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"
	for body, want := range map[string]int64{
		`{"usage":{"prompt_tokens":1},"choices":[{"usage":{"prompt_tokens":2}}],"x_groq":{"usage":{"prompt_tokens":3}}}`: 1,
		`{"choices":[{"usage":{"prompt_tokens":2}}],"x_groq":{"usage":{"prompt_tokens":3}},"usage":{"prompt_tokens":1}}`: 1,
		`{"choices":[{"usage":{"prompt_tokens":2}}],"usage":null}`:                                                       2,
		`{"x_groq":{"usage":{"prompt_tokens":3}},"choices":[{"usage":{"prompt_tokens":2}}]}`:                             3,
		`{"choices":[{"message":{"usage":{"prompt_tokens":2}}}],"response":{"usage":{"prompt_tokens":3}}}`:               0,
		`{"` + long + `":{"prompt_tokens":1},"Usage":{"prompt_tokens":2},"a":{"usage":{"prompt_tokens":3}}}`:             0,
	} {
		for cut := range body {
			m := NewMeter(Chat, false, false)
			run(m, []byte(body[:cut]), []byte(body[cut:]))
			if u := m.Usage(); u.Input != want {
				t.Fatalf("%s, cut at %d: %+v", body, cut, u)
			}
		}
	}
}

func TestMeter_TellsHowAJSONAnswerEnded(t *testing.T) {
	for _, c := range []struct {
		in      string
		outcome Outcome
		known   bool
	}{
		{`{"usage":{"prompt_tokens":1}}`, Complete, true},
		{" {\"usage\":{\"prompt_tokens\":1}} \n", Complete, true},
		{`{"usage":{"prompt_tokens":1}`, Truncated, false},
		{`{"usage":{"prompt_tok`, Truncated, false},
		{`{"usage":{"prompt_tokens":1}} x`, Truncated, false},
		{`{"usage":{"prompt_tokens":1}}{}`, Truncated, false},
		{`{"usage":null}`, Complete, false},
		{`{"usage":{"prompt_tokens":1},"usage":null}`, Complete, false},
		{`{"status":"queued","usage":null,"error":null}`, Complete, false},
		{`{"error":{"message":"x"},"usage":{"prompt_tokens":1}}`, ErrorEvent, true},
		{`[1]`, Complete, false},
		{``, Truncated, false},
		{`<html>`, Complete, false},
	} {
		m := NewMeter(Responses, false, false)
		run(m, []byte(c.in))
		if m.Outcome() != c.outcome || m.Usage().Known != c.known {
			t.Errorf("%q: %v, usage %+v", c.in, m.Outcome(), m.Usage())
		}
	}
}

// An answer may hold 32 MiB of numbers; its usage may be before or after them.
func TestMeter_FindsUsageInAHugeAnswerWithBoundedMemory(t *testing.T) {
	vector := []byte(`{"object":"embedding","index":0,"embedding":[` + strings.Repeat("-0.0123456,", 5000) + `0]},`)
	for _, after := range []bool{true, false} {
		const usage = `"usage":{"prompt_tokens":77,"total_tokens":77}`
		m := NewMeter(Embeddings, false, false)
		if after {
			m.Next([]byte(`{"data":[`))
		} else {
			m.Next([]byte(`{` + usage + `,"data":[`))
		}
		for range 100 {
			m.Next(vector)
		}
		if after {
			m.Next([]byte(`{}],` + usage + `}`))
		} else {
			m.Next([]byte(`{}]}`))
		}
		if u := m.Usage(); u.Input != 77 || m.Outcome() != Complete {
			t.Errorf("usage after the data %v: %+v, %v", after, u, m.Outcome())
		}
		if kept := cap(m.tap.usage) + cap(m.tap.key); kept > 1024 {
			t.Errorf("%d bytes are kept", kept)
		}
	}
}

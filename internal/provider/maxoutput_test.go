// SPDX-License-Identifier: MPL-2.0

package provider

import (
	"encoding/json"
	"strings"
	"testing"
)

// The names are those that requests have.
func TestMaxOutput_IsKnownOfModelsThatAllowLittle(t *testing.T) {
	for id, models := range map[string]map[string]int64{
		"openai": {
			"gpt-4-turbo": 4096, "gpt-4-turbo-2024-04-09": 4096, "gpt-4-turbo-preview": 4096, "gpt-4-1106-preview": 4096, "gpt-4-0125-preview": 4096,
			"gpt-4": 4096, "gpt-4-0613": 4096, "GPT-4": 4096, "gpt-3.5-turbo": 4096, "gpt-3.5-turbo-0125": 4096, "gpt-3.5-turbo-16k": 4096,
			"gpt-3.5-turbo-instruct": 2048, "ft:gpt-3.5-turbo-0125:org::abc": 4096, "gpt-4o-2024-05-13": 4096, "davinci-002": 4096,
			"ft:davinci-002:org::abc": 4096, "computer-use-preview": 1024,
		},
		"azure-openai": {"gpt-35-turbo": 4096, "gpt-35-turbo-16k": 4096, "gpt-4-turbo-2024-04-09": 4096},
		"anthropic": {
			"claude-3-haiku-20240307": 4096, "claude-3-opus-latest": 4096, "claude-3-sonnet-20240229": 4096,
			"claude-3-5-sonnet-20241022": 8192, "claude-3-5-haiku-latest": 8192,
		},
		"google":        {"gemini-2.0-flash": 8192, "models/gemini-2.0-flash-lite": 8192, "gemini-1.5-pro": 8192, "gemma-3-27b-it": 8192, "gemma-3n-e4b-it": 2048},
		"deepseek":      {"deepseek-chat": 8192},
		"cohere":        {"command-a-03-2025": 8000, "command-r7b-12-2024": 4000, "command-r-plus-08-2024": 4000, "c4ai-aya-expanse-32b": 4000},
		"groq":          {"meta-llama/llama-4-scout-17b-16e-instruct": 8192, "meta-llama/llama-guard-4-12b": 1024, "meta-llama/llama-prompt-guard-2-22m": 512},
		"ai21":          {"jamba-large-1.7": 4096},
		"perplexity-ai": {"sonar-pro": 8000},
		"moonshot":      {"moonshot-v1-8k": 4096},
		"novita-ai":     {"deepseek/deepseek-r1-turbo": 16000, "deepseek/deepseek-r1/community": 8000, "baidu/ernie-4.5-21B-a3b": 8000},
		"bedrock": {
			"us.anthropic.claude-3-haiku-20240307-v1:0": 4096, "anthropic.claude-3-5-sonnet-20240620-v1:0": 4096, "anthropic.claude-3-5-sonnet-20241022-v2:0": 8192,
			"us.meta.llama3-3-70b-instruct-v1:0": 4096, "meta.llama3-70b-instruct-v1:0": 2048, "us.amazon.nova-pro-v1:0": 10000, "google.gemma-3-27b-it": 8000,
		},
		"openrouter": {
			"openai/gpt-4-turbo": 4096, "openai/gpt-3.5-turbo": 4096, "anthropic/claude-3-haiku": 4096, "anthropic/claude-3.5-haiku": 8192,
			"google/gemini-2.0-flash-001": 8192, "cohere/command-a": 8000, "perplexity/sonar-pro": 8000, "ai21/jamba-mini-1.7": 4096,
		},
		"openai-compatible": {"gpt-4-turbo": 4096},
	} {
		p := get(t, id)
		for model, want := range models {
			if got := p.MaxOutput(model); got != want {
				t.Errorf("%s: the maximum output of %s is %d, want %d", id, model, got, want)
			}
		}
	}
}

// A maximum where there is none would cut answers off.
func TestMaxOutput_IsUnknownOfModelsThatAllowMuch(t *testing.T) {
	for id, names := range map[string]string{
		"openai": "gpt-4o gpt-4o-2024-08-06 gpt-4o-mini chatgpt-4o-latest gpt-4.1 gpt-4.1-mini gpt-4.5-preview gpt-4-32k gpt-5 gpt-5-mini gpt-5.1-chat-latest " +
			"o1 o3-mini o4-mini ft:gpt-4o-mini-2024-07-18:org::abc ft:gpt-4.1-nano-2025-04-14:org::abc text-embedding-3-small",
		"azure-openai": "gpt-4o gpt-4.1 my-deployment",
		"anthropic":    "claude-3-7-sonnet-latest claude-sonnet-4-5 claude-opus-4-1 claude-haiku-4-5 claude-sonnet-5",
		"google":       "gemini-2.0-flash-thinking-exp gemini-2.5-flash gemini-2.5-pro gemini-3-pro-preview gemini-flash-latest gemma-4-31b-it",
		"deepseek":     "deepseek-reasoner deepseek-v4-pro",
		"mistral-ai":   "mistral-large-latest mistral-small-latest mistral-medium-2508 codestral-latest open-mistral-7b",
		"cohere":       "command-a-reasoning-08-2025 command-a-plus-05-2026",
		"groq":         "openai/gpt-oss-120b llama-3.3-70b-versatile llama-3.1-8b-instant qwen/qwen3-32b moonshotai/kimi-k2-instruct",
		"x-ai":         "grok-4 grok-3-mini grok-code-fast-1",
		"moonshot":     "kimi-k2-0905-preview moonshot-v1-128k",
		"bedrock":      "us.amazon.nova-2-lite-v1:0 openai.gpt-oss-120b-1:0 us.deepseek.v3.2 us.anthropic.claude-3-7-sonnet-20250219-v1:0",
		"novita-ai":    "baidu/ernie-4.5-21B-a3b-thinking deepseek/deepseek-v3.2",
		"openrouter":   "openai/gpt-4o anthropic/claude-sonnet-4.5 anthropic/claude-3.7-sonnet:thinking google/gemini-2.5-pro deepseek/deepseek-chat perplexity/sonar-pro-search openrouter/auto",
		"sandbox":      "sandbox-small sandbox-large sandbox-reasoning",
		"vllm":         "my-model",
	} {
		p := get(t, id)
		for name := range strings.FieldsSeq(names) {
			if got := p.MaxOutput(name); got != 0 {
				t.Errorf("%s: the maximum output of %s is said to be %d", id, name, got)
			}
		}
	}
}

func TestMaxOutput_TheFirstThatHoldsWinsAndTheProvidersOwnGoFirst(t *testing.T) {
	acme, other := validEntry(), validEntry()
	other["id"] = "other"
	delete(other, "max_output")
	limit := func(tokens int, globs ...any) object { return object{"tokens": tokens, "models": globs} }
	data, err := json.Marshal(object{
		"max_output": []any{limit(10, "acme-s1"), limit(20, "acme-*", "!acme-x"), limit(30, "acme-x")},
		"providers":  []any{acme, other},
	})
	if err != nil {
		t.Fatal(err)
	}
	c, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	own, _ := c.Get("acme")
	plain, _ := c.Get("other")
	for model, want := range map[string][2]int64{
		"acme-s1": {4096, 10}, "maker/ACME-S1": {4096, 10}, "acme-s9": {20, 20}, "acme-x": {30, 30}, "another": {0, 0},
	} {
		if got := [2]int64{own.MaxOutput(model), plain.MaxOutput(model)}; got != want {
			t.Errorf("%s: %v, want %v", model, got, want)
		}
	}
}

func TestMaxOutput_AllocatesNothing(t *testing.T) {
	p := get(t, "bedrock")
	for _, model := range []string{"us.anthropic.claude-3-haiku-20240307-v1:0", "openai.gpt-oss-120b-1:0"} {
		if n := testing.AllocsPerRun(100, func() { p.MaxOutput(model) }); n > 0 {
			t.Errorf("%s: %.0f allocations", model, n)
		}
	}
}

func BenchmarkMaxOutput(b *testing.B) {
	p := get(b, "bedrock")
	b.ReportAllocs()
	for b.Loop() {
		p.MaxOutput("openai.gpt-oss-120b-1:0")
	}
}

// SPDX-License-Identifier: MPL-2.0

package provider

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/ryanuber/go-glob"
)

func TestCatalogue_ChatCapFieldIsTheOneThatTheProviderDocuments(t *testing.T) {
	current := map[string]bool{
		"azure-openai": true, "bedrock": true, "cerebras": true, "groq": true, "moonshot": true, "openai": true, "x-ai": true,
	}
	reading := map[string]bool{"anthropic": true, "fireworks-ai": true, "google": true, "sandbox": true, "vllm": true}
	ignoring := map[string]bool{"deepseek": true, "ollama": true, "openrouter": true}
	c := load(t)
	for _, id := range c.IDs() {
		p, _ := c.Get(id)
		want := CapMaxTokens
		if current[id] {
			want = CapMaxCompletionTokens
		}
		if p.ChatCapField != want || p.IgnoresMaxCompletionTokens != ignoring[id] {
			t.Errorf("%s: cap %q, ignores max_completion_tokens: %v", id, p.ChatCapField, p.IgnoresMaxCompletionTokens)
		}
		// OpenAI and others refuse a request that has both.
		if want := !current[id] && !reading[id]; p.WantsMaxTokens() != want {
			t.Errorf("%s: wants max_tokens beside max_completion_tokens: %v", id, !want)
		}
		if p.Free("moderations") != (id == "openai") || p.Free("chat") || p.Free("") {
			t.Errorf("%s: %v are free", id, p.FreeKinds)
		}
	}
}

// The names are those that requests have, taken from the providers' lists of models.
func TestReasoning_KnowsModelsByTheNamesThatRequestsHave(t *testing.T) {
	for id, names := range map[string]struct{ yes, no string }{
		"openai": {
			"o1 o1-2024-12-17 o1-pro o3 o3-mini o3-deep-research o4-mini ft:o4-mini-2025-04-16:org::abc gpt-5 gpt-5-mini gpt-5-2025-08-07 " +
				"gpt-5.1-chat-latest gpt-5.3-chat-latest gpt-5.4-nano gpt-5.6-sol gpt-6-luna gpt-6.1-terra gpt-chat-latest",
			"gpt-4o gpt-4o-mini gpt-4.1 gpt-3.5-turbo gpt-5-chat gpt-5-chat-latest chatgpt-4o-latest text-embedding-3-small ft:gpt-4o-mini:org::abc",
		},
		"azure-openai":      {"o3-mini gpt-5", "gpt-4o my-deployment"},
		"anthropic":         {"claude-opus-5 claude-opus-5-5 claude-sonnet-5 claude-fable-5 claude-haiku-5-5", "claude-opus-4-8 claude-sonnet-4-5 claude-haiku-4-5 claude-3-7-sonnet-latest"},
		"google":            {"gemini-2.5-pro models/gemini-2.5-flash gemini-3-pro-preview gemini-flash-latest gemini-flash-lite-latest", "gemini-2.0-flash gemini-1.5-pro gemini-2.5-flash-image gemma-3-27b-it"},
		"bedrock":           {"openai.gpt-oss-120b-1:0 us.openai.gpt-5.4 global.anthropic.claude-opus-5 us.deepseek.r1-v1:0 moonshot.kimi-k2-thinking qwen.qwen3-32b-v1:0", "anthropic.claude-3-haiku-20240307-v1:0 amazon.nova-pro-v1:0 qwen.qwen3-coder-30b-a3b-v1:0"},
		"deepseek":          {"deepseek-reasoner deepseek-v4-pro", "deepseek-chat"},
		"x-ai":              {"grok-4 grok-4-0709 grok-4-fast-reasoning grok-4.5 grok-3-mini grok-code-fast-1", "grok-3 grok-2-1212 grok-4-fast-non-reasoning grok-4.20-0309-non-reasoning"},
		"mistral-ai":        {"magistral-medium-latest magistral-small-2506", "mistral-large-latest codestral-2508 mistral-large-2512"},
		"perplexity-ai":     {"sonar-reasoning sonar-reasoning-pro sonar-deep-research r1-1776", "sonar sonar-pro"},
		"groq":              {"openai/gpt-oss-20b qwen/qwen3-32b qwen-qwq-32b deepseek-r1-distill-llama-70b", "llama-3.3-70b-versatile moonshotai/kimi-k2-instruct"},
		"cerebras":          {"gpt-oss-120b qwen-3-32b qwen-3-235b-a22b-thinking-2507 zai-glm-4.7", "llama3.1-8b qwen-3-coder-480b qwen-3-235b-a22b-instruct-2507"},
		"openrouter":        {"openai/o3-mini openai/gpt-5.2 openai/gpt-oss-20b:free google/gemini-2.5-pro anthropic/claude-3.7-sonnet:thinking deepseek/deepseek-r1:free x-ai/grok-4-fast z-ai/glm-4.6 ~openai/gpt-latest", "openai/gpt-4o openai/gpt-5-chat anthropic/claude-sonnet-4.5 meta-llama/llama-3.3-70b-instruct qwen/qwen3-coder:free"},
		"huggingface":       {"deepseek-ai/DeepSeek-R1:novita Qwen/QwQ-32B Qwen/Qwen3-32B moonshotai/Kimi-K2-Thinking zai-org/GLM-4.6", "Qwen/Qwen3-235B-A22B-Instruct-2507 meta-llama/Llama-3.1-8B-Instruct deepseek-ai/DeepSeek-V3"},
		"fireworks-ai":      {"accounts/fireworks/models/glm-4p6 accounts/fireworks/models/kimi-k2p6 accounts/fireworks/models/gpt-oss-20b", "accounts/fireworks/models/llama-v3p1-8b-instruct"},
		"moonshot":          {"kimi-k2-thinking kimi-k2.5 kimi-k3", "kimi-k2-0905-preview moonshot-v1-8k"},
		"cohere":            {"command-a-reasoning-08-2025", "command-a-03-2025 command-r-plus"},
		"sandbox":           {"sandbox-reasoning sandbox-reasoning:latency=5ms", "sandbox-small sandbox-large:tokens=9 sandbox-embedding"},
		"vllm":              {"qwen/qwq-32b gpt-oss-20b", "my-model"},
		"openai-compatible": {"o3 gpt-5-nano", "gpt-4o foo1"},
		"ollama":            {"deepseek-r1:8b qwen3:4b gpt-oss:20b", "llama3.2 qwen3-coder:30b nomic-embed-text"},
	} {
		p := get(t, id)
		for name := range strings.FieldsSeq(names.yes) {
			if !p.Reasoning(name) {
				t.Errorf("%s: %s isn't known to reason", id, name)
			}
		}
		for name := range strings.FieldsSeq(names.no) {
			if p.Reasoning(name) {
				t.Errorf("%s: %s is said to reason", id, name)
			}
		}
	}
}

func TestOpenEnded_KnowsModelsThatSearchByThemselves(t *testing.T) {
	for id, names := range map[string]struct{ yes, no string }{
		"openai":        {"gpt-4o-search-preview gpt-4o-mini-search-preview-2025-03-11 gpt-5-search-api gpt-5-search-api-2025-10-14 o3-deep-research o4-mini-deep-research-2025-06-26", "gpt-4o gpt-5 o3 o4-mini"},
		"openrouter":    {"openai/gpt-4o-search-preview perplexity/sonar-deep-research perplexity/sonar-pro-search @preset/mine openai/gpt-4o@preset/mine", "openai/gpt-4o perplexity/sonar"},
		"perplexity-ai": {"sonar-deep-research", "sonar sonar-pro sonar-reasoning-pro"},
		"groq":          {"groq/compound groq/compound-mini compound-beta", "openai/gpt-oss-120b"},
		"google":        {"deep-research-pro-preview-12-2025", "gemini-2.5-pro"},
		"x-ai":          {"grok-4.20-multi-agent grok-4.20-multi-agent-0309", "grok-4 grok-4-fast-reasoning"},
		"sandbox":       {"", "sandbox-small sandbox-reasoning"},
	} {
		p := get(t, id)
		for name := range strings.FieldsSeq(names.yes) {
			if !p.OpenEnded(name) {
				t.Errorf("%s: %s isn't known to be open-ended", id, name)
			}
		}
		for name := range strings.FieldsSeq(names.no) {
			if p.OpenEnded(name) {
				t.Errorf("%s: %s is said to be open-ended", id, name)
			}
		}
	}
}

func TestParse_GlobsForAllProvidersHoldBesideTheirOwn(t *testing.T) {
	other := validEntry()
	other["id"] = "other"
	delete(other, "reasoning_models")
	data, err := json.Marshal(object{
		"reasoning_models": []any{"all-*", "!all-but-*"}, "open_ended_models": []any{"web-*"},
		"providers": []any{validEntry(), other},
	})
	if err != nil {
		t.Fatal(err)
	}
	c, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	acme, _ := c.Get("acme")
	plain, _ := c.Get("other")
	for model, want := range map[string][2]bool{
		"all-1": {true, true}, "x/ALL-1": {true, true}, "all-but-1": {false, false},
		"acme-r1": {true, false}, "acme-r0": {false, false}, "web-1": {false, false},
	} {
		if got := [2]bool{acme.Reasoning(model), plain.Reasoning(model)}; got != want {
			t.Errorf("%s: %v, want %v", model, got, want)
		}
	}
	if !plain.OpenEnded("web-1") || !acme.OpenEnded("acme-web") || acme.OpenEnded("all-1") {
		t.Error("open-ended models are mixed up with the others")
	}
}

// Roles allow models by the same globs, matched by another package.
func TestMatches_AgreesWithTheGlobsOfRoles(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	random := func(letters string) string {
		text := make([]byte, rng.IntN(7))
		for i := range text {
			text[i] = letters[rng.IntN(len(letters))]
		}
		return string(text)
	}
	for range 200_000 {
		pattern, name := random("ab*"), random("ab")
		if got, want := matches(pattern, name), glob.Glob(pattern, name); got != want {
			t.Fatalf("%q matches %q: %v, want %v", pattern, name, got, want)
		}
	}
}

func TestReasoning_AllocatesNothing(t *testing.T) {
	p := get(t, "openrouter")
	for _, model := range []string{"openai/o3-mini", "meta-llama/llama-3.3-70b-instruct", "gpt-4o"} {
		if n := testing.AllocsPerRun(100, func() { p.Reasoning(model); p.OpenEnded(model) }); n > 0 {
			t.Errorf("%s: %.0f allocations", model, n)
		}
	}
}

func BenchmarkReasoning(b *testing.B) {
	p := get(b, "openrouter")
	b.ReportAllocs()
	for b.Loop() {
		p.Reasoning("meta-llama/llama-3.3-70b-instruct")
	}
}

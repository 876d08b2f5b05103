// SPDX-License-Identifier: MPL-2.0

package price

import (
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/internal/provider"
)

// TestFind_WellKnownNames: provider and name as a request has them, the entry
// ("" for no price), and input and output in USD per million tokens at noon UTC
// on 2026-11-23.
func TestFind_WellKnownNames(t *testing.T) {
	b := NewBook(load(t), nil, nil)
	at := day("2026-11-23T12:00:00Z")
	for _, c := range [][5]string{
		{"openai", "gpt-4o", "openai/gpt-4o", "2.5", "10"},
		{"openai", "GPT-4o", "openai/gpt-4o", "2.5", "10"},
		{"openai", "gpt-4o-2024-05-13", "openai/gpt-4o-2024-05-13", "5", "15"},
		{"openai", "gpt-4o-2024-08-06", "openai/gpt-4o", "2.5", "10"},
		{"openai", "gpt-4o-20240806", "openai/gpt-4o", "2.5", "10"},
		{"openai", "gpt-4o-mini", "openai/gpt-4o-mini", "0.15", "0.6"},
		{"openai", "gpt-4o-mini-2024-07-18", "openai/gpt-4o-mini", "0.15", "0.6"},
		{"openai", "ft:gpt-4o-mini-2024-07-18:acme::abc", "openai/ft:gpt-4o-mini", "0.3", "1.2"},
		{"openai", "gpt-4o-audio-preview", "openai/gpt-4o-audio-preview", "2.5", "10"},
		{"openai", "gpt-4o-realtime-preview", "openai/gpt-4o-realtime-preview", "5", "20"},
		{"openai", "gpt-4.1", "openai/gpt-4.1", "2", "8"},
		{"openai", "gpt-4.1-mini-2025-04-14", "openai/gpt-4.1-mini", "0.4", "1.6"},
		{"openai", "gpt-4.1-nano", "openai/gpt-4.1-nano", "0.1", "0.4"},
		{"openai", "gpt-4-turbo", "openai/gpt-4-turbo", "10", "30"},
		{"openai", "gpt-3.5-turbo-0125", "openai/gpt-3.5-turbo", "0.5", "1.5"},
		{"openai", "o1", "openai/o1", "15", "60"},
		{"openai", "o3", "openai/o3", "2", "8"},
		{"openai", "o3-2025-04-16", "openai/o3", "2", "8"},
		{"openai", "o3-mini", "openai/o3-mini", "1.1", "4.4"},
		{"openai", "o4-mini", "openai/o4-mini", "1.1", "4.4"},
		{"openai", "gpt-5", "openai/gpt-5", "1.25", "10"},
		{"openai", "gpt-5-mini", "openai/gpt-5-mini", "0.25", "2"},
		{"openai", "gpt-5-nano-2025-08-07", "openai/gpt-5-nano", "0.05", "0.4"},
		{"openai", "gpt-5.1", "openai/gpt-5.1", "1.25", "10"},
		{"openai", "gpt-5.6-luna-2026-07-30", "openai/gpt-5.6-luna", "0.2", "1.2"},
		{"openai", "text-embedding-3-small", "openai/text-embedding-3-small", "0.02", "0"},
		{"openai", "text-embedding-ada-002", "openai/text-embedding-ada-002", "0.1", "0"},
		{"openai", "omni-moderation-latest", "", "", ""},
		{"openai", "whisper-1", "", "", ""},
		{"openai", "gpt-4o-of-the-future", "", "", ""},
		{"anthropic", "claude-3-haiku-20240307", "anthropic/claude-3-haiku", "0.25", "1.25"},
		{"anthropic", "claude-3-5-sonnet-20241022", "anthropic/claude-3-5-sonnet", "3", "15"},
		{"anthropic", "claude-sonnet-4-20250514", "anthropic/claude-sonnet-4-0", "3", "15"},
		{"anthropic", "claude-sonnet-4-5-20250929", "anthropic/claude-sonnet-4-5", "3", "15"},
		{"anthropic", "claude-opus-4-1-20250805", "anthropic/claude-opus-4-1", "15", "75"},
		{"anthropic", "claude-haiku-4-5", "anthropic/claude-haiku-4-5", "1", "5"},
		{"google", "gemini-2.5-pro", "google/gemini-2.5-pro", "1.25", "10"},
		{"google", "gemini-2.5-flash", "google/gemini-2.5-flash", "0.3", "2.5"},
		{"google", "models/gemini-2.5-flash", "google/gemini-2.5-flash", "0.3", "2.5"},
		{"google", "gemini-2.5-flash-lite", "google/gemini-2.5-flash-lite", "0.1", "0.4"},
		{"google", "gemini-2.5-flash-preview-tts", "google/gemini-2.5-flash-tts", "0.5", "10"},
		{"google", "gemini-embedding-001", "google/gemini-embedding-001", "0.15", "0"},
		{"bedrock", "us.anthropic.claude-sonnet-4-20250514-v1:0", "aws/regional.anthropic.claude-sonnet-4-20250514-v1:0", "3", "15"},
		{"bedrock", "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-opus-4-1-20250805-v1:0", "aws/regional.anthropic.claude-opus-4-1-20250805-v1:0", "15", "75"},
		{"bedrock", "amazon.nova-lite-v1:0", "aws/amazon.nova-lite-v1:0", "0.06", "0.24"},
		{"bedrock", "openai.gpt-oss-120b-1:0", "aws/openai.gpt-oss-120b-1:0", "0.15", "0.6"},
		{"azure-openai", "gpt-4o", "openai/gpt-4o", "2.5", "10"},
		{"azure-openai", "team-blue", "", "", ""},
		{"mistral-ai", "mistral-large-latest", "mistral/mistral-large", "2", "6"},
		{"mistral-ai", "codestral-latest", "mistral/codestral", "0.3", "0.9"},
		{"groq", "llama-3.3-70b-versatile", "groq/llama-3.3-70b-versatile", "0.59", "0.79"},
		{"deepseek", "deepseek-chat", "deepseek/deepseek-chat", "0.27", "1.1"},
		{"x-ai", "grok-4", "x-ai/grok-4-0709", "3", "15"},
		{"cohere", "command-a-03-2025", "cohere/command-a", "2.5", "10"},
		{"voyage", "voyage-3.5", "voyageai/voyage-3.5", "0.06", "0"},
		{"openrouter", "openai/gpt-4o", "openrouter/openai/gpt-4o", "2.5", "10"},
		{"openrouter", "deepseek/deepseek-r1:free", "openrouter/deepseek/deepseek-r1:free", "0", "0"},
		{"together-ai", "meta-llama/Llama-3.3-70B-Instruct-Turbo", "together/meta-llama/Llama-3.3-70B-Instruct-Turbo", "0.88", "0.88"},
		{"perplexity-ai", "sonar-pro", "perplexity/sonar-pro", "3", "15"},
		{"moonshot", "kimi-k2-0905-preview", "moonshotai/kimi-k2-0905-preview", "0.6", "2.5"},
		{"cerebras", "gpt-oss-120b", "cerebras/gpt-oss-120b", "0.35", "0.75"},
		{"huggingface", "openai/gpt-oss-120b:groq", "huggingface_groq/openai/gpt-oss-120b", "0.15", "0.75"},
		{"huggingface", "openai/gpt-oss-120b", "", "", ""},
		{"z-ai", "glm-5.2", "zai/GLM-5.2", "1.4", "4.4"},
		{"ollama", "gpt-4o", "", "", ""},
		{"openai-compatible", "gpt-4o", "", "", ""},
		{"no-such-provider", "gpt-4o", "", "", ""},
	} {
		m, ok := b.Find(c[0], c[1], at)
		if !ok {
			if c[2] != "" {
				t.Errorf("%s %s has no price, want %s", c[0], c[1], c[2])
			}
			continue
		}
		in, _ := m.Rate(Input)
		out, _ := m.Rate(Output)
		if got := [3]string{m.Provider + "/" + m.Model, in.Base.String(), out.Base.String()}; got != [3]string{c[2], c[3], c[4]} {
			t.Errorf("%s %s is %v, want %v (%s)", c[0], c[1], got, c[2:], m.Rule)
		}
		if m.Source != SourceBuiltin || !strings.Contains(m.Rule, "the name ") {
			t.Errorf("%s %s: %+v doesn't say why", c[0], c[1], m)
		}
	}
}

func TestSellers_KnowEveryProviderOfTheCatalogueAndNoOther(t *testing.T) {
	catalogue, err := provider.Load()
	if err != nil {
		t.Fatal(err)
	}
	table, known := load(t), sellers()
	for _, id := range catalogue.IDs() {
		s, ok := known[id]
		if !ok {
			t.Errorf("sellers say nothing of %s: name its id in the table, or why it has none", id)
		}
		if s.id == "" && s.why == "" {
			t.Errorf("%s has no id in the table and no reason", id)
		}
		if s.id != "" && !s.routed && table.byID[s.id] == nil {
			t.Errorf("%s: the table has no provider %s", id, s.id)
		}
		delete(known, id)
	}
	if len(known) > 0 {
		t.Errorf("not in the catalogue: %v", known)
	}
}

func TestBook_FindGivesTheSameFromManyGoroutinesWhileNamesComeAndGo(t *testing.T) {
	b := NewBook(load(t), nil, nil)
	at := day("2026-11-23T12:00:00Z")
	want, _ := b.Find("openai", "gpt-4o", at)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range generation {
				b.Find("openai", fmt.Sprintf("made-up-%d-%d", g, i), at)
				if i%16 > 0 {
					continue
				}
				if m, ok := b.Find("openai", "gpt-4o", at); !ok || m.Rule != want.Rule || m.Cost(Usage{Input: 4}).Total != 10_000 {
					t.Errorf("%+v, %v", m, ok)
					return
				}
			}
		})
	}
	wg.Wait()
	if n := len(b.memory.younger) + len(b.memory.older); n > 2*generation {
		t.Errorf("%d names are remembered", n)
	}
	if again, _ := b.Find("openai", "gpt-4o", at); again != want {
		t.Error("a name in use was pushed out by made-up ones")
	}
}

func TestBook_ARememberedNameFollowsTheClock(t *testing.T) {
	b := NewBook(load(t), nil, nil)
	for range 2 {
		for at, want := range map[string]string{"2025-01-01T00:00:00Z": "10", "2026-01-01T00:00:00Z": "2"} {
			m, _ := b.Find("openai", "o3", day(at))
			if r, _ := m.Rate(Input); r.Base.String() != want {
				t.Errorf("at %s o3 costs %s", at, r.Base)
			}
		}
	}
}

func TestBook_FindOfARememberedNameAllocatesNothing(t *testing.T) {
	b := NewBook(load(t), nil, nil)
	at := day("2026-11-23T12:00:00Z")
	b.Find("deepseek", "deepseek-chat", at)
	if n := testing.AllocsPerRun(100, func() {
		m, _ := b.Find("deepseek", "deepseek-chat", at)
		m.Cost(Usage{Input: 1000, Output: 10, Requests: 1})
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzFind(f *testing.F) {
	for _, seed := range [][2]string{
		{"openai", "gpt-4o-20240806"}, {"openai", ""}, {"", ""}, {"huggingface", "a:b:c"}, {"huggingface", ":"}, {"google", "models/"},
		{"bedrock", "arn:aws:bedrock:::/us.anthropic.claude-x"}, {"openai", "ġpt-4ö-ſ\u2028İ"}, {"openai", "\xff\xfe-20240806-"},
		{"openrouter", strings.Repeat("-20240806", 300)}, {"azure-openai", strings.Repeat("é", 4096)}, {"*", "*"}, {"mistral-ai", " mistral-large \n"},
	} {
		f.Add(seed[0], seed[1])
	}
	b := NewBook(load(f), nil, []Override{{Provider: "*", Model: "*z*9*", Prices: map[Unit]NanoUSD{Input: 1, Output: 1}}})
	at := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, provider, model string) {
		m, ok := b.Find(provider, model, at)
		again, okAgain := b.Find(provider, model, at)
		if ok != okAgain || !reflect.DeepEqual(m, again) {
			t.Fatalf("asked twice: %+v and %+v", m, again)
		}
		if ok && (m == nil || m.Rule == "" || m.Cost(Usage{Input: 1, Requests: 1}).Total < 0) {
			t.Fatalf("%+v", m)
		}
		if ok && len(model) > MaxModelName {
			t.Fatal("a name that is too long has a price")
		}
	})
}

func BenchmarkFind(b *testing.B) {
	book := NewBook(load(b), nil, nil)
	at := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	b.Run("remembered", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, ok := book.Find("openai", "gpt-4o-2024-08-06", at); !ok {
				b.Fatal("not found")
			}
		}
	})
	b.Run("unknown name", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, ok := book.table.Find("openrouter", "vendor/no-such-model", at); ok {
				b.Fatal("found")
			}
		}
	})
}

func BenchmarkLoad(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		load(b)
	}
}

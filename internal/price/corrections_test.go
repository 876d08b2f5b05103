// SPDX-License-Identifier: MPL-2.0

package price

import (
	"strings"
	"testing"
	"time"
)

func mustLoad(t testing.TB) *Table {
	t.Helper()
	table, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestCorrections_PriceMediaOrSayThatNobodyKnows(t *testing.T) {
	table := mustLoad(t)
	for _, c := range []struct {
		provider, model string
		b               Bound
		worst           NanoUSD // of a million tokens; 0 for unknown
	}{
		{"openai", "gpt-4o-audio-preview", Bound{Output: 1e6, OutputAudio: true}, 80 * USD},
		{"openai", "gpt-4o-audio-preview", Bound{Input: 1e6, InputMedia: true, InputAudio: true}, 40 * USD},
		{"openai", "gpt-4o-audio-preview", Bound{Input: 1e6}, USD * 5 / 2},
		{"openai", "gpt-4o-mini-audio-preview-2024-12-17", Bound{Output: 1e6, OutputAudio: true}, 20 * USD},
		{"openai", "gpt-4o", Bound{Output: 1e6, OutputAudio: true}, 0},
		{"openai", "gpt-4o", Bound{Input: 1e6, InputMedia: true}, USD * 5 / 2},
		{"openrouter", "openai/gpt-audio", Bound{Output: 1e6, OutputAudio: true}, 0},
		{"openrouter", "openai/gpt-audio", Bound{Output: 1e6}, 10 * USD},
		{"openrouter", "google/gemini-2.5-flash-image", Bound{Output: 1e6}, 0},
		{"openrouter", "google/gemini-2.5-flash-image", Bound{Output: 1e6, OutputImage: true}, 0},
		{"openrouter", "google/gemini-2.5-flash", Bound{Input: 1e6, InputMedia: true, InputAudio: true}, 0},
		{"google", "gemini-2.5-flash-image", Bound{Output: 1e6}, 30 * USD},
		{"google", "gemini-2.5-pro", Bound{Input: 1e5, InputMedia: true, InputAudio: true}, USD / 8},
	} {
		m, ok := table.Find(c.provider, c.model, time.Now())
		if !ok {
			t.Errorf("%s/%s has no price", c.provider, c.model)
			continue
		}
		worst, known := m.WorstCase(c.b)
		if known != (c.worst > 0) || known && (worst < c.worst || worst > c.worst+20) {
			t.Errorf("%s/%s, %+v: at most %s, %v; want %s", c.provider, c.model, c.b, worst, known, c.worst)
		}
	}
}

func TestCorrections_AreRefusedWhereTheySayNothingOrTheTableKnowsBetter(t *testing.T) {
	for corrections, want := range map[string]string{
		`[{"provider":"openai","model":"gpt-4o","rates":{"output":1},"why":"x","source":"https://example.com"}]`:                 "the table has a rate for output now",
		`[{"provider":"openai","model":"gpt-audio","unpriced":["output_audio"],"why":"x","source":"https://example.com"}]`:       "the table has a rate for output_audio now",
		`[{"provider":"google","model":"gemini-2.5-flash","at_whole":["input_audio"],"why":"x","source":"https://example.com"}]`: "the table has a rate for input_audio now",
		`[{"provider":"openai","model":"nothing","rates":{"input_audio":1},"why":"x","source":"https://example.com"}]`:           "no such model",
		`[{"provider":"nobody","model":"gpt-4o","rates":{"input_audio":1},"why":"x","source":"https://example.com"}]`:            "no such provider",
		`[{"provider":"openai","model":"gpt-4o","rates":{"input_audio":1},"why":"x","source":"a page"}]`:                         "the https page",
		`[{"provider":"openai","model":"gpt-4o","rates":{"input_audio":1},"source":"https://example.com"}]`:                      "needs a reason",
		`[{"provider":"openai","model":"gpt-4o","why":"x","source":"https://example.com"}]`:                                      "corrects nothing",
		`[{"provider":"openai","model":"whisper-1","rates":{"input_audio":1},"why":"x","source":"https://example.com"}]`:         "no rates",
		`[{"provider":"openai","model":"gpt-4o","rates":{"input_audio":-1},"why":"x","source":"https://example.com"}]`:           "negative",
		`[{"provider":"openai","price":1}]`: "unknown field",
	} {
		if _, err := parse([]byte(tableJSON), []byte(corrections)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", corrections, err, want)
		}
	}
}

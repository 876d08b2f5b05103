// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"math"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestParseName_ReadsEveryModifier(t *testing.T) {
	v, err := parseName(Models(), "sandbox-reasoning:latency=1m30s:tps=1000000:tokens=100000:reasoning=0:cached=200000:no-usage:fail=stall")
	if err != nil {
		t.Fatal(err)
	}
	v.model = nil
	want := variant{
		name:    "sandbox-reasoning:latency=1m30s:tps=1000000:tokens=100000:reasoning=0:cached=200000:no-usage:fail=stall",
		latency: 90 * time.Second, rate: 1_000_000, tokens: 100_000, cached: 200_000, noUsage: true, fail: failStall,
	}
	if v != want {
		t.Errorf("%+v", v)
	}
	for name, check := range map[string]func(variant) bool{
		"sandbox-small":                  func(v variant) bool { return v.tokens == 32 && v.reasoning == 0 && v.fail == 0 },
		"sandbox-small:echo":             func(v variant) bool { return v.echo },
		"sandbox-small:big=67108864":     func(v variant) bool { return v.big == 64<<20 },
		"sandbox-embedding:latency=0s":   func(v variant) bool { return v.latency == 0 },
		"sandbox-small:fail=503":         func(v variant) bool { return v.fail == 503 },
		"sandbox-small:fail=error-event": func(v variant) bool { return v.fail == failErrorEvent },
	} {
		if v, err := parseName(Models(), name); err != nil || !check(v) {
			t.Errorf("%s: %+v, %v", name, v, err)
		}
	}
}

func TestParseName_RefusesWhatItDoesNotKnowAndSaysWhatThereIs(t *testing.T) {
	for name, says := range map[string]string{
		"":                                         "sandbox-small, sandbox-large, sandbox-reasoning, sandbox-embedding",
		"gpt-4o":                                   "sandbox-small",
		"Sandbox-small":                            "sandbox-small",
		"sandbox small":                            "sandbox-small",
		"sandbox-small,tps=1":                      "sandbox-small:latency=200ms",
		"sandbox-small:":                           "latency=200ms, tps=50",
		"sandbox-small:tps=1:":                     "latency=200ms, tps=50",
		"sandbox-small:speed=3":                    `no modifier "speed"`,
		"sandbox-small:TPS=3":                      `no modifier "TPS"`,
		"sandbox-small:tps=1:tps=2":                "twice",
		"sandbox-small:tps=0":                      "from 1 to 1000000",
		"sandbox-small:tps=-1":                     "from 1 to 1000000",
		"sandbox-small:tps=+1":                     "from 1 to 1000000",
		"sandbox-small:tps=1.5":                    "from 1 to 1000000",
		"sandbox-small:tps=":                       "from 1 to 1000000",
		"sandbox-small:tps":                        "from 1 to 1000000",
		"sandbox-small:tps=1_0":                    "from 1 to 1000000",
		"sandbox-small:tps=٣":                      "from 1 to 1000000",
		"sandbox-small:tps=0x10":                   "from 1 to 1000000",
		"sandbox-small:tps=9223372036854775808":    "from 1 to 1000000",
		"sandbox-small:tps=99999999999999999999":   "from 1 to 1000000",
		"sandbox-small:tokens=16385":               "from 1 to 16384",
		"sandbox-small:cached=128001":              "from 0 to 128000",
		"sandbox-small:big=67108865":               "from 1 to 67108864",
		"sandbox-small:reasoning=5":                "sandbox-reasoning",
		"sandbox-small:latency=-1s":                "from 0s to 10m0s",
		"sandbox-small:latency=11m":                "from 0s to 10m0s",
		"sandbox-small:latency=9999999999h":        "from 0s to 10m0s",
		"sandbox-small:latency=5":                  "from 0s to 10m0s",
		"sandbox-small:echo=1":                     "no value",
		"sandbox-small:no-usage=true":              "no value",
		"sandbox-small:fail=418":                   "400, 401, 403, 404, 429, 500, 503, hang, reset, cut, stall, garbage, error-event",
		"sandbox-small:fail=1":                     "hang",
		"sandbox-small:fail":                       "hang",
		"sandbox-small:tokens=5:big=5":             "only one",
		"sandbox-small:echo:big=5":                 "only one",
		"sandbox-embedding:tps=5":                  "it has latency=200ms, no-usage, fail=429",
		strings.Repeat("x", 257):                   "256 bytes",
		"sandbox-small:" + strings.Repeat("👋", 60): "no modifier",
	} {
		_, err := parseName(Models(), name)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", name, err)
		}
		if _, found := Find(name); found == nil {
			t.Errorf("Find has %q", name)
		}
	}
}

func TestFind_GivesTheModelOfANameWithModifiers(t *testing.T) {
	m, err := Find("sandbox-large:fail=429:latency=1s")
	if err != nil || m != Models()[1] {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestModels_AreCompleteAndEachCallGivesAFreshSlice(t *testing.T) {
	for _, m := range Models() {
		text := m.Dimensions == 0
		if m.Description == "" || m.ContextWindow <= m.MaxOutputTokens || m.InputNanoUSD <= 0 || m.CachedInputNanoUSD <= 0 ||
			m.CachedInputNanoUSD > m.InputNanoUSD || (m.OutputNanoUSD > 0) != text || (m.AnswerTokens > 0) != text || (m.MaxOutputTokens > 0) != text {
			t.Errorf("%+v", m)
		}
	}
	Models()[0].ID = "changed"
	if Models()[0].ID != "sandbox-small" {
		t.Error("a caller can change the models")
	}
}

// TestDocs_TellEveryModelPriceAndModifier keeps docs/sandbox.md true.
func TestDocs_TellEveryModelPriceAndModifier(t *testing.T) {
	raw, err := os.ReadFile("../../docs/sandbox.md")
	if err != nil {
		t.Fatal(err)
	}
	docs := string(raw)
	usd := func(nanoUSDPerToken int64) string { // per million tokens
		return strconv.FormatFloat(float64(nanoUSDPerToken)/1000, 'f', -1, 64)
	}
	wants := []string{"no LLM"}
	for _, m := range Models() {
		wants = append(wants, "| `"+m.ID+"` | "+usd(m.InputNanoUSD)+" | "+usd(m.CachedInputNanoUSD)+" | "+usd(m.OutputNanoUSD)+" | ")
	}
	for _, m := range modifiers() {
		wants = append(wants, "| `"+m.usage+"` | ")
	}
	for _, f := range failureNames() {
		wants = append(wants, "| `"+f+"` | ")
	}
	for _, s := range failureStatuses() {
		wants = append(wants, strconv.Itoa(s))
	}
	for _, want := range wants {
		if !strings.Contains(docs, want) {
			t.Errorf("docs/sandbox.md doesn't have %q", want)
		}
	}
}

func FuzzParseName(f *testing.F) {
	for _, name := range []string{
		"sandbox-small", "sandbox-small:latency=200ms:tps=50:tokens=100:fail=429", "sandbox-reasoning:reasoning=9:cached=1",
		"sandbox-embedding:fail=cut", "sandbox-small:echo", "sandbox-small:big=1", "sandbox-small::", "sandbox-small:tps=-1",
		"sandbox-small:latency=1e9h", "sandbox-small:tps=٣", "\xff:\xff=\xff", "",
	} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		v, err := parseName(Models(), name)
		if err != nil {
			return
		}
		within := func(n, least, most int64) bool { return n >= least && n <= most }
		m := v.model
		if v.name != name || !within(int64(v.latency), 0, int64(maxLatency)) || !within(v.rate, 0, maxRate) ||
			!within(v.tokens, 0, m.MaxOutputTokens) || !within(v.reasoning, 0, m.MaxOutputTokens) ||
			!within(v.cached, 0, m.ContextWindow) || !within(v.big, 0, maxBig) || v.fail < 0 || v.fail > 599 {
			t.Errorf("%q: %+v", name, v)
		}
		if d := v.pace(math.MaxInt32); d < 0 {
			t.Errorf("%q: pace %s", name, d)
		}
	})
}

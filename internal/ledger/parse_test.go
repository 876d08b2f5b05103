// SPDX-License-Identifier: MPL-2.0

package ledger

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestParseLimit_ReadsEveryForm(t *testing.T) {
	for text, want := range map[string]Limit{
		"usd=100/month":                             {Unit: USD, Max: 100_000_000_000, Window: Window{Kind: Month}},
		"usd=0.000000001/total":                     {Unit: USD, Max: 1, Window: Window{Kind: Total}},
		"usd=0/day":                                 {Unit: USD, Window: Window{Kind: Day}},
		"usd=1000000000/week":                       {Unit: USD, Max: MaxUSD, Window: Window{Kind: Week}},
		"requests=60/minute":                        {Unit: Requests, Max: 60, Window: Window{Kind: Minute}},
		"requests=1000/hour":                        {Unit: Requests, Max: 1000, Window: Window{Kind: Hour}},
		"requests=1000/1h":                          {Unit: Requests, Max: 1000, Window: fixed(time.Hour)},
		"tokens=200000/minute per entity":           {Unit: Tokens, Max: 200_000, Window: Window{Kind: Minute}, PerEntity: true},
		"input_tokens=1000000000000000/30d":         {Unit: InputTokens, Max: MaxCount, Window: fixed(30 * day)},
		"output_tokens=5/12h on gpt-4o*":            {Unit: OutputTokens, Max: 5, Window: fixed(12 * time.Hour), Models: "gpt-4o*"},
		"usd=5/day per entity on gpt-4*":            {Unit: USD, Max: 5_000_000_000, Window: Window{Kind: Day}, PerEntity: true, Models: "gpt-4*"},
		"concurrent=8":                              {Unit: Concurrent, Max: 8},
		"concurrent=0 per entity":                   {Unit: Concurrent, PerEntity: true},
		"concurrent=8 on meta/llama-3:free=x":       {Unit: Concurrent, Max: 8, Models: "meta/llama-3:free=x"},
		"usd=1/day on modèle-模型*":                   {Unit: USD, Max: 1_000_000_000, Window: Window{Kind: Day}, Models: "modèle-模型*"},
		"usd=1/day per entity on per":               {Unit: USD, Max: 1_000_000_000, Window: Window{Kind: Day}, PerEntity: true, Models: "per"},
		"usd=1/day on on":                           {Unit: USD, Max: 1_000_000_000, Window: Window{Kind: Day}, Models: "on"},
		"usd=1/day on " + strings.Repeat("a", 256):  {Unit: USD, Max: 1_000_000_000, Window: Window{Kind: Day}, Models: strings.Repeat("a", 256)},
		"usd=1/day on @cf/meta/llama-3.1+x~1_b&%#;": {Unit: USD, Max: 1_000_000_000, Window: Window{Kind: Day}, Models: "@cf/meta/llama-3.1+x~1_b&%#;"},
	} {
		got, err := ParseLimit(text)
		if err != nil || got != want {
			t.Errorf("%q was read as %+v, %v", text, got, err)
		} else if got.String() != text {
			t.Errorf("%q is written %q", text, got)
		}
	}
}

func TestParseLimit_IsLiberalInForm(t *testing.T) {
	for text, want := range map[string]string{
		"  usd = 100 / month  ":                   "usd=100/month",
		"USD=100/MONTH PER ENTITY ON GPT-4*":      "usd=100/month per entity on gpt-4*",
		"usd=100/month on gpt-4* per entity":      "usd=100/month per entity on gpt-4*",
		"usd=1/day on per per entity":             "usd=1/day per entity on per",
		"usd\n=\t100.50/\tmonth   per\t entity\r": "usd=100.5/month per entity",
		"usd=.5/1d12h":                            "usd=0.5/36h",
		"usd=5./1w":                               "usd=5/7d",
		"requests=007/60s":                        "requests=7/1m",
		"usd=0001000000000/day":                   "usd=1000000000/day",
		"concurrent= 8  per entity":               "concurrent=8 per entity",
		"usd=1/day on *":                          "usd=1/day",
		"usd=1/day on ***":                        "usd=1/day",
		"usd=1/day on a**b***":                    "usd=1/day on a*b*",
		"usd\u00a0=\u00a01/day":                   "usd=1/day",
	} {
		if got, err := ParseLimit(text); err != nil || got.String() != want {
			t.Errorf("%q was read as %s, %v; want %s", text, got, err, want)
		}
	}
}

func TestParseLimit_SaysWhatIsWrong(t *testing.T) {
	for text, want := range map[string]string{
		// What is no limit at all.
		"": "there is no =", "   ": "there is no =", "usd": "there is no =", "usd 1/month": "there is no =", "\xff\xfe": "there is no =", "=": "unit is missing",
		"usd:1/month": "there is no =", strings.Repeat("usd=1/month ", 1000): "12000 bytes are too long", "{}": "there is no =",
		// Units.
		"dollars=5/day": "did you mean usd?", "$=5/day": "did you mean usd?", "request=5/day": "did you mean requests?", "=5/day": "the unit is missing",
		"100 usd=5/day": "unknown unit", "usd\x00=5/day": `unknown unit "usd\x00"`, "to\u212aens=5/day": "unknown unit",
		// Amounts.
		"usd=-1/month": "is negative; write 0 or more, such as usd=100/month", "usd=1e30/month": "no amount of US dollars", "usd=99999999999/month": "at most 1000000000 USD",
		"usd=1000000000.000000001/month": "at most 1000000000 USD", "usd=999999999999999999999999.5/month": "at most 1000000000 USD", "usd=/month": "the max is missing",
		"usd=0.0000000001/month": "more than nine decimals", "usd=$5/month": "no amount", "usd=5$/month": "no amount", "usd=1,000/month": "no amount",
		"usd=1.2.3/month": "no amount", "usd=./month": "no amount", "usd=+1/month": "no amount", "usd=NaN/month": "no amount", "usd=0x10/month": "no amount",
		"usd=\u0661/month": "no amount", "requests=\uff16\uff10/minute": "no whole number of requests; write such as requests=60/minute",
		"requests=0.5/minute": "no whole number of requests; write such as requests=60/minute", "requests=-5/minute": "is negative",
		"requests=1e3/minute": "no whole number", "tokens=200k/minute": "no whole number", "tokens=1_000/minute": "no whole number", "input_tokens=x/day": "no whole number of input tokens",
		"tokens=1000000000000001/day": "too large; at most 1000000000000000", "tokens=99999999999999999999/day": "too large", "concurrent=x": "no whole number of concurrent requests",
		"concurrent=": "the max is missing", "usd=1==/day": "no amount", "usd==1/day": "no amount",
		// Windows.
		"usd=10/fortnight": "unknown window \"fortnight\"", "usd=1": "there is no window; add one, as in usd=100/month", "usd=1/": "the window is missing",
		"usd=1 per entity": "there is no window", "usd=1 per month": "there is no window", "usd=10 USD/month": "there is no window", "usd=10/montj": "did you mean month?",
		"concurrent=8/minute": "concurrent has no window", "concurrent=8/": "concurrent has no window", "concurrent=8 / per entity": "concurrent has no window",
		"usd=1/month/day": "unknown window", "usd=1/1M": "M may be minutes or months", "usd=1/5s": "shorter than a minute", "usd=1/200y": "no duration",
		"usd=1/900000d": "hundred years", "usd=1/per entity": "unknown window", "usd=1/month\x00": `unknown window "month\x00"`, "usd=1/month,requests=5/minute": "unknown window",
		// Scopes.
		"usd=1/day per": `"per" is no scope`, "usd=1/day per user": `"per user" is no scope; write per entity`, "usd=1/day perentity": "unexpected \"perentity\"",
		"usd=1/day per entity per entity": "twice", "usd=1/day per entity on a per entity": "twice", "usd=1/day entity": "unexpected", "usd=1/day per entity please": "unexpected",
		"usd=1/day on": "no model after on", "usd=1/day on ": "no model after on", "usd=1/day per entity on": "no model after on", "usd=1/day on per entity": "unexpected \"entity\"",
		"usd=1/day on a on b": "on is there twice", "usd=1/day on * on *": "on is there twice", "usd=1/day on gpt 4": "unexpected \"4\"",
		"usd=1/day on a\x00b": `must not have '\x00' in it`, "usd=1/day on a\x7fb": "must not have", "usd=1/day on a\u200bb": "must not have", "usd=1/day on a\u202eb": "must not have",
		"usd=1/day on \xff": "isn't UTF-8", "usd=1/day on a\ufffd": "must not have", "usd=1/day on " + strings.Repeat("a", 257): "257 bytes is too long; at most 256",
	} {
		got, err := ParseLimit(text)
		if err == nil {
			t.Errorf("%q was read as %s; want an error with %q", text, got, want)
			continue
		}
		checkError(t, text, err, want)
		if got != (Limit{}) {
			t.Errorf("%q is wrong and gave %+v", text, got)
		}
	}
	for _, r := range "?[]{}()|^$\\,\"'`“”‘’" {
		text := "usd=1/day on gpt" + string(r) + "4"
		if _, err := ParseLimit(text); err == nil || !strings.Contains(err.Error(), "must not have") || !strings.Contains(err.Error(), "gpt-4o*") {
			t.Errorf("%q gave %v", text, err)
		}
	}
}

// checkError holds an error against what is promised of all: it says what is
// wrong, is bounded, and is text whatever the input was.
func checkError(t *testing.T, text string, err error, want string) {
	t.Helper()
	message := err.Error()
	if !strings.Contains(message, want) {
		t.Errorf("%.200q gave %s; want an error with %q", text, message, want)
	}
	if len(message) > 1500 || !utf8.ValidString(message) || strings.ContainsAny(message, "\x00\n") {
		t.Errorf("%.200q gave an error of %d bytes: %.500q", text, len(message), message)
	}
}

func TestParseLimit_ErrorsNameTheLimitAndShowARightOne(t *testing.T) {
	for _, text := range []string{"usd=-1/month", "usd=1e30/month", "usd=1/fortnight", "usd=1/5s", "usd=1", "dollars=5/day", "usd=1/day per user", "usd=1/day on", "usd=1/day on a?", "usd=1/day x", "usd"} {
		_, err := ParseLimit(" " + text)
		if err == nil || !strings.HasPrefix(err.Error(), `limit "`+text+`": `) || !strings.Contains(err.Error(), "usd=100/month") {
			t.Errorf("%q gave %v", text, err)
		}
	}
	_, err := ParseLimit("usd=" + strings.Repeat("1", 500))
	if err == nil || !strings.HasPrefix(err.Error(), `limit "usd=`+strings.Repeat("1", 76)+`"…: `) {
		t.Errorf("got %v", err)
	}
}

func FuzzParseLimit(f *testing.F) {
	for _, text := range []string{
		"usd=100/month", "requests=60/minute", "tokens=200000/minute per entity", "concurrent=8", "usd=0.5/30d on gpt-4o* per entity", "USD = 1 / 1d12h",
		"usd=1/day on **a**", "usd=1/1M", "usd=-1/month", "usd=99999999999/month", "concurrent=8/minute", "usd=1/day on \xff", "usd=1/day on a\x00", "=", "=/",
		"usd=1/day per entity on per", "input_tokens=1/60s", "output_tokens=1000000000000000/total", "usd=.5/week", "\u212a=1/day",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		l, err := ParseLimit(text)
		if err != nil {
			checkError(t, text, err, "limit ")
			return
		}
		checkLimit(t, l)
	})
}

// checkLimit holds a limit that was read against what is promised of all.
func checkLimit(t *testing.T, l Limit) {
	t.Helper()
	again, err := ParseLimit(l.String())
	if err != nil || again != l || again.String() != l.String() {
		t.Fatalf("%+v is written %q, which is read as %+v, %v", l, l, again, err)
	}
	most := int64(MaxCount)
	if l.Unit == USD {
		most = MaxUSD
	}
	if l.Max < 0 || l.Max > most || l.Anchor != 0 || (l.Unit == Concurrent) != (l.Window == Window{}) {
		t.Fatalf("%+v was read", l)
	}
	if w := l.Window; w.Kind == Fixed && (w.Length < MinLength || w.Length > MaxLength || w.Length%time.Second != 0) || w.Kind != Fixed && w.Length != 0 {
		t.Fatalf("%+v was read", l)
	}
	lists, err := ParseLimits([]any{l.Object()})
	if err != nil || len(lists) != 1 || lists[0] != l {
		t.Fatalf("%+v is the object %v, which is read as %+v, %v", l, l.Object(), lists, err)
	}
}

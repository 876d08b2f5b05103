// SPDX-License-Identifier: MPL-2.0

package tokens

import (
	"bufio"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"
)

// encodings is shared by the tests: loading takes a while.
var encodings Encodings

func o200k() *Encoding  { return encodings.For("openai", "gpt-4o") }
func cl100k() *Encoding { return encodings.For("openai", "gpt-4") }

func TestFor_KnowsTheModelsThatAreCertainAndNoOthers(t *testing.T) {
	names := map[string]string{
		"o200k_base": "gpt-4o gpt-4o-mini gpt-4o-2024-08-06 gpt-4o-mini-2024-07-18 chatgpt-4o-latest gpt-4.1 gpt-4.1-nano gpt-4.5-preview gpt-5 gpt-5-mini " +
			"gpt-5-2025-08-07 gpt-5.1 gpt-5.6-sol o1 o1-mini o3 o3-mini-2025-01-31 o4-mini ft:gpt-4o-mini-2024-07-18:org::abc ft:gpt-4.1-2025-04-14:org::abc",
		"cl100k_base": "gpt-4 gpt-4-0613 gpt-4-turbo gpt-4-32k gpt-3.5-turbo gpt-3.5-turbo-0125 text-embedding-3-small text-embedding-3-large text-embedding-ada-002 " +
			"davinci-002 ft:gpt-3.5-turbo-0125:org::abc",
		"": "gpt-6-sol gpt-50 gpt-4.2 gpt-oss-120b o5 o10 o4 text-embedding-3-smaller text-davinci-003 gpt-35-turbo openai/gpt-4o claude-sonnet-4-5 gemini-2.5-pro GPT-4o gpt-image-1 whisper-1",
	}
	for want, list := range names {
		for name := range strings.FieldsSeq(list) {
			if got := encodingName(name); got != want {
				t.Errorf("%s has %q, want %q", name, got, want)
			}
		}
	}
	for _, provider := range []string{"", "azure-openai", "openai-compatible", "openrouter", "sandbox"} {
		if encodings.For(provider, "gpt-4o") != nil {
			t.Errorf("%q: the name of a model isn't certain there", provider)
		}
	}
	if o200k() == nil || cl100k() == nil || o200k() == cl100k() || o200k() != encodings.For("openai", "gpt-5") {
		t.Error("encodings are mixed up")
	}
}

// The hashes are those that tiktoken itself holds its files against.
func TestVocabularies_AreThoseThatOpenAIPublished(t *testing.T) {
	for want, e := range map[string]*Encoding{
		"446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d": o200k(),
		"223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7": cl100k(),
	} {
		tokens := make([]string, len(e.ranks))
		for token, rank := range e.ranks {
			tokens[rank] = token
		}
		h := sha256.New()
		for rank, token := range tokens {
			fmt.Fprintf(h, "%s %d\n", base64.StdEncoding.EncodeToString([]byte(token)), rank)
		}
		if got := hex.EncodeToString(h.Sum(nil)); got != want {
			t.Errorf("a vocabulary of %d tokens has the hash %s, want %s", len(tokens), got, want)
		}
	}
}

// The counts are those of OpenAI's cookbook
// (https://cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken) and,
// for the file, of tiktoken 0.14.0: a text in Go's syntax and its two counts.
func TestCount_IsThatOfTiktoken(t *testing.T) {
	for _, c := range []struct {
		text         string
		cl100k, o200 int64
	}{
		{"", 0, 0},
		{"tiktoken is great!", 6, 6},
		{"antidisestablishmentarianism", 6, 6},
		{"2 + 2 = 4", 7, 7},
		{"お誕生日おめでとう", 9, 8},
	} {
		if got := cl100k().Count([]byte(c.text)); got != c.cl100k {
			t.Errorf("%q has %d tokens of cl100k_base, want %d", c.text, got, c.cl100k)
		}
		if got := o200k().Count([]byte(c.text)); got != c.o200 {
			t.Errorf("%q has %d tokens of o200k_base, want %d", c.text, got, c.o200)
		}
	}
	file, err := os.Open("testdata/tiktoken.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	lines := 0
	for scanner := bufio.NewScanner(file); scanner.Scan(); lines++ {
		quoted, err := strconv.QuotedPrefix(scanner.Text())
		if err != nil {
			t.Fatalf("line %d: %v", lines+1, err)
		}
		var cl, o int64
		if _, err := fmt.Sscan(scanner.Text()[len(quoted):], &cl, &o); err != nil {
			t.Fatalf("line %d: %v", lines+1, err)
		}
		text, err := strconv.Unquote(quoted)
		if err != nil {
			t.Fatal(err)
		}
		a, b := cl100k().Count([]byte(text)), o200k().Count([]byte(text))
		if longest := cl100k().split([]byte(text)); longest > maxPiece && a > cl && b > o {
			continue // a token a byte
		}
		if a != cl || b != o {
			t.Errorf("line %d, %s: %d and %d tokens, want %d and %d", lines+1, quoted, a, b, cl, o)
		}
	}
	if lines < 200 {
		t.Errorf("the file has %d lines", lines)
	}
}

func TestCount_LongRunsCountATokenAByteAndNoFewer(t *testing.T) {
	for _, e := range []*Encoding{o200k(), cl100k()} {
		for _, unit := range []string{"a", "A", " ", "!", "ก", "日", " \n"} {
			short := strings.Repeat(unit, maxPiece/len(unit))
			long := short + unit
			if n := e.Count([]byte(short)); n > int64(len(short)) || n <= 0 {
				t.Errorf("%q: %d tokens of %d bytes", unit, n, len(short))
			}
			if n := e.Count([]byte(long)); n != int64(len(long)) && n != 1 {
				t.Errorf("%q: %d tokens of %d bytes", unit, n, len(long))
			}
		}
	}
}

// hostile are texts that are hard on a tokenizer.
func hostile(size int) map[string]string {
	repeat := func(unit string) string { return strings.Repeat(unit, size/len(unit)) }
	return map[string]string{
		"one letter": repeat("a"), "spaces": repeat(" "), "newlines": repeat("\n"), "emoji": repeat("😀"),
		"spaces and newlines": repeat(" \n"), "a letter in many spaces": repeat(strings.Repeat(" ", 1000) + "a"),
		"longest merged": repeat(strings.Repeat("qzxj", maxPiece/4) + "\n"), "marks": repeat("\u0301"),
		"capitals": repeat("A"), "capitals and others": repeat("日AAAAAAAAAAAAAAA"), "a mark in many capitals": "\u0301" + repeat("A"),
		"apostrophes": repeat("'s"), "digits": repeat("1"), "signs": repeat("!?"), "random letters": repeat("kqxzjvwpmgbfyhdcnrtl "),
		"invalid UTF-8": repeat("\xff\xc3"), "slashes": repeat("//\n"),
	}
}

// A text that takes a time that grows with its square would take minutes here.
func TestCount_TimeGrowsWithTheTextOnly(t *testing.T) {
	const size = 1 << 20
	for name, text := range hostile(size) {
		for _, e := range []*Encoding{o200k(), cl100k()} {
			if n := e.Count([]byte(text)); n <= 0 || n > int64(len(text)) {
				t.Errorf("%s: %d tokens of %d bytes", name, n, len(text))
			}
		}
	}
}

// Merging takes time that grows with the square of a piece: whoever sends long
// ones pays in tokens, and no longer in our time.
func TestCount_APieceThatIsTooLongCountsATokenAByte(t *testing.T) {
	for _, e := range []*Encoding{o200k(), cl100k()} {
		long := strings.Repeat("qzxj", 65/4) + "q"
		if n := e.Count([]byte(long)); n != int64(len(long)) {
			t.Errorf("%d tokens of a word of %d bytes", n, len(long))
		}
		if short := long[:64]; e.Count([]byte(short)) >= int64(len(short)) {
			t.Errorf("a word of %d bytes wasn't merged", len(short))
		}
	}
	if n := o200k().Count([]byte("東京は日本の首都であり、世界最大の都市圏の一つである。")); n > 40 {
		t.Errorf("a sentence of Japanese counts %d tokens", n)
	}
}

func TestCount_AllocatesNothing(t *testing.T) {
	text := []byte("Some words, a longwordthatisntintheVOCABULARY, 12345 numbers; \n\n  and 日本語.")
	if n := testing.AllocsPerRun(100, func() { o200k().Count(text); cl100k().Count(text) }); n > 0 {
		t.Errorf("%.0f allocations", n)
	}
}

func TestFor_LoadsOnceForManyAtATime(t *testing.T) {
	var fresh Encodings
	var got [8]*Encoding
	var wg sync.WaitGroup
	for i := range got {
		wg.Go(func() { got[i] = fresh.For("openai", "gpt-4o") })
	}
	wg.Wait()
	for _, e := range got {
		if e != got[0] || e.Count([]byte("tiktoken is great!")) != 6 {
			t.Fatal("two were loaded")
		}
	}
}

// FuzzCount holds that every byte of a text is in exactly one piece, that no
// text has more tokens than bytes, and that a piece split off counts alone what
// it counted in the text.
func FuzzCount(f *testing.F) {
	for name, text := range hostile(2048) {
		f.Add(text)
		f.Add(name + text[:40])
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, e := range []*Encoding{o200k(), cl100k()} {
			var sum int64
			for rest := []byte(text); len(rest) > 0; {
				size := e.split(rest)
				if size <= 0 || size > len(rest) {
					t.Fatalf("a piece of %d bytes of %q", size, rest)
				}
				if utf8.ValidString(text) && !utf8.Valid(rest[:size]) {
					t.Fatalf("a character of %q was cut", rest)
				}
				sum += e.countPiece(rest[:size])
				rest = rest[size:]
			}
			if n := e.Count([]byte(text)); n != sum || n > int64(len(text)) || n == 0 && text != "" {
				t.Fatalf("%q: %d tokens, %d in pieces", text, n, sum)
			}
		}
	})
}

func BenchmarkCount(b *testing.B) {
	texts := hostile(1 << 20)
	texts["English"] = strings.Repeat("The quick brown fox jumps over the lazy dog, and then some more words follow it.\n", 1<<20/81)
	code, err := os.ReadFile("tokens_test.go")
	if err != nil {
		b.Fatal(err)
	}
	texts["Go"] = strings.Repeat(string(code), 1<<20/len(code))
	texts["Japanese"] = strings.Repeat("東京は日本の首都であり、世界最大の都市圏の一つである。", 1<<20/81)
	for name, text := range texts {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			e := o200k()
			for b.Loop() {
				e.Count([]byte(text))
			}
		})
	}
}

func BenchmarkLoad(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		var fresh Encodings
		fresh.For("openai", "gpt-4o")
	}
}

// SPDX-License-Identifier: MPL-2.0

package wire

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"vault-plugin-secrets-portkey/internal/tokens"
)

// textTokens is the bound of a body's text by count, and by bytes.
func textTokens(t *testing.T, path, body string, count func([]byte) int64) (n, byBytes int64) {
	t.Helper()
	o := parse(t, body)
	p, err := ReadParams(path, o)
	if err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return o.TextTokens(&p, count), p.Input.TextBytes
}

func length(text []byte) int64 { return int64(len(text)) }

// The messages and their counts are those of OpenAI's cookbook
// (https://cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken),
// which shows that the API counts the same.
func TestTextTokens_BoundsWhatOpenAICounts(t *testing.T) {
	const messages = `[
		{"role":"system","content":"You are a helpful, pattern-following assistant that translates corporate jargon into plain English."},
		{"role":"system","name":"example_user","content":"New synergies will help drive top-line growth."},
		{"role":"system","name":"example_assistant","content":"Things working well together will increase revenue."},
		{"role":"system","name":"example_user","content":"Let's circle back when we have more bandwidth to touch base on opportunities for increased leverage."},
		{"role":"system","name":"example_assistant","content":"Let's talk later when we're less busy about how to do better."},
		{"role":"user","content":"This late pivot means we don't have time to boil the ocean for the client deliverable."}]`
	var encodings tokens.Encodings
	for model, counted := range map[string]int64{"gpt-4-0613": 129, "gpt-4o": 124} {
		n, byBytes := textTokens(t, chatPath, `{"model":"`+model+`","messages":`+messages+`}`, encodings.For("openai", model).Count)
		// 4 tokens frame each message, and 3 the answer.
		if bound := n + 6*4 + 3; bound < counted || bound > 2*counted || byBytes < 3*bound {
			t.Errorf("%s: at most %d tokens, %d by bytes; it has %d", model, bound, byBytes, counted)
		}
	}
}

func TestTextTokens_CountsTextsAndTakesAllElseByItsBytes(t *testing.T) {
	const tools = `[{"type":"function","function":{"name":"f","parameters":{}}}]`
	one := func([]byte) int64 { return 1 }
	words := strings.Repeat("word ", 40)
	for _, c := range []struct {
		path, body string
		want       int
	}{
		{chatPath, `{"messages":[{"role":"user","content":"` + words + `"}]}`, 1 + perText},
		{chatPath, `{"messages":[ { "role" : "user" , "content" : "` + words + `" } ], "temperature":0.5,"model":"m"}`, 1 + perText + len("0.5")},
		{chatPath, `{"messages":[{"role":"user","content":[{"type":"text","text":"` + words + `"},{"type":"text","text":"` + words + `"}]}]}`, 2 * (1 + perText + len(`type"text"`))},
		{chatPath, `{"messages":[{"role":"system","name":"abc","content":"` + words + `"}]}`, 1 + perText + len(`name"abc"`)},
		{chatPath, `{"messages":[{"role":"assistant","content":null,"tool_calls":[{"id":"1"}]}]}`, len("null") + len(`tool_calls[{"id":"1"}]`)},
		{chatPath, `{"messages":[{"role":"` + words + `","content":"a"}]}`, len(words) + 2 + len(`"a"`)},
		{chatPath, `{"messages":[{"role":"user","content":"a"}],"tools":` + tools + `}`, len(`"a"`) + len(tools)},
		{chatPath, `{"messages":"` + words + `","prompt":"` + words + `"}`, 1 + perText + len(words) + 2},
		{completionsPath, `{"prompt":"` + words + `","suffix":"abc"}`, 1 + perText + len(`"abc"`)},
		{completionsPath, `{"prompt":["` + words + `","` + words + `"]}`, 2 * (1 + perText)},
		{completionsPath, `{"prompt":[[1,22],[3]]}`, len("[1,22][3]")},
		{completionsPath, `{"prompt":[1,22,3]}`, len("1223")},
		{embeddingsPath, `{"input":["` + words + `","a",""]}`, 1 + perText + len(`"a"""`)},
		{responsesPath, `{"input":"` + words + `","instructions":"` + words + `"}`, 2 * (1 + perText)},
		{responsesPath, `{"input":[{"role":"user","content":[{"type":"input_text","text":"` + words + `"}]},{"type":"function_call_output","call_id":"1","output":"` + words + `"}]}`,
			1 + perText + len(`type"input_text"`) + 1 + perText + len(`type"function_call_output"call_id"1"`)},
		{responsesPath, `{"input":[{"type":"function_call","arguments":"` + words + `"}],"instructions":null}`, len(`type"function_call"arguments""null`) + len(words)},
		{"v1/files", `{"messages":"` + words + `","other":1}`, 1},
	} {
		if n, _ := textTokens(t, c.path, c.body, one); n != int64(c.want) {
			t.Errorf("%s: %d tokens, want %d", c.body, n, c.want)
		}
	}
}

func TestTextTokens_GivesTextsUnescaped(t *testing.T) {
	var got []string
	textTokens(t, chatPath, `{"messages":[{"\u0072ole":"user","c\u006fntent":"a\n\"\u00e9\ud83d\ude00"},{"content":[{"text":"\\"}]}]}`, func(text []byte) int64 {
		got = append(got, string(text))
		return 0
	})
	if len(got) != 2 || got[0] != "a\n\"é😀" || got[1] != `\` {
		t.Errorf("%q", got)
	}
}

// Nothing that may reach the model is left out of the bound.
func TestTextTokens_TextIsNeverLongerThanItsBound(t *testing.T) {
	const words = "some words that the model will read"
	const text = `"` + words + `"`
	for path, bodies := range map[string][]string{
		chatPath: {
			`{"messages":` + text + `}`, `{"messages":[` + text + `]}`, `{"messages":[[` + text + `]]}`, `{"messages":{"content":` + text + `}}`,
			`{"messages":[{"content":` + text + `}]}`, `{"messages":[{"content":[` + text + `]}]}`, `{"messages":[{"content":{"text":` + text + `}}]}`,
			`{"messages":[{"content":[{"type":"text","text":` + text + `}]}]}`, `{"messages":[{"content":[{"text":{"value":` + text + `}}]}]}`,
			`{"messages":[{"content":[[{"text":` + text + `}]]}]}`, `{"messages":[{"role":` + text + `}]}`, `{"messages":[{"name":` + text + `}]}`,
			`{"messages":[{"reasoning_content":` + text + `}]}`, `{"messages":[{"tool_calls":[{"function":{"arguments":` + text + `}}]}]}`,
			`{"messages":[{"refusal":` + text + `}]}`, `{"messages":[{"content":[{"refusal":` + text + `}]}]}`, `{"messages":[{` + text + `:1}]}`,
			`{"messages":[{"content":"a","content":` + text + `}]}`, `{"messages":[],"input":` + text + `}`, `{"tools":[{"description":` + text + `}]}`,
			`{"response_format":{"description":` + text + `}}`, `{"prediction":{"content":` + text + `}}`, `{"functions":[{"name":` + text + `}]}`,
		},
		responsesPath: {
			`{"input":` + text + `}`, `{"instructions":` + text + `}`, `{"instructions":[` + text + `]}`, `{"input":[{"output":` + text + `}]}`,
			`{"input":[{"output":[{"text":` + text + `}]}]}`, `{"input":[{"arguments":` + text + `}]}`, `{"input":[{"summary":[{"text":` + text + `}]}]}`,
			`{"text":{"format":{"description":` + text + `}}}`, `{"messages":` + text + `}`,
		},
		completionsPath: {`{"prompt":` + text + `}`, `{"prompt":[` + text + `]}`, `{"prompt":[[` + text + `]]}`, `{"suffix":` + text + `}`},
		embeddingsPath:  {`{"input":` + text + `}`, `{"input":[` + text + `]}`, `{"input":[{"text":` + text + `}]}`},
	} {
		for _, body := range bodies {
			n, byBytes := textTokens(t, path, body, length)
			if n < int64(len(words)) || n > byBytes {
				t.Errorf("%s %s: at most %d tokens, %d by bytes", path, body, n, byBytes)
			}
		}
	}
}

func TestTextTokens_CountsALimitedLengthOnly(t *testing.T) {
	long := strings.Repeat("word ", maxCounted/5/4)
	body := `{"messages":[` + strings.Repeat(`{"role":"user","content":"`+long+`"},`, 9) + `{"role":"user","content":"a b c"}]}`
	var counted int
	n, _ := textTokens(t, chatPath, body, func(text []byte) int64 {
		counted += len(text)
		return 0
	})
	if counted > maxCounted || counted < maxCounted/2 || n < int64(5*len(long)) {
		t.Errorf("%d bytes were counted, of which %d tokens remain", counted, n)
	}
}

// One text that is too long is counted as far as it may be.
func TestTextTokens_TheBeginningOfALongTextIsCounted(t *testing.T) {
	const rest = 1000
	text := strings.Repeat("a", maxCounted+rest)
	var counted int
	n, _ := textTokens(t, completionsPath, `{"prompt":["`+text+`","more"]}`, func(text []byte) int64 {
		counted += len(text)
		return 1
	})
	if want := int64(1 + rest + perText + len(`"more"`)); counted != maxCounted || n != want {
		t.Errorf("%d bytes were counted, which gave %d tokens, want %d", counted, n, want)
	}
	if maxCounted > 256<<10 {
		t.Error("counting may take too long")
	}
}

func TestTextTokens_AllocationsDoNotGrowWithTheRequest(t *testing.T) {
	allocs := func(messages int) float64 {
		o := parse(t, `{"messages":[`+strings.Repeat(`{"role":"user","content":[{"type":"text","text":"hello"}]},`, messages)+`{"content":"a"}]}`)
		p, err := ReadParams(chatPath, o)
		if err != nil {
			t.Fatal(err)
		}
		return testing.AllocsPerRun(20, func() { o.TextTokens(&p, length) })
	}
	if few, many := allocs(1), allocs(1000); many > few || many > 4 {
		t.Errorf("%.0f allocations for one message, %.0f for 1,000", few, many)
	}
}

// FuzzTextTokens holds the walk against encoding/json: whatever the structure,
// texts that are counted stand in the body, and by their bytes they are never
// more than the cheap bound.
func FuzzTextTokens(f *testing.F) {
	for _, seed := range []string{
		`{"messages":[{"role":"user","content":"a\n\"b"},{"content":[{"type":"text","text":"\u00e9"},7,["x"]]}],"tools":[{}]}`,
		`{"input":[{"type":"function_call_output","output":[{"text":""}]},[],"x",3],"prompt":[[1],2,{"a":[]}],"instructions":"i"}`,
		`{"input":null,"prompt":{"id":"p"},"messages":{}}`, `{"messages":[{"content":{"text":"\ud800"}}],"messagez":1}`,
		`{"prompt":["",""],"input":"","instructions":[]}`, string(chatRequest4KiB()),
	} {
		for kind := range byte(6) {
			f.Add([]byte(seed), kind)
		}
	}
	paths := []string{chatPath, completionsPath, responsesPath, embeddingsPath, "v1/moderations", "v1/files"}
	f.Fuzz(func(t *testing.T, text []byte, kind byte) {
		o, err := ParseObject(text)
		if err != nil {
			return
		}
		p, err := ReadParams(paths[int(kind)%len(paths)], o)
		if err != nil {
			return
		}
		var counted []byte
		n := o.TextTokens(&p, func(text []byte) int64 {
			counted = append(counted, text...)
			return length(text)
		})
		if n < 0 || n > p.Input.TextBytes {
			t.Fatalf("%q: at most %d tokens, %d by bytes", text, n, p.Input.TextBytes)
		}
		if least := o.TextTokens(&p, func([]byte) int64 { return 0 }); least > n || least < 0 {
			t.Fatalf("%q: at least %d tokens, at most %d", text, least, n)
		}
		if again := o.TextTokens(&p, length); again != n {
			t.Fatalf("%q: %d tokens, then %d", text, n, again)
		}
		if stringsOf(text) < len(counted) {
			t.Fatalf("%q: counted %q", text, counted)
		}
	})
}

// stringsOf is the length of all strings and keys in a JSON text.
func stringsOf(text []byte) (n int) {
	for dec := json.NewDecoder(bytes.NewReader(text)); ; {
		token, err := dec.Token()
		if err != nil {
			return n
		}
		if s, ok := token.(string); ok {
			n += len(s)
		}
	}
}

func BenchmarkTextTokens4KiB(b *testing.B) {
	text := chatRequest4KiB()
	o, err := ParseObject(text)
	if err != nil {
		b.Fatal(err)
	}
	p, err := ReadParams(chatPath, o)
	if err != nil {
		b.Fatal(err)
	}
	var encodings tokens.Encodings
	count := encodings.For("openai", "gpt-4o-mini").Count
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		o.TextTokens(&p, count)
	}
}

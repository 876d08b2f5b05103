// SPDX-License-Identifier: MPL-2.0

package wire

import (
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

const (
	chatPath        = "v1/chat/completions"
	completionsPath = "v1/completions"
	responsesPath   = "v1/responses"
	embeddingsPath  = "v1/embeddings"
)

func TestKindOf_KnowsWhatIsMeteredAndWhatIsFree(t *testing.T) {
	for route, want := range map[string]Kind{
		"POST v1/chat/completions": Chat, "POST v1/completions": Completions, "POST v1/embeddings": Embeddings,
		"POST v1/responses": Responses, "POST v1/moderations": Moderations, "POST v2/chat/completions": Chat,
		"GET v1/models": Models, "GET v1/models/gpt-4o": Models, "GET v1/models/meta-llama/Llama-3": Models,
		"GET v1/chat/completions": Stored, "GET v1/chat/completions/x/messages": Stored, "DELETE v1/chat/completions/x": Stored,
		"GET v1/responses/r": Stored, "DELETE v1/responses/r": Stored, "POST v1/responses/r/cancel": Stored,
		"POST v1/responses/input_tokens": Stored,
		"POST v1/responses/compact":      Unmetered, "POST v1/chat/completions/x": Unmetered, "DELETE v1/models/m": Unmetered,
		"PUT v1/chat/completions": Unmetered, "POST v1/models": Unmetered, "POST v1/images/generations": Unmetered,
		"POST v1/audio/speech": Unmetered, "POST v1/batches": Unmetered, "GET v1/files": Unmetered,
		"POST v1/Chat/Completions": Unmetered, "POST chat/completions": Completions, "POST ": Unmetered,
		"POST v1/chat/completions/": Unmetered, "POST v1//chat/completions": Unmetered,
	} {
		method, path, _ := strings.Cut(route, " ")
		got := KindOf(method, path)
		if got != want {
			t.Errorf("%s is %v, want %v", route, got, want)
		}
		if got.Metered() && got.Free() {
			t.Errorf("%v is both metered and free", got)
		}
	}
	for path, want := range map[string]bool{chatPath: true, completionsPath: true, embeddingsPath: true, responsesPath: false, "v1/models": false} {
		if NeedsModel(path) != want {
			t.Errorf("NeedsModel(%q) is %v", path, !want)
		}
	}
}

func readParams(t *testing.T, path, body string) Params {
	t.Helper()
	p, err := ReadParams(path, parse(t, body))
	if err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return p
}

func TestReadParams_ReadsWhatLimitsNeed(t *testing.T) {
	p := readParams(t, chatPath, `{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hi"}],"stream":true,
		"stream_options":{"include_usage":true},"max_tokens":100,"n":2,"service_tier":"flex","modalities":["text","audio"],
		"prediction":{"type":"content","content":"abc"},"temperature":0.5,"metadata":{"a":"b"}}`)
	want := Params{Kind: Chat, Model: "gpt-4o-mini", Stream: true, IncludeUsage: true, OutputCap: 100, CapField: "max_tokens",
		N: 2, BestOf: 2, ServiceTier: "flex", AudioOutput: true, Prediction: 34}
	want.Input = Bound{TextBytes: int64(len(`[{"role":"user","content":"hi"}]`) + 34 + len("0.5")), Messages: 1}
	if !reflect.DeepEqual(p, want) {
		t.Errorf("\n got %+v\nwant %+v", p, want)
	}
	if got := p.MaxOutput(100); got != 2*100+34 {
		t.Errorf("at most %d tokens", got)
	}
	p = readParams(t, chatPath, `{"model":"m","models":["a","b"],"max_tokens":5,"max_completion_tokens":9,"stream":null,"n":null,"messages":null}`)
	if p.OutputCap != 9 || p.CapField != "max_completion_tokens" || p.N != 1 || p.Stream || !reflect.DeepEqual(p.OtherModels, []string{"a", "b"}) {
		t.Errorf("%+v", p)
	}
	if p = readParams(t, chatPath, `{"max_completion_tokens":9,"max_tokens":5}`); p.OutputCap != 9 || p.CapField != "max_completion_tokens" {
		t.Errorf("%+v", p)
	}
	p = readParams(t, completionsPath, `{"model":"m","prompt":["a","b","c"],"best_of":4,"n":2,"max_tokens":10}`)
	if p.MaxOutput(p.OutputCap) != 3*4*10 || p.Input.Messages != 3 {
		t.Errorf("%+v: at most %d tokens", p, p.MaxOutput(p.OutputCap))
	}
	p = readParams(t, responsesPath, `{"model":"m","input":"hi","max_output_tokens":16,"max_tokens":"ignored"}`)
	if p.OutputCap != 16 || p.CapField != "max_output_tokens" || p.Input.Messages != 1 {
		t.Errorf("%+v", p)
	}
	p = readParams(t, "v1/images/generations", `{"model":"m","n":"ten","stream":false,"prompt":{"odd":1}}`)
	if p.Model != "m" || p.CapField != "" || p.OutputCap != -1 {
		t.Errorf("%+v", p)
	}
	if p, err := ReadParams(chatPath, nil); err != nil || p.N != 1 || p.OutputCap != -1 {
		t.Errorf("without a body: %+v, %v", p, err)
	}
	huge := Params{Kind: Completions, BestOf: maxChoices, Input: Bound{Messages: 1 << 40}}
	if huge.MaxOutput(maxCap) != math.MaxInt64 {
		t.Error("a product overflowed")
	}
}

func TestReadParams_ReadsTheBodyAsEdited(t *testing.T) {
	o := parse(t, `{"model":"a","max_tokens":5}`)
	o.Set("model", []byte(`"b"`))
	o.Set("stream", []byte("true"))
	if p, err := ReadParams(chatPath, o); err != nil || p.Model != "b" || !p.Stream || p.OutputCap != 5 {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestReadParams_SaysWhichMemberIsWrongAndWhatIsRight(t *testing.T) {
	for body, want := range map[string]string{
		`{"n":"x"}`:           `"n" must be a whole number from 1 to 1024, not "x"`,
		`{"n":0}`:             `not 0`,
		`{"n":1e3}`:           `not 1e3`,
		`{"n":2000}`:          `not 2000`,
		`{"max_tokens":-1}`:   `"max_tokens" must be a whole number from 0 to 2147483647, not -1`,
		`{"max_tokens":1e30}`: `not 1e30`,
		`{"max_tokens":1.5}`:  `not 1.5`,
		`{"max_tokens":"5"}`:  `not "5"`,
		`{"max_tokens":[5]}`:  `not a list`,
		`{"max_tokens":{}}`:   `not an object`,
		`{"max_tokens":true}`: `not true`,
		`{"max_tokens":99999999999999999999999999999999999999}`: `not 99999999999999999999999999999…`,
		`{"max_completion_tokens":3000000000}`:                  `"max_completion_tokens" must be`,
		`{"best_of":-2}`:                                        `"best_of" must be`,
		`{"stream":"true"}`:                                     `"stream" must be true or false, not "true"`,
		`{"stream":1}`:                                          `"stream" must be true or false, not 1`,
		`{"model":5}`:                                           `"model" must be a string, not 5`,
		`{"models":"a"}`:                                        `"models" must be a list of strings`,
		`{"models":["a",1]}`:                                    `"models" must be a list of strings`,
		`{"service_tier":[]}`:                                   `"service_tier" must be a string`,
		`{"stream_options":true}`:                               `"stream_options" must be an object`,
		`{"stream_options":{"include_usage":1}}`:                `"stream_options.include_usage" must be true or false, not 1`,
		`{"stream_options":{"include_usage":true,"include_usage":false}}`:  `"stream_options.include_usage" stands in the body twice`,
		`{"stream_options":{"include_us\u0061ge":true,"include_usage":1}}`: `"stream_options.include_usage" stands in the body twice`,
		`{"stream_options":{"Include_Usage":true}}`:                        `"stream_options.Include_Usage" must be spelt "include_usage"`,
		`{"messages":[],"messages":[]}`:                                    `"messages" stands in the body twice`,
		`{"tools":[],"\u0074ools":[]}`:                                     `"tools" stands in the body twice`,
		`{"max_tokens":null,"max_tokens":5}`:                               `"max_tokens" stands in the body twice`,
		`{"Tools":[]}`:                                                     `"Tools" must be spelt "tools"`,
		`{"meſſages":[]}`:                                                  `"meſſages" must be spelt "messages"`,
		`{"toolſ":[]}`:                                                     `must be spelt "tools"`,
		`{"max_toKens":1}`:                                                 `must be spelt "max_tokens"`,
	} {
		_, err := ReadParams(chatPath, parse(t, body))
		var wrong *ParamError
		if !errors.As(err, &wrong) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", body, err, want)
		}
	}
	for _, body := range []string{`{"max_tokens":0}`, `{"max_tokens":100.0}`, `{"n":1.000}`, `{"x":1,"X":2,"x":3}`, `{"stream_options":null}`, `{"stream_options":{}}`} {
		if _, err := ReadParams(chatPath, parse(t, body)); err != nil {
			t.Errorf("%s: %v", body, err)
		}
	}
}

func TestReadParams_BoundsTheInput(t *testing.T) {
	type bound struct {
		messages, tools   int64
		media, references bool
		open              string
	}
	for _, c := range []struct {
		path, body string
		want       bound
	}{
		{chatPath, `{"messages":[{"role":"system","content":"a"},{"role":"user","content":[{"type":"text","text":"b","cache_control":{"type":"ephemeral"}}]}]}`, bound{messages: 2}},
		{chatPath, `{"messages":[{"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"1","content":"x"}]}`, bound{messages: 2}},
		{chatPath, `{"messages":[{"role":"user","content":"say \"hi\", [\\"},{"role":"user","content":"\\\""}]}`, bound{messages: 2}},
		{chatPath, `{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://example.com/a.png"}}]}]}`, bound{messages: 1, media: true}},
		{chatPath, `{"messages":[{"role":"user","content":[{"\u0074ype":"image_url","type":"text","text":"a"}]}]}`, bound{messages: 1, media: true}},
		{chatPath, `{"messages":[{"role":"user","content":[{"type":"text","text":"a","Type":"image_url"}]}]}`, bound{messages: 1, media: true}},
		{chatPath, `{"messages":[{"role":"user","content":[{"type":"input_audio","input_audio":{"data":"AAAA","format":"wav"}}]}]}`, bound{messages: 1, media: true}},
		{chatPath, `{"messages":[{"role":"user","content":[{"type":"file","file":{"file_id":"file-1"}}]}]}`, bound{messages: 1, media: true}},
		{chatPath, `{"messages":[{"role":"user","content":"a","images":["AAAA"]}]}`, bound{messages: 1, media: true}},
		{chatPath, `{"messages":[{"role":"user","content":[7]}]}`, bound{messages: 1, media: true}},
		{chatPath, `{"messages":[{"role":"assistant","audio":{"id":"audio_1"}}]}`, bound{messages: 1, references: true}},
		{chatPath, `{"tools":[{"type":"function","function":{"name":"f"}},{"type":"custom","custom":{"name":"g"}}],"functions":[{"name":"h"}]}`, bound{tools: 3}},
		{chatPath, `{"tools":[{"type":"browser_search"}]}`, bound{tools: 1, open: "browser_search"}},
		{chatPath, `{"tools":[{"type":"function","Type":"web_search"}]}`, bound{tools: 1, open: "web_search"}},
		{chatPath, `{"tools":{"type":"web_search"}}`, bound{tools: 1, open: "tools that are no list"}},
		{chatPath, `{"tools":"web_search"}`, bound{tools: 1, open: "tools that are no list"}},
		{chatPath, `{"tools":[]}`, bound{}},
		{chatPath, `{"tools":[null]}`, bound{tools: 1, open: "a tool that is no object"}},
		{chatPath, `{"tools":[{"google_search":{}}]}`, bound{tools: 1, open: "google_search"}},
		{chatPath, `{"tools":[{"type":"function","function":{"name":"f"},"googleSearch":{}}]}`, bound{tools: 1, open: "googlesearch"}},
		{chatPath, `{"tools":[{"type":"function","function":{"name":"f"},"url_context":true}]}`, bound{tools: 1, open: "url_context"}},
		{chatPath, `{"tools":[{"function":{"name":"f","parameters":{}}}]}`, bound{tools: 1}},
		{chatPath, `{"tools":[{"name":"f"},{}]}`, bound{tools: 2, open: "a tool without a type"}},
		{responsesPath, `{"tools":[{"type":"function","name":"f","description":"d","parameters":{},"strict":true}]}`, bound{tools: 1}},
		{chatPath, `{"web_search":{"enable":true}}`, bound{open: "web_search"}},
		{chatPath, `{"web_search":false,"enable_web_search":false,"enable_code_interpreter":null}`, bound{}},
		{chatPath, `{"enable_web_search":true,"search_options":{},"connectors":[{"id":"web-search"}]}`, bound{open: "enable_web_search search_options connectors"}},
		{chatPath, `{"mcp_servers":[{}],"venice_parameters":{},"search_settings":{},"compound_custom":{},"enable_code_interpreter":1}`,
			bound{open: "mcp_servers venice_parameters search_settings compound_custom enable_code_interpreter"}},
		{chatPath, `{"search_mode":"academic","search_recency_filter":"week","search_domain_filter":["a"]}`, bound{}},
		{chatPath, `{"web_search_options":{}}`, bound{open: "web_search_options"}},
		{chatPath, `{"web_search_options":null,"search_parameters":{"mode":"on"},"enable_search":false}`, bound{open: "search_parameters"}},
		{chatPath, `{"plugins":[{"id":"web"}],"model":"openai/gpt-4o:online"}`, bound{open: "plugins model openai/gpt-4o:online"}},
		{chatPath, `{"extra_body":{"google":{"thinking_config":{}}}}`, bound{}},
		{chatPath, `{"extra_body":{"google":{"cached_content":"cachedContents/1"}}}`, bound{references: true}},
		{chatPath, `{"data_sources":[{"type":"azure_search"}],"preset":"p"}`, bound{references: true, open: "data_sources preset"}},
		{responsesPath, `{"input":"a","instructions":"b"}`, bound{messages: 1}},
		{responsesPath, `{"input":[{"role":"user","content":[{"type":"input_text","text":"a"}]},{"type":"message","role":"assistant","content":[{"type":"output_text","text":"b","annotations":[]}]}]}`, bound{messages: 2}},
		{responsesPath, `{"input":[{"type":"function_call","call_id":"1","name":"f","arguments":"{}"},{"type":"function_call_output","call_id":"1","output":"x"}]}`, bound{messages: 2}},
		{responsesPath, `{"input":[{"type":"function_call_output","call_id":"1","output":[{"type":"input_image","image_url":"data:,"}]}]}`, bound{messages: 1, media: true}},
		{responsesPath, `{"input":[{"role":"user","content":[{"type":"input_image","image_url":"data:image/png;base64,AAAA"}]}]}`, bound{messages: 1, media: true}},
		{responsesPath, `{"input":[{"role":"user","content":[{"type":"input_file","file_id":"file-1"}]}]}`, bound{messages: 1, media: true, references: true}},
		{responsesPath, `{"input":[{"type":"item_reference","id":"msg_1"}]}`, bound{messages: 1, references: true}},
		{responsesPath, `{"input":[{"id":"msg_1"}]}`, bound{messages: 1, references: true}},
		{responsesPath, `{"input":[{"type":"reasoning","id":"rs_1","summary":[]}]}`, bound{messages: 1, references: true}},
		{responsesPath, `{"input":[{"type":"reasoning","id":"rs_1","summary":[],"encrypted_content":"AAAA"}]}`, bound{messages: 1}},
		{responsesPath, `{"input":[{"type":"computer_call_output","output":{"type":"computer_screenshot"}}]}`, bound{messages: 1, media: true}},
		{responsesPath, `{"input":[{"type":"something_new"}]}`, bound{messages: 1, media: true}},
		{responsesPath, `{"input":"a","previous_response_id":"resp_1"}`, bound{messages: 1, references: true}},
		{responsesPath, `{"input":"a","conversation":{"id":"conv_1"}}`, bound{messages: 1, references: true}},
		{responsesPath, `{"prompt":{"id":"pmpt_1"}}`, bound{references: true, open: "prompt"}},
		{responsesPath, `{"input":"a","background":true}`, bound{messages: 1, open: "background"}},
		{responsesPath, `{"tools":[{"type":"web_search"},{"type":"file_search"},{"type":"code_interpreter"},{"type":"mcp"},{"type":"function"},{"type":5}]}`, bound{tools: 6, open: "web_search file_search code_interpreter mcp a tool of an odd type"}},
		{completionsPath, `{"prompt":[1,2,3]}`, bound{messages: 1}},
		{completionsPath, `{"prompt":[[1,2],[3]]}`, bound{messages: 2}},
		{embeddingsPath, `{"input":["a","b"]}`, bound{messages: 2}},
		{embeddingsPath, `{"input":[{"image":"https://example.com/a.png"}]}`, bound{messages: 1, media: true}},
		{embeddingsPath, `{"input":[{"text":"a"}]}`, bound{messages: 1}},
	} {
		in := readParams(t, c.path, c.body).Input
		got := bound{in.Messages, in.Tools, in.Media, in.References, strings.Join(in.OpenEnded, " ")}
		if got != c.want {
			t.Errorf("%s:\n got %+v\nwant %+v", c.body, got, c.want)
		}
	}
}

// Nothing that may reach the model is left out of the bound.
func TestReadParams_TextIsNeverLongerThanItsBound(t *testing.T) {
	const words = "some words that the model will read"
	for _, c := range []struct{ path, body string }{
		{chatPath, `{"messages":[{"role":"user","content":"` + words + `"}]}`},
		{chatPath, `{"tools":[{"type":"function","function":{"description":"` + words + `"}}]}`},
		{chatPath, `{"response_format":{"type":"json_schema","json_schema":{"description":"` + words + `"}}}`},
		{chatPath, `{"prediction":{"type":"content","content":"` + words + `"}}`},
		{chatPath, `{"documents":["` + words + `"]}`},
		{responsesPath, `{"instructions":"` + words + `"}`},
		{responsesPath, `{"text":{"format":{"description":"` + words + `"}}}`},
		{completionsPath, `{"suffix":"` + words + `"}`},
		{embeddingsPath, `{"input":"` + words + `"}`},
	} {
		if n := readParams(t, c.path, c.body).Input.TextBytes; n < int64(len(words)) {
			t.Errorf("%s is bounded by %d bytes", c.body, n)
		}
	}
}

func TestParams_LowerCapSetsEveryMemberThatCapsTheOutputOrAddsTheOneGiven(t *testing.T) {
	const old, current = "max_tokens", "max_completion_tokens"
	for _, c := range []struct{ path, in, field, out, gives string }{
		{chatPath, `{"model":"m"}`, old, `{"model":"m","max_tokens":7}`, old},
		{chatPath, `{"model":"m"}`, current, `{"model":"m","max_completion_tokens":7}`, current},
		{chatPath, `{"max_tokens":100,"model":"m"}`, current, `{"max_tokens":7,"model":"m"}`, old},
		{chatPath, `{"max_completion_tokens":50,"model":"m"}`, old, `{"max_completion_tokens":7,"model":"m"}`, current},
		{chatPath, `{"max_completion_tokens":50,"max_tokens":5}`, old, `{"max_completion_tokens":7,"max_tokens":5}`, current},
		{chatPath, `{"max_tokens":100,"max_completion_tokens":200}`, old, `{"max_tokens":7,"max_completion_tokens":7}`, current},
		{chatPath, `{"max_tokens":null}`, current, `{"max_tokens":null,"max_completion_tokens":7}`, current},
		{chatPath, `{"max_tokens":null}`, old, `{"max_tokens":7}`, old},
		{responsesPath, `{"max_output_tokens": 9 }`, old, `{"max_output_tokens": 7 }`, "max_output_tokens"},
		{responsesPath, `{}`, current, `{"max_output_tokens":7}`, "max_output_tokens"},
		{completionsPath, `{}`, current, `{"max_tokens":7}`, old},
		{completionsPath, `{"max_completion_tokens":5}`, current, `{"max_completion_tokens":5,"max_tokens":7}`, old},
		{embeddingsPath, `{}`, old, `{}`, ""},
	} {
		o := parse(t, c.in)
		p, err := ReadParams(c.path, o)
		if err != nil {
			t.Fatal(err)
		}
		before := p.OutputCap
		p.LowerCap(o, 7, c.field)
		if string(o.Bytes()) != c.out || p.CapField != c.gives {
			t.Errorf("%s became %s by %q, want %s", c.in, o.Bytes(), p.CapField, c.out)
		}
		if c.gives == "" && p.OutputCap != before || c.gives != "" && p.OutputCap != 7 {
			t.Errorf("%s: cap %d", c.in, p.OutputCap)
		}
		if again, err := ReadParams(c.path, o); err != nil || again.OutputCap != p.OutputCap {
			t.Errorf("%s is read as a cap of %d, %v", o.Bytes(), again.OutputCap, err)
		}
	}
}

func TestParams_ACapThatTheProviderIgnoresCountsForNothing(t *testing.T) {
	const ignored = "max_completion_tokens"
	for in, want := range map[string]string{
		`{"max_completion_tokens":5}`:  `{"max_completion_tokens":5,"max_tokens":7}`,
		`{"max_completion_tokens":50}`: `{"max_completion_tokens":7,"max_tokens":7}`,
		`{}`:                           `{"max_tokens":7}`,
	} {
		o := parse(t, in)
		p := readParams(t, chatPath, in)
		if p.IgnoreCap(ignored); p.OutputCap != -1 || p.CapField != "" {
			t.Errorf("%s: cap %d by %q", in, p.OutputCap, p.CapField)
		}
		if p.LowerCap(o, 7, "max_tokens"); string(o.Bytes()) != want {
			t.Errorf("%s became %s, want %s", in, o.Bytes(), want)
		}
	}
	p := readParams(t, chatPath, `{"max_tokens":50,"max_completion_tokens":5}`)
	if p.IgnoreCap(ignored); p.OutputCap != 50 || p.CapField != "max_tokens" {
		t.Errorf("a cap that counts was lost: %d by %q", p.OutputCap, p.CapField)
	}
	for _, in := range []string{`{"max_tokens":10,"max_completion_tokens":1000}`, `{"max_completion_tokens":1000,"max_tokens":10}`} {
		o := parse(t, in)
		p := readParams(t, chatPath, in)
		if p.IgnoreCap(ignored); p.OutputCap != 1000 {
			t.Errorf("%s: the provider may read either, and the cap is %d", in, p.OutputCap)
		}
		want := strings.Replace(in, "1000", "400", 1)
		if p.LowerCap(o, 400, "max_tokens"); p.OutputCap != 400 || string(o.Bytes()) != want {
			t.Errorf("%s became %s", in, o.Bytes())
		}
	}
	p = readParams(t, chatPath, `{"max_completion_tokens":10,"max_tokens":10}`)
	if p.IgnoreCap(ignored); p.OutputCap != 10 {
		t.Errorf("two equal caps are %d", p.OutputCap)
	}
}

func TestParams_EnsureCapNamesTheCapAgainWhereTheFieldIsAbsent(t *testing.T) {
	for _, c := range []struct{ path, in, out string }{
		{chatPath, `{"max_completion_tokens":9}`, `{"max_completion_tokens":9,"max_tokens":9}`},
		{chatPath, `{"max_completion_tokens":9,"max_tokens":null}`, `{"max_completion_tokens":9,"max_tokens":9}`},
		{chatPath, `{"max_completion_tokens":9,"max_tokens":4}`, `{"max_completion_tokens":9,"max_tokens":4}`},
		{chatPath, `{"max_tokens":4}`, `{"max_tokens":4}`},
		{chatPath, `{}`, `{}`},
		{responsesPath, `{"max_output_tokens":4}`, `{"max_output_tokens":4}`},
		{embeddingsPath, `{}`, `{}`},
	} {
		o := parse(t, c.in)
		p := readParams(t, c.path, c.in)
		if p.EnsureCap(o, "max_tokens"); string(o.Bytes()) != c.out {
			t.Errorf("%s became %s, want %s", c.in, o.Bytes(), c.out)
		}
	}
}

func TestReadParams_KnowsEveryWayToAskForMoreThanText(t *testing.T) {
	for body, want := range map[string][2]bool{
		`{"modalities":["text"]}`:                    {},
		`{"modalities":[]}`:                          {},
		`{"modalities":null,"audio":null}`:           {},
		`{"modalities":["TEXT","Audio"]}`:            {true, false},
		`{"modalities":["text","\u0061udio"]}`:       {true, false},
		`{"modalities":["image","text"]}`:            {false, true},
		`{"modalities":"image"}`:                     {false, true},
		`{"modalities":[null,"image"]}`:              {true, true},
		`{"modalities":["video"]}`:                   {true, true},
		`{"modalities":[["image"]]}`:                 {true, true},
		`{"modalities":{"image":true}}`:              {true, true},
		`{"audio":{"voice":"alloy","format":"wav"}}`: {true, false},
	} {
		if p := readParams(t, chatPath, body); p.AudioOutput != want[0] || p.ImageOutput != want[1] {
			t.Errorf("%s: audio %v, images %v", body, p.AudioOutput, p.ImageOutput)
		}
	}
}

func TestReadParams_KnowsAudioFromMediaThatCostWhatTextDoes(t *testing.T) {
	part := func(part string) string {
		return `{"messages":[{"role":"user","content":[{"type":"text","text":"a"},` + part + `]}]}`
	}
	for body, want := range map[string]bool{
		part(`{"type":"image_url","image_url":{"url":"https://example.com/audio.png"}}`):                      false,
		part(`{"type":"image_url","image_url":{"url":"data:image/png;base64,audio"}}`):                        false,
		part(`{"type":"video_url","video_url":{"url":"https://example.com/a"}}`):                              false,
		part(`{"type":"file","file":{"file_id":"file-1"}}`):                                                   false,
		part(`{"type":"input_audio","input_audio":{"data":"AAAA"}}`):                                          true,
		part(`{"type":"audio_url","audio_url":{"url":"https://example.com/a"}}`):                              true,
		part(`{"input_audio":{"data":"AAAA"}}`):                                                               true,
		part(`{"type":"text","text":"a","Input_Audio":{"data":"AAAA"}}`):                                      true,
		part(`null,{"type":"input_audio","input_audio":{"data":"AAAA"}}`):                                     true,
		part(`{"type":"image_url","image_url":{"url":"data:audio/wav;base64,AAAA"}}`):                         true,
		part(`{"type":"file","file":{"mime_type":"audio/wav","data":"AAAA"}}`):                                true,
		part(`{"type":"something_new"}`):                                                                      true,
		`{"messages":[{"role":"assistant","audio":{"id":"audio_1"}},{"role":"user","content":"a"}]}`:          true,
		`{"messages":[{"role":"user","content":"audio"}]}`:                                                    false,
		`{"messages":[7,null,{"role":"user","content":[{"type":"input_audio","input_audio":{"data":"A"}}]}]}`: true,
	} {
		if got := readParams(t, chatPath, body).Input; got.Audio != want {
			t.Errorf("%s: audio is %v", body, got.Audio)
		}
	}
}

// An item that isn't what it should be must not end the reading of a list.
func TestReadParams_OddItemsHideNothing(t *testing.T) {
	for _, odd := range []string{`null`, `"x"`, `7`, `true`, `[]`, `[{"a":"]"}]`, `{}`} {
		p := readParams(t, responsesPath, `{"input":[`+odd+`,{"type":"item_reference","id":"x"},`+odd+`,{"role":"user","content":[`+odd+`,{"type":"input_image","file_id":"f"}]}],"tools":[`+odd+`,{"type":"web_search"}]}`)
		if !p.Input.References || !p.Input.Media || p.Input.Messages != 4 || p.Input.Tools != 2 || !slices.Contains(p.Input.OpenEnded, "web_search") || len(p.Input.OpenEnded) != 2 {
			t.Errorf("after %s: %+v", odd, p.Input)
		}
		p = readParams(t, embeddingsPath, `{"input":[`+odd+`,{"image":"x"}]}`)
		if !p.Input.Media || p.Input.Messages < 1 {
			t.Errorf("after %s: %+v", odd, p.Input)
		}
	}
	long := readParams(t, chatPath, `{"tools":[`+strings.Repeat(`{"type":"`+strings.Repeat("é", 100)+`"},`, 50)+strings.Repeat(`7,{"type":"a"},{"type":"b"},`, 50)+`null]}`)
	if text := strings.Join(long.Input.OpenEnded, ","); len(text) > 200 || len(long.Input.OpenEnded) != 4 || !utf8.ValidString(text) {
		t.Errorf("%q", text)
	}
}

func TestReadParams_KnowsWhatMakesAResellerDearer(t *testing.T) {
	for body, want := range map[string]string{
		`{"model":"deepseek/deepseek-chat"}`: "",
		`{"provider":null}`:                  "",
		`{"provider":{"data_collection":"deny","zdr":true,"require_parameters":true,"max_price":{"prompt":1},"sort":"price","order":null}}`: "",
		`{"provider":{"order":["expensive"]}}`:             "provider",
		`{"provider":{"only":["expensive"]}}`:              "provider",
		`{"provider":{"ignore":["cheap"]}}`:                "provider",
		`{"provider":{"sort":"throughput"}}`:               "provider",
		`{"provider":{"sort":"price","sort":"latency"}}`:   "provider",
		`{"provider":{"sort":{"by":"latency"}}}`:           "provider",
		`{"provider":{"\u006fnly":["expensive"]}}`:         "provider",
		`{"provider":"expensive"}`:                         "provider",
		`{"model":"deepseek/deepseek-chat:nitro"}`:         "a model with :nitro",
		`{"model":"a","models":["deepseek/x:Nitro","b"]}`:  "a model with :nitro",
		`{"model":"a:free","models":["deepseek/x:floor"]}`: "",
	} {
		if p := readParams(t, chatPath, body); p.Routing != want || len(p.Input.OpenEnded) > 0 {
			t.Errorf("%s: %q, %v", body, p.Routing, p.Input.OpenEnded)
		}
	}
}

func TestReadParams_KnowsCachesOfAnHour(t *testing.T) {
	const hour, minutes = `{"type":"ephemeral","ttl":"1h"}`, `{"type":"ephemeral","ttl":"5m"}`
	for body, want := range map[string]bool{
		`{"messages":[{"role":"user","content":[{"type":"text","text":"1h","cache_control":` + minutes + `}]}]}`: false,
		`{"messages":[{"role":"user","content":[{"type":"text","text":"a","cache_control":` + hour + `}]}]}`:     true,
		`{"messages":[{"role":"user","content":"a","cache_control":` + hour + `}]}`:                              true,
		`{"tools":[{"type":"function","function":{},"cache_control":` + hour + `}]}`:                             true,
		`{"cache_control":` + hour + `}`:                         true,
		`{"cache_control":{"type":"ephemeral","ttl":"\u0031h"}}`: true,
		`{"cache_control":` + minutes + `}`:                      false,
	} {
		if p := readParams(t, chatPath, body); p.Input.HourCache != want || p.Input.Media {
			t.Errorf("%s: %+v", body, p.Input)
		}
	}
}

func TestEnableStreamUsage_KeepsEveryOtherByte(t *testing.T) {
	for in, want := range map[string]string{
		`{"stream":true}`:                                            `{"stream":true,"stream_options":{"include_usage":true}}`,
		`{"stream_options":null,"stream":true}`:                      `{"stream_options":{"include_usage":true},"stream":true}`,
		`{"stream_options": { "a" : 1.0 } }`:                         `{"stream_options": { "a" : 1.0 ,"include_usage":true} }`,
		`{"stream_options":{}}`:                                      `{"stream_options":{"include_usage":true}}`,
		`{"stream_options":{"include_usage" : false, "b":"\u0063"}}`: `{"stream_options":{"include_usage" : true, "b":"\u0063"}}`,
		`{"stream_options":{"include_us\u0061ge":null}}`:             `{"stream_options":{"include_us\u0061ge":true}}`,
		`{"stream_options":{"include_usage": true}}`:                 `{"stream_options":{"include_usage": true}}`,
		`{"stream_options":7}`:                                       `{"stream_options":7}`,
	} {
		o := parse(t, in)
		if EnableStreamUsage(o); string(o.Bytes()) != want {
			t.Errorf("%s became %s, want %s", in, o.Bytes(), want)
		}
	}
}

// FuzzReadParams holds what is read against encoding/json.
func FuzzReadParams(f *testing.F) {
	for _, seed := range []string{
		`{"model":"m","stream":true,"stream_options":{"include_usage":true},"max_tokens":5,"n":3}`,
		`{"messages":[{"role":"user","content":[{"type":"text","text":"a\"b"},{"type":"image_url","image_url":{"url":"x"}}]}],"tools":[{"type":"web_search"}]}`,
		`{"input":[{"type":"reasoning","encrypted_content":""},[],"x",3],"prompt":[[1],2,{"a":[]}]}`,
		`{"max_completion_tokens":1.0,"models":["a",{}],"\u006dodel":"\ud83d\ude00"}`, `{"stream_options":{"a":{"b":[1,"]"]}}}`,
		string(chatRequest4KiB()),
	} {
		for kind := range byte(5) {
			f.Add([]byte(seed), kind)
		}
	}
	paths := []string{chatPath, completionsPath, responsesPath, embeddingsPath, "v1/files"}
	f.Fuzz(func(t *testing.T, text []byte, kind byte) {
		o, err := ParseObject(text)
		if err != nil {
			return
		}
		p, err := ReadParams(paths[int(kind)%len(paths)], o)
		if err != nil {
			return
		}
		var want map[string]json.RawMessage
		if err := json.Unmarshal(text, &want); err != nil {
			t.Fatal(err)
		}
		var model string
		var stream bool
		_, _ = json.Unmarshal(want["model"], &model), json.Unmarshal(want["stream"], &stream)
		if p.Model != model || p.Stream != stream {
			t.Fatalf("%q: model %q, stream %v", text, p.Model, p.Stream)
		}
		var options map[string]json.RawMessage
		_ = json.Unmarshal(want["stream_options"], &options)
		if asked := string(options["include_usage"]) == "true"; p.Kind.Metered() && p.IncludeUsage != asked {
			t.Fatalf("%q: usage asked for: %v", text, p.IncludeUsage)
		}
		outputCap := int64(-1)
		for _, name := range capFields(p.Kind) {
			var n *float64
			if json.Unmarshal(want[name], &n) == nil && n != nil {
				outputCap = max(outputCap, int64(*n))
			}
		}
		if p.OutputCap != outputCap {
			t.Fatalf("%q: cap %d, want %d", text, p.OutputCap, outputCap)
		}
		p.LowerCap(o, 3, "max_tokens")
		EnableStreamUsage(o)
		if !json.Valid(o.Bytes()) {
			t.Fatalf("edits broke %q: %q", text, o.Bytes())
		}
	})
}

// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestBadRequests_GetOpenAIErrorsThatNameTheField(t *testing.T) {
	s := New(Options{})
	const m = `"messages":[{"role":"user","content":"x"}]`
	small := func(rest string) string { return `{"model":"sandbox-small",` + rest + `}` }
	tools := `"tools":[{"type":"function","function":{"name":"f"}}]`
	for _, c := range []struct {
		path, body string
		status     int
		param      any
		code       any
		says       string
	}{
		{pathChat, ``, 400, nil, nil, "no body"},
		{pathChat, `{"model"`, 400, nil, nil, "at byte 8"},
		{pathChat, `[]`, 400, nil, "invalid_type", "expected an object, but got an array"},
		{pathChat, `{}`, 400, "model", "missing_required_parameter", "you must provide a model parameter"},
		{pathChat, `{"model":5}`, 400, "model", "invalid_type", "expected a string, but got a number"},
		{pathChat, `{"model":"gpt-4o",` + m + `}`, 404, "model", "model_not_found", "The model `gpt-4o` does not exist: the sandbox has sandbox-small"},
		{pathChat, `{"model":"sandbox-small:speed=1",` + m + `}`, 404, "model", "model_not_found", "latency=200ms"},
		{pathChat, `{"model":"sandbox-embedding",` + m + `}`, 404, "model", nil, "embeddings"},
		{pathChat, `{"model":"sandbox-small"}`, 400, "messages", "missing_required_parameter", "'messages'"},
		{pathChat, small(`"messages":[]`), 400, "messages", "empty_array", "empty array"},
		{pathChat, small(`"messages":"x"`), 400, "messages", "invalid_type", "expected an array, but got a string"},
		{pathChat, small(`"messages":[{}]`), 400, "messages[0].role", "missing_required_parameter", "role"},
		{pathChat, small(`"messages":[{"role":"king","content":"x"}]`), 400, "messages[0].role", "invalid_value", "'king'"},
		{pathChat, small(`"messages":[{"role":"user"}]`), 400, "messages[0].content", nil, "expected a string, got null"},
		{pathChat, small(`"messages":[{"role":"user","content":5}]`), 400, "messages.content", "invalid_type", "a string or an array of objects, but got a number"},
		{pathChat, small(m + `,"temperature":2.5`), 400, "temperature", "decimal_above_max_value", "<= 2"},
		{pathChat, small(m + `,"top_p":-1`), 400, "top_p", "decimal_below_min_value", ">= 0"},
		{pathChat, small(m + `,"temperature":"hot"`), 400, "temperature", "invalid_type", "a decimal"},
		{pathChat, small(m + `,"stream":"yes"`), 400, "stream", "invalid_type", "a boolean"},
		{pathChat, small(m + `,"n":0`), 400, "n", "integer_below_min_value", ">= 1"},
		{pathChat, small(m + `,"n":129`), 400, "n", "integer_above_max_value", "<= 128"},
		{pathChat, small(m + `,"max_tokens":0`), 400, "max_tokens", "integer_below_min_value", ">= 1"},
		{pathChat, small(m + `,"max_tokens":1.5`), 400, "max_tokens", "invalid_type", "the number 1.5"},
		{pathChat, small(m + `,"max_tokens":1e99`), 400, "max_tokens", "invalid_type", "an integer"},
		{pathChat, small(m + `,"max_completion_tokens":16385`), 400, "max_completion_tokens", "invalid_value", "at most 16384"},
		{pathChat, small(m + `,"max_completion_tokens":9,"max_tokens":9`), 400, "max_tokens", "invalid_parameter_combination", "same time"},
		{pathChat, small(m + `,"stop":["a","b","c","d","e"]`), 400, "stop", "array_above_max_length", "maximum length 4"},
		{pathChat, small(m + `,"stop":""`), 400, "stop", "empty_string", "empty"},
		{pathChat, small(m + `,"stop":{}`), 400, "stop", "invalid_type", "a string or an array of strings, but got an object"},
		{pathChat, small(m + `,"stream_options":{"include_usage":true}`), 400, "stream_options", nil, "only allowed when 'stream'"},
		{pathChat, small(m + `,"response_format":{"type":"xml"}`), 400, "response_format.type", "invalid_value", "'xml'"},
		{pathChat, small(m + `,"response_format":{"type":"json_schema","json_schema":{"schema":[]}}`), 400, "response_format", "invalid_type", "expected an object"},
		{pathChat, small(m + `,"tool_choice":"required"`), 400, "tool_choice", nil, "'tools' are specified"},
		{pathChat, small(m + `,"tool_choice":"perhaps"`), 400, "tool_choice", "invalid_value", "'required'"},
		{pathChat, small(m + `,"tool_choice":5`), 400, "tool_choice", "invalid_type", "a string or an object"},
		{pathChat, small(m + `,` + tools + `,"tool_choice":{"type":"function","function":{"name":"g"}}`), 400, "tool_choice", nil, "'g' not found"},
		{pathChat, small(m + `,"tools":[5],"tool_choice":"required"`), 400, "tools", "invalid_type", "an object"},
		{pathChat, small(m + `,"tools":[{"type":"function"}],"tool_choice":"required"`), 400, "tools[0].name", "missing_required_parameter", "name"},
		{pathChat, small(`"messages":[{"role":"user","content":"` + strings.Repeat("x", 512_000) + `"}]`), 400, "messages", "context_length_exceeded", "maximum context length is 128000 tokens"},
		{pathChat, small(`"messages":[` + strings.Repeat(`{},`, 500_000) + `{}]`), 400, nil, nil, "more than 400000 values"},
		{pathCompletions, `{"model":"sandbox-small"}`, 400, "prompt", "missing_required_parameter", "'prompt'"},
		{pathCompletions, small(`"prompt":[]`), 400, "prompt", "empty_array", "empty"},
		{pathCompletions, small(`"prompt":[-1]`), 400, "prompt", "invalid_type", "a token"},
		{pathCompletions, small(`"prompt":["a","b"],"n":128`), 400, "n", "integer_above_max_value", "256 choices"},
		{pathResponses, `{"model":"sandbox-small"}`, 400, "input", "missing_required_parameter", "'input'"},
		{pathResponses, small(`"input":[]`), 400, "input", "empty_array", "empty"},
		{pathResponses, small(`"input":5`), 400, "input", "invalid_type", "a string or an array of items"},
		{pathResponses, small(`"input":"x","max_output_tokens":-5`), 400, "max_output_tokens", "integer_below_min_value", ">= 1"},
		{pathResponses, small(`"input":"x","previous_response_id":"resp_1"`), 400, "previous_response_id", "previous_response_not_found", "'resp_1' not found"},
		{pathResponses, small(`"input":"x","background":true`), 400, "background", "unsupported_parameter", "keeps nothing"},
		{pathResponses, small(`"input":"x","text":{"format":{"type":"xml"}}`), 400, "text.format.type", "invalid_value", "'xml'"},
		{pathEmbeddings, `{"model":"sandbox-embedding"}`, 400, "input", "missing_required_parameter", "'input'"},
		{pathEmbeddings, `{"model":"sandbox-small","input":"x"}`, 404, "model", nil, "text"},
		{pathEmbeddings, `{"model":"sandbox-embedding","input":["x",""]}`, 400, "input[1]", "empty_string", "empty"},
		{pathEmbeddings, `{"model":"sandbox-embedding","input":["x",5]}`, 400, "input", "invalid_type", "a string"},
		{pathEmbeddings, `{"model":"sandbox-embedding","input":{}}`, 400, "input", "invalid_type", "array of tokens"},
		{pathEmbeddings, `{"model":"sandbox-embedding","input":"x","dimensions":1537}`, 400, "dimensions", "integer_above_max_value", "<= 1536"},
		{pathEmbeddings, `{"model":"sandbox-embedding","input":"x","dimensions":0}`, 400, "dimensions", "integer_below_min_value", ">= 1"},
		{pathEmbeddings, `{"model":"sandbox-embedding","input":"x","encoding_format":"hex"}`, 400, "encoding_format", "invalid_value", "'float' and 'base64'"},
		{pathEmbeddings, `{"model":"sandbox-embedding","input":"` + strings.Repeat("x", 4*8192+1) + `"}`, 400, "input[0]", "context_length_exceeded", "8192"},
	} {
		status, _, body := do(t, s, request(t, "POST", c.path, c.body))
		e, _ := object(t, body)["error"].(map[string]any)
		if status != c.status || e["param"] != c.param || e["code"] != c.code || e["type"] != "invalid_request_error" || !strings.Contains(fmt.Sprint(e["message"]), c.says) {
			t.Errorf("%s %.120s: %d %s", c.path, c.body, status, body)
		}
	}
}

func TestPathsAndMethods_ThatAreNotThere(t *testing.T) {
	s := New(Options{})
	for _, c := range []struct {
		method, path string
		status       int
		allow        string
	}{
		{"GET", pathChat, 405, "POST"}, {"PUT", pathEmbeddings, 405, "POST"}, {"HEAD", pathModels, 405, "GET"},
		{"DELETE", pathModels + "/sandbox-small", 405, "GET"}, {"POST", pathModels, 405, "GET"},
		{"POST", "/v1/images/generations", 404, ""}, {"GET", "/", 404, ""}, {"POST", pathChat + "/", 404, ""}, {"GET", pathResponses + "/resp_1", 404, ""},
	} {
		status, header, body := do(t, s, request(t, c.method, c.path, "{}"))
		if status != c.status || header.Get("Allow") != c.allow || !strings.Contains(body, `"type":"invalid_request_error"`) {
			t.Errorf("%s %s: %d %q %s", c.method, c.path, status, header.Get("Allow"), body)
		}
	}
}

func TestTokens_AreCountedByTheDocumentedRule(t *testing.T) {
	s := New(Options{})
	for _, c := range []struct {
		path, body string
		want       float64
	}{
		{pathChat, `"messages":[{"role":"user","content":"12345"}]`, 3 + 4 + 2},
		{pathChat, `"messages":[{"role":"system","content":"1234"},{"role":"user","content":"größe","name":"ab"}]`, 3 + 4 + 1 + 4 + 2 + 1},
		{pathChat, `"messages":[{"role":"user","content":[{"type":"text","text":"12345"},{"type":"text","text":"1"},{"type":"image_url","image_url":{"url":"data:x"}}]}]`, 3 + 4 + 2 + 1 + 85},
		{pathChat, `"messages":[{"role":"assistant","content":null,"tool_calls":[{"function":{"name":"abcd","arguments":"{}"}}]}]`, 3 + 4 + 1 + 1},
		{pathChat, `"messages":[{"role":"user","content":""}],"tools":[{"a":"b"}]`, 3 + 4 + 4 + 3},
		{pathCompletions, `"prompt":["12345","1"]`, 2 + 1},
		{pathCompletions, `"prompt":[1,2,3]`, 3},
		{pathCompletions, `"prompt":[[1,2],[3]]`, 3},
		{pathResponses, `"input":"12345"`, 3 + 4 + 2},
		{pathResponses, `"input":[{"role":"user","content":[{"type":"input_text","text":"1"}]},{"type":"function_call_output","output":"12345"}],"instructions":"1234"`, 3 + 4 + 1 + 4 + 1 + 4 + 2},
	} {
		o := object(t, post(t, s, c.path, `{"model":"sandbox-small",`+c.body+`}`))
		got := at(t, o, "usage", "prompt_tokens")
		if c.path == pathResponses {
			got = at(t, o, "usage", "input_tokens")
		}
		if got != c.want {
			t.Errorf("%s: %v tokens, not %v", c.body, got, c.want)
		}
	}
}

func TestCaps_CutTheAnswerAndItsUsage(t *testing.T) {
	s := New(Options{})
	for _, c := range []struct {
		model, more string
		completion  float64
		reasoning   float64
		bytes       int
		finish      string
	}{
		{"sandbox-small", ``, 32, 0, 128, "stop"},
		{"sandbox-small", `,"max_tokens":32`, 32, 0, 128, "stop"},
		{"sandbox-small", `,"max_tokens":31`, 31, 0, 124, "length"},
		{"sandbox-small", `,"max_completion_tokens":1`, 1, 0, 4, "length"},
		{"sandbox-small:tokens=16384", ``, 16384, 0, 65536, "stop"},
		{"sandbox-reasoning", ``, 192, 128, 256, "stop"},
		{"sandbox-reasoning", `,"max_completion_tokens":130`, 130, 128, 8, "length"},
		{"sandbox-reasoning", `,"max_completion_tokens":100`, 100, 100, 0, "length"},
		{"sandbox-reasoning", `,"max_completion_tokens":128`, 128, 128, 0, "length"},
		{"sandbox-reasoning", `,"stop":"This","max_completion_tokens":100`, 100, 100, 0, "length"},
		{"sandbox-small", `,"stop":[" is"]`, 1, 0, 4, "stop"},
		{"sandbox-small", `,"stop":"This"`, 0, 0, 0, "stop"},
		{"sandbox-small", `,"stop":"never there","max_tokens":2`, 2, 0, 8, "length"},
	} {
		got := wholeChat(t, post(t, s, pathChat, minimal(pathChat, c.model, c.more)))
		if at(t, got.usage, "completion_tokens") != c.completion || len(got.texts[0]) != c.bytes || got.finishes[0] != c.finish ||
			at(t, got.usage, "completion_tokens_details", "reasoning_tokens") != c.reasoning ||
			at(t, got.usage, "total_tokens") != c.completion+at(t, got.usage, "prompt_tokens").(float64) {
			t.Errorf("%s%s: %d bytes, %+v", c.model, c.more, len(got.texts[0]), got)
		}
	}
}

func TestContextWindow_BoundsTheAnswer(t *testing.T) {
	body := `{"model":"sandbox-small","messages":[{"role":"user","content":"` + strings.Repeat("x", 4*(128_000-7-10)) + `"}]}`
	got := wholeChat(t, post(t, New(Options{}), pathChat, body))
	if at(t, got.usage, "total_tokens") != 128_000.0 || got.finishes[0] != "length" {
		t.Errorf("%+v", got)
	}
}

func TestChoices_DifferAndEachIsPaidFor(t *testing.T) {
	got := wholeChat(t, post(t, New(Options{}), pathChat, minimal(pathChat, "sandbox-small", `,"n":128`)))
	slices.Sort(got.texts)
	if len(slices.Compact(got.texts)) != 128 || at(t, got.usage, "completion_tokens") != 32.0*128 {
		t.Errorf("%d texts, %v", len(got.texts), got.usage)
	}
}

func TestJSON_IsAnsweredWhereItIsAskedFor(t *testing.T) {
	s := New(Options{})
	schema := `{"type":"object","properties":{"name":{"type":"string"},"age":{"type":"integer","minimum":18},"tags":{"type":"array","items":{"$ref":"#/$defs/tag"},"minItems":2}},
		"required":["name","age","tags"],"$defs":{"tag":{"enum":["red","blue"]}}}`
	for _, c := range []struct{ path, more, want string }{
		{pathChat, `,"response_format":{"type":"json_object"}`, ""},
		{pathChat, `,"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":` + schema + `}}`, `{"age":18,"name":"sandbox","tags":["red","red"]}`},
		{pathResponses, `,"text":{"format":{"type":"json_object"}}`, ""},
		{pathResponses, `,"text":{"format":{"type":"json_schema","name":"x","schema":` + schema + `}}`, `{"age":18,"name":"sandbox","tags":["red","red"]}`},
		{pathChat, `,"tools":[{"type":"function","function":{"name":"f","parameters":` + schema + `}}],"tool_choice":"required"`, `{"age":18,"name":"sandbox","tags":["red","red"]}`},
		{pathChat, `,"tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":"auto"`, "prose"},
	} {
		answer := post(t, s, c.path, minimal(c.path, "sandbox-small", c.more))
		var text string
		if c.path == pathChat {
			text = wholeChat(t, answer).texts[0]
		} else {
			text = textOfResponse(t, object(t, answer))
		}
		isObject := json.Valid([]byte(text)) && text[0] == '{'
		if isObject == (c.want == "prose") || (c.want != "" && c.want != "prose" && text != c.want) {
			t.Errorf("%s: %s", c.more, text)
		}
	}
}

func TestTools_CallNamesTheFunctionAndFinishesWithIt(t *testing.T) {
	body := minimal(pathChat, "sandbox-small", `,"tools":[{"type":"function","function":{"name":"f"}},{"type":"function","function":{"name":"g"}}],"tool_choice":{"type":"function","function":{"name":"g"}}`)
	got := wholeChat(t, post(t, New(Options{}), pathChat, body))
	if got.finishes[0] != "tool_calls" || !strings.HasSuffix(got.calls[0], "g") || got.texts[0] != "{}" || at(t, got.usage, "completion_tokens") != 1.0 {
		t.Errorf("%+v", got)
	}
}

func TestSchemas_ThatNeverEndStillGetAnAnswer(t *testing.T) {
	wide := `{"type":"object","properties":{`
	var required []string
	for i := range 50 {
		required = append(required, fmt.Sprintf(`"p%d"`, i))
		wide += fmt.Sprintf(`"p%d":{"$ref":"#"},`, i)
	}
	wide = strings.TrimSuffix(wide, ",") + `},"required":[` + strings.Join(required, ",") + `]}`
	for _, schema := range []string{
		wide, `{"$ref":"#"}`, `{"$ref":"#/nowhere/x"}`, `{"type":"array","minItems":1e300,"items":{"$ref":"#"}}`,
		`{"type":"string","minLength":1e300}`, `{"type":"integer","minimum":1e300}`, `{"type":"integer","minimum":5,"maximum":4}`,
		`{"anyOf":[{"anyOf":[{"$ref":"#"}]}]}`, `{}`, `{"enum":[]}`, `{"properties":5,"required":5}`, `null`, ``,
	} {
		text, err := sample("tools", json.RawMessage(schema))
		if err != nil || !json.Valid([]byte(text)) || len(text) > 1<<20 {
			t.Errorf("%.80s: %v, %d bytes", schema, err, len(text))
		}
	}
}

func TestSampleNumber_IsInBounds(t *testing.T) {
	for schema, want := range map[string]float64{
		`{}`: 0, `{"minimum":3}`: 3, `{"minimum":2.5}`: 3, `{"exclusiveMinimum":3}`: 4, `{"maximum":-2}`: -2, `{"exclusiveMaximum":0}`: -1,
		`{"minimum":-5,"maximum":5}`: 0,
	} {
		if got := sampleNumber(object(t, schema)); got != want || math.IsInf(got, 0) {
			t.Errorf("%s: %v, not %v", schema, got, want)
		}
	}
}

// FuzzBody: whatever the body, there is a JSON answer or a well-formed stream.
func FuzzBody(f *testing.F) {
	for i, r := range sampleRequests() {
		f.Add(uint8(i), r[1])
	}
	f.Add(uint8(0), `{"model":"sandbox-small:fail=cut","messages":[{"role":"user","content":[{"type":"text","text":"x"}]}],"stop":"a","n":2}`)
	f.Add(uint8(0), `{"model":"sandbox-small","messages":[{"role":"user","content":"x"}],"tools":[{"type":"function","function":{"name":"f","parameters":{"$ref":"#"}}}],"tool_choice":"required"}`)
	f.Add(uint8(1), `{"model":"sandbox-small","prompt":[[1,2],[]]}`)
	f.Add(uint8(2), `{"model":"sandbox-reasoning","input":[{"content":[{}]},{"output":null}],"text":{"format":{"type":"json_schema","schema":{}}},"metadata":{"a":"b"},"stream":true}`)
	f.Add(uint8(3), `{"model":"sandbox-embedding","input":[ [1],[2]],"encoding_format":"base64","dimensions":3}`)
	paths := []string{pathChat, pathCompletions, pathResponses, pathEmbeddings}
	f.Fuzz(func(t *testing.T, path uint8, body string) {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond) // for models that hang
		defer cancel()
		resp, err := New(Options{Clock: newVirtualClock()}).RoundTrip(request(t, "POST", paths[int(path)%len(paths)], body).WithContext(ctx))
		if err != nil {
			return // a model that hangs or resets
		}
		defer resp.Body.Close()
		got, err := io.ReadAll(resp.Body)
		if err != nil || strings.Contains(string(got), garbage) {
			return // a model that breaks off, stalls, or was asked for garbage
		}
		if resp.Header.Get("Content-Type") == "application/json" {
			if !json.Valid(got) || (resp.StatusCode != http.StatusOK) != strings.HasPrefix(string(got), `{"error":`) {
				t.Errorf("status %d: %q", resp.StatusCode, got)
			}
			return
		}
		for _, data := range dataOf(t, string(got)) {
			if data != "[DONE]" && !json.Valid([]byte(data)) {
				t.Errorf("event %q", data)
			}
		}
	})
}

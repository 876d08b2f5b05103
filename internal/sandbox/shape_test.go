// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// shapeOf writes the members of decoded JSON and their types: "a:string b:{c:number}".
// A list has the shape of its first element.
func shapeOf(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case string:
		return "string"
	case float64:
		return "number"
	case bool:
		return "bool"
	case []any:
		if len(v) == 0 {
			return "[]"
		}
		return "[" + shapeOf(v[0]) + "]"
	case map[string]any:
		var members []string
		for _, k := range slices.Sorted(maps.Keys(v)) {
			members = append(members, k+":"+shapeOf(v[k]))
		}
		return "{" + strings.Join(members, " ") + "}"
	}
	return fmt.Sprintf("%T", v)
}

// The shapes are those of the types of the openai package for Python, 3.54,
// and of what OpenAI's API reference shows where a type leaves a choice.
const (
	chatUsageShape = "{completion_tokens:number completion_tokens_details:{accepted_prediction_tokens:number audio_tokens:number reasoning_tokens:number rejected_prediction_tokens:number} " +
		"prompt_tokens:number prompt_tokens_details:{audio_tokens:number cached_tokens:number} total_tokens:number}"
	chatShape = "{choices:[{finish_reason:string index:number logprobs:null message:{annotations:[] content:string refusal:null role:string}}] " +
		"created:number id:string model:string object:string service_tier:string system_fingerprint:string usage:" + chatUsageShape + "}"
	chunkHead     = " created:number id:string model:string object:string service_tier:string system_fingerprint:string"
	textPartShape = "{annotations:[] logprobs:[] text:string type:string}"
	messageShape  = "{content:[" + textPartShape + "] id:string role:string status:string type:string}"
	responseHead  = "{background:bool completed_at:number created_at:number error:null id:string incomplete_details:null instructions:null max_output_tokens:null max_tool_calls:null " +
		"metadata:{} model:string object:string output:"
	responseTail = " parallel_tool_calls:bool previous_response_id:null reasoning:{effort:null summary:null} service_tier:string status:string store:bool temperature:number " +
		"text:{format:{type:string}} tool_choice:string tools:[] top_logprobs:number top_p:number truncation:string " +
		"usage:{input_tokens:number input_tokens_details:{cache_write_tokens:number cached_tokens:number} output_tokens:number output_tokens_details:{reasoning_tokens:number} total_tokens:number} user:null}"
	completionChoice = "{finish_reason:string index:number logprobs:null text:string}"
)

func TestShapes_OfWholeAnswersAreOpenAIs(t *testing.T) {
	s := New(Options{})
	const chat = `"messages":[{"role":"user","content":"x"}]`
	for _, c := range []struct{ path, body, want string }{
		{pathChat, `{"model":"sandbox-small",` + chat + `}`, chatShape},
		{pathChat, `{"model":"sandbox-small",` + chat + `,"tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":"required"}`,
			strings.Replace(chatShape, "content:string refusal:null role:string", "content:null refusal:null role:string tool_calls:[{function:{arguments:string name:string} id:string type:string}]", 1)},
		{pathCompletions, `{"model":"sandbox-small","prompt":"x"}`,
			"{choices:[" + completionChoice + "] created:number id:string model:string object:string system_fingerprint:string usage:" + chatUsageShape + "}"},
		{pathResponses, `{"model":"sandbox-small","input":"x"}`, responseHead + "[" + messageShape + "]" + responseTail},
		{pathResponses, `{"model":"sandbox-reasoning","input":"x"}`, responseHead + "[{id:string summary:[] type:string}]" + responseTail},
		{pathEmbeddings, `{"model":"sandbox-embedding","input":"x"}`,
			"{data:[{embedding:[number] index:number object:string}] model:string object:string usage:{prompt_tokens:number total_tokens:number}}"},
	} {
		if got := shapeOf(object(t, post(t, s, c.path, c.body))); got != c.want {
			t.Errorf("%s %s:\ngot  %s\nwant %s", c.path, c.body, got, c.want)
		}
	}
}

func TestShapes_OfChunksAreOpenAIs(t *testing.T) {
	s := New(Options{})
	all := dataOf(t, post(t, s, pathChat, `{"model":"sandbox-small:tokens=1","messages":[{"role":"user","content":"x"}],"stream":true,"stream_options":{"include_usage":true}}`))
	choice := func(delta, finish string) string {
		return "{choices:[{delta:{" + delta + "} finish_reason:" + finish + " index:number logprobs:null}]" + chunkHead + " usage:null}"
	}
	want := []string{
		choice("content:string refusal:null role:string", "null"), choice("content:string", "null"), choice("", "string"),
		"{choices:[]" + chunkHead + " usage:" + chatUsageShape + "}",
	}
	checkShapes(t, all, append(want, "[DONE]"))

	all = dataOf(t, post(t, s, pathChat, `{"model":"sandbox-small","messages":[{"role":"user","content":"x"}],"stream":true,
		"tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":{"type":"function","function":{"name":"f"}}}`))
	call := "tool_calls:[{function:{arguments:string%s} index:number%s}]"
	noUsage := func(s string) string { return strings.Replace(s, " usage:null", "", 1) }
	checkShapes(t, all, []string{
		noUsage(choice("content:null refusal:null role:string "+fmt.Sprintf(call, " name:string", " type:string"), "null")),
		noUsage(choice(fmt.Sprintf(call, "", ""), "null")), noUsage(choice("", "string")), "[DONE]",
	})
}

// checkShapes holds events against shapes. Ids of tool calls are dropped from
// both: shapeOf sorts members, which would hide where they stand.
func checkShapes(t *testing.T, all, want []string) {
	t.Helper()
	for i, data := range all {
		shape := data
		if data != "[DONE]" {
			shape = strings.Replace(shapeOf(object(t, data)), "} id:string index", "} index", 1)
		}
		if len(all) != len(want) || shape != want[i] {
			t.Errorf("event %d of %d: %s\nwant %s", i, len(all), shape, want[min(i, len(want)-1)])
		}
	}
}

func TestShapes_OfResponseEventsComeInOpenAIsOrder(t *testing.T) {
	s := New(Options{})
	const text = "response.content_part.added response.output_text.delta response.output_text.delta response.output_text.done response.content_part.done "
	const begin, added, done = "response.created response.in_progress ", "response.output_item.added ", "response.output_item.done "
	for body, want := range map[string]string{
		`{"model":"sandbox-small:tokens=2","input":"x","stream":true}`:                           begin + added + text + done + "response.completed",
		`{"model":"sandbox-reasoning:tokens=2","input":"x","stream":true}`:                       begin + added + done + added + text + done + "response.completed",
		`{"model":"sandbox-small","input":"x","stream":true,"max_output_tokens":2}`:              begin + added + text + done + "response.incomplete",
		`{"model":"sandbox-reasoning:tokens=2","input":"x","stream":true,"max_output_tokens":9}`: begin + added + done + "response.incomplete",
		`{"model":"sandbox-small","input":"x","stream":true,"tools":[{"type":"function","name":"f"}],"tool_choice":"required"}`: begin + added +
			"response.function_call_arguments.delta response.function_call_arguments.done " + done + "response.completed",
	} {
		var got []string
		for _, data := range dataOf(t, post(t, s, pathResponses, body)) {
			e := object(t, data)
			got = append(got, e["type"].(string))
			if shape := shapeOf(e); shape != eventShapes[e["type"].(string)] && eventShapes[e["type"].(string)] != "" {
				t.Errorf("%s: %s", e["type"], shape)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s:\ngot  %s\nwant %s", body, strings.Join(got, " "), want)
		}
	}
}

// eventShapes are those of events that have one shape only.
var eventShapes = map[string]string{
	"response.output_text.delta":             "{content_index:number delta:string item_id:string logprobs:[] output_index:number sequence_number:number type:string}",
	"response.output_text.done":              "{content_index:number item_id:string logprobs:[] output_index:number sequence_number:number text:string type:string}",
	"response.content_part.added":            "{content_index:number item_id:string output_index:number part:" + textPartShape + " sequence_number:number type:string}",
	"response.content_part.done":             "{content_index:number item_id:string output_index:number part:" + textPartShape + " sequence_number:number type:string}",
	"response.function_call_arguments.delta": "{delta:string item_id:string output_index:number sequence_number:number type:string}",
	"response.function_call_arguments.done":  "{arguments:string item_id:string output_index:number sequence_number:number type:string}",
}

func TestIDs_AreOpenAIsAndTheSameForTheSameRequest(t *testing.T) {
	s := New(Options{})
	for _, c := range []struct{ path, body, pattern string }{
		{pathChat, `{"model":"sandbox-small","messages":[{"role":"user","content":"x"}]}`, `"id":"chatcmpl-[0-9a-f]{32}","object":"chat.completion",`},
		{pathCompletions, `{"model":"sandbox-small","prompt":"x"}`, `"id":"cmpl-[0-9a-f]{32}","object":"text_completion",`},
		{pathResponses, `{"model":"sandbox-small","input":"x"}`, `"id":"resp_[0-9a-f]{32}","object":"response",.*"id":"msg_[0-9a-f]{32}"`},
	} {
		one, two := post(t, s, c.path, c.body), post(t, s, c.path, c.body)
		pattern := regexp.MustCompile(c.pattern)
		if !pattern.MatchString(one) || pattern.FindString(one) != pattern.FindString(two) {
			t.Errorf("%s: %s\n%s", c.path, one, two)
		}
	}
}

func TestModels_ListsAndDescribes(t *testing.T) {
	s := New(Options{})
	status, _, body := do(t, s, request(t, "GET", pathModels, ""))
	o := object(t, body)
	if status != 200 || shapeOf(o) != "{data:[{created:number id:string object:string owned_by:string}] object:string}" {
		t.Fatalf("%d %s", status, body)
	}
	for i, m := range Models() {
		if at(t, o, "data", i, "id") != m.ID {
			t.Errorf("model %d is not %s", i, m.ID)
		}
		for _, name := range []string{m.ID, m.ID + ":latency=1s:fail=500"} {
			status, _, body := do(t, s, request(t, "GET", pathModels+"/"+name, ""))
			if status != 200 || object(t, body)["id"] != name || object(t, body)["object"] != "model" {
				t.Errorf("%d %s", status, body)
			}
		}
	}
	for _, name := range []string{"gpt-4o", "sandbox-small:", ""} {
		if status, _, body := do(t, s, request(t, "GET", pathModels+"/"+name, "")); status != 404 || !strings.Contains(body, `"model_not_found"`) {
			t.Errorf("%q: %d %s", name, status, body)
		}
	}
}

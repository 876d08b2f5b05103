// SPDX-License-Identifier: MPL-2.0

package upstream

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"mime/multipart"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestChat_HasOpenAIsShapeAndTheDocumentedUsage(t *testing.T) {
	s := Start(t, Options{})
	r := post(t, s, "/chat/completions", chatCall("up-ok", "")).ok(t)
	c := decode[chatObject](t, r.body)
	if c.Object != "chat.completion" || c.Model != "up-ok" || c.text() != AnswerText {
		t.Errorf("answer: %s", r.body)
	}
	if c.Choices[0].FinishReason == nil || *c.Choices[0].FinishReason != "stop" {
		t.Errorf("finish_reason: %s", r.body)
	}
	if want := (usageBody{PromptTokens: 2, CompletionTokens: 5, TotalTokens: 7}); c.Usage == nil || *c.Usage != want {
		t.Errorf("usage %+v, want %+v", c.Usage, want)
	}
	if got := r.header.Get("Content-Type"); got != "application/json" {
		t.Errorf("content type %q", got)
	}
	for _, name := range []string{"X-Request-Id", "X-Ratelimit-Limit-Requests", "Openai-Organization", "Set-Cookie"} {
		if r.header.Get(name) == "" {
			t.Errorf("no %s", name)
		}
	}
}

func TestUsage_CountsEveryKindOfText(t *testing.T) {
	s := Start(t, Options{})
	for _, c := range []struct {
		path, body string
		want       int
	}{
		{"/chat/completions", `{"model":"up-ok","messages":[{"role":"system","content":"123"},{"role":"user","content":"45"}]}`, 2},
		{"/chat/completions", `{"model":"up-ok","messages":[{"role":"user","content":[{"type":"text","text":"12345"},{"type":"image_url","image_url":{"url":"x"}}]}]}`, 2},
		{"/completions", `{"model":"up-ok","prompt":["1234","5678"]}`, 2},
		{"/completions", `{"model":"up-ok","prompt":[11,12,13]}`, 3},
		{"/responses", `{"model":"up-ok","instructions":"1234","input":"5678"}`, 2},
		{"/responses", `{"model":"up-ok","input":[{"role":"user","content":[{"type":"input_text","text":"12345678"}]}]}`, 2},
		{"/embeddings", `{"model":"up-ok","input":"12345"}`, 2},
	} {
		got := decode[struct{ Usage usageBody }](t, post(t, s, c.path, c.body).ok(t).body)
		if n := got.Usage.PromptTokens + got.Usage.InputTokens; n != c.want {
			t.Errorf("%s %s: %d prompt tokens, want %d", c.path, c.body, n, c.want)
		}
	}
}

func TestStream_JoinsToTheWholeAnswerAndHasUsageOnlyIfAsked(t *testing.T) {
	s := Start(t, Options{})
	for _, path := range []string{"/chat/completions", "/completions"} {
		for _, asked := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%t", path, asked), func(t *testing.T) {
				body := fmt.Sprintf(`{"model":"up-ok","stream":true,"stream_options":{"include_usage":%t},"messages":[{"role":"user","content":"1"}],"prompt":"1"}`, asked)
				r := post(t, s, path, body).ok(t)
				if got := r.header.Get("Content-Type"); !strings.HasPrefix(got, "text/event-stream") {
					t.Errorf("content type %q", got)
				}
				chunks, text := readChunks(t, r.body)
				if text != AnswerText {
					t.Errorf("text %q", text)
				}
				last := chunks[len(chunks)-1]
				if has := last.Usage != nil && len(last.Choices) == 0; has != asked {
					t.Errorf("usage chunk: %t, asked: %t", has, asked)
				}
				if strings.Contains(string(r.body), `"usage":null`) != asked {
					t.Errorf("usage:null must be on the other chunks if and only if usage was asked for: %s", r.body)
				}
			})
		}
	}
}

func TestCaps_CutTheAnswerAndNMultipliesIt(t *testing.T) {
	s := Start(t, Options{})
	for _, limit := range []string{"max_tokens", "max_completion_tokens"} {
		c := decode[chatObject](t, post(t, s, "/chat/completions", chatCall("up-ok", `,"n":3,"`+limit+`":2`)).ok(t).body)
		if len(c.Choices) != 3 || c.Choices[2].Message.Content != "Hello from" || *c.Choices[2].FinishReason != "length" || c.Usage.CompletionTokens != 6 {
			t.Errorf("%s: %+v", limit, c)
		}
	}
	r := post(t, s, "/responses", `{"model":"up-ok","input":"1","max_output_tokens":2}`).ok(t)
	if !strings.Contains(string(r.body), `"incomplete_details":{"reason":"max_output_tokens"}`) {
		t.Errorf("responses: %s", r.body)
	}
}

func TestResponses_StreamIsOpenAIsSequence(t *testing.T) {
	s := Start(t, Options{})
	r := post(t, s, "/responses", `{"model":"up-stream:2:0","input":"12345678","stream":true}`).ok(t)
	var names []string
	var text string
	events := readEvents(t, r.body)
	for i, e := range events {
		d := decode[struct {
			Type           string
			SequenceNumber int `json:"sequence_number"`
			Delta          string
		}](t, []byte(e.data))
		if d.Type != e.name || d.SequenceNumber != i {
			t.Errorf("event %d: %+v", i, e)
		}
		names, text = append(names, e.name), text+d.Delta
	}
	want := []string{
		"response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
		"response.output_text.delta", "response.output_text.delta", "response.output_text.done",
		"response.content_part.done", "response.output_item.done", "response.completed",
	}
	if !slices.Equal(names, want) || text != "t0 t1 " {
		t.Fatalf("events %q, text %q", names, text)
	}
	end := decode[struct {
		Response struct {
			Status string
			Usage  usageBody
			Output []struct{ Content []struct{ Text string } }
		}
	}](t, []byte(events[len(events)-1].data)).Response
	if end.Status != "completed" || end.Usage.InputTokens != 2 || end.Usage.OutputTokens != 2 || end.Output[0].Content[0].Text != text {
		t.Errorf("end: %+v", end)
	}
}

func TestEmbeddings_FloatAndBase64AreTheSameUnitVector(t *testing.T) {
	s := Start(t, Options{})
	ask := func(extra string) []json.RawMessage {
		r := post(t, s, "/embeddings", `{"model":"text-embedding-3-small","input":["one","two"]`+extra+`}`).ok(t)
		d := decode[struct {
			Data []struct{ Embedding json.RawMessage }
		}](t, r.body)
		out := make([]json.RawMessage, len(d.Data))
		for i := range d.Data {
			out[i] = d.Data[i].Embedding
		}
		return out
	}
	floats, packed := ask(`,"dimensions":8`), ask(`,"dimensions":8,"encoding_format":"base64"`)
	if len(floats) != 2 || bytes.Equal(floats[0], floats[1]) {
		t.Fatalf("want two different vectors: %s", floats)
	}
	for i := range floats {
		v := decode[[]float32](t, floats[i])
		raw, err := base64.StdEncoding.DecodeString(decode[string](t, packed[i]))
		if err != nil || len(raw) != 4*len(v) || len(v) != 8 {
			t.Fatalf("%d floats, %d bytes, %v", len(v), len(raw), err)
		}
		sum := 0.0
		for j, f := range v {
			if math.Float32frombits(binary.LittleEndian.Uint32(raw[4*j:])) != f {
				t.Errorf("float %d differs", j)
			}
			sum += float64(f) * float64(f)
		}
		if math.Abs(sum-1) > 1e-5 {
			t.Errorf("length %v", sum)
		}
	}
	if n := len(decode[[]float32](t, ask("")[0])); n != defaultDimensions {
		t.Errorf("%d dimensions by default", n)
	}
}

func TestModels_AreListedReadAndDeleted(t *testing.T) {
	s := Start(t, Options{Models: []string{"mine"}})
	if r := get(t, s, "/models").ok(t); !strings.Contains(string(r.body), `"id":"mine"`) || !strings.Contains(string(r.body), `"object":"list"`) {
		t.Errorf("list: %s", r.body)
	}
	if r := get(t, s, "/models/mine").ok(t); !strings.Contains(string(r.body), `"object":"model"`) {
		t.Errorf("one: %s", r.body)
	}
	r := roundTrip(client(t), newRequest(t, http.MethodDelete, s.URL()+"/models/mine", "")).ok(t)
	if !strings.Contains(string(r.body), `"deleted":true`) {
		t.Errorf("delete: %s", r.body)
	}
}

func TestTranscriptions_AreRecordedByteForByte(t *testing.T) {
	s := Start(t, Options{})
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	file, err := w.CreateFormFile("file", "a.wav")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = file.Write([]byte{0, 1, 255, '\r', '\n'})
	_ = w.WriteField("model", "up-ok")
	_ = w.Close()
	req := newRequest(t, http.MethodPost, s.URL()+"/audio/transcriptions", form.String())
	req.Header.Set("Content-Type", w.FormDataContentType())
	roundTrip(client(t), req).ok(t)
	if got := s.Requests()[0]; !bytes.Equal(got.Body, form.Bytes()) || got.Model != "up-ok" {
		t.Errorf("recorded %q with model %q", got.Body, got.Model)
	}
}

func TestBadRequests_AreRefusedAsOpenAIDoes(t *testing.T) {
	s := Start(t, Options{Keys: []string{"sk-test"}})
	for _, c := range []struct {
		method, path, body string
		status             int
		message            string
	}{
		{"POST", "/chat/completions", `{`, 400, "could not parse the JSON body"},
		{"POST", "/chat/completions", `{"messages":[]}`, 400, "you must provide a model parameter"},
		{"POST", "/chat/completions", `{"model":"up-ok"}`, 400, "Missing required parameter: 'messages'"},
		{"POST", "/completions", `{"model":"up-ok"}`, 400, "Missing required parameter: 'prompt'"},
		{"POST", "/responses", `{"model":"up-ok"}`, 400, "Missing required parameter: 'input'"},
		{"POST", "/embeddings", `{"model":"up-ok"}`, 400, "Missing required parameter: 'input'"},
		{"POST", "/embeddings", `{"model":"up-ok","input":"1","dimensions":0}`, 400, "Invalid 'dimensions'"},
		{"POST", "/embeddings", `{"model":"up-ok","input":"1","encoding_format":"hex"}`, 400, "Invalid 'encoding_format'"},
		{"POST", "/chat/completions", chatCall("up-ok", `,"max_tokens":"5"`), 400, "Invalid type for 'max_tokens'"},
		{"POST", "/chat/completions", chatCall("up-ok", `,"max_tokens":0`), 400, "Invalid 'max_tokens'"},
		{"POST", "/chat/completions", chatCall("up-ok", `,"n":129`), 400, "Invalid 'n'"},
		{"POST", "/chat/completions", chatCall("up-slow:x", ""), 400, `"x" is no number`},
		{"POST", "/chat/completions", chatCall("gpt-9", ""), 404, "The model `gpt-9` does not exist"},
		{"POST", "/audio/transcriptions", "", 400, "you must provide a model parameter"},
		{"GET", "/models/gpt-9", "", 404, "The model `gpt-9` does not exist"},
		{"GET", "/nothing", "", 404, "Invalid URL (GET /v1/nothing)"},
		{"DELETE", "/models", "", 405, "Not allowed to DELETE on /v1/models"},
	} {
		r := roundTrip(client(t), newRequest(t, c.method, s.URL()+c.path, c.body))
		e := decode[errorBody](t, r.body).Error
		if r.status != c.status || !strings.Contains(e.Message, c.message) || e.Type != "invalid_request_error" {
			t.Errorf("%s %s %s: %d %s", c.method, c.path, c.body, r.status, r.body)
		}
	}
}

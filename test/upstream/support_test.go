// SPDX-License-Identifier: MPL-2.0

package upstream

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// reply is an HTTP answer read to its end; err is what cut it short.
type reply struct {
	status int
	header http.Header
	body   []byte
	err    error
}

// client shares no connections with other tests and gives up before go test does.
func client(tb testing.TB) *http.Client {
	t := &http.Transport{}
	tb.Cleanup(t.CloseIdleConnections)
	return &http.Client{
		Transport:     t,
		Timeout:       time.Minute,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func newRequest(tb testing.TB, method, url, body string) *http.Request {
	tb.Helper()
	r, err := http.NewRequestWithContext(context.Background(), method, url, strings.NewReader(body))
	if err != nil {
		tb.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer sk-test")
	r.Header.Set("Content-Type", "application/json")
	return r
}

func roundTrip(c *http.Client, r *http.Request) reply {
	res, err := c.Do(r)
	if err != nil {
		return reply{err: err}
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return reply{res.StatusCode, res.Header, body, err}
}

func post(tb testing.TB, s *Server, path, body string) reply {
	tb.Helper()
	return roundTrip(client(tb), newRequest(tb, http.MethodPost, s.URL()+path, body))
}

func get(tb testing.TB, s *Server, path string) reply {
	tb.Helper()
	return roundTrip(client(tb), newRequest(tb, http.MethodGet, s.URL()+path, ""))
}

// chatCall is a chat completion request; extra is more members, with a comma first.
func chatCall(model, extra string) string {
	return `{"model":"` + model + `","messages":[{"role":"user","content":"12345678"}]` + extra + `}`
}

func decode[T any](tb testing.TB, data []byte) T {
	tb.Helper()
	var v T
	if err := json.Unmarshal(data, &v); err != nil {
		tb.Fatalf("%v in %.300q", err, data)
	}
	return v
}

// ok fails the test unless the answer is a whole 200.
func (r reply) ok(tb testing.TB) reply {
	tb.Helper()
	if r.err != nil || r.status != http.StatusOK {
		tb.Fatalf("status %d, err %v, body %.300q", r.status, r.err, r.body)
	}
	return r
}

type errorBody struct {
	Error struct {
		Message string
		Type    string
		Param   *string
		Code    *string
	}
}

type usageBody struct {
	PromptTokens     int `json:"prompt_tokens"`
	CompletionTokens int `json:"completion_tokens"`
	TotalTokens      int `json:"total_tokens"`
	InputTokens      int `json:"input_tokens"`
	OutputTokens     int `json:"output_tokens"`
}

// chatObject fits a chat completion, a completion and their chunks.
type chatObject struct {
	ID, Object, Model string
	Choices           []struct {
		Index        int
		Text         string
		Message      struct{ Role, Content string }
		Delta        struct{ Role, Content string }
		FinishReason *string `json:"finish_reason"`
	}
	Usage *usageBody
}

// text is what all choices say, one after the other.
func (c chatObject) text() string {
	var b strings.Builder
	for _, choice := range c.Choices {
		b.WriteString(choice.Text + choice.Message.Content + choice.Delta.Content)
	}
	return b.String()
}

// sseEvent is an event as a reader of the SSE standard sees it.
type sseEvent struct{ name, data string }

// readEvents splits a stream; it knows comments and both line ends.
func readEvents(tb testing.TB, stream []byte) []sseEvent {
	tb.Helper()
	var events []sseEvent
	var e sseEvent
	lines := bufio.NewScanner(bytes.NewReader(stream))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text() // without "\r\n" or "\n"
		field, value, _ := strings.Cut(line, ": ")
		switch {
		case line == "":
			if e != (sseEvent{}) {
				events = append(events, e)
			}
			e = sseEvent{}
		case field == "event":
			e.name = value
		case field == "data":
			e.data += value
		case field == "":
		default:
			tb.Fatalf("no SSE field: %q", line)
		}
	}
	if err := lines.Err(); err != nil {
		tb.Fatal(err)
	}
	return events
}

// readChunks reads a stream of chat completions or completions up to [DONE].
func readChunks(tb testing.TB, stream []byte) (chunks []chatObject, text string) {
	tb.Helper()
	events := readEvents(tb, stream)
	if len(events) == 0 || events[len(events)-1].data != "[DONE]" {
		tb.Fatalf("no [DONE] at the end of %.300q", stream)
	}
	for _, e := range events[:len(events)-1] {
		c := decode[chatObject](tb, []byte(e.data))
		text += c.text()
		chunks = append(chunks, c)
	}
	return chunks, text
}

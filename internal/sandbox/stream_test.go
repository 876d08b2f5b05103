// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"
)

// dataOf takes a stream apart into the data of its events, checking the
// framing.
func dataOf(t testing.TB, stream string) []string {
	t.Helper()
	var all []string
	for _, e := range strings.Split(strings.TrimSuffix(stream, "\n\n"), "\n\n") {
		name := ""
		for _, line := range strings.Split(e, "\n") {
			field, value, _ := strings.Cut(line, ": ")
			switch field {
			case "event":
				name = value
			case "data":
				if name != "" && at(t, object(t, value), "type") != name {
					t.Errorf("event %s has data %s", name, value)
				}
				all = append(all, value)
			default:
				t.Errorf("line %q in a stream", line)
			}
		}
	}
	return all
}

// told is what an answer comes to, streamed or whole.
type told struct {
	texts, finishes, calls []string
	usage                  any
	id                     any
}

func wholeChat(t testing.TB, body string) (r told) {
	o := object(t, body)
	r.usage, r.id = o["usage"], o["id"]
	for _, c := range o["choices"].([]any) {
		text, _ := at(t, c, "message", "content").(string)
		call := ""
		if at(t, c, "message", "tool_calls") != nil {
			f := at(t, c, "message", "tool_calls", 0)
			call = fmt.Sprint(at(t, f, "id"), at(t, f, "function", "name"))
			text = at(t, f, "function", "arguments").(string)
		}
		r.texts, r.calls = append(r.texts, text), append(r.calls, call)
		r.finishes = append(r.finishes, at(t, c, "finish_reason").(string))
	}
	return r
}

func streamedChat(t testing.TB, stream string) (r told) {
	all := dataOf(t, stream)
	if all[len(all)-1] != "[DONE]" {
		t.Fatalf("ends with %s", all[len(all)-1])
	}
	for _, data := range all[:len(all)-1] {
		o := object(t, data)
		r.id = o["id"]
		if o["usage"] != nil {
			r.usage = o["usage"]
		}
		for _, c := range o["choices"].([]any) {
			i := int(at(t, c, "index").(float64))
			for len(r.texts) <= i {
				r.texts, r.calls, r.finishes = append(r.texts, ""), append(r.calls, ""), append(r.finishes, "")
			}
			if text, ok := at(t, c, "delta", "content").(string); ok {
				r.texts[i] += text
			}
			if at(t, c, "delta", "tool_calls") != nil {
				f := at(t, c, "delta", "tool_calls", 0)
				if at(t, f, "id") != nil {
					r.calls[i] = fmt.Sprint(at(t, f, "id"), at(t, f, "function", "name"))
				}
				r.texts[i] += at(t, f, "function", "arguments").(string)
			}
			if finish, ok := at(t, c, "finish_reason").(string); ok {
				r.finishes[i] = finish
			}
		}
	}
	return r
}

func TestChat_StreamSaysAndCostsTheSameAsTheWholeAnswer(t *testing.T) {
	s := New(Options{})
	const tools = `,"tools":[{"type":"function","function":{"name":"look","parameters":{"type":"object","properties":{"place":{"type":"string"}},"required":["place"]}}}],"tool_choice":"required"`
	for _, model := range []string{"sandbox-small", "sandbox-large", "sandbox-reasoning", "sandbox-small:echo", "sandbox-small:big=40000", "sandbox-small:tokens=1"} {
		for _, more := range []string{"", `,"n":3`, `,"max_tokens":7`, `,"stop":["o","e"]`, `,"response_format":{"type":"json_object"}`, tools, tools + `,"n":2,"max_tokens":3`} {
			body := fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":"größe 👋👋👋"}]%s}`, model, more)
			want := wholeChat(t, post(t, s, pathChat, body))
			body = strings.TrimSuffix(body, "}") + `,"stream":true,"stream_options":{"include_usage":true}}`
			got := streamedChat(t, post(t, s, pathChat, body))
			if strings.Contains(model, "echo") && !strings.Contains(more, "tool") {
				got.texts, want.texts = nil, nil // it echoes the stream's own fields, too
				got.usage, want.usage, got.finishes, want.finishes = nil, nil, nil, nil
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s %s:\nstream %+v\nwhole  %+v", model, more, got, want)
			}
		}
	}
}

func TestCompletions_StreamSaysAndCostsTheSameAsTheWholeAnswer(t *testing.T) {
	s := New(Options{})
	for _, more := range []string{"", `,"n":2`, `,"max_tokens":5`} {
		body := `{"model":"sandbox-small","prompt":["a","b"]` + more
		whole := object(t, post(t, s, pathCompletions, body+"}"))
		var want []string
		for _, c := range whole["choices"].([]any) {
			want = append(want, at(t, c, "text").(string)+at(t, c, "finish_reason").(string))
		}
		got := make([]string, len(want))
		all := dataOf(t, post(t, s, pathCompletions, body+`,"stream":true,"stream_options":{"include_usage":true}}`))
		var usage any
		for _, data := range all[:len(all)-1] {
			o := object(t, data)
			usage = o["usage"]
			for _, c := range o["choices"].([]any) {
				finish, _ := at(t, c, "finish_reason").(string)
				got[int(at(t, c, "index").(float64))] += at(t, c, "text").(string) + finish
			}
		}
		if !reflect.DeepEqual(got, want) || !reflect.DeepEqual(usage, whole["usage"]) {
			t.Errorf("%s:\nstream %q %v\nwhole  %q %v", more, got, usage, want, whole["usage"])
		}
	}
}

func TestResponses_StreamBuildsUpToTheWholeAnswer(t *testing.T) {
	s := New(Options{Clock: newVirtualClock()})
	const tools = `,"tools":[{"type":"function","name":"look","parameters":{}}],"tool_choice":{"type":"function","name":"look"}`
	for _, model := range []string{"sandbox-small", "sandbox-reasoning"} {
		for _, more := range []string{"", `,"max_output_tokens":20`, `,"max_output_tokens":140`, tools, `,"text":{"format":{"type":"json_object"}}`} {
			body := fmt.Sprintf(`{"model":%q,"input":"hi"%s`, model, more)
			whole := object(t, post(t, s, pathResponses, body+"}"))
			all := dataOf(t, post(t, s, pathResponses, body+`,"stream":true}`))
			text := ""
			for i, data := range all {
				e := object(t, data)
				if e["sequence_number"] != float64(i) {
					t.Errorf("event %d has number %v", i, e["sequence_number"])
				}
				if d, ok := e["delta"].(string); ok {
					text += d
				}
			}
			last := object(t, all[len(all)-1])
			if !reflect.DeepEqual(last["response"], any(whole)) {
				t.Errorf("%s %s: the last event has\n%v\nnot\n%v", model, more, last["response"], whole)
			}
			if want := fmt.Sprint("response.", whole["status"]); last["type"] != want {
				t.Errorf("the last event is %v, not %s", last["type"], want)
			}
			if got := textOfResponse(t, whole); got != text {
				t.Errorf("%s %s: deltas say %q, the whole answer %q", model, more, text, got)
			}
		}
	}
}

func textOfResponse(t testing.TB, o map[string]any) (text string) {
	for _, item := range o["output"].([]any) {
		switch at(t, item, "type") {
		case "message":
			text += at(t, item, "content", 0, "text").(string)
		case "function_call":
			text += at(t, item, "arguments").(string)
		}
	}
	return text
}

func TestStream_UsageIsOnlyThereWhenAskedForAndNullUntilTheEnd(t *testing.T) {
	s := New(Options{})
	for _, path := range []string{pathChat, pathCompletions} {
		body := `{"model":"sandbox-small","messages":[{"role":"user","content":"hi"}],"prompt":"hi","stream":true`
		for _, data := range dataOf(t, post(t, s, path, body+"}")) {
			if strings.Contains(data, `"usage"`) {
				t.Errorf("%s: unasked: %s", path, data)
			}
		}
		all := dataOf(t, post(t, s, path, body+`,"stream_options":{"include_usage":true}}`))
		for i, data := range all[:len(all)-1] {
			o := object(t, data)
			usage, there := o["usage"]
			last := i == len(all)-2
			if !there || (usage != nil) != last || (len(o["choices"].([]any)) == 0) != last {
				t.Errorf("%s: event %d of %d: %s", path, i, len(all), data)
			}
		}
	}
}

// gate is a clock whose sleepers wake one for each value sent.
type gate struct {
	*virtualClock
	open chan struct{}
}

func (g gate) Sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-g.open:
		return g.virtualClock.Sleep(ctx, d)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func TestStream_EachEventIsReadableWhenItIsDueAndNotBefore(t *testing.T) {
	clock := gate{newVirtualClock(), make(chan struct{})}
	s := New(Options{Clock: clock})
	resp, err := s.RoundTrip(request(t, "POST", pathChat, `{"model":"sandbox-small:tps=10:tokens=3","messages":[{"role":"user","content":"x"}],"stream":true}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	buf := make([]byte, 4096)
	begun := clock.Now()
	if n, err := resp.Body.Read(buf); err != nil || !strings.Contains(string(buf[:n]), `"role":"assistant"`) {
		t.Fatalf("%q %v", buf[:n], err)
	}
	for i := 1; i <= 3; i++ {
		go func() { clock.open <- struct{}{} }()
		n, err := resp.Body.Read(buf)
		if err != nil || strings.Count(string(buf[:n]), "data: ") != 1 {
			t.Fatalf("%q %v", buf[:n], err)
		}
		if got, want := clock.Now().Sub(begun), time.Duration(i)*100*time.Millisecond; got != want {
			t.Errorf("token %d came after %s, not %s", i, got, want)
		}
	}
}

func TestLatencyAndPace_OfAWholeAnswerAddUp(t *testing.T) {
	for model, want := range map[string]time.Duration{
		"sandbox-small:latency=250ms":                     250 * time.Millisecond,
		"sandbox-small:latency=250ms:tps=10:tokens=5":     750 * time.Millisecond,
		"sandbox-reasoning:tps=100:tokens=5:reasoning=95": time.Second,
		"sandbox-small": 0,
	} {
		clock := newVirtualClock()
		begun := clock.Now()
		post(t, New(Options{Clock: clock}), pathChat, fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":"x"}],"n":2}`, model))
		if got := clock.Now().Sub(begun); got != want {
			t.Errorf("%s took %s, not %s", model, got, want)
		}
	}
}

// settled waits for the goroutines to come back to their number before.
func settled(t *testing.T, before int) {
	t.Helper()
	for range 1000 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Errorf("%d goroutines, %d before", runtime.NumGoroutine(), before)
}

func TestCancel_EndsEveryWaitAndFreesIt(t *testing.T) {
	const rest = `","messages":[{"role":"user","content":"x"}],"stream":%t}`
	for _, model := range []string{
		"sandbox-small:fail=hang", "sandbox-small:latency=10m", "sandbox-small:tps=1", "sandbox-small:fail=stall",
	} {
		for _, stream := range []bool{false, true} {
			before := runtime.NumGoroutine()
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() {
				resp, err := New(Options{}).RoundTrip(request(t, "POST", pathChat, fmt.Sprintf(`{"model":"`+model+rest, stream)).WithContext(ctx))
				if err == nil {
					_, err = io.ReadAll(resp.Body)
					resp.Body.Close()
				}
				done <- err
			}()
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Errorf("%s, stream %t: %v", model, stream, err)
			}
			settled(t, before)
		}
	}
}

func TestCancel_EndsAStreamWhoseNextEventIsReady(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	resp, err := New(Options{}).RoundTrip(request(t, "POST", pathChat, minimal(pathChat, "sandbox-small", `,"stream":true`)).WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := resp.Body.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if n, err := resp.Body.Read(make([]byte, 10)); n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("%d bytes, %v", n, err)
	}
}

func TestClose_EndsAReadThatWaits(t *testing.T) {
	before := runtime.NumGoroutine()
	clock := gate{newVirtualClock(), make(chan struct{})}
	resp, err := New(Options{Clock: clock}).RoundTrip(request(t, "POST", pathChat,
		`{"model":"sandbox-small:tps=1","messages":[{"role":"user","content":"x"}],"stream":true}`))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	started := make(chan struct{})
	go func() {
		buf := make([]byte, 4096)
		_, _ = resp.Body.Read(buf)
		close(started)
		_, err := resp.Body.Read(buf)
		done <- err
	}()
	<-started
	resp.Body.Close()
	if err := <-done; !errors.Is(err, http.ErrBodyReadAfterClose) {
		t.Error(err)
	}
	resp.Body.Close()
	settled(t, before)
}

func TestStream_SplitsNoCharacterAndLosesNone(t *testing.T) {
	for _, text := range []string{"", "a", "größe", "👋👋👋👋", "aé👋b", strings.Repeat("é", 100)} {
		var joined string
		last := 0
		for piece, through := range pieces(text, bytesPerToken) {
			if !json.Valid([]byte(`"`+piece+`"`)) || strings.ContainsRune(piece, '\uFFFD') || piece == "" || through <= last {
				t.Errorf("piece %q through %d of %q", piece, through, text)
			}
			joined += piece
			last = through
		}
		if joined != text || tokensOf(last) != tokensOf(len(text)) {
			t.Errorf("%q became %q, %d tokens", text, joined, tokensOf(last))
		}
	}
}

func TestServeHTTP_StreamsIncrementallyOverARealConnection(t *testing.T) {
	clock := gate{newVirtualClock(), make(chan struct{})}
	server := httptest.NewServer(New(Options{Clock: clock}))
	defer server.Close()
	resp, err := http.Post(server.URL+pathResponses, "application/json", strings.NewReader(`{"model":"sandbox-small:tps=1:tokens=2","input":"x","stream":true}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	// What comes before the first token is here although no time has passed.
	var head string
	buf := make([]byte, 1)
	for !strings.Contains(head, "content_part.added") || !strings.HasSuffix(head, "\n\n") {
		if _, err := resp.Body.Read(buf); err != nil {
			t.Fatal(err)
		}
		head += string(buf)
	}
	close(clock.open)
	rest, err := io.ReadAll(resp.Body)
	if err != nil || !strings.Contains(string(rest), "response.completed") {
		t.Errorf("%v: %s", err, rest)
	}
}

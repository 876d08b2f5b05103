// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"
)

func ask(fail string, stream bool) string {
	return fmt.Sprintf(`{"model":"sandbox-small:fail=%s","messages":[{"role":"user","content":"x"}],"stream":%t}`, fail, stream)
}

func TestFail_StatusesComeAsOpenAIErrorsStreamedOrNot(t *testing.T) {
	s := New(Options{})
	for _, status := range failureStatuses() {
		for _, stream := range []bool{false, true} {
			got, header, body := do(t, s, request(t, "POST", pathChat, ask(fmt.Sprint(status), stream)))
			e, _ := object(t, body)["error"].(map[string]any)
			if got != status || header.Get("Content-Type") != "application/json" || e["message"] == "" || e["type"] == nil {
				t.Errorf("%d: %d %s", status, got, body)
			}
			if (header.Get("Retry-After") == "1") != (status == http.StatusTooManyRequests) {
				t.Errorf("%d: retry-after %q", status, header.Get("Retry-After"))
			}
		}
	}
	for _, path := range []string{pathCompletions, pathResponses, pathEmbeddings} {
		model := "sandbox-small"
		if path == pathEmbeddings {
			model = "sandbox-embedding"
		}
		got, _, body := do(t, s, request(t, "POST", path, minimal(path, model+":fail=503", "")))
		if got != 503 {
			t.Errorf("%s: %d %s", path, got, body)
		}
	}
}

func TestFail_HangAnswersNothingUntilTheDeadline(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	resp, err := New(Options{}).RoundTrip(request(t, "POST", pathChat, ask("hang", true)).WithContext(ctx))
	if err == nil {
		resp.Body.Close()
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func TestFail_ResetIsAConnectionError(t *testing.T) {
	resp, err := New(Options{}).RoundTrip(request(t, "POST", pathChat, ask("reset", false)))
	if err == nil {
		resp.Body.Close()
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Error(err)
	}
}

// readAll returns what came of a body and how it ended.
func readAll(t *testing.T, s *Sandbox, body string) (*http.Response, string, error) {
	t.Helper()
	resp, err := s.RoundTrip(request(t, "POST", pathChat, body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	return resp, string(got), err
}

func TestFail_CutBreaksTheBodyOffMidway(t *testing.T) {
	s := New(Options{Clock: newVirtualClock()})
	for _, stream := range []bool{false, true} {
		resp, got, err := readAll(t, s, ask("cut", stream))
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("stream %t: ended with %v", stream, err)
		}
		if stream && (!strings.Contains(got, "This") || strings.Contains(got, "finish_reason\":\"stop")) {
			t.Errorf("not cut midway: %s", got)
		}
		if !stream && (len(got) == 0 || int64(len(got)) >= resp.ContentLength) {
			t.Errorf("%d bytes of %d", len(got), resp.ContentLength)
		}
	}
}

func TestFail_StallGivesHalfAndStaysOpenUntilClosed(t *testing.T) {
	for _, stream := range []bool{false, true} {
		resp, err := New(Options{}).RoundTrip(request(t, "POST", pathChat, ask("stall", stream)))
		if err != nil {
			t.Fatal(err)
		}
		first := make(chan int)
		done := make(chan error)
		go func() {
			n, err := resp.Body.Read(make([]byte, 64<<10))
			first <- n
			for err == nil {
				_, err = resp.Body.Read(make([]byte, 64<<10))
			}
			done <- err
		}()
		if n := <-first; n == 0 {
			t.Error("nothing came")
		}
		select {
		case err := <-done:
			t.Errorf("ended by itself with %v", err)
		case <-time.After(20 * time.Millisecond):
			resp.Body.Close()
			if err := <-done; !errors.Is(err, http.ErrBodyReadAfterClose) {
				t.Error(err)
			}
		}
	}
}

func TestFail_GarbageIsStatus200AndNotJSON(t *testing.T) {
	for _, stream := range []bool{false, true} {
		resp, got, err := readAll(t, New(Options{}), ask("garbage", stream))
		if err != nil || resp.StatusCode != 200 || strings.Contains(got, "{") || !strings.Contains(got, "<html>") {
			t.Errorf("%v %d %q", err, resp.StatusCode, got)
		}
	}
}

func TestFail_ErrorEventEndsAStreamWithAnErrorAndNoDone(t *testing.T) {
	s := New(Options{})
	for _, path := range []string{pathChat, pathCompletions, pathResponses} {
		body := minimal(path, "sandbox-small:fail=error-event", `,"stream":true`)
		all := dataOf(t, post(t, s, path, body))
		last := object(t, all[len(all)-1])
		if path == pathResponses {
			if last["type"] != "error" || last["sequence_number"] != float64(len(all)-1) || last["message"] == "" {
				t.Errorf("%s ends with %v", path, last)
			}
		} else if e, ok := last["error"].(map[string]any); !ok || e["type"] != "server_error" {
			t.Errorf("%s ends with %v", path, last)
		}
		if len(all) < 8 {
			t.Errorf("%s: only %d events before it", path, len(all))
		}
	}
	if status, _, body := do(t, s, request(t, "POST", pathChat, ask("error-event", false))); status != 500 {
		t.Errorf("without stream: %d %s", status, body)
	}
}

func TestFail_OverARealConnectionTheClientSeesItBreak(t *testing.T) {
	server := httptest.NewServer(New(Options{}))
	defer server.Close()
	for _, fail := range []string{"reset", "cut"} {
		for _, stream := range []bool{false, true} {
			resp, err := http.Post(server.URL+pathChat, "application/json", strings.NewReader(ask(fail, stream)))
			if err == nil {
				_, err = io.ReadAll(resp.Body)
				resp.Body.Close()
			}
			if err == nil {
				t.Errorf("%s, stream %t: the client saw nothing", fail, stream)
			}
		}
	}
}

func TestNoUsage_LeavesItOutEverywhere(t *testing.T) {
	s := New(Options{})
	for _, path := range []string{pathChat, pathCompletions, pathResponses, pathEmbeddings} {
		model := "sandbox-small:no-usage"
		if path == pathEmbeddings {
			model = "sandbox-embedding:no-usage"
		}
		if u := object(t, post(t, s, path, minimal(path, model, "")))["usage"]; u != nil {
			t.Errorf("%s: %v", path, u)
		}
		if path == pathEmbeddings {
			continue
		}
		options := `,"stream_options":{"include_usage":true}`
		if path == pathResponses {
			options = ""
		}
		for _, data := range dataOf(t, post(t, s, path, minimal(path, model, `,"stream":true`+options))) {
			if strings.Contains(data, `_tokens":`) && !strings.Contains(data, `"max_output_tokens":null`) {
				t.Errorf("%s streams usage: %s", path, data)
			}
		}
	}
}

func TestBig_GivesThatManyBytesWhateverTheCap(t *testing.T) {
	s := New(Options{})
	const size = 3 << 20
	for _, stream := range []bool{false, true} {
		body := fmt.Sprintf(`{"model":"sandbox-small:big=%d","messages":[{"role":"user","content":"x"}],"max_tokens":5,"stream":%t`, size, stream)
		var got told
		if stream {
			got = streamedChat(t, post(t, s, pathChat, body+`,"stream_options":{"include_usage":true}}`))
		} else {
			got = wholeChat(t, post(t, s, pathChat, body+"}"))
		}
		if len(got.texts[0]) != size || at(t, got.usage, "completion_tokens") != float64(size/4) {
			t.Errorf("stream %t: %d bytes, usage %v", stream, len(got.texts[0]), got.usage)
		}
	}
	status, _, body := do(t, s, request(t, "POST", pathChat, `{"model":"sandbox-small:big=67108864","messages":[{"role":"user","content":"x"}],"n":2}`))
	if status != 400 || !strings.Contains(body, "67108864") {
		t.Errorf("twice the most: %d %.300s", status, body)
	}
}

func TestEcho_ShowsWhatTheProviderReceived(t *testing.T) {
	req := request(t, "POST", pathChat, `{"model":"sandbox-small:echo","messages":[{"role":"user","content":"größe \"quoted\""}]}`)
	req.Header.Set("Authorization", "Bearer sk-test-0123456789")
	_, _, body := do(t, New(Options{}), req)
	got := wholeChat(t, body).texts[0]
	want := "POST /v1/chat/completions\nAuthorization: Bearer sk-test-0123456789\nContent-Type: application/json\n\n" +
		`{"model":"sandbox-small:echo","messages":[{"role":"user","content":"größe \"quoted\""}]}`
	if strings.ReplaceAll(got, "\r", "") != want {
		t.Errorf("%q", got)
	}
}

func TestCached_IsPartOfThePromptAndNeverMore(t *testing.T) {
	s := New(Options{})
	for model, want := range map[string]float64{"sandbox-small:cached=3": 3, "sandbox-small:cached=100000": 8, "sandbox-small": 0} {
		o := object(t, post(t, s, pathChat, fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":"x"}]}`, model)))
		if got := at(t, o, "usage", "prompt_tokens_details", "cached_tokens"); !reflect.DeepEqual(got, any(want)) {
			t.Errorf("%s: %v of %v", model, got, at(t, o, "usage", "prompt_tokens"))
		}
	}
}

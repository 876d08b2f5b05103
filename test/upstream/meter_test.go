// SPDX-License-Identifier: MPL-2.0

package upstream

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// drawn asks a server with that seed for that many answers of up to 9 tokens.
func drawn(t *testing.T, seed int64, count int, extra string) []int {
	s := Start(t, Options{Seed: seed})
	var tokens []int
	for range count {
		c := decode[chatObject](t, post(t, s, "/chat/completions", chatCall("up-random:3:9", extra)).ok(t).body)
		if words := len(strings.Fields(c.text())); words != c.Usage.CompletionTokens {
			t.Errorf("%d words, %d tokens", words, c.Usage.CompletionTokens)
		}
		tokens = append(tokens, c.Usage.CompletionTokens)
	}
	return tokens
}

func TestRandom_StaysInItsBoundsAndFollowsTheSeed(t *testing.T) {
	first, again, other := drawn(t, 1, 60, ""), drawn(t, 1, 60, ""), drawn(t, 2, 60, "")
	if !slices.Equal(first, again) || slices.Equal(first, other) {
		t.Errorf("seed 1 drew %v and %v, seed 2 %v", first, again, other)
	}
	if slices.Min(first) != 3 || slices.Max(first) != 9 {
		t.Errorf("60 answers have from %d to %d tokens, want 3 to 9", slices.Min(first), slices.Max(first))
	}
	if slices.Equal(drawn(t, 0, 20, ""), drawn(t, 0, 20, "")) {
		t.Error("without a seed two servers draw the same")
	}
	if capped := drawn(t, 1, 20, `,"max_tokens":4`); slices.Min(capped) != 3 || slices.Max(capped) != 4 {
		t.Errorf("cut at 4: %v", capped)
	}
}

func TestRandom_StreamsATokenAPieceAfterARandomDelay(t *testing.T) {
	s := Start(t, Options{})
	begin := time.Now()
	for range 10 {
		r := post(t, s, "/chat/completions", chatCall("up-random:4:4:40", `,"stream":true,"stream_options":{"include_usage":true}`)).ok(t)
		chunks, text := readChunks(t, r.body)
		if text != "t0 t1 t2 t3 " || chunks[len(chunks)-1].Usage.CompletionTokens != 4 {
			t.Errorf("text %q of %s", text, r.body)
		}
	}
	// The chance that ten delays sum up to less is one in a million.
	if took := time.Since(begin); took < 50*time.Millisecond {
		t.Errorf("ten answers took %v", took)
	}
}

func TestDelivered_BillsEveryStartedAnswerInFull(t *testing.T) {
	usual := Delivered{1, 2, 5} // of chatCall
	for _, c := range []struct {
		model, extra string
		want         Delivered
	}{
		{"up-ok", "", usual},
		{"up-ok", `,"stream":true`, usual},
		{"up-ok", `,"n":3,"max_tokens":2`, Delivered{1, 2, 6}},
		{"up-slow:1", "", usual},
		{"up-stream:7:0", `,"stream":true`, Delivered{1, 2, 7}},
		{"up-random:8:8", "", Delivered{1, 2, 8}},
		{"up-no-usage", "", usual},
		{"up-gzip", `,"stream":true`, usual},
		{"up-comments", `,"stream":true`, usual},
		{"up-big:20000", "", Delivered{1, 2, 2}},
		{"up-echo", "", Delivered{1, 2, 1}},
		{"up-reset-mid", "", usual},
		{"up-reset-mid", `,"stream":true`, usual},
		{"up-error-event", `,"stream":true`, usual},
		{"up-garbage", "", usual},
		{"up-garbage:short", "", usual},
	} {
		s := Start(t, Options{Discard: true})
		post(t, s, "/chat/completions", chatCall(c.model, c.extra))
		want := map[DeliveredKey]Delivered{{"sk-test", c.model}: c.want}
		if got := s.Delivered(); !maps.Equal(got, want) {
			t.Errorf("%s%s: billed %v, want %v", c.model, c.extra, got, want)
		}
	}
}

func TestDelivered_CountsEveryEndpoint(t *testing.T) {
	s := Start(t, Options{})
	const rest = `"model":"up-ok","prompt":"1234","input":["1234","5678"]}`
	for _, path := range []string{"/completions", "/responses", "/embeddings"} {
		post(t, s, path, `{"instructions":"1234",`+rest).ok(t)
	}
	// Each counts all text of the body, wherever it stands.
	if got, want := s.DeliveredTotal(), (Delivered{3, 12, 10}); got != want {
		t.Errorf("billed %v, want %v", got, want)
	}
}

func TestDelivered_BillsNothingForWhatIsNoAnswer(t *testing.T) {
	s := Start(t, Options{Keys: []string{"sk-test"}})
	for _, model := range []string{"up-400", "up-429", "up-500", "up-reset", "up-garbage:http", "up-redirect:/v1/x", "up-error-event", "up-slow:x", "gpt-9"} {
		post(t, s, "/chat/completions", chatCall(model, ""))
	}
	post(t, s, "/chat/completions", `{"model":"up-ok"}`)
	get(t, s, "/models").ok(t)
	s.SetKeys("another")
	post(t, s, "/chat/completions", chatCall("up-ok", ""))
	if got := s.Delivered(); len(got) != 0 {
		t.Errorf("billed %v", got)
	}
	s.WaitIdle(t)
	if n := len(s.Arrivals()); n != 12 || n != s.Received() {
		t.Errorf("%d arrivals, %d received", n, s.Received())
	}
}

func TestDelivered_TellsKeysAndModelsApart(t *testing.T) {
	s := Start(t, Options{Keys: []string{"a", "b"}})
	s.Behave("up-stream:3:0")
	for _, c := range []DeliveredKey{{"a", "gpt-4o"}, {"a", "up-ok"}, {"b", "up-ok"}, {"b", "up-ok"}} {
		r := newRequest(t, http.MethodPost, s.URL()+"/chat/completions", chatCall(c.Model, ""))
		r.Header.Set("Authorization", "Bearer "+c.Key)
		roundTrip(client(t), r).ok(t)
	}
	want := map[DeliveredKey]Delivered{{"a", "gpt-4o"}: {1, 2, 3}, {"a", "up-ok"}: {1, 2, 3}, {"b", "up-ok"}: {2, 4, 6}}
	if got := s.Delivered(); !maps.Equal(got, want) {
		t.Errorf("billed %v, want %v", got, want)
	}
}

func TestDelivered_BillsClientsThatWentAway(t *testing.T) {
	for _, o := range []Options{{}, {Delay: time.Minute}} {
		for _, model := range []string{"up-slow:60000", "up-random:5:5:600000", "up-hang-mid", "up-stream:5:60000"} {
			s := Start(t, o)
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan struct{})
			r := newRequest(t, http.MethodPost, s.URL()+"/chat/completions", chatCall(model, `,"stream":true`)).WithContext(ctx)
			go func() {
				defer close(ended)
				roundTrip(client(t), r)
			}()
			s.WaitRequests(t, 1)
			cancel()
			<-ended
			s.WaitIdle(t)
			if got, want := s.DeliveredTotal(), (Delivered{1, 2, 5}); got != want {
				t.Errorf("%s after a delay of %v: billed %v, want %v", model, o.Delay, got, want)
			}
			s.WaitCancelled(t, 1)
		}
	}
}

func TestDelivered_BillsNothingThatCloseBreaksOff(t *testing.T) {
	s := Start(t, Options{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		post(t, s, "/chat/completions", chatCall("up-slow:60000", ""))
	}()
	s.WaitRequests(t, 1)
	s.Close()
	<-ended
	if got := s.Delivered(); len(got) != 0 {
		t.Errorf("billed %v", got)
	}
}

// underWayAtEnd is a ResponseWriter that notes what is under way when it is
// given the last of an answer, which is the last thing that it notes.
type underWayAtEnd struct {
	*httptest.ResponseRecorder
	meter *meter
	count int
}

func (w *underWayAtEnd) note() {
	w.meter.mu.Lock()
	defer w.meter.mu.Unlock()
	w.count = w.meter.underWay
}

func (w *underWayAtEnd) WriteHeader(status int) {
	w.note()
	w.ResponseRecorder.WriteHeader(status)
}

func (w *underWayAtEnd) Write(p []byte) (int, error) {
	w.note()
	return w.ResponseRecorder.Write(p)
}

// A client that keeps to a limit asks again as soon as it has the end of an
// answer. Noted after that, a request would seem to exceed the limit.
func TestMaxConcurrent_LeavesOutARequestWhoseEndTheClientMaySee(t *testing.T) {
	s := Start(t, Options{})
	for _, model := range []string{"up-ok", "up-429", "up-redirect:/v1/x", "up-garbage", "up-gzip", "up-comments", "up-error-event", "up-reset-mid"} {
		for _, extra := range []string{"", `,"stream":true`} {
			w := &underWayAtEnd{httptest.NewRecorder(), s.meter, -1}
			func() {
				defer func() { _ = recover() }() // how a handler breaks a connection off
				s.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/v1/chat/completions", strings.NewReader(chatCall(model, extra))))
			}()
			if w.count != 0 {
				t.Errorf("%s%s: %d under way when the end was sent", model, extra, w.count)
			}
		}
	}
	if n := s.MaxConcurrent(); n != 1 {
		t.Errorf("%d at once, want 1", n)
	}
}

func TestMaxConcurrent_CountsThoseUnderWay(t *testing.T) {
	s := Start(t, Options{})
	ctx, cancel := context.WithCancel(context.Background())
	const clients = 5
	var wg sync.WaitGroup
	for range clients {
		r := newRequest(t, http.MethodPost, s.URL()+"/chat/completions", chatCall("up-hang", "")).WithContext(ctx)
		wg.Go(func() { roundTrip(client(t), r) })
	}
	s.WaitRequests(t, clients)
	cancel()
	wg.Wait()
	s.WaitIdle(t)
	post(t, s, "/chat/completions", chatCall("up-ok", "")).ok(t)
	if n := s.MaxConcurrent(); n != clients {
		t.Errorf("%d at once, want %d", n, clients)
	}
}

func TestMeter_AddsUpWhatManyClientsReceived(t *testing.T) {
	const clients, each = 16, 100
	s := Start(t, Options{Discard: true})
	c := client(t)
	begin := time.Now()
	received := make([]map[DeliveredKey]Delivered, clients)
	var wg sync.WaitGroup
	for i := range clients {
		received[i] = map[DeliveredKey]Delivered{}
		wg.Go(func() {
			for j := range each {
				k := DeliveredKey{fmt.Sprint("sk-", i%3), fmt.Sprintf("up-random:0:%d", j%4)}
				r := newRequest(t, http.MethodPost, s.URL()+"/chat/completions", chatCall(k.Model, ""))
				r.Header.Set("Authorization", "Bearer "+k.Key)
				usage := decode[chatObject](t, roundTrip(c, r).body).Usage
				add(received[i], k, Delivered{1, usage.PromptTokens, usage.CompletionTokens})
				_, _, _ = s.Delivered(), s.MaxConcurrent(), len(s.Arrivals())
			}
		})
	}
	wg.Wait()
	want := map[DeliveredKey]Delivered{}
	for _, r := range received {
		for k, d := range r {
			add(want, k, d)
		}
	}
	if got := s.Delivered(); !maps.Equal(got, want) {
		t.Errorf("billed %v, received %v", got, want)
	}
	arrivals := s.Arrivals()
	if len(arrivals) != clients*each || !slices.IsSortedFunc(arrivals, time.Time.Compare) {
		t.Errorf("%d arrivals, want %d in order", len(arrivals), clients*each)
	}
	if arrivals[0].Before(begin) || arrivals[len(arrivals)-1].After(time.Now()) {
		t.Errorf("from %v to %v they arrived from %v to %v", begin, time.Now(), arrivals[0], arrivals[len(arrivals)-1])
	}
}

func add(to map[DeliveredKey]Delivered, k DeliveredKey, d Delivered) {
	sum := to[k]
	to[k] = Delivered{sum.Requests + d.Requests, sum.PromptTokens + d.PromptTokens, sum.CompletionTokens + d.CompletionTokens}
}

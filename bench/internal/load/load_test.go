// SPDX-License-Identifier: MPL-2.0

package load

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const request = "POST / HTTP/1.1\r\nHost: bench\r\nContent-Length: 2\r\n\r\n{}"

func job(addr string) Job {
	return Job{
		Addr: addr, Request: []byte(request), Connections: 3, Warmup: 10 * time.Millisecond, Duration: 100 * time.Millisecond,
		Check: func(body []byte) error {
			if !strings.HasPrefix(string(body), "hello") {
				return fmt.Errorf("it said %q", body)
			}
			return nil
		},
	}
}

func serve(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

func TestRun_ReadsEveryFramingOfABody(t *testing.T) {
	framings := map[string]http.HandlerFunc{
		"content-length": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") },
		"chunked": func(w http.ResponseWriter, _ *http.Request) {
			for _, part := range []string{"he", "llo", ", and ", "goodbye"} {
				fmt.Fprint(w, part)
				w.(http.Flusher).Flush()
			}
		},
		"trailer": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Trailer", "X-After")
			fmt.Fprint(w, "hello")
			w.Header().Set("X-After", "1")
		},
		"until the connection ends": func(w http.ResponseWriter, _ *http.Request) {
			conn, _, _ := w.(http.Hijacker).Hijack()
			fmt.Fprint(conn, "HTTP/1.1 200 OK\r\n\r\nhello")
			conn.Close()
		},
		"one request a connection": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Connection", "close")
			fmt.Fprint(w, "hello")
		},
	}
	for name, handler := range framings {
		t.Run(name, func(t *testing.T) {
			result, err := Run(t.Context(), job(serve(t, handler)))
			if err != nil || result.Requests == 0 || result.FirstByte > result.Median || result.Median > result.P99 || result.FirstByte <= 0 {
				t.Fatalf("got %+v, %v", result, err)
			}
		})
	}
}

func TestRun_EndsWithTheFirstAnswerThatIsWrong(t *testing.T) {
	var calls atomic.Int64
	later := func(bad http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if calls.Add(1) < 10 {
				fmt.Fprint(w, "hello, world 1")
				return
			}
			bad(w, r)
		}
	}
	cut := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "7")
		fmt.Fprint(w, "hel")
	}
	cases := map[string]struct {
		handler http.HandlerFunc
		want    string
	}{
		"another text":     {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "goodbye") }, "it said"},
		"a status":         {later(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "too many", http.StatusTooManyRequests) }), "status 429: too many"},
		"a longer answer":  {later(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello, wide world 1") }), "an answer has 19 bytes"},
		"another end":      {later(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello, world 2") }), "ends in"},
		"a broken answer":  {later(cut), "broke off after 3 bytes"},
		"not even an HTTP": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "waiting for an answer"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			calls.Store(0)
			j := job(serve(t, c.handler))
			j.Duration = 30 * time.Second // it doesn't last so long
			if _, err := Run(t.Context(), j); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want one that says %q", err, c.want)
			}
		})
	}
}

func TestRun_EndsWithItsContext(t *testing.T) {
	addr := serve(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	j := job(addr)
	j.Duration = time.Hour
	if _, err := Run(ctx, j); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
}

func TestRun_SaysWhenNobodyListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if _, err := Run(t.Context(), job(l.Addr().String())); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Fatalf("got %v", err)
	}
}

func TestSummarise_CountsOnlyWhatEndedInTime(t *testing.T) {
	begin := time.Now()
	at := func(start, whole int) sample {
		return sample{start: begin.Add(time.Duration(start) * time.Millisecond), whole: time.Duration(whole) * time.Millisecond, first: time.Millisecond}
	}
	workers := []*worker{{samples: []sample{at(-5, 3), at(-2, 4), at(3, 6)}}, {samples: []sample{at(50, 50), at(60, 41)}}}
	got, err := summarise(workers, begin, begin.Add(100*time.Millisecond))
	want := Result{Requests: 3, Elapsed: 100 * time.Millisecond, Median: 6 * time.Millisecond, P99: 50 * time.Millisecond, FirstByte: time.Millisecond}
	if err != nil || got != want {
		t.Fatalf("got %+v, %v, want %+v", got, err, want)
	}
	if _, err := summarise(workers, begin.Add(time.Hour), begin.Add(2*time.Hour)); err == nil {
		t.Fatal("nothing was measured and that is no error")
	}
}

func TestQuantile_IsTheNearestRank(t *testing.T) {
	var hundred []time.Duration
	for i := range 100 {
		hundred = append(hundred, time.Duration(i+1))
	}
	for q, want := range map[float64]time.Duration{0: 1, 0.5: 50, 0.99: 99, 0.991: 100, 1: 100} {
		if got := quantile(hundred, q); got != want {
			t.Errorf("quantile %v of 1…100 is %d, want %d", q, got, want)
		}
	}
}

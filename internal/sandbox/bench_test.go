// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

func benchmark(b *testing.B, more string) {
	s := New(Options{})
	body := `{"model":"sandbox-small","messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"What is the capital of France?"}]` + more + `}`
	target := &url.URL{Scheme: "sandbox", Host: "sandbox", Path: pathChat}
	header := http.Header{"Content-Type": {"application/json"}}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			req := (&http.Request{
				Method: "POST", URL: target, Header: header,
				Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
			}).WithContext(b.Context())
			resp, err := s.RoundTrip(req)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, resp.Body); err != nil {
				b.Fatal(err)
			}
			resp.Body.Close()
		}
	})
}

func BenchmarkRoundTrip_ChatCompletion(b *testing.B) { benchmark(b, "") }

func BenchmarkRoundTrip_StreamedChatCompletion(b *testing.B) {
	benchmark(b, `,"stream":true,"stream_options":{"include_usage":true}`)
}

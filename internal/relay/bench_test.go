// SPDX-License-Identifier: MPL-2.0

package relay

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/internal/ledger"
	"vault-plugin-secrets-portkey/internal/wire"
)

// nowhere is an Answer that counts what it gets.
type nowhere struct {
	*recorder
	header http.Header
	n      int
}

func (w *nowhere) Header() http.Header         { return w.header }
func (w *nowhere) WriteHeader(int)             {}
func (w *nowhere) Write(p []byte) (int, error) { w.n += len(p); return len(p), nil }
func (w *nowhere) Flush()                      {}

// pieces are a body that comes piece by piece.
type pieces struct{ left [][]byte }

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.left) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.left[0])
	if p.left[0] = p.left[0][n:]; len(p.left[0]) == 0 {
		p.left = p.left[1:]
	}
	return n, nil
}

func (p *pieces) Close() error { return nil }

// BenchmarkServe is all that the relay does for a request of 4 KiB and an answer of
// the same size, with three limits, without a network.
func BenchmarkServe(b *testing.B) {
	text := strings.Repeat("Whoever holds it may ask for completions until its limit is reached, and not for one more. ", 42)[:3800]
	const usage = `"usage":{"prompt_tokens":800,"completion_tokens":64,"total_tokens":864}`
	whole := [][]byte{fmt.Appendf(nil, `{"id":"c","object":"chat.completion","created":1767225600,"model":"m","choices":[{"index":0,`+
		`"message":{"role":"assistant","content":%q,"refusal":null},"logprobs":null,"finish_reason":"stop"}],%s}`, text, usage)}
	chunk := func(choices, rest string) []byte {
		return fmt.Appendf(nil, `data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1767225600,"model":"m",`+
			`"system_fingerprint":"fp_44709d6fcb","choices":[%s]%s}`+"\n\n", choices, rest)
	}
	var stream [][]byte
	for word := range strings.FieldsSeq(text[:100]) {
		stream = append(stream, chunk(fmt.Sprintf(`{"index":0,"delta":{"content":%q},"finish_reason":null}`, word), ""))
	}
	stream = append(stream, chunk(`{"index":0,"delta":{},"finish_reason":"stop"}`, ""), chunk("", ","+usage), []byte("data: [DONE]\n\n"))
	header := http.Header{
		"Date": {"Thu, 01 Jan 2026 00:00:00 GMT"}, "Server": {"bench"}, "X-Request-Id": {"req_bench"}, "Openai-Processing-Ms": {"1"},
		"X-Ratelimit-Remaining-Requests": {"9999"}, "X-Ratelimit-Remaining-Tokens": {"1999999"},
	}
	for name, c := range map[string]struct {
		body        string
		answer      [][]byte
		contentType string
		length      int64
	}{
		"whole":  {`"stream":false`, whole, "application/json", int64(len(whole[0]))},
		"stream": {`"stream":true`, stream, streamType, -1},
	} {
		b.Run(name, func(b *testing.B) {
			req := chatRequest(b, "")
			body := fmt.Sprintf(`{"model":"m",%s,"max_tokens":100,"temperature":0.7,"messages":[{"role":"user","content":%q}]}`, c.body, text)
			limitWith(b, req, ledger.PolicyOptions{}, ledger.Options{QueueWait: -1}, "usd=1000000/month", "requests=1000000000/hour", "tokens=1000000000000/day")
			relay := New(Options{Transport: script(func(r *http.Request) (*http.Response, error) {
				received(r)
				h := make(http.Header, len(header)+2)
				for name, value := range header {
					h[name] = value[:1:1]
				}
				h["Content-Type"] = []string{c.contentType}
				return &http.Response{StatusCode: 200, ContentLength: c.length, Header: h, Body: &pieces{left: append([][]byte{}, c.answer...)}}, nil
			})})
			req.Body, req.Idle, req.Timeout = nil, time.Minute, time.Minute
			header := http.Header{"Content-Type": {"application/json"}, "User-Agent": {"bench"}, "Accept": {"*/*"}}
			size := len(bytes.Join(c.answer, nil))
			b.ReportAllocs()
			for b.Loop() {
				object, err := wire.ParseObject([]byte(body))
				if err != nil {
					b.Fatal(err)
				}
				one := *req
				one.Header, one.Object = header, object
				w := &nowhere{header: http.Header{}}
				relay.Serve(b.Context(), w, &one)
				if w.n < size*9/10 {
					b.Fatalf("%d bytes of %d", w.n, size)
				}
			}
		})
	}
}

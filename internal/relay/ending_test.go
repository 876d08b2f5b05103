// SPDX-License-Identifier: MPL-2.0

package relay

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"vault-plugin-secrets-portkey/internal/apierror"
	"vault-plugin-secrets-portkey/internal/ledger"
)

// eager is a caller that makes its next request as soon as it has read the end of an
// answer.
type eager struct {
	*recorder
	t       *testing.T
	req     *Request
	end     []byte
	refused *ledger.Refusal
	asked   bool
}

func (e *eager) Write(p []byte) (int, error) {
	if bytes.Contains(p, e.end) {
		e.asked = true
		amounts := ledger.Amounts{}
		amounts[ledger.Requests], amounts[ledger.Concurrent] = 1, 1
		var next ledger.Reservation
		e.refused = e.req.Ledger.Reserve(e.t.Context(), e.req.VirtualKey.Limits, &ledger.Request{Amounts: amounts}, &next)
		next.Settle(ledger.Charge{})
	}
	return e.recorder.Write(p)
}

func TestLimits_PlaceIsFreeWhenTheCallerSeesTheEnd(t *testing.T) {
	for name, c := range map[string]struct{ text, contentType, answer, end string }{
		"JSON":   {chatText, jsonType, answerText, "finish_reason"},
		"stream": {chatAsked, streamType, chunkText + chunkStop + chunkUsage + chunkDone, "[DONE]"},
	} {
		t.Run(name, func(t *testing.T) {
			req := chatRequest(t, c.text)
			limit(t, req, "concurrent=1", "usd=1/month")
			w := &eager{recorder: newRecorder(), t: t, req: req, end: []byte(c.end)}
			o := settled(t.Context(), t, answers(200, c.contentType, c.answer), w, req)
			if !w.asked || w.refused != nil {
				t.Errorf("asked %t, refused: %v", w.asked, w.refused)
			}
			if o.Cost.Total != usageCost || o.BoundExceeded {
				t.Errorf("settled as %+v", o)
			}
			wantCounted(t, req, counted{ledger.USD: int64(usageCost)})
		})
	}
}

// flushed is a recorder that knows what of it was flushed.
type flushed struct {
	*recorder
	sent int
}

func (f *flushed) Flush() { f.sent = f.Body.Len() }

func TestRelay_ErrorEventOfABrokenStreamIsFlushed(t *testing.T) {
	w := &flushed{recorder: newRecorder()}
	provider := ends(200, streamType, chunkText, func(*http.Request) error { return io.ErrUnexpectedEOF })
	settled(t.Context(), t, provider, w, chatRequest(t, chatAsked))
	if w.aborted == nil || !bytes.Contains(w.Body.Bytes()[:w.sent], []byte("event: error")) {
		t.Errorf("aborted with %v; %q was flushed of %q", w.aborted, w.Body.Bytes()[:w.sent], w.Body)
	}
}

// flushes is a recorder that notes what was sent by each flush, and when.
type flushes struct {
	*recorder
	began time.Time
	sent  []string
	at    []time.Duration
	panic bool
}

func (f *flushes) Flush() {
	if f.panic {
		panic("the door's")
	}
	f.sent = append(f.sent, f.Body.String())
	f.at = append(f.at, time.Since(f.began))
}

// paced is a stream that comes in pieces, each after its pause.
func paced(pauses ...time.Duration) script {
	return func(r *http.Request) (*http.Response, error) {
		received(r)
		from, to := io.Pipe()
		go func() {
			for _, pause := range pauses {
				time.Sleep(pause)
				_, _ = io.WriteString(to, chunkText)
			}
			_, _ = io.WriteString(to, chunkStop+chunkUsage+chunkDone)
			_ = to.Close()
		}()
		return &http.Response{StatusCode: 200, ContentLength: -1, Header: http.Header{"Content-Type": {streamType}}, Body: from}, nil
	}
}

func TestStream_HeaderGoesOutWithTheFirstEventOrSoon(t *testing.T) {
	for name, c := range map[string]struct {
		pause time.Duration
		first string
		at    time.Duration
	}{
		"an event at once":         {0, chunkText, 0},
		"an event soon":            {time.Millisecond, chunkText, time.Millisecond},
		"an event that takes long": {time.Second, "", patience},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &flushes{recorder: newRecorder(), began: time.Now()}
				settled(t.Context(), t, paced(c.pause, time.Second), w, chatRequest(t, chatAsked))
				if w.sent[0] != c.first || w.at[0] != c.at {
					t.Errorf("first sent: %q after %s, want %q after %s", w.sent[0], w.at[0], c.first, c.at)
				}
				if want := 2; c.first == "" && len(w.sent) != want+1 || c.first != "" && len(w.sent) != want {
					t.Errorf("flushed %d times: %q", len(w.sent), w.sent)
				}
				if got := w.Body.String(); got != chunkText+chunkText+chunkStop+chunkUsage+chunkDone {
					t.Errorf("the answer is %q", got)
				}
			})
		})
	}
}

// The last event of a stream goes out with its end, if that comes soon: one write
// less. It doesn't wait for a provider that keeps the stream open.
func TestStream_LastEventGoesOutWithTheEndOrSoon(t *testing.T) {
	const whole = chunkText + chunkStop + chunkUsage + chunkDone
	for name, c := range map[string]struct {
		pause   time.Duration
		ends    error
		flushed []string
	}{
		"the end at once":         {0, nil, []string{chunkText}},
		"the end soon":            {time.Millisecond, nil, []string{chunkText}},
		"an end that takes long":  {time.Second, nil, []string{chunkText, whole}},
		"no end but a broken one": {0, io.ErrUnexpectedEOF, []string{chunkText}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &flushes{recorder: newRecorder(), began: time.Now()}
				provider := script(func(r *http.Request) (*http.Response, error) {
					received(r)
					from, to := io.Pipe()
					go func() {
						_, _ = io.WriteString(to, chunkText)
						_, _ = io.WriteString(to, chunkStop+chunkUsage+chunkDone)
						time.Sleep(c.pause)
						_ = to.CloseWithError(c.ends)
					}()
					return &http.Response{StatusCode: 200, ContentLength: -1, Header: http.Header{"Content-Type": {streamType}}, Body: from}, nil
				})
				o := settled(t.Context(), t, provider, w, chatRequest(t, chatAsked))
				if o.Basis != Reported {
					t.Errorf("charged by %s", o.Basis)
				}
				if got := w.Body.String(); !strings.HasPrefix(got, whole) || c.ends == nil && got != whole {
					t.Errorf("the answer is %q", got)
				}
				if len(w.sent) < len(c.flushed) || !slices.Equal(w.sent[:len(c.flushed)], c.flushed) {
					t.Errorf("flushed %q, expected %q", w.sent, c.flushed)
				}
				if more := len(w.sent) - len(c.flushed); c.ends == nil && more > 0 {
					t.Errorf("flushed %d times more: %q", more, w.sent)
				}
				if c.ends != nil && (len(w.sent) == 0 || w.sent[len(w.sent)-1] != w.Body.String()) {
					t.Errorf("what the caller has is %q, of %q", w.sent, w.Body)
				}
			})
		})
	}
}

// toTheEnd is a body whose last part comes with its end.
type toTheEnd []string

func (b *toTheEnd) Read(p []byte) (int, error) {
	n := copy(p, (*b)[0])
	if *b = (*b)[1:]; len(*b) == 0 {
		return n, io.EOF
	}
	return n, nil
}

func (b *toTheEnd) Close() error { return nil }

// What comes with a stream's end goes out with it, also where the stream says nothing
// of its being over.
func TestStream_BytesThatComeWithTheEndGoOutWithIt(t *testing.T) {
	w := &flushes{recorder: newRecorder(), began: time.Now()}
	provider := script(func(r *http.Request) (*http.Response, error) {
		received(r)
		return &http.Response{
			StatusCode: 200, ContentLength: -1, Header: http.Header{"Content-Type": {streamType}}, Body: &toTheEnd{chunkText, chunkText, chunkStop},
		}, nil
	})
	settled(t.Context(), t, provider, w, chatRequest(t, chatAsked))
	if want := []string{chunkText, chunkText + chunkText}; !slices.Equal(w.sent, want) || w.Body.String() != chunkText+chunkText+chunkStop {
		t.Errorf("flushed %q, of %q", w.sent, w.Body)
	}
}

// wired is an Answer of a real server.
type wired struct {
	http.ResponseWriter
	t *testing.T
}

func (s wired) Abort(*apierror.Error) { s.t.Error("aborted") }
func (s wired) Flush()                { s.ResponseWriter.(http.Flusher).Flush() }

// A stream that is there at once says what it used, in a trailer as any other.
func TestStream_ThatComesAtOnceHasItsTrailer(t *testing.T) {
	const whole = chunkText + chunkStop + chunkUsage + chunkDone
	for name, parts := range map[string][]string{
		"with its end":        {whole},
		"before its end":      {whole, ""},
		"event by event":      {chunkText, chunkStop, chunkUsage, chunkDone},
		"its beginning first": {chunkText, chunkStop + chunkUsage + chunkDone},
	} {
		for _, http2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, HTTP/2 %t", name, http2), func(t *testing.T) {
				provider := script(func(r *http.Request) (*http.Response, error) {
					received(r)
					from, to := io.Pipe()
					go func() {
						for _, part := range parts {
							_, _ = io.WriteString(to, part)
						}
						_ = to.Close()
					}()
					body := io.ReadCloser(from)
					if len(parts) == 1 {
						body = io.NopCloser(iotest.DataErrReader(strings.NewReader(whole)))
					}
					return &http.Response{StatusCode: 200, ContentLength: -1, Header: http.Header{"Content-Type": {streamType}}, Body: body}, nil
				})
				req := chatRequest(t, chatAsked)
				server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					settled(t.Context(), t, provider, wired{w, t}, req)
				}))
				server.EnableHTTP2 = http2
				server.StartTLS()
				defer server.Close()
				resp, err := server.Client().Get(server.URL)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = resp.Body.Close() }()
				if text, err := io.ReadAll(resp.Body); err != nil || string(text) != whole {
					t.Errorf("it said %q, %v", text, err)
				}
				if resp.Trailer.Get(UsageHeader) == "" || resp.Trailer.Get(CostHeader) == "" || (resp.ProtoMajor == 2) != http2 {
					t.Errorf("%s: the trailer is %v", resp.Proto, resp.Trailer)
				}
			})
		}
	}
}

// A panic of the door while the header waits must not end the process.
func TestStream_ADoorThatPanicsWhileTheHeaderWaitsEndsTheRequestAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &flushes{recorder: newRecorder(), panic: true}
		o := settled(t.Context(), t, paced(time.Second), w, chatRequest(t, chatAsked))
		if o.Result != Failed {
			t.Errorf("%+v", o)
		}
	})
}

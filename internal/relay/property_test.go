// SPDX-License-Identifier: MPL-2.0

package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/internal/apierror"
	"vault-plugin-secrets-portkey/internal/price"
)

// randomStream is a stream of chat whose usage is within the request's bound.
// usageAt and usageEnd are where its usage-only chunk lies.
func randomStream(r *rand.Rand) (text string, usageAt, usageEnd int) {
	lineEnd := []string{"\n", "\r\n"}[r.IntN(2)]
	var b strings.Builder
	event := func(data string) {
		if r.IntN(8) == 0 {
			b.WriteString(": keep-alive" + lineEnd + lineEnd)
		}
		b.WriteString("data: " + data + lineEnd + lineEnd)
	}
	for range r.IntN(5) {
		event(fmt.Sprintf(`{"model":"m","choices":[{"index":0,"delta":{"content":%q}}]}`, strings.Repeat("x", r.IntN(20))))
	}
	event(`{"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`)
	input, output := r.IntN(worstInput+1), r.IntN(outputCap+1)
	usageAt = b.Len()
	b.WriteString(fmt.Sprintf(`data: {"choices":[],"usage":{"prompt_tokens":%d,"completion_tokens":%d,"prompt_tokens_details":{"cached_tokens":%d}}}`,
		input, output, r.IntN(input+1)) + lineEnd + lineEnd)
	usageEnd = b.Len()
	if r.IntN(5) > 0 {
		event("[DONE]")
	}
	return b.String(), usageAt, usageEnd
}

// ragged reads text in pieces of random length.
type ragged struct {
	text io.Reader
	r    *rand.Rand
}

func (g ragged) Read(p []byte) (int, error) { return g.text.Read(p[:min(len(p), 1+g.r.IntN(40))]) }

var errDeadline = fmt.Errorf("read: %w", context.DeadlineExceeded)

// TestSettle_RandomEndingsAreSettledOnceWithinTheBoundAndBytesPassUnchanged
// cuts random streams anywhere, and ends them in every way that there is.
func TestSettle_RandomEndingsAreSettledOnceWithinTheBoundAndBytesPassUnchanged(t *testing.T) {
	book := testBook(t)
	match, _ := book.Find("openai-compatible", "m", time.Now())
	most, _ := match.WorstCase(price.Bound{Input: int64(worstInput), Output: outputCap})
	base := chatRequest(t, streamed)
	base.Book = book
	for seed := range uint64(4000) {
		r := rand.New(rand.NewPCG(seed, 1))
		text, usageAt, usageEnd := randomStream(r)
		cut := len(text)
		if r.IntN(3) > 0 {
			cut = r.IntN(len(text) + 1)
		}
		req := *base
		asked := r.IntN(2) == 0
		if asked {
			req.Body = []byte(chatAsked)
		}
		ending := r.IntN(5)
		rec := newRecorder()
		var w Answer = rec
		b := &body{text: ragged{strings.NewReader(text[:cut]), r}}
		ctx, cancel := context.WithCancel(t.Context())
		switch ending {
		case 1:
			b.end = func() error { return errReset }
		case 2:
			b.end = func() error { return errDeadline }
		case 3:
			b.end = func() error { cancel(); return context.Canceled }
		case 4:
			fail := func() error { return errors.New("broken pipe") }
			if r.IntN(2) == 0 {
				fail = func() error { panic("door") }
			}
			w = &door{rec, 1 + r.IntN(6), fail}
		}
		o := settled(ctx, t, script(func(r *http.Request) (*http.Response, error) {
			received(r)
			return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {streamType}}, Body: b}, nil
		}), w, &req)
		cancel()

		where := fmt.Sprintf("seed %d, ending %d, %q cut at %d", seed, ending, text, cut)
		if o.Cost.Total > most || o.Cost.Total < 0 || o.Unpriced {
			t.Fatalf("%s: cost %s, unpriced %v; the worst case is %s", where, o.Cost.Total, o.Unpriced, most)
		}
		if o.Basis == Unconfirmed && o.Cost.Total != most {
			t.Fatalf("%s: unconfirmed, charged %s of %s", where, o.Cost.Total, most)
		}
		if whole := ending == 0 && cut == len(text); whole && (o.Result != Succeeded || o.Basis != Reported) {
			t.Fatalf("%s: settled as %+v", where, o)
		}
		if ending == 0 && rec.aborted != nil || ending > 0 && ending < 4 && rec.aborted == nil {
			t.Fatalf("%s: aborted with %v", where, rec.aborted)
		}
		checkBytes(t, where, text[:cut], rec.Body.String(), usageAt, usageEnd, ending, asked)
	}
}

// checkBytes holds what the caller got against what the provider sent.
func checkBytes(t *testing.T, where, sent, got string, usageAt, usageEnd, ending int, asked bool) {
	t.Helper()
	got, _, _ = strings.Cut(got, "\n\nevent: error\ndata: ")
	want := sent
	if !asked && len(sent) >= usageEnd {
		want = sent[:usageAt] + sent[usageEnd:]
	}
	switch {
	case ending == 0 && got == want:
	case ending == 0 && !asked && len(sent) > usageAt && len(sent) < usageEnd && got == sent[:usageAt]:
		// All of the chunk but its last line ends had come.
	case ending > 0 && strings.HasPrefix(want, got) && (ending == 4 || len(got) >= lastEvent(want)):
		// What broke off within an event needn't be handed on.
	default:
		t.Fatalf("%s: the caller got %q, want %q", where, got, want)
	}
}

// lastEvent is the length of all whole events of a stream.
func lastEvent(stream string) int {
	end := 0
	for _, blank := range []string{"\n\n", "\r\n\r\n"} {
		if i := strings.LastIndex(stream, blank); i >= 0 {
			end = max(end, i+len(blank))
		}
	}
	return end
}

func TestSettle_RandomFailuresBeforeTheAnswerAreSettledOnce(t *testing.T) {
	base := chatRequest(t, chatText)
	for seed := range uint64(1000) {
		r := rand.New(rand.NewPCG(seed, 2))
		req := *base
		read, how := r.IntN(len(chatText)+1), r.IntN(3)
		o := settled(t.Context(), t, script(func(hr *http.Request) (*http.Response, error) {
			_, _ = io.ReadFull(hr.Body, make([]byte, read))
			switch how {
			case 0:
				panic("transport")
			case 1:
				return nil, errDeadline
			}
			return nil, errReset
		}), newRecorder(), &req)
		want := verdict{Result: Failed, Basis: Free, Code: []string{apierror.CodeInternal, apierror.CodeTimeout, apierror.CodeUnreachable}[how]}
		if read == len(chatText) {
			want.Basis, want.Usage, want.Cost = Unconfirmed, worst(), price.NanoUSD(worstCost)
		}
		want.check(t, o)
	}
}

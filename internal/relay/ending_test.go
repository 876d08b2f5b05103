// SPDX-License-Identifier: MPL-2.0

package relay

import (
	"bytes"
	"io"
	"net/http"
	"testing"

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

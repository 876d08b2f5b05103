// SPDX-License-Identifier: MPL-2.0

package relay

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
	"sync"
	"time"

	"vault-plugin-secrets-portkey/internal/apierror"
	"vault-plugin-secrets-portkey/internal/wire"
)

// dropAnswerHeaders are the provider's headers that the caller doesn't get:
// those of the connection (RFC 9110 §7.6.1), and those that set state in the
// caller's client on the provider's behalf.
var dropAnswerHeaders = map[string]bool{
	"Connection": true, "Keep-Alive": true, "Proxy-Authenticate": true, "Proxy-Connection": true, "Te": true,
	"Trailer": true, "Transfer-Encoding": true, "Upgrade": true, "Alt-Svc": true, "Set-Cookie": true, "Location": true,
	"Strict-Transport-Security": true, TraceHeader: true, CappedHeader: true, CostHeader: true, UsageHeader: true,
}

// Buffers hold answers on their way through. Streams come in small events, and
// thousands may be open at once; one that comes faster gets a larger buffer.
var (
	streamBuffers = sync.Pool{New: func() any { b := make([]byte, 2<<10); return &b }}
	copyBuffers   = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}
)

// copyAnswer copies status, headers and body to the caller as they come, with
// the provider key masked wherever the provider echoes it, and meters what
// passes.
//
// A metered answer that isn't a stream and fits into one buffer is read whole
// before its header goes out, which then says what it used. Longer ones, and
// streams, say so in a trailer.
func (x *exchange) copyAnswer(ctx context.Context, w Answer, resp *http.Response) *apierror.Error {
	mask := newMask(x.req.VirtualKey.Target.Masks())
	x.meterAnswer(resp)
	pool := &copyBuffers
	if x.stream && mask.longest < 1<<10 { // what is read must be longer than a secret
		pool = &streamBuffers
	}
	buf := pool.Get().(*[]byte)
	defer func() { pool.Put(buf) }()
	out := &answerWriter{w: w, from: resp, mask: &mask, exchange: x, flush: resp.ContentLength < 0 || x.stream}
	defer out.stopWaiting()
	if x.stream {
		out.begin() // its first event may be long in coming
	}
	body := mask.reader(resp.Body)
	held := 0 // bytes that wait for the header
	for {
		x.watch.wait()
		n, readErr := body.Read((*buf)[held:])
		x.watch.pause()
		n, held = n+held, 0
		if out.mayHold() && readErr == nil && n+mask.longest < len(*buf) {
			held = n
			continue
		}
		if errors.Is(readErr, io.EOF) {
			return out.last((*buf)[:n])
		}
		if readErr != nil && !x.begun {
			x.metered((*buf)[:n])
			return upstreamError(ctx, x.req.VirtualKey.Target.Base().Host, readErr)
		}
		if err := out.pass((*buf)[:n]); err != nil {
			return err
		}
		if n == len(*buf) && pool == &streamBuffers {
			pool.Put(buf)
			pool = &copyBuffers
			buf = pool.Get().(*[]byte)
		}
		if readErr != nil {
			return upstreamError(ctx, x.req.VirtualKey.Target.Base().Host, readErr)
		}
	}
}

// patience is how long bytes of a stream wait for others to go out with: its header
// for the first event, and its last event for the end of the body. Providers send
// both at about the same time.
const patience = 2 * time.Millisecond

// answerWriter hands an answer to the caller as it comes.
type answerWriter struct {
	*exchange
	w     Answer
	from  *http.Response
	mask  *mask
	flush bool // each piece at once
	over  bool // a stream has said that it is

	mu    sync.Mutex  // held to write to w, while something may wait
	timer *time.Timer // flushes what waits; nil if nothing has waited yet
	waits bool

	flushed bool // at least the header
}

// mayHold says whether the header may wait for more of the body.
func (a *answerWriter) mayHold() bool { return a.meter != nil && !a.stream && !a.begun }

// pass meters the next bytes of the body and hands them on.
func (a *answerWriter) pass(p []byte) *apierror.Error {
	p = a.metered(p)
	if a.stream && a.meter != nil && a.meter.Outcome() == wire.Complete {
		a.whole, a.over = true, true
		a.chargeNow()
	}
	return a.write(p)
}

// last is pass for the bytes at the end of a body that came whole. What it used
// goes into the header, if that hasn't gone out.
func (a *answerWriter) last(p []byte) *apierror.Error {
	a.whole = true
	if a.begun {
		a.stopWaiting()
		if a.flush && !a.flushed { // net/http would take it for an answer without a trailer
			a.flushNow()
		}
		a.flush = false // net/http does, with the end
		if err := a.pass(p); err != nil {
			return err
		}
		p = a.finish()
		a.tellUse(a.w.Header())
		return a.write(p)
	}
	p = a.metered(p)
	a.finish() // nothing waits, for it is no stream
	a.head()
	a.tellUse(a.w.Header())
	a.chargeNow()
	a.send()
	return a.write(p)
}

// head puts together the header.
func (a *answerWriter) head() {
	h := a.w.Header()
	copyHeader(h, a.from.Header, a.mask)
	if _, given := h["Content-Type"]; !given {
		h["Content-Type"] = nil // or net/http would guess
	}
	a.tellRates(h)
}

// begin sends the header of an answer of which more is to come.
func (a *answerWriter) begin() {
	a.head()
	if a.dropUsage || a.meter != nil {
		a.w.Header().Del("Content-Length") // or there could be no trailer
	}
	a.send()
	if a.stream {
		a.flushSoon()
	}
}

// flushSoon flushes what was written, unless more is written before patience ends.
func (a *answerWriter) flushSoon() {
	if _, can := a.w.(http.Flusher); !can {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waits = true
	if a.timer == nil {
		a.timer = time.AfterFunc(patience, a.flushWaiting)
	} else {
		a.timer.Reset(patience)
	}
}

// flushWaiting sends what waits.
func (a *answerWriter) flushWaiting() {
	defer func() {
		if recover() != nil { // the door's
			a.watch.cancel(internalError())
		}
	}()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.waits {
		a.waits = false
		a.flushNow()
	}
}

// stopWaiting has what waits go out with what is written next, or with the end.
func (a *answerWriter) stopWaiting() {
	if a.timer == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.waits {
		a.waits = false
		a.timer.Stop()
	}
}

func (a *answerWriter) send() {
	a.begun = true
	a.w.WriteHeader(a.from.StatusCode)
}

func (a *answerWriter) write(p []byte) *apierror.Error {
	if !a.begun {
		a.begin()
	}
	if len(p) == 0 {
		return nil
	}
	a.stopWaiting()
	if _, err := a.w.Write(p); err != nil {
		return writeError(err)
	}
	switch {
	case !a.flush:
	case a.over:
		a.flushSoon()
	default:
		a.flushNow()
	}
	return nil
}

func (a *answerWriter) flushNow() {
	a.flushed = true
	flush(a.w)
}

// flush sends what was written to the caller at once, where the door can.
func flush(w Answer) {
	if flusher, ok := w.(http.Flusher); ok {
		flusher.Flush()
	}
}

// writeError is what stops an answer at the door: the door's own verdict, such
// as that the answer is too large, or else that the caller has gone.
func writeError(err error) *apierror.Error {
	var verdict *apierror.Error
	if errors.As(err, &verdict) {
		return verdict
	}
	return callerGone()
}

// copyHeader adds what the caller may see of from, which is the transport's no more,
// to to.
func copyHeader(to, from http.Header, mask *mask) {
	for _, v := range from["Connection"] {
		for name := range strings.SplitSeq(v, ",") {
			delete(from, http.CanonicalHeaderKey(strings.TrimSpace(name)))
		}
	}
	for name, values := range from {
		if dropAnswerHeaders[name] || strings.HasPrefix(name, "Access-Control-") { // the door's to say
			continue
		}
		for i, v := range values {
			values[i] = strings.ToValidUTF8(mask.string(v), "\uFFFD") // gRPC takes no other text
		}
		if already := to[name]; already != nil {
			values = append(already, values...)
		}
		to[name] = values
	}
}

// IsEventStream says whether an answer with this header is a stream of server-sent
// events.
func IsEventStream(h http.Header) bool {
	switch h.Get("Content-Type") { // what most answers have
	case "text/event-stream", "text/event-stream; charset=utf-8":
		return true
	case "application/json", "application/json; charset=utf-8":
		return false
	}
	mediaType, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	return err == nil && mediaType == "text/event-stream"
}

// writeErrorEvent tells the reader of a stream that it broke off. The event
// carries both what OpenAI's SDKs read (an `error` member) and what Portkey's
// do (event name and message). The blank line ends whatever event was cut.
func writeErrorEvent(w io.Writer, cause *apierror.Error) {
	data, err := json.Marshal(map[string]any{
		"message": cause.Message,
		"error":   map[string]any{"message": cause.Message, "type": cause.Type, "code": cause.Code, "param": nil},
	})
	if err != nil {
		return // strings always marshal
	}
	_, _ = io.WriteString(w, "\n\nevent: error\ndata: "+string(data)+"\n\n")
}

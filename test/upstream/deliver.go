// SPDX-License-Identifier: MPL-2.0

package upstream

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// answer is what an endpoint says when all goes well.
type answer struct {
	// cost is what is billed for it; nil for what no provider bills, such as
	// a list of models.
	cost   *usage
	stream bool
	// parts are the events with their framing, or one JSON body.
	parts [][]byte
	// failed is the event of an error in mid-stream.
	failed []byte
}

// oddSplit is the length of the writes of a stream that is to be split oddly:
// shorter than any field name or key, so that everything is split somewhere.
const oddSplit = 7

// deliver sends an answer the way that b says.
func (x *exchange) deliver(b behaviour, a answer) {
	if b.kind == kindErrorEvent && !a.stream {
		x.fail(statusFailure(http.StatusInternalServerError, x.model, x.key))
		return
	}
	if b.kind == kindGarbage {
		x.garbage(b.variant, a)
		return
	}
	out := x.head(b, a)
	parts := a.parts
	switch b.kind {
	case kindHangMid, kindResetMid:
		parts = a.firstHalf()
	case kindErrorEvent:
		parts = slices.Concat(a.firstHalf(), [][]byte{a.failed})
	case kindComments:
		parts = commented(a)
	}
	for i, p := range parts {
		if i > 0 && b.interval > 0 && !x.sleep(b.interval) {
			return
		}
		if i == len(parts)-1 && b.kind != kindHangMid {
			x.leave()
		}
		if !out.send(p) {
			return
		}
	}
	switch b.kind {
	case kindHangMid:
		x.flush()
		x.hang()
	case kindResetMid:
		x.flush()
		x.reset()
	}
	out.close()
}

// head sends the status and the headers, which is when the answer is billed.
func (x *exchange) head(b behaviour, a answer) *outlet {
	h := x.w.Header()
	out := &outlet{x: x, to: x.w, stream: a.stream}
	if b.kind == kindGzip && strings.Contains(x.r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		out.gzip = gzip.NewWriter(x.w)
		out.to = out.gzip
	}
	h.Set("Content-Type", "application/json")
	switch {
	case a.stream:
		h.Set("Content-Type", "text/event-stream; charset=utf-8")
		h.Set("Cache-Control", "no-cache")
		if b.kind == kindComments || b.kind == kindEcho {
			out.split = oddSplit
		}
	case out.gzip == nil:
		h.Set("Content-Length", strconv.Itoa(len(a.parts[0])))
	}
	x.bill(a)
	x.w.WriteHeader(http.StatusOK)
	return out
}

// outlet is where an answer's bytes go.
type outlet struct {
	x      *exchange
	to     io.Writer
	gzip   *gzip.Writer // nil if not compressed
	stream bool         // flush after every part
	split  int          // write and flush this many bytes at a time; 0 is all
}

// send says false if the client is gone.
func (o *outlet) send(p []byte) bool {
	for len(p) > 0 {
		n := len(p)
		if o.split > 0 {
			n = min(n, o.split)
		}
		if _, err := o.to.Write(p[:n]); err != nil {
			o.x.writeFailed = true
			return false
		}
		p = p[n:]
		if o.stream && !o.flush() {
			return false
		}
	}
	return true
}

func (o *outlet) flush() bool {
	if o.gzip != nil && o.gzip.Flush() != nil {
		o.x.writeFailed = true
		return false
	}
	return o.x.flush()
}

func (o *outlet) close() {
	if o.gzip != nil && o.gzip.Close() != nil {
		o.x.writeFailed = true
	}
}

// commented puts a comment before each event of a stream and ends lines with
// CRLF, both of which the SSE standard allows
// (https://html.spec.whatwg.org/multipage/server-sent-events.html). Anything
// that isn't a stream stays as it is.
func commented(a answer) [][]byte {
	if !a.stream {
		return a.parts
	}
	out := make([][]byte, 0, 2*len(a.parts))
	for _, p := range a.parts {
		out = append(out, []byte(": ping\r\n\r\n"), bytes.ReplaceAll(p, []byte("\n"), []byte("\r\n")))
	}
	return out
}

// event frames a data-only event, as chat completions have.
func event(data []byte) []byte {
	return append(append([]byte("data: "), data...), "\n\n"...)
}

// namedEvent frames an event with a name, as responses have.
func namedEvent(name string, data []byte) []byte {
	return append([]byte("event: "+name+"\n"), event(data)...)
}

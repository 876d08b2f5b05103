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

	"vault-plugin-secrets-portkey/internal/apierror"
)

// dropAnswerHeaders are the provider's headers that the caller doesn't get:
// those of the connection (RFC 9110 §7.6.1), and those that set state in the
// caller's client on the provider's behalf.
var dropAnswerHeaders = map[string]bool{
	"Connection": true, "Keep-Alive": true, "Proxy-Authenticate": true, "Proxy-Connection": true, "Te": true,
	"Trailer": true, "Transfer-Encoding": true, "Upgrade": true, "Alt-Svc": true, "Set-Cookie": true, "Location": true,
	"Strict-Transport-Security": true, TraceHeader: true, CappedHeader: true,
}

// copyBuffers hold answers on their way through. 32 KiB is the size of the
// transport's own buffers.
var copyBuffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// copyAnswer copies status, headers and body to the caller as they come, with
// the provider key masked wherever the provider echoes it, and meters what
// passes.
func (x *exchange) copyAnswer(ctx context.Context, w Answer, resp *http.Response) *apierror.Error {
	mask := newMask(x.req.VirtualKey.Target.Redactions())
	copyHeader(w.Header(), resp.Header, mask)
	x.meterAnswer(resp)
	if x.dropUsage {
		w.Header().Del("Content-Length")
	}
	x.begun = true
	w.WriteHeader(resp.StatusCode)

	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	body := mask.reader(resp.Body)
	for {
		n, readErr := body.Read(*buf)
		if err := write(w, x.metered((*buf)[:n])); err != nil {
			return err
		}
		if errors.Is(readErr, io.EOF) {
			x.whole = true
			return write(w, x.finish())
		}
		if readErr != nil {
			return upstreamError(ctx, x.req.VirtualKey.Target.Base().Host, readErr)
		}
	}
}

// write hands bytes to the caller at once.
func write(w Answer, p []byte) *apierror.Error {
	if len(p) == 0 {
		return nil
	}
	if _, err := w.Write(p); err != nil {
		return writeError(err)
	}
	if flusher, ok := w.(http.Flusher); ok {
		flusher.Flush()
	}
	return nil
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

func copyHeader(to, from http.Header, mask *mask) {
	listed := map[string]bool{}
	for _, v := range from.Values("Connection") {
		for name := range strings.SplitSeq(v, ",") {
			listed[http.CanonicalHeaderKey(strings.TrimSpace(name))] = true
		}
	}
	for name, values := range from {
		if dropAnswerHeaders[name] || listed[name] {
			continue
		}
		for _, v := range values {
			to.Add(name, strings.ToValidUTF8(mask.string(v), "\uFFFD")) // gRPC takes no other text
		}
	}
}

// IsEventStream says whether an answer with this header is a stream of server-sent
// events.
func IsEventStream(h http.Header) bool {
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

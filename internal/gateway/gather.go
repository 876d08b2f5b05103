// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"strconv"
	"sync"
)

// mostGathered is the longest answer that is sent at once, header and body together,
// in bytes.
const mostGathered = 32 << 10

var gatherBuffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// gatherer sends an answer whose body is known from the beginning by one write.
// net/http has a buffer of 4 KiB, and would send header and body in pieces of that.
// Its use is sequential: net/http writes answers one after another.
type gatherer struct {
	body    int // bytes; 0 if nothing is gathered
	total   int // header and body; 0 if the header's end hasn't come
	pending *bytes.Buffer
}

// connKey is where a request's context has its *conn, which only plain ones have:
// TLS is between net/http and the others.
type connKey struct{}

func withConn(ctx context.Context, c net.Conn) context.Context {
	if plain, ok := c.(*conn); ok {
		return context.WithValue(ctx, connKey{}, plain)
	}
	return ctx
}

// gatherWhole has an answer sent at once, if p is all of its body.
func gatherWhole(r *http.Request, status int, h http.Header, p []byte) {
	length := h["Content-Length"]
	if len(length) != 1 || len(p) == 0 || length[0] != strconv.Itoa(len(p)) || bodiless(r.Method, status) {
		return
	}
	if c, ok := r.Context().Value(connKey{}).(*conn); ok {
		c.gatherer.expect(len(p))
	}
}

// bodiless says whether an answer has no body, whatever its header says (RFC 9112
// §6.3).
func bodiless(method string, status int) bool {
	return method == http.MethodHead || status < 200 || status == http.StatusNoContent || status == http.StatusNotModified
}

// expect says that what is written next, and hasn't been begun, is an answer whose
// body has n bytes.
func (g *gatherer) expect(n int) {
	if n < mostGathered {
		g.body, g.total = n, 0
	}
}

// write is to's Write, unless p is kept for the write that ends the answer.
func (g *gatherer) write(to net.Conn, p []byte) (int, error) {
	if g.body == 0 {
		return to.Write(p)
	}
	whole := p
	if g.pending != nil {
		g.pending.Write(p)
		whole = g.pending.Bytes()
	}
	if g.total == 0 {
		if end := bytes.Index(whole, []byte("\r\n\r\n")); end >= 0 {
			g.total = end + 4 + g.body
		}
	}
	switch {
	case len(whole) > mostGathered, g.total > 0 && len(whole) >= g.total:
		_, err := to.Write(whole)
		g.drop()
		if err != nil {
			return 0, err
		}
	case g.pending == nil:
		g.pending = gatherBuffers.Get().(*bytes.Buffer)
		g.pending.Write(p)
	}
	return len(p), nil
}

// drop ends the gathering, and forgets what wasn't written.
func (g *gatherer) drop() {
	if g.pending != nil {
		g.pending.Reset()
		gatherBuffers.Put(g.pending)
	}
	*g = gatherer{}
}

// SPDX-License-Identifier: MPL-2.0

package upstream

import (
	"bytes"
	"crypto/tls"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// exchange is one request and its answer. It belongs to one goroutine.
type exchange struct {
	server *Server
	w      *statusWriter
	r      *http.Request
	body   []byte
	key    string
	model  string
	place  int // in the journal

	writeFailed bool // the client was gone when something was written
	broke       bool // this side broke the connection
	left        bool // the meter no longer has it under way
}

// statusWriter notes the status on its way out.
type statusWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements http.ResponseWriter.
func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach Flush and Hijack.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// request is what the journal keeps.
func (x *exchange) request() Request {
	r := x.r
	return Request{
		Method: r.Method, Path: r.URL.EscapedPath(), RawQuery: r.URL.RawQuery, Query: r.URL.Query(),
		Header: r.Header.Clone(), Host: r.Host, Body: x.body, Proto: r.Proto, RemoteAddr: r.RemoteAddr,
		Key: x.key, Model: x.model,
	}
}

// leave has the request no longer under way. To be called before the client
// can see the end of the answer; more than once is harmless.
func (x *exchange) leave() {
	if !x.left {
		x.left = true
		x.server.meter.leave()
	}
}

// bill counts an answer as delivered.
func (x *exchange) bill(a answer) {
	if a.cost != nil {
		x.server.meter.bill(DeliveredKey{x.key, x.model}, *a.cost)
	}
}

// end notes how it ended.
func (x *exchange) end() {
	x.leave()
	gone := x.writeFailed || x.r.Context().Err() != nil
	x.server.journal.finish(x.place, x.w.status, gone && !x.broke && !x.server.isClosed())
}

// sleep waits that long, and says false if the client went away meanwhile. If
// the server closes, it breaks the answer off. A negative duration never ends
// by itself.
func (x *exchange) sleep(d time.Duration) bool {
	if d == 0 {
		return true
	}
	var due <-chan time.Time
	if d >= 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-due:
		return true
	case <-x.r.Context().Done():
	case <-x.server.closed:
	}
	// Asked again, for Close ends the context too.
	if x.server.isClosed() {
		// Whoever still waits must see a broken answer, not a short one.
		panic(http.ErrAbortHandler)
	}
	return false
}

// hang ends when the client goes away or the server closes.
func (x *exchange) hang() { x.sleep(-1) }

// ordinaryHeaders are some of those that stand on OpenAI's answers.
func (x *exchange) ordinaryHeaders() {
	h := x.w.Header()
	h.Set("Openai-Organization", "org-upstream")
	h.Set("Openai-Version", "2020-10-01")
	h.Set("Openai-Processing-Ms", "1")
	h.Set("X-Request-Id", "req_upstream")
	h.Set("X-Ratelimit-Limit-Requests", "10000")
	h.Set("X-Ratelimit-Remaining-Requests", "9999")
	h.Set("X-Ratelimit-Reset-Requests", "6ms")
	// A relay must not hand it on: its callers would share it.
	h.Set("Set-Cookie", "__cf_bm=upstream; path=/; HttpOnly; Secure")
}

// json answers with a whole body.
func (x *exchange) json(status int, body []byte) {
	h := x.w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	x.leave()
	x.w.WriteHeader(status)
	x.write(body)
}

// write says false if the client is gone.
func (x *exchange) write(p []byte) bool {
	if _, err := x.w.Write(p); err != nil {
		x.writeFailed = true
		return false
	}
	return true
}

// flush says false if the client is gone.
func (x *exchange) flush() bool {
	if err := http.NewResponseController(x.w).Flush(); err != nil {
		x.writeFailed = true
		return false
	}
	return true
}

// misbehave carries out a behaviour that needs no answer of the endpoint, and
// says true if that was all. A delay ends when the client goes away, but the
// answer is made all the same: a provider wouldn't take back what it generated.
func (x *exchange) misbehave(b behaviour) bool {
	switch b.kind {
	case kindSlow:
		x.sleep(b.delay)
		return false
	case kindRandom:
		x.sleep(x.server.dice.upTo(b.delay))
		return false
	case kindHang:
		x.hang()
	case kindReset:
		x.reset()
	case kindStatus:
		x.fail(statusFailure(b.status, x.model, x.key))
	case kindRedirect:
		x.w.Header().Set("Location", b.target)
		x.leave()
		x.w.WriteHeader(b.status)
	case kindEcho:
		x.w.Header().Set("X-Upstream-Echo", x.echoHeader())
		return false
	default:
		return false
	}
	return true
}

// reset breaks the connection: with a TCP RST on HTTP/1.1, with the stream's
// own RST_STREAM on HTTP/2, whose connection others may share.
func (x *exchange) reset() {
	x.broke = true
	x.leave()
	if conn, ok := x.conn(); ok {
		_ = conn.SetLinger(0) // it only fails when the connection is gone
		_ = conn.Close()
	}
	panic(http.ErrAbortHandler)
}

// conn is the TCP connection of an HTTP/1.1 request.
func (x *exchange) conn() (*net.TCPConn, bool) {
	if x.r.ProtoMajor != 1 {
		return nil, false
	}
	c := x.r.Context().Value(connKey{})
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	conn, ok := c.(*net.TCPConn)
	return conn, ok
}

// garbage answers with what no client can read, in place of an answer that is
// billed if there is a status.
func (x *exchange) garbage(variant string, spoilt answer) {
	const page = "<html><body>502 Bad Gateway {\"choices\":</body></html>"
	switch variant {
	case "http":
		x.notHTTP()
	case "short":
		x.bill(spoilt)
		x.w.Header().Set("Content-Type", "application/json")
		x.w.Header().Set("Content-Length", "1000")
		x.w.WriteHeader(http.StatusOK)
		x.write([]byte(`{"id":"chatcmpl-short","choices":[`))
		x.flush()
		x.broke = true
		x.leave()
		panic(http.ErrAbortHandler)
	default:
		x.bill(spoilt)
		x.json(http.StatusOK, []byte(page))
	}
}

// notHTTP writes a line that is no HTTP status line, and closes.
func (x *exchange) notHTTP() {
	x.broke = true
	x.leave()
	conn, _, err := http.NewResponseController(x.w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // HTTP/2 has no line to spoil
	}
	_, _ = conn.Write([]byte("BANANA/9.9 two hundred\r\n\r\n"))
	_ = conn.Close()
}

// echo is the request as text.
func (x *exchange) echo(body []byte) string {
	return string(marshal(object{
		"method": x.r.Method, "path": x.r.URL.RequestURI(), "headers": x.r.Header, "body": string(body),
	}))
}

// echoHeader is the same, with at most 1 KiB of the body and in a form that
// fits a header.
func (x *exchange) echoHeader() string {
	s := x.echo(x.body[:min(len(x.body), 1024)])
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}

// firstHalf is what of an answer is sent before it breaks off: half the events,
// or half the body.
func (a answer) firstHalf() [][]byte {
	if a.stream {
		return a.parts[:(len(a.parts)+1)/2]
	}
	whole := bytes.Join(a.parts, nil)
	return [][]byte{whole[:len(whole)/2]}
}

// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"crypto/rand"
	"net/http"
	"sync"
	"time"

	"vault-plugin-secrets-portkey/internal/apierror"
	"vault-plugin-secrets-portkey/internal/relay"
)

// answer writes to a caller over HTTP. It belongs to one request.
type answer struct {
	w       http.ResponseWriter
	request *http.Request
	control http.ResponseController
	patient time.Duration // how long a write waits for the caller, at least
	set     time.Time     // when the deadline was last set
	status  int           // 0 until it is written
	begun   bool          // a part of the body was written
	broken  bool          // what was written isn't the whole answer
	hurried bool          // no time is spent on what is left of the request's body
	body    *bodyReader   // the request's body, if it is being read, or was
	upload  bool          // the provider reads it, and may answer before it has all of it
}

// How long an answer of the gateway's own waits for the caller: for what net/http reads
// of a body that nobody has read, before it answers, and to take it while the gateway is
// off.
const (
	unreadPatience = 5 * time.Second
	offPatience    = 10 * time.Second
)

// For how long the rest of a body is read when the answer has been written: of an upload
// that Vault has let in, of others for unreadPatience, and of any until none of it comes
// for a while.
const (
	uploadPatience = 30 * time.Second
	lingerPause    = 2 * time.Second
)

var (
	_ relay.Answer = (*answer)(nil)
	_ http.Flusher = (*answer)(nil)
)

// newAnswer returns an answer under these settings, nil while the gateway is off.
func newAnswer(w http.ResponseWriter, r *http.Request, live *live) *answer {
	a := &answer{w: w, request: r, control: *http.NewResponseController(w), patient: offPatience}
	if live != nil {
		a.patient = live.IdleTimeout
	}
	return a
}

// Header implements http.ResponseWriter.
func (a *answer) Header() http.Header { return a.w.Header() }

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) {
	if a.upload && a.request.ProtoMajor == 1 && !a.body.whole() {
		// Else net/http would read the rest itself before the answer, wait for it, and
		// close the body; nor may it be read as the next request.
		a.Header().Set("Connection", "close")
	}
	a.status = status
	a.w.WriteHeader(status)
}

// Write implements http.ResponseWriter. It waits for a slow caller, but not for
// ever.
func (a *answer) Write(p []byte) (int, error) {
	a.extend()
	if !a.begun {
		a.begun = true
		gatherWhole(a.request, a.status, a.Header(), p)
	}
	return a.w.Write(p)
}

// Flush implements http.Flusher.
func (a *answer) Flush() {
	if a.set.IsZero() { // else Write has just done it
		a.extend()
	}
	_ = a.control.Flush() // the next write says what is wrong
}

// extend moves the deadline of writes on, now and then. It is twice as far off as a
// caller's time for a write, because over HTTP/2 it must not pass while the provider
// is silent. It stays when the answer has ended: the last bytes are written after
// that, and then net/http takes it away.
func (a *answer) extend() {
	if now := time.Now(); now.Sub(a.set) > a.patient/8 {
		a.set = now
		_ = a.control.SetWriteDeadline(now.Add(2 * a.patient)) // a connection that can't is a test's
	}
}

// Abort implements relay.Answer. A stream has told its reader by an event.
func (a *answer) Abort(*apierror.Error) {
	a.broken = !relay.IsEventStream(a.Header())
}

// own begins an answer of the gateway's own. It must come before anything is written.
func (a *answer) own() {
	if a.Header().Get(relay.TraceHeader) == "" {
		a.Header().Set(relay.TraceHeader, rand.Text())
	}
	if a.body == nil && a.request.ContentLength != 0 {
		_ = a.control.SetReadDeadline(time.Now().Add(unreadPatience)) // until net/http sets that of the next request
	}
	a.extend()
}

// refuse answers with err, before anything else was written.
func (a *answer) refuse(err *apierror.Error) {
	a.own()
	err.Write(a.w)
}

// linger reads what is left of the request's body when the answer has been written, and
// drops it. Apps that send all of a file before they look at the answer, or that give up
// at the first error of sending (Node's fetch), would otherwise find a broken connection
// in place of a refusal. Only HTTP/1 has no other way to end a body.
//
// An answer whose length wasn't known before ends only after that, for its end is
// net/http's to write.
func (a *answer) linger() {
	r := a.request
	if a.hurried || a.broken || r.ProtoMajor != 1 || r.ContentLength == 0 || a.body == nil && r.Header.Get("Expect") != "" || a.body.done() {
		return
	}
	began := time.Now()
	a.Flush() // may wait for a small body
	if len(r.TransferEncoding) == 0 {
		if _, err := r.Body.Read(nil); err != nil { // net/http has read it to its end
			return
		}
	}
	most := unreadPatience
	if a.upload {
		most = uploadPatience
	}
	buf := lingerBuffers.Get().(*[]byte)
	defer lingerBuffers.Put(buf)
	now := time.Now()
	for end := began.Add(most); now.Before(end); now = time.Now() {
		if a.control.SetReadDeadline(now.Add(lingerPause)) != nil {
			break // a test's connection that can't
		}
		if _, err := r.Body.Read(*buf); err != nil {
			break
		}
	}
	a.extend()
	_ = a.control.SetReadDeadline(now) // the connection is closed, and net/http needn't read either
}

var lingerBuffers = sync.Pool{New: func() any { b := make([]byte, 4<<10); return &b }}

// end must be the last call. It breaks the connection if the caller could take what
// was written for the whole answer.
func (a *answer) end() {
	if a.broken {
		panic(http.ErrAbortHandler)
	}
}

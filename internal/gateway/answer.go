// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"crypto/rand"
	"net/http"
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
	reading bool          // the request's body is being read, or was
}

// How long an answer of the gateway's own waits for the caller: for what net/http reads
// of a body that nobody has read, before it answers, and to take it while the gateway is
// off.
const (
	unreadPatience = 5 * time.Second
	offPatience    = 10 * time.Second
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
	if !a.reading && a.request.ContentLength != 0 {
		_ = a.control.SetReadDeadline(time.Now().Add(unreadPatience)) // until net/http sets that of the next request
	}
	a.extend()
}

// refuse answers with err, before anything else was written.
func (a *answer) refuse(err *apierror.Error) {
	a.own()
	err.Write(a.w)
}

// end must be the last call. It breaks the connection if the caller could take what
// was written for the whole answer.
func (a *answer) end() {
	if a.broken {
		panic(http.ErrAbortHandler)
	}
}

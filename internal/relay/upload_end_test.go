// SPDX-License-Identifier: MPL-2.0

package relay

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/internal/apierror"
)

// onceRead fails the test if it is read behind its end: net/http may have closed the
// caller's body by then.
type onceRead struct {
	io.Reader
	t     *testing.T
	ended bool
	left  int // 0 is an end too, if it was more once
}

func (r *onceRead) Read(p []byte) (int, error) {
	if r.ended {
		r.t.Error("the body is read behind its end")
	}
	n, err := r.Reader.Read(p)
	r.left -= n
	r.ended = errors.Is(err, io.EOF) || r.left == 0
	return n, err
}

func TestUpload_IsNotReadBehindItsEnd(t *testing.T) {
	relay, req := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if n != 20_000 || err != nil {
			t.Errorf("%d bytes, %v", n, err)
		}
		_, _ = io.WriteString(w, "{}")
	})
	text := strings.Repeat("x", 20_000)
	for _, length := range []int64{20_000, -1} {
		req.Path, req.Body = "v1/files", nil
		in := &onceRead{Reader: strings.NewReader(text), t: t, left: int(length)}
		req.Upload = &Upload{Body: in, Length: length, Interrupt: func() { t.Error("it is interrupted") }}
		w := newRecorder()
		relay.Serve(t.Context(), w, req)
		if w.Code != 200 || !in.ended {
			t.Errorf("status %d, read to its end: %t", w.Code, in.ended)
		}
	}
}

// stuck is an upload of which more never comes, until it is interrupted.
type stuck struct {
	first       io.Reader
	interrupted chan struct{}
	err         error
	over        atomic.Bool // nothing may be read any more
	t           *testing.T
}

func newStuck(t *testing.T, err error) *stuck {
	return &stuck{first: strings.NewReader(strings.Repeat("x", 10_000)), interrupted: make(chan struct{}, 10), err: err, t: t}
}

func (s *stuck) Read(p []byte) (int, error) {
	if s.over.Load() {
		s.t.Error("the body is read after Serve")
	}
	if n, err := s.first.Read(p); err == nil {
		return n, nil
	}
	<-s.interrupted
	return 0, s.err
}

func (s *stuck) interrupt() { s.interrupted <- struct{}{} }

func TestUpload_EndsWithTheAnswer(t *testing.T) {
	text := strings.Repeat("no ", 10_000)
	relay, req := upstream(t, func(w http.ResponseWriter, _ *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.Header().Set("Connection", "close")
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, text[:10])
		_ = http.NewResponseController(w).Flush()
		time.Sleep(20 * time.Millisecond)
		_, _ = io.WriteString(w, text[10:])
	})
	for _, length := range []int64{1 << 20, -1} {
		in := newStuck(t, errors.New("interrupted"))
		req.Path, req.Body = "v1/files", nil
		req.Upload = &Upload{Body: in, Length: length, Interrupt: in.interrupt}
		w := newRecorder()
		relay.Serve(t.Context(), w, req)
		in.over.Store(true)
		if w.Code != 401 || w.Body.String() != text || w.aborted != nil {
			t.Errorf("status %d, %d bytes of %d, aborted by %v", w.Code, w.Body.Len(), len(text), w.aborted)
		}
		select {
		case in.interrupted <- struct{}{}: // for a reader that is left
		default:
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// steady is an upload of which a little more comes all the time.
type steady struct {
	over atomic.Bool // nothing may be read any more
	t    *testing.T
}

func (s *steady) Read(p []byte) (int, error) {
	if s.over.Load() {
		s.t.Error("the body is read after Serve")
	}
	time.Sleep(time.Millisecond)
	return len(p), nil
}

// A transport may go on reading when it has returned (http.RoundTripper).
func TestUpload_IsNotReadAfterTheExchange(t *testing.T) {
	over := make(chan error, 1)
	transport := script(func(r *http.Request) (*http.Response, error) {
		go func() {
			_, err := io.Copy(io.Discard, r.Body)
			over <- err
		}()
		return answers(200, jsonType, "{}")(&http.Request{})
	})
	in := &steady{t: t}
	req := uploadRequest(t, "v1/audio/transcriptions", "whisper-1", "")
	req.Upload.Body, req.Upload.Length = in, -1
	w := newRecorder()
	settled(t.Context(), t, transport, w, req)
	in.over.Store(true)
	if err := <-over; err == nil || w.Code != 200 || w.Body.String() != "{}" {
		t.Errorf("status %d %s; the upload ended with %v", w.Code, w.Body, err)
	}
}

func TestUpload_EndsWithTheTimeout(t *testing.T) {
	relay, req := upstream(t, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	in := newStuck(t, &apierror.Error{Status: 400, Message: "the body broke off"}) // as it does when it is interrupted
	req.Path, req.Body, req.Timeout = "v1/files", nil, 200*time.Millisecond
	req.Upload = &Upload{Body: in, Length: 1 << 20, Interrupt: in.interrupt}
	w := newRecorder()
	relay.Serve(t.Context(), w, req)
	in.over.Store(true)
	if w.Code != http.StatusGatewayTimeout {
		t.Errorf("status %d %s", w.Code, w.Body)
	}
}

func TestUpload_RefusedWhileTheAnswerPassesIsToldSo(t *testing.T) {
	relay, req := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		_, _ = io.WriteString(w, strings.Repeat("x", 100_000))
		_ = http.NewResponseController(w).Flush()
		_, _ = io.Copy(io.Discard, r.Body)
	})
	in := newStuck(t, &apierror.Error{Status: 403, Code: apierror.CodePermissionDenied, Message: "no"})
	time.AfterFunc(200*time.Millisecond, in.interrupt)
	req.Path, req.Body = "v1/files", nil
	req.Upload = &Upload{Body: in, Length: -1}
	var o Outcome
	req.Settled = func(got Outcome) { o = got }
	w := newRecorder()
	relay.Serve(t.Context(), w, req)
	if w.Code != 200 || w.aborted == nil || w.aborted.Code != apierror.CodePermissionDenied || o.Code != apierror.CodePermissionDenied {
		t.Errorf("status %d, aborted by %v, settled as %q", w.Code, w.aborted, o.Code)
	}
}

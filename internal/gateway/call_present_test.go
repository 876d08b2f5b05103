// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/internal/apierror"
)

// unread is a body that must not be read before there is an answer.
type unread struct {
	t      *testing.T
	answer *httptest.ResponseRecorder
}

func (u unread) Read([]byte) (int, error) {
	if u.answer.Body.Len() == 0 {
		u.t.Error("the body is read")
	}
	return 0, os.ErrDeadlineExceeded
}

func (u unread) Close() error { return nil }

func TestPresent_ReadsNothingOfABodyThatCanHelpNobody(t *testing.T) {
	r := newPromptRig(t)
	used := ticketPath(t, r, inline(t, streamed))
	wantOK(t, r.send(request("POST", used, "", streamed)))
	another := strings.Replace(ticketPath(t, r, inline(t, streamed)), "team-a", "team-b", 1)
	const unknown = "/t/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA/proxy/team-a/v1/chat/completions"
	for _, c := range []struct {
		path, credential string
		status           int
		code             string
	}{
		{chatPath, "", 401, apierror.CodeCredentialMissing},
		{"/v1/chat/completions", "", 401, apierror.CodeCredentialMissing},
		{"/v1/audio/transcriptions", "", 401, apierror.CodeCredentialMissing},
		{promptPath, "", 401, apierror.CodeCredentialMissing},
		{portkeysPath, "", 401, apierror.CodeCredentialMissing},
		{chatPath, "two words", 401, apierror.CodeCredentialInvalid},
		{chatPath, strings.Repeat("x", maxCredential+1), 401, apierror.CodeCredentialInvalid},
		{chatPath, "vk-dead", 401, apierror.CodeCredentialInvalid},
		{promptPath, "vk-dead", 401, apierror.CodeCredentialInvalid},
		{used, "", 403, apierror.CodeTicketInvalid},
		{used, "tok", 403, apierror.CodeTicketInvalid},
		{another, "", 403, apierror.CodeTicketInvalid},
		{unknown, "", 403, apierror.CodeTicketInvalid},
	} {
		for _, contentType := range []string{"application/json", formType, "application/octet-stream", "text/csv"} {
			for _, length := range []int64{1000, 64 << 20, -1} {
				req := request("POST", c.path, "", "", "Content-Type", contentType, "X-Vault-Token", c.credential)
				w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
				req.Body, req.ContentLength = unread{t, w.ResponseRecorder}, length
				r.ServeHTTP(w, from(testSource+":1", req))
				if text := w.Body.String(); w.Code != c.status || !strings.Contains(text, `"`+c.code+`"`) {
					t.Errorf("%s, %.20q, %s: %d %s, want %d %s", c.path, c.credential, contentType, w.Code, text, c.status, c.code)
				}
				// What is left is read for a while, by net/http before a small answer.
				if left := time.Until(w.read); left <= 0 || left > unreadPatience {
					t.Errorf("%s, %.20q: the body is waited for until %s from now", c.path, c.credential, left)
				}
			}
		}
	}
	if n := r.vault.count(); n != 0 {
		t.Errorf("Vault was asked %d times", n)
	}
}

// What has begun to be read isn't waited for longer than its reader would.
func TestPresent_RefusalInTheMidstOfABodyLeavesItsDeadline(t *testing.T) {
	r := newRig(t)
	req := chatRequest("made-up", hello)
	req.Body = io.NopCloser(brokenOff{})
	w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
	r.ServeHTTP(w, from(testSource+":1", req))
	if left := time.Until(w.read); w.Code != http.StatusBadRequest || left <= unreadPatience {
		t.Errorf("%d, and the deadline is %s from now", w.Code, left)
	}
}

// A ticket is worth one body, however slowly that comes.
func TestPresent_TicketIsUsedUpWhenItsRequestBegins(t *testing.T) {
	r := newRig(t)
	path := ticketPath(t, r, inline(t, streamed))
	req := request("POST", path, "", streamed)
	rest, end := io.Pipe()
	req.Body = io.NopCloser(io.MultiReader(strings.NewReader(streamed[:10]), rest))
	done := r.inBackground(req)
	until(t, "the body is read", func() bool { return r.bodies.used.Load() == 10 })
	wantRefusal(t, r.send(request("POST", path, "", streamed)), 403, apierror.CodeTicketInvalid)
	r.clock.advance(2 * ticketTTL)
	_, _ = io.WriteString(end, streamed[10:])
	wantOK(t, received(t, "its answer", done))
}

// raw writes text to the gateway's listener, and returns the status of the first answer
// and whether the connection has ended some time after that.
func (r *rig) raw(t *testing.T, text string, after time.Duration) (status int, ended bool) {
	conn, err := net.Dial("tcp", r.address())
	if err != nil {
		t.Error(err)
		return 0, false
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(soon))
	_, _ = io.WriteString(conn, text)
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Errorf("%.100q: %v", text, err)
		return 0, false
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = conn.SetReadDeadline(time.Now().Add(after))
	_, err = in.ReadByte()
	var timeout net.Error
	return resp.StatusCode, !errors.As(err, &timeout) || !timeout.Timeout()
}

func TestPresent_SendsNo100ContinueToWhomNothingIsReadOf(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", nil)
	const head = "Host: x\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n"
	for name, c := range map[string]struct {
		path, credential string
		status           int
	}{
		"no credential": {chatPath, "", 401},
		"malformed":     {chatPath, "X-Vault-Token: a b\r\n", 401},
		"dead key":      {chatPath, "X-Vault-Token: vk-dead\r\n", 401},
		"no ticket":     {"/t/x/proxy/team-a/v1/chat/completions", "", 403},
		"no route":      {"/v1/sys/health", "X-Vault-Token: tok\r\n", 404},
		"a token":       {chatPath, "X-Vault-Token: tok\r\n", 100},
	} {
		if status, _ := r.raw(t, "POST "+c.path+" HTTP/1.1\r\n"+head+c.credential+"\r\n", 0); status != c.status {
			t.Errorf("%s: the first answer is %d, want %d", name, status, c.status)
		}
	}
}

// A connection must not be held by a body that is announced, doesn't come, and is
// asked for by nobody but net/http.
func TestPresent_RefusedCallerHoldsNoConnection(t *testing.T) {
	r := newRig(t)
	var all sync.WaitGroup
	for _, line := range []string{"POST " + chatPath, "POST /v1/chat/completions", "POST /nowhere", "PUT /v1/x", "GET /healthz", "GET " + chatPath} {
		for _, body := range []string{
			"Content-Length: 1000\r\n\r\n{", "Content-Length: 1000000\r\n\r\n{", "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
			"Content-Length: 1000\r\nExpect: 100-continue\r\n\r\n",
		} {
			all.Go(func() {
				status, ended := r.raw(t, line+" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"+body, soon)
				if !ended {
					t.Errorf("%s, %.18s: %d, and the connection is kept", line, body, status)
				}
			})
		}
	}
	all.Wait()
	// Who sends it is answered at once, and may go on.
	status, ended := r.raw(t, "POST "+chatPath+" HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", time.Second)
	if status != http.StatusUnauthorized || ended {
		t.Errorf("%d, and the connection ends: %t", status, ended)
	}
}

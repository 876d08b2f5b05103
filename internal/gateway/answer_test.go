// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// address is where the gateway listens.
func (r *rig) address() string { return r.Status().Address }

// callers of the gateway over a connection.
func (r *rig) client(t testing.TB) *http.Client {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: soon}
}

// overTheWire sends a chat over a connection, and reads what comes of it.
func (r *rig) overTheWire(t *testing.T, c *http.Client, base, text string) (*http.Response, string, error) {
	t.Helper()
	req, err := http.NewRequest("POST", base+chatPath, strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer tok")
	resp, err := c.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	got, err := io.ReadAll(resp.Body)
	return resp, string(got), err
}

// local makes a rig whose callers come from loopback over connections.
func local(t *testing.T, change ...func(*Settings)) *rig {
	t.Helper()
	r := newRig(t, change...)
	r.vault.token("tok", nil)
	return r
}

func TestAnswer_ThatIsNotWholeBreaksTheConnectionUnlessItIsAStreamThatSaysSo(t *testing.T) {
	r := local(t)
	for contentType, broken := range map[string]bool{"application/json": true, "text/event-stream": false, "audio/mpeg": true} {
		r.provider.answers(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", contentType)
			_, _ = io.WriteString(w, strings.Repeat("data: {}\n\n", 10_000)) // more than is held back
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		})
		resp, text, err := r.overTheWire(t, r.client(t), r.URL(), `{"model":"m","stream":true}`)
		if resp == nil || resp.StatusCode != 200 || (err != nil) != broken {
			t.Errorf("%s: %v %d bytes, %v", contentType, resp, len(text), err)
		}
		if event := strings.Contains(text, "event: error\n"); event == broken {
			t.Errorf("%s: there is an event that says so: %t", contentType, event)
		}
		if got := r.chat("tok", `{"model":"m","stream":true}`); got.aborted != broken {
			t.Errorf("%s: aborted: %t", contentType, got.aborted)
		}
	}
}

// endless is a provider that sends as fast as it can, until its caller goes.
func endless(contentType string, gone chan<- struct{}) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", contentType)
		piece := []byte("data: " + strings.Repeat("x", 8<<10) + "\n\n")
		for req.Context().Err() == nil {
			if _, err := w.Write(piece); err != nil {
				break
			}
		}
		gone <- struct{}{}
	}
}

func TestAnswer_CallerWhoNeverReadsIsGivenUpAndTheProviderWithIt(t *testing.T) {
	r := local(t, func(s *Settings) { s.IdleTimeout = 500 * time.Millisecond })
	for _, contentType := range []string{"application/json", "text/event-stream"} {
		gone := make(chan struct{}, 1)
		r.provider.answers(endless(contentType, gone))
		c := dialTCP(t, r.address())
		text := `{"model":"m","stream":true}`
		fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nX-Vault-Token: tok\r\nContent-Length: %d\r\n\r\n%s", chatPath, len(text), text)
		received(t, "the end at the provider", gone)
		until(t, "no request is under way", func() bool { return r.calls.count() == 0 })
		until(t, "the connection is closed", func() bool { return r.Status().Connections == 0 })
	}
}

func TestAnswer_CallerWhoReadsSlowlyButReadsIsServed(t *testing.T) {
	r := local(t, func(s *Settings) { s.IdleTimeout = 2 * time.Second })
	const size = 16 << 20
	r.provider.answers(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "audio/mpeg")
		_, _ = w.Write(make([]byte, size))
	})
	resp, err := r.client(t).Do(wireRequest(t, r.URL(), hello))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	total := 0
	for buf := make([]byte, size/8); ; time.Sleep(400 * time.Millisecond) { // longer in all than the timeout
		n, err := io.ReadFull(resp.Body, buf)
		if total += n; errors.Is(err, io.EOF) {
			break
		}
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("after %d bytes: %v", total, err)
		}
	}
	if total != size {
		t.Errorf("%d bytes came of %d", total, size)
	}
}

func wireRequest(t testing.TB, base, text string) *http.Request {
	t.Helper()
	req, err := http.NewRequest("POST", base+chatPath, strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer tok")
	return req
}

// A caller who sends one request after another and reads no answer holds up the
// last bytes of one of them, which net/http writes when the handler has returned.
func TestAnswer_CallerWhoNeverReadsSmallAnswersIsGivenUpToo(t *testing.T) {
	r := local(t, func(s *Settings) { s.IdleTimeout = 500 * time.Millisecond })
	small := `{"x":"` + strings.Repeat("a", 1500) + `"}`
	r.provider.answers(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, small)
	})
	c := dialTCP(t, r.address())
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetReadBuffer(4 << 10)
	}
	text := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nX-Vault-Token: tok\r\nContent-Length: %d\r\n\r\n%s", chatPath, len(hello), hello)
	ended := make(chan error, 1)
	go func() {
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		for {
			if _, err := io.WriteString(c, text); err != nil {
				ended <- err
				return
			}
		}
	}()
	var timeout net.Error
	if err := received(t, "the end", ended); errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("10 s after the caller stopped reading, %d connections are open and %d requests under way", r.Status().Connections, r.calls.count())
	}
}

// The deadline of one answer isn't that of the next one on the same connection.
func TestAnswer_DeadlineEndsWithTheAnswer(t *testing.T) {
	r := local(t, func(s *Settings) { s.IdleTimeout = 300 * time.Millisecond })
	c := dialTCP(t, r.address())
	in := bufio.NewReader(c)
	for i := range 3 {
		if i > 0 {
			time.Sleep(500 * time.Millisecond)
		}
		// The second half of the body is asked for by a line of the server's own.
		fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nX-Vault-Token: tok\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", chatPath, len(hello))
		if line, err := in.ReadString('\n'); err != nil || !strings.Contains(line, "100") {
			t.Fatalf("request %d: %q %v", i, line, err)
		}
		if _, err := in.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, hello)
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
		if text, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != 200 || string(text) != completion {
			t.Errorf("request %d: %d %q %v", i, resp.StatusCode, text, err)
		}
	}
}

// writeDeadlines is a ResponseWriter that notes the deadline of writes.
type writeDeadlines struct {
	*httptest.ResponseRecorder
	write time.Time
}

func (d *writeDeadlines) SetWriteDeadline(t time.Time) error {
	d.write = t
	return nil
}

// Over HTTP/2, net/http resets a stream when the deadline of its writes passes, even
// though nothing is being written then (documentation of
// http.ResponseController.SetWriteDeadline). A provider may be silent for all of
// idle_timeout.
func TestAnswer_DeadlineOfWritesLeavesTimeForASilenceOfTheIdleTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const idle = 8 * time.Second
		w := &writeDeadlines{ResponseRecorder: httptest.NewRecorder()}
		a := newAnswer(w, httptest.NewRequest("POST", "/v1/chat/completions", nil), &live{Settings: Settings{IdleTimeout: idle}})
		for _, pause := range []time.Duration{0, 999, 1, 500, 499, 2, 7999, 1000, 30} {
			time.Sleep(pause * time.Millisecond)
			if w.write.Before(time.Now()) && !w.write.IsZero() {
				t.Fatalf("after a silence of %d ms, the deadline has passed", pause)
			}
			if _, err := a.Write([]byte("data: {}\n\n")); err != nil {
				t.Fatal(err)
			}
			a.Flush()
			if left := time.Until(w.write); left < idle && !w.write.IsZero() {
				t.Errorf("a silence of more than %s ends the stream", left)
			}
		}
	})
}

// Over HTTP/2 too, the provider may take longer to begin than idle_timeout, which is
// about what has begun.
func TestAnswer_MayBeginLateOverHTTP2(t *testing.T) {
	certificate := issue(t, 1, nil)
	r := local(t, func(s *Settings) {
		s.Listen.Certificate, s.Listen.Key = certificate.certificate, certificate.key
		s.IdleTimeout = time.Second
	})
	r.provider.answers(func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(3500 * time.Millisecond)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, completion)
	})
	base := strings.Replace(r.URL(), "https://127.0.0.1", "https://localhost", 1)
	resp, text, err := r.overTheWire(t, newClient(t, true, certificate), base, hello)
	if err != nil || text != completion || resp.ProtoMajor != 2 {
		t.Errorf("%q %v", text, err)
	}
}

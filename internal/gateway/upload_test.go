// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"strings"
	"sync"
	"testing"
	"time"
)

const transcriptions = "/v1/" + testMount + "proxy/team-a/v1/audio/transcriptions"

// early is a provider that begins its answer before it has the request's body, and
// never reads on unless told: it sends pieces, with a pause before each.
func early(status, pieces int, piece string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		control := http.NewResponseController(w)
		_ = control.EnableFullDuplex()
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Connection", "close") // net/http panics if it reads the rest after the handler
		w.WriteHeader(status)
		for range pieces {
			_ = control.Flush()
			time.Sleep(20 * time.Millisecond)
			_, _ = io.WriteString(w, piece)
		}
	}
}

func TestUpload_ProviderMayAnswerBeforeItHasAllOfIt(t *testing.T) {
	piece := strings.Repeat("no ", 2000)
	large := form(field("model", "whisper-1"), file("file", strings.Repeat("audio", 1<<20)))
	small := form(field("model", "whisper-1"), file("file", strings.Repeat("audio", 1<<14)))
	for name, c := range map[string]struct {
		text  string
		sends int // at first; the rest never comes, or after the answer
	}{
		"the rest is on its way":  {large, len(large)},
		"a large rest is missing": {large, 100_000},
		"a small rest is missing": {small, 20_000},
	} {
		t.Run(name, func(t *testing.T) {
			r := local(t, func(s *Settings) { s.MaxBodyBytes = 16 << 20; s.IdleTimeout = 10 * soon })
			r.provider.early(early(http.StatusRequestEntityTooLarge, 20, piece))
			conn := dialTCP(t, r.address())
			go func() {
				_, _ = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nX-Vault-Token: tok\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s",
					transcriptions, formType, len(c.text), c.text[:c.sends])
			}()
			began := time.Now()
			in := bufio.NewReader(conn)
			resp, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(resp.Body)
			if resp.StatusCode != http.StatusRequestEntityTooLarge || string(text) != strings.Repeat(piece, 20) || err != nil {
				t.Errorf("status %d, %d bytes of %d, %v", resp.StatusCode, len(text), 20*len(piece), err)
			}
			if !resp.Close {
				t.Error("the connection may be used again, where the rest of the body would be read as a request")
			}
			_, _ = io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
			if more, _ := io.ReadAll(in); len(more) > 0 {
				t.Errorf("the rest of the body was read as a request: %q", more)
			}
			if took := time.Since(began); took > soon {
				t.Errorf("it took %s", took)
			}
			until(t, "no request is under way", func() bool { return r.calls.count() == 0 })
		})
	}
}

// An app's connection goes on after an upload that the provider has taken whole.
func TestUpload_WholeOneLeavesTheConnectionOpen(t *testing.T) {
	r := local(t)
	text := form(field("model", "whisper-1"), file("file", strings.Repeat("audio", 1<<14)))
	conn := dialTCP(t, r.address())
	in := bufio.NewReader(conn)
	for range 20 {
		_, _ = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nX-Vault-Token: tok\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s",
			transcriptions, formType, len(text), text)
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK || resp.Close || err != nil {
			t.Fatalf("status %d, the connection closes: %t, %v", resp.StatusCode, resp.Close, err)
		}
	}
	if n := len(r.provider.requests()); n != 20 {
		t.Errorf("%d requests reached the provider", n)
	}
}

// Apps that send all of a file before they look at the answer must find it, whoever
// gives it.
func TestUpload_RefusedOneIsReadToItsEnd(t *testing.T) {
	r := local(t, func(s *Settings) { s.MaxBodyBytes = 16 << 20; s.IdleTimeout = 10 * soon })
	r.provider.early(early(http.StatusRequestEntityTooLarge, 1, "{}"))
	r.vault.token("other", func(*asked) bool { return false })
	text := form(field("model", "whisper-1"), file("file", strings.Repeat("audio", 2<<20)))
	for name, c := range map[string]struct {
		credential, contentType string
		length                  int
		status                  int
		chunked                 bool
	}{
		"by the provider":      {"tok", formType, len(text), 413, false},
		"in chunks":            {"tok", formType, len(text), 413, true},
		"by Vault":             {"other", formType, len(text), 403, false},
		"without a credential": {"", formType, len(text), 401, false},
		"for its type":         {"tok", "text/csv", len(text), 415, false},
		"for its size":         {"tok", "application/json", 17 << 20, 413, false},
	} {
		t.Run(name, func(t *testing.T) {
			conn := dialTCP(t, r.address())
			framing, body := fmt.Sprintf("Content-Length: %d", c.length), io.Writer(conn)
			if c.chunked {
				framing, body = "Transfer-Encoding: chunked", httputil.NewChunkedWriter(conn)
			}
			_, _ = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nX-Vault-Token: %s\r\nContent-Type: %s\r\n%s\r\n\r\n",
				transcriptions, c.credential, c.contentType, framing)
			whole := text + strings.Repeat("x", c.length-len(text))
			sent := 0
			for sent < c.length { // all of it, in time for a connection that is only closed after a while
				n, err := io.WriteString(body, whole[sent:min(sent+64<<10, c.length)])
				if sent += n; err != nil {
					t.Fatalf("after %d bytes of %d: %v", sent, c.length, err)
				}
				time.Sleep(5 * time.Millisecond)
			}
			if c.chunked {
				_, _ = io.WriteString(conn, "0\r\n\r\n")
			}
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadAll(resp.Body); resp.StatusCode != c.status || err != nil {
				t.Errorf("status %d, %v", resp.StatusCode, err)
			}
			if _, err := io.ReadAll(conn); err != nil {
				t.Errorf("the connection ends with %v", err)
			}
		})
	}
}

// A small body that nobody wanted is read before the answer, and the connection goes on.
func TestUpload_RefusedSmallBodyLeavesTheConnectionOpen(t *testing.T) {
	r := local(t)
	conn := dialTCP(t, r.address())
	in := bufio.NewReader(conn)
	for _, pause := range []time.Duration{0, lingerPause + time.Second, 0} {
		time.Sleep(pause)
		for credential, status := range map[string]int{"": 401, "tok": 200} {
			_, _ = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nX-Vault-Token: %s\r\nContent-Length: %d\r\n\r\n%s", chatPath, credential, len(hello), hello)
			resp, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadAll(resp.Body); resp.StatusCode != status || resp.Close || err != nil {
				t.Errorf("status %d, the connection closes: %t, %v", resp.StatusCode, resp.Close, err)
			}
		}
	}
}

func TestUpload_AnswersOfKnownLengthAreWholeAtOnce(t *testing.T) {
	r := local(t)
	r.provider.early(func(w http.ResponseWriter, req *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.Header().Set("Connection", "close")
		w.Header().Set("Content-Length", "2")
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		_, _ = io.WriteString(w, "{}")
		_ = http.NewResponseController(w).Flush()
		_, _ = io.Copy(io.Discard, req.Body)
	})
	text := form(field("model", "whisper-1"), file("file", strings.Repeat("audio", 20_000)))
	for credential, c := range map[string]struct{ status, underway int }{"tok": {413, 1}, "": {401, 0}} {
		conn := dialTCP(t, r.address())
		_, _ = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nX-Vault-Token: %s\r\nContent-Type: %s\r\nContent-Length: 1000000\r\n\r\n%s",
			transcriptions, credential, formType, text[:10_000])
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		if n := r.calls.count(); n != int64(c.underway) { // for it waits for more of the upload
			t.Errorf("%d requests are under way when the answer %d comes, want %d", n, resp.StatusCode, c.underway)
		}
		if got, err := io.ReadAll(resp.Body); resp.StatusCode != c.status || resp.ContentLength != int64(len(got)) || err != nil {
			t.Errorf("status %d, %d bytes of %d, %v", resp.StatusCode, len(got), resp.ContentLength, err)
		}
		_ = conn.Close()
		until(t, "no request is under way", func() bool { return r.calls.count() == 0 })
	}
}

// net/http takes the writer of an HTTP/2 answer away when its handler returns, and
// panics where it is used later.
func TestUpload_CallersWhoGoOverHTTP2(t *testing.T) {
	r := local(t)
	r.provider.early(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	server := httptest.NewUnstartedServer(r.Gateway)
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	text := form(field("model", "whisper-1"), file("file", strings.Repeat("audio", 1000)))
	var callers sync.WaitGroup
	for range 40 {
		callers.Go(func() {
			for i := range 20 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(5+i)*time.Millisecond)
				in, end := io.Pipe()
				go func() { _, _ = io.WriteString(end, text[:3000]) }()
				req, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+transcriptions, in)
				if err != nil {
					t.Error(err)
				}
				req.Header.Set("X-Vault-Token", "tok")
				req.Header.Set("Content-Type", formType)
				if resp, err := server.Client().Do(req); err == nil {
					_ = resp.Body.Close()
				}
				cancel()
				_ = in.Close()
			}
		})
	}
	callers.Wait()
	if len(r.provider.requests()) > 0 {
		t.Error("an upload came whole")
	}
}

// Without a length, the end of an answer waits for a body that nobody wanted.
func TestUpload_HealthTellsItsLength(t *testing.T) {
	r := local(t)
	for _, path := range []string{"/healthz", "/readyz"} {
		got := r.send(httptest.NewRequest(http.MethodGet, path, nil))
		if length := got.header.Get("Content-Length"); got.status != 200 || length != fmt.Sprint(len(got.body)) {
			t.Errorf("%s: status %d, %q with the length %q", path, got.status, got.body, length)
		}
	}
}

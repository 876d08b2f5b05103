// SPDX-License-Identifier: MPL-2.0

package relay

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"unicode/utf8"
)

// raw is a provider that answers with these bytes, KEY replaced by the key that
// it was sent.
func raw(t *testing.T, answer string) (*Relay, *Request) {
	return upstream(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		key := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		_, _ = io.WriteString(conn, strings.ReplaceAll(answer, "KEY", key))
		_ = conn.Close()
	})
}

func TestRelay_AKeyEchoedWhereHTTPSyntaxBelongsIsNotQuoted(t *testing.T) {
	for name, answer := range map[string]string{
		"status":            "HTTP/1.1 KEY\r\n\r\n",
		"protocol":          "KEY 200 OK\r\n\r\n",
		"header":            "HTTP/1.1 200 OK\r\nKEY\r\n\r\n",
		"content length":    "HTTP/1.1 200 OK\r\nContent-Length: KEY\r\n\r\n",
		"transfer encoding": "HTTP/1.1 200 OK\r\nTransfer-Encoding: KEY\r\n\r\n",
		"chunk size":        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nKEY\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			relay, req := raw(t, answer)
			w := newRecorder()
			relay.Serve(t.Context(), w, req)
			shown := fmt.Sprintf("%s %v %+v", w.Body, w.Header(), w.aborted)
			if strings.Contains(shown, "distinctive") || strings.Contains(shown, "sk-test") {
				t.Errorf("the key is shown: %s", shown)
			}
			if w.aborted == nil && w.Code != http.StatusBadGateway {
				t.Errorf("got %d %s", w.Code, w.Body)
			}
			relay, req = raw(t, answer)
			if verdict := relay.Probe(t.Context(), req.VirtualKey.Target); strings.Contains(verdict.Detail, "sk-test") {
				t.Errorf("the key is shown by the probe: %+v", verdict)
			}
		})
	}
}

func TestRelay_StatusesThatAreNoneAreRefused(t *testing.T) {
	for _, status := range []string{"000", "099", "101", "600", "999"} {
		relay, req := raw(t, "HTTP/1.1 "+status+" X\r\nContent-Length: 2\r\n\r\n{}")
		w := newRecorder()
		relay.Serve(t.Context(), w, req)
		if w.Code != http.StatusBadGateway {
			t.Errorf("%s came as %d", status, w.Code)
		}
	}
}

func TestRelay_AnswerHeadersAreValidUTF8(t *testing.T) {
	relay, req := raw(t, "HTTP/1.1 200 OK\r\nX-Server: caf\xe9\r\nContent-Length: 2\r\n\r\n{}")
	w := newRecorder()
	relay.Serve(t.Context(), w, req)
	if got := w.Header().Get("X-Server"); w.Code != http.StatusOK || !utf8.ValidString(got) || !strings.HasPrefix(got, "caf") {
		t.Errorf("got %d %q", w.Code, got)
	}
}

func TestRelay_RestrictedModelsHaveNoWayAround(t *testing.T) {
	var sent atomic.Int32
	relay, base := upstream(t, func(http.ResponseWriter, *http.Request) { sent.Add(1) })
	for path, bodies := range map[string][]string{
		"v1/chat/completions": {
			`{"model":"allowed","models":["other"],"messages":[]}`,
			`{"model":"allowed","models":"other","messages":[]}`,
			`{"model":"allowed","Models":["other"],"messages":[]}`,
			`{"model":"allowed","extra_body":{"model":"other"},"messages":[]}`,
			`{"model":"allowed","Extra_Body":{"model":"other"},"messages":[]}`,
			`{"model":"allowed","preset":"p","messages":[]}`,
			`{"model":"allowed","fallbacks":["other"],"messages":[]}`,
			`{"model":"allowed","plugins":[{"id":"auto-router"}],"messages":[]}`,
		},
		"v1/responses": {
			`{"model":"allowed","input":"x","tools":[{"type":"image_generation","model":"other"}]}`,
			`{"model":"allowed","input":"x","tools":[{"type":"image_generation","Model":"other"}]}`,
		},
		"v1/batches":     {`{"model":"allowed","input_file_id":"f"}`},
		"v1/assistants":  {`{"model":"allowed"}`},
		"v1/unheard/of":  {`{"model":"allowed"}`},
		"v1/embeddings":  {`{"model":"other","input":"x"}`},
		"v1/completions": {`{"model":"allowed ","prompt":"x"}`},
	} {
		for _, body := range bodies {
			req, vk := *base, *base.VirtualKey
			vk.Models = []string{"allowed"}
			req.VirtualKey, req.Path, req.Body = &vk, path, []byte(body)
			w := newRecorder()
			relay.Serve(t.Context(), w, &req)
			if w.Code != http.StatusForbidden && w.Code != http.StatusBadRequest {
				t.Errorf("%s %s: got %d %s", path, body, w.Code, w.Body)
			}
		}
	}
	if n := sent.Load(); n != 0 {
		t.Errorf("%d of them reached the provider", n)
	}
	for path, body := range map[string]string{
		"v1/chat/completions":   `{"model":"allowed","models":["allowed"],"messages":[],"tools":[{"type":"function","function":{"name":"f","parameters":{"model":"x"}}}]}`,
		"v1/images/generations": `{"model":"allowed","prompt":"x"}`,
	} {
		req, vk := *base, *base.VirtualKey
		vk.Models = []string{"allowed"}
		req.VirtualKey, req.Path, req.Body = &vk, path, []byte(body)
		w := newRecorder()
		relay.Serve(t.Context(), w, &req)
		if w.Code != http.StatusOK {
			t.Errorf("%s %s: got %d %s", path, body, w.Code, w.Body)
		}
	}
}

func TestReason_NamesInACertificateAreNotQuoted(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	relay := New(Options{Transport: NewTransport(http.DefaultTransport)})
	w := newRecorder()
	relay.Serve(t.Context(), w, request(t, server.URL+"/v1"))
	if w.Code != http.StatusBadGateway || !strings.Contains(w.Body.String(), "unknown authority") {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	host := &tls.CertificateVerificationError{Err: x509.HostnameError{Certificate: &x509.Certificate{DNSNames: []string{secret}}, Host: "h"}}
	if got := reason(host); strings.Contains(got, "sk-test") || !strings.Contains(got, "another host") {
		t.Errorf("got %q", got)
	}
}

func TestReason_QuotesNothingOfTheProviders(t *testing.T) {
	if got := reason(fmt.Errorf("net/http: HTTP/1.x transport connection broken: %w", &json.SyntaxError{})); got != "its answer is not valid HTTP" {
		t.Errorf("got %q", got)
	}
}

// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// hostileProviders is about providers that answer what isn't HTTP, with the key
// in it, and about odd but valid answers. That the key is nowhere is for Custody
// to say, which comes after.
func (s *suite) hostileProviders(t *testing.T) {
	for name, c := range map[string]struct {
		answer string
		status int
	}{
		"key-as-status":    {"HTTP/1.1 KEY\r\n\r\n", http.StatusBadGateway},
		"key-as-header":    {"HTTP/1.1 200 OK\r\nKEY\r\n\r\n", http.StatusBadGateway},
		"key-as-length":    {"HTTP/1.1 200 OK\r\nContent-Length: KEY\r\n\r\n", http.StatusBadGateway},
		"key-unsolicited":  {"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}KEY\r\nKEY\r\n", http.StatusOK},
		"status-99":        {"HTTP/1.1 099 X\r\nContent-Length: 0\r\n\r\n", http.StatusBadGateway},
		"empty-200":        {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", http.StatusOK},
		"empty-404":        {"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", http.StatusNotFound},
		"empty-429":        {"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n", http.StatusTooManyRequests},
		"empty-503":        {"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", http.StatusServiceUnavailable},
		"no-content":       {"HTTP/1.1 204 No Content\r\n\r\n", http.StatusNoContent},
		"header-not-utf-8": {"HTTP/1.1 200 OK\r\nX-Upstream-Echo: caf\xe9\r\nContent-Length: 2\r\n\r\n{}", http.StatusOK},
	} {
		t.Run(name, func(t *testing.T) {
			key := s.secret()
			s.root.Write(t, tuned+"/keys/"+name, map[string]any{
				"provider": "openai-compatible", "base_url": "http://" + answers(t, strings.ReplaceAll(c.answer, "KEY", key)) + "/v1", "api_key": key,
			})
			app := s.app(t, tuned, name, map[string]any{"key": name})
			for range 2 { // the second meets what the first left on the connection
				resp, err := app.Do(t.Context(), http.MethodPost, tuned+"/proxy/"+name+"/v1/chat/completions", map[string]any{
					"model": "x", "messages": []any{map[string]any{"role": "user", "content": s.prompt}},
				})
				if err != nil || resp.Status != c.status {
					t.Errorf("got %v %v, want %d", resp, err, c.status)
				}
			}
			if resp, err := s.root.Do(t.Context(), http.MethodPost, tuned+"/keys/"+name+"/verify", nil); err != nil || resp.Status != http.StatusOK {
				t.Errorf("verify: %v %v", resp, err)
			}
		})
	}
}

// answers listens for requests and writes answer to each, as it is. It returns
// its address.
func answers(t *testing.T, answer string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				for in := bufio.NewReader(conn); ; {
					req, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, req.Body)
					_, _ = fmt.Fprint(conn, answer)
				}
			}()
		}
	}()
	return listener.Addr().String()
}

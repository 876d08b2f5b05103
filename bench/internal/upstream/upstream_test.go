// SPDX-License-Identifier: MPL-2.0

package upstream

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"vault-plugin-secrets-portkey/bench/internal/chat"
)

// start returns the base URL of a server that ends with the test.
func start(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() { _ = New().Serve(l) }() // until l is closed
	return "http://" + l.Addr().String()
}

func TestServer_AnswersAnHTTPClientOnOneConnection(t *testing.T) {
	client := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1}}
	defer client.CloseIdleConnections()
	url := start(t) + chat.Path
	for _, stream := range []bool{false, true, false} {
		for name, body := range map[string]io.Reader{
			"length":  bytes.NewReader(chat.Request(4, stream)),
			"chunked": io.MultiReader(bytes.NewReader(chat.Request(4, stream))), // of unknown length
		} {
			resp, err := client.Post(url, "application/json", body)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			answer, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || resp.StatusCode != 200 {
				t.Fatalf("%s: %d, %v: %s", name, resp.StatusCode, err, answer)
			}
			if err := chat.Check(chat.Asked{KiB: 4, Stream: stream}, answer); err != nil {
				t.Errorf("%s, stream %t: %v", name, stream, err)
			}
		}
	}
}

func TestServer_SendsTheUsageOfAStreamOnlyIfAsked(t *testing.T) {
	url := start(t) + chat.Path
	plain := string(chat.Request(4, true))
	asking := strings.Replace(plain, `"stream":true`, `"stream":true,"stream_options":{"include_usage":true}`, 1)
	for body, want := range map[string]bool{plain: false, asking: true} {
		resp, err := http.Post(url, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if got := bytes.Contains(answer, []byte(`"usage"`)); err != nil || got != want {
			t.Errorf("usage sent: %t, want %t (%v)", got, want, err)
		}
	}
}

func TestServer_RefusesWhatItCannotAnswer(t *testing.T) {
	base := start(t)
	for path, body := range map[string]string{
		"/v1/embeddings": string(chat.Request(1, false)),
		chat.Path:        `{"model":"gpt-4o"}`,
	} {
		resp, err := http.Post(base+path, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 400 {
			t.Errorf("%s answered %d", path, resp.StatusCode)
		}
	}
}

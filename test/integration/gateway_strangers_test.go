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
	"sync"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/test/vaulttest"
)

// TestGateway_StrangersShutNobodyOut: who has no valid credential, but patience and
// large bodies, keeps nobody else from being served.
func TestGateway_StrangersShutNobodyOut(t *testing.T) {
	n := &strangerTests{startGateway(t, gatewayOptions{})}
	n.role(t, "demo", nil)
	t.Run("WithoutACredentialNoBodyIsTaken", n.nobody)
	t.Run("MadeUpTokensShareLittle", n.madeUp)
}

type strangerTests struct{ *gatewayRig }

// strangersBody is of the default of max_body_bytes: sixteen of them are all that the
// gateway holds of bodies.
const strangersBody = 64 << 20

// image is a chat request with an image of so many MiB.
func image(size int) map[string]any {
	url := map[string]any{"url": "data:image/png;base64," + strings.Repeat("A", size<<20*4/3)}
	part := map[string]any{"type": "image_url", "image_url": url}
	return with(hello("up-ok"), map[string]any{"messages": []any{map[string]any{"role": "user", "content": []any{part}}}})
}

// begin opens a connection and sends the head of a request with a large body.
func (n *strangerTests) begin(t *testing.T, source string, headers ...string) net.Conn {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
	conn, err := dialer.Dial("tcp", strings.TrimPrefix(n.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(2 * patience))
	_, err = fmt.Fprintf(conn, "POST /v1/%s HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s\r\n",
		n.chatOf("demo"), strangersBody, strings.Join(append(headers, ""), "\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// status is that of the answer on a connection, and -1 for an end without one.
func status(conn net.Conn) int {
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return -1
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// nobody: without a credential, a request is refused before anything of its body has
// come, and its connection ends though the body goes on.
func (n *strangerTests) nobody(t *testing.T) {
	for range 16 {
		for _, headers := range [][]string{nil, {"Expect: 100-continue"}, {"X-Vault-Token: " + leasedGuess()[:20]}} {
			conn := n.begin(t, "127.0.5.1", headers...)
			if got := status(conn); got != http.StatusUnauthorized && got != http.StatusTooManyRequests {
				t.Fatalf("%q: the answer is %d", headers, got)
			}
		}
	}
	eventually(t, "their requests to end", func() bool { return n.streams(t) == 0 })
	wantCompletion(t, post(t, from(t, "127.0.5.1", n.url, n.settled(t, "127.0.5.1")), n.chatOf("demo"), image(2)))
}

// settled returns a token that has been let in from source.
func (n *strangerTests) settled(t *testing.T, source string) string {
	t.Helper()
	token := n.token(t, "demo")
	eventually(t, "the token to be let in", func() bool { // guesses from its address may come before it
		return post(t, from(t, source, n.url, token), n.chatOf("demo"), hello("up-ok")).Status == http.StatusOK
	})
	return token
}

// streams is how many requests are under way.
func (n *strangerTests) streams(t *testing.T) int {
	t.Helper()
	status, _ := n.root.Read(t, n.mount+"/status").Data()["gateway"].(map[string]any)
	streams, _ := status["streams"].(float64)
	return int(streams)
}

// madeUp: sixteen bodies of the largest size, each without its last byte, of tokens
// that Vault would refuse.
func (n *strangerTests) madeUp(t *testing.T) {
	const source = "127.0.5.2"
	known := n.settled(t, source)
	var all sync.WaitGroup
	begun := strings.NewReader(`{"model":"up-ok","x":"` + strings.Repeat("A", strangersBody-23))
	for range 16 {
		conn := n.begin(t, source, "X-Vault-Token: hvs."+randomHex(24))
		body := io.NewSectionReader(begun, 0, begun.Size())
		all.Go(func() {
			_, _ = io.Copy(conn, struct{ io.Reader }{body}) // those that are refused end before
		})
	}
	all.Wait()
	eventually(t, "all but one of them to be refused", func() bool { return n.streams(t) <= 1 })
	held := n.streams(t)
	t.Logf("%d of 16 bodies is held", held)
	large := func(source, token string) *vaulttest.Response {
		return post(t, from(t, source, n.url, token), n.chatOf("demo"), image(2))
	}
	wantCompletion(t, large(source, known))
	wantCompletion(t, post(t, from(t, "127.0.5.3", n.url, n.token(t, "demo")), n.chatOf("demo"), image(20)))
	fresh := n.token(t, "demo")
	if held == 1 { // else the last two have refused each other
		wantError(t, large(source, fresh), http.StatusServiceUnavailable, "gateway_unavailable", "small request first")
	}
	wantCompletion(t, post(t, from(t, source, n.url, fresh), n.chatOf("demo"), hello("up-ok")))
	wantCompletion(t, large(source, fresh))
}

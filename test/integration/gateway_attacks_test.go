// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/test/upstream"
	"vault-plugin-secrets-portkey/test/vaulttest"
)

// attacked is a gateway under attack. The virtual key "open" is the attacker's own.
// "shut" stands for what is to be reached by a trick: it has a provider of its own,
// whom nobody asks for any other reason.
type attacked struct {
	*gatewayRig
	token string // may use open and shut, so that only the gateway itself refuses
	shut  *upstream.Server

	marker string // in every provider key
	mu     sync.Mutex
	heard  bytes.Buffer // all that was answered
}

// TestGatewayAttacks sends what no client would. The gateway must understand it as
// Vault and the provider do, or refuse it, and serve the next request.
func TestGatewayAttacks(t *testing.T) {
	a := startAttacked(t)
	t.Run("Smuggling", a.smuggling)
	t.Run("Targets", a.targets)
	t.Run("Paths", a.paths)
	t.Run("Headers", a.headers)
	t.Run("OversizeHeaders", a.oversize)
	t.Run("ConnectionListedHeaders", a.connectionListed)
	t.Run("Trailers", a.trailers)
	t.Run("Upgrades", a.upgrades)
	t.Run("RedirectsOfTheProvider", a.redirects)
	t.Run("BaseURLs", a.baseURLs)
	t.Run("Slowness", a.slowness)
	t.Run("HTTP2", a.http2)
	t.Run("Custody", a.custody)
}

func startAttacked(t *testing.T) *attacked {
	a := &attacked{marker: "at" + randomHex(8), shut: upstream.Start(t, upstream.Options{})}
	a.gatewayRig = startGateway(t, gatewayOptions{
		Options:  vaulttest.Options{LogLevel: "trace"},
		settings: map[string]any{"idle_timeout": "1s", "max_body_bytes": 1 << 20},
	})
	a.root.Write(t, mount+"/keys/main", map[string]any{"provider": "openai-compatible", "base_url": a.up.URL(), "api_key": a.secret()})
	a.root.Write(t, mount+"/keys/shut", map[string]any{"provider": "openai-compatible", "base_url": a.shut.URL(), "api_key": a.secret()})
	a.role(t, "open", nil)
	a.role(t, "shut", map[string]any{"key": "shut"})
	a.token = a.gatewayRig.token(t, "open", "shut")
	a.serves(t)
	return a
}

func (a *attacked) secret() string { return a.marker + "-" + randomHex(8) + "+/=&<~" }

// serves fails the test unless a usual request is served, and nothing is under way
// then.
func (a *attacked) serves(t *testing.T) {
	t.Helper()
	wantCompletion(t, post(t, a.atGateway(t, a.token), a.chatOf("open"), hello("up-ok")))
	a.quiet(t)
}

// quiet waits until nothing is under way.
func (a *attacked) quiet(t *testing.T) {
	t.Helper()
	var status map[string]any
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		status, _ = a.root.Read(t, a.mount+"/status").Data()["gateway"].(map[string]any)
		if status["streams"] == 0.0 {
			return
		}
	}
	t.Fatalf("something is under way still: %v", status)
}

// heardAnswer is an answer over a raw connection.
type heardAnswer struct {
	status int
	header http.Header
	body   string
}

// raw writes text to the gateway as it is, and returns the answers, and whether the
// gateway closed the connection then.
func (a *attacked) raw(t *testing.T, text string) (answers []heardAnswer, closed bool) {
	t.Helper()
	return a.converse(t, strings.TrimPrefix(a.url, "http://"), text)
}

// converse is raw at another address.
func (a *attacked) converse(t *testing.T, addr, text string) (answers []heardAnswer, closed bool) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	// Not waited for: it may answer and close before it has read all.
	go func() { _, _ = io.WriteString(conn, text) }()
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	in := bufio.NewReader(io.TeeReader(conn, a))
	for {
		// Once it has answered, it is given a moment to answer again.
		resp, err := http.ReadResponse(in, nil)
		var late net.Error
		if errors.As(err, &late) && late.Timeout() {
			if len(answers) == 0 {
				t.Errorf("there was neither an answer nor an end within %s", patience)
			}
			return answers, false
		}
		if err != nil {
			return answers, true
		}
		body, _ := io.ReadAll(resp.Body)
		answers = append(answers, heardAnswer{resp.StatusCode, resp.Header, string(body)})
		_ = conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	}
}

// Write keeps what was answered.
func (a *attacked) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.heard.Write(p)
}

// line is a request line and the usual headers, for more to follow.
func (a *attacked) line(method, target string, more ...string) string {
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: gateway\r\nX-Vault-Token: %s\r\n%s\r\n", method, target, a.token, strings.Join(append(more, ""), "\r\n"))
}

// chatAt is where chats on a virtual key are.
func (a *attacked) chatAt(role string) string { return "/v1/" + a.chatOf(role) }

const usualBody = `{"model":"up-ok","messages":[{"role":"user","content":"Hi."}]}`

// usual is a whole request that is served.
func (a *attacked) usual(more ...string) string {
	return a.line("POST", a.chatAt("open"), append(more, fmt.Sprintf("Content-Length: %d", len(usualBody)))...) + usualBody
}

// smuggled is a whole request that is to be taken for a part of another.
func (a *attacked) smuggled() string {
	return a.line("POST", a.chatAt("shut"), fmt.Sprintf("Content-Length: %d", len(usualBody))) + usualBody
}

// reached runs f, and fails unless exactly n requests got to the provider of open by
// it, and none to that of shut. It returns them.
func (a *attacked) reached(t *testing.T, n int, f func()) []upstream.Request {
	t.Helper()
	before, shut := a.up.Received(), a.shut.Received()
	f()
	a.quiet(t)
	if n := a.shut.Received() - shut; n != 0 {
		t.Errorf("%d requests reached the provider that was to be out of reach", n)
	}
	got := a.up.Requests()[before:]
	if len(got) != n {
		t.Errorf("%d requests reached the provider, want %d", len(got), n)
	}
	return got
}

// custody: neither what was answered nor what was logged holds a provider key.
func (a *attacked) custody(t *testing.T) {
	a.serves(t)
	forms := spellings(a.marker)
	a.mu.Lock()
	defer a.mu.Unlock()
	for name, text := range map[string][]byte{"gateway's answers": a.heard.Bytes(), "Vault's log": a.vault.Log(), "audit log": a.vault.AuditLog()} {
		if len(text) == 0 {
			t.Errorf("the %s are empty, so the search proves nothing", name)
		}
		if containsAny(text, forms) {
			t.Errorf("the %s hold a provider key: %s", name, around(text, forms))
		}
	}
	for _, path := range a.vault.RawKeys(t, "") {
		if value := a.vault.RawRead(t, path); containsAny(value, forms) && !strings.Contains(path, "/keys/") {
			t.Errorf("storage holds a provider key at %s", path)
		}
	}
	for _, r := range a.up.Requests() {
		if !strings.HasPrefix(r.Key, a.marker) {
			t.Errorf("the provider was sent the key %q", r.Key)
		}
		for name, values := range r.Header {
			if strings.Contains(strings.Join(values, " "), a.token) {
				t.Errorf("the provider was sent the caller's token in %s", name)
			}
		}
	}
}

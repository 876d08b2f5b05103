// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// upgrades ask for another protocol.
func (a *attacked) upgrades(t *testing.T) {
	websocket := []string{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}
	for name, c := range map[string]struct {
		text   string
		status int
		served int
	}{
		"WebSocket":                 {a.line("GET", "/v1/"+proxyPath(a.mount, "open", "v1/realtime"), websocket...), 400, 0},
		"WebSocket, with a body":    {a.usual(websocket...), 400, 0},
		"WebSocket among others":    {a.usual("Connection: Upgrade", "Upgrade: h2c, websocket"), 400, 0},
		"TLS":                       {a.usual("Connection: Upgrade", "Upgrade: TLS/1.2"), 400, 0},
		"CONNECT-UDP":               {a.usual("Connection: Upgrade", "Upgrade: connect-udp"), 400, 0},
		"h2c, which is passed over": {a.usual("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"), 200, 1},
		"HTTP/2 without asking":     {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 405, 0},
		"TLS without asking":        {"\x16\x03\x01\x00\xf4\x01\x00\x00\xf0\x03\x03\r\n\r\n", 400, 0},
	} {
		got := a.reached(t, c.served, func() {
			answers, _ := a.raw(t, c.text)
			if len(answers) != 1 || answers[0].status != c.status || answers[0].header.Get("Upgrade") != "" {
				t.Errorf("%s: %v, want %d", name, answers, c.status)
			}
		})
		for _, r := range got {
			a.wantFewHeaders(t, name, r)
		}
	}
	// A provider that changes protocols isn't followed either.
	switching := "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + "raw bytes"
	a.root.Write(t, mount+"/keys/switching", map[string]any{"provider": "openai-compatible", "base_url": "http://" + answers(t, switching) + "/v1", "api_key": a.secret()})
	a.role(t, "switching", map[string]any{"key": "switching"})
	resp := post(t, a.atGateway(t, a.gatewayRig.token(t, "switching")), a.chatOf("switching"), hello("up-ok"))
	wantError(t, resp, http.StatusBadGateway, "upstream_unreachable")
	a.serves(t)
}

// slowCaller is a caller that takes its time.
type slowCaller struct {
	name  string
	count int
	// begin is what it sends at once, and drip what it goes on with, a byte a second.
	begin, drip string
	// most is how long the gateway may bear with it.
	most time.Duration
}

// slowness opens connections that do as little as they can, and proves that the
// gateway is rid of all of them, and serves others meanwhile.
func (a *attacked) slowness(t *testing.T) {
	const noise = 20 * time.Second // on a busy machine
	small := a.posting(a.chatAt("open"), `{"model":"up-big:1500","messages":[]}`)
	callers := []slowCaller{
		{"says nothing", 5, "", "", 10*time.Second + noise},
		{"half a request line", 5, "POST /v1/", "", 10*time.Second + noise},
		{"headers, one after another", 5, a.line("POST", a.chatAt("open"))[:40], "X: " + strings.Repeat("a", 1000), 10*time.Second + noise},
		{"no body", 5, a.line("POST", a.chatAt("open"), "Content-Length: 1000"), "", 30*time.Second + noise},
		{"a body, byte by byte", 5, a.line("POST", a.chatAt("open"), "Content-Length: 1000") + usualBody[:10], strings.Repeat(" ", 1000), 60*time.Second + noise},
		{"a body without a credential, byte by byte", 5, a.anonymous("Content-Length: 1000") + usualBody[:10], strings.Repeat(" ", 1000), 5*time.Second + noise},
		{"chunks without a credential, byte by byte", 5, a.anonymous("Transfer-Encoding: chunked"), strings.Repeat("1\r\n \r\n", 1000), 5*time.Second + noise},
		{"a body for nobody, byte by byte", 5, a.line("POST", "/v1/sys/health", "Content-Length: 1000"), strings.Repeat(" ", 1000), 5*time.Second + noise},
		{"no body of a health check", 5, a.line("GET", "/healthz", "Content-Length: 1000"), "", 5*time.Second + noise},
		{"chunks, byte by byte", 5, a.line("POST", a.chatAt("open"), "Transfer-Encoding: chunked"), strings.Repeat("1\r\n \r\n", 1000), 60*time.Second + noise},
		{"reads no answer", 2, a.posting(a.chatAt("open"), `{"model":"up-big:16000000","messages":[]}`), "", 2*time.Second + 2*noise},
		{"reads no stream", 2, a.posting(a.chatAt("open"), `{"model":"up-big:16000000","stream":true,"messages":[]}`), "", 2*time.Second + 2*noise},
		{"reads no answers", 1, strings.Repeat(small, 20_000), "", 2*time.Second + 2*noise}, // many, to fill what is between
	}
	open := a.connections(t)
	var all sync.WaitGroup
	for _, c := range callers {
		if c.most > 40*time.Second+noise && !soaking() {
			continue
		}
		for range c.count {
			all.Go(func() { a.endure(t, c) })
		}
	}
	done := make(chan struct{})
	go func() {
		all.Wait()
		close(done)
	}()
	good := 0
	for client := a.atGateway(t, a.token); ; good++ {
		select {
		case <-done:
			if good < 10 {
				t.Errorf("only %d good requests were served meanwhile", good)
			}
			a.serves(t)
			if now := a.connections(t); now > open+5 {
				t.Errorf("%v connections are open, and were %v before", now, open)
			}
			return
		case <-time.After(200 * time.Millisecond):
			wantCompletion(t, post(t, client, a.chatOf("open"), hello("up-ok")))
		}
	}
}

// anonymous is line for a chat without a credential.
func (a *attacked) anonymous(more ...string) string {
	return strings.Replace(a.line("POST", a.chatAt("open"), more...), "X-Vault-Token: "+a.token+"\r\n", "", 1)
}

// connections are those open at the gateway.
func (a *attacked) connections(t *testing.T) float64 {
	t.Helper()
	status, _ := a.root.Read(t, a.mount+"/status").Data()["gateway"].(map[string]any)
	n, _ := status["connections"].(float64)
	return n
}

// endure plays a slow caller, until the gateway ends it.
func (a *attacked) endure(t *testing.T, c slowCaller) {
	conn, err := net.Dial("tcp", strings.TrimPrefix(a.url, "http://"))
	if err != nil {
		t.Error(err)
		return
	}
	defer func() { _ = conn.Close() }()
	if strings.HasPrefix(c.name, "reads") {
		_ = conn.(*net.TCPConn).SetReadBuffer(4 << 10)
	}
	began := time.Now()
	_ = conn.SetDeadline(began.Add(c.most))
	_, err = io.WriteString(conn, c.begin)
	for i := 0; err == nil && time.Since(began) < c.most; i++ {
		if time.Sleep(time.Second); i < len(c.drip) {
			_, err = io.WriteString(conn, c.drip[i:i+1])
			continue
		}
		err = ended(conn, strings.HasPrefix(c.name, "reads"))
	}
	if err == nil || isTimeout(err) {
		t.Errorf("one that %s is borne with for more than %s", c.name, time.Since(began).Round(time.Second))
	}
}

// ended says whether the gateway has ended a connection, without reading what it has
// sent where that is the point: only a write finds out then.
func ended(conn net.Conn, mute bool) error {
	if mute {
		_, err := io.WriteString(conn, " ")
		return err
	}
	var b [4096]byte
	_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	_, err := conn.Read(b[:])
	if isTimeout(err) {
		err = nil
	}
	return err
}

func isTimeout(err error) bool {
	timeout, ok := err.(net.Error)
	return ok && timeout.Timeout()
}

// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

// Frames of HTTP/2 (RFC 9113 §6) as far as these tests need them.
const (
	frameData, frameHeaders, frameReset, frameSettings, frameAway = 0, 1, 3, 4, 7

	flagEndStream, flagEndHeaders = 1, 4
	statusOK                      = 0x88 // :status 200 in HPACK (RFC 7541 appendix A)
)

// pairs are header fields in their order.
type pairs [][2]string

// block is their HPACK: literals without indexing (RFC 7541 §6.2.2), which can say
// anything.
func (p pairs) block() []byte {
	var b []byte
	for _, field := range p {
		b = append(b, 0)
		for _, text := range field {
			b = append(hpackInt(b, len(text)), text...)
		}
	}
	return b
}

// hpackInt is an integer with a prefix of seven bits (RFC 7541 §5.1).
func hpackInt(b []byte, n int) []byte {
	if n < 127 {
		return append(b, byte(n))
	}
	b = append(b, 127)
	for n -= 127; n >= 128; n /= 128 {
		b = append(b, byte(n%128|128))
	}
	return append(b, byte(n))
}

func frame(kind, flags byte, stream uint32, payload []byte) []byte {
	b := []byte{byte(len(payload) >> 16), byte(len(payload) >> 8), byte(len(payload)), kind, flags}
	return append(binary.BigEndian.AppendUint32(b, stream), payload...)
}

// h2Attack is a request over HTTP/2, which is served or not.
type h2Attack struct {
	fields  pairs
	body    string
	trailer pairs
	served  bool
}

func (a *attacked) http2(t *testing.T) {
	certificate, key := tlsPair(t)
	a.open(t, map[string]any{"tls_certificate": certificate, "tls_key": key})
	defer a.open(t, map[string]any{"tls_certificate": "", "tls_key": ""})
	for name, attack := range a.h2Attacks() {
		served := 0
		if attack.served {
			served = 1
		}
		a.reached(t, served, func() {
			if got := a.overHTTP2(t, attack); (got == "200") != attack.served {
				t.Errorf("%s: %s", name, got)
			}
		})
	}
	// A connection that is open already isn't harmed by another's errors.
	a.reached(t, 1, func() {
		if got := a.overHTTP2(t, a.h2Attacks()["usual"]); got != "200" {
			t.Errorf("after all: %s", got)
		}
	})
}

func (a *attacked) h2Attacks() map[string]h2Attack {
	chat := a.chatAt("open")
	head := pairs{{":method", "POST"}, {":scheme", "https"}, {":authority", "gateway"}, {":path", chat}}
	token := [2]string{"x-vault-token", a.token}
	usual := slices.Concat(head, pairs{token})
	with := func(more ...[2]string) h2Attack {
		return h2Attack{fields: append(usual[:5:5], more...), body: usualBody}
	}
	only := func(fields ...[2]string) h2Attack { return h2Attack{fields: append(fields, token), body: usualBody} }
	path := func(path string) h2Attack { return only(head[0], head[1], head[2], [2]string{":path", path}) }
	served := func(h h2Attack) h2Attack {
		h.served = true
		return h
	}
	length := func(n int) [2]string { return [2]string{"content-length", fmt.Sprint(n)} }
	return map[string]h2Attack{
		"usual":                        served(with()),
		"with its length":              served(with(length(len(usualBody)))),
		"another host in the header":   served(with([2]string{"host", "other"})),
		"a trailer":                    {usual, usualBody, pairs{{"x-portkey-virtual-key", "shut"}, {"x-vault-token", "x"}}, true},
		"a credential in the trailer":  {head, usualBody, pairs{token}, false},
		"a pseudo-header in a trailer": {usual, usualBody, pairs{{":path", a.chatAt("shut")}}, false},
		"a name in capitals":           {append(head[:4:4], [2]string{"X-Vault-Token", a.token}), usualBody, nil, false},
		"a pseudo-header at the end":   only(head[0], head[1], head[2], token, head[3]),
		"two paths":                    only(head[0], head[1], head[2], head[3], [2]string{":path", a.chatAt("shut")}),
		"two methods":                  only(head[0], [2]string{":method", "GET"}, head[1], head[2], head[3]),
		"two authorities":              only(head[0], head[1], head[2], [2]string{":authority", "other"}, head[3]),
		"no path":                      only(head[0], head[1], head[2]),
		"no method":                    only(head[1], head[2], head[3]),
		"no scheme":                    only(head[0], head[2], head[3]),
		"an unknown pseudo-header":     only(head[0], head[1], head[2], head[3], [2]string{":virtual-key", "shut"}),
		"a status":                     only(head[0], head[1], head[2], head[3], [2]string{":status", "200"}),
		"an empty path":                path(""),
		"a star":                       path("*"),
		"no slash":                     path(chat[1:]),
		"an absolute path":             path("https://gateway" + chat),
		"two slashes":                  path("//other" + chat),
		"dots":                         path("/v1/" + a.mount + "/proxy/open/../shut/v1/chat/completions"),
		"a line break in the path":     path(chat + " HTTP/1.1\r\nX: y"),
		"a space in the path":          path(chat + " x"),
		"a NUL in the path":            path(chat + "\x00"),
		"a line break in the method":   only([2]string{":method", "POST " + chat + " HTTP/1.1\r\nX: y\r\n\r\nGET"}, head[1], head[2], head[3]),
		"CONNECT":                      only([2]string{":method", "CONNECT"}, head[2]),
		"CONNECT, extended":            only([2]string{":method", "CONNECT"}, [2]string{":protocol", "websocket"}, head[1], head[2], head[3]),
		"connection":                   with([2]string{"connection", "x-vault-token"}),
		"transfer-encoding":            with([2]string{"transfer-encoding", "chunked"}),
		"upgrade":                      with([2]string{"upgrade", "websocket"}),
		"te":                           with([2]string{"te", "gzip"}),
		"a line break in a value":      with([2]string{"user-agent", "a\r\ninjected: yes"}),
		"a NUL in a value":             with([2]string{"user-agent", "a\x00"}),
		"a colon in a name":            with([2]string{"x:y", "z"}),
		"a space in a name":            with([2]string{"x y", "z"}),
		"a line break in a name":       with([2]string{"x\r\ninjected", "z"}),
		"an empty name":                with([2]string{"", "z"}),
		"too short a length":           with(length(4)),
		"too long a length":            with(length(len(usualBody) + 10)),
		"a negative length":            with(length(-1)),
		"two lengths":                  with(length(4), length(len(usualBody))),
	}
}

// overHTTP2 sends a request, and says what came of it: a status ("200" or "another
// status"), or how the gateway ended it.
func (a *attacked) overHTTP2(t *testing.T, attack h2Attack) string {
	t.Helper()
	conn, err := tls.Dial("tcp", strings.TrimPrefix(a.url, "https://"), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(patience))
	text := append([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), frame(frameSettings, 0, 0, nil)...)
	text = append(text, frame(frameHeaders, flagEndHeaders, 1, attack.fields.block())...)
	if attack.trailer == nil {
		text = append(text, frame(frameData, flagEndStream, 1, []byte(attack.body))...)
	} else {
		text = append(text, frame(frameData, 0, 1, []byte(attack.body))...)
		text = append(text, frame(frameHeaders, flagEndHeaders|flagEndStream, 1, attack.trailer.block())...)
	}
	if _, err := conn.Write(text); err != nil {
		t.Fatal(err)
	}
	for {
		var head [9]byte
		if _, err := io.ReadFull(conn, head[:]); err != nil {
			return "the end of the connection: " + err.Error()
		}
		payload := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
		if _, err := io.ReadFull(conn, payload); err != nil {
			return "the end of the connection: " + err.Error()
		}
		_, _ = a.Write(payload)
		switch head[3] {
		case frameReset:
			return "a reset"
		case frameAway:
			return "the end of the connection, orderly"
		case frameHeaders:
			if len(payload) > 0 && payload[0] == statusOK {
				return "200"
			}
			return "another status"
		}
	}
}

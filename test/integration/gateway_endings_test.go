// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"mime/multipart"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/test/vaulttest"
)

// TestGatewayEndings: however an exchange through the gateway ends, it is settled
// once, charged by what is known of it, and nothing stays reserved.
func TestGatewayEndings(t *testing.T) {
	t.Parallel()
	r := startGatewayRig(t, vaulttest.Options{}, nil)
	t.Run("CallerBreaksOffAnywhere", r.callersBreakOff)
	t.Run("ProviderBreaksOffAnywhere", r.providersBreakOff)
	t.Run("SlowReadersHoldTheProviderBack", r.slowReaders)
	t.Run("Silence", r.silence)
	t.Run("CallerBreaksOffOverHTTP2", r.callersBreakOffOverHTTP2)
}

// callersBreakOff: callers go away at any byte of their request or of the answer,
// by closing, by a reset, or by saying that they send no more.
func (r *rig) callersBreakOff(t *testing.T) {
	for name, c := range map[string]struct {
		ask    ask
		answer int // its length, about
	}{
		"endless": {ask{model: "up-stream:1000:60", prompt: 100, cap: 2000, stream: true}, 4_000}, // 60 s
		"stream":  {ask{model: "up-stream:8:20", prompt: 100, cap: 300, stream: true}, 4_000},
		"slow":    {ask{model: "up-slow:150", prompt: 100, cap: 300}, 1_000},
		"big":     {ask{model: "up-big:300000", prompt: 100, cap: 300}, 300_000},
	} {
		t.Run(name, func(t *testing.T) {
			v := r.limited(t, "gone-"+name, "usd=10000/month", "requests=100000/day", "concurrent=1000")
			whole := r.breakOff(t, v, c.answer, func(credential string) []byte {
				return v.raw(credential, "v1/chat/completions", "application/json", c.ask.text())
			})
			if name == "endless" {
				v.up.WaitCancelled(t, v.up.Received())
			}
			v.wantChargedOnce(t, c.ask, whole)
		})
	}
	t.Run("upload", func(t *testing.T) {
		v := r.limited(t, "gone-upload", "requests=100000/day", "concurrent=1000")
		var form bytes.Buffer
		m := multipart.NewWriter(&form)
		_ = m.WriteField("model", "up-slow:50") // a buffer takes all
		file, _ := m.CreateFormFile("file", "a.wav")
		_, _ = file.Write(make([]byte, 2<<20))
		_ = m.Close()
		whole := r.breakOff(t, v, 500, func(credential string) []byte {
			return v.raw(credential, "v1/audio/transcriptions", m.FormDataContentType(), form.Bytes())
		})
		s := v.settled(t)
		if used := int(s.Limits[0].Used); used < v.up.DeliveredTotal().Requests || used > whole {
			t.Errorf("%d uploads are charged, the provider answered %d, and %d were sent whole", used, v.up.DeliveredTotal().Requests, whole)
		}
	})
	if status := r.gatewayStatus(t); status["streams"] != 0.0 {
		t.Errorf("when all have gone, %v", status)
	}
}

// from has a virtual key's provider be elsewhere.
func (v *virtual) from(t *testing.T, baseURL string) {
	t.Helper()
	v.root.Write(t, mount+"/keys/"+v.name, map[string]any{"base_url": baseURL, "api_key": "a-provider-key"})
}

// text is the request's body.
func (a ask) text() []byte {
	text, err := json.Marshal(a.body())
	if err != nil {
		panic(err)
	}
	return text
}

// raw is a request on the virtual key as it is on the wire, the last on its
// connection.
func (v *virtual) raw(credential, path, contentType string, body []byte) []byte {
	return fmt.Appendf(nil, "POST /v1/%s HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\nX-Vault-Token: %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s",
		proxyPath(mount, v.name, path), credential, contentType, len(body), body)
}

// breakOff has many callers send a request and go away at random, and returns how
// many sent all of it. answer is about how long an answer is.
func (r *rig) breakOff(t *testing.T, v *virtual, answer int, request func(credential string) []byte) (whole int) {
	t.Helper()
	requests := [][]byte{request(v.vault.Token(t, v.name)), request(v.lease(t, v.vault.Token(t, v.leaser(t))))}
	var sentWhole, answered atomic.Int64
	var callers sync.WaitGroup
	for i := range 8 {
		callers.Go(func() {
			dice := r.random(i)
			for n := range rounds(6, 150) {
				text, expect := requests[n%2], answer
				if dice.IntN(3) == 0 {
					text, expect = text[:dice.IntN(len(text))], 0
				} else {
					sentWhole.Add(1)
				}
				got, err := r.gateway.sendAndGo(dice, text, expect)
				if err != nil {
					t.Error(err)
				}
				if got > 0 {
					answered.Add(1)
				}
			}
		})
	}
	callers.Wait()
	t.Logf("%d of %d sent their whole request, %d saw some answer, %d reached the provider",
		sentWhole.Load(), 8*rounds(6, 150), answered.Load(), v.up.Received())
	return int(sentWhole.Load())
}

// sendAndGo sends bytes, waits for a while or for some of the answer, of which about
// so many bytes can be expected, and goes. It returns how many came.
func (g *gatewayDoor) sendAndGo(dice *rand.Rand, text []byte, answer int) (got int64, err error) {
	conn, err := net.DialTimeout("tcp", g.addr, attempt)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write(text); err != nil {
		return 0, nil // the gateway has refused it already
	}
	switch wait := dice.IntN(3); {
	case wait == 0: // at once
	case wait == 1 || answer == 0:
		time.Sleep(time.Duration(dice.IntN(250)) * time.Millisecond)
	default:
		_ = conn.SetReadDeadline(time.Now().Add(attempt))
		got, _ = io.CopyN(io.Discard, conn, int64(1+dice.IntN(answer)))
	}
	switch tcp := conn.(*net.TCPConn); dice.IntN(3) {
	case 0:
		_ = tcp.SetLinger(0) // a reset
	case 1:
		_ = tcp.CloseWrite()
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.Copy(io.Discard, conn); err != nil && strings.Contains(err.Error(), "timeout") {
			return got, fmt.Errorf("a caller that sends no more was kept for %v", patience)
		}
	}
	return got, nil
}

// recorded is settled, for a virtual key whose second limit is on requests: the
// record is written a moment after limits are settled, when nobody waits for it.
func (v *virtual) recorded(t *testing.T) (s standing) {
	t.Helper()
	eventually(t, "the record of "+v.name, func() bool {
		s = v.settled(t)
		return s.Total.Requests >= int64(s.Limits[1].Used)
	})
	return s
}

// wantChargedOnce fails the test unless each request of a virtual key whose callers
// went away was charged once: by what the provider reported, or in whole as
// unconfirmed. All asked for a, and so many sent their request whole.
func (v *virtual) wantChargedOnce(t *testing.T, a ask, whole int) {
	t.Helper()
	s := v.recorded(t)
	d, received := v.up.DeliveredTotal(), int64(v.up.Received())
	usd, charged, unconfirmed := s.Limits[0], int64(s.Limits[1].Used), s.Total.Unconfirmed
	reported := charged - unconfirmed
	t.Logf("%d charged, %d of them unconfirmed, the provider received %d and answered %d", charged, unconfirmed, received, d.Requests)
	if charged < int64(d.Requests) || charged > int64(whole) || d.Requests == 0 || unconfirmed == 0 {
		t.Fatalf("%d are charged, %d of them unconfirmed; the provider answered %d, and %d were sent whole", charged, unconfirmed, d.Requests, whole)
	}
	each, output := in("usd", d)/int64(d.Requests), int64(d.CompletionTokens/d.Requests)
	if got := int64(usd.Used - usd.Unconfirmed); got != reported*each || reported*each > in("usd", d) {
		t.Errorf("%d is charged for %d requests that cost %d each", got, reported, each)
	}
	if got := s.Total.Output; got != unconfirmed*int64(a.cap)+reported*output {
		t.Errorf("%d tokens of output are charged, for %d requests of %d and %d unconfirmed ones of at most %d", got, reported, output, unconfirmed, a.cap)
	}
	if worst := int64(usd.Unconfirmed) / unconfirmed; int64(usd.Unconfirmed)%unconfirmed != 0 || worst < each || worst > a.worst("usd") {
		t.Errorf("%d is charged for %d unconfirmed requests; each is worth between %d and %d", usd.Unconfirmed, unconfirmed, each, a.worst("usd"))
	}
	if said, err := nano(s.Total.UncertainIn); err != nil || s.cost(t) != int64(usd.Used) || said != int64(usd.Unconfirmed) {
		t.Errorf("the record is %+v, and the limit counts %+v (%v)", s.Total, usd, err)
	}
}

// callersBreakOffOverHTTP2: streams that share a connection end one by one, and the
// others go on.
func (r *rig) callersBreakOffOverHTTP2(t *testing.T) {
	v := r.limited(t, "gone-http2", "usd=10000/month", "requests=100000/day", "concurrent=1000")
	from := r.gateway.overTLS(t, v.vault.Token(t, v.name))
	a := ask{model: "up-stream:8:50", prompt: 100, cap: 300, stream: true}
	var callers sync.WaitGroup
	var kept atomic.Int64
	const streams = 40
	for i := range streams {
		callers.Go(func() {
			dice := r.random(i)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if i%2 == 0 {
				time.AfterFunc(time.Duration(dice.IntN(600))*time.Millisecond, cancel)
			}
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, from.url+"/v1/"+chatPath(mount, v.name), bytes.NewReader(a.text()))
			if err != nil {
				t.Error(err)
				return
			}
			req.Header.Set("X-Vault-Token", from.token)
			req.Header.Set("Content-Type", "application/json")
			resp, err := from.http.Do(req)
			var text []byte
			if err == nil {
				text, err = io.ReadAll(resp.Body)
				_ = resp.Body.Close()
			}
			switch {
			case err == nil && resp.Proto == "HTTP/2.0" && bytes.Contains(text, []byte("data: [DONE]")):
				kept.Add(1)
			case i%2 == 1 || err == nil:
				t.Errorf("a stream beside those that were cancelled: %.300s (%v)", text, err)
			}
		})
	}
	callers.Wait()
	v.wantChargedOnce(t, a, streams)
	if n := kept.Load(); n < streams/2 {
		t.Errorf("%d of %d streams came to their end", n, streams)
	}
	r.gateway.open(t, map[string]any{"address": r.gateway.addr, "tls_certificate": "", "tls_key": ""})
}

// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
)

// TestGateway_RequestsArriveByteForByte: the provider receives what the caller
// sent, whatever is in it, but for the edits that the documentation names; those
// are made in place, with every other byte as it was.
func TestGateway_RequestsArriveByteForByte(t *testing.T) {
	t.Parallel()
	g := startGateway(t, gatewayOptions{})
	b := &bodyRig{gatewayRig: g, dice: jsonDice{Rand: rand.New(rand.NewPCG(seed(t), 1))}}
	plain := g.scripted(t, "plain", nil)
	capping := g.scripted(t, "capping", map[string]any{"limits": []string{"output_tokens=1000/day"}})
	filling := g.scripted(t, "filling", map[string]any{
		"default_params": map[string]any{"top_k": 3, "temperature": 0.5},
		"forced_params":  map[string]any{"user": "a team", "seed": 7},
	})
	b.from = g.exactly(t, g.token(t, "plain", "capping", "filling"))
	leave := func(_ string, j *jsonText) *jsonText { return j }

	t.Run("Unedited", func(t *testing.T) {
		for _, path := range []string{"v1/chat/completions", "v1/responses", "v1/embeddings", "v1/images/generations", "v1/anything/else"} {
			b.check(t, plain, path, nil, rounds(15, 1000), leave)
		}
		b.check(t, plain, chatRoute, map[string]string{"stream": "true", "stream_options": `{"include_usage":true }`}, 10, leave)
		b.check(t, plain, "v1/responses", map[string]string{"stream": "true"}, 5, leave)
	})
	t.Run("UsageAskedFor", func(t *testing.T) {
		for given, sent := range map[string]string{
			"": "", "null": `{"include_usage":true}`, " {}": `{"include_usage":true}`,
			`{"include_usage":false,"a" : 1e2}`: `{"include_usage":true,"a" : 1e2}`,
			`{ "b":[1.0] }`:                     `{ "b":[1.0] ,"include_usage":true}`,
		} {
			known := map[string]string{"stream": "true"}
			if given = strings.TrimSpace(given); given != "" {
				known["stream_options"] = given
			}
			b.check(t, plain, chatRoute, known, 5, func(_ string, j *jsonText) *jsonText {
				if sent == "" {
					return j.extended(`"stream_options":{"include_usage":true}`)
				}
				return j.replaced("stream_options", sent)
			})
		}
	})
	t.Run("VirtualKeyTakenOutOfTheModel", func(t *testing.T) {
		for given, sent := range map[string]string{
			`"@plain/up-ok"`: `"up-ok"`, `"\u0040plain\/m\u006fdel/with:\"quotes\""`: `"model/with:\"quotes\""`, `"@plain/@plain/x"`: `"@plain/x"`,
		} {
			b.check(t, plain, chatRoute, map[string]string{"model": given}, 5, func(_ string, j *jsonText) *jsonText { return j.replaced("model", sent) })
		}
	})
	t.Run("ParametersOfTheVirtualKey", func(t *testing.T) {
		b.check(t, filling, chatRoute, map[string]string{"user": `"some\u0062ody"`, "top_k": "4.0"}, 10, func(_ string, j *jsonText) *jsonText {
			return j.replaced("user", `"a team"`).extended(`"temperature":0.5`).extended(`"seed":7`)
		})
	})
	t.Run("CapOnOutput", func(t *testing.T) { b.caps(t, capping) })
	t.Run("ByRedirect", func(t *testing.T) {
		from := b.from
		defer func() { b.from, b.dice.forVault = from, false }()
		b.from, b.dice.forVault = from.to(g.vault.Addr), true
		b.check(t, plain, chatRoute, map[string]string{"stream": " true", "stream_options": `{"include_usage":true}`}, rounds(15, 1000), leave)
	})
	t.Run("HalvesOfSurrogatePairs", func(t *testing.T) {
		for _, body := range []string{
			`{"model":"up-ok","messages":[],"user":"\ud800"}`, `{"model":"up-ok","messages":[],"us\udc00er":1}`, `{"model":"up-ok","messages":[],"a":"\ud83d\ude00\ud83d"}`,
		} {
			b.send(t, plain, chatRoute, body, true)
			wantBytes(t, "the provider received", plain.one(t).Body, []byte(body))
		}
	})
	t.Run("LargeImages", func(t *testing.T) { b.images(t, plain) })
	t.Run("NothingButWhatTheCallerSent", func(t *testing.T) { b.others(t, plain) })
}

const chatRoute = "v1/chat/completions"

// bodyRig sends random bodies.
type bodyRig struct {
	*gatewayRig
	dice jsonDice
	from *exactCaller
}

// check sends random bodies with the known members, and compares what the provider
// receives with what edit makes of each. Half of them name the virtual key by a
// header.
func (b *bodyRig) check(t *testing.T, s *scripted, path string, known map[string]string, times int, edit func(path string, j *jsonText) *jsonText) {
	t.Helper()
	for i := range times {
		members := map[string]string{"model": `"up-ok"`, "messages": "[" + b.dice.value(6) + "]", "input": `"x"`, "max_tokens": "10"}
		maps.Copy(members, known)
		sent := b.dice.request(members)
		b.send(t, s, path, sent.string(), i%2 == 0)
		got := s.one(t)
		wantBytes(t, fmt.Sprintf("of %s\n%q\nthe provider received", path, sent.string()), got.Body, []byte(edit(path, sent).string()))
		if got.Length != int64(len(got.Body)) || got.Header.Get("Content-Type") != "application/json" {
			t.Fatalf("the body of %d bytes came with %v, Content-Length %d", len(got.Body), got.Header, got.Length)
		}
	}
}

// send sends one body, and ends the test unless it is accepted.
func (b *bodyRig) send(t *testing.T, s *scripted, path, body string, byPath bool) *exactAnswer {
	t.Helper()
	target, header := b.proxied(s.role, path), http.Header{}
	if !byPath && b.from.url == b.url {
		target, header = "/"+path, http.Header{"X-Portkey-Virtual-Key": {s.role}}
	}
	a := b.from.do(t, http.MethodPost, target, header, strings.NewReader(body))
	if a.Status != http.StatusOK || a.Err != nil {
		t.Fatalf("status %d (%v) %.500s for\n%q", a.Status, a.Err, a.Body, body)
	}
	return a
}

// caps: a role with 1,000 tokens of output a day, of which 400 are used.
func (b *bodyRig) caps(t *testing.T, s *scripted) {
	answer := func(output int) string {
		return fmt.Sprintf(`{"id":"c","object":"chat.completion","model":"up-ok","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":%d,"total_tokens":%d}}`, output, output+1)
	}
	s.pieces("application/json", answer(400))
	body := `{"model":"up-ok","messages":[],"max_tokens":500}`
	if a := b.send(t, s, chatRoute, body, true); a.Header.Get("X-Portkey-Capped") != "" {
		t.Errorf("a request that fits was capped: %v", a.Header)
	}
	s.received()
	s.pieces("application/json", answer(0))
	for given, sent := range map[string]string{
		`"max_tokens" : 600`: `"max_tokens" : 600`, `"max_tokens": 1000 `: `"max_tokens": 600 `, `"max_tokens":601`: `"max_tokens":600`, `"n":1`: `"n":1,"max_tokens":600`,
		`"max_completion_tokens":900`: `"max_completion_tokens":600,"max_tokens":600`,
		`"max_tokens":null`:           `"max_tokens":600`,
	} {
		head := ` {"big":9007199254740993,  "model":"up-ok" ,"messages":[] ,`
		a := b.send(t, s, chatRoute, head+given+"}", true)
		wantBytes(t, given+": the provider received", s.one(t).Body, []byte(head+sent+"}"))
		want := "600"
		if given == sent {
			want = ""
		}
		if got := a.Header.Get("X-Portkey-Capped"); got != want {
			t.Errorf("%s: X-Portkey-Capped is %q, expected %q", given, got, want)
		}
	}
}

// images: an image of 20 MiB in a message, of known and of unknown length.
func (b *bodyRig) images(t *testing.T, s *scripted) {
	image := b.dice.noise(20 << 20)
	text := []byte(`{"model":"up-ok","stream":true,"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,` +
		base64.StdEncoding.EncodeToString(image) + `"}}]}],"n":1.0}`)
	want := append(bytes.Clone(text[:len(text)-1]), `,"stream_options":{"include_usage":true}}`...)
	for _, body := range []io.Reader{bytes.NewReader(text), io.MultiReader(bytes.NewReader(text))} {
		a := b.from.do(t, http.MethodPost, b.proxied(s.role, chatRoute), nil, body)
		if a.Status != http.StatusOK {
			t.Fatalf("status %d %.300s", a.Status, a.Body)
		}
		wantBytes(t, "the provider received", s.one(t).Body, want)
	}
}

// others: bodies that aren't JSON, none at all, queries, and headers.
func (b *bodyRig) others(t *testing.T, s *scripted) {
	noise := b.dice.noise(300_000)
	a := b.from.do(t, http.MethodPost, b.proxied(s.role, "v1/uploads/raw"), http.Header{"Content-Type": {"audio/wav"}}, bytes.NewReader(noise))
	a.wantBody(t, http.StatusOK, "{}")
	got := s.one(t)
	wantBytes(t, "the provider received", got.Body, noise)
	if got.Header.Get("Content-Type") != "audio/wav" {
		t.Errorf("the type became %q", got.Header.Get("Content-Type"))
	}
	b.from.do(t, http.MethodGet, b.proxied(s.role, "v1/files?after=a%2Fb&x=%20+&key=secret&x=1"), nil, nil).wantBody(t, http.StatusOK, "{}")
	if got := s.one(t); got.URI != "/v1/files?after=a%2Fb&x=%20+&x=1" || len(got.Body) > 0 {
		t.Errorf("the provider received %s %q", got.URI, got.Body)
	}
	b.from.do(t, http.MethodPost, b.proxied(s.role, "v1/files/f/cancel"), nil, nil).wantBody(t, http.StatusOK, "{}")
	if got := s.one(t); len(got.Body) > 0 {
		t.Errorf("the provider received %q", got.Body)
	}
	b.from.do(t, http.MethodPost, b.proxied(s.role, chatRoute), http.Header{
		"Cookie": {"a=b"}, "X-Portkey-Trace-Id": {"mine"}, "X-Portkey-Metadata": {"{}"}, "X-Forwarded-For": {"192.0.2.1"}, "Openai-Beta": {"x=y"},
		"User-Agent": {"an-sdk/1"}, "X-Vault-Namespace": {""}, "Api-Key": {"k"}, "Openai-Organization": {"o"},
	}, strings.NewReader(`{"model":"up-ok","messages":[]}`)).wantBody(t, http.StatusOK, "{}")
	got = s.one(t)
	for name := range got.Header {
		switch name {
		case "Accept-Encoding", "Authorization", "Content-Length", "Content-Type", "Openai-Beta", "User-Agent":
		default:
			t.Errorf("the provider received the header %s", name)
		}
	}
	if got.Header.Get("Authorization") != "Bearer "+scriptedKey || got.Header.Get("User-Agent") != "an-sdk/1" || got.Header.Get("Openai-Beta") != "x=y" {
		t.Errorf("the provider received the headers %v", got.Header)
	}
}

// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"vault-plugin-secrets-portkey/test/upstream"
	"vault-plugin-secrets-portkey/test/vaulttest"
)

// breaking is a provider that breaks off after as many bytes of its answer as the
// model cut-<bytes>-<how> names, by a reset or by closing.
type breaking struct {
	net.Listener
	stream, plain []byte // whole answers, with their heads
}

// startBreaking starts a breaking provider, which answers as test/upstream does.
func startBreaking(t *testing.T, a ask) *breaking {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	b := &breaking{Listener: l}
	up := upstream.Start(t, upstream.Options{})
	record := func(stream bool) []byte {
		body := with(a.body(), map[string]any{"stream": stream})
		if stream {
			body["stream_options"] = map[string]any{"include_usage": true}
		}
		text, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.Post(up.URL()+"/chat/completions", "application/json", bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		answer, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("status %d (%v): %s", resp.StatusCode, err, answer)
		}
		return answer
	}
	body := record(false)
	b.plain = fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	b.stream = []byte("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
	for event := range strings.SplitAfterSeq(string(record(true)), "\n\n") {
		b.stream = fmt.Appendf(b.stream, "%x\r\n%s\r\n", len(event), event) // the last is empty, which ends it
	}
	go b.serve()
	return b
}

func (b *breaking) serve() {
	for {
		conn, err := b.Accept()
		if err != nil {
			return // the test is over
		}
		go b.answer(conn.(*net.TCPConn))
	}
}

func (b *breaking) answer(conn *net.TCPConn) {
	defer func() { _ = conn.Close() }()
	req, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil {
		return
	}
	var asked struct {
		Model  string
		Stream bool
	}
	if json.NewDecoder(req.Body).Decode(&asked) != nil {
		return
	}
	text, how, _ := strings.Cut(strings.TrimPrefix(asked.Model, "cut-"), "-")
	n, err := strconv.Atoi(text)
	if err != nil {
		return
	}
	answer := b.plain
	if asked.Stream {
		answer = b.stream
	}
	_, _ = conn.Write(answer[:n])
	if how == "reset" {
		_ = conn.SetLinger(0)
	}
}

// providersBreakOff: the provider breaks off at any byte of its answer. Callers see
// that, and are charged what was reported by then, or all that was reserved.
func (r *rig) providersBreakOff(t *testing.T) {
	const tokens = 12
	a := ask{model: fmt.Sprintf("up-stream:%d:0", tokens), prompt: 100, cap: 300}
	b := startBreaking(t, a)
	r.root.Write(t, mount+"/prices/openai-compatible/cut-*", map[string]any{"input": exactInput, "output": exactOutput})
	v := r.limited(t, "breaking", "usd=10000/month", "requests=100000/day")
	v.from(t, "http://"+b.Addr().String()+"/v1")
	caller := v.caller(t, 1, patience)
	usage := bytes.Index(b.stream, []byte(`"usage":{`)) // it begins to come here
	done := bytes.Index(b.stream, []byte("data: [DONE]"))
	before, wrong := v.standing(t), 0
	for i := range rounds(80, 1500) {
		whole := b.plain
		if a.stream = i%2 == 0; a.stream {
			whole = b.stream
		}
		n := v.dice.IntN(len(whole) + 1)
		if i < 4 { // all but the last byte, and all
			n = len(whole) - 1 + i/2
		}
		how := []string{"reset", "close"}[v.dice.IntN(2)]
		if n == len(whole) {
			how = "close"
		}
		a.model = fmt.Sprintf("cut-%d-%s", n, how)
		resp, err := caller.Do(t.Context(), http.MethodPost, chatPath(mount, v.name), a.body())
		if said := seenOf(resp, err, a.stream, n-bytes.Index(whole, []byte("\r\n\r\n"))-4, n == len(whole), how); said != "" {
			if wrong++; wrong <= 3 {
				t.Errorf("after %d of %d bytes (%s), streamed %t: %s", n, len(whole), a.model, a.stream, said)
			}
		}
		var after standing
		eventually(t, "the request to be settled", func() bool { after = v.standing(t); return after.Total.Requests > before.Total.Requests })
		reported := n == len(whole) || a.stream && n >= done
		if a.stream && n > usage && (n < done || how == "reset") {
			reported = after.Total.Unconfirmed == before.Total.Unconfirmed // whichever
		}
		output, unconfirmed := int64(a.cap), int64(1)
		if reported {
			output, unconfirmed = tokens, 0
		}
		got := [3]int64{after.Total.Requests - before.Total.Requests, after.Total.Output - before.Total.Output, after.Total.Unconfirmed - before.Total.Unconfirmed}
		if want := [3]int64{1, output, unconfirmed}; got != want {
			t.Errorf("after %d of %d bytes (%s): requests, output, unconfirmed %v, expected %v", n, len(whole), a.model, got, want)
		}
		cost := after.cost(t) - before.cost(t)
		if least := in("usd", upstream.Delivered{PromptTokens: 25, CompletionTokens: int(output)}); cost != least && (reported || cost < least || cost > a.worst("usd")) {
			t.Errorf("after %d of %d bytes (%s): it cost %d, expected %d or, unconfirmed, up to %d", n, len(whole), a.model, cost, least, a.worst("usd"))
		}
		for i, want := range []int64{after.cost(t), after.Total.Requests} {
			if row := after.Limits[i]; int64(row.Used) != want || row.Reserved != 0 {
				t.Errorf("after %d of %d bytes the record has %d, and the limit counts %+v", n, len(whole), want, row)
			}
		}
		before = after
	}
	t.Logf("%d answers told their callers otherwise than they should", wrong)
}

// seenOf says what is wrong with what the caller got of an answer of which so many
// bytes of the body came; "" for nothing. A reset may throw away what was sent.
func seenOf(resp *vaulttest.Response, err error, stream bool, body int, whole bool, how string) string {
	if err != nil {
		return err.Error()
	}
	failed := resp.Status == http.StatusBadGateway && bytes.Contains(resp.Body, []byte(`"upstream_unreachable"`))
	told := resp.Status == http.StatusOK && bytes.Contains(resp.Body, []byte("\nevent: error\ndata: {"))
	switch {
	case whole && resp.Status == http.StatusOK && !told:
		return ""
	case whole:
	case !stream || body < 0:
		if failed {
			return ""
		}
	case told || failed && how == "reset":
		return ""
	}
	return resp.String()
}

// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// endless is a provider whose streams never end and come as fast as they are taken.
type endless struct {
	*httptest.Server
	written  atomic.Int64 // bytes that the connections took
	underWay atomic.Int64
}

func startEndless(t *testing.T) *endless {
	t.Helper()
	e := &endless{}
	text := []byte(chunkEvent(strings.Repeat("x", 16<<10)))
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.underWay.Add(1)
		defer e.underWay.Add(-1)
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		for r.Context().Err() == nil {
			n, err := w.Write(text)
			if e.written.Add(int64(n)); err != nil {
				return
			}
		}
	}))
	t.Cleanup(e.Close)
	return e
}

// slowReader is a caller on a connection of its own, with little room for what it
// hasn't read.
func (v *virtual) slowReader(t *testing.T, credential string, a ask) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", v.gateway.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.(*net.TCPConn).SetReadBuffer(256 << 10) // without, the system takes more before it stops
	if _, err := conn.Write(v.raw(credential, "v1/chat/completions", "application/json", a.text())); err != nil {
		t.Fatal(err)
	}
	return conn
}

// resident is a process's memory in bytes.
func resident(t *testing.T, pid int) int64 {
	t.Helper()
	said, err := exec.CommandContext(t.Context(), "ps", "-o", "rss=", "-p", strconv.Itoa(pid)).Output()
	kib, bad := strconv.ParseInt(strings.TrimSpace(string(said)), 10, 64)
	if err != nil || bad != nil {
		t.Fatalf("ps says %q (%v, %v)", said, err, bad)
	}
	return kib << 10
}

// slowReaders: callers who read nothing, or little, of endless streams have the
// provider wait for them, and not the plugin's memory grow. They lose nothing, and
// when they go the provider is told.
func (r *rig) slowReaders(t *testing.T) {
	e := startEndless(t)
	v := r.limited(t, "endless", "usd=10000/month", "requests=1000/day", "concurrent=100")
	v.from(t, e.URL+"/v1")
	tokens := []string{v.vault.Token(t, v.name), v.lease(t, v.vault.Token(t, v.leaser(t)))}
	a := ask{model: "up-ok", prompt: 10, cap: 300, stream: true}
	pid := r.vault.PluginPIDs()[0]
	before := resident(t, pid)

	const readers = 12
	conns := make([]net.Conn, readers)
	var reading sync.WaitGroup
	stop := make(chan struct{})
	for i := range conns {
		conns[i] = v.slowReader(t, tokens[i%2], a)
		if i%3 == 0 { // the others read nothing
			reading.Go(func() { readSlowly(conns[i], stop) })
		}
	}
	// Provider and plugin are quick: what isn't held back now never will be.
	eventually(t, "all streams to begin", func() bool { return e.underWay.Load() == readers && e.written.Load() > readers*64<<10 })
	eventually(t, "the provider to be held back", func() bool {
		was := e.written.Load()
		time.Sleep(2 * time.Second)
		return e.written.Load()-was < 1<<20
	})
	// The system holds some megabytes for each of the two connections of a stream.
	written, grown := e.written.Load(), resident(t, pid)-before
	t.Logf("the provider wrote %.1f MiB for %d slow readers; the plugin grew by %.1f MiB to %.1f MiB",
		float64(written)/(1<<20), readers, float64(grown)/(1<<20), float64(before+grown)/(1<<20))
	if grown > 32<<20 || written > readers*32<<20 {
		t.Errorf("for %d slow readers the provider wrote %d bytes, and the plugin grew by %d", readers, written, grown)
	}
	close(stop)
	reading.Wait()
	for i, conn := range conns { // some read on, and find all that there was
		if i%2 == 0 {
			_ = conn.SetReadDeadline(time.Now().Add(patience))
			var text bytes.Buffer
			if n, err := io.CopyN(&text, conn, 4<<20); err != nil || bytes.Contains(text.Bytes(), []byte("event: error")) {
				t.Errorf("a slow reader who reads on gets %d bytes (%v)", n, err)
			}
		}
		_ = conn.Close()
	}
	eventually(t, "the provider to be told that all have gone", func() bool { return e.underWay.Load() == 0 })
	s := v.recorded(t)
	if got := s.Total; got.Requests != readers || got.Unconfirmed != readers || got.Output != readers*int64(a.cap) || int64(s.Limits[0].Used) != s.cost(t) {
		t.Errorf("%d callers who went away in mid-stream are %+v, %+v", readers, got, s.Limits)
	}
}

// readSlowly reads 1 KiB a second.
func readSlowly(conn net.Conn, stop chan struct{}) {
	piece := make([]byte, 128)
	for {
		select {
		case <-stop:
			return
		case <-time.After(125 * time.Millisecond):
			if _, err := conn.Read(piece); err != nil {
				return // what is read later says so
			}
		}
	}
}

// silence: a provider that stops in mid-answer is waited for as long as
// idle_timeout says, from its last byte on; one that hasn't begun, as long as
// upstream_timeout does. A caller who takes nothing is waited for as long.
func (r *rig) silence(t *testing.T) {
	const idle, whole = 2 * time.Second, 4 * time.Second
	r.gateway.open(t, map[string]any{"address": r.gateway.addr, "idle_timeout": idle.String(), "upstream_timeout": whole.String()})
	defer r.gateway.open(t, map[string]any{"address": r.gateway.addr, "idle_timeout": "5m", "upstream_timeout": "10m"})
	v := r.limited(t, "silent", "usd=10000/month", "requests=1000/day", "concurrent=100")
	// The caller's own silence; its system's buffers are soon full.
	taken := r.limited(t, "untaken", "usd=10000/month", "requests=1000/day", "concurrent=100")
	taken.slowReader(t, taken.vault.Token(t, taken.name), ask{model: fmt.Sprintf("up-big:%d", 24<<20), prompt: 10, cap: 5000, stream: true})

	var asking sync.WaitGroup
	for i, c := range []struct {
		model  string
		stream bool
		status int
		least  time.Duration
	}{
		{"up-hang-mid", true, http.StatusOK, idle},
		{"up-hang-mid", false, http.StatusGatewayTimeout, idle},
		{"up-hang", true, http.StatusGatewayTimeout, whole},
		{"up-hang", false, http.StatusGatewayTimeout, whole},
		{"up-stream:200:100", true, http.StatusOK, whole}, // never idle
	} {
		caller := v.caller(t, i, patience)
		asking.Go(func() {
			began := time.Now()
			resp, err := caller.Do(t.Context(), http.MethodPost, chatPath(mount, v.name), ask{model: c.model, prompt: 10, cap: 300, stream: c.stream}.body())
			took := time.Since(began)
			if err != nil || resp.Status != c.status || took < c.least || !bytes.Contains(resp.Body, []byte(`"code":"upstream_timeout"`)) {
				t.Errorf("%s, streamed %t: after %v %v (%v)", c.model, c.stream, took, resp, err)
				return
			}
			if named := bytes.Contains(resp.Body, []byte("idle_timeout")); named != (c.least == idle) {
				t.Errorf("%s, streamed %t: %s", c.model, c.stream, resp)
			}
			if c.status == http.StatusOK && !bytes.Contains(resp.Body, []byte("\nevent: error\ndata: {")) {
				t.Errorf("%s: the stream ends with %q", c.model, resp.Body[max(0, len(resp.Body)-300):])
			}
		})
	}
	asking.Wait()
	v.up.WaitCancelled(t, 5)
	if got := v.recorded(t).Total; got.Requests != 5 || got.Failed != 5 || got.Unconfirmed != 5 || got.Output != 5*300 {
		t.Errorf("five silent providers are %+v", got)
	}

	taken.up.WaitCancelled(t, 1)
	if got := taken.recorded(t).Total; got.Requests != 1 || got.Unconfirmed != 1 {
		t.Errorf("a caller who took nothing is %+v", got)
	}
}

// SPDX-License-Identifier: MPL-2.0

//go:build integration && linux

package integration_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/test/upstream"
)

// perStream is what one open stream may take of the plugin's memory, in KiB.
const perStream = 64

// Very many streams are open at once: 500, and 5,000 in `make soak`. None breaks, and
// each takes little memory; a drain then ends others in order.
func TestGateway_ManyStreamsAreOpenAtOnceAndADrainEndsThemInOrder(t *testing.T) {
	many := rounds(500, 5000)
	g := startGateway(t, gatewayOptions{plain: true, upstream: upstream.Options{}})
	g.role(t, "many", map[string]any{"limits": []string{"requests=1000000/day", "concurrent=100000"}})
	key, _ := g.root.Read(t, g.mount+"/creds/many").Data()["api_key"].(string)
	client := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 0, DisableKeepAlives: true}}
	s := &streams{t: t, client: client, url: g.url + "/v1/chat/completions", key: key}

	s.run(50, 2, 10) // what is made once, such as buffers, is there
	before := pluginKiB(t, g)
	// Long enough for all to be open before the first ends.
	open := time.Duration(many/50+5) * time.Second
	wait := s.begin(many, 20, int(open/time.Millisecond)/20)
	for end := time.Now().Add(open); s.opened.Load()-s.ended.Load() < int64(many) && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond)
	}
	opened := s.opened.Load() - s.ended.Load()
	at := pluginKiB(t, g)
	if opened < int64(many) {
		t.Errorf("%d of %d streams were open at once", opened, many)
	}
	each := float64(at-before) / float64(max(opened, 1))
	t.Logf("%d streams: the plugin takes %d KiB, %d before: %.1f KiB a stream", opened, at, before, each)
	if each > perStream {
		t.Errorf("a stream takes %.1f KiB of memory, more than %d", each, perStream)
	}
	wait()
	if s.broken.Load() > 0 {
		t.Errorf("%d of %d streams broke: %v", s.broken.Load(), many, s.why.Load())
	}

	// A drain.
	wait = s.begin(many/5, 20, 200)
	for s.opened.Load() < int64(50+many+many/5) {
		time.Sleep(20 * time.Millisecond)
	}
	drained := g.root.Write(t, g.mount+"/config/gateway/drain", map[string]any{"timeout": "1m"})
	if n, _ := drained.Data()["streams"].(float64); n == 0 {
		t.Errorf("nothing is under way: %s", drained)
	}
	if resp, err := s.ask(1, 1); err != nil || resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a new request is answered with %v, %v", resp, err)
	} else {
		_ = resp.Body.Close()
	}
	wait()
	if s.broken.Load() > 0 {
		t.Errorf("%d streams broke in the drain: %v", s.broken.Load(), s.why.Load())
	}
	if n := g.root.Write(t, g.mount+"/config/gateway/drain", nil).Data()["streams"]; n != 0.0 {
		t.Errorf("%v requests are under way after all have ended", n)
	}
}

// streams opens streams and reads them to their ends.
type streams struct {
	t                     *testing.T
	client                *http.Client
	url, key              string
	opened, ended, broken atomic.Int64
	why                   atomic.Value
}

func (s *streams) ask(events, ms int) (*http.Response, error) {
	body := fmt.Sprintf(`{"model":"up-stream:%d:%d","stream":true,"messages":[{"role":"user","content":"Hi"}]}`, events, ms)
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, s.url, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+s.key)
	req.Header.Set("Content-Type", "application/json")
	return s.client.Do(req)
}

// begin opens n streams of so many events, one each ms, and returns what waits for
// their ends.
func (s *streams) begin(n, events, ms int) (wait func()) {
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			if err := s.one(events, ms); err != nil {
				s.broken.Add(1)
				s.why.Store(err.Error())
			}
			s.ended.Add(1)
		})
	}
	return all.Wait
}

func (s *streams) run(n, events, ms int) { s.begin(n, events, ms)() }

// one reads one stream, which must have all its events and its marker of the end.
func (s *streams) one(events, ms int) error {
	resp, err := s.ask(events, ms)
	s.opened.Add(1)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	tokens, done := 0, false
	for lines := bufio.NewReaderSize(resp.Body, 1024); ; {
		line, err := lines.ReadString('\n')
		if strings.Contains(line, `"content":"t`) {
			tokens++
		}
		done = done || strings.HasPrefix(line, "data: [DONE]")
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if resp.StatusCode != http.StatusOK || tokens != events || !done {
		return fmt.Errorf("status %d, %d of %d tokens, end %t", resp.StatusCode, tokens, events, done)
	}
	return nil
}

// pluginKiB is the resident memory of the plugin's process.
func pluginKiB(t *testing.T, g *gatewayRig) int {
	t.Helper()
	total := 0
	for _, pid := range g.vault.Leader(t).PluginPIDs() {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			t.Fatal(err)
		}
		_, after, _ := strings.Cut(string(status), "VmRSS:")
		n, err := strconv.Atoi(strings.Fields(after)[0])
		if err != nil {
			t.Fatal(err)
		}
		total += n
	}
	return total
}

// SPDX-License-Identifier: MPL-2.0

//go:build integration && linux

package integration_test

import (
	"bufio"
	"crypto/tls"
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

// perStream is what one open stream may take of the plugin's memory, in KiB. One by TLS and
// HTTP/1 takes more: crypto/tls has a state and buffers for it, and a handshake leaves
// garbage, of which there is relatively more with few streams. See docs/performance.md.
const perStream = 64

// Very many streams are open at once: 500, and 5,000 in `make soak`. None breaks, and
// each takes little memory; a drain then ends others in order. So it is however callers
// and the provider speak.
func TestGateway_ManyStreamsAreOpenAtOnceAndADrainEndsThemInOrder(t *testing.T) {
	for name, w := range map[string]wire{
		"Plain":         {most: perStream},
		"TLS":           {most: rounds(112, 96), secure: true},
		"HTTP2":         {most: perStream, secure: true, perConn: 100, soak: true},
		"TLSToProvider": {most: perStream, provider: true, soak: true},
		"TLSBothWays":   {most: 80, secure: true, provider: true, soak: true},
	} {
		if w.soak && !soaking() {
			continue
		}
		t.Run(name, func(t *testing.T) {
			if !soaking() { // 5,000 are enough for two processors
				t.Parallel()
			}
			w.manyStreams(t)
		})
	}
}

// wire is how callers reach the gateway, and the gateway the provider: by plain HTTP/1
// unless it says otherwise.
type wire struct {
	most     int  // KiB a stream
	secure   bool // callers by TLS
	perConn  int  // callers by HTTP/2, with so many streams on a connection; 0 is HTTP/1
	provider bool // the provider by TLS, and by HTTP/2
	soak     bool // in `make soak` only
}

// clients returns the clients of n streams, which share them out evenly. One for each
// connection of HTTP/2, since a Transport that is asked for many streams at once opens
// as many connections.
func (w wire) clients(t *testing.T, n int) []*http.Client {
	one := func() *http.Client {
		to := &http.Transport{DisableKeepAlives: w.perConn == 0, ForceAttemptHTTP2: w.perConn > 0}
		if w.secure {
			to.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
		}
		t.Cleanup(to.CloseIdleConnections)
		return &http.Client{Transport: to}
	}
	list := []*http.Client{one()}
	for w.perConn > 0 && len(list)*w.perConn < n {
		list = append(list, one())
	}
	return list
}

// start starts a gateway, with its virtual key "many".
func (w wire) start(t *testing.T) *gatewayRig {
	o := gatewayOptions{plain: true}
	up := upstream.Start(t, upstream.Options{TLS: w.provider, Discard: true})
	if w.provider {
		o.Env = []string{"SSL_CERT_FILE=" + up.CAFile()}
	}
	if w.secure {
		certificate, key := tlsPair(t)
		o.settings = map[string]any{"tls_certificate": certificate, "tls_key": key}
	}
	g := startGateway(t, o)
	g.root.Write(t, g.mount+"/keys/many", map[string]any{"provider": "openai-compatible", "base_url": up.URL(), "api_key": "a-provider-key"})
	g.role(t, "many", map[string]any{"key": "many", "limits": []string{"requests=1000000/day", "concurrent=100000"}})
	return g
}

func (w wire) manyStreams(t *testing.T) {
	many := rounds(500, 5000)
	g := w.start(t)
	key, _ := g.root.Read(t, g.mount+"/creds/many").Data()["api_key"].(string)
	s := &streams{t: t, clients: w.clients(t, many), url: g.url + "/v1/chat/completions", key: key, opening: make(chan struct{}, atOnce)}

	s.run(max(50, len(s.clients)), 2, 10) // what is made once, such as buffers, is there
	before := pluginKiB(t, g)
	first := s.opened.Load()
	// Long enough for all to be open before the first ends, and for garbage to gather.
	open := time.Duration(many/50+5) * time.Second
	wait := s.begin(many, 20, int(open/time.Millisecond)/20)
	opened, most := int64(0), 0
	for end := time.Now().Add(open - time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if opened = max(opened, s.opened.Load()-s.ended.Load()); opened == int64(many) {
			most = max(most, pluginKiB(t, g))
		}
	}
	if opened < int64(many) {
		t.Errorf("%d of %d streams were open at once", opened, many)
	}
	each := float64(most-before) / float64(many)
	t.Logf("%d streams: the plugin takes up to %d KiB, %d before: %.1f KiB a stream", opened, most, before, each)
	if each > float64(w.most) {
		t.Errorf("a stream takes %.1f KiB of memory, more than %d", each, w.most)
	}
	wait()
	if s.broken.Load() > 0 {
		t.Errorf("%d of %d streams broke: %v", s.broken.Load(), many, s.why.Load())
	}

	// A drain.
	wait = s.begin(many/5, 20, 200)
	for s.opened.Load() < first+int64(many+many/5) {
		time.Sleep(20 * time.Millisecond)
	}
	drained := g.root.Write(t, g.mount+"/config/gateway/drain", map[string]any{"timeout": "1m"})
	if n, _ := drained.Data()["streams"].(float64); n == 0 {
		t.Errorf("nothing is under way: %s", drained)
	}
	if resp, err := s.ask(s.clients[0], 1, 1); err != nil || resp.StatusCode != http.StatusServiceUnavailable {
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
	clients               []*http.Client
	url, key              string
	opened, ended, broken atomic.Int64
	why                   atomic.Value
	opening               chan struct{} // has room for those that are being opened
}

// atOnce is how many streams are opened at the same time: few enough for a gateway and
// callers who share two processors to make none wait for 10 s, which is what a TLS
// handshake may take.
const atOnce = 50

func (s *streams) ask(client *http.Client, events, ms int) (*http.Response, error) {
	body := fmt.Sprintf(`{"model":"up-stream:%d:%d","stream":true,"messages":[{"role":"user","content":"Hi"}]}`, events, ms)
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, s.url, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+s.key)
	req.Header.Set("Content-Type", "application/json")
	return client.Do(req)
}

// begin opens n streams of so many events, one each ms, and returns what waits for
// their ends.
func (s *streams) begin(n, events, ms int) (wait func()) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			if err := s.one(s.clients[i%len(s.clients)], events, ms); err != nil {
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
func (s *streams) one(client *http.Client, events, ms int) error {
	s.opening <- struct{}{}
	resp, err := s.ask(client, events, ms)
	<-s.opening
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

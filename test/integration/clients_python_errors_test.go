// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// pyPackages are those of frameworks.py, in the environment with openai 2 or not,
// and what it imports for them.
var pyPackages = map[bool]struct{ names, imports []string }{
	false: {
		[]string{"openai", "openai-async", "portkey-ai", "portkey-ai-async", "langchain", "langchain-async", "agents", "agents-responses", "litellm", "litellm-async"},
		[]string{"openai", "portkey_ai", "langchain_openai", "agents", "litellm"},
	},
	true: {
		[]string{"llamaindex", "llamaindex-async"},
		[]string{"llama_index.llms.openai_like"},
	},
}

// pyFront stands between the packages and the gateway, and notes each attempt. It is
// safe for concurrent use.
type pyFront struct {
	url string

	mu       sync.Mutex
	attempts map[string][]pyAttempt // by virtual key
}

// pyAttempt is a request to the gateway, and its answer.
type pyAttempt struct {
	sent, ended time.Time
	status      int
	retryAfter  string
}

func startPyFront(t *testing.T, g *gatewayRig) *pyFront {
	t.Helper()
	to, err := url.Parse(g.url)
	if err != nil {
		t.Fatal(err)
	}
	f := &pyFront{attempts: map[string][]pyAttempt{}}
	proxy := &httputil.ReverseProxy{
		FlushInterval: -1,
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(to) },
		ModifyResponse: func(resp *http.Response) error {
			f.note(resp)
			return nil
		},
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fullDuplex(w)
		r.Header.Set("X-Sent", strconv.FormatInt(time.Now().UnixNano(), 10))
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	f.url = server.URL
	return f
}

// fullDuplex has net/http leave a request's body alone while a ReverseProxy answers.
// Otherwise it closes the body as the answer begins; if the transport looks for its end
// only then, it breaks the answer off.
func fullDuplex(w http.ResponseWriter) { _ = http.NewResponseController(w).EnableFullDuplex() }

// note takes down an attempt whose answer has begun.
func (f *pyFront) note(resp *http.Response) {
	sent, _ := strconv.ParseInt(resp.Request.Header.Get("X-Sent"), 10, 64) // this front's own
	key := resp.Request.Header.Get("X-Portkey-Virtual-Key")
	f.mu.Lock()
	defer f.mu.Unlock()
	f.attempts[key] = append(f.attempts[key], pyAttempt{
		sent: time.Unix(0, sent), ended: time.Now(), status: resp.StatusCode, retryAfter: resp.Header.Get("Retry-After"),
	})
}

// of returns the attempts on a virtual key.
func (f *pyFront) of(key string) []pyAttempt {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]pyAttempt(nil), f.attempts[key]...)
}

// pyTask is a call of frameworks.py, on a virtual key of its own that has its name.
type pyTask struct {
	Name       string `json:"name"`
	Package    string `json:"package"`
	Do         string `json:"do"` // chat or stream
	Model      string `json:"model"`
	VirtualKey string `json:"virtual_key"`
}

// pyTaskEnd is what became of one.
type pyTaskEnd struct {
	Name, Text string
	Pieces     int // of a stream
	Error      *struct {
		Class, Message string
		Status         int
	}
}

// pyTasks are calls of frameworks.py, by whether their packages want openai 2.
type pyTasks map[bool][]pyTask

// add adds the same call with each package, on virtual keys that are made for it.
func (p pyTasks) add(prefix, do, model string, made func(key string)) {
	for openai2, packages := range pyPackages {
		for _, name := range packages.names {
			key := prefix + "-" + name
			made(key)
			p[openai2] = append(p[openai2], pyTask{Name: key, Package: name, Do: do, Model: model, VirtualKey: key})
		}
	}
}

// keys are the virtual keys, which have the names of the calls.
func (p pyTasks) keys() (keys []string) {
	for _, list := range p {
		for _, task := range list {
			keys = append(keys, task.VirtualKey)
		}
	}
	return keys
}

// run makes the calls, all at once, and returns what became of them, by name.
// Meanwhile it does what is to be done.
func (p pyTasks) run(t *testing.T, f *pyFront, token string, meanwhile func()) map[string]pyTaskEnd {
	t.Helper()
	type result struct {
		out []byte
		err error
	}
	results := make(chan result, len(p))
	folder := clients(t, "python")
	for openai2, list := range p {
		python := pyPython(t, openai2)
		go func() {
			out, err := pyProgram(t, python, folder, "frameworks.py", map[string]any{
				"base_url": f.url + "/v1", "api_key": token, "imports": pyPackages[openai2].imports, "tasks": list,
			})
			results <- result{out, err}
		}()
	}
	meanwhile()
	ends := map[string]pyTaskEnd{}
	for range p {
		r := <-results
		if r.err != nil {
			t.Fatal(r.err)
		}
		var list []pyTaskEnd
		if err := json.Unmarshal(r.out, &list); err != nil {
			t.Fatalf("%v in %.1000s", err, r.out)
		}
		for _, end := range list {
			ends[end.Name] = end
		}
	}
	if want := len(p.keys()); len(ends) != want {
		t.Fatalf("%d of %d calls ended", len(ends), want)
	}
	return ends
}

// TestClientsPython_ABudgetThatIsUsedUpIsToldOnce: no package asks again after a 402,
// as the gateway and the provider count, and each shows why.
func TestClientsPython_ABudgetThatIsUsedUpIsToldOnce(t *testing.T) {
	t.Parallel()
	g := startGateway(t, gatewayOptions{})
	p, front := startKeyedProvider(t), startPyFront(t, g)
	tasks := pyTasks{}
	for _, do := range []string{"chat", "stream"} {
		tasks.add("spent-"+do, do, "up-ok", func(key string) {
			p.virtualKeys(t, g, g.mount, map[string]any{"limits": []string{"requests=1/day"}}, key)
		})
	}
	keys := tasks.keys()
	token := g.token(t, keys...)
	for _, key := range keys {
		wantCompletion(t, post(t, g.atGateway(t, token), g.chatOf(key), hello("up-ok")))
	}
	ends := tasks.run(t, front, token, func() {})
	for _, key := range keys {
		e := ends[key]
		if e.Error == nil || e.Error.Status != http.StatusPaymentRequired || !strings.Contains(e.Error.Message, "is used up") {
			t.Errorf("%s: %q, %+v", key, e.Text, e.Error)
		}
		if attempts := front.of(key); len(attempts) != 1 || attempts[0].status != http.StatusPaymentRequired {
			t.Errorf("%s: it was tried %d times: %+v", key, len(attempts), attempts)
		}
		total := usageOf(t, g.root, g.mount+"/usage/"+key).Total
		if n := len(p.arrived(key)); n != 1 || total.Refused != 1 || total.Requests != 1 {
			t.Errorf("%s: %d requests arrived at the provider, and the record is %+v", key, n, total)
		}
	}
}

// TestClientsPython_ARateLimitIsTriedAgainAfterRetryAfter: every package that tries
// again does so by itself, not before the gateway said, and succeeds. portkey-ai
// never does: it raises.
func TestClientsPython_ARateLimitIsTriedAgainAfterRetryAfter(t *testing.T) {
	t.Parallel()
	g := startGateway(t, gatewayOptions{})
	p, front := startKeyedProvider(t), startPyFront(t, g)
	tasks := pyTasks{}
	tasks.add("busy", "chat", "up-ok", func(key string) {
		p.virtualKeys(t, g, g.mount, map[string]any{"limits": []string{"concurrent=1"}}, key)
	})
	keys := tasks.keys()
	token := g.token(t, keys...)
	holder := g.exactly(t, token)
	holder.http.Timeout = 0 // the held streams end when the test says
	held := map[string]*http.Response{}
	for _, key := range keys {
		held[key] = holder.open(t, http.MethodPost, g.proxied(key, chatRoute), nil, strings.NewReader(`{"model":"up-hang-mid","messages":[],"stream":true}`))
		if held[key].StatusCode != http.StatusOK {
			t.Fatalf("%s: status %d", key, held[key].StatusCode)
		}
	}
	ends := tasks.run(t, front, token, func() {
		for _, key := range keys {
			eventually(t, "a refusal on "+key, func() bool { return usageOf(t, g.root, g.mount+"/usage/"+key).Total.Refused > 0 })
			_ = held[key].Body.Close()
		}
	})
	for _, key := range keys {
		e, attempts := ends[key], front.of(key)
		if strings.Contains(key, "portkey-ai") {
			if e.Error == nil || e.Error.Class != "RateLimitError" || e.Error.Status != http.StatusTooManyRequests || len(attempts) != 1 {
				t.Errorf("%s: %q, %+v after %+v", key, e.Text, e.Error, attempts)
			}
			continue
		}
		if e.Error != nil || e.Text+"\n" != pyHello || len(attempts) < 2 || attempts[len(attempts)-1].status != http.StatusOK {
			t.Errorf("%s: %q, %+v after %+v", key, e.Text, e.Error, attempts)
			continue
		}
		for i, a := range attempts[:len(attempts)-1] {
			seconds, err := strconv.Atoi(a.retryAfter)
			if err != nil || seconds < 1 || a.status != http.StatusTooManyRequests {
				t.Errorf("%s: attempt %d had status %d and retry-after %q", key, i+1, a.status, a.retryAfter)
			}
			if waited := attempts[i+1].sent.Sub(a.ended); waited < time.Duration(seconds)*time.Second-20*time.Millisecond {
				t.Errorf("%s: it tried again after %v, told to wait %d s", key, waited, seconds)
			}
		}
	}
}

// TestClientsPython_AnErrorInMidStreamRaises: in every package, whether the provider
// sends the error or breaks off, after what came before, and once.
func TestClientsPython_AnErrorInMidStreamRaises(t *testing.T) {
	t.Parallel()
	g := startGateway(t, gatewayOptions{})
	p, front := startKeyedProvider(t), startPyFront(t, g)
	tasks := pyTasks{}
	made := func(key string) { p.virtualKeys(t, g, g.mount, nil, key) }
	tasks.add("broken", "stream", "up-reset-mid", made)
	tasks.add("failed", "stream", "up-error-event", made)
	keys := tasks.keys()
	ends := tasks.run(t, front, g.token(t, keys...), func() {})
	for _, key := range keys {
		says := "broke off"
		if strings.HasPrefix(key, "failed-") {
			says = "The server had an error"
		}
		e := ends[key]
		if e.Error == nil || e.Pieces == 0 || !strings.Contains(e.Error.Message, says) {
			t.Errorf("%s: %q in %d pieces, then %+v; expected words like %q", key, e.Text, e.Pieces, e.Error, says)
		}
		if attempts := front.of(key); len(attempts) != 1 || len(p.arrived(key)) != 1 {
			t.Errorf("%s: %d attempts, and %d requests at the provider", key, len(attempts), len(p.arrived(key)))
		}
	}
}

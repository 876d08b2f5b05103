// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
)

// nodeSDKs are those of frameworks.js.
var nodeSDKs = []string{"openai", "portkey", "langchain", "llamaindex", "agents", "agents-responses", "vercel"}

// nodeTask is a call of frameworks.js, on a virtual key of its own.
type nodeTask struct {
	SDK        string `json:"sdk"`
	Do         string `json:"do"` // chat or stream
	Model      string `json:"model"`
	VirtualKey string `json:"virtual_key"`
}

// nodeEnd is what became of one.
type nodeEnd struct {
	nodeTask
	Text   string `json:"text"`
	Pieces int    `json:"pieces"` // of a stream
	Error  *struct {
		Class, Message string
		Status         int
		Code           any
	} `json:"error"`
	Attempts []struct {
		Status      int
		Sent, Ended float64 // ms
		RetryAfter  string  `json:"retry_after"`
	} `json:"attempts"`
}

// nodeTried runs the tasks at once, with the packages' own retries, and returns what
// became of them, by virtual key. Meanwhile it does what is to be done.
func nodeTried(t *testing.T, g *gatewayRig, token string, tasks []nodeTask, meanwhile func()) map[string]nodeEnd {
	t.Helper()
	type result struct {
		out []byte
		err error
	}
	done := make(chan result, 1)
	folder := clients(t, "node")
	go func() {
		out, err := nodeProgram(t.Context(), folder, "frameworks.js", map[string]any{"base_url": g.url + "/v1", "api_key": token, "tasks": tasks})
		done <- result{out, err}
	}()
	meanwhile()
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	ends := map[string]nodeEnd{}
	for _, e := range nodeLines[nodeEnd](t, r.out) {
		ends[e.VirtualKey] = e
	}
	if len(ends) != len(tasks) {
		t.Fatalf("%d of %d tasks ended", len(ends), len(tasks))
	}
	return ends
}

// nodeTasks are the same call with each package, on a virtual key of that name with
// what's in front; made says how the virtual keys are made.
func nodeTasks(prefix, do, model string, made func(key string)) (tasks []nodeTask, keys []string) {
	for _, sdk := range nodeSDKs {
		key := prefix + "-" + do + "-" + sdk
		made(key)
		tasks, keys = append(tasks, nodeTask{SDK: sdk, Do: do, Model: model, VirtualKey: key}), append(keys, key)
	}
	return tasks, keys
}

// TestClientsNode_ABudgetThatIsUsedUpIsToldOnce: no package asks again after a 402,
// as the gateway and the provider count, and each shows why.
func TestClientsNode_ABudgetThatIsUsedUpIsToldOnce(t *testing.T) {
	t.Parallel()
	g := startGateway(t, gatewayOptions{})
	p := startKeyedProvider(t)
	var tasks []nodeTask
	var keys []string
	for _, do := range []string{"chat", "stream"} {
		more, names := nodeTasks("spent", do, "up-ok", func(key string) {
			p.virtualKeys(t, g, g.mount, map[string]any{"limits": []string{"requests=1/day"}}, key)
		})
		tasks, keys = append(tasks, more...), append(keys, names...)
	}
	token := g.token(t, keys...)
	for _, key := range keys {
		wantCompletion(t, post(t, g.atGateway(t, token), g.chatOf(key), hello("up-ok")))
	}
	ends := nodeTried(t, g, token, tasks, func() {})
	for _, key := range keys {
		switch e := ends[key]; {
		case e.Error == nil || e.Error.Status != http.StatusPaymentRequired || !strings.Contains(e.Error.Message, "is used up"):
			t.Errorf("%s: %q, %+v", key, e.Text, e.Error)
		case strings.Contains(e.Error.Message, "{"):
			t.Errorf("%s: the message is JSON: %s", key, e.Error.Message)
		case len(e.Attempts) != 1:
			t.Errorf("%s: it was tried %d times", key, len(e.Attempts))
		}
		total := usageOf(t, g.root, g.mount+"/usage/"+key).Total
		if n := len(p.arrived(key)); n != 1 || total.Refused != 1 || total.Requests != 1 {
			t.Errorf("%s: %d requests arrived at the provider, and the record is %+v", key, n, total)
		}
	}
}

// TestClientsNode_ARateLimitIsTriedAgainAfterRetryAfter: every package that tries
// again does so when the gateway says, and succeeds. portkey-ai never does: it raises.
func TestClientsNode_ARateLimitIsTriedAgainAfterRetryAfter(t *testing.T) {
	t.Parallel()
	g := startGateway(t, gatewayOptions{})
	p := startKeyedProvider(t)
	tasks, keys := nodeTasks("busy", "chat", "up-ok", func(key string) {
		p.virtualKeys(t, g, g.mount, map[string]any{"limits": []string{"concurrent=1"}}, key)
	})
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
	ends := nodeTried(t, g, token, tasks, func() {
		for _, key := range keys {
			eventually(t, "a refusal on "+key, func() bool { return usageOf(t, g.root, g.mount+"/usage/"+key).Total.Refused > 0 })
			_ = held[key].Body.Close()
		}
	})
	for i, key := range keys {
		e := ends[key]
		if tasks[i].SDK == "portkey" {
			if e.Error == nil || e.Error.Status != http.StatusTooManyRequests || len(e.Attempts) != 1 || !strings.Contains(e.Error.Message, "under way on the limit concurrent=1") {
				t.Errorf("%s: %q, %+v after %d attempts", key, e.Text, e.Error, len(e.Attempts))
			}
			continue
		}
		if e.Error != nil || e.Text+"\n" != nodeHello || len(e.Attempts) < 2 {
			t.Errorf("%s: %q, %+v after %+v", key, e.Text, e.Error, e.Attempts)
			continue
		}
		for j, a := range e.Attempts[:len(e.Attempts)-1] {
			seconds, err := strconv.Atoi(a.RetryAfter)
			if err != nil || a.Status != http.StatusTooManyRequests {
				t.Errorf("%s: attempt %d had status %d and retry-after %q", key, j+1, a.Status, a.RetryAfter)
			}
			// Timers of Node may be a few milliseconds early.
			if waited := e.Attempts[j+1].Sent - a.Ended; waited < float64(1000*seconds)-50 {
				t.Errorf("%s: it tried again after %.0f ms, told to wait %d s", key, waited, seconds)
			}
		}
	}
}

// TestClientsNode_AnErrorInMidStreamRaises: in every package, whether the provider
// sends the error or breaks off, and after what came before. portkey-ai takes an error
// that the provider sends for a chunk, of whomever it comes: reading its choices is
// what raises.
func TestClientsNode_AnErrorInMidStreamRaises(t *testing.T) {
	t.Parallel()
	g := startGateway(t, gatewayOptions{})
	p := startKeyedProvider(t)
	for _, c := range []struct {
		name, model, says string
		portkey           string // what portkey-ai says
	}{
		{"broken", "up-reset-mid", "broke off", "broke off"},
		{"failed", "up-error-event", "The server had an error", "Cannot read properties of undefined"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tasks, keys := nodeTasks(c.name, "stream", c.model, func(key string) { p.virtualKeys(t, g, g.mount, nil, key) })
			ends := nodeTried(t, g, g.token(t, keys...), tasks, func() {})
			for _, key := range keys {
				says := c.says
				if ends[key].SDK == "portkey" {
					says = c.portkey
				}
				switch e := ends[key]; {
				case e.Error == nil || e.Pieces == 0:
					t.Errorf("%s: %q in %d pieces, and no error", key, e.Text, e.Pieces)
				case !strings.Contains(e.Error.Message, says):
					t.Errorf("%s: %+v, expected words like %q", key, *e.Error, says)
				case len(e.Attempts) != 1 || len(p.arrived(key)) != 1:
					t.Errorf("%s: %d attempts, and %d requests at the provider", key, len(e.Attempts), len(p.arrived(key)))
				}
			}
		})
	}
}

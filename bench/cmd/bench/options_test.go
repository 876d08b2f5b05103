// SPDX-License-Identifier: MPL-2.0

//go:build unix

package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/bench/internal/chat"
	"vault-plugin-secrets-portkey/bench/internal/report"
)

func parse(env map[string]string) (options, error) {
	return parseOptions(func(name string) string { return env[name] })
}

func TestParseOptions_WithoutAnyMeasuresAllButLiteLLMInTwelveMinutes(t *testing.T) {
	o, err := parse(nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"direct", "reverseproxy", "nginx", "gateway", "gateway-leased", "gateway-ask", "inline", "noop", "inline-sandbox", "noop-sandbox", "portkey-gateway"}
	if !slices.Equal(o.targets, want) || o.named || !o.all() {
		t.Errorf("the targets are %v, named: %t, all: %t", o.targets, o.named, o.all())
	}
	if o.rounds < 3 || len(o.cells()) != 4 {
		t.Errorf("%d rounds of %v", o.rounds, o.cells())
	}
	// The rest is for starting them.
	if d := o.expected(slices.DeleteFunc(allTargets(), func(t target) bool { return !o.wants(t.name) })); d > 9*time.Minute {
		t.Errorf("measuring takes %s", d)
	}
}

func TestParseOptions_TakesWhatIsNamed(t *testing.T) {
	o, err := parse(map[string]string{
		"BENCH_TARGETS": "direct, litellm", "BENCH_BODIES": "1,64", "BENCH_CONNECTIONS": "8", "BENCH_SECONDS": "0.5", "BENCH_ROUNDS": "5",
	})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(o.targets, []string{"direct", "litellm"}) || !o.named || o.all() || o.rounds != 5 || o.duration != 500*time.Millisecond {
		t.Errorf("got %+v", o)
	}
	want := []report.Cell{{BodyKiB: 1, Connections: 8}, {BodyKiB: 1, Stream: true, Connections: 8}, {BodyKiB: 64, Connections: 8}, {BodyKiB: 64, Stream: true, Connections: 8}}
	if !slices.Equal(o.cells(), want) {
		t.Errorf("the cells are %v", o.cells())
	}
}

func TestParseOptions_NamesWhatIsWrong(t *testing.T) {
	for name, values := range map[string][]string{
		"BENCH_TARGETS":     {"gatway", "direct direct"},
		"BENCH_BODIES":      {"0", "2000", "four", ","},
		"BENCH_CONNECTIONS": {"-1", "100000"},
		"BENCH_SECONDS":     {"0", "x", "-1", "1e9"},
		"BENCH_ROUNDS":      {"0", "many"},
	} {
		for _, value := range values {
			if _, err := parse(map[string]string{name: value}); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%s=%s: %v", name, value, err)
			}
		}
	}
}

func TestRequest_IsOneOfHTTP(t *testing.T) {
	for _, of := range []target{{}, {sandbox: true}} {
		e := started{of, endpoint{addr: "127.0.0.1:1", path: "/v1/x", header: []string{"Authorization: Bearer t"}}}
		head, body, ok := strings.Cut(string(e.request(chat.Asked{KiB: 4, Stream: !of.sandbox})), "\r\n\r\n")
		if !ok || len(body) != 4096 || !json.Valid([]byte(body)) || !strings.HasPrefix(head, "POST /v1/x HTTP/1.1\r\nHost: 127.0.0.1:1\r\n") ||
			!strings.Contains(head, "\r\nContent-Length: 4096") || !strings.HasSuffix(head, "\r\nAuthorization: Bearer t") {
			t.Errorf("got %q, a body of %d bytes", head, len(body))
		}
	}
}

func TestRotated_GivesEveryTargetItsTurnAndAnotherStart(t *testing.T) {
	targets := []started{{target: target{name: "a"}}, {target: target{name: "b"}}, {target: target{name: "c"}}, {target: target{name: "d"}}}
	starts := make(map[string]bool)
	for round := range 4 {
		order := rotated(targets, round)
		starts[order[0].name] = true
		for _, want := range targets {
			if !slices.ContainsFunc(order, func(o started) bool { return o.name == want.name }) {
				t.Errorf("round %d lacks %s", round, want.name)
			}
		}
	}
	if len(starts) < 3 || rotated(nil, 1) != nil {
		t.Errorf("rounds start with %v only", starts)
	}
}

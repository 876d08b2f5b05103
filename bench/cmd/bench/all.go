// SPDX-License-Identifier: MPL-2.0

//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"vault-plugin-secrets-portkey/bench/internal/chat"
	"vault-plugin-secrets-portkey/bench/internal/process"
	"vault-plugin-secrets-portkey/bench/internal/report"
)

const litellmName = "litellm" // only measured when it is named

// target is something that is measured.
type target struct {
	name  string
	start func(*stage, context.Context) (endpoint, error)
	// sandbox says that the provider is the plugin's own sandbox, and that whole
	// answers alone are measured.
	sandbox bool
}

// endpoint is where a target is asked.
type endpoint struct {
	addr   string // host:port
	path   string
	header []string // lines such as "Name: value"
	// processes are those whose memory and CPU count for the target.
	processes func() []int
}

// allTargets are the targets in the order of the tables.
func allTargets() []target {
	return []target{
		{name: "direct", start: (*stage).startDirect},
		{name: "reverseproxy", start: (*stage).startReverseProxy},
		{name: "nginx", start: (*stage).startNginx},
		{name: "gateway", start: (*stage).startGateway},
		{name: "gateway-leased", start: (*stage).startGatewayLeased},
		{name: "gateway-ask", start: (*stage).startGatewayAsk},
		{name: "inline", start: (*stage).startInline},
		{name: "noop", start: (*stage).startNoop},
		{name: "inline-sandbox", start: (*stage).startInlineSandbox, sandbox: true},
		{name: "noop-sandbox", start: (*stage).startNoopSandbox, sandbox: true},
		{name: "portkey-gateway", start: (*stage).startPortkey},
		{name: litellmName, start: (*stage).startLiteLLM},
	}
}

func names(targets []target) []string {
	var list []string
	for _, t := range targets {
		list = append(list, t.name)
	}
	return list
}

// started is a target that answers.
type started struct {
	target
	endpoint
}

// measures says whether a cell is measured of the target.
func (t target) measures(c report.Cell) bool { return !t.sandbox || !c.Stream }

// startTargets starts those of the options. What can't be started is left out
// and told; it is an error if it was named.
func (s *stage) startTargets(ctx context.Context) ([]started, error) {
	var ready []started
	var failed []error
	for _, t := range allTargets() {
		if !s.options.wants(t.name) || ctx.Err() != nil {
			continue
		}
		s.say("starting %s", t.name)
		e, err := t.start(s, ctx)
		if err == nil {
			err = s.tryOut(ctx, started{t, e})
		}
		if err == nil {
			ready = append(ready, started{t, e})
			continue
		}
		if ctx.Err() != nil {
			break
		}
		s.say("%s is left out: %v", t.name, err)
		if s.options.named {
			failed = append(failed, fmt.Errorf("%s couldn't be measured: %w", t.name, err))
		} else {
			s.notes = append(s.notes, fmt.Sprintf("`%s` was not measured.", t.name))
		}
	}
	return ready, errors.Join(failed...)
}

func (o options) wants(name string) bool {
	for _, t := range o.targets {
		if t == name {
			return true
		}
	}
	return false
}

// request is the whole request that asks for a completion.
func (t started) request(asked chat.Asked) []byte {
	body := chat.Request(asked.KiB, asked.Stream)
	if t.sandbox {
		body = chat.SandboxRequest(asked.KiB)
	}
	accept := "application/json"
	if asked.Stream {
		accept = "text/event-stream"
	}
	lines := append([]string{
		"POST " + t.path + " HTTP/1.1", "Host: " + t.addr, "User-Agent: bench",
		"Accept: " + accept, "Content-Type: application/json", fmt.Sprintf("Content-Length: %d", len(body)),
	}, t.header...)
	return append([]byte(strings.Join(lines, "\r\n")+"\r\n\r\n"), body...)
}

// treeOf are a program and what it started.
func treeOf(p *process.Process) func() []int {
	return func() []int { return process.Tree(p.PID()) }
}

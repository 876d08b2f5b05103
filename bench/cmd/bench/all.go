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
)

const litellmName = "litellm" // only measured when it is named

// target is something that is measured.
type target struct {
	name  string
	start func(*stage, context.Context) (endpoint, error)
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
		{"direct", (*stage).startDirect},
		{"reverseproxy", (*stage).startReverseProxy},
		{"nginx", (*stage).startNginx},
		{"gateway", (*stage).startGateway},
		{"gateway-leased", (*stage).startGatewayLeased},
		{"gateway-ask", (*stage).startGatewayAsk},
		{"inline", (*stage).startInline},
		{"noop", (*stage).startNoop},
		{"portkey-gateway", (*stage).startPortkey},
		{litellmName, (*stage).startLiteLLM},
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
	name string
	endpoint
}

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
			err = s.tryOut(ctx, started{t.name, e})
		}
		if err == nil {
			ready = append(ready, started{t.name, e})
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

// request is the whole request that asks an endpoint for a completion.
func (e endpoint) request(asked chat.Asked) []byte {
	body := chat.Request(asked.KiB, asked.Stream)
	accept := "application/json"
	if asked.Stream {
		accept = "text/event-stream"
	}
	lines := append([]string{
		"POST " + e.path + " HTTP/1.1", "Host: " + e.addr, "User-Agent: bench",
		"Accept: " + accept, "Content-Type: application/json", fmt.Sprintf("Content-Length: %d", len(body)),
	}, e.header...)
	return append([]byte(strings.Join(lines, "\r\n")+"\r\n\r\n"), body...)
}

// treeOf are a program and what it started.
func treeOf(p *process.Process) func() []int {
	return func() []int { return process.Tree(p.PID()) }
}

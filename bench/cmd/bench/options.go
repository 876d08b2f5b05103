// SPDX-License-Identifier: MPL-2.0

//go:build unix

package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"vault-plugin-secrets-portkey/bench/internal/chat"
)

// options say what is measured.
type options struct {
	targets     []string
	named       bool // the targets were named, none may be missing
	bodies      []int
	connections []int
	duration    time.Duration
	rounds      int
}

// warmup runs before each measurement: connections are opened, pools filled.
const warmup = 300 * time.Millisecond

// parseOptions reads the environment; see the command's documentation.
func parseOptions(getenv func(string) string) (options, error) {
	o := options{targets: words(getenv("BENCH_TARGETS"))}
	o.named = len(o.targets) > 0
	known := names(allTargets())
	if !o.named {
		o.targets = slices.DeleteFunc(slices.Clone(known), func(name string) bool { return name == litellmName })
	}
	for i, name := range o.targets {
		if !slices.Contains(known, name) || slices.Contains(o.targets[:i], name) {
			return o, fmt.Errorf("BENCH_TARGETS: %q is unknown or there twice; there are %s", name, strings.Join(known, ", "))
		}
	}
	var err error
	if o.bodies, err = numbers(getenv, "BENCH_BODIES", "4", chat.MaxKiB); err != nil {
		return o, err
	}
	if o.connections, err = numbers(getenv, "BENCH_CONNECTIONS", "1 32", 4096); err != nil {
		return o, err
	}
	rounds, err := numbers(getenv, "BENCH_ROUNDS", "3", 1000)
	if err != nil {
		return o, err
	}
	o.rounds = rounds[0]
	seconds := getenv("BENCH_SECONDS")
	if seconds == "" {
		seconds = "4"
	}
	s, err := strconv.ParseFloat(seconds, 64)
	if err != nil || s < 0.1 || s > 3600 {
		return o, fmt.Errorf("BENCH_SECONDS=%s isn't a number of seconds from 0.1 to 3600", seconds)
	}
	o.duration = time.Duration(s * float64(time.Second))
	return o, nil
}

// all says whether no target is left out that is measured by default.
func (o options) all() bool {
	for _, name := range names(allTargets()) {
		if name != litellmName && !slices.Contains(o.targets, name) {
			return false
		}
	}
	return true
}

// expected is about how long it takes to measure targets.
func (o options) expected(targets []target) time.Duration {
	n := 0
	for _, t := range targets {
		for _, c := range o.cells() {
			if t.measures(c) {
				n++
			}
		}
	}
	return time.Duration(n*o.rounds) * (o.duration + warmup)
}

// words splits a list at spaces and commas.
func words(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' || r == '\t' })
}

// numbers reads a list of numbers from 1 to most, of which there is at least one.
func numbers(getenv func(string) string, name, otherwise string, most int) ([]int, error) {
	value := getenv(name)
	if value == "" {
		value = otherwise
	}
	var list []int
	for _, word := range words(value) {
		n, err := strconv.Atoi(word)
		if err != nil || n < 1 || n > most {
			return nil, fmt.Errorf("%s: %q isn't a number from 1 to %d", name, word, most)
		}
		list = append(list, n)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%s names nothing", name)
	}
	return list, nil
}

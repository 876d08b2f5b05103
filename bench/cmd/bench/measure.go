// SPDX-License-Identifier: MPL-2.0

//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"vault-plugin-secrets-portkey/bench/internal/chat"
	"vault-plugin-secrets-portkey/bench/internal/load"
	"vault-plugin-secrets-portkey/bench/internal/process"
	"vault-plugin-secrets-portkey/bench/internal/report"
)

// cells are all that is measured of a target in a round.
func (o options) cells() []report.Cell {
	var cells []report.Cell
	for _, kib := range o.bodies {
		for _, stream := range []bool{false, true} {
			for _, connections := range o.connections {
				cells = append(cells, report.Cell{BodyKiB: kib, Stream: stream, Connections: connections})
			}
		}
	}
	return cells
}

func (t started) job(c report.Cell) load.Job {
	asked := chat.Asked{KiB: c.BodyKiB, Stream: c.Stream}
	return load.Job{
		Addr: t.addr, Request: t.request(asked), Connections: c.Connections,
		Check: func(body []byte) error {
			if t.sandbox {
				return chat.CheckSandbox(asked.KiB, body)
			}
			return chat.Check(asked, body)
		},
	}
}

// tryOut has a target do a bit of everything, so that what it compiles or opens
// at first is done before it is measured, and says why it can't.
func (s *stage) tryOut(ctx context.Context, t started) error {
	cells := s.options.cells()
	for _, c := range cells {
		if !t.measures(c) {
			continue
		}
		job := t.job(c)
		job.Duration = 2 * time.Second / time.Duration(len(cells))
		var slow *load.NothingError
		if _, err := load.Run(ctx, job); err != nil && !errors.As(err, &slow) {
			return fmt.Errorf("%s: %w", c, err)
		}
	}
	return nil
}

// measureAll runs the rounds and returns the medians. A target that fails is
// measured no further, has no rows for cells that lack a round, and is an error.
func (s *stage) measureAll(ctx context.Context, targets []started) ([]report.Row, error) {
	type key struct {
		target string
		cell   report.Cell
	}
	rounds := make(map[key][]report.Row)
	broken := make(map[string]error)
	var all []target
	for _, t := range targets {
		all = append(all, t.target)
	}
	s.say("measuring %d targets, %d rounds of %s each: about %s", len(targets), s.options.rounds, s.options.duration,
		s.options.expected(all).Round(time.Second))
	for round := range s.options.rounds {
		for _, c := range s.options.cells() {
			for _, t := range rotated(targets, round) {
				if !t.measures(c) || broken[t.name] != nil || ctx.Err() != nil {
					continue
				}
				row, err := s.measure(ctx, t, c)
				if err != nil {
					if ctx.Err() != nil {
						return nil, ctx.Err()
					}
					broken[t.name] = fmt.Errorf("%s failed (%s): %w", t.name, c, err)
					s.say("%v", broken[t.name])
					continue
				}
				rounds[key{t.name, c}] = append(rounds[key{t.name, c}], row)
				s.say("round %d/%d  %-31s  %-15s %8.0f/s  p50 %6.0f µs", round+1, s.options.rounds, c, t.name, row.RPS, row.P50)
			}
		}
	}
	var rows []report.Row
	var failed []error
	for _, c := range s.options.cells() {
		for _, t := range targets {
			if all := rounds[key{t.name, c}]; len(all) == s.options.rounds {
				rows = append(rows, report.Median(all))
			}
		}
	}
	for _, t := range targets {
		failed = append(failed, broken[t.name])
	}
	return rows, errors.Join(failed...)
}

// rotated begins with another target in each round, so that none is always
// measured after the same one.
func rotated(targets []started, round int) []started {
	if len(targets) == 0 {
		return nil
	}
	k := round * max(1, len(targets)/3) % len(targets)
	return slices.Concat(targets[k:], targets[:k])
}

// measure is one target's turn.
func (s *stage) measure(ctx context.Context, t started, c report.Cell) (report.Row, error) {
	job := t.job(c)
	job.Warmup, job.Duration = warmup, s.options.duration
	pids := t.processes()
	var before, after process.Usage
	var errs [2]error
	if process.Measurable {
		job.Begin = func() { before, errs[0] = process.ReadUsage(pids) }
		job.End = func() { after, errs[1] = process.ReadUsage(pids) }
	}
	result, err := load.Run(ctx, job)
	if err = errors.Join(err, errs[0], errs[1]); err != nil {
		return report.Row{}, err
	}
	us := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
	row := report.Row{
		Target: t.name, BodyKiB: c.BodyKiB, Stream: c.Stream, Connections: c.Connections,
		RPS: float64(result.Requests) / result.Elapsed.Seconds(),
		P50: us(result.Median), P99: us(result.P99), FirstByte: us(result.FirstByte),
	}
	if process.Measurable {
		rss, cpu := float64(after.RSS)/(1<<20), us(after.CPU-before.CPU)/float64(result.Requests)
		row.RSS, row.CPU = &rss, &cpu
	}
	return row, nil
}

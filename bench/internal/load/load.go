// SPDX-License-Identifier: MPL-2.0

// Package load asks a server the same request over and over, on a number of
// connections at once, and measures the answers. Every one of them is checked.
package load

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Job is one measurement.
type Job struct {
	// Addr is the host:port to connect to, in plain TCP.
	Addr string
	// Request is the whole request, head and body.
	Request []byte
	// Connections ask at once, each its next request when it has the answer to
	// the last one.
	Connections int
	// Warmup runs before anything is counted, Duration is counted.
	Warmup, Duration time.Duration
	// Check says what is wrong with an answer's body. It sees each connection's
	// first one; those that follow must be as long and end alike.
	Check func(body []byte) error
	// Begin and End are called when counting begins and ends, while requests
	// are under way. nil is none.
	Begin, End func()
}

// Result is what a job measured of the answers that came whole while it counted.
type Result struct {
	// Requests were answered in Elapsed.
	Requests int
	Elapsed  time.Duration
	// Median and P99 are of the time from a request's first byte to its
	// answer's last, FirstByte is the median of that to the first byte of the
	// answer's body.
	Median, P99, FirstByte time.Duration
}

// grace is how long an answer may take once counting has ended.
const grace = 20 * time.Second

// Run does a job. The first thing that goes wrong on any connection ends it: a
// status other than 200, an answer unlike the first, a connection that breaks
// off.
func Run(ctx context.Context, job Job) (Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	workers := make([]*worker, job.Connections)
	var asking sync.WaitGroup
	for i := range workers {
		workers[i] = &worker{job: &job}
		asking.Go(func() {
			if err := workers[i].run(ctx); err != nil {
				cancel(err)
			}
		})
	}
	begin := counted(ctx, job.Warmup, job.Begin)
	end := counted(ctx, job.Duration, job.End)
	failed := context.Cause(ctx)
	cancel(errEnough)
	asking.Wait()
	if failed != nil {
		return Result{}, failed
	}
	if err := context.Cause(ctx); !errors.Is(err, errEnough) {
		return Result{}, err
	}
	return summarise(workers, begin, end)
}

var errEnough = errors.New("measured for long enough")

// counted waits and then calls do, in the middle of which it says it was.
func counted(ctx context.Context, wait time.Duration, do func()) time.Time {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return time.Now()
	}
	before := time.Now()
	if do != nil {
		do()
	}
	return before.Add(time.Since(before) / 2)
}

// summarise takes together what ended between begin and end.
func summarise(workers []*worker, begin, end time.Time) (Result, error) {
	var whole, first []time.Duration
	for _, w := range workers {
		for _, s := range w.samples {
			if ended := s.start.Add(s.whole); ended.After(begin) && !ended.After(end) {
				whole, first = append(whole, s.whole), append(first, s.first)
			}
		}
	}
	if len(whole) == 0 {
		return Result{}, &NothingError{end.Sub(begin)}
	}
	slices.Sort(whole)
	slices.Sort(first)
	return Result{
		Requests: len(whole), Elapsed: end.Sub(begin),
		Median: quantile(whole, 0.5), P99: quantile(whole, 0.99), FirstByte: quantile(first, 0.5),
	}, nil
}

// NothingError says that no answer came in time, and nothing else was wrong.
type NothingError struct{ Within time.Duration }

func (e *NothingError) Error() string {
	return fmt.Sprintf("no answer came within %s", e.Within.Round(time.Millisecond))
}

// quantile is the smallest of sorted, which isn't empty, that at least q of
// them don't exceed (the nearest-rank definition).
func quantile(sorted []time.Duration, q float64) time.Duration {
	rank := int(q*float64(len(sorted)) + 0.999999)
	return sorted[min(max(rank, 1), len(sorted))-1]
}

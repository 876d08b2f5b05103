// SPDX-License-Identifier: MPL-2.0

//go:build unix

// Command bench measures the gateway beside other proxies, on one machine,
// against one upstream program, in rounds in which every target has its turn.
// scripts/bench.sh builds what it needs and runs it in the root of the
// repository. These environment variables say what is measured:
//
//	BENCH_TARGETS      names, of all.go; all but litellm if it isn't set
//	BENCH_BODIES       sizes of requests and answers in KiB (4)
//	BENCH_CONNECTIONS  numbers of connections (1 32)
//	BENCH_SECONDS      of each measurement (4)
//	BENCH_ROUNDS       of which the median counts (3)
//
// It writes bench/results.json, and if no target was left out also the tables in
// docs/performance.md and the picture bench/results.svg. It exits with 1 if a
// target that was named couldn't be measured, or one failed while it was.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"vault-plugin-secrets-portkey/bench/internal/report"
)

func main() {
	bin := flag.String("bin", "", "`folder` with the bench's programs")
	flag.Parse()
	o, err := parseOptions(os.Getenv)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err = run(ctx, *bin, o)
	interrupted := ctx.Err() != nil
	stop()
	if interrupted {
		fmt.Fprintln(os.Stderr, "bench: interrupted; everything it started has ended")
		os.Exit(130)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run does everything. All processes have ended when it returns.
func run(ctx context.Context, bin string, o options) error {
	s, err := newStage(bin, o)
	if err != nil {
		return err
	}
	defer s.close()
	s.noteBusy(ctx)
	if err := s.startUpstream(ctx); err != nil {
		return err
	}
	targets, failed := s.startTargets(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	rows, broken := s.measureAll(ctx, targets)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if len(rows) == 0 {
		return errors.New("nothing was measured")
	}
	done := &report.Run{Rows: rows, Environment: s.environment(ctx), Method: s.method(), Notes: s.notes}
	fmt.Printf("\n%s\n%s\n", done.Environment, done.Text())
	return errors.Join(write(done, o.all()), failed, broken)
}

// SPDX-License-Identifier: MPL-2.0

//go:build unix

package process

import (
	"context"
	"errors"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func shell(t *testing.T, script string) *Process {
	t.Helper()
	p, err := Start(t.TempDir(), "program", exec.Command("/bin/sh", "-c", script))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	return p
}

func TestStop_EndsWhatTheProgramStartedToo(t *testing.T) {
	p := shell(t, `sleep 600 & echo $!; wait`)
	line, err := p.FirstLine(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(line)
	if err != nil {
		t.Fatal(err)
	}
	p.Stop()
	// Its new parent has to notice that it ended.
	for range 500 {
		if err := syscall.Kill(child, 0); errors.Is(err, syscall.ESRCH) || !Measurable || Program(child) == "" {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("process %d, a child of what was stopped, lives on", child)
}

func TestAwait_SaysWhatAProgramSaidThatEnded(t *testing.T) {
	p := shell(t, `echo 'the port is taken' >&2; exit 3`)
	err := p.Await(t.Context(), time.Minute, func() bool { return false })
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "the port is taken") {
		t.Fatalf("got %v", err)
	}
}

func TestAwait_EndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := shell(t, `sleep 600`).Await(ctx, time.Minute, func() bool { return false })
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
}

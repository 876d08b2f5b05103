// SPDX-License-Identifier: MPL-2.0

//go:build unix

// Package process runs the programs that the bench measures, ends them with all
// that they started, and says what they use.
package process

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// stopTimeout is how long a program may take to end by itself.
const stopTimeout = 10 * time.Second

// Process is a running program, in a process group of its own: ctrl-C in a
// terminal doesn't reach it, Stop does.
type Process struct {
	name string
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has ended; cmd says how
}

// Start runs a program whose output goes to the file <name>.log in dir.
func Start(dir, name string, cmd *exec.Cmd) (*Process, error) {
	p := &Process{name: name, cmd: cmd, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the program has its own
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = cmd.Wait() // what there is to say of it is in cmd.ProcessState
		close(p.done)
	}()
	return p, nil
}

// PID is the id of the process, which is also that of its group.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Await asks ready until it says yes. It fails when ctx ends, after limit, and
// when the program ends, and shows the end of what the program said.
func (p *Process) Await(ctx context.Context, limit time.Duration, ready func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for tick := time.NewTicker(50 * time.Millisecond); ; {
		select {
		case <-p.done:
			tick.Stop()
			return fmt.Errorf("%s ended (%s)%s", p.name, p.cmd.ProcessState, p.said())
		default:
		}
		if ready() {
			tick.Stop()
			return nil
		}
		select {
		case <-ctx.Done():
			tick.Stop()
			return fmt.Errorf("%s isn't ready (%w)%s", p.name, ctx.Err(), p.said())
		case <-tick.C:
		}
	}
}

// FirstLine waits for the first line that the program prints.
func (p *Process) FirstLine(ctx context.Context) (string, error) {
	var first string
	err := p.Await(ctx, stopTimeout, func() bool {
		log, _ := os.ReadFile(p.log)
		line, _, whole := bytes.Cut(log, []byte("\n"))
		first = strings.TrimSpace(string(line))
		return whole
	})
	return first, err
}

// said is the end of the program's output, for an error.
func (p *Process) said() string {
	log, _ := os.ReadFile(p.log)
	log = bytes.TrimSpace(log)
	if len(log) == 0 {
		return ""
	}
	return ": " + string(log[max(0, len(log)-1000):])
}

// Stop ends the program and everything in its group, and waits until it has
// ended. It may be called more than once.
func (p *Process) Stop() {
	select {
	case <-p.done:
	default:
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may just have ended
	}
	select {
	case <-p.done:
	case <-time.After(stopTimeout):
	}
	// What it started and left behind; its group's id is still its own as long
	// as one of them lives, and an empty group takes no signal.
	_ = syscall.Kill(-p.PID(), syscall.SIGKILL)
	<-p.done
}

// SPDX-License-Identifier: MPL-2.0

//go:build unix

package vaulttest

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// process is one run of a Vault server: a process group of its own, in which
// the plugins are that Vault starts. Being in no terminal's foreground group
// it gets no ctrl-C; the guard ends it.
type process struct {
	cmd  *exec.Cmd
	pid  int           // also the id of the group
	done chan struct{} // closed when the process has ended
	err  error         // how; to be read after done

	paused atomic.Bool // by SIGSTOP

	// empty is set once the whole group was seen gone, for then the system
	// may give its id to others, who must not be signalled. Needs mu.
	mu    sync.Mutex
	empty bool
}

// startProcess runs cmd in a new process group that the guard watches.
func startProcess(cmd *exec.Cmd, g *guard) (*process, error) {
	cmd.SysProcAttr = groupAttributes()
	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// Linux sends the death signal when the *thread* that started the
		// process ends, so that thread is kept until the process has ended.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	p.pid = cmd.Process.Pid
	if err := g.watch(p.pid); err != nil {
		p.killGroup()
		return nil, fmt.Errorf("the process that guards Vault is gone: %w", err)
	}
	return p, nil
}

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// state says how the process ended. It is called after done.
func (p *process) state() string {
	if p.err != nil {
		return p.err.Error()
	}
	return "exit status 0"
}

// signal signals Vault, not its plugins. A process that has ended is left alone.
func (p *process) signal(s syscall.Signal) {
	// os.Process knows whether the process was waited for, so that no other
	// process with the same id can be hit; that is the only error there is.
	_ = p.cmd.Process.Signal(s)
}

// pause stops Vault, not its plugins, and returns when it has stopped.
func (p *process) pause() error {
	p.paused.Store(true)
	p.signal(syscall.SIGSTOP)
	// It takes effect in a moment; the bound is for a thread that hangs in
	// the kernel.
	for range 500 {
		if !p.running() {
			return fmt.Errorf("vault ended: %s", p.state())
		}
		if isStopped(p.pid) {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("process %d doesn't stop", p.pid)
}

// resume ends pause.
func (p *process) resume() {
	if p.paused.Swap(false) {
		p.signal(syscall.SIGCONT)
	}
}

// others returns the live processes of the group without Vault itself.
func (p *process) others() []int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.othersLocked()
}

func (p *process) othersLocked() []int {
	if p.empty {
		return nil
	}
	running := p.running() // asked first: Vault ends after its plugins, not before
	pids := groupMembers(p.pid)
	p.empty = !running && len(pids) == 0
	return slices.DeleteFunc(pids, func(pid int) bool { return pid == p.pid })
}

// killGroup kills Vault and its plugins and waits until all are gone.
func (p *process) killGroup() {
	p.signal(syscall.SIGKILL)
	<-p.done
	p.mu.Lock()
	defer p.mu.Unlock()
	// Plugins have another parent now, which can't be waited for from here.
	// A SIGKILL takes effect in a moment; the bound is for a process that
	// hangs in the kernel.
	for range 500 {
		if len(p.othersLocked()) == 0 {
			return
		}
		_ = syscall.Kill(-p.pid, syscall.SIGKILL) // it may just have ended
		time.Sleep(10 * time.Millisecond)
	}
}

// guardScript is run by a shell that outlives the test process however that
// ends, for it notices the end of its standard input. It kills the process
// groups it was told of and removes the folder. Plugins need it most: they
// outlive a killed Vault.
const guardScript = `
trap '' HUP INT TERM
groups=
while read -r verb group; do
	case $verb in
	watch) groups="$groups $group" ;;
	dismiss) exit 0 ;;
	esac
done
for group in $groups; do kill -s KILL -- "-$group" 2>/dev/null; done
rm -rf -- "$1" || { sleep 1; rm -rf -- "$1"; }
`

// guard ends what the test process started and removes a folder, when the
// test process ends without having done so.
type guard struct {
	cmd *exec.Cmd
	in  io.WriteCloser
}

// startGuard starts the guard of dir. The guard must stay referenced: when
// its pipe is collected it acts.
func startGuard(dir string) (*guard, error) {
	cmd := exec.Command("/bin/sh", "-c", guardScript, "sh", dir)
	cmd.Dir = os.TempDir()
	// Out of the terminal's foreground group, or ctrl-C would end it first.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &guard{cmd: cmd, in: in}, nil
}

// watch adds a process group to those that the guard would kill.
func (g *guard) watch(group int) error {
	_, err := fmt.Fprintf(g.in, "watch %d\n", group)
	return err
}

// dismiss ends the guard; nothing is killed or removed.
func (g *guard) dismiss() {
	// Should the guard be gone, there is nothing to dismiss.
	_, _ = io.WriteString(g.in, "dismiss\n")
	_ = g.cmd.Wait()
}

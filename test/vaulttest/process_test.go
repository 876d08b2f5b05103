// SPDX-License-Identifier: MPL-2.0

//go:build unix

package vaulttest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

// family starts a shell with a child, as Vault with a plugin, under a guard
// of dir.
func family(t *testing.T, dir string) (*process, *guard) {
	t.Helper()
	g, err := startGuard(dir)
	if err != nil {
		t.Fatal(err)
	}
	ready := filepath.Join(t.TempDir(), "ready")
	if out, err := exec.Command("mkfifo", ready).CombinedOutput(); err != nil {
		t.Fatalf("mkfifo: %v\n%s", err, out)
	}
	p, err := startProcess(exec.Command("/bin/sh", "-c", `sleep 600 & echo started >"$1"; wait`, "sh", ready), g)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.killGroup)
	if _, err := os.ReadFile(ready); err != nil { // waits for the shell
		t.Fatal(err)
	}
	return p, g
}

func TestGuard_KillsTheGroupAndRemovesTheFolderWhenItsPipeEnds(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a folder")
	if err := os.MkdirAll(filepath.Join(dir, "with", "content"), 0o700); err != nil {
		t.Fatal(err)
	}
	p, g := family(t, dir)
	// As the system does when the test process ends.
	if err := g.in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := g.cmd.Wait(); err != nil {
		t.Errorf("the guard: %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is still there (%v)", err)
	}
	expectNothing(t, childRuns{Dir: dir, Groups: []int{p.pid}})
}

func TestGuard_ThatIsDismissedTouchesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p, g := family(t, dir)
	g.dismiss()
	if !p.running() || len(p.others()) != 1 {
		t.Errorf("running %v, others %v", p.running(), p.others())
	}
	if _, err := os.Stat(dir); err != nil {
		t.Error(err)
	}
}

func TestProcess_KillGroupEndsWhatItsLeaderLeft(t *testing.T) {
	t.Parallel()
	p, g := family(t, t.TempDir())
	defer g.dismiss()
	others := p.others()
	if len(others) != 1 || slices.Contains(others, p.pid) {
		t.Fatalf("others %v of %d", others, p.pid)
	}
	p.signal(syscall.SIGKILL)
	<-p.done
	if got := p.others(); !slices.Equal(got, others) {
		t.Fatalf("others are %v after the leader was killed, were %v", got, others)
	}
	p.killGroup()
	if got := p.others(); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
}

func TestProcess_PauseStopsItsLeaderAloneUntilItIsResumedOrKilled(t *testing.T) {
	t.Parallel()
	p, g := family(t, t.TempDir())
	defer g.dismiss()
	child := p.others()[0]
	if err := p.pause(); err != nil {
		t.Fatal(err)
	}
	if !isStopped(p.pid) || isStopped(child) {
		t.Errorf("paused, and the leader is stopped: %t, its child: %t", isStopped(p.pid), isStopped(child))
	}
	p.resume()
	for isStopped(p.pid) {
		time.Sleep(time.Millisecond)
	}
	if err := p.pause(); err != nil {
		t.Fatal(err)
	}
	p.killGroup()
	if p.running() || len(p.others()) != 0 {
		t.Errorf("after the kill: running %t, others %v", p.running(), p.others())
	}
	if err := p.pause(); err == nil {
		t.Error("a process that has ended is paused")
	}
}

// childRuns is what a process that came to its end had running.
type childRuns struct {
	Dir    string
	Groups []int
}

// expectNothing waits until the child's processes and files are gone.
func expectNothing(t *testing.T, runs childRuns) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		var left []string
		for _, group := range runs.Groups {
			for _, pid := range groupMembers(group) {
				left = append(left, fmt.Sprintf("process %d", pid))
			}
		}
		if _, err := os.Stat(runs.Dir); !errors.Is(err, os.ErrNotExist) {
			left = append(left, runs.Dir)
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left behind: %v", left)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// SPDX-License-Identifier: MPL-2.0

//go:build integration && unix

package vaulttest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// childEnv names the end that a re-executed test process shall meet.
const childEnv = "VAULTTEST_CHILD_ENDS_BY"

// startedMark precedes the line with which the child says what it runs.
const startedMark = "child runs "

// The test runs itself in another process, which starts a Vault with a plugin
// and comes to a bad end.
func TestTestProcess_LeavesNothingBehindHoweverItEnds(t *testing.T) {
	if end := os.Getenv(childEnv); end != "" {
		dieWithVault(t, end)
	}
	t.Parallel()
	plugin := notesBinary(t)
	for _, end := range []string{"SIGKILL", "SIGINT", "panic"} {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			child := exec.Command(os.Args[0], "-test.run=^TestTestProcess_LeavesNothingBehindHoweverItEnds$")
			child.Env = append(os.Environ(), childEnv+"="+end, "VAULTTEST_CHILD_PLUGIN="+plugin)
			runs := waitForEnd(t, child, end)
			expectNothing(t, runs)
		})
	}
}

// dieWithVault is the child: it runs a Vault and never returns.
func dieWithVault(t *testing.T, end string) {
	v := Start(t, Options{Mode: Raft, PluginBinary: os.Getenv("VAULTTEST_CHILD_PLUGIN")})
	v.Enable(t, "notes", nil)
	// A Vault that was killed leaves a plugin behind, which must go too.
	runs := childRuns{Dir: v.dir, Groups: []int{v.nodes[0].current().pid}}
	v.Kill()
	v.Restart(t)
	runs.Groups = append(runs.Groups, v.nodes[0].current().pid)
	line, err := json.Marshal(runs)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("%s%s\n", startedMark, line)
	// Not before the parent has looked.
	if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if end == "panic" {
		// Not in the test's goroutine, where the clean-up would still run. A
		// test that times out panics in the same way.
		go panic("this test process panics on purpose")
	}
	select {}
}

// waitForEnd runs the child until it has ended and returns what it had running.
func waitForEnd(t *testing.T, child *exec.Cmd, end string) childRuns {
	t.Helper()
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	child.Stderr = child.Stdout
	goOn, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var runs childRuns
	var said strings.Builder
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		fmt.Fprintln(&said, lines.Text())
		line, ok := strings.CutPrefix(lines.Text(), startedMark)
		if !ok {
			continue
		}
		if err := json.Unmarshal([]byte(line), &runs); err != nil {
			t.Fatal(err)
		}
		for _, group := range runs.Groups {
			if len(groupMembers(group)) == 0 {
				t.Errorf("group %d has no process, so this proves nothing", group)
			}
		}
		signals := map[string]syscall.Signal{"SIGKILL": syscall.SIGKILL, "SIGINT": syscall.SIGINT}
		if s, ok := signals[end]; ok {
			_ = child.Process.Signal(s)
		} else if _, err := goOn.Write([]byte("\n")); err != nil {
			t.Error(err)
		}
	}
	if err := child.Wait(); err == nil || runs.Dir == "" {
		t.Fatalf("the child didn't die of %s (%v):\n%s", end, err, said.String())
	}
	return runs
}

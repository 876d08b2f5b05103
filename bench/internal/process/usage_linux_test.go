// SPDX-License-Identifier: MPL-2.0

package process

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func TestTree_HasAllDescendants(t *testing.T) {
	p := shell(t, `/bin/sh -c 'sleep 600 & echo ready; wait' & wait`)
	if _, err := p.FirstLine(t.Context()); err != nil {
		t.Fatal(err)
	}
	tree := Tree(p.PID())
	if len(tree) != 3 || tree[0] != p.PID() || slices.Contains(tree, os.Getpid()) {
		t.Fatalf("the tree of %d is %v", p.PID(), tree)
	}
	if got := filepath.Base(Program(tree[2])); got == "" || got == "." {
		t.Errorf("process %d runs no program", tree[2])
	}
	usage, err := ReadUsage(tree)
	if err != nil || usage.RSS < 64<<10 || usage.RSS > 1<<30 {
		t.Errorf("three small programs use %+v, %v", usage, err)
	}
}

func TestReadUsage_SeesWorkDone(t *testing.T) {
	before, err := ReadUsage([]int{os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	// However little of a core this gets, it ends once the time was counted.
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		after, err := ReadUsage([]int{os.Getpid()})
		if err != nil {
			t.Fatal(err)
		}
		if after.CPU-before.CPU >= 50*time.Millisecond {
			return
		}
	}
	t.Fatal("a minute's work used no time")
}

func TestReadUsage_OfAProcessThatEndedIsAnError(t *testing.T) {
	p := shell(t, `exit 0`)
	p.Stop()
	if usage, err := ReadUsage([]int{p.PID()}); err == nil {
		t.Fatalf("got %+v", usage)
	}
}

func TestParseStat_ReadsPastAnyName(t *testing.T) {
	got, err := parseStat("7 (a) b (c) S 5 7 7 0 -1 4194304 1 2 3 4 250 50 0 0 20 0 1 0 1 1 1\n")
	if want := (stat{parent: 5, cpu: 3 * time.Second}); err != nil || got != want {
		t.Fatalf("got %+v, %v, want %+v", got, err, want)
	}
	for _, text := range []string{"", "7 (a) S 5", "7 (a) S x 7 7 0 -1 4194304 1 2 3 4 250 50 0 0"} {
		if got, err := parseStat(text); err == nil {
			t.Errorf("%q is read as %+v", text, got)
		}
	}
}

// SPDX-License-Identifier: MPL-2.0

//go:build unix && !linux

package vaulttest

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// groupAttributes puts a process into a group of its own. Only Linux can tie
// its life to this process; the guard ends it elsewhere.
func groupAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}

// isStopped says whether a process is stopped by SIGSTOP.
func isStopped(pid int) bool {
	state, err := exec.Command("ps", "-o", "state=", "-p", strconv.Itoa(pid)).Output()
	return err == nil && strings.HasPrefix(strings.TrimSpace(string(state)), "T")
}

// groupMembers returns the live processes of a process group.
func groupMembers(group int) []int {
	out, err := exec.Command("ps", "-A", "-o", "pid=", "-o", "pgid=", "-o", "state=").Output()
	if err != nil {
		panic(fmt.Sprintf("vaulttest: processes can't be listed with ps: %v", err))
	}
	var pids []int
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		if len(fields) < 3 || fields[1] != strconv.Itoa(group) || fields[2][0] == 'Z' {
			continue
		}
		if pid, err := strconv.Atoi(fields[0]); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// SPDX-License-Identifier: MPL-2.0

package vaulttest

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// groupAttributes puts a process into a group of its own and has the kernel
// kill it when this process ends, which covers the moment before the guard
// knows of it. A binary with file capabilities gets no such signal; the guard
// ends those too.
func groupAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// processStat returns the fields of a process after its name: its state, its
// parent, its group and so on; none if it has ended.
func processStat(pid string) []string {
	// "pid (name) state parent group …"; the name may hold anything.
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return nil
	}
	text := string(stat)
	return strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
}

// isStopped says whether all of a process is stopped by SIGSTOP.
func isStopped(pid int) bool {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return false // it has ended
	}
	for _, task := range tasks {
		stat := processStat(fmt.Sprintf("%d/task/%s", pid, task.Name()))
		if len(stat) > 0 && stat[0] != "T" {
			return false
		}
	}
	return true
}

// groupMembers returns the live processes of a process group.
func groupMembers(group int) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		panic(fmt.Sprintf("vaulttest: /proc, where Linux lists processes, can't be read: %v", err))
	}
	var pids []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		fields := processStat(entry.Name())
		if len(fields) > 2 && fields[0] != "Z" && fields[0] != "X" && fields[2] == strconv.Itoa(group) {
			pids = append(pids, pid)
		}
	}
	return pids
}

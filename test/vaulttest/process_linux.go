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
		// "pid (name) state parent group …"; the name may hold anything.
		stat, err := os.ReadFile("/proc/" + entry.Name() + "/stat")
		if err != nil {
			continue // it has just ended
		}
		text := string(stat)
		fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
		if len(fields) > 2 && fields[0] != "Z" && fields[0] != "X" && fields[2] == strconv.Itoa(group) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// SPDX-License-Identifier: MPL-2.0

package process

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Measurable says whether ReadUsage works here.
const Measurable = true

// tick is the unit of times in /proc/<pid>/stat. Linux shows them in hundredths
// of a second on every architecture (USER_HZ, see time(7)).
const tick = time.Second / 100

// ReadUsage adds up what processes use. CPU is what they used since they began,
// in user and kernel mode, RSS the bytes they have in memory; pages that several
// share count for each. A process that has ended is an error.
func ReadUsage(pids []int) (Usage, error) {
	var sum Usage
	for _, pid := range pids {
		stat, err := readStat(pid)
		if err != nil {
			return Usage{}, err
		}
		rss, err := readRSS(pid)
		if err != nil {
			return Usage{}, err
		}
		sum.CPU += stat.cpu
		sum.RSS += rss
	}
	return sum, nil
}

// Tree returns a process and all that descend from it, as far as they live.
func Tree(root int) []int {
	children := make(map[int][]int)
	paths, _ := filepath.Glob("/proc/[0-9]*/stat") // fails for a bad pattern only
	for _, path := range paths {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			continue
		}
		if stat, err := readStat(pid); err == nil {
			children[stat.parent] = append(children[stat.parent], pid)
		}
	}
	tree := []int{root}
	for i := 0; i < len(tree); i++ {
		tree = append(tree, children[tree[i]]...)
	}
	return tree
}

// Program is the path of the file that a process runs; empty if it has ended.
func Program(pid int) string {
	path, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return path
}

// stat is what matters of /proc/<pid>/stat.
type stat struct {
	parent int
	cpu    time.Duration
}

func readStat(pid int) (stat, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, err
	}
	return parseStat(string(text))
}

// parseStat reads "pid (name) state ppid … utime stime …"; see proc(5). The name
// may hold anything, also spaces and brackets.
func parseStat(text string) (stat, error) {
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 13 {
		return stat{}, fmt.Errorf("%q isn't the stat of a process", text)
	}
	var numbers [3]int
	for i, field := range []string{fields[1], fields[11], fields[12]} {
		n, err := strconv.Atoi(field)
		if err != nil {
			return stat{}, err
		}
		numbers[i] = n
	}
	return stat{parent: numbers[0], cpu: time.Duration(numbers[1]+numbers[2]) * tick}, nil
}

// readRSS is VmRSS of /proc/<pid>/status, in bytes.
func readRSS(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, line, _ := strings.Cut(string(text), "\nVmRSS:")
	var kib int64
	if _, err := fmt.Sscanf(line, "%d kB", &kib); err != nil {
		return 0, fmt.Errorf("process %d has no VmRSS: %w", pid, err)
	}
	return kib << 10, nil
}

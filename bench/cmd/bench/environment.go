// SPDX-License-Identifier: MPL-2.0

//go:build unix

package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// environment names the machine and what ran on it.
func (s *stage) environment(ctx context.Context) string {
	versions := append([]string{"Go " + strings.TrimPrefix(runtime.Version(), "go")}, s.versions...)
	return fmt.Sprintf("Measured on %s: %s, %d cores, %s (%s/%s). %s.", s.began.UTC().Format(time.DateOnly),
		cpuModel(ctx), runtime.NumCPU(), system(ctx), runtime.GOOS, runtime.GOARCH, strings.Join(versions, ", "))
}

// method says how it was measured.
func (s *stage) method() string {
	rounds := fmt.Sprintf("Medians of %d rounds, each of %s for every target in turn", s.options.rounds, s.options.duration)
	if s.options.rounds == 1 {
		rounds = fmt.Sprintf("One round of %s for every target in turn", s.options.duration)
	}
	return rounds + ", all against one upstream program. " +
		"Client and upstream share the cores with what is measured. Requests and answers have the same size; a stream's " +
		"events are sent one by one, at once. Every answer is checked. Vault is a dev server (storage in memory) without an audit device, " +
		"everything is plain HTTP on loopback. The virtual key has limits on money, requests and tokens. CPU and memory are " +
		"of the target's processes: of the plugin alone for `gateway` and `gateway-leased`, of Vault and the plugin for " +
		"`gateway-ask`, `inline` and `noop`. With the sandbox, the provider is the one that is built into the plugin."
}

// cpuModel is what the processor calls itself.
func cpuModel(ctx context.Context) string {
	if runtime.GOOS == "darwin" {
		out, _ := exec.CommandContext(ctx, "sysctl", "-n", "machdep.cpu.brand_string").Output()
		return strings.TrimSpace(string(out))
	}
	if model := fieldOf("/proc/cpuinfo", "model name", ":"); model != "" {
		return model
	}
	return "an unnamed processor"
}

// system is the operating system's name and version.
func system(ctx context.Context) string {
	kernel, _ := exec.CommandContext(ctx, "uname", "-sr").Output()
	name := strings.Trim(fieldOf("/etc/os-release", "PRETTY_NAME", "="), `"`)
	if name != "" {
		name += ", "
	}
	return name + strings.TrimSpace(string(kernel))
}

// noteBusy waits a second and makes a note if other programs keep the machine
// busy, for then the figures are less than they could be, and not by the same
// for each target.
func (s *stage) noteBusy(ctx context.Context) {
	before, ok := idleTime()
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
		return
	}
	after, _ := idleTime()
	busy := 1 - (after-before).Seconds()/float64(runtime.NumCPU())
	if !ok || busy < 0.1 {
		return
	}
	note := fmt.Sprintf("Other programs used %.0f %% of the machine when this run began: its figures are to be taken with care.", busy*100)
	s.say("%s", note)
	s.notes = append(s.notes, note)
}

// idleTime is how long all cores together had nothing to do since the machine
// was started. It is in hundredths of a second in the first line of Linux's
// /proc/stat, after user, nice and system (proc_stat(5)); elsewhere ok is false.
func idleTime() (idle time.Duration, ok bool) {
	var user, nice, system, hundredths int64
	_, err := fmt.Sscanf(fieldOf("/proc/stat", "cpu", "  "), "%d %d %d %d", &user, &nice, &system, &hundredths)
	return time.Duration(hundredths) * time.Second / 100, err == nil
}

// fieldOf is the value of the first line of a file that begins with name, after
// the separator; empty if there is none.
func fieldOf(path, name, separator string) string {
	file, err := os.Open(path) //nolint:gosec // a file of the system
	if err != nil {
		return ""
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		key, value, ok := strings.Cut(lines.Text(), separator)
		if ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

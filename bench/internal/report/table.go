// SPDX-License-Identifier: MPL-2.0

package report

import (
	"fmt"
	"strings"
)

// Markdown is the run as a page shows it: the figures that the design asks for,
// and a table of ratios for each cell.
func (r *Run) Markdown() string {
	var out strings.Builder
	fmt.Fprintf(&out, "%s\n\n%s\n\n", r.Environment, r.Method)
	for _, note := range r.Notes {
		fmt.Fprintf(&out, "- %s\n", note)
	}
	if len(r.Notes) > 0 {
		out.WriteByte('\n')
	}
	out.WriteString("| Figure | Must reach | Aim | Got | |\n|---|---|---|---|---|\n")
	for _, c := range r.checks() {
		fmt.Fprintf(&out, "| %s | %s | %s | %s | %s |\n", c.what, c.bound(c.must), c.bound(c.aim), c.shown(), c.verdict())
	}
	for _, c := range r.cells() {
		fmt.Fprintf(&out, "\n**%s.** %s\n\n", c, r.base(c))
		for _, line := range r.lines(c) {
			fmt.Fprintf(&out, "| %s |\n", strings.Join(line, " | "))
		}
	}
	return out.String()
}

// Text is the same for a terminal, in columns.
func (r *Run) Text() string {
	var out strings.Builder
	for _, c := range r.cells() {
		fmt.Fprintf(&out, "\n%s\n%s\n", c, r.base(c))
		lines := r.lines(c)
		out.WriteString(columns(append(lines[:1:1], lines[2:]...)))
	}
	checks := [][]string{{"What the design asks for", "must", "aim", "got", ""}}
	for _, c := range r.checks() {
		checks = append(checks, []string{c.what, c.bound(c.must), c.bound(c.aim), c.shown(), c.verdict()})
	}
	out.WriteString("\n" + columns(checks))
	for _, note := range r.Notes {
		fmt.Fprintf(&out, "\n%s\n", note)
	}
	return out.String()
}

// base says what the ratios of a cell are ratios of.
func (r *Run) base(c Cell) string {
	b := r.find(baseline, c)
	if b == nil {
		return "ReverseProxy wasn't measured, so there is nothing to compare with."
	}
	cpu := ""
	if b.CPU != nil {
		cpu = fmt.Sprintf(", %s CPU a request", microseconds(*b.CPU))
	}
	return fmt.Sprintf("ReverseProxy, to which the rest are ratios: %s a second%s, p50 %s, p99 %s, first byte %s.",
		thousands(b.RPS), cpu, microseconds(b.P50), microseconds(b.P99), microseconds(b.FirstByte))
}

// lines are the table of a cell, with its heading and the line below that.
func (r *Run) lines(c Cell) [][]string {
	lines := [][]string{
		{"", "throughput", "CPU a request", "p50", "p99", "first byte", "added to p50", "memory, MiB"},
		{"---", "---:", "---:", "---:", "---:", "---:", "---:", "---:"},
	}
	var b Row // all zero, so that every ratio to it is a dash
	if found := r.find(baseline, c); found != nil {
		b = *found
	}
	none := r.find(direct, c)
	for i := range r.Rows {
		row := &r.Rows[i]
		if row.Cell() != c {
			continue
		}
		added, rss := "–", "–"
		if none != nil && row != none {
			added = microseconds(row.P50 - none.P50)
		}
		if row.RSS != nil && *row.RSS > 0 {
			rss = thousands(*row.RSS)
		}
		lines = append(lines, []string{
			title(row.Target), ratio(&row.RPS, &b.RPS), ratio(used(row), b.CPU), ratio(&row.P50, &b.P50),
			ratio(&row.P99, &b.P99), ratio(&row.FirstByte, &b.FirstByte), added, rss,
		})
	}
	return lines
}

// used is the CPU that a target used, nil if it has no process.
func used(row *Row) *float64 {
	if row.Target == direct {
		return nil
	}
	return row.CPU
}

// columns lays out a table with spaces.
func columns(lines [][]string) string {
	var widths []int
	for _, line := range lines {
		for i, field := range line {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], len([]rune(field)))
		}
	}
	var out strings.Builder
	for _, line := range lines {
		var row strings.Builder
		for i, field := range line {
			space := strings.Repeat(" ", widths[i]-len([]rune(field)))
			if i == 0 {
				row.WriteString("  " + field + space)
			} else {
				row.WriteString("  " + space + field)
			}
		}
		out.WriteString(strings.TrimRight(row.String(), " ") + "\n")
	}
	return out.String()
}

// SPDX-License-Identifier: MPL-2.0

package report

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// The targets by name. Everything is compared with the baseline; direct is
// nothing between client and upstream.
const (
	baseline   = "reverseproxy"
	direct     = "direct"
	gateway    = "gateway"
	portkey    = "portkey-gateway"
	inline     = "inline"
	noop       = "noop"
	ofSandbox  = "-sandbox" // behind the two: with the plugin's own sandbox for a provider
	checkedKiB = 4          // the bodies of which the design asks for figures
)

// titles are the targets' names as people read them.
func title(target string) string {
	switch target {
	case baseline:
		return "Go's ReverseProxy"
	case portkey:
		return "Portkey's gateway"
	case "litellm":
		return "LiteLLM proxy"
	case gateway:
		return "gateway"
	case "gateway-ask":
		return "gateway, asking Vault every time"
	case "gateway-leased":
		return "gateway, leased key"
	case inline:
		return "inline, through Vault"
	case noop:
		return "a no-op path, through Vault"
	case inline + ofSandbox:
		return "inline, with the sandbox"
	case noop + ofSandbox:
		return "a no-op path, with the sandbox's answer"
	}
	return target
}

// Run is one run of the bench.
type Run struct {
	Rows []Row
	// Environment is a sentence or two that name the machine and the versions;
	// Method says how it was measured.
	Environment, Method string
	// Notes are what a reader has to know of single targets.
	Notes []string
}

// find returns the row of a target in a cell, nil if it wasn't measured.
func (r *Run) find(target string, c Cell) *Row {
	i := slices.IndexFunc(r.Rows, func(row Row) bool { return row.Target == target && row.Cell() == c })
	if i < 0 {
		return nil
	}
	return &r.Rows[i]
}

// cells are those that were measured, in the order of the rows.
func (r *Run) cells() []Cell {
	var cells []Cell
	for _, row := range r.Rows {
		if !slices.Contains(cells, row.Cell()) {
			cells = append(cells, row.Cell())
		}
	}
	return cells
}

// ratio is a/b as it is shown; a dash if either is unknown.
func ratio(a, b *float64) string {
	if a == nil || b == nil || *b <= 0 {
		return "–"
	}
	return number(*a / *b)
}

// number shows a figure with as many digits as say something.
func number(v float64) string {
	switch {
	case v >= 9.95 || v <= -9.95:
		return thousands(v)
	case v < 0.0995 && v > -0.0995:
		return strconv.FormatFloat(v, 'f', 3, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

// thousands shows whole numbers with commas.
func thousands(v float64) string {
	if v < 100 && v > -100 {
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	digits := strconv.FormatFloat(v, 'f', 0, 64)
	var out strings.Builder
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 && digits[i-1] != '-' {
			out.WriteByte(',')
		}
		out.WriteRune(d)
	}
	return out.String()
}

// microseconds shows a time given in them.
func microseconds(us float64) string {
	if us >= 1000 {
		return number(us/1000) + " ms"
	}
	return strconv.FormatFloat(us, 'f', 0, 64) + " µs"
}

// String says what the cell is.
func (c Cell) String() string {
	answers, connections := "whole answers", "connections"
	if c.Stream {
		answers = "streams"
	}
	if c.Connections == 1 {
		connections = "connection"
	}
	return fmt.Sprintf("%d KiB, %s, %d %s", c.BodyKiB, answers, c.Connections, connections)
}

// SPDX-License-Identifier: MPL-2.0

package report

import (
	"fmt"
	"html"
	"strings"
)

// What the picture shows, from the top: each target's throughput at 32
// connections as a multiple of ReverseProxy's. direct is no proxy and the no-op
// path does no work, so neither is in it.
func pictured() []string {
	return []string{"nginx", baseline, gateway, "gateway-leased", "gateway-ask", inline, portkey, "litellm"}
}

// Measures of the picture, in its own units.
const (
	pictureWidth = 760
	labelWidth   = 250
	barWidth     = 420 // of the longest bar
	barHeight    = 18
	barStep      = 26
	groupGap     = 40
	margin       = 16
)

// The colours hold in both of a reader's schemes, the text's and the baseline's
// follow it.
const pictureStyle = `
    text { font-family: -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; font-size: 13px; fill: #1f2328; }
    .title { font-size: 15px; font-weight: 600; }
    .small { font-size: 11px; fill: #59636e; }
    .ours { fill: #0969da; }
    .other { fill: #8c959f; }
    .one { stroke: #59636e; stroke-dasharray: 3 3; }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3; }
      .small { fill: #9198a1; }
      .ours { fill: #4493f8; }
      .other { fill: #6e7681; }
      .one { stroke: #9198a1; }
    }
`

// bar is one line of the picture.
type bar struct {
	label string
	value float64
	ours  bool
}

// SVG is the picture of a run; ok is false if there is nothing in it to compare.
func (r *Run) SVG() (picture string, ok bool) {
	groups := []struct {
		title string
		bars  []bar
	}{{title: "Whole answers", bars: r.bars(false)}, {title: "Streams", bars: r.bars(true)}}
	longest := 1.0
	for _, g := range groups {
		for _, b := range g.bars {
			longest = max(longest, b.value)
			ok = ok || b.ours
		}
	}
	if !ok {
		return "", false
	}
	var out strings.Builder
	y := margin + 14
	text(&out, "title", margin, y, "Requests a second on 32 connections, as a multiple of Go's ReverseProxy")
	one := labelWidth + int(barWidth/longest)
	for _, g := range groups {
		if len(g.bars) == 0 {
			continue
		}
		y += groupGap
		text(&out, "title", margin, y, g.title)
		y += 12
		bottom := y + len(g.bars)*barStep
		fmt.Fprintf(&out, `  <line class="one" x1="%d" y1="%d" x2="%d" y2="%d"/>`+"\n", one, y-4, one, bottom-barStep+barHeight+4)
		for _, b := range g.bars {
			class := "other"
			if b.ours {
				class = "ours"
			}
			width := max(b.value/longest*barWidth, 1)
			text(&out, "", margin, y+13, b.label)
			fmt.Fprintf(&out, `  <rect class="%s" x="%d" y="%d" width="%.1f" height="%d" rx="2"/>`+"\n", class, labelWidth, y, width, barHeight)
			text(&out, "", labelWidth+int(width)+8, y+13, number(b.value)+"×")
			y += barStep
		}
	}
	y += 22
	for line := range strings.Lines(wrap(r.Environment, 110)) {
		text(&out, "small", margin, y, strings.TrimSpace(line))
		y += 15
	}
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%[1]d" height="%[2]d" role="img" aria-label="Throughput at 32 connections, relative to Go's ReverseProxy">
  <style>%s  </style>
%s</svg>
`, pictureWidth, y, pictureStyle, out.String()), true
}

// bars are the lines of one group.
func (r *Run) bars(stream bool) []bar {
	c := Cell{checkedKiB, stream, 32}
	var bars []bar
	for _, target := range pictured() {
		value := r.quotient(func(row *Row) *float64 { return &row.RPS }, target, baseline, c)
		if value != nil {
			bars = append(bars, bar{label: title(target), value: *value, ours: target == inline || strings.HasPrefix(target, gateway)})
		}
	}
	return bars
}

func text(out *strings.Builder, class string, x, y int, s string) {
	if class != "" {
		class = fmt.Sprintf(` class="%s"`, class)
	}
	fmt.Fprintf(out, `  <text%s x="%d" y="%d">%s</text>`+"\n", class, x, y, html.EscapeString(s))
}

// wrap breaks a text into lines of at most width bytes, if its words allow.
func wrap(s string, width int) string {
	var out strings.Builder
	length := 0
	for i, word := range strings.Fields(s) {
		switch {
		case i == 0:
		case length+1+len(word) > width:
			out.WriteByte('\n')
			length = 0
		default:
			out.WriteByte(' ')
			length++
		}
		out.WriteString(word)
		length += len(word)
	}
	return out.String()
}

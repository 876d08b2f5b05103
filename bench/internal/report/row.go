// SPDX-License-Identifier: MPL-2.0

// Package report says what the bench measured: as JSON, as tables of ratios, and
// as a picture. It doesn't measure anything itself.
package report

import (
	"encoding/json"
	"math"
	"slices"
)

// Row is what was measured of a target in one cell: the medians of all rounds.
type Row struct {
	Target      string `json:"target"`
	Connections int    `json:"connections"`
	BodyKiB     int    `json:"body_kib"`
	Stream      bool   `json:"stream"`
	// RPS is answers a second. The times are in microseconds: from a request's
	// first byte to its answer's last, and to the first of the answer's body.
	RPS       float64 `json:"rps"`
	P50       float64 `json:"p50_us"`
	P99       float64 `json:"p99_us"`
	FirstByte float64 `json:"ttfb_us"`
	// RSS and CPU are of the target's processes; nil where they can't be read.
	RSS *float64 `json:"rss_mib"`
	CPU *float64 `json:"cpu_us_per_request"`
}

// Cell is what a row was measured with.
type Cell struct {
	BodyKiB     int
	Stream      bool
	Connections int
}

// Cell returns what the row was measured with.
func (r Row) Cell() Cell { return Cell{r.BodyKiB, r.Stream, r.Connections} }

// Median takes the rounds of one target and cell, of which there is at least
// one, together. Each figure's median is taken apart, rounded to tenths.
func Median(rounds []Row) Row {
	pick := func(figure func(Row) float64) float64 {
		var all []float64
		for _, r := range rounds {
			all = append(all, figure(r))
		}
		return math.Round(median(all)*10) / 10
	}
	// A figure that one round lacks, all lack.
	pickKnown := func(figure func(Row) *float64) *float64 {
		if slices.ContainsFunc(rounds, func(r Row) bool { return figure(r) == nil }) {
			return nil
		}
		m := pick(func(r Row) float64 { return *figure(r) })
		return &m
	}
	m := rounds[0]
	m.RPS = pick(func(r Row) float64 { return r.RPS })
	m.P50 = pick(func(r Row) float64 { return r.P50 })
	m.P99 = pick(func(r Row) float64 { return r.P99 })
	m.FirstByte = pick(func(r Row) float64 { return r.FirstByte })
	m.RSS = pickKnown(func(r Row) *float64 { return r.RSS })
	m.CPU = pickKnown(func(r Row) *float64 { return r.CPU })
	return m
}

// median of what isn't empty: the middle one, or the mean of the two.
func median(all []float64) float64 {
	slices.Sort(all)
	n := len(all)
	return (all[(n-1)/2] + all[n/2]) / 2
}

// JSON is the rows as a list, one row a line.
func JSON(rows []Row) ([]byte, error) {
	text := []byte("[")
	for i, r := range rows {
		if i > 0 {
			text = append(text, ',')
		}
		line, err := json.Marshal(r)
		if err != nil {
			return nil, err
		}
		text = append(append(text, "\n  "...), line...)
	}
	return append(text, "\n]\n"...), nil
}

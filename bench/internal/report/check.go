// SPDX-License-Identifier: MPL-2.0

package report

// check is a figure that the design asks for.
type check struct {
	what      string
	must, aim float64
	unit      string
	atMost    bool     // must and aim are upper bounds, not lower ones
	got       *float64 // nil: not measured
}

// verdict says how far the figure is reached.
func (c check) verdict() string {
	reached := func(bound float64) bool {
		if c.atMost {
			return *c.got <= bound
		}
		return *c.got >= bound
	}
	switch {
	case c.got == nil:
		return "not measured"
	case reached(c.aim):
		return "aim reached"
	case reached(c.must):
		return "reached"
	}
	return "not reached"
}

func (c check) bound(v float64) string {
	sign := "≥ "
	if c.atMost {
		sign = "≤ "
	}
	return sign + number(v) + c.unit
}

func (c check) shown() string {
	if c.got == nil {
		return "–"
	}
	return number(*c.got) + c.unit
}

// checks are the figures that the design asks for, from the 4 KiB bodies.
func (r *Run) checks() []check {
	rps := func(row *Row) *float64 { return &row.RPS }
	cpu := func(row *Row) *float64 { return row.CPU }
	var list []check
	for _, stream := range []bool{false, true} {
		busy := Cell{checkedKiB, stream, 32}
		of := ", whole answers"
		if stream {
			of = ", streams"
		}
		list = append(list,
			check{what: "gateway: throughput at 32 connections, against ReverseProxy" + of, must: 0.9, aim: 1.1, unit: "×", got: r.quotient(rps, gateway, baseline, busy)},
			check{what: "gateway: CPU per request, against ReverseProxy" + of, must: 1.15, aim: 1, unit: "×", atMost: true, got: r.quotient(cpu, gateway, baseline, busy)},
			check{what: "gateway: throughput against Portkey's gateway" + of, must: 8, aim: 12, unit: "×", got: r.quotient(rps, gateway, portkey, busy)},
		)
	}
	return append(list,
		check{what: "gateway: added p50 at 1 connection, against what ReverseProxy adds", must: 1.1, aim: 1, unit: "×", atMost: true, got: r.addedP50()},
		check{what: "gateway: added time to a stream's first byte, 1 connection", must: 0.5, aim: 0.2, unit: " ms", atMost: true, got: r.addedFirstByte()},
		check{what: "inline on the sandbox: throughput at 32 connections, against a no-op path in the same Vault", must: 0.9, aim: 0.95, unit: "×", got: r.quotient(rps, inline+ofSandbox, noop+ofSandbox, Cell{checkedKiB, false, 32})},
	)
}

// quotient is a figure of one target, divided by that of another.
func (r *Run) quotient(figure func(*Row) *float64, of, by string, c Cell) *float64 {
	a, b := r.find(of, c), r.find(by, c)
	if a == nil || b == nil || figure(a) == nil || figure(b) == nil || *figure(b) <= 0 {
		return nil
	}
	q := *figure(a) / *figure(b)
	return &q
}

// addedP50 is what the gateway adds to the median of a request that meets no
// other, as a multiple of what ReverseProxy adds.
func (r *Run) addedP50() *float64 {
	quiet := Cell{checkedKiB, false, 1}
	a, b, none := r.find(gateway, quiet), r.find(baseline, quiet), r.find(direct, quiet)
	if a == nil || b == nil || none == nil || b.P50 <= none.P50 {
		return nil
	}
	q := (a.P50 - none.P50) / (b.P50 - none.P50)
	return &q
}

// addedFirstByte is what the gateway adds to the time to a stream's first byte,
// in milliseconds.
func (r *Run) addedFirstByte() *float64 {
	quiet := Cell{checkedKiB, true, 1}
	a, none := r.find(gateway, quiet), r.find(direct, quiet)
	if a == nil || none == nil {
		return nil
	}
	ms := (a.FirstByte - none.FirstByte) / 1000
	return &ms
}

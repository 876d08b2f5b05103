// SPDX-License-Identifier: MPL-2.0

package report

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
)

func ptr(v float64) *float64 { return &v }

func TestMedian_TakesEachFigureApart(t *testing.T) {
	got := Median([]Row{
		{Target: "a", Connections: 1, RPS: 10, P50: 3, P99: 9, FirstByte: 1, CPU: ptr(5), RSS: ptr(1)},
		{Target: "a", Connections: 1, RPS: 30, P50: 1, P99: 7, FirstByte: 3, CPU: ptr(4), RSS: nil},
		{Target: "a", Connections: 1, RPS: 20, P50: 2, P99: 8.123, FirstByte: 2, CPU: ptr(6), RSS: ptr(3)},
	})
	want := Row{Target: "a", Connections: 1, RPS: 20, P50: 2, P99: 8.1, FirstByte: 2, CPU: ptr(5)}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := median([]float64{4, 1, 3, 2}); got != 2.5 {
		t.Errorf("the median of 1, 2, 3, 4 is %v", got)
	}
}

func TestJSON_IsAListOfRowsWithTheFieldsPromised(t *testing.T) {
	text, err := JSON([]Row{{Target: "direct", Connections: 32, BodyKiB: 4, Stream: true, RPS: 1.5}, {Target: "gateway", CPU: ptr(2), RSS: ptr(3)}})
	var rows []map[string]any
	if err != nil || json.Unmarshal(text, &rows) != nil || len(rows) != 2 {
		t.Fatalf("got %s, %v", text, err)
	}
	want := map[string]any{
		"target": "direct", "connections": 32.0, "body_kib": 4.0, "stream": true, "rps": 1.5,
		"p50_us": 0.0, "p99_us": 0.0, "ttfb_us": 0.0, "rss_mib": nil, "cpu_us_per_request": nil,
	}
	if !reflect.DeepEqual(rows[0], want) {
		t.Errorf("got %v, want %v", rows[0], want)
	}
	if text, err := JSON(nil); err != nil || json.Unmarshal(text, &rows) != nil || len(rows) != 0 {
		t.Errorf("no rows are %s, %v", text, err)
	}
}

// sample is a run in which the gateway reaches some of its figures.
func sample() *Run {
	run := &Run{Environment: "Measured on a machine & <day>: 2 cores.", Method: "By hand.", Notes: []string{"A note."}}
	for _, stream := range []bool{false, true} {
		for _, connections := range []int{1, 32} {
			row := func(target string, rps, p50, first, cpu float64) {
				run.Rows = append(run.Rows, Row{Target: target, Connections: connections, BodyKiB: 4, Stream: stream,
					RPS: rps, P50: p50, P99: 2 * p50, FirstByte: first, CPU: ptr(cpu), RSS: ptr(20)})
			}
			row("direct", 40000, 20, 20, 0)
			row("reverseproxy", 10000, 120, 110, 100)
			row("gateway", 9500, 140, 320, 100)
			row("inline", 800, 3000, 3000, 1000)
			row("noop", 1000, 2500, 2500, 900)
			row("inline-sandbox", 900, 3000, 3000, 1000)
			row("noop-sandbox", 1000, 2500, 2500, 900)
			row("portkey-gateway", 700, 2120, 2100, 1500)
		}
	}
	return run
}

func TestChecks_SayHowFarEachFigureIsReached(t *testing.T) {
	want := map[string]string{
		"throughput at 32 connections, against ReverseProxy, whole": "0.95× reached",
		"CPU per request, against ReverseProxy, whole":              "1.00× aim reached",
		"throughput against Portkey's gateway, streams":             "13.6× aim reached",
		"added p50 at 1 connection":                                 "1.20× not reached", // 120 µs to 100 µs
		"added time to a stream's first byte":                       "0.30 ms reached",
		"inline on the sandbox: throughput at 32 connections":       "0.90× reached",
	}
	for what, verdict := range want {
		found := 0
		for _, c := range sample().checks() {
			if strings.Contains(c.what, what) {
				found++
				if got := c.shown() + " " + c.verdict(); got != verdict {
					t.Errorf("%s: %s, want %s", c.what, got, verdict)
				}
			}
		}
		if found != 1 {
			t.Errorf("%d figures are called %q", found, what)
		}
	}
	for _, c := range (&Run{Rows: []Row{{Target: "gateway", Connections: 32, BodyKiB: 4}}}).checks() {
		if c.verdict() != "not measured" || c.shown() != "–" {
			t.Errorf("%s: %s without anything to compare with", c.what, c.verdict())
		}
	}
}

func TestMarkdown_IsTablesOfRatios(t *testing.T) {
	page := sample().Markdown()
	for _, want := range []string{
		"Measured on a machine", "By hand.", "- A note.",
		"| Portkey's gateway | 0.070 | 15.0 | 17.7 | 17.7 | 19.1 | 2.10 ms | 20.0 |",
		"| direct | 4.00 | – | 0.17 | 0.17 | 0.18 | – | 20.0 |",
		"**4 KiB, streams, 32 connections.** ReverseProxy, to which the rest are ratios: 10,000 a second, 100 µs CPU a request",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page doesn't say %q:\n%s", want, page)
		}
	}
	columns := 0
	for line := range strings.Lines(page) {
		n := strings.Count(line, " |")
		if strings.HasPrefix(line, "|") && columns != 0 && n != columns && !strings.HasPrefix(line, "|---") {
			t.Errorf("%q has %d columns, the lines above it %d", line, n, columns)
		}
		if columns = n; strings.HasPrefix(line, "|---") {
			columns = strings.Count(line, "|") - 1
		}
	}
}

func TestText_HasTheSameFigures(t *testing.T) {
	text := sample().Text()
	for _, want := range []string{"4 KiB, whole answers, 1 connection\n", "13.6×", "not reached", "15.0", "A note."} {
		if !strings.Contains(text, want) {
			t.Errorf("the text doesn't say %q:\n%s", want, text)
		}
	}
}

func TestSVG_IsWellFormedAndShowsWhatWasMeasured(t *testing.T) {
	picture, ok := sample().SVG()
	if !ok {
		t.Fatal("there is no picture")
	}
	bars, texts := 0, ""
	decoder := xml.NewDecoder(strings.NewReader(picture))
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, picture)
		}
		switch token := token.(type) {
		case xml.StartElement:
			if token.Name.Local == "rect" {
				bars++
			}
		case xml.CharData:
			texts += string(token)
		}
	}
	// Of direct and noop there is none.
	if bars != 2*4 {
		t.Errorf("it has %d bars", bars)
	}
	for _, want := range []string{"0.95×", "0.070×", "Portkey's gateway", "Streams", "a machine & <day>", "prefers-color-scheme: dark"} {
		if !strings.Contains(texts, want) {
			t.Errorf("it doesn't say %q", want)
		}
	}
	if _, ok := (&Run{Rows: []Row{{Target: "reverseproxy", Connections: 32, BodyKiB: 4, RPS: 1}}}).SVG(); ok {
		t.Error("there is a picture of nothing")
	}
}

func TestReplace_ChangesOnlyWhatIsBetweenTheMarkers(t *testing.T) {
	page := "# Title\n" + begin + "\nold\n" + end + "\nrest\n"
	got, ok := Replace(page, "\nnew\n\n")
	if want := "# Title\n" + begin + "\nnew\n" + end + "\nrest\n"; !ok || got != want {
		t.Errorf("got %q, %t", got, ok)
	}
	if again, ok := Replace(got, "new"); !ok || again != got {
		t.Errorf("the same again gives %q, %t", again, ok)
	}
	for _, page := range []string{"", begin, end, end + begin, begin + begin + end, begin + end + end, begin + end + begin + end} {
		if got, ok := Replace(page, "new"); ok || got != page {
			t.Errorf("%q becomes %q, %t", page, got, ok)
		}
	}
}

func TestNumber_HasAsManyDigitsAsSaySomething(t *testing.T) {
	for v, want := range map[float64]string{
		0.0123: "0.012", 0.0999: "0.10", 0.954: "0.95", 9.949: "9.95", 9.96: "10.0", 13.57: "13.6", 640.4: "640", 1234567: "1,234,567", -1500: "-1,500", -0.3: "-0.30", 0: "0.000",
	} {
		if got := number(v); got != want {
			t.Errorf("%v is shown as %s, want %s", v, got, want)
		}
	}
}

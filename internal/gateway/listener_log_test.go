// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"log"
	"strings"
	"testing"
	"time"
)

func TestListenerLog_IsLimitedAndSaysHowMuchItLeftOut(t *testing.T) {
	now := time.Unix(0, 0)
	var lines []string
	l := newLimitedLog(func() time.Time { return now }, func(m string) { lines = append(lines, m) })
	for range 10_000 {
		l.add("scanned")
	}
	if len(lines) != logBurst {
		t.Fatalf("%d lines at once", len(lines))
	}
	now = now.Add(logEvery)
	l.add("scanned")
	l.add("scanned")
	if len(lines) != logBurst+1 || lines[logBurst] != "scanned (9990 such messages were left out before)" {
		t.Fatalf("then: %q", lines[logBurst:])
	}
	now = now.Add(-time.Hour) // a clock that steps back
	l.add("scanned")
	now = now.Add(24 * time.Hour)
	for range 10_000 {
		l.add("scanned")
	}
	if len(lines) != 2*logBurst+1 {
		t.Errorf("%d lines after a day's rest", len(lines)-logBurst-1)
	}
}

func TestListenerLog_APeerCanNotWriteLinesOfItsOwn(t *testing.T) {
	var lines []string
	w := oneLine{newLimitedLog(time.Now, func(m string) { lines = append(lines, m) })}
	log.New(w, "", 0).Printf("http: protocols %s", "a\r\x1b[31mb\x00\nINFO all is well "+strings.Repeat("x", 5000))
	log.New(w, "", 0).Print(strings.Repeat("y", 5000))
	if len(lines) != 2 || lines[0] != "http: protocols a??[31mb?" || len(lines[1]) > longLine+len("…") {
		t.Errorf("lines: %.300q", lines)
	}
}

// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode"
)

const (
	logBurst = 10               // messages at once
	logEvery = 10 * time.Second // one more after that
	longLine = 240              // bytes
)

// limitedLog passes on at most logBurst messages at once and one every
// logEvery, and says how many it left out. It is safe for concurrent use.
type limitedLog struct {
	now func() time.Time
	log func(message string)

	mu      sync.Mutex
	credit  time.Duration // logEvery pays for one message
	last    time.Time
	leftOut int
}

func newLimitedLog(now func() time.Time, log func(string)) *limitedLog {
	return &limitedLog{now: now, log: log, credit: logBurst * logEvery, last: now()}
}

func (l *limitedLog) add(message string) {
	if omitted, ok := l.pass(); ok {
		if omitted > 0 {
			message = fmt.Sprintf("%s (%d such messages were left out before)", message, omitted)
		}
		l.log(message)
	}
}

// pass reports whether a message may go out, and how many didn't before it.
func (l *limitedLog) pass() (omitted int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	l.credit = min(l.credit+max(now.Sub(l.last), 0), logBurst*logEvery)
	l.last = now
	if l.credit < logEvery {
		l.leftOut++
		return 0, false
	}
	l.credit -= logEvery
	omitted, l.leftOut = l.leftOut, 0
	return omitted, true
}

// oneLine is the io.Writer of http.Server's ErrorLog. Some of its lines quote
// the peer (names of protocols, HTTP/2 frames), so that they are cut short and
// can't start a line of their own.
type oneLine struct{ to *limitedLog }

func (w oneLine) Write(p []byte) (int, error) {
	line, _, _ := strings.Cut(strings.TrimSpace(string(p)), "\n")
	if len(line) > longLine {
		line = line[:longLine] + "…"
	}
	w.to.add(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, line))
	return len(p), nil
}

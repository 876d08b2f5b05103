// SPDX-License-Identifier: MPL-2.0

package wire

import "bytes"

// The bounds of what is kept of a line, in bytes.
const (
	maxFieldName = 16 // the longest that matters is "event", after a byte order mark
	maxEventName = 64
)

// line is where the scan is in a line of an event stream
// (https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream).
type line struct {
	state   lineState
	name    []byte // of the field, up to maxFieldName
	spaced  bool   // the next byte, if a space, isn't part of the value
	first   bool   // the stream's first line, which may open with a byte order mark
	afterCR bool   // the last line ended in CR, so that LF belongs to it
	cutLF   bool   // and that line ended an event that was taken out
}

type lineState uint8

const (
	lineStart lineState = iota
	lineName
	lineData
	lineEvent
	lineOther // comments, other fields
)

// lines takes the next part of a stream. It looks for LF, and for CR in what
// precedes it, so that each byte is looked at once by each search.
func (m *Meter) lines(p []byte) {
	lf, cr := -1, -1
	for i := 0; i < len(p); {
		if m.line.afterCR {
			m.line.afterCR = false
			if p[i] == '\n' {
				if m.line.cutLF {
					m.from = i + 1
				}
				i++
				continue
			}
		}
		if lf < i {
			lf = find(p, i, len(p), '\n')
		}
		if cr < i {
			cr = find(p, i, lf, '\r')
		}
		if cr > i {
			m.lineText(p, i, cr)
		}
		if cr == len(p) {
			return
		}
		i = m.lineEnd(p, cr)
	}
}

// find returns the index of the first c in p[i:end], or end.
func find(p []byte, i, end int, c byte) int {
	if n := bytes.IndexByte(p[i:end], c); n >= 0 {
		return i + n
	}
	return end
}

// lineEnd ends the line whose terminator is p[e], and returns where the next
// begins.
func (m *Meter) lineEnd(p []byte, e int) int {
	next := e + 1
	if p[e] == '\r' {
		if m.line.afterCR = next == len(p); !m.line.afterCR && p[next] == '\n' {
			next++
		}
	}
	blank := m.endLine()
	m.line.cutLF = false
	if !blank {
		return next
	}
	if m.dispatch(m.offset + int64(next)) {
		m.cut(p, next)
		m.line.cutLF = true
	} else if m.event.holding {
		m.release()
	}
	m.event = event{name: m.event.name[:0], head: m.event.head[:0]}
	m.tap.reset()
	return next
}

// endLine ends a line, and says whether it was blank.
func (m *Meter) endLine() (blank bool) {
	l := &m.line
	switch l.state {
	case lineStart:
		blank = true
	case lineName: // a field without a value
		blank = len(m.fieldName()) == 0
		m.field()
	}
	l.state, l.name, l.first = lineStart, l.name[:0], false
	return blank
}

// lineText takes p[i:end], which is part of one line and not empty.
func (m *Meter) lineText(p []byte, i, end int) {
	l := &m.line
	if l.state == lineStart {
		l.state = lineName
		if p[i] != ':' {
			m.begin(i)
		}
	}
	if l.state == lineName {
		colon := find(p, i, end, ':')
		l.name = append(l.name, p[i:min(colon, i+maxFieldName+1-len(l.name))]...)
		if colon == end {
			return
		}
		i = colon + 1
		m.field()
	}
	if l.spaced && i < end {
		l.spaced = false
		if p[i] == ' ' {
			i++
		}
	}
	switch l.state {
	case lineData:
		m.data(p[i:end])
	case lineEvent:
		m.event.name = append(m.event.name, p[i:min(end, i+maxEventName-len(m.event.name))]...)
	}
}

// fieldName is the line's field; empty for a comment.
func (m *Meter) fieldName() []byte {
	if m.line.first {
		return bytes.TrimPrefix(m.line.name, []byte("\xef\xbb\xbf"))
	}
	return m.line.name
}

// field enters the value of the line's field.
func (m *Meter) field() {
	m.line.state, m.line.spaced = lineOther, true
	switch string(m.fieldName()) {
	case "data":
		m.line.state = lineData
		if m.event.lines++; m.event.lines > 1 {
			m.data([]byte{'\n'})
		}
	case "event":
		m.line.state = lineEvent
		m.event.name = m.event.name[:0]
	}
}

// data takes the next part of an event's data.
func (m *Meter) data(b []byte) {
	first := len(m.event.head) == 0
	if n := maxHead - len(m.event.head); n > 0 {
		m.event.head = append(m.event.head, b[:min(n, len(b))]...)
	}
	if !first {
		m.tap.feed(b)
		return
	}
	rest := m.recall.start(&m.tap, b)
	m.tap.feed(rest)
	if len(rest) == len(b) {
		m.recall.learn(&m.tap, b)
	}
}

// begin notes where an event begins: at its first line that is no comment.
func (m *Meter) begin(i int) {
	if !m.event.begun {
		m.event.begun, m.event.start = true, m.offset+int64(i)
		m.hold(i)
	}
}

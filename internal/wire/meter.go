// SPDX-License-Identifier: MPL-2.0

package wire

// maxHold bounds how much of a stream is held back, in bytes. A longer event
// is never taken out.
const maxHold = 1 << 20

// Outcome says how an answer ended.
type Outcome uint8

// The outcomes.
const (
	// Truncated: the answer ended before its format says that it is whole, or
	// hasn't ended yet.
	Truncated Outcome = iota
	// Complete: a whole JSON text without an error; or a stream that said it
	// was over, or whose usage is final and whose body ended.
	Complete
	// ErrorEvent: the provider reported an error in the answer, whatever else
	// it holds.
	ErrorEvent
)

// String returns the outcome's name.
func (o Outcome) String() string {
	switch o {
	case Complete:
		return "complete"
	case ErrorEvent:
		return "error event"
	}
	return "truncated"
}

// Meter reads usage from an answer of the OpenAI formats as its bytes pass.
// Its memory doesn't grow with the answer. It isn't safe for concurrent use.
//
// Bytes are never changed. Of a stream, one event can be taken out: the chunk
// that has usage and no choices.
type Meter struct {
	kind         Kind
	stream, drop bool
	tap          tap
	recall       recall
	line         line
	event        event

	// What the stream has said so far.
	usage               []byte
	model, tier         []byte
	usageLast           bool // the usage came there, or with the end of a choice
	usageFinal          bool // the usage came where nothing can follow
	finished            bool // a choice has ended
	ended, failed, over bool // the marker of the end; an error; the body's end
	outputBytes         int64
	outputEvents        int64
	firstContent        int64
	offset              int64 // of the next byte of the answer

	// The bytes of Next: held are those of earlier calls that wait for a
	// verdict, from is where those of p start that haven't been handed on,
	// holdAt where those start that wait, and out is what precedes p[from:].
	held, out    []byte
	from, holdAt int

	parsed Usage // what Usage has found, if it is known
	known  bool
}

// event is what is known of the event that is being read.
type event struct {
	name     []byte
	lines    int    // of data
	head     []byte // how the data begins, up to maxHead
	start    int64  // its offset in the answer
	begun    bool   // has anything but comments
	holding  bool   // its bytes wait for a verdict
	released bool   // it can't be the usage-only chunk
}

// maxHead is enough to know the marker of a stream's end, with white space.
const maxHead = 16

// NewMeter returns a meter for the answer to a request of this kind. stream
// says that the answer is a text/event-stream, whatever was asked for.
// dropUsageChunk takes the usage-only chunk out of a stream of chat or
// completions: it is for callers who didn't ask for usage (EnableStreamUsage).
func NewMeter(kind Kind, stream, dropUsageChunk bool) *Meter {
	m := &Meter{
		kind: kind, stream: stream, firstContent: -1,
		drop: stream && dropUsageChunk && (kind == Chat || kind == Completions),
	}
	m.tap.kind = kind
	m.line.first = true
	return m
}

// Next takes the next bytes of the answer and returns those to hand on now:
// all of p, unless the usage-only chunk is to be taken out. Then the bytes of
// an event that is split over several calls wait while it may still be that
// chunk, which for other chunks ends where their choices begin.
//
// What is returned is a part of p or a buffer of the meter's; it is valid
// until p is changed or Next is called again. Next never changes p.
func (m *Meter) Next(p []byte) []byte {
	m.known = false
	if !m.stream {
		m.tap.feed(p)
		m.offset += int64(len(p))
		return p
	}
	m.out, m.from, m.holdAt = m.out[:0], 0, 0
	m.lines(p)
	m.offset += int64(len(p))
	if m.event.holding && (m.hasContent() || m.offset-m.event.start > maxHold) {
		m.release()
	}
	end := len(p)
	if m.event.holding {
		end = m.holdAt
		m.held = append(m.held, p[end:]...)
	}
	if len(m.out) == 0 {
		return p[m.from:end]
	}
	m.out = append(m.out, p[m.from:end]...)
	return m.out
}

// Finish is for when the answer's body has ended as the provider meant it to
// (io.EOF), and returns the bytes that still wait. Call it once, after the last
// Next, and not at all if the body broke off: what waits then is a part of an
// event that no reader of the stream would take for one.
func (m *Meter) Finish() []byte {
	m.over, m.known = true, false
	if !m.stream {
		return nil
	}
	m.out, m.from = m.out[:0], 0
	m.endLine()
	if m.dispatch(m.offset) {
		m.held, m.event.holding = m.held[:0], false
	}
	if m.event.holding {
		m.release()
	}
	return m.out
}

// hold makes the event's bytes wait, from p[i] on.
func (m *Meter) hold(i int) {
	if m.drop && !m.event.holding && !m.event.released {
		m.event.holding, m.holdAt = true, i
	}
}

// release hands on what waits.
func (m *Meter) release() {
	m.out = append(m.out, m.held...)
	m.held = m.held[:0]
	m.event.holding, m.event.released = false, true
}

// cut takes out the event that waits, which ends before p[end].
func (m *Meter) cut(p []byte, end int) {
	m.held = m.held[:0]
	if m.holdAt > m.from {
		m.out = append(m.out, p[m.from:m.holdAt]...)
	}
	m.from, m.holdAt = end, end
	m.event.holding = false
}

// hasContent says that the event can't be the usage-only chunk, by what is
// known of it.
func (m *Meter) hasContent() bool {
	t := &m.tap
	return m.event.lines > 0 && (t.notObject || t.broken || t.hasChoices || t.failed || t.extra)
}

// usageOnly says that the event is the usage-only chunk.
func (m *Meter) usageOnly() bool {
	return m.event.lines > 0 && m.tap.whole() && m.tap.noChoices && m.tap.usageAt == usageOnTop && !m.hasContent()
}

// dispatch takes down an event, which ends before the offset end, and says
// whether it is to be taken out.
func (m *Meter) dispatch(end int64) (drop bool) {
	drop = m.event.holding && end-m.event.start <= maxHold && m.usageOnly()
	m.record()
	return drop
}

// SPDX-License-Identifier: MPL-2.0

package wire

import (
	"bytes"
	"unicode/utf8"
)

// record takes down what the event says.
func (m *Meter) record() {
	t := &m.tap
	switch {
	case m.event.lines == 0:
		return
	case t.notObject:
		m.ended = m.ended || string(bytes.TrimSpace(m.event.head)) == "[DONE]"
	}
	m.failed = m.failed || t.failed || string(m.event.name) == "error"
	if t.output > 0 {
		m.outputBytes += t.output
		m.outputEvents++
		if m.firstContent < 0 {
			m.firstContent = m.event.start
		}
	}
	if !t.whole() {
		return
	}
	terminal := m.kind == Responses && m.responseEvent(string(t.typ))
	if t.usageAt != usageNowhere && len(t.usage) > 0 {
		m.usage, t.usage = t.usage, m.usage
		m.usageFinal = terminal || m.finished && t.noChoices && !t.hasChoices
		m.usageLast = m.usageFinal || t.finished
	}
	m.finished = m.finished || t.finished
	if len(t.model) > 0 {
		m.model, t.model = t.model, m.model
	}
	if len(t.tier) > 0 {
		m.tier, t.tier = t.tier, m.tier
	}
}

// responseEvent takes down the type of an event of responses
// (https://platform.openai.com/docs/api-reference/responses-streaming), and
// says whether it ends the stream.
func (m *Meter) responseEvent(name string) bool {
	switch name {
	case "response.completed", "response.incomplete":
	case "response.failed", "response.cancelled":
		m.failed = true
	case "error":
		m.failed = true
		return false
	default:
		return false
	}
	m.ended = true
	return true
}

// Usage is what the answer has said so far of the tokens that it used. In a
// stream, what comes later replaces what came before.
func (m *Meter) Usage() Usage {
	if !m.known {
		m.parsed, m.known = m.parseUsage(), true
	}
	return m.parsed
}

func (m *Meter) parseUsage() Usage {
	raw, final := m.usage, m.ended || m.usageFinal || m.over && m.usageLast
	if !m.stream {
		if !m.tap.whole() || m.tap.usageAt == usageNowhere {
			return Usage{}
		}
		raw, final = m.tap.usage, true
	}
	u, ok := parseUsage(m.kind, raw)
	if !ok {
		return Usage{}
	}
	u.Partial = !final
	return u
}

// Outcome says how the answer has ended.
func (m *Meter) Outcome() Outcome {
	switch {
	case m.failed || !m.stream && m.tap.failed:
		return ErrorEvent
	case !m.stream && (m.tap.whole() || m.tap.notObject && m.over):
		return Complete
	case m.stream && (m.ended || m.over && m.usageLast):
		return Complete
	}
	return Truncated
}

// Model is the model that the answer names; empty if it names none. It may
// differ from the one that was asked for.
func (m *Meter) Model() string {
	if !m.stream {
		return content(m.tap.model)
	}
	return content(m.model)
}

// ServiceTier is the tier that the answer names; empty if it names none.
func (m *Meter) ServiceTier() string {
	if !m.stream {
		return content(m.tap.tier)
	}
	return content(m.tier)
}

// Output is how much a stream has generated so far, for estimates where usage
// is missing: the events with generated text (reasoning and tool calls
// included), and the length of that text as JSON, in bytes, which is never
// less than the number of its tokens. Both are 0 for answers that aren't
// streams.
func (m *Meter) Output() (events, bytes int64) { return m.outputEvents, m.outputBytes }

// FirstContent is the offset in the answer, in bytes, of the first event that
// had generated text; -1 until there is one.
func (m *Meter) FirstContent() int64 { return m.firstContent }

// content is the text of a string whose JSON text, without quotes, is raw.
func content(raw []byte) string {
	if bytes.IndexByte(raw, '\\') < 0 && utf8.Valid(raw) {
		return string(raw)
	}
	return unquote(append(append([]byte{'"'}, raw...), '"'))
}

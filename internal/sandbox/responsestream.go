// SPDX-License-Identifier: MPL-2.0

package sandbox

import "iter"

// The events of a streamed response
// (https://platform.openai.com/docs/api-reference/responses-streaming). All
// carry their own name and a number that counts from 0; there is no [DONE].
type (
	eventHead struct {
		Type           string `json:"type"`
		SequenceNumber int64  `json:"sequence_number"`
	}
	responseEvent struct {
		eventHead
		Response *response `json:"response"`
	}
	itemEvent struct {
		eventHead
		OutputIndex int        `json:"output_index"`
		Item        outputItem `json:"item"`
	}
	place struct {
		ItemID      string `json:"item_id"`
		OutputIndex int    `json:"output_index"`
	}
	partEvent struct {
		eventHead
		place
		ContentIndex int      `json:"content_index"`
		Part         textPart `json:"part"`
	}
	textEvent struct {
		eventHead
		place
		ContentIndex int        `json:"content_index"`
		Delta        *string    `json:"delta,omitempty"`
		Text         *string    `json:"text,omitempty"`
		Logprobs     []struct{} `json:"logprobs"` // always empty
	}
	argumentsEvent struct {
		eventHead
		place
		Delta     *string `json:"delta,omitempty"`
		Arguments *string `json:"arguments,omitempty"`
	}
	responseErrorEvent struct {
		eventHead
		Code    *string `json:"code"`
		Message string  `json:"message"`
		Param   *string `json:"param"`
	}
)

func (h *eventHead) stamp(name string, number int64) { h.Type, h.SequenceNumber = name, number }

type stamped interface {
	stamp(name string, number int64)
}

// responseStream numbers the events of one stream and says when they are due.
type responseStream struct {
	yield  func(event) bool
	number int64
	due    int64
}

func (s *responseStream) send(name string, e stamped) bool {
	e.stamp(name, s.number)
	s.number++
	return s.yield(event{namedEvent(name, e), s.due})
}

func (r *responseRequest) events(c *completion) iter.Seq[event] {
	return func(yield func(event) bool) {
		s := &responseStream{yield: yield}
		begun := r.started(c)
		if !s.send("response.created", &responseEvent{Response: begun}) ||
			!s.send("response.in_progress", &responseEvent{Response: begun}) {
			return
		}
		output := 0
		if c.choice[0].reasoning > 0 {
			item := c.reasoningItem()
			if !s.send("response.output_item.added", &itemEvent{Item: item}) {
				return
			}
			s.due = c.choice[0].reasoning
			if !s.send("response.output_item.done", &itemEvent{Item: item}) {
				return
			}
			output = 1
		}
		if c.speaks() && !c.sendItem(s, output) {
			return
		}
		s.due = c.steps
		s.send("response."+c.status(), &responseEvent{Response: r.ended(c)})
	}
}

// sendItem sends the message or the call.
func (c *completion) sendItem(s *responseStream, output int) bool {
	content := c.sendText
	if c.tool != "" {
		content = c.sendArguments
	}
	return s.send("response.output_item.added", &itemEvent{OutputIndex: output, Item: c.item(statusInProgress, "")}) &&
		content(s, place{c.itemID(), output}) &&
		s.send("response.output_item.done", &itemEvent{OutputIndex: output, Item: c.item(c.status(), c.choice[0].text)})
}

func (c *completion) sendText(s *responseStream, at place) bool {
	if !s.send("response.content_part.added", &partEvent{place: at, Part: newTextPart("")}) {
		return false
	}
	none := []struct{}{}
	for d := range c.deltas() {
		s.due = d.due
		if !s.send("response.output_text.delta", &textEvent{place: at, Delta: &d.text, Logprobs: none}) {
			return false
		}
	}
	text := c.choice[0].text
	return s.send("response.output_text.done", &textEvent{place: at, Text: &text, Logprobs: none}) &&
		s.send("response.content_part.done", &partEvent{place: at, Part: newTextPart(text)})
}

func (c *completion) sendArguments(s *responseStream, at place) bool {
	for d := range c.deltas() {
		s.due = d.due
		if !s.send("response.function_call_arguments.delta", &argumentsEvent{place: at, Delta: &d.text}) {
			return false
		}
	}
	return s.send("response.function_call_arguments.done", &argumentsEvent{place: at, Arguments: &c.choice[0].text})
}

func (*responseRequest) failedEvent(e *apiError, before int64) []byte {
	const name = "error"
	o := &responseErrorEvent{Code: ptr(e.Type), Message: e.Message, Param: e.Param}
	o.stamp(name, before)
	return namedEvent(name, o)
}

// SPDX-License-Identifier: MPL-2.0

package upstream

// responsesFormat is POST /v1/responses and its stream
// (https://platform.openai.com/docs/api-reference/responses-streaming).
func responsesFormat() format {
	return format{
		input:  func(c call) (string, bool) { return "input", !missing(c.Input) },
		body:   func(c completion) []byte { return marshal(c.response(true)) },
		events: responseEvents,
		failed: func(f failure) []byte {
			return namedEvent("error", marshal(object{"type": "error", "code": f.kind, "message": f.message, "param": nil, "sequence_number": 1}))
		},
	}
}

// response is the response object, at its end or while it is being made.
func (c completion) response(ended bool) object {
	o := object{
		"id": "resp_" + c.id, "object": "response", "created_at": created, "model": c.model,
		"status": "in_progress", "output": []any{}, "usage": nil,
		"error": nil, "incomplete_details": nil, "instructions": nil, "max_output_tokens": nil,
		"metadata": object{}, "parallel_tool_calls": true, "previous_response_id": nil,
		"reasoning": object{"effort": nil, "summary": nil}, "store": true, "temperature": 1.0,
		"text": object{"format": object{"type": "text"}}, "tool_choice": "auto", "tools": []any{},
		"top_p": 1.0, "truncation": "disabled", "user": nil,
	}
	if !ended {
		return o
	}
	o["status"] = "completed"
	o["output"] = []any{c.item(true)}
	if c.cut {
		o["status"] = "incomplete"
		o["incomplete_details"] = object{"reason": "max_output_tokens"}
	}
	if c.usage != nil {
		o["usage"] = object{
			"input_tokens": c.usage.prompt, "input_tokens_details": object{"cached_tokens": 0},
			"output_tokens": c.usage.completion, "output_tokens_details": object{"reasoning_tokens": 0},
			"total_tokens": c.usage.prompt + c.usage.completion,
		}
	}
	return o
}

// item is the one output item, a message.
func (c completion) item(ended bool) object {
	o := object{"id": "msg_" + c.id, "type": "message", "role": "assistant", "status": "in_progress", "content": []any{}}
	if ended {
		o["status"] = "completed"
		if c.cut {
			o["status"] = "incomplete"
		}
		o["content"] = []any{textPart(c.text())}
	}
	return o
}

func textPart(text string) object {
	return object{"type": "output_text", "text": text, "annotations": []any{}, "logprobs": []any{}}
}

// responseEvents number themselves and have no [DONE].
func responseEvents(c completion) [][]byte {
	var events [][]byte
	add := func(name string, o object) {
		o["type"], o["sequence_number"] = name, len(events)
		events = append(events, namedEvent(name, marshal(o)))
	}
	part := func(o object) object {
		o["item_id"], o["output_index"], o["content_index"] = "msg_"+c.id, 0, 0
		return o
	}
	add("response.created", object{"response": c.response(false)})
	add("response.in_progress", object{"response": c.response(false)})
	add("response.output_item.added", object{"output_index": 0, "item": c.item(false)})
	add("response.content_part.added", part(object{"part": textPart("")}))
	for _, p := range c.pieces {
		add("response.output_text.delta", part(object{"delta": p, "logprobs": []any{}}))
	}
	add("response.output_text.done", part(object{"text": c.text(), "logprobs": []any{}}))
	add("response.content_part.done", part(object{"part": textPart(c.text())}))
	add("response.output_item.done", object{"output_index": 0, "item": c.item(true)})
	end := "response.completed"
	if c.cut {
		end = "response.incomplete"
	}
	add(end, object{"response": c.response(true)})
	return events
}

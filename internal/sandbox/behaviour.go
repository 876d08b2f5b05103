// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"context"
	"io"
	"iter"
	"net/http"
	"time"
)

// behaviour is how a model's name asks an answer to be given.
type behaviour struct {
	*Sandbox
	ctx     context.Context
	variant *variant
	tokens  int64 // how long the answer takes at the model's pace
}

// garbage is what is neither JSON nor an event.
const garbage = "<html><body>Bad gateway, says the sandbox: this is not JSON.</body></html>\n"

// whole gives an answer in one piece. v is what becomes its JSON.
func (b *behaviour) whole(v any) (*answer, error) {
	if a, err := b.failFirst(); a != nil || err != nil {
		return a, err
	}
	if err := b.wait(b.variant.pace(b.tokens)); err != nil {
		return nil, err
	}
	switch b.variant.fail {
	case failGarbage:
		return whole([]byte(garbage)), nil
	case failErrorEvent:
		return refusal(midwayError()), nil
	case failCut, failStall:
		a := whole(encode(v))
		half := a.body[:len(a.body)/2]
		a.stream = &stream{events: one(half), end: b.ending()}
		return a, nil
	}
	return whole(encode(v)), nil
}

// stream gives an answer event by event. failed makes the event
// of an error after so many events.
func (b *behaviour) stream(events iter.Seq[event], failed func(e *apiError, before int64) []byte) (*answer, error) {
	if a, err := b.failFirst(); a != nil || err != nil {
		return a, err
	}
	switch fail := b.variant.fail; {
	case fail == failGarbage:
		return eventStream(one([]byte("data: "+garbage+"\n")), io.EOF), nil
	case fail.midway():
		events = firstHalf(events, b.tokens/2)
		if fail == failErrorEvent {
			events = then(events, func(before int64) event { return event{failed(midwayError(), before), b.tokens / 2} })
		}
	}
	a := eventStream(events, b.ending())
	if b.variant.rate > 0 {
		a.stream.began, a.stream.pace = b.clock.Now(), b.variant.pace
	}
	return a, nil
}

// failFirst waits for the model's latency, and answers for a model that fails
// without doing anything. Both results are nil if the model goes on.
func (b *behaviour) failFirst() (*answer, error) {
	if err := b.wait(b.variant.latency); err != nil {
		return nil, err
	}
	switch fail := b.variant.fail; {
	case fail == failHang:
		<-b.ctx.Done()
		return nil, b.ctx.Err()
	case fail == failReset:
		return nil, errReset
	case fail >= http.StatusBadRequest:
		return refusal(failed(int(fail))), nil
	}
	return nil, nil
}

func (b *behaviour) wait(d time.Duration) error {
	if d <= 0 {
		return nil
	}
	return b.clock.Sleep(b.ctx, d)
}

// ending is what a body ends with.
func (b *behaviour) ending() error {
	switch b.variant.fail {
	case failCut:
		return io.ErrUnexpectedEOF
	case failStall:
		return nil
	}
	return io.EOF
}

func midwayError() *apiError {
	return &apiError{
		status: http.StatusInternalServerError, Type: typeServer,
		Message: "The model was asked to fail in mid-stream, by the modifier fail=error-event in its name.",
	}
}

func one(data []byte) iter.Seq[event] {
	return func(yield func(event) bool) { yield(event{data: data}) }
}

// firstHalf yields the events that are due within so many tokens.
func firstHalf(events iter.Seq[event], tokens int64) iter.Seq[event] {
	return func(yield func(event) bool) {
		for e := range events {
			if e.due > tokens || !yield(e) {
				return
			}
		}
	}
}

// then adds an event, which is told how many come before it.
func then(events iter.Seq[event], last func(before int64) event) iter.Seq[event] {
	return func(yield func(event) bool) {
		var before int64
		for e := range events {
			if !yield(e) {
				return
			}
			before++
		}
		yield(last(before))
	}
}

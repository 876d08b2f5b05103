// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"encoding/hex"
	"iter"
	"math"
	"strconv"
	"strings"
)

const (
	// maxChoices is OpenAI's bound for n; here it also bounds the choices of
	// several prompts together.
	maxChoices = 128
	// maxAnswerBytes bounds the text of all choices together.
	maxAnswerBytes = 64 << 20
	// bigPiece is the size of the pieces in which a big answer is streamed.
	bigPiece = 16 << 10
	maxStops = 4
)

// generation is what a request for text asks for, whatever its wire format.
type generation struct {
	variant variant
	prompt  *prompt
	// promptParam is the field of the prompt, for errors.
	promptParam string
	choices     int64
	// limit is the cap on the tokens of a choice, nil for none; limitParam is
	// the field that it came in.
	limit      *int64
	limitParam string
	stops      []string
	// fixed is what to answer instead of prose: JSON or a tool's arguments.
	fixed string
	// asJSON wraps the prose in a JSON object.
	asJSON bool
	// tool is the function that is called; fixed is its arguments.
	tool string

	stream, includeUsage bool
}

// completion is a generation's outcome, before it is written in a wire format.
type completion struct {
	*generation
	id      string // 32 hex digits, the same for the same request
	created int64  // Unix seconds
	choice  []choice
	usage   *usage // nil if it isn't reported
	// steps is how many tokens are made one after the other: choices are made
	// side by side.
	steps int64
}

type choice struct {
	text      string // or the arguments of the tool
	finish    string // OpenAI's finish_reason
	reasoning int64  // tokens
	tokens    int64  // reasoning included
}

type usage struct {
	prompt, cached, completion, reasoning int64
}

// The finish reasons that the sandbox gives.
const (
	finishStop   = "stop"
	finishLength = "length"
	finishTools  = "tool_calls"
)

// check refuses what the model can't do.
func (g *generation) check() *apiError {
	m := g.variant.model
	if g.limit != nil {
		if _, err := within(g.limitParam, g.limit, 0, math.MaxInt64); err != nil {
			return err
		}
		if *g.limit > m.MaxOutputTokens {
			return invalid(g.limitParam, "invalid_value",
				"%s is too large: %d. This model supports at most %d completion tokens, whereas you provided %[2]d.", g.limitParam, *g.limit, m.MaxOutputTokens)
		}
	}
	if g.prompt.tokens >= m.ContextWindow {
		return invalid(g.promptParam, "context_length_exceeded",
			"This model's maximum context length is %d tokens. However, your messages resulted in %d tokens. Please reduce the length of the messages.",
			m.ContextWindow, g.prompt.tokens)
	}
	if len(g.stops) > maxStops {
		return invalid("stop", "array_above_max_length", "Invalid 'stop': array too long. Expected an array with maximum length %d.", maxStops)
	}
	for _, s := range g.stops {
		if s == "" {
			return invalid("stop", "empty_string", "Invalid 'stop': empty string. Leave it out instead.")
		}
	}
	if g.choices > maxChoices {
		return invalid("n", "integer_above_max_value", "Invalid 'n': %d choices in all; at most %d are possible.", g.choices, maxChoices)
	}
	if g.choices*g.variant.big > maxAnswerBytes {
		return invalid("n", "invalid_value", "%d choices of %d bytes are more than %d bytes; ask for fewer.", g.choices, g.variant.big, maxAnswerBytes)
	}
	return nil
}

// run makes the answer. echo is what the modifier of that name answers.
func (g *generation) run(created int64, echo string) *completion {
	seed := g.prompt.seed()
	c := &completion{
		generation: g, id: hex.EncodeToString(seed[16:]), created: created,
		choice: make([]choice, g.choices),
	}
	u := usage{prompt: g.prompt.tokens, cached: min(g.variant.cached, g.prompt.tokens)}
	for i := range c.choice {
		c.choice[i] = g.choose(&seed, i, echo)
		u.completion += c.choice[i].tokens
		u.reasoning += c.choice[i].reasoning
		c.steps = max(c.steps, c.choice[i].tokens)
	}
	if !g.variant.noUsage {
		c.usage = &u
	}
	return c
}

// choose makes choice i and cuts it to what stops and caps leave of it.
func (g *generation) choose(seed *[32]byte, i int, echo string) choice {
	if g.variant.big > 0 {
		// A provider that gives what nobody asked for: no cap holds.
		return choice{text: prose(seed, i, g.variant.big), finish: finishStop, tokens: tokensOf(int(g.variant.big))}
	}
	c := choice{text: g.text(seed, i, echo), finish: finishStop}
	if g.tool != "" {
		c.finish = finishTools
	}
	for _, s := range g.stops {
		c.text, _, _ = strings.Cut(c.text, s)
	}
	m := g.variant.model
	limit := min(m.MaxOutputTokens, m.ContextWindow-g.prompt.tokens)
	if g.limit != nil {
		limit = min(limit, *g.limit)
	}
	c.reasoning = min(g.variant.reasoning, limit)
	if left := limit - c.reasoning; tokensOf(len(c.text)) > left || c.reasoning < g.variant.reasoning {
		c.text, c.finish = cutText(c.text, int(left)*bytesPerToken), finishLength
	}
	c.tokens = c.reasoning + tokensOf(len(c.text))
	return c
}

// text is what choice i says where nothing cuts it short.
func (g *generation) text(seed *[32]byte, i int, echo string) string {
	length := g.variant.tokens * bytesPerToken
	switch {
	case g.fixed != "":
		return g.fixed
	case g.variant.echo:
		return echo
	case g.asJSON:
		const frame = `{"answer":""}`
		return `{"answer":` + strconv.Quote(prose(seed, i, max(0, length-int64(len(frame))))) + `}`
	}
	return prose(seed, i, length)
}

// delta is a piece of choice's text. due counts the tokens that are made when
// it is ready.
type delta struct {
	choice int
	text   string
	due    int64
}

// deltas yields the text of all choices in pieces of a token, those of the
// several choices in turns.
func (c *completion) deltas() iter.Seq[delta] {
	size := bytesPerToken
	if c.variant.big > 0 {
		size = bigPiece
	}
	return func(yield func(delta) bool) {
		if len(c.choice) == 1 {
			for text, through := range pieces(c.choice[0].text, size) {
				if !yield(delta{0, text, c.choice[0].reasoning + tokensOf(through)}) {
					return
				}
			}
			return
		}
		c.inTurns(size, yield)
	}
}

func (c *completion) inTurns(size int, yield func(delta) bool) {
	at := make([]int, len(c.choice)) // bytes of each choice that are through
	for end, more := size, true; more; end += size {
		more = false
		for i := range c.choice {
			text := c.choice[i].text
			upTo := len(cutText(text, end))
			if upTo > at[i] && !yield(delta{i, text[at[i]:upTo], c.choice[i].reasoning + tokensOf(min(end, len(text)))}) {
				return
			}
			at[i] = upTo
			more = more || upTo < len(text)
		}
	}
}

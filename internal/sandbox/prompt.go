// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"hash"
	"reflect"
	"strconv"
	"unicode/utf8"
)

// What a prompt's tokens are counted as, beside its text.
const (
	tokensPerRequest = 3
	tokensPerMessage = 4
	// tokensPerMedia is what an image, a file or a sound counts, whatever its
	// size.
	tokensPerMedia = 85
)

// prompt gathers what an answer depends on and how many tokens that is. It is
// the same for a streamed and a whole answer, and for all modifiers of a model.
type prompt struct {
	hash    hash.Hash
	scratch []byte // what is being hashed
	tokens  int64
}

// newPrompt starts the prompt of a request of one kind, such as "chat", to a
// model.
func newPrompt(kind string, m *Model, tokens int64) *prompt {
	p := &prompt{hash: sha256.New(), scratch: make([]byte, 0, 256), tokens: tokens}
	p.depend(kind)
	p.depend(m.ID)
	return p
}

// depend makes the answer depend on s, which counts no tokens. Lengths keep
// ("a", "bc") and ("ab", "c") apart.
func (p *prompt) depend(s string) {
	p.scratch = binary.LittleEndian.AppendUint64(p.scratch[:0], uint64(len(s)))
	p.scratch = append(p.scratch, s...)
	_, _ = p.hash.Write(p.scratch) // a hash never fails
}

// say adds text.
func (p *prompt) say(text string) {
	p.depend(text)
	p.tokens += tokensOf(len(text))
}

// add adds the content of a message.
func (p *prompt) add(c content) {
	p.depend(c.digest)
	p.tokens += c.tokens
}

// define adds the definitions of tools: their JSON text is what counts.
func (p *prompt) define(tools []json.RawMessage) {
	for _, t := range tools {
		p.tokens += tokensPerMessage
		p.say(string(t))
	}
}

func (p *prompt) seed() (seed [32]byte) {
	p.hash.Sum(seed[:0])
	return seed
}

// content is what a message says: null, a string or a list of parts.
type content struct {
	given  bool
	digest string // tells contents apart
	tokens int64
}

type part struct {
	Type    string  `json:"type"`
	Text    *string `json:"text"`
	Refusal *string `json:"refusal"`
}

// UnmarshalJSON counts a string, or each part of a list by itself.
func (c *content) UnmarshalJSON(b []byte) error {
	switch b[0] {
	case 'n':
		return nil
	case '"':
		c.given = true
		if bytes.IndexByte(b, '\\') < 0 && utf8.Valid(b) { // encoding/json has checked the rest
			c.digest = string(b[1 : len(b)-1])
		} else if err := json.Unmarshal(b, &c.digest); err != nil {
			return err
		}
		c.tokens = tokensOf(len(c.digest))
		return nil
	case '[':
		var parts []part
		if err := json.Unmarshal(b, &parts); err != nil {
			return err
		}
		c.given, c.digest = true, string(b)
		for _, p := range parts {
			switch {
			case p.Text != nil:
				c.tokens += tokensOf(len(*p.Text))
			case p.Refusal != nil:
				c.tokens += tokensOf(len(*p.Refusal))
			default:
				c.tokens += tokensPerMedia
			}
		}
		return nil
	}
	return wrongType(b, reflect.TypeFor[content]())
}

// inputs is what completions and embeddings work on: a string, a list of
// strings, a list of tokens, or a list of lists of tokens.
type inputs []input

type input struct {
	digest string // tells inputs apart
	tokens int64
}

// UnmarshalJSON takes the four forms. Token numbers are 32 bits without sign.
func (in *inputs) UnmarshalJSON(b []byte) error {
	*in = nil
	switch first := firstElement(b); {
	case b[0] == 'n':
		return nil
	case b[0] == '"', first == '"':
		var texts stringList
		if err := json.Unmarshal(b, &texts); err != nil {
			return err
		}
		*in = make(inputs, len(texts))
		for i, s := range texts {
			(*in)[i] = input{s, tokensOf(len(s))}
		}
		return nil
	case first == ']':
		*in = inputs{}
		return nil
	case first == '[':
		var lists [][]uint32
		if err := json.Unmarshal(b, &lists); err != nil {
			return err
		}
		*in = make(inputs, len(lists))
		for i, l := range lists {
			(*in)[i] = tokenInput(l)
		}
		return nil
	case b[0] == '[':
		var tokens []uint32
		if err := json.Unmarshal(b, &tokens); err != nil {
			return err
		}
		*in = inputs{tokenInput(tokens)}
		return nil
	}
	return wrongType(b, reflect.TypeFor[inputs]())
}

func tokenInput(tokens []uint32) input {
	digest := make([]byte, 0, 4*len(tokens))
	for _, t := range tokens {
		digest = binary.LittleEndian.AppendUint32(digest, t)
	}
	return input{string(digest), int64(len(tokens))}
}

// firstElement is the first byte of the first element of a list, ']' of an
// empty one, and 0 of what is no list.
func firstElement(b []byte) byte {
	if b[0] != '[' {
		return 0
	}
	for _, c := range b[1:] {
		if c != ' ' && c != '\t' && c != '\n' && c != '\r' {
			return c
		}
	}
	return 0
}

// sow makes the answer depend on a request's seed, if it has one.
func (p *prompt) sow(seed *int64) {
	if seed != nil {
		p.depend(strconv.FormatInt(*seed, 10))
	}
}

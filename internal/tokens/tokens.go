// SPDX-License-Identifier: MPL-2.0

// Package tokens counts the tokens of a text exactly, for models whose
// tokenizer is public and certain: OpenAI's, at OpenAI. It is byte-pair
// encoding as tiktoken does it (https://github.com/openai/tiktoken), in time
// that grows with the text only, whatever the text.
//
// It counts what tiktoken counts, and more only where a run of letters, spaces
// or signs is longer than maxPiece bytes. Characters younger than the Unicode
// that Go knows may be taken for signs: such texts can be a token off. It knows
// nothing of requests, or of what a provider adds to a text.
package tokens

import (
	_ "embed"
	"strings"
	"sync"
)

// Encodings are the encodings that are known. Each is loaded when it is first
// asked for, which takes some 30 ms and 10 MB, and then stays. The zero value is
// ready, and safe for concurrent use.
type Encodings struct {
	o200k, cl100k lazy
}

type lazy struct {
	once     sync.Once
	encoding *Encoding
}

func (l *lazy) get(packed string, split splitter) *Encoding {
	l.once.Do(func() { l.encoding = newEncoding(packed, split) })
	return l.encoding
}

// The vocabularies, as pack.go makes them from tiktoken's files.
//
//go:embed o200k_base.gz
var o200kPacked string

//go:embed cl100k_base.gz
var cl100kPacked string

// For returns the encoding of a model, nil if it isn't certain. provider is the
// catalogue's id. Elsewhere than at OpenAI a model's name doesn't tell how its
// tokens are counted; at Azure it is a deployment's.
func (e *Encodings) For(provider, model string) *Encoding {
	if !Known(provider, model) {
		return nil
	}
	switch encodingName(model) {
	case "o200k_base":
		return e.o200k.get(o200kPacked, splitO200k)
	case "cl100k_base":
		return e.cl100k.get(cl100kPacked, splitCL100k)
	}
	return nil
}

// Known says whether For knows the encoding of a model; it loads none.
func Known(provider, model string) bool { return provider == "openai" && encodingName(model) != "" }

// encodingName is tiktoken's table of models as of its version 0.14.0, without
// what it answers wrongly (fine-tuned gpt-4.1, which it takes for gpt-4).
func encodingName(model string) string {
	model = strings.TrimPrefix(model, "ft:")
	for _, family := range []struct{ name, encoding string }{
		{"gpt-5", "o200k_base"}, {"gpt-4.1", "o200k_base"}, {"gpt-4.5", "o200k_base"}, {"gpt-4o", "o200k_base"},
		{"chatgpt-4o", "o200k_base"}, {"o1", "o200k_base"}, {"o3", "o200k_base"}, {"o4-mini", "o200k_base"},
		{"gpt-4", "cl100k_base"}, {"gpt-3.5-turbo", "cl100k_base"}, {"davinci-002", "cl100k_base"}, {"babbage-002", "cl100k_base"},
		{"text-embedding-ada-002", "cl100k_base"}, {"text-embedding-3-small", "cl100k_base"}, {"text-embedding-3-large", "cl100k_base"},
	} {
		// After a name come a variant or a date, a fine-tuned model's owner, or,
		// in this family alone, a minor version.
		rest, ok := strings.CutPrefix(model, family.name)
		if ok && (rest == "" || rest[0] == '-' || rest[0] == ':' || rest[0] == '.' && family.name == "gpt-5") {
			return family.encoding
		}
	}
	return ""
}

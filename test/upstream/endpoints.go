// SPDX-License-Identifier: MPL-2.0

package upstream

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"hash/fnv"
	"math"
	"net/http"
)

// The length of an embedding vector when the request asks for none, that of
// text-embedding-3-small; and the longest that can be asked for.
const (
	defaultDimensions = 1536
	maxDimensions     = 3072
)

// embed is POST /v1/embeddings
// (https://platform.openai.com/docs/api-reference/embeddings).
func (x *exchange) embed() {
	c, bad := parseCall(x.body)
	if bad != nil {
		x.fail(*bad)
		return
	}
	b, ok := x.start()
	if !ok {
		return
	}
	dimensions := defaultDimensions
	if c.Dimensions != nil {
		dimensions = *c.Dimensions
	}
	inputs, ok := embeddingInputs(c.Input)
	switch {
	case !ok:
		x.fail(badRequest("input", "missing_required_parameter", "Missing required parameter: 'input': a string, a list of strings, a list of tokens or a list of those."))
		return
	case dimensions < 1 || dimensions > maxDimensions:
		x.fail(badRequest("dimensions", "invalid_value", "Invalid 'dimensions': %d is not from 1 to %d.", dimensions, maxDimensions))
		return
	case c.EncodingFormat != "" && c.EncodingFormat != "float" && c.EncodingFormat != "base64":
		x.fail(badRequest("encoding_format", "invalid_value", "Invalid 'encoding_format': '%s' is neither float nor base64.", c.EncodingFormat))
		return
	}
	rows := make([]any, len(inputs))
	for i, in := range inputs {
		rows[i] = object{"object": "embedding", "index": i, "embedding": encodeVector(vector(in, dimensions), c.EncodingFormat)}
	}
	o := object{"object": "list", "data": rows, "model": c.Model}
	cost := usage{prompt: c.promptTokens()}
	if b.kind != kindNoUsage {
		o["usage"] = object{"prompt_tokens": cost.prompt, "total_tokens": cost.prompt}
	}
	x.deliver(b, answer{cost: &cost, parts: [][]byte{marshal(o)}})
}

// embeddingInputs tells the inputs apart: a list of numbers is one input.
func embeddingInputs(raw json.RawMessage) ([]json.RawMessage, bool) {
	var text string
	var tokens []float64
	var list []json.RawMessage
	switch {
	case missing(raw):
		return nil, false
	case json.Unmarshal(raw, &text) == nil, json.Unmarshal(raw, &tokens) == nil && len(tokens) > 0:
		return []json.RawMessage{raw}, true
	case json.Unmarshal(raw, &list) == nil && len(list) > 0:
		return list, true
	}
	return nil, false
}

// vector is a unit vector that depends on the input's JSON text alone.
func vector(input []byte, dimensions int) []float32 {
	h := fnv.New64a()
	_, _ = h.Write(input) // hash.Hash: "It never returns an error"
	state := h.Sum64()
	v := make([]float64, dimensions)
	sum := 0.0
	for i := range v {
		// Knuth's MMIX linear congruential generator; its high bits are good.
		state = state*6364136223846793005 + 1442695040888963407
		v[i] = float64(int32(state>>32)) / math.MaxInt32
		sum += v[i] * v[i]
	}
	out := make([]float32, dimensions)
	for i := range v {
		out[i] = float32(v[i] / math.Sqrt(sum))
	}
	return out
}

// encodeVector is a list of numbers, or the base64 of little-endian float32s,
// which OpenAI's SDKs ask for.
func encodeVector(v []float32, format string) any {
	if format != "base64" {
		return v
	}
	b := make([]byte, 0, 4*len(v))
	for _, f := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(f))
	}
	return base64.StdEncoding.EncodeToString(b)
}

// transcribe is POST /v1/audio/transcriptions: it hears nothing, but the upload
// is in the journal. It is billed as a request without tokens.
func (x *exchange) transcribe() {
	if x.model == "" {
		x.fail(badRequest(nil, nil, "you must provide a model parameter"))
		return
	}
	if b, ok := x.start(); ok {
		x.deliver(b, answer{cost: &usage{}, parts: [][]byte{marshal(object{"text": AnswerText})}})
	}
}

func modelObject(id string) object {
	return object{"id": id, "object": "model", "created": created, "owned_by": "upstream"}
}

// listModels is GET /v1/models: the ordinary models, and up-ok for the rest.
func (x *exchange) listModels() {
	var b behaviour
	if forced := x.server.forced.Load(); forced != nil && *forced != "" {
		var ok bool
		if b, ok = x.start(); !ok {
			return
		}
	}
	rows := []any{modelObject("up-ok")}
	for _, m := range x.server.options.Models {
		rows = append(rows, modelObject(m))
	}
	x.deliver(b, answer{parts: [][]byte{marshal(object{"object": "list", "data": rows})}})
}

// oneModel is GET and DELETE /v1/models/{id}; deleting changes nothing.
func (x *exchange) oneModel() {
	b, ok := x.start()
	if !ok {
		return
	}
	o := modelObject(x.model)
	if x.r.Method == http.MethodDelete {
		o = object{"id": x.model, "object": "model", "deleted": true}
	}
	x.deliver(b, answer{parts: [][]byte{marshal(o)}})
}

// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
)

// OpenAI's bounds of one request for embeddings
// (https://platform.openai.com/docs/api-reference/embeddings/create).
const (
	maxInputs      = 2_048
	maxInputTokens = 300_000 // of all inputs together
)

type embeddingRequest struct {
	Model          string  `json:"model"`
	Input          inputs  `json:"input"`
	Dimensions     *int64  `json:"dimensions"`
	EncodingFormat *string `json:"encoding_format"`
}

type (
	embeddingAnswer struct {
		Object string          `json:"object"`
		Data   []embedding     `json:"data"`
		Model  string          `json:"model"`
		Usage  *embeddingUsage `json:"usage,omitempty"`
	}
	embedding struct {
		Object    string          `json:"object"`
		Index     int             `json:"index"`
		Embedding json.RawMessage `json:"embedding"`
	}
	embeddingUsage struct {
		PromptTokens int64 `json:"prompt_tokens"`
		TotalTokens  int64 `json:"total_tokens"`
	}
)

// tokens checks the input and counts it.
func (r *embeddingRequest) tokens(m *Model) (total int64, err *apiError) {
	if r.Input == nil {
		return 0, missing("input")
	}
	if len(r.Input) == 0 || len(r.Input) > maxInputs {
		return 0, invalid("input", "invalid_value", "Invalid 'input': expected 1 to %d inputs, but got %d.", maxInputs, len(r.Input))
	}
	for i, in := range r.Input {
		if in.tokens == 0 {
			return 0, invalid(fmt.Sprintf("input[%d]", i), "empty_string", "Invalid 'input[%d]': it is empty.", i)
		}
		if in.tokens > m.ContextWindow {
			return 0, invalid(fmt.Sprintf("input[%d]", i), "context_length_exceeded",
				"Invalid 'input[%d]': maximum input length is %d tokens, this one has %d.", i, m.ContextWindow, in.tokens)
		}
		total += in.tokens
	}
	if total > maxInputTokens {
		return 0, invalid("input", "max_tokens_per_request", "Invalid 'input': maximum request size is %d tokens, this one has %d.", maxInputTokens, total)
	}
	return total, nil
}

// answer makes the embeddings.
func (r *embeddingRequest) answer(v variant) (*embeddingAnswer, *apiError) {
	total, err := r.tokens(v.model)
	if err != nil {
		return nil, err
	}
	dimensions, err := within("dimensions", r.Dimensions, v.model.Dimensions, v.model.Dimensions)
	if err != nil {
		return nil, err
	}
	write := writeFloats
	if r.EncodingFormat != nil {
		switch *r.EncodingFormat {
		case "float":
		case "base64":
			write = writeBase64
		default:
			return nil, invalidValue("encoding_format", *r.EncodingFormat, "'float' and 'base64'")
		}
	}
	answer := &embeddingAnswer{Object: "list", Data: make([]embedding, len(r.Input)), Model: v.name}
	for i, in := range r.Input {
		answer.Data[i] = embedding{Object: "embedding", Index: i, Embedding: write(unitVector(in.digest, int(dimensions)))}
	}
	if !v.noUsage {
		answer.Usage = &embeddingUsage{PromptTokens: total, TotalTokens: total}
	}
	return answer, nil
}

// unitVector is a vector of length 1 that depends on text alone. Fewer
// dimensions of the same text are the beginning of more, scaled, as OpenAI's
// models do it.
func unitVector(text string, dimensions int) []float32 {
	sum := sha256.Sum256([]byte(text))
	rng := rand.NewPCG(binary.LittleEndian.Uint64(sum[:8]), binary.LittleEndian.Uint64(sum[8:16]))
	raw := make([]float64, dimensions)
	var square float64
	for i := range raw {
		raw[i] = float64(int32(rng.Uint64()>>32)) + 0.5 // #nosec G115 -- any 32 bits; a half keeps the sum above 0
		// The conversion keeps the compiler from fusing the two operations,
		// which would round differently on other machines.
		square += float64(raw[i] * raw[i])
	}
	length := math.Sqrt(square)
	unit := make([]float32, dimensions)
	for i := range raw {
		unit[i] = float32(raw[i] / length)
	}
	return unit
}

func writeFloats(v []float32) json.RawMessage { return encode(v) }

// writeBase64 is the encoding that OpenAI's SDKs ask for: 32-bit floats, the
// least significant byte first.
func writeBase64(v []float32) json.RawMessage {
	raw := make([]byte, 0, 4*len(v))
	for _, f := range v {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(f))
	}
	return encode(base64.StdEncoding.EncodeToString(raw))
}

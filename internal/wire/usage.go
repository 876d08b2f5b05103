// SPDX-License-Identifier: MPL-2.0

package wire

import (
	"math"
	"strconv"
	"strings"
)

// maxTokens bounds every count, so that sums never overflow. No answer has so
// many.
const maxTokens = 1e15

// Usage is what an answer says it used, in tokens, brought to OpenAI's
// meaning: parts are included in their wholes, so that each is priced once.
// All counts are from 0 to 1e15.
type Usage struct {
	// Input is all input. CacheRead, CacheWrite and InputAudio are parts of it.
	Input, CacheRead, CacheWrite, InputAudio int64
	// Output is all output. Reasoning, OutputAudio and OutputImage are parts of
	// it.
	Output, Reasoning, OutputAudio, OutputImage int64
	// OutputSplit says that the answer tells how much of the output is audio or
	// images; without it they may be any part of the output.
	OutputSplit bool
	// Total is what the answer gives as the total; 0 if it gives none.
	Total int64
	// Known says that the answer had usage at all. Everything else is zero
	// without it.
	Known bool
	// Partial says that the usage is not known to be final: the stream broke
	// off after a running figure.
	Partial bool
	// ProviderCostUSD is what the provider says the answer cost, in USD, as a
	// decimal number that may have an exponent; empty for most providers.
	ProviderCostUSD string
	// OwnKey says that a reseller used the customer's own key at the maker, who
	// charges UpstreamCostUSD beside ProviderCostUSD; empty if it isn't told
	// (https://openrouter.ai/docs/use-cases/byok).
	OwnKey          bool
	UpstreamCostUSD string
}

// parseUsage reads a usage object. ok is false if the text isn't one object.
func parseUsage(kind Kind, raw []byte) (u Usage, ok bool) {
	s := scanner{t: raw}
	if s.peek() != '{' || s.object(1, nil) != nil {
		return Usage{}, false
	}
	r := reader{t: raw}
	for more := r.open('{'); more; more = r.next('}') {
		key := r.key()
		u.member(string(key), r.value())
	}
	u.Known = true
	u.settle(kind)
	return u, true
}

// member reads one member of a usage object. Counts of the same thing by
// several names are taken at their largest.
func (u *Usage) member(key string, raw []byte) {
	switch key {
	case "prompt_tokens", "input_tokens":
		u.Input = max(u.Input, count(raw))
	case "completion_tokens", "output_tokens":
		u.Output = max(u.Output, count(raw))
	case "total_tokens":
		u.Total = count(raw)
	case "prompt_tokens_details", "input_tokens_details":
		u.inputDetails(raw)
	case "completion_tokens_details", "output_tokens_details":
		u.outputDetails(raw)
	case "prompt_cache_hit_tokens", "cached_tokens":
		// DeepSeek's and Moonshot's names; some send OpenAI's beside them.
		u.CacheRead = max(u.CacheRead, count(raw))
	case "reasoning_tokens": // Perplexity
		u.Reasoning = max(u.Reasoning, count(raw))
	case "cost", "estimated_cost": // OpenRouter, Perplexity; DeepInfra
		u.ProviderCostUSD = cost(raw, "total_cost")
	case "is_byok":
		u.OwnKey = len(raw) > 0 && raw[0] != 'f' && raw[0] != 'n'
	case "cost_details":
		u.UpstreamCostUSD = cost(raw, "upstream_inference_cost")
	case "cost_in_usd_ticks": // xAI: 1e10 are a dollar
		if isNumber(raw) {
			u.ProviderCostUSD = ticks(count(raw))
		}
	}
}

func (u *Usage) inputDetails(raw []byte) {
	r := reader{t: raw}
	for more := r.open('{'); more; more = r.next('}') {
		key := r.key()
		n := count(r.value())
		switch string(key) {
		case "cached_tokens":
			u.CacheRead = max(u.CacheRead, n)
		case "cache_write_tokens", "cache_creation_tokens":
			u.CacheWrite = max(u.CacheWrite, n)
		case "audio_tokens":
			u.InputAudio = max(u.InputAudio, n)
		}
	}
}

func (u *Usage) outputDetails(raw []byte) {
	r := reader{t: raw}
	for more := r.open('{'); more; more = r.next('}') {
		key := r.key()
		v := r.value()
		n := count(v)
		switch string(key) {
		case "audio_tokens":
			u.OutputAudio = max(u.OutputAudio, n)
			u.OutputSplit = u.OutputSplit || isNumber(v)
		case "image_tokens":
			u.OutputImage = max(u.OutputImage, n)
			u.OutputSplit = u.OutputSplit || isNumber(v)
		case "reasoning_tokens":
			u.Reasoning = max(u.Reasoning, n)
		}
	}
}

// settle makes the wholes include their parts.
//
// The total tells what a provider leaves out: xAI's completion_tokens are
// without reasoning (https://docs.x.ai/docs/key-information/consumption-and-rate-limits),
// and Google's without thoughts, which it doesn't even name; both are in the
// total and are charged as output. Embeddings have no output, and some
// providers give only the total.
func (u *Usage) settle(kind Kind) {
	if parts := u.CacheRead + u.CacheWrite; parts > u.Input {
		u.Input += parts
	}
	u.Input = max(u.Input, u.InputAudio)
	if kind == Embeddings || kind == Moderations {
		u.Input = max(u.Input, u.Total-u.Output)
		return
	}
	switch missing := u.Total - u.Input - u.Output; {
	case missing > 0:
		u.Output += missing
		u.Reasoning = max(u.Reasoning, missing)
	case u.Reasoning > u.Output:
		u.Output += u.Reasoning
	}
	u.Output = max(u.Output, u.OutputAudio+u.OutputImage)
}

// count reads a number of tokens. Whatever isn't a positive number is 0; a
// fraction is rounded up.
func count(raw []byte) int64 {
	if !isNumber(raw) {
		return 0
	}
	if n, err := strconv.ParseInt(string(raw), 10, 64); err == nil {
		return min(max(n, 0), maxTokens)
	}
	f, err := strconv.ParseFloat(string(raw), 64)
	if err != nil && !math.IsInf(f, 0) {
		return 0
	}
	return int64(math.Ceil(min(max(f, 0), maxTokens)))
}

// cost reads a cost: a number, or an object's member that is one, such as
// Perplexity's sum.
func cost(raw []byte, member string) string {
	if isNumber(raw) {
		return string(raw)
	}
	r := reader{t: raw}
	for more := r.open('{'); more; more = r.next('}') {
		key := r.key()
		if v := r.value(); string(key) == member && isNumber(v) {
			return string(v)
		}
	}
	return ""
}

// ticks writes 1e-10ths as a decimal number.
func ticks(n int64) string {
	const digits = 10
	s := strconv.FormatInt(n, 10)
	if pad := digits + 1 - len(s); pad > 0 {
		s = strings.Repeat("0", pad) + s
	}
	whole, fraction := s[:len(s)-digits], strings.TrimRight(s[len(s)-digits:], "0")
	if fraction == "" {
		return whole
	}
	return whole + "." + fraction
}

func isNumber(raw []byte) bool {
	return len(raw) > 0 && (raw[0] == '-' || raw[0] >= '0' && raw[0] <= '9')
}

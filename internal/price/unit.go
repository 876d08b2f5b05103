// SPDX-License-Identifier: MPL-2.0

package price

import (
	"fmt"
	"math"
	"strings"
)

// Unit is something that a completion's usage counts and a provider charges
// for: a kind of token, or requests. A part is counted in its whole too:
// CacheRead tokens are among the Input tokens.
type Unit int

// The units. Whole and parts:
//
//	Input  ⊃ CacheRead ⊃ CacheAudioRead, CacheImageRead
//	         CacheWrite ⊃ CacheWrite1h
//	         InputAudio ⊃ CacheAudioRead
//	         InputImage ⊃ CacheImageRead
//	         InputVideo
//	Output ⊃ OutputReasoning, OutputCitation, OutputAudio, OutputImage, OutputVideo
const (
	// Input is all input tokens, cached ones included. A wire format that
	// reports cached tokens beside the input, as Anthropic's does, must be
	// added up first.
	Input Unit = iota
	// CacheRead is input read from a prompt cache.
	CacheRead
	// CacheWrite is input written to a prompt cache, for any time to live.
	CacheWrite
	// CacheWrite1h is the part of CacheWrite that is kept for an hour.
	CacheWrite1h
	// InputAudio is audio input, cached or not.
	InputAudio
	// CacheAudioRead is audio input read from a prompt cache.
	CacheAudioRead
	// InputImage is image input, cached or not.
	InputImage
	// CacheImageRead is image input read from a prompt cache.
	CacheImageRead
	// InputVideo is video input.
	InputVideo
	// Output is all output tokens, those of hidden reasoning included.
	Output
	// OutputReasoning is reasoning output, shown or hidden.
	OutputReasoning
	// OutputCitation is output that cites sources, where a provider counts it.
	OutputCitation
	// OutputAudio is audio output.
	OutputAudio
	// OutputImage is image output.
	OutputImage
	// OutputVideo is video output.
	OutputVideo
	// Requests is how many requests the usage is of: 1 for one completion.
	Requests

	// NumUnits is the number of units.
	NumUnits
)

func unitNames() [NumUnits]string {
	return [NumUnits]string{
		Input: "input", CacheRead: "cache_read", CacheWrite: "cache_write", CacheWrite1h: "cache_write_1h",
		InputAudio: "input_audio", CacheAudioRead: "cache_audio_read",
		InputImage: "input_image", CacheImageRead: "cache_image_read", InputVideo: "input_video",
		Output: "output", OutputReasoning: "output_reasoning", OutputCitation: "output_citation",
		OutputAudio: "output_audio", OutputImage: "output_image", OutputVideo: "output_video",
		Requests: "requests",
	}
}

// String is the unit's name in JSON and in paths, such as "cache_read".
func (u Unit) String() string {
	if u < 0 || u >= NumUnits {
		return fmt.Sprintf("unit(%d)", int(u))
	}
	return unitNames()[u]
}

// MarshalText gives the unit's name. It fails on what is no unit.
func (u Unit) MarshalText() ([]byte, error) {
	if u < 0 || u >= NumUnits {
		return nil, fmt.Errorf("%d is no unit of usage", int(u))
	}
	return []byte(u.String()), nil
}

// UnmarshalText reads a unit's name. The error lists the names.
func (u *Unit) UnmarshalText(text []byte) error {
	names := unitNames()
	for i, name := range names {
		if name == string(text) {
			*u = Unit(i)
			return nil
		}
	}
	return fmt.Errorf("%.40q is no unit of usage; the units are %s", text, strings.Join(names[:], ", "))
}

// whole is the largest unit that u is part of: Input, Output or Requests.
func (u Unit) whole() Unit {
	switch {
	case u < Output:
		return Input
	case u < Requests:
		return Output
	default:
		return Requests
	}
}

// media says whether u counts audio, images or video alone.
func (u Unit) media() bool {
	switch u {
	case InputAudio, CacheAudioRead, InputImage, CacheImageRead, InputVideo, OutputAudio, OutputImage, OutputVideo:
		return true
	default:
		return false
	}
}

// within says whether u is a part of whole, at any depth. No unit is part of
// itself.
func (u Unit) within(whole Unit) bool {
	switch whole {
	case Input, Output:
		return u != whole && u.whole() == whole
	case CacheRead:
		return u == CacheAudioRead || u == CacheImageRead
	case CacheWrite:
		return u == CacheWrite1h
	case InputAudio:
		return u == CacheAudioRead
	case InputImage:
		return u == CacheImageRead
	default:
		return false
	}
}

// mostSpecificFirst lists the units that tokens are counted by, every part
// before each of its wholes.
func mostSpecificFirst() [NumUnits - 1]Unit {
	return [NumUnits - 1]Unit{
		CacheAudioRead, CacheImageRead, CacheWrite1h,
		CacheRead, CacheWrite, InputAudio, InputImage, InputVideo, Input,
		OutputReasoning, OutputCitation, OutputAudio, OutputImage, OutputVideo, Output,
	}
}

// Usage is what was used, by unit.
type Usage [NumUnits]int64

// Add adds v, unit by unit. A sum too large for an int64 stays at the largest.
func (u *Usage) Add(v Usage) {
	for i := range u {
		u[i] = addCounts(u[i], v[i])
	}
}

// addCounts is a + b, held at the ends of int64.
func addCounts(a, b int64) int64 {
	switch sum := a + b; {
	case a > 0 && b > 0 && sum < 0:
		return math.MaxInt64
	case a < 0 && b < 0 && sum >= 0:
		return math.MinInt64
	default:
		return sum
	}
}

// settle makes the counts agree with each other: nothing is negative, and no
// whole is smaller than parts of it that exclude each other. It only raises
// counts, so that nothing gets cheaper. Counts that agree stay as they are.
func (u *Usage) settle() {
	for i := range u {
		u[i] = max(u[i], 0)
	}
	u[CacheRead] = max(u[CacheRead], addCounts(u[CacheAudioRead], u[CacheImageRead]))
	u[CacheWrite] = max(u[CacheWrite], u[CacheWrite1h])
	u[InputAudio] = max(u[InputAudio], u[CacheAudioRead])
	u[InputImage] = max(u[InputImage], u[CacheImageRead])
	u[Input] = max(u[Input],
		addCounts(u[CacheRead], u[CacheWrite]),
		addCounts(u[InputAudio], addCounts(u[InputImage], u[InputVideo])))
	u[Output] = max(u[Output],
		addCounts(u[OutputReasoning], u[OutputCitation]),
		addCounts(u[OutputAudio], addCounts(u[OutputImage], u[OutputVideo])))
}

// SPDX-License-Identifier: MPL-2.0

package wire

import "strings"

// The top-level members of a request that policy or metering reads, in the
// OpenAI formats. A body in which two readers could disagree on them is
// refused (see Object.CheckKeys).
var openAIPolicyKeys = []string{
	"model", "stream", "stream_options", "n", "best_of",
	"max_tokens", "max_completion_tokens", "max_output_tokens",
	"service_tier",
}

// PolicyKeys returns the top-level request members that policy or metering
// reads. The caller must not change the slice.
func PolicyKeys() []string { return openAIPolicyKeys }

// NeedsModel says whether a POST on the provider path must name a model
// because the provider has no default there
// (https://platform.openai.com/docs/api-reference).
func NeedsModel(path string) bool {
	_, route, _ := strings.Cut(path, "/") // without the version, "v1"
	switch route {
	case "chat/completions", "completions", "embeddings":
		return true
	}
	return false
}

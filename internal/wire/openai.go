// SPDX-License-Identifier: MPL-2.0

package wire

import (
	"net/http"
	"strings"
)

// The top-level members of a request that policy or metering reads, in the
// OpenAI formats. A body in which two readers could disagree on them is
// refused (see Object.CheckKeys).
var openAIPolicyKeys = []string{
	"model", "stream", "stream_options", "n", "best_of",
	"max_tokens", "max_completion_tokens", "max_output_tokens",
	"service_tier",
}

// PolicyKeys returns the top-level request members that policy reads. What
// metering reads beside them is checked by ReadParams. The caller must not
// change the slice.
func PolicyKeys() []string { return openAIPolicyKeys }

// Kind says what a route does, and with it how its requests are bounded and
// its answers metered.
type Kind uint8

// The kinds of routes.
const (
	// Unmetered is every route whose cost isn't known to this package: files,
	// images, audio, batches, and whatever a provider adds.
	Unmetered Kind = iota
	// Chat, Completions, Embeddings and Responses are the routes of these
	// names.
	Chat
	Completions
	Embeddings
	Responses
	// Moderations is free at OpenAI; others charge for its input tokens.
	Moderations
	// Models lists models or describes one. It costs nothing.
	Models
	// Stored reads, cancels or deletes a stored completion or response, or
	// counts tokens. It costs nothing.
	Stored
)

// String returns the kind's name, in lower case.
func (k Kind) String() string {
	switch k {
	case Chat:
		return "chat"
	case Completions:
		return "completions"
	case Embeddings:
		return "embeddings"
	case Responses:
		return "responses"
	case Moderations:
		return "moderations"
	case Models:
		return "models"
	case Stored:
		return "stored"
	}
	return "unmetered"
}

// Metered says whether answers on such a route report tokens that may cost
// something.
func (k Kind) Metered() bool { return k >= Chat && k <= Moderations }

// Free says whether calls of such a route cost nothing.
func (k Kind) Free() bool { return k == Models || k == Stored }

// KindOf is the route table of the OpenAI formats
// (https://platform.openai.com/docs/api-reference). path is the provider path
// without its leading slash: "v1/chat/completions". Whatever isn't known to be
// metered or free is Unmetered.
func KindOf(method, path string) Kind {
	_, route, _ := strings.Cut(path, "/") // without the version, "v1"
	head, below, _ := strings.Cut(route, "/")
	read := method == http.MethodGet || method == http.MethodHead
	switch {
	case route == "chat/completions":
		return either(method, Chat)
	case strings.HasPrefix(route, "chat/completions/") && (read || method == http.MethodDelete):
		return Stored
	case route == "completions":
		return either(method, Completions)
	case route == "embeddings":
		return either(method, Embeddings)
	case route == "moderations":
		return either(method, Moderations)
	case route == "responses":
		return either(method, Responses)
	case head == "responses":
		return belowResponses(method, below)
	case head == "models" && read:
		return Models
	}
	return Unmetered
}

// either is kind for a POST, and reading what is stored for a GET.
func either(method string, kind Kind) Kind {
	switch method {
	case http.MethodPost:
		return kind
	case http.MethodGet, http.MethodHead:
		return Stored
	}
	return Unmetered
}

func belowResponses(method, below string) Kind {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodDelete:
		return Stored
	case http.MethodPost:
		if below == "input_tokens" || strings.HasSuffix(below, "/cancel") {
			return Stored
		}
	}
	return Unmetered // such as responses/compact, which is charged
}

// NeedsModel says whether a POST on the provider path must name a model
// because the provider has no default there.
func NeedsModel(path string) bool {
	switch KindOf(http.MethodPost, path) {
	case Chat, Completions, Embeddings:
		return true
	}
	return false
}

// RunsItsModel says of a route that isn't metered whether it runs the model
// that the body names, and no other: images, audio and reranking do; batches,
// evaluations, assistants and whatever else a provider has may not.
func RunsItsModel(path string) bool {
	_, route, _ := strings.Cut(path, "/")
	switch route {
	case "images/generations", "images/edits", "images/variations",
		"audio/speech", "audio/transcriptions", "audio/translations", "rerank":
		return true
	}
	return false
}

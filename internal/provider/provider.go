// SPDX-License-Identifier: MPL-2.0

// Package provider is the catalogue of LLM providers: what differs between
// them (base URL, authentication, routes, fixed headers, how a key is checked)
// as data, and the pure code that turns a stored provider key and a path into
// an upstream URL and headers.
//
// It promises that a request can't leave the provider's base URL, that a
// caller's own credentials never travel along, and that no error holds the
// provider's secret. It opens no connection and knows nothing of Vault, of
// request bodies, or of which hosts an operator allows.
package provider

import (
	_ "embed"
	"encoding/json"
	"regexp"
)

// catalogueJSON is the catalogue as it is reviewed: one entry per provider,
// with the page its facts come from. A string, so that nothing can change it.
//
//go:embed providers.json
var catalogueJSON string

// URLSchemeSandbox is the scheme of a base URL that is served inside the
// process. Only a catalogue entry with FixedBase may have it, so that no
// provider key can point at it.
const URLSchemeSandbox = "sandbox"

// SecretUse says whether a provider key holds an API key.
type SecretUse string

// The values of SecretUse.
const (
	SecretRequired SecretUse = "required"
	SecretOptional SecretUse = "optional"
	SecretNone     SecretUse = "none"
)

// Scheme is how an API key is presented.
type Scheme string

// The values of Scheme. SchemeBearer is RFC 6750's Authorization header,
// SchemeHeader the bare key in a header of the provider's own.
const (
	SchemeBearer Scheme = "bearer"
	SchemeHeader Scheme = "header"
	SchemeNone   Scheme = "none"
)

// Auth is how requests are authenticated.
type Auth struct {
	Scheme Scheme `json:"scheme"`
	// Header is the header's name for SchemeHeader, otherwise empty.
	Header string `json:"header,omitempty"`
}

// Field is a provider-specific field of a provider key.
type Field struct {
	// Name is lower case with underscores; it never equals a field that every
	// provider key has.
	Name        string `json:"name"`
	Description string `json:"description"`
	// Required fields that fill the base URL aren't needed, and aren't
	// accepted, where the key gives a base URL itself.
	Required bool `json:"required,omitempty"`
	// Pattern is a regular expression (RE2) that the whole value must match.
	Pattern string `json:"pattern"`
	// Header is the request header that the value is sent as. If it is empty,
	// the value replaces {Name} in the provider's BaseURL instead.
	Header string `json:"header,omitempty"`

	match *regexp.Regexp
}

// Route maps the paths that apps use to those of the provider.
type Route struct {
	// Prefix is one or more whole path segments without slashes at the ends.
	Prefix string `json:"prefix"`
	// To replaces Prefix and is appended to the base URL: empty, or with a
	// leading slash.
	To string `json:"to"`
	// Auth replaces the provider's own on this route; nil means it doesn't.
	Auth *Auth `json:"auth,omitempty"`
	// Format is the wire format spoken there, one of the provider's Formats.
	Format string `json:"format"`
}

// Probe is the cheapest request that a provider answers differently with a
// good key and without one.
type Probe struct {
	// Method is GET or POST.
	Method string `json:"method"`
	// Path starts with a slash and is appended to the base URL.
	Path string `json:"path"`
	// Body is sent as application/json; empty means no body. Where a provider
	// has no free authenticated endpoint it is a request that can't succeed, so
	// that nothing is billed.
	Body json.RawMessage `json:"body,omitempty"`
	// Valid are statuses beside 2xx that mean the key was accepted, such as
	// the refusal of an empty body.
	Valid []int `json:"valid,omitempty"`
	// Refused are statuses beside 401 and 403 that mean the key was refused.
	Refused []int `json:"refused,omitempty"`
}

// Provider is one entry of the catalogue. It comes from Parse, is shared, and
// must not be changed.
type Provider struct {
	// ID is what a provider key names, such as "azure-openai".
	ID   string `json:"id"`
	Name string `json:"name"`
	// BaseURL may hold {name} placeholders for Fields. If it is empty, every
	// key must give a base URL.
	BaseURL string `json:"base_url"`
	// BaseURLHelp says what to give as a key's own base URL; empty where that
	// is a URL just like BaseURL.
	BaseURLHelp string `json:"base_url_help,omitempty"`
	// FixedBase means that no key may give a base URL.
	FixedBase bool      `json:"fixed_base,omitempty"`
	Secret    SecretUse `json:"secret"`
	Auth      Auth      `json:"auth"`
	// Headers are defaults by canonical name; a caller's own header wins.
	Headers map[string]string `json:"headers,omitempty"`
	Fields  []Field           `json:"fields,omitempty"`
	// Routes are sorted, longest prefix first: the first that matches wins.
	Routes []Route `json:"routes"`
	Verify Probe   `json:"verify"`
	// NoStreamOptions means that the provider refuses stream_options; its
	// streams report usage unasked.
	NoStreamOptions bool `json:"no_stream_options,omitempty"`
	// ReportsCost means that usage holds what the request cost, in USD, and
	// that this is what the provider charges.
	ReportsCost bool `json:"reports_cost,omitempty"`
	// BilledAsStreamed are globs of models that have no hidden output, and of
	// which a stream that is cancelled is charged for what was streamed only.
	BilledAsStreamed []string `json:"billed_as_streamed,omitempty"`
	// ChatCapField is the member that caps the output of a chat request which
	// has no cap yet. Parse makes it CapMaxTokens, which nearly all know, where
	// the data has none.
	ChatCapField string `json:"chat_cap_field,omitempty"`
	// IgnoresMaxCompletionTokens means that a chat request's
	// max_completion_tokens may be passed over in silence, and so caps nothing:
	// https://api-docs.deepseek.com/api/create-chat-completion,
	// https://github.com/ollama/ollama/issues/7125,
	// https://github.com/pydantic/pydantic-ai/issues/5186 (OpenRouter).
	IgnoresMaxCompletionTokens bool `json:"ignores_max_completion_tokens,omitempty"`
	// ReadsMaxCompletionTokens means that a chat request's max_completion_tokens
	// is known to cap its output, though ChatCapField is CapMaxTokens. Some refuse
	// a request that has both:
	// https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html,
	// https://ai.google.dev/gemini-api/docs/openai,
	// https://platform.claude.com/docs/en/api/openai-sdk,
	// https://docs.fireworks.ai/api-reference/post-chatcompletions.
	ReadsMaxCompletionTokens bool `json:"reads_max_completion_tokens,omitempty"`
	// FreeKinds are kinds of routes, beside those that are free everywhere, whose
	// calls cost nothing here: https://platform.openai.com/docs/guides/moderation.
	FreeKinds []string `json:"free_kinds,omitempty"`
	// ReasoningModels and OpenEndedModels are what Reasoning and OpenEnded ask:
	// the catalogue's globs for all providers and the provider's own.
	ReasoningModels globs `json:"reasoning_models,omitempty"`
	OpenEndedModels globs `json:"open_ended_models,omitempty"`
	// MaxOutputs are what MaxOutput asks: the provider's own, then those for all
	// providers. Most figures are those of litellm 1.110.2, 1.77.1 and 1.67.0
	// (model_prices_and_context_window_backup.json, MIT) as of 2026-11-26. A model
	// with a context window as small as that has half of it.
	MaxOutputs []OutputLimit `json:"max_output,omitempty"`
	// MaxUnstreamed is the most output tokens that a request may ask for which
	// isn't streamed; 0 means that there is no such bound. Fireworks answers 400
	// to more, in the words "Requests with max_tokens > 4096 must have stream=true".
	MaxUnstreamed int64 `json:"max_unstreamed_output,omitempty"`
	// Formats are the wire formats spoken on any route.
	Formats []string `json:"formats"`
	// DocsURL is where the facts come from; empty only for FixedBase.
	DocsURL string `json:"docs_url,omitempty"`
	// Note is a quirk worth telling a user, one line, or empty.
	Note string `json:"note,omitempty"`
}

// Catalogue holds the known providers. It is immutable and safe for
// concurrent use.
type Catalogue struct {
	byID map[string]*Provider
	ids  []string
}

// Load parses the embedded catalogue. Each call makes a fresh value: callers
// keep it. An error means that the binary was built from broken data.
func Load() (*Catalogue, error) {
	return Parse([]byte(catalogueJSON))
}

// IDs returns the ids of all providers, sorted. The slice is the caller's.
func (c *Catalogue) IDs() []string {
	return append([]string(nil), c.ids...)
}

// Get returns the provider with this id, and whether there is one.
func (c *Catalogue) Get(id string) (*Provider, bool) {
	p, ok := c.byID[id]
	return p, ok
}

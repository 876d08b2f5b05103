// SPDX-License-Identifier: MPL-2.0

package price

import "strings"

// seller is what the built-in table calls a provider of the catalogue
// (internal/provider).
type seller struct {
	// id is the table's; empty if the table has no prices for this provider.
	id string
	// routed means that the last ":" of a model's name is followed by who serves
	// it, and that id is only the first part of the table's id.
	routed bool
	// prefix may be before a model's name, and means nothing.
	prefix string
	why    string
}

// sellers maps every provider id of the catalogue. Where a provider's models
// are sold under free names, or at prices that the table doesn't have, there
// is deliberately no id: no price is better than another's.
func sellers() map[string]seller {
	return map[string]seller{
		"ai21":              {why: "not in the table"},
		"anthropic":         {id: "anthropic"},
		"azure-openai":      {id: "azure", why: "the name is the deployment's: priced only if it is that of a model"},
		"bedrock":           {id: "aws", why: "its rules know ids with a region and those inside ARNs"},
		"cerebras":          {id: "cerebras"},
		"cohere":            {id: "cohere"},
		"deepinfra":         {why: "not in the table"},
		"deepseek":          {id: "deepseek"},
		"fireworks-ai":      {id: "fireworks"},
		"google":            {id: "google", prefix: "models/", why: "takes its resource names as model names"},
		"groq":              {id: "groq"},
		"huggingface":       {id: "huggingface_", routed: true, why: "without a suffix Hugging Face picks who serves the model, and with it the price"},
		"jina":              {why: "not in the table"},
		"mistral-ai":        {id: "mistral"},
		"moonshot":          {id: "moonshotai"},
		"novita-ai":         {id: "novita"},
		"nvidia":            {why: "not in the table"},
		"ollama":            {why: "self-hosted"},
		"openai":            {id: "openai"},
		"openai-compatible": {why: "could be anybody"},
		"openrouter":        {id: "openrouter"},
		"perplexity-ai":     {id: "perplexity"},
		"sambanova":         {why: "not in the table; Hugging Face's resale has prices of its own"},
		"sandbox":           {why: "brings its own prices"},
		"together-ai":       {id: "together"},
		"vllm":              {why: "self-hosted"},
		"voyage":            {id: "voyageai"},
		"x-ai":              {id: "x-ai"},
		"z-ai":              {id: "zai", why: "the international platform; zhipuai in the table is the one in China, at other prices"},
	}
}

// resolve finds the table's entry for a model of the catalogue's provider.
func (s seller) resolve(t *Table, provider, model string) resolution {
	if s.prefix != "" {
		model = strings.TrimPrefix(strings.TrimSpace(model), s.prefix)
	}
	switch {
	case s.id == "":
		return nil
	case s.routed:
		model, server, found := cutLast(strings.TrimSpace(model), ":")
		if !found {
			return nil
		}
		id := s.id + strings.ToLower(server)
		return t.resolve(id, model, "; the suffix names who serves it")
	case s.id != provider:
		return t.resolve(s.id, model, "; the table calls "+provider+" "+s.id)
	default:
		return t.resolve(s.id, model, "")
	}
}

// cutLast cuts s at the last sep.
func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// SPDX-License-Identifier: MPL-2.0

package wire

// memberID names a top-level request member that metering knows.
type memberID uint8

// Those before memberInput aren't input to the model.
const (
	memberOther memberID = iota
	memberModel
	memberStream
	memberStreamOptions
	memberN
	memberBestOf
	memberMaxTokens
	memberMaxCompletionTokens
	memberMaxOutputTokens
	memberServiceTier
	memberModels
	memberModalities
	memberAudio
	memberRouting
	// memberUncounted and all after it up to memberInput are known not to be
	// input.
	memberUncounted
	memberMetadata
	memberUser
	memberLogitBias
	memberCacheKey
	memberSafetyID
	memberStore
	memberInput
)

// Members that are, or bring, input to the model.
const (
	memberMessages memberID = iota + memberInput
	memberInputItems
	memberPrompt
	memberTools
	memberFunctions
	memberPrediction
	memberPreviousResponse
	memberConversation
	memberPreset
	memberCachedContent
	memberExtraBody
	memberBackground
	memberWebSearchOptions
	memberSearchParameters
	memberEnableSearch
	memberPlugins
	memberDataSources
	memberWebSearch
	memberEnableWebSearch
	memberSearchOptions
	memberSearchSettings
	memberCompoundCustom
	memberConnectors
	memberMCPServers
	memberCodeInterpreter
	memberVenice
	memberCacheControl
	memberCount
)

// memberSet is a set of members; memberCount must not exceed its bits.
type memberSet uint64

// add puts id into the set, and says whether it was in it already.
func (s *memberSet) add(id memberID) bool {
	had := *s&(1<<id) != 0
	*s |= 1 << id
	return had
}

var _ [64 - memberCount]struct{} // memberSet is large enough

// memberOf knows OpenAI's members (https://platform.openai.com/docs/api-reference),
// and those of other providers that change what a request can cost:
// OpenRouter's models, plugins, provider, preset and cache_control, xAI's
// search_parameters, Qwen's enable_search, search_options and
// enable_code_interpreter, Azure's data_sources, Google's extra_body, Baidu's
// web_search, Mistral's and others' enable_web_search, Groq's search_settings
// and compound_custom, Cohere's connectors, Anthropic's mcp_servers, Venice's
// venice_parameters. Perplexity's search_mode and search_*_filter aren't here:
// they cost no more than its price per request.
func memberOf(key string) memberID {
	switch key {
	case "model":
		return memberModel
	case "stream":
		return memberStream
	case "stream_options":
		return memberStreamOptions
	case "n":
		return memberN
	case "best_of":
		return memberBestOf
	case "max_tokens":
		return memberMaxTokens
	case "max_completion_tokens":
		return memberMaxCompletionTokens
	case "max_output_tokens":
		return memberMaxOutputTokens
	case "service_tier":
		return memberServiceTier
	case "models":
		return memberModels
	case "modalities":
		return memberModalities
	case "audio":
		return memberAudio
	case "provider":
		return memberRouting
	case "metadata":
		return memberMetadata
	case "user":
		return memberUser
	case "logit_bias":
		return memberLogitBias
	case "prompt_cache_key":
		return memberCacheKey
	case "safety_identifier":
		return memberSafetyID
	case "store":
		return memberStore
	}
	return inputMemberOf(key)
}

func inputMemberOf(key string) memberID {
	switch key {
	case "messages":
		return memberMessages
	case "input":
		return memberInputItems
	case "prompt":
		return memberPrompt
	case "tools":
		return memberTools
	case "functions":
		return memberFunctions
	case "prediction":
		return memberPrediction
	case "previous_response_id":
		return memberPreviousResponse
	case "conversation":
		return memberConversation
	case "preset":
		return memberPreset
	case "cached_content":
		return memberCachedContent
	case "extra_body":
		return memberExtraBody
	case "background":
		return memberBackground
	case "web_search_options":
		return memberWebSearchOptions
	case "search_parameters":
		return memberSearchParameters
	case "enable_search":
		return memberEnableSearch
	case "plugins":
		return memberPlugins
	case "data_sources":
		return memberDataSources
	case "cache_control":
		return memberCacheControl
	}
	return searchMemberOf(key)
}

// searchMemberOf knows members by which a provider searches, connects or runs
// code, as often as it likes.
func searchMemberOf(key string) memberID {
	switch key {
	case "web_search":
		return memberWebSearch
	case "enable_web_search":
		return memberEnableWebSearch
	case "search_options":
		return memberSearchOptions
	case "search_settings":
		return memberSearchSettings
	case "compound_custom":
		return memberCompoundCustom
	case "connectors":
		return memberConnectors
	case "mcp_servers":
		return memberMCPServers
	case "enable_code_interpreter":
		return memberCodeInterpreter
	case "venice_parameters":
		return memberVenice
	}
	return memberOther
}

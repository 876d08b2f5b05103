// SPDX-License-Identifier: MPL-2.0

package wire

import (
	"bytes"
	"slices"
	"strings"
)

// Bound is what bounds a request's input. Only constructs that are known to be
// text count as text: whatever isn't known is taken for media.
type Bound struct {
	// TextBytes is the length of everything in the body that may be text for
	// the model, as JSON text. A token is never less than a byte, so this
	// bounds the input's tokens where Media, References and OpenEnded are
	// empty, but for what the provider adds to each message and tool.
	TextBytes int64
	// Messages counts messages or input items; of embeddings, completions and
	// moderations, the inputs. Tools counts tools and functions.
	Messages, Tools int64
	// Media says that the input holds images, audio, files, URLs of them, or
	// constructs that aren't known.
	Media bool
	// Audio says that the media may be audio, which providers charge apart from
	// text. Images, video and files have no such price of their own, but where a
	// price table says so.
	Audio bool
	// HourCache says that input may be written to a cache for an hour, which is
	// dearer than for minutes.
	HourCache bool
	// References says that input is stored at the provider: files, previous
	// responses and their items, conversations, prompts, cached content.
	References bool
	// OpenEnded names what lets the provider spend without a bound, such as
	// "web_search"; empty for most requests.
	OpenEnded []string
}

// maxNames and maxName bound what of a request is kept for a message.
const (
	maxNames = 8
	maxName  = 64
)

func (b *Bound) openEnded(what string) {
	if len(what) > maxName {
		what = strings.ToValidUTF8(what[:maxName], "") + "…"
	}
	if len(b.OpenEnded) < maxNames && !slices.Contains(b.OpenEnded, what) {
		b.OpenEnded = append(b.OpenEnded, what)
	}
}

// read takes the member id, whose value is not null, into account.
func (b *Bound) read(kind Kind, id memberID, key, value []byte) {
	r := reader{t: value}
	switch id {
	case memberMessages:
		b.items(&r)
	case memberInputItems:
		if kind == Responses {
			b.items(&r)
		} else {
			b.inputs(&r)
		}
	case memberPrompt:
		if value[0] == '{' { // one stored at the provider, with tools of its own
			b.References = true
			b.openEnded("prompt")
		} else {
			b.inputs(&r)
		}
	case memberTools:
		if value[0] != '[' { // some servers take a tool by itself
			b.Tools++
			b.openEnded("tools that are no list")
		}
		for more := r.open('['); more; more = r.next(']') {
			b.tool(&r)
		}
	case memberFunctions:
		for more := r.open('['); more; more = r.next(']') {
			b.Tools++
			r.value()
		}
	case memberPreviousResponse, memberConversation, memberCachedContent:
		b.References = true
	case memberPreset: // one stored at the provider, with tools of its own
		b.References = true
		b.openEnded("preset")
	case memberExtraBody:
		// Google's way to name cached content; an escape might hide it.
		if bytes.Contains(value, []byte("cached")) || bytes.IndexByte(value, '\\') >= 0 {
			b.References = true
		}
	case memberCacheControl:
		b.cacheControl(value)
	case memberBackground, memberEnableSearch, memberWebSearch, memberEnableWebSearch, memberCodeInterpreter:
		if value[0] != 'f' {
			b.openEnded(string(key))
		}
	case memberWebSearchOptions, memberSearchParameters, memberPlugins, memberDataSources,
		memberSearchOptions, memberSearchSettings, memberCompoundCustom, memberConnectors, memberMCPServers, memberVenice:
		b.openEnded(string(key))
	}
}

// inputs reads the input of embeddings, completions and moderations: a string,
// token ids, or a list of either.
func (b *Bound) inputs(r *reader) {
	if r.peek() != '[' {
		b.Messages++
		b.Media = b.Media || r.peek() != '"'
		return
	}
	tokens := false
	for more := r.open('['); more; more = r.next(']') {
		switch c := r.peek(); {
		case c == '"' || c == '[':
			b.Messages++
			r.value()
		case c >= '0' && c <= '9':
			tokens = true
			r.value()
		default: // such as {"image": …}
			b.Messages++
			b.parts(r)
		}
	}
	if tokens {
		b.Messages++
	}
}

// items reads messages, or the input items of responses.
func (b *Bound) items(r *reader) {
	if r.peek() != '[' {
		b.Messages++
		b.Media = b.Media || r.peek() != '"'
		return
	}
	for more := r.open('['); more; more = r.next(']') {
		b.Messages++
		switch r.peek() {
		case '{':
			b.item(r)
		case '"':
			r.value()
		default:
			b.Media = true
			r.value()
		}
	}
}

// item reads a message or an input item.
func (b *Bound) item(r *reader) {
	var spoken, typed, hidden, sealed bool
	for more := r.open('{'); more; more = r.next('}') {
		key := r.key()
		switch string(key) {
		case "type":
			typed = true
			hidden = b.itemType(r.value()) || hidden
		case "role":
			spoken = true
			r.value()
		case "encrypted_content":
			sealed = !isNull(r.value())
		case "content", "output":
			b.content(r)
		case "name", "id", "status", "phase", "refusal", "reasoning", "reasoning_content", "reasoning_details",
			"thinking", "thinking_blocks", "annotations", "prefix", "partial", "tool_calls",
			"tool_call_id", "function_call", "call_id", "arguments", "input", "summary", "namespace", "extra_content":
			r.value()
		case "cache_control":
			b.cacheControl(r.value())
		case "audio": // an answer of before, by its id
			given := !isNull(r.value())
			b.References, b.Audio = b.References || given, b.Audio || given
		default:
			b.unknown(key, r.value())
		}
	}
	// An item without role and type is a reference to a stored one, and a
	// reasoning item without its encrypted content is looked up by its id.
	if !spoken && !typed || hidden && !sealed {
		b.References = true
	}
}

// itemType judges the type of an input item of responses, and says whether it
// is reasoning.
func (b *Bound) itemType(raw []byte) (reasoning bool) {
	switch string(text(raw)) {
	case "message", "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output":
	case "reasoning":
		return true
	case "item_reference", "compaction":
		b.References = true
	default:
		b.Media = b.Media || !isNull(raw)
		b.Audio = b.Audio || saysAudio(raw)
	}
	return false
}

// content reads a message's content: a string, or a list of parts.
func (b *Bound) content(r *reader) {
	switch r.peek() {
	case '[':
		for more := r.open('['); more; more = r.next(']') {
			b.parts(r)
		}
	case '{':
		b.parts(r)
	default:
		r.value()
	}
}

// parts reads one part of a message's content.
func (b *Bound) parts(r *reader) {
	if r.peek() != '{' {
		b.Media = b.Media || r.peek() != '"'
		r.value()
		return
	}
	for more := r.open('{'); more; more = r.next('}') {
		key := r.key()
		switch string(key) {
		case "type":
			switch raw := r.value(); string(text(raw)) {
			case "text", "input_text", "output_text", "refusal", "thinking", "reasoning", "reasoning_text", "summary_text":
			case "image_url", "input_image", "image", "video_url", "input_video", "video", "file", "input_file", "document",
				"tool_use", "tool_result", "search_result", "redacted_thinking", "computer_screenshot":
				b.Media = true
			default:
				b.Media, b.Audio = true, true
			}
		case "text", "refusal", "annotations", "logprobs", "thinking", "signature", "summary":
			r.value()
		case "cache_control":
			b.cacheControl(r.value())
		case "file_id":
			b.References, b.Media = true, true
			r.value()
		default:
			b.unknown(key, r.value())
		}
	}
}

// unknown judges the value of a key that isn't known: anything that could name
// or hold media is taken for media.
func (b *Bound) unknown(key, raw []byte) {
	if len(raw) > 0 && (raw[0] == '"' || raw[0] == '{' || raw[0] == '[') {
		b.Media = true
		// A data URL, or a media type: Base64 has neither ':' nor '"'.
		b.Audio = b.Audio || saysAudio(key) || bytes.Contains(raw, []byte("data:audio")) || bytes.Contains(raw, []byte(`"audio/`))
	}
}

func saysAudio(name []byte) bool { return bytes.Contains(bytes.ToLower(name), []byte("audio")) }

// cacheControl reads for how long input is to be cached. An escape might hide
// what it says.
func (b *Bound) cacheControl(raw []byte) {
	b.HourCache = b.HourCache || bytes.Contains(raw, []byte("1h")) || bytes.IndexByte(raw, '\\') >= 0
}

// tool reads one tool. Those that the caller runs itself cost no more than
// their text; any other runs at the provider, as often as the model likes.
func (b *Bound) tool(r *reader) {
	b.Tools++
	if r.peek() != '{' {
		b.openEnded("a tool that is no object")
		r.value()
		return
	}
	known := false
	for more := r.open('{'); more; more = r.next('}') {
		key := r.key()
		raw := r.value()
		if folds(key) {
			key = []byte(fold(string(key)))
		}
		switch string(key) {
		case "type":
			known = true
			b.toolType(raw)
		case "function":
			known = true
		case "cache_control":
			b.cacheControl(raw)
		case "name", "description", "parameters", "strict", "custom", "format", "input_schema", "output_schema", "input_examples",
			"allowed_callers", "defer_loading", "eager_input_streaming":
		default: // Google's are named by a key: {"google_search": {}}
			if c := raw[0]; c == '{' || c == '[' || c == 't' {
				known = true
				b.openEnded(string(key))
			}
		}
	}
	if !known {
		b.openEnded("a tool without a type")
	}
}

func (b *Bound) toolType(raw []byte) {
	switch name := text(raw); string(name) {
	case "function", "custom":
	case "":
		b.openEnded("a tool of an odd type")
	default:
		b.openEnded(string(name))
	}
}

// SPDX-License-Identifier: MPL-2.0

package wire

import "bytes"

// EnableStreamUsage asks for usage in a streamed request of chat or
// completions that doesn't, by setting stream_options.include_usage; every
// other member of stream_options stays as it was, byte for byte. Not every
// provider takes that option. Streams of responses always report usage.
//
// stream_options must be an object, null or absent, as ReadParams makes sure.
func EnableStreamUsage(o *Object) {
	const name = "include_usage"
	yes := []byte("true")
	raw, ok := o.Get("stream_options")
	if !ok || isNull(raw) {
		o.Set("stream_options", []byte(`{"include_usage":true}`))
		return
	}
	options, err := ParseObject(raw)
	if err != nil {
		return // not an object: the provider's to refuse
	}
	if asked, ok := options.Get(name); ok && bytes.Equal(asked, yes) {
		return
	}
	options.Set(name, yes)
	o.Set("stream_options", options.Bytes())
}

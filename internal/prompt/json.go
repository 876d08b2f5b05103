// SPDX-License-Identifier: MPL-2.0

package prompt

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

// compact checks raw and returns it without white space between its parts, and
// how many values it holds. The problem is for people; empty for none.
func compact(raw json.RawMessage) (text string, values int, problem string) {
	var b bytes.Buffer
	if err := json.Compact(&b, raw); err != nil {
		return "", 0, "not valid JSON: " + err.Error()
	}
	text = b.String()
	if !utf8.ValidString(text) {
		return "", 0, "not valid UTF-8"
	}
	depth, values := measure(text)
	if depth > MaxJSONDepth {
		return "", 0, fmt.Sprintf("JSON that nests more than %d deep", MaxJSONDepth)
	}
	return text, values, ""
}

// measure tells how deeply compact JSON nests, and how many values it holds,
// nested ones and itself counted.
func measure(text string) (depth, values int) {
	now := 0
	values = 1
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			i = stringEnd(text, i) - 1
		case '{', '[':
			now++
			depth = max(depth, now)
			if next := text[i+1]; next != '}' && next != ']' {
				values++
			}
		case '}', ']':
			now--
		case ',':
			values++
		}
	}
	return depth, values
}

// stringEnd is the index after the string that opens at i in valid JSON.
func stringEnd(text string, i int) int {
	for i++; text[i] != '"'; i++ {
		if text[i] == '\\' {
			i++
		}
	}
	return i + 1
}

// scalarEnd is the index after the number, true, false or null that opens at i
// in compact JSON.
func scalarEnd(text string, i int) int {
	for i < len(text) && text[i] != ',' && text[i] != '}' && text[i] != ']' {
		i++
	}
	return i
}

// unquote is the text of a valid JSON string.
func unquote(quoted string) string {
	if strings.IndexByte(quoted, '\\') < 0 {
		return quoted[1 : len(quoted)-1]
	}
	var s string
	_ = json.Unmarshal([]byte(quoted), &s) // valid strings always decode
	return s
}

// quote is s as a JSON string, as it comes: without escapes for HTML.
func quote(s string) []byte {
	return append(appendEscaped([]byte{'"'}, []byte(s)), '"')
}

const hexDigits = "0123456789abcdef"

// appendEscaped appends what stands for s within a JSON string. Bytes that are
// no UTF-8 become U+FFFD.
func appendEscaped(b, s []byte) []byte {
	start := 0 // of what is copied as it is
	for i := 0; i < len(s); {
		c, size := s[i], 1
		if c >= utf8.RuneSelf {
			var r rune
			if r, size = utf8.DecodeRune(s[i:]); r != utf8.RuneError || size > 1 {
				i += size
				continue
			}
		} else if c >= ' ' && c != '"' && c != '\\' {
			i++
			continue
		}
		b = append(b, s[start:i]...)
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\n':
			b = append(b, `\n`...)
		case c == '\r':
			b = append(b, `\r`...)
		case c == '\t':
			b = append(b, `\t`...)
		case c < ' ':
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		default:
			b = append(b, "\uFFFD"...)
		}
		i += size
		start = i
	}
	return append(b, s[start:]...)
}

func isNull(raw json.RawMessage) bool {
	text := bytes.TrimSpace(raw)
	return len(text) == 0 || string(text) == "null"
}

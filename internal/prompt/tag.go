// SPDX-License-Identifier: MPL-2.0

package prompt

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// tag is one Mustache tag in a text.
type tag struct {
	sigil byte // one of #^/>! or 0 for a variable
	name  string
	at    int // where its braces open
	// from and to are what it takes up: its braces or, when it stands alone on
	// its line, the line with its end.
	from, to int
	indent   string // the white space before a tag that stands alone
}

// syntaxError says what is wrong with a text, and where.
type syntaxError struct {
	at      int
	problem string
}

// literalBraces tells how to write what a template language can't hold.
const literalBraces = `to send "{{" itself, declare a variable whose default is "{{"`

// scan finds the tags of text and checks that sections close in order.
func scan(text string) ([]tag, *syntaxError) {
	var tags []tag
	if i := strings.IndexAny(text, openTag+closeTag); i >= 0 {
		return nil, &syntaxError{i, "the control characters U+0002 and U+0003 can't stand in a template; take them out"}
	}
	if !utf8.ValidString(text) {
		return nil, &syntaxError{0, "the text is not valid UTF-8"}
	}
	for i := 0; ; i = tags[len(tags)-1].to {
		open := strings.Index(text[i:], "{{")
		if open < 0 {
			return tags, balance(tags)
		}
		t, err := readTag(text, i+open)
		if err != nil {
			return nil, err
		}
		tags = append(tags, t)
	}
}

// readTag reads the tag that opens at the index at.
func readTag(text string, at int) (tag, *syntaxError) {
	start, closing := at+2, "}}"
	if strings.HasPrefix(text[start:], "{") {
		start, closing = start+1, "}}}"
	}
	n := strings.Index(text[start:], closing)
	if n < 0 {
		return tag{}, &syntaxError{at, fmt.Sprintf("%q is never closed by %q; write {{name}}, and %s", text[at:start], closing, literalBraces)}
	}
	t := tag{at: at, from: at, to: start + n + len(closing)}
	inner := strings.TrimSpace(text[start : start+n])
	if closing == "}}" && inner != "" {
		switch inner[0] {
		case '!':
			t.sigil = '!'
			t.takeLine(text)
			return t, nil
		case '=':
			return tag{}, &syntaxError{at, "tags that change the delimiters are not supported; " + literalBraces}
		case '#', '^', '/', '>':
			t.sigil = inner[0]
			t.takeLine(text)
			inner = strings.TrimSpace(inner[1:])
		case '&':
			inner = strings.TrimSpace(inner[1:])
		}
	}
	t.name = inner
	if problem := t.checkName(text[at : start+n+len(closing)]); problem != "" {
		return tag{}, &syntaxError{at, problem}
	}
	return t, nil
}

// takeLine makes a tag that stands alone on its line take up the line.
func (t *tag) takeLine(text string) {
	from, to := t.from, t.to
	for from > 0 && isBlank(text[from-1]) {
		from--
	}
	for to < len(text) && isBlank(text[to]) {
		to++
	}
	switch {
	case from > 0 && text[from-1] != '\n':
		return
	case to == len(text):
	case text[to] == '\n':
		to++
	case strings.HasPrefix(text[to:], "\r\n"):
		to += 2
	default:
		return
	}
	t.indent = text[from:t.from]
	t.from, t.to = from, to
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

// checkName says what is wrong with the tag's name; source is how the tag was
// written.
func (t *tag) checkName(source string) string {
	switch {
	case t.name == "":
		return fmt.Sprintf("the tag %s has no name; write {{name}}, and %s", clip(source), literalBraces)
	case t.name == "." && t.sigil != '>':
		return ""
	case len(t.name) > MaxNameBytes:
		return fmt.Sprintf("the name in %s is longer than %d bytes", clip(source), MaxNameBytes)
	case strings.Count(t.name, ".") >= MaxPathParts:
		return fmt.Sprintf("the name in %s has more than %d parts", clip(source), MaxPathParts)
	}
	for part := range strings.SplitSeq(t.name, ".") {
		if !isName(part) {
			return fmt.Sprintf("the tag %s holds no name: names are made of letters, digits, %q and %q, with dots between the parts of a path%s; %s",
				clip(source), "_", "-", t.likelyName(), literalBraces)
		}
	}
	return ""
}

// likelyName shows the name with what can't stand there replaced.
func (t *tag) likelyName() string {
	parts := strings.FieldsFunc(t.name, func(r rune) bool { return !isNameRune(r) })
	name := strings.Join(parts, "_")
	if name == "" {
		return ""
	}
	sigil := ""
	if t.sigil != 0 {
		sigil = string(rune(t.sigil))
	}
	return ", such as {{" + sigil + name + "}}"
}

// isName says whether a variable, or one part of a dotted path, can have this
// name.
func isName(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool { return !isNameRune(r) }) < 0
}

func isNameRune(r rune) bool {
	if r < utf8.RuneSelf {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-'
	}
	return r != utf8.RuneError && (unicode.IsLetter(r) || unicode.IsMark(r) || unicode.IsNumber(r))
}

// balance checks that every section is closed, in order.
func balance(tags []tag) *syntaxError {
	var open []tag
	for _, t := range tags {
		switch t.sigil {
		case '#', '^':
			open = append(open, t)
		case '/':
			if len(open) == 0 {
				return &syntaxError{t.at, fmt.Sprintf("{{/%s}} closes no section; write {{#%s}} before it", t.name, t.name)}
			}
			last := open[len(open)-1]
			if last.name != t.name {
				return &syntaxError{t.at, fmt.Sprintf("{{/%s}} stands where {{%c%s}} is still open; write {{/%s}} before it", t.name, last.sigil, last.name, last.name)}
			}
			open = open[:len(open)-1]
		}
	}
	if len(open) > 0 {
		last := open[len(open)-1]
		return &syntaxError{last.at, fmt.Sprintf("{{%c%s}} is never closed; write {{/%s}} where it ends", last.sigil, last.name, last.name)}
	}
	return nil
}

// position is "line 3, column 12", counted in characters from 1.
func position(text string, at int) string {
	before := text[:at]
	line := strings.Count(before, "\n")
	column := utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:])
	return fmt.Sprintf("line %d, column %d", line+1, column+1)
}

// clip shortens what a message quotes.
func clip(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	cut := most
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}

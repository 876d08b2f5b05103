// SPDX-License-Identifier: MPL-2.0

package prompt

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cbroglie/mustache"
)

// The Mustache library does what depends on values: lookups, sections, lists.
// What doesn't is settled before it sees a text, in Compile, because the library
// reads partials anew at every use, escapes HTML in them whatever it is told,
// and can't say where in a text an error lies. So a text is rewritten to a
// normal form: partials are put in, comments and the lines of tags that stand
// alone are taken out, and the delimiters are two control characters that no
// template holds. That form has only one reading.
const (
	openTag  = "\x02"
	closeTag = "\x03"

	// setDelimiters opens the normal form. The empty comment after it keeps the
	// library from taking the text's first line end for the tag's own.
	setDelimiters = "{{=" + openTag + " " + closeTag + "=}}" + comment
	// comment stands before a tag so that the library never finds it alone on a
	// line.
	comment = openTag + "!" + closeTag
)

// expander turns the texts of one template into library templates.
type expander struct {
	partials map[string]partial
	left     int // of MaxExpandedBytes
	uses     uses
}

// partial is a text that was checked by itself.
type partial struct {
	text  string
	tags  []tag
	depth int // of the chain of partials below it, itself counted
}

// uses tells which variables the texts use.
type uses struct {
	// surely are the names outside sections over a value: variables for certain.
	// Inside, a name may be a field of the value as well: maybe.
	surely, maybe map[string]bool
}

func newExpander() *expander {
	return &expander{
		partials: map[string]partial{},
		left:     MaxExpandedBytes,
		uses:     uses{surely: map[string]bool{}, maybe: map[string]bool{}},
	}
}

// add takes up the template's partials.
func (e *expander) add(texts map[string]string) *Error {
	names := slices.Sorted(maps.Keys(texts))
	if len(names) > MaxPartials {
		return invalid("partials", "the template has %d partials; at most %d are allowed", len(names), MaxPartials)
	}
	for _, name := range names {
		if (&tag{name: name, sigil: '>'}).checkName(name) != "" {
			return invalid("partials", `a partial can't be called %q: names are made of letters, digits, "_", "-" and dots, up to %d bytes`, clip(name), MaxNameBytes)
		}
		tags, fault := scan(texts[name])
		if fault != nil {
			return fault.in("partials."+name, texts[name])
		}
		e.partials[name] = partial{text: texts[name], tags: tags}
	}
	for _, name := range names {
		if _, err := e.chain(name, nil); err != nil {
			return err
		}
	}
	return nil
}

// chain checks what the partial name includes, and returns how deep that goes.
// path is what includes it, outermost first.
func (e *expander) chain(name string, path []string) (int, *Error) {
	p := e.partials[name]
	where := "partials." + name
	if i := slices.Index(path, name); i >= 0 {
		return 0, invalid(where, "the partial %q includes itself: %s; take {{> %s}} out of one of them",
			name, strings.Join(append(path[i:], name), " > "), name)
	}
	if p.depth > 0 {
		return p.depth, nil
	}
	p.depth = 1
	for _, t := range p.tags {
		if t.sigil != '>' {
			continue
		}
		if problem := e.unknown(t.name); problem != "" {
			return 0, (&syntaxError{t.at, problem}).in(where, p.text)
		}
		below, err := e.chain(t.name, append(path, name))
		if err != nil {
			return 0, err
		}
		if p.depth = max(p.depth, below+1); p.depth > MaxPartialDepth {
			return 0, invalid(where, "partials include each other %d deep; at most %d are allowed", p.depth, MaxPartialDepth)
		}
	}
	e.partials[name] = p
	return p.depth, nil
}

// unknown says that there is no partial of this name; empty where there is.
func (e *expander) unknown(name string) string {
	if _, ok := e.partials[name]; ok {
		return ""
	}
	if len(e.partials) == 0 {
		return fmt.Sprintf("there is no partial %q: the template has none; add it to partials", name)
	}
	names := slices.Sorted(maps.Keys(e.partials))
	return fmt.Sprintf("there is no partial %q; the template has %s", name, quoteAll(names, 10))
}

// compile makes a library template of the text at where. The template is nil
// for a text without tags.
func (e *expander) compile(where, text string) (*mustache.Template, *Error) {
	tags, fault := scan(text)
	if fault != nil {
		return nil, fault.in(where, text)
	}
	if len(tags) == 0 {
		return nil, nil
	}
	x := expansion{expander: e}
	x.out.WriteString(setDelimiters)
	if fault := x.text(text, tags); fault != nil {
		return nil, fault.in(where, text)
	}
	t, err := mustache.ParseStringPartialsRaw(x.out.String(), &mustache.StaticProvider{}, true)
	if err != nil {
		return nil, invalid(where, "%s: %v", where, err)
	}
	return t, nil
}

// expansion is one text on its way to the normal form.
type expansion struct {
	*expander
	out  strings.Builder
	open []byte // the sigils of the sections around
}

// text appends the normal form of text.
func (x *expansion) text(text string, tags []tag) *syntaxError {
	at := 0
	for _, t := range tags {
		if !x.write(text[at:t.from]) {
			return &syntaxError{t.at, tooExpanded}
		}
		at = t.to
		if problem := x.tag(t); problem != "" {
			return &syntaxError{t.at, problem}
		}
	}
	if !x.write(text[at:]) {
		return &syntaxError{at, tooExpanded}
	}
	return nil
}

var tooExpanded = fmt.Sprintf("with its partials put in, the template is larger than %d bytes; make the partials smaller, or use them less often", MaxExpandedBytes)

// spend takes n bytes of the template's share.
func (x *expansion) spend(n int) bool {
	x.left -= n
	return x.left >= 0
}

func (x *expansion) write(s string) bool {
	x.out.WriteString(s)
	return x.spend(len(s))
}

// tag appends the normal form of t, or says what is wrong.
func (x *expansion) tag(t tag) string {
	switch t.sigil {
	case '!':
		return ""
	case '>':
		return x.partial(t)
	case '/':
		x.open = x.open[:len(x.open)-1]
	default:
		if problem := x.use(t); problem != "" {
			return problem
		}
	}
	if t.sigil == '#' || t.sigil == '^' {
		if x.open = append(x.open, t.sigil); len(x.open) > MaxSections {
			return fmt.Sprintf("sections nest more than %d deep", MaxSections)
		}
	}
	// The library looks for a name in all values around it, part by part, which
	// takes it long: an empty comment is a step, so that MaxSteps bounds the time.
	steps := len(x.open) + strings.Count(t.name, ".")
	form := openTag + t.name + closeTag
	if t.sigil != 0 {
		steps = max(steps, 1) // and keeps the tag from standing alone
		form = openTag + string(rune(t.sigil)) + t.name + closeTag
	}
	form = strings.Repeat(comment, steps) + form
	if !x.write(form) {
		return tooExpanded
	}
	return ""
}

// use notes the variable that t may stand for.
func (x *expansion) use(t tag) string {
	inside := slices.Contains(x.open, '#')
	if t.name == "." {
		if !inside {
			return "{{.}} stands for an item of a list; write it inside a section, as in {{#list}}{{.}}{{/list}}"
		}
		return ""
	}
	name, _, _ := strings.Cut(t.name, ".")
	if inside {
		x.uses.maybe[name] = true
	} else {
		x.uses.surely[name] = true
	}
	return ""
}

// partial appends the partial of t, indented as t is. Each use is paid for, so
// that partials that are empty can't be included without end, and so is what an
// indented text costs before it is there.
func (x *expansion) partial(t tag) string {
	if problem := x.unknown(t.name); problem != "" {
		return problem
	}
	p := x.partials[t.name]
	const perUse = 16
	if !x.spend(perUse) {
		return tooExpanded
	}
	text, tags := p.text, p.tags
	if t.indent != "" {
		if !x.spend(len(text) + len(t.indent)*(strings.Count(text, "\n")+1)) {
			return tooExpanded
		}
		text = indent(text, t.indent)
		tags, _ = scan(text) // no fault: it differs in white space alone
	}
	if fault := x.text(text, tags); fault != nil {
		return fmt.Sprintf("in the partial %q, %s: %s", t.name, position(text, fault.at), fault.problem)
	}
	return ""
}

// indent puts white space before every line of text that isn't empty.
func indent(text, white string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if line != "\n" && line != "\r\n" {
			b.WriteString(white)
		}
		b.WriteString(line)
	}
	return b.String()
}

// in makes the fault of a text an Error that names the text.
func (f *syntaxError) in(where, text string) *Error {
	return invalid(where, "%s, %s: %s", where, position(text, f.at), f.problem)
}

func invalid(param, format string, args ...any) *Error {
	return &Error{Code: CodeInvalidTemplate, Param: param, Message: fmt.Sprintf(format, args...)}
}

// quoteAll lists names for a message, at most so many.
func quoteAll(names []string, most int) string {
	var b strings.Builder
	for i, name := range names {
		if i == most {
			fmt.Fprintf(&b, " and %d more", len(names)-most)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%q", name)
	}
	return b.String()
}

// SPDX-License-Identifier: MPL-2.0

package wire

const (
	// perText is added to each text that is counted: where a provider joins two
	// texts, the joint may cost tokens. Of a million joints at random places of
	// English, code and noise none cost more than 2.
	perText = 4
	// maxCounted bounds how many bytes of a request are counted. A byte beyond
	// counts one token, as everywhere else.
	maxCounted = 256 << 10
	// maxRole is the longest role, as JSON text, that is known to be no more
	// than what frames a message.
	maxRole = 16
)

// TextTokens bounds the tokens of the request's text closer than
// p.Input.TextBytes, which it never exceeds: count is given each text of a
// message, prompt or input, unescaped, and says how many tokens it has at most.
// All else, such as tools and their calls, which a provider renders in its own
// way, counts a token a byte still. What frames a message (its role, the names
// of its members) isn't counted, as it is part of what a provider adds to each.
// p are the parameters of o.
func (o *Object) TextTokens(p *Params, count func(text []byte) int64) int64 {
	names := []string{"messages"}
	switch p.Kind {
	case Chat:
	case Completions:
		names[0] = "prompt"
	case Responses:
		names = []string{"input", "instructions"}
	case Embeddings, Moderations:
		names[0] = "input"
	default:
		return p.Input.TextBytes
	}
	c := textCounter{count: count, left: maxCounted}
	total := p.Input.TextBytes
	for _, name := range names {
		if value, ok := o.Get(name); ok && !isNull(value) {
			total -= max(0, int64(len(value))-c.texts(&reader{t: value}))
		}
	}
	return total
}

// textCounter counts the texts of a request. Its methods read one value each
// and return what bounds its tokens.
type textCounter struct {
	count func(text []byte) int64
	left  int // how many bytes may be counted yet
}

// text counts a string by its tokens as far as may be counted, and what is left
// of it, or anything else, by its bytes.
func (c *textCounter) text(raw []byte) int64 {
	if len(raw) < 2 || raw[0] != '"' || c.left == 0 {
		return int64(len(raw))
	}
	all := text(raw)
	begin := all[:min(len(all), c.left)]
	c.left -= len(begin)
	return min(c.count(begin)+int64(len(all)-len(begin))+perText, int64(len(raw)))
}

// texts counts a prompt or an input: a string, or a list of strings, messages,
// items or token ids.
func (c *textCounter) texts(r *reader) (n int64) {
	if r.peek() != '[' {
		return c.text(r.value())
	}
	for more := r.open('['); more; more = r.next(']') {
		if r.peek() == '{' {
			n += c.message(r)
		} else {
			n += c.text(r.value())
		}
	}
	return n
}

func (c *textCounter) message(r *reader) (n int64) {
	for more := r.open('{'); more; more = r.next('}') {
		switch key := r.key(); string(key) {
		case "content", "output":
			n += c.content(r)
		case "role":
			if role := r.value(); len(role) > maxRole {
				n += int64(len(role))
			}
		default:
			n += int64(len(key) + len(r.value()))
		}
	}
	return n
}

// content counts a message's content: a string, or a list of parts.
func (c *textCounter) content(r *reader) (n int64) {
	if r.peek() != '[' {
		return c.text(r.value())
	}
	for more := r.open('['); more; more = r.next(']') {
		if r.peek() == '{' {
			n += c.part(r)
		} else {
			n += c.text(r.value())
		}
	}
	return n
}

func (c *textCounter) part(r *reader) (n int64) {
	for more := r.open('{'); more; more = r.next('}') {
		if key := r.key(); string(key) == "text" {
			n += c.text(r.value())
		} else {
			n += int64(len(key) + len(r.value()))
		}
	}
	return n
}

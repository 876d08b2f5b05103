// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
)

// jsonText is the text of a JSON object, in the pieces that an edit may replace.
// White space is where RFC 8259 allows it.
type jsonText struct {
	lead    string // up to the first member
	members []jsonMember
	last    string // after the last one, with the closing brace
}

// jsonMember is one member: white space, its key as it is spelt in the text, what
// follows up to the value, the value, and what follows that, without the comma.
type jsonMember struct{ space, key, colon, value, tail string }

// string is the text.
func (j *jsonText) string() string {
	var b strings.Builder
	b.WriteString(j.lead)
	for i, m := range j.members {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(m.space + m.key + m.colon + m.value + m.tail)
	}
	return b.String() + j.last
}

// replaced is the text with another value of the member whose key is spelt so.
func (j *jsonText) replaced(key, value string) *jsonText {
	edited := &jsonText{lead: j.lead, members: append([]jsonMember(nil), j.members...), last: j.last}
	for i := range edited.members {
		if edited.members[i].key == `"`+key+`"` {
			edited.members[i].value = value
			return edited
		}
	}
	panic("the text has no " + key)
}

// extended is the text with one more member before the closing brace.
func (j *jsonText) extended(member string) *jsonText {
	brace := strings.IndexByte(j.last, '}')
	return &jsonText{lead: j.lead, members: j.members, last: j.last[:brace] + "," + member + j.last[brace:]}
}

// jsonDice makes random JSON.
type jsonDice struct {
	*rand.Rand
	// forVault leaves out what Vault doesn't read: halves of surrogate pairs, and
	// keys that are there twice.
	forVault bool
}

// request is an object with these members, as raw JSON, and random others among
// them, none of which means anything to anybody.
func (d jsonDice) request(known map[string]string) *jsonText {
	j := &jsonText{lead: d.space() + "{"}
	for name, value := range known {
		j.members = append(j.members, jsonMember{key: `"` + name + `"`, value: value})
	}
	for i := range d.IntN(9) {
		// Vault reads these, and no halves of pairs: see HalvesOfSurrogatePairs.
		text, value := (jsonDice{d.Rand, true}).text(), d.value(4)
		if value[0] == '"' {
			value = text
		}
		j.members = append(j.members, jsonMember{key: fmt.Sprintf(`%s~%d"`, text[:len(text)-1], i), value: value})
	}
	if d.IntN(3) == 0 {
		j.members = append(j.members, jsonMember{key: `""`, value: d.number()})
	}
	d.Shuffle(len(j.members), func(a, b int) { j.members[a], j.members[b] = j.members[b], j.members[a] })
	for i := range j.members {
		m := &j.members[i]
		m.space, m.colon, m.tail = d.space(), d.space()+":"+d.space(), d.space()
	}
	j.last = "}" + d.space()
	return j
}

func (d jsonDice) space() string {
	return strings.Repeat([]string{" ", "\n", "\t", "\r\n"}[d.IntN(4)], max(0, d.IntN(7)-4))
}

// value is any value, at most depth levels deep.
func (d jsonDice) value(depth int) string {
	kind := d.IntN(10)
	if depth == 0 {
		kind = d.IntN(7)
	}
	switch kind {
	case 0:
		return []string{"null", "true", "false"}[d.IntN(3)]
	case 1, 2, 3:
		return d.number()
	case 4, 5, 6:
		return d.text()
	}
	var items []string
	for i := range d.IntN(5) {
		item := d.value(depth - 1)
		if kind == 9 {
			key := d.text()
			if d.forVault {
				key = fmt.Sprintf(`%s~%d"`, key[:len(key)-1], i)
			}
			item = key + d.space() + ":" + d.space() + item
		}
		items = append(items, d.space()+item+d.space())
	}
	if kind == 9 {
		return "{" + strings.Join(items, ",") + "}"
	}
	return "[" + strings.Join(items, ",") + "]"
}

// number is one that decoders change: beyond 2^53, or spelt as none would spell it.
func (d jsonDice) number() string {
	odd := []string{
		"0", "-0", "-0.0", "0e0", "0E+00", "1e2", "1E+2", "1e-2", "100", "1.0", "1.50", "0.1000000000000000055511151231257827",
		"9007199254740993", "-9007199254740993", "18446744073709551616", "123456789012345678901234567890",
		"1.7976931348623157e308", "5e-324", "1e-400", "3.0000000000000000000000001", "1E5", "-1.5e+05",
	}
	if n := d.IntN(2 * len(odd)); n < len(odd) {
		return odd[n]
	}
	return fmt.Sprint(d.Int64())
}

// text is a string with what can be spelt in more than one way, quotes included.
func (d jsonDice) text() string {
	odd := []string{
		`\ud800`, `\udc00`, `\ud800\u0041`, `\u0041`, `\u00e9`, "é", `\ud83d\ude00`, "😀", `\uD83D\uDE00`, `\/`, "/", `\"`, `\\`,
		`\n`, `\u000a`, `\u0000`, `\u2028`, "\u2028", "\u202e", "\ufeff", "\x7f", "</script>", `\u003c`, "&", "'", " ", "a", "model", "{", "]", ",", ":",
	}
	if d.forVault {
		odd = odd[3:]
	}
	var b strings.Builder
	for range d.IntN(8) {
		b.WriteString(odd[d.IntN(len(odd))])
	}
	return `"` + b.String() + `"`
}

// noise is that many random bytes.
func (d jsonDice) noise(n int) []byte {
	var begin [32]byte
	binary.NativeEndian.PutUint64(begin[:], d.Uint64())
	p := make([]byte, n)
	_, _ = rand.NewChaCha8(begin).Read(p) // it never fails
	return p
}

// SPDX-License-Identifier: MPL-2.0

package wire

import (
	"errors"
	"io"
	"math/rand/v2"
	"mime"
	"strings"
	"testing"
)

// reading is what came of reading a form.
type reading struct {
	said string // the fields, and the error
	out  string
	err  error
	ends string // how the closing delimiter begins, with the line's end before it
}

// read reads a form, with a Scan or without, by Reads of the sizes of next.
func readForm(t testing.TB, body io.Reader, contentType string, scan bool, next func() int) reading {
	_, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		t.Fatal(err)
	}
	r := reading{ends: "\r\n--" + params["boundary"] + "--"}
	var later []FormField
	f := newForm(t, body, contentType, FormOptions{MaxParts: 9, MaxField: 300, Later: func(p FormField) error {
		later = append(later, p)
		return nil
	}})
	if scan {
		if r.err = f.Scan(func(got []FormField) bool { return len(got) > 1 }); r.err != nil {
			later = nil
		}
	}
	p := make([]byte, 1<<12)
	for {
		n, err := f.Read(p[:next()])
		r.out += string(p[:n])
		if err != nil {
			r.err = err
			break
		}
	}
	r.said = show(f.Fields()) + show(later) + r.err.Error()
	return r
}

// sameReading holds a reading against that of the whole body at once.
func sameReading(t testing.TB, how, body string, got, want reading) {
	t.Helper()
	if got.said != want.said {
		t.Fatalf("%q, %s: read\n%s\nwant\n%s", body, how, got.said, want.said)
	}
	if got.err == io.EOF && got.out != body || !strings.HasPrefix(body, got.out) {
		t.Fatalf("%q, %s: handed on\n%q", body, how, got.out)
	}
	if got.err != io.EOF && strings.Contains("\r\n"+got.out, got.ends) {
		t.Fatalf("%q, %s: the closing delimiter was handed on, then %v", body, how, got.err)
	}
}

func whole() int { return 1 << 12 }

// everyForm has accepted and refused bodies.
func everyForm() []formBody {
	all := clientForms()
	for says, bodies := range refusedForms() {
		for _, body := range bodies {
			if len(body) < 1<<10 {
				all = append(all, formBody{name: says, contentType: formType, body: body})
			}
		}
	}
	return all
}

func TestForm_BodiesCutAtEveryByteAreReadAlike(t *testing.T) {
	for _, c := range everyForm() {
		for _, scan := range []bool{false, true} {
			want := readForm(t, strings.NewReader(c.body), c.contentType, scan, whole)
			for cut := 1; cut < len(c.body); cut++ {
				r := &chunks{parts: []string{c.body[:cut], c.body[cut:]}}
				sameReading(t, "cut", c.body, readForm(t, r, c.contentType, scan, whole), want)
			}
			byByte := readForm(t, &chunks{parts: strings.SplitAfter(c.body, "")}, c.contentType, scan, func() int { return 1 })
			sameReading(t, "byte by byte", c.body, byByte, want)
		}
	}
}

// mutate changes a few places of a body.
func mutate(rng *rand.Rand, body string) string {
	for range rng.IntN(4) {
		i := rng.IntN(len(body) + 1)
		j := min(len(body), i+rng.IntN(4))
		add := []string{"", "\r\n", "\n", "\r", "-", "--", "--" + boundary, "\r\n--" + boundary + "\r\n", "\"", ";", " ", "x", "\x00", "é", textPart, strings.Repeat("x", 300)}
		body = body[:i] + add[rng.IntN(len(add))] + body[j:]
	}
	return body
}

func TestForm_BodiesCutAtRandomAreReadAlike(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	forms := everyForm()
	accepted := 0
	for range 5000 {
		c := forms[rng.IntN(len(forms))]
		body := mutate(rng, c.body)
		scan := rng.IntN(2) == 0
		want := readForm(t, strings.NewReader(body), c.contentType, scan, whole)
		var parts []string
		for rest := body; rest != ""; {
			n := 1 + rng.IntN(len(rest))
			if rng.IntN(2) == 0 {
				n = min(n, 1+rng.IntN(8))
			}
			parts, rest = append(parts, rest[:n]), rest[n:]
		}
		r := &chunks{parts: parts}
		if rng.IntN(2) == 0 {
			r.err = io.EOF // with the last of the bytes
		}
		got := readForm(t, r, c.contentType, scan, func() int { return rng.IntN(100) })
		if sameReading(t, "cut", body, got, want); t.Failed() {
			t.Logf("seed %d", seed)
		}
		if got.err == io.EOF {
			accepted++
		} else if refusal := (*FormError)(nil); !errors.As(got.err, &refusal) {
			t.Fatalf("%q: %v (seed %d)", body, got.err, seed)
		}
	}
	if accepted < 100 {
		t.Errorf("only %d forms were accepted (seed %d)", accepted, seed)
	}
}

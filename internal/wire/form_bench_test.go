// SPDX-License-Identifier: MPL-2.0

package wire

import (
	"bytes"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

// BenchmarkForm is what it costs to let a file of 64 MiB pass in reads of
// 32 KiB, as net/http does.
func BenchmarkForm(b *testing.B) {
	noise := make([]byte, 1<<20)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	for name, content := range map[string][]byte{
		"noise":   noise,
		"text":    bytes.Repeat([]byte("a line of text, as long as they are\r\n"), 28000),
		"hyphens": bytes.Repeat([]byte("-"), 1<<20),
		"unlucky": bytes.Repeat([]byte("\r\n--"+boundary[:9]), 80000),
	} {
		b.Run(name, func(b *testing.B) { benchmarkForm(b, content, formType) })
	}
	b.Run("noise, the longest boundary in quotes", func(b *testing.B) {
		long := strings.Repeat("0123456789", 7)
		benchmarkForm(b, noise, `multipart/form-data; boundary="`+long+`"`)
	})
}

func benchmarkForm(b *testing.B, content []byte, contentType string) {
	p := make([]byte, 32<<10)
	size := generated(contentType, content, 64).size()
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		f := newForm(b, generated(contentType, content, 64), contentType, FormOptions{})
		if err := f.Scan(func([]FormField) bool { return true }); err != nil {
			b.Fatal(err)
		}
		var n int64
		for {
			m, err := f.Read(p)
			n += int64(m)
			if err == io.EOF {
				break
			}
			if err != nil {
				b.Fatal(err)
			}
		}
		if n != size {
			b.Fatal(n, size)
		}
	}
}

// BenchmarkFormFields is what the parts of a small upload cost.
func BenchmarkFormFields(b *testing.B) {
	body := formOf(param(`name="model"`), textPart, param(`name="response_format"`), param(`name="language"`), filePart)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		f := newForm(b, strings.NewReader(body), formType, FormOptions{})
		if err := f.Scan(nil); err != nil {
			b.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, f); err != nil || n != int64(len(body)) {
			b.Fatal(n, err)
		}
	}
}

// generated is a form with a field, and a file of so many times content.
func generated(contentType string, content []byte, times int) *repeated {
	b := strings.Trim(strings.TrimPrefix(contentType, "multipart/form-data; boundary="), `"`)
	return &repeated{
		head:    "--" + b + "\r\n" + textPart + "\r\n--" + b + "\r\n" + filePart,
		content: content, times: times, tail: "\r\n--" + b + "--\r\n",
	}
}

// repeated reads head, then content so many times, then tail.
type repeated struct {
	head    string
	content []byte
	times   int
	tail    string
	at      int // in content
}

func (r *repeated) Read(p []byte) (n int, err error) {
	switch {
	case r.head != "":
		n = copy(p, r.head)
		r.head = r.head[n:]
	case r.times > 0:
		n = copy(p, r.content[r.at:])
		if r.at += n; r.at == len(r.content) {
			r.at, r.times = 0, r.times-1
		}
	case r.tail != "":
		n = copy(p, r.tail)
		r.tail = r.tail[n:]
	default:
		err = io.EOF
	}
	return n, err
}

func (r *repeated) size() int64 {
	return int64(len(r.head) + r.times*len(r.content) + len(r.tail))
}

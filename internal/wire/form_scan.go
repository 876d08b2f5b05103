// SPDX-License-Identifier: MPL-2.0

package wire

import (
	"bytes"
	"fmt"
	"strings"
)

// formState is what of a form is due.
type formState uint8

const (
	formStart     formState = iota // the first delimiter
	formDelimited                  // what follows a delimiter
	formHead                       // a part's headers
	formField                      // a field's value
	formFile                       // a file's content
	formClosed                     // the body's end
	formEnd                        // nothing
)

// maxPartHead bounds the headers of a part, in bytes.
const maxPartHead = 8 << 10

// step takes in the next element of what was read: a delimiter, a part's
// headers, a field's value, the rest of a file. It is not done where that takes
// more bytes. What it says is the same however body's bytes come.
func (f *Form) step() (done bool, err error) {
	switch f.state {
	case formStart:
		return f.opening()
	case formDelimited:
		return f.delimited()
	case formHead:
		return f.head()
	case formField:
		return f.field()
	case formFile:
		return f.file()
	case formClosed:
		return f.closed()
	}
	return true, nil
}

// refuse is the error for what lies at index i of the buffer.
func (f *Form) refuse(i int, problem string) error {
	return &FormError{Offset: f.base + int64(i), Problem: problem}
}

func (f *Form) tooLarge(i int, problem string) error {
	return &FormError{Offset: f.base + int64(i), Problem: problem, TooLarge: true}
}

// expect sets the state for what begins at index i of the buffer.
func (f *Form) expect(s formState, i int) {
	f.state, f.at, f.from = s, i, i
}

// opening reads the first delimiter. RFC 2046 allows a preamble before it, where
// readers may find a delimiter that others don't.
func (f *Form) opening() (bool, error) {
	want := f.delimiter[len("\r\n"):]
	got := f.buf[:min(len(f.buf), len(want))]
	if !bytes.HasPrefix(want, got) {
		return false, f.refuse(0, "it does not begin with the boundary that its Content-Type header names")
	}
	if len(got) < len(want) {
		return false, nil
	}
	f.expect(formDelimited, len(got))
	return true, nil
}

// delimited reads what ends a delimiter. RFC 2046 allows spaces there, and a
// longer boundary that begins alike is no delimiter; but to some readers it is.
func (f *Form) delimited() (bool, error) {
	got := f.buf[f.at:min(len(f.buf), f.at+2)]
	if len(got) < 2 {
		return false, nil
	}
	switch string(got) {
	case "--":
		f.expect(formClosed, f.at+2)
	case "\r\n":
		if f.parts++; f.parts > f.opts.MaxParts {
			return false, f.tooLarge(f.at, fmt.Sprintf("it has more than %d fields and files", f.opts.MaxParts))
		}
		f.expect(formHead, f.at+2)
	default:
		return false, f.refuse(f.at, "a line begins with its boundary and goes on")
	}
	return true, nil
}

// head reads a part's headers, and judges a file.
func (f *Form) head() (bool, error) {
	if bytes.HasPrefix(f.buf[f.at:], []byte("\r\n")) {
		return false, f.refuse(f.at, "a part has no headers")
	}
	blank := []byte("\r\n\r\n")
	end := min(len(f.buf), f.at+maxPartHead+2) // one CRLF is the last header's
	i := bytes.Index(f.buf[f.from:end], blank)
	if i < 0 {
		if end == f.at+maxPartHead+2 {
			return false, f.tooLarge(f.at, fmt.Sprintf("the headers of a part are longer than %d bytes", maxPartHead))
		}
		f.from = max(f.from, end-len(blank)+1)
		return false, nil
	}
	i += f.from
	headers := f.buf[f.at:i]
	if j := bytes.Index(headers, f.needle); j >= 0 {
		return false, f.refuse(f.at+j, "its boundary stands in the headers of a part")
	}
	part, err := parsePart(string(headers))
	if err == nil {
		err = f.names.add(part.name, part.file)
	}
	if err != nil {
		return false, f.refuse(f.at, err.Error())
	}
	f.part = part
	f.expect(formField, i+len(blank))
	f.start = f.base + int64(f.at)
	if !part.file {
		return true, nil
	}
	f.state = formFile
	if err := f.judge(FormField{Name: part.name, File: true}); err != nil {
		return false, err
	}
	f.safe = f.at
	return true, nil
}

// field reads a value to its end and judges the field.
func (f *Form) field() (bool, error) {
	most := f.at + f.opts.MaxField + len(f.delimiter)
	end := min(len(f.buf), most)
	i, err := f.find(end)
	if err != nil {
		return false, err
	}
	if i < 0 {
		if end == most {
			return false, f.tooLarge(f.at, fmt.Sprintf("field %q is longer than %d bytes", f.part.name, f.opts.MaxField))
		}
		return false, nil
	}
	value := f.buf[f.at:i:i]
	if err := f.names.checkValue(f.part.name, value); err != nil {
		return false, f.refuse(f.at, err.Error())
	}
	if err := f.checkLength(i); err != nil {
		return false, err
	}
	if err := f.judge(FormField{Name: f.part.name, Value: value}); err != nil {
		return false, err
	}
	f.safe = i
	f.expect(formDelimited, i+len(f.delimiter))
	return true, nil
}

// file lets content pass up to its end, or to where its end may begin.
func (f *Form) file() (bool, error) {
	i, err := f.find(len(f.buf))
	if err != nil {
		return false, err
	}
	if i < 0 {
		f.safe = len(f.buf) - f.held(f.buf[f.at:])
		f.expect(formFile, f.safe)
		return false, nil
	}
	if err := f.checkLength(i); err != nil {
		return false, err
	}
	f.safe = i
	f.expect(formDelimited, i+len(f.delimiter))
	return true, nil
}

// find returns where in buf[:end] the delimiter of the content at buf[at:]
// begins, or -1.
func (f *Form) find(end int) (int, error) {
	i := bytes.Index(f.buf[f.from:end], f.needle)
	if i < 0 {
		f.from = max(f.from, end-len(f.needle)+1)
		return -1, nil
	}
	i += f.from
	start := i - (len(f.delimiter) - len(f.needle))
	if start < f.at || !bytes.HasPrefix(f.buf[start:], f.delimiter) {
		return 0, f.refuse(i, "its boundary stands elsewhere than at the beginning of a line of its own that CRLF precedes")
	}
	return start, nil
}

// held is how many bytes at the end of content may begin a delimiter, or
// something too like one.
func (f *Form) held(content []byte) int {
	for n := min(len(content), len(f.delimiter)-1); n > 0; n-- {
		tail := content[len(content)-n:]
		if bytes.HasPrefix(f.delimiter, tail) || bytes.HasPrefix(f.needle, tail) {
			return n
		}
	}
	return 0
}

// checkLength holds the part whose content ends at index i of the buffer against
// its Content-Length, if it has one. Most readers ignore it, some don't.
func (f *Form) checkLength(i int) error {
	if n := f.base + int64(i) - f.start; f.part.length >= 0 && f.part.length != n {
		return f.refuse(i, fmt.Sprintf("the Content-Length of part %q is %d, but it has %d bytes", f.part.name, f.part.length, n))
	}
	return nil
}

// closed makes sure that nothing follows the closing delimiter but its line
// end: RFC 2046 allows an epilogue, where some readers go on.
func (f *Form) closed() (bool, error) {
	const lineEnd = "\r\n"
	rest := string(f.buf[f.at:min(len(f.buf), f.at+3)])
	switch {
	case f.ended && (rest == "" || rest == lineEnd):
		f.safe = len(f.buf)
		f.expect(formEnd, f.safe)
		return true, nil
	case !f.ended && strings.HasPrefix(lineEnd, rest):
		return false, nil
	}
	return false, f.refuse(f.at, "something follows its closing delimiter")
}

// SPDX-License-Identifier: MPL-2.0

package wire

import (
	"bytes"
	"fmt"
	"io"
)

// Form passes a multipart/form-data body (RFC 7578, RFC 2046 §5.1) through byte
// for byte, and reads its fields on the way. What policy judges here is read
// again by the provider, by a reader that isn't known; so whatever known readers
// take differently is refused, however well-meant, and what isn't known is too.
// The content of files is neither kept (but by Scan) nor looked at.
//
// A Form may be used by one goroutine at a time.
type Form struct {
	body io.Reader
	opts FormOptions

	delimiter []byte // CRLF, two hyphens and the boundary
	needle    []byte // the end of delimiter that may stand nowhere else
	base      int64  // where in the body buf begins
	buf       []byte // what was read and isn't handed out yet; in Scan, all
	out, safe int    // what Read hands out next: buf[out:safe]
	at        int    // where what state is about begins
	from      int    // where to look on for its end
	state     formState

	part      formPart
	start     int64 // where in the body its content begins
	parts     int
	fields    []FormField
	valueAt   []int // where in buf their values begin
	names     formNames
	kept      int64
	streaming bool  // Read was called
	owned     bool  // buf may be overwritten: no field's value lies in it
	ended     bool  // body said io.EOF
	readErr   error // what body said last
	err       error // the end of this form
}

// FormField is one part of a form. Value is nil for a file (a part with a file
// name), whose content isn't read, and isn't nil for any other.
type FormField struct {
	Name  string
	Value []byte
	File  bool
}

// FormOptions bounds what is kept of a form and says how it is judged.
type FormOptions struct {
	// MaxHead is how many bytes of the body Scan may keep in memory; for a
	// moment, while it makes room, up to twice that. With 0, Scan fails.
	MaxHead int64
	// MaxField is the longest value of a field, in bytes; 0 for 64 KiB. Read
	// may need a buffer of twice that.
	MaxField int
	// MaxParts is how many fields and files there may be; 0 for 1,000.
	MaxParts int
	// Keys are the names of the fields that policy reads; nil for PolicyKeys.
	Keys []string
	// Later is told each field or file that begins after what Scan has read,
	// before any byte of its part, delimiter included, is handed out by Read. An
	// error ends Read with that error, and nothing more is ever handed out, so
	// that the receiver never has a whole body. Nil accepts everything.
	Later func(FormField) error
}

// FormError says why a form is refused.
type FormError struct {
	// Offset counts bytes from the start of the body, from 0; -1 for the
	// request's Content-Type header.
	Offset int64
	// Problem is for people.
	Problem string
	// TooLarge says that the form passes one of FormOptions' bounds.
	TooLarge bool
	// Err is io.ErrUnexpectedEOF where the body ended too soon, or nil.
	Err error
}

// Error implements the error interface.
func (e *FormError) Error() string {
	switch {
	case e.Offset < 0:
		return "the Content-Type header is not one of a form: " + e.Problem
	case e.TooLarge:
		return fmt.Sprintf("the form is too large: %s, at byte %d", e.Problem, e.Offset)
	}
	return fmt.Sprintf("the body is not a form that all servers read alike: %s, at byte %d", e.Problem, e.Offset)
}

// Unwrap lets errors.Is find io.ErrUnexpectedEOF.
func (e *FormError) Unwrap() error { return e.Err }

// NewForm reads a form from body. contentType is the value of the request's
// only Content-Type header. The error is a *FormError.
func NewForm(body io.Reader, contentType string, o FormOptions) (*Form, error) {
	boundary, quoted, err := parseFormType(contentType)
	if err != nil {
		return nil, &FormError{Offset: -1, Problem: err.Error()}
	}
	if o.MaxField == 0 {
		o.MaxField = 64 << 10
	}
	if o.MaxParts == 0 {
		o.MaxParts = 1000
	}
	if o.Keys == nil {
		o.Keys = PolicyKeys()
	}
	f := &Form{body: body, opts: o, delimiter: []byte("\r\n--" + boundary), names: newFormNames(o.Keys)}
	// Not only after CRLF: there are readers for which a delimiter may follow
	// any line end, none, or (Go's, where content is empty) the headers.
	f.needle = f.delimiter[2:]
	if quoted { // a reader that leaves the quotes on looks for --"boundary"
		f.needle = f.delimiter[4:]
	}
	return f, nil
}

// Scan reads the beginning of the body: until a file begins when enough says
// true of the fields so far, that file included, or to the body's end; a nil
// enough is never true. It is called at most once, before Read. The error is a
// *FormError or body's own, and is then Read's as well, which hands out nothing.
//
// enough must not keep the slice, nor change it.
func (f *Form) Scan(enough func([]FormField) bool) error {
	for f.err == nil && f.state != formEnd {
		done, err := f.step()
		if err == nil && !done {
			err = f.keepMore()
		}
		if err != nil {
			f.fail(err)
			f.fields = nil
			break
		}
		if done && f.state == formFile && enough != nil && enough(f.fields) {
			break
		}
	}
	f.kept = int64(len(f.buf))
	return f.err
}

// Fields returns the fields that Scan read, files included, also the one that
// has just begun; none when Scan failed. They share memory with what Scan kept
// and must not be changed.
func (f *Form) Fields() []FormField { return f.fields }

// Whole says whether Scan, or else Read, has read the body to its end.
func (f *Form) Whole() bool { return f.state == formEnd }

// Kept returns how many bytes Scan keeps in memory, until Read has handed them
// out and Fields isn't used any more.
func (f *Form) Kept() int64 { return f.kept }

// Read implements io.Reader: the exact bytes of the body from its very
// beginning, what Scan kept first. A file's content is handed out as it comes,
// but for the few bytes that may begin a delimiter; a field, when its value has
// been read and judged; the end, when nothing follows it. After an error other
// than io.EOF the body isn't whole and must not be made so.
func (f *Form) Read(p []byte) (int, error) {
	f.streaming = true
	if len(p) == 0 {
		return 0, nil
	}
	for f.out == f.safe {
		if f.err != nil {
			return 0, f.err
		}
		if f.state == formEnd {
			f.fail(io.EOF)
			continue
		}
		done, err := f.step()
		if err == nil && !done && f.out == f.safe {
			err = f.streamMore()
		}
		if err != nil {
			f.fail(err)
		}
	}
	n := copy(p, f.buf[f.out:f.safe])
	f.out += n
	return n, nil
}

// judge takes note of a part that begins: for Fields, or with Later.
func (f *Form) judge(p FormField) error {
	if !f.streaming {
		f.fields = append(f.fields, p)
		f.valueAt = append(f.valueAt, f.at)
		return nil
	}
	if f.opts.Later == nil {
		return nil
	}
	p.Value = bytes.Clone(p.Value) // which lies where the next part will
	return f.opts.Later(p)
}

// fail ends the form with err. Nothing more is handed out.
func (f *Form) fail(err error) {
	f.err, f.buf, f.out, f.safe = err, nil, 0, 0
}

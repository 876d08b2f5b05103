// SPDX-License-Identifier: MPL-2.0

package wire

import (
	"bytes"
	"io"
	"mime"
	"mime/multipart"
	"strings"
	"testing"
	"testing/iotest"
)

// goReads is what Go's own reader sees in a form.
func goReads(contentType, body string) ([]FormField, error) {
	_, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return nil, err
	}
	var fields []FormField
	r := multipart.NewReader(strings.NewReader(body), params["boundary"])
	for {
		part, err := r.NextPart()
		if err == io.EOF {
			return fields, nil
		}
		if err != nil {
			return fields, err
		}
		value, err := io.ReadAll(part)
		if err != nil {
			return fields, err
		}
		f := FormField{Name: part.FormName(), File: part.FileName() != ""}
		if !f.File {
			f.Value = value
		}
		fields = append(fields, f)
	}
}

// FuzzForm: what is accepted says the same to Go's reader, however it comes, and
// goes through unchanged.
func FuzzForm(f *testing.F) {
	for _, c := range everyForm() {
		f.Add(c.contentType, []byte(c.body))
	}
	f.Add(`multipart/form-data; boundary="`+boundary+`"`, []byte(formOf(textPart, filePart)))
	f.Fuzz(func(t *testing.T, contentType string, raw []byte) {
		body := string(raw)
		form, err := NewForm(bytes.NewReader(raw), contentType, FormOptions{MaxHead: 1 << 20})
		if err != nil {
			return
		}
		err = form.Scan(nil)
		want := show(form.Fields())
		out, readErr := io.ReadAll(form)
		if err != nil {
			if readErr != err || len(out) > 0 {
				t.Fatalf("after %v, Read hands on %q, %v", err, out, readErr)
			}
		} else if readErr != nil || string(out) != body {
			t.Fatalf("%v, handed on %q", readErr, out)
		}
		var later []FormField
		streamed, _ := NewForm(iotest.OneByteReader(bytes.NewReader(raw)), contentType, FormOptions{Later: func(p FormField) error {
			later = append(later, p)
			return nil
		}})
		out, readErr = io.ReadAll(streamed)
		if (err == nil) != (readErr == nil) || err != nil && err.Error() != readErr.Error() || !strings.HasPrefix(body, string(out)) {
			t.Fatalf("scanned: %v; streamed: %v, %q", err, readErr, out)
		}
		if err != nil {
			return
		}
		if got := show(later); got != want || string(out) != body {
			t.Fatalf("scanned\n%s\nstreamed\n%s\nhanded on\n%q", want, got, out)
		}
		if read, err := goReads(contentType, body); err != nil || show(read) != want {
			t.Fatalf("Go reads\n%s, %v\nwant\n%s", show(read), err, want)
		}
	})
}

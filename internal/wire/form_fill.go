// SPDX-License-Identifier: MPL-2.0

package wire

import (
	"fmt"
	"io"
)

// Sizes of buffers, in bytes: what Scan begins with, and what Read has for each
// open stream unless a field is longer.
const (
	firstFormBuffer  = 8 << 10
	streamFormBuffer = 32 << 10
)

// keepMore reads on, and keeps all that was read before.
func (f *Form) keepMore() error {
	if len(f.buf) == cap(f.buf) {
		if int64(len(f.buf)) >= f.opts.MaxHead {
			return f.probe()
		}
		f.grow(int(min(max(firstFormBuffer, 2*int64(cap(f.buf))), f.opts.MaxHead)))
	}
	n, err := f.read(f.buf[len(f.buf):cap(f.buf)])
	f.buf = f.buf[:len(f.buf)+n]
	return err
}

// grow makes a new buffer of size bytes for what Scan keeps. The fields' values
// move along, or the old buffers would stay for their sake.
func (f *Form) grow(size int) {
	f.buf = append(make([]byte, 0, size), f.buf...)
	for i, start := range f.valueAt {
		if p := &f.fields[i]; !p.File {
			end := start + len(p.Value)
			p.Value = f.buf[start:end:end]
		}
	}
}

// probe looks whether the body ends where there is no room for more of it.
func (f *Form) probe() error {
	var one [1]byte
	n, err := f.read(one[:])
	if n == 0 {
		return err
	}
	return &FormError{
		Offset: int64(len(f.buf)), TooLarge: true,
		Problem: fmt.Sprintf("what must be read before anything is sent on is longer than %d bytes; put the fields, the model among them, before the files", f.opts.MaxHead),
	}
}

// streamMore reads on in place of what was handed out.
func (f *Form) streamMore() error {
	rest := f.buf[f.out:]
	if !f.owned || len(rest) == cap(f.buf) {
		f.buf = make([]byte, 0, max(streamFormBuffer, 2*len(rest)))
		f.owned = true
	}
	f.buf = f.buf[:copy(f.buf[:cap(f.buf)], rest)]
	f.base += int64(f.out)
	f.at -= f.out
	f.from -= f.out
	f.out, f.safe = 0, 0
	n, err := f.read(f.buf[len(f.buf):cap(f.buf)])
	f.buf = f.buf[:len(f.buf)+n]
	return err
}

// read reads from the body once. When there was nothing left to read the last
// time, the form ends here, and too soon. io.EOF alone is no error yet: the form
// may be complete.
func (f *Form) read(p []byte) (int, error) {
	if f.ended {
		return 0, &FormError{Offset: f.base + int64(len(f.buf)), Problem: "it ends before its closing delimiter", Err: io.ErrUnexpectedEOF}
	}
	if f.readErr != nil {
		return 0, f.readErr
	}
	for range 100 {
		n, err := f.body.Read(p)
		f.ended, f.readErr = err == io.EOF, err
		if n > 0 || err == io.EOF {
			return n, nil
		}
		if err != nil {
			return 0, err
		}
	}
	f.readErr = io.ErrNoProgress
	return 0, f.readErr
}

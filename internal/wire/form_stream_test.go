// SPDX-License-Identifier: MPL-2.0

package wire

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// chunks is a body that comes in chunks, the error, if any, with the last.
type chunks struct {
	parts []string
	err   error
}

func (c *chunks) Read(p []byte) (int, error) {
	if len(c.parts) == 0 {
		if c.err != nil {
			return 0, c.err
		}
		return 0, io.EOF
	}
	n := copy(p, c.parts[0])
	if c.parts[0] = c.parts[0][n:]; c.parts[0] == "" {
		c.parts = c.parts[1:]
		if len(c.parts) == 0 {
			return n, c.err
		}
	}
	return n, nil
}

func TestForm_FileContentIsHandedOutAsItComes(t *testing.T) {
	const head = "--" + boundary + "\r\n" + filePart
	in := []string{head, "abc", "def\r", "\n", "--", "x\r", "\r\n--" + boundary[:5], boundary[5:8], "#", "\r\n-", "-" + boundary, "--", "\r\n"}
	want := []string{head[:len(head)-4], "\x89PNG", "abc", "def", "\r\n--x", "\r", "\r\n--" + boundary[:8] + "#", "\r\n--" + boundary + "--\r\n"}
	f := newForm(t, &chunks{parts: in}, formType, FormOptions{})
	var got []string
	p := make([]byte, 4096)
	for {
		n, err := f.Read(p)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(p[:n]))
	}
	if !slices.Equal(got, want) {
		t.Errorf("handed out\n%q\nwant\n%q", got, want)
	}
}

func TestForm_NoByteOfAPartIsHandedOutBeforeItWasJudged(t *testing.T) {
	body := formOf(textPart, filePart, param(`name="b"`), param(`name="c"; filename="d"`), param(`name="e"`))
	var starts []int
	for i := 0; ; {
		next := strings.Index(body[i:], "\r\n--"+boundary)
		if starts = append(starts, i); next < 0 {
			break
		}
		i += next + 1
	}
	for _, scan := range []bool{false, true} {
		for refused := range 5 {
			handed, told := 0, 0
			stop := errors.New("not this one")
			o := FormOptions{Later: func(p FormField) error {
				if handed > starts[told] {
					t.Errorf("%q was judged after %d bytes, its part begins at %d", p.Name, handed, starts[told])
				}
				if told == refused {
					return stop
				}
				told++
				return nil
			}}
			f := newForm(t, iotest.HalfReader(strings.NewReader(body)), formType, o)
			if scan {
				if err := f.Scan(func([]FormField) bool { return true }); err != nil {
					t.Fatal(err)
				}
				if told = len(f.Fields()); told > refused {
					continue
				}
			}
			var err error
			p := make([]byte, 7)
			for err == nil {
				var n int
				n, err = f.Read(p)
				handed += n
			}
			if n, again := f.Read(p); err != stop || again != stop || n > 0 || handed > starts[refused]+1 {
				t.Errorf("part %d was refused: %v, then %d bytes, %v; %d bytes were handed out", refused, err, n, again, handed)
			}
		}
	}
}

// Every cut-off body ends in an error, or a receiver would take it for whole.
func TestForm_TruncatedBodiesAreNeverWhole(t *testing.T) {
	own := errors.New("the connection broke")
	for _, body := range []string{formOf(textPart, filePart), formOf(filePart), formOf()} {
		for cut := range len(body) - 2 { // at which it lacks the last CRLF only
			f := newForm(t, strings.NewReader(body[:cut]), formType, FormOptions{})
			err := f.Scan(nil)
			var refusal *FormError
			if !errors.Is(err, io.ErrUnexpectedEOF) || !errors.As(err, &refusal) || refusal.Offset != int64(cut) || f.Whole() || f.Fields() != nil {
				t.Fatalf("cut at %d: scanned: %v", cut, err)
			}
			f = newForm(t, strings.NewReader(body[:cut]), formType, FormOptions{})
			if out, err := io.ReadAll(f); !errors.Is(err, io.ErrUnexpectedEOF) || !strings.HasPrefix(body, string(out)) {
				t.Fatalf("cut at %d: read %q, %v", cut, out, err)
			}
		}
		for cut := range len(body) + 1 {
			f := newForm(t, &chunks{parts: []string{body[:cut]}, err: own}, formType, FormOptions{})
			if err := f.Scan(nil); err != own {
				t.Fatalf("broken off at %d: scanned: %v", cut, err)
			}
			f = newForm(t, &chunks{parts: []string{body[:cut]}, err: own}, formType, FormOptions{})
			if out, err := io.ReadAll(f); err != own || strings.HasSuffix(string(out), boundary+"--") {
				t.Fatalf("broken off at %d: read %q, %v", cut, out, err)
			}
		}
	}
	f := newForm(t, iotest.ErrReader(nil), formType, FormOptions{})
	if err := f.Scan(nil); err != io.ErrNoProgress {
		t.Errorf("a reader that makes no progress: %v", err)
	}
}

func TestForm_ScanKeepsNoMoreThanItMay(t *testing.T) {
	for _, n := range []int{1, 100, firstFormBuffer, firstFormBuffer + 1, 5 * firstFormBuffer} {
		body := formOf(filePart+strings.Repeat("x", n), textPart)
		f := newForm(t, strings.NewReader(body), formType, FormOptions{MaxHead: int64(len(body))})
		if err := f.Scan(nil); err != nil || f.Kept() != int64(len(body)) || cap(f.buf) > len(body) {
			t.Errorf("%d bytes: %v, %d are kept", len(body), err, cap(f.buf))
		}
		f = newForm(t, iotest.DataErrReader(strings.NewReader(body)), formType, FormOptions{MaxHead: int64(len(body)) - 1})
		err := f.Scan(nil)
		var refusal *FormError
		if !errors.As(err, &refusal) || !refusal.TooLarge || !strings.Contains(err.Error(), "before the files") || f.Kept() > 0 {
			t.Errorf("%d bytes, one too many: %v, %d are kept", len(body), err, f.Kept())
		}
	}
}

func TestForm_FieldsStayAsTheyWereRead(t *testing.T) {
	var parts []string
	var want, later []FormField
	for i := range 200 { // through some growths of the buffer, and of Read's
		name := "f" + string(rune('0'+i%10)) + strings.Repeat("x", i/10)
		value := strings.Repeat(name, 1+i*i%97)
		parts, want = append(parts, disposition+"name=\""+name+"\"\r\n\r\n"+value), append(want, formText(name, value))
		if i == 120 {
			parts, want = append(parts, filePart), append(want, formFileOf("file"))
		}
	}
	f := newForm(t, strings.NewReader(formOf(parts...)), formType, FormOptions{Later: func(p FormField) error {
		later = append(later, p)
		return nil
	}})
	if err := f.Scan(func([]FormField) bool { return true }); err != nil {
		t.Fatal(err)
	}
	for i, p := range f.Fields() {
		if !p.File && &p.Value[:1][0] != &f.buf[f.valueAt[i]] {
			t.Fatalf("field %d keeps an old buffer in memory", i)
		}
	}
	if n, err := io.Copy(io.Discard, f); err != nil || n != int64(len(formOf(parts...))) {
		t.Fatal(n, err)
	}
	if got := show(slices.Concat(f.Fields(), later)); got != show(want) || len(f.Fields()) != 122 {
		t.Errorf("%d scanned; got\n%s\nwant\n%s", len(f.Fields()), got, show(want))
	}
}

func TestForm_MemoryDoesNotGrowWithAFile(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789\r\n--"+boundary[:9]+"\n-\r\r\n"), 40000) // 1 MiB and more
	body := generated(formType, content, 200<<20/len(content)+1)
	size := body.size()
	f := newForm(t, body, formType, FormOptions{})
	if err := f.Scan(func([]FormField) bool { return true }); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 16<<10)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var n int64
	for {
		m, err := f.Read(p)
		n += int64(m)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; n != size || grown > 1<<20 {
		t.Errorf("%d of %d bytes were handed out, %d were allocated", n, size, grown)
	}
}

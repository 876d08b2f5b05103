// SPDX-License-Identifier: MPL-2.0

package wire

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestForm_RefusesWhatReadersTakeDifferently(t *testing.T) {
	o := FormOptions{MaxParts: 4, MaxField: 100}
	for says, bodies := range refusedForms() {
		for _, body := range bodies {
			f := newForm(t, strings.NewReader(body), formType, o)
			err := f.Scan(nil)
			checkRefusal(t, body, says, err)
			if out, again := io.ReadAll(f); len(out) > 0 || again != err {
				t.Errorf("%q: after %v, Read hands on %q, %v", body, err, out, again)
			}
			f = newForm(t, strings.NewReader(body), formType, o)
			out, err := io.ReadAll(f)
			checkRefusal(t, body, says, err)
			if !strings.HasPrefix(body, string(out)) || strings.HasSuffix(string(out), boundary+"--") || strings.HasSuffix(string(out), boundary+"--\r\n") {
				t.Errorf("%q: handed on %q", body, out)
			}
		}
	}
}

func checkRefusal(t *testing.T, body, says string, err error) {
	t.Helper()
	var refusal *FormError
	if !errors.As(err, &refusal) {
		t.Fatalf("%.1000q: %v", body, err)
	}
	if !strings.Contains(err.Error(), says) || refusal.TooLarge != strings.HasPrefix(says, "too large") || refusal.Offset < 0 || refusal.Offset > int64(len(body)) {
		t.Errorf("%.1000q: %v %v, want %q", body, err, refusal.Offset, says)
	}
}

// Each refusal is for the one thing that is wrong: what is next to it passes.
func TestForm_AcceptsWhatIsNextToARefusal(t *testing.T) {
	for _, body := range []string{
		formOf(), formOf(textPart, filePart), strings.TrimSuffix(formOf(textPart), "\r\n"),
		formOf(filePart + "\r\n--\r\n--" + boundary[:len(boundary)-1] + "\r\n-\r\n\n-\r"), formOf(filePart + "\r\n" + boundary),
		formOf(disposition + "name=\"a\"\r\n\r\n"), formOf(disposition + "name=\"a\"; filename=\"b\"\r\n\r\n"), formOf(disposition + "name=\"a\"\r\n\r\n\r\n"),
		formOf(param(`name=a;filename=b`)), formOf(param(`name="a"; filename="b\\\\c\d"; filename*=UTF-8''%c3%A9`)), formOf(param(`name="a"; filename="b;c"`)),
		formOf(param("name=\"a\"; filename=\"9.41.00\u202fAM👨\u200d👧é.png\"")), formOf(param(`name="a"; filename="../.b"`)),
		formOf(param(`name="a.model"`), param(`name="models"`), param(`name="xmodel[]"`), param(`name="x model"`)),
		formOf(param(`name="model"`), param(`name="n"`), param(`name="max_tokens"`)),
		formOf(headed("content-TYPE: Text/Plain;charset=\"UTF-8\"\r\nContent-Length: 1\r\nContent-Transfer-Encoding: BINARY")),
		formOf(param(`name="a[]"`), param(`name="A[]"`), param(`name="a[b]"`)), formOf(param(`name="f"; filename="a"`), param(`name="f"; filename="b"`), param(`name="f[]"; filename="b"`)),
		formOf(disposition + "name=\"a\"\r\n\r\n" + strings.Repeat("x", 100)), formOf(param(`name="` + strings.Repeat("n", 256) + `"`)),
		formOf(disposition + "name=\"a\"\r\n\r\n \ttab \n"), formOf(param("name=\"a\"; filename=\"b\"\r\nContent-Type: video/mp4; codecs=\"avc1, mp4a\"")),
		formOf(disposition + "name=\"a\"; filename=\"b\"\r\n\r\n\x00\xff\ufeff"), formOf(param(`name="a"`), param(`name="b"`), param(`name="c"`), param(`name="d"`)),
		formOf(headed("Content-Type:" + strings.Repeat(" ", maxPartHead-len(disposition+"name=\"prompt\"\r\nContent-Type:text/plain\r\n")) + "text/plain")),
	} {
		f := newForm(t, iotest.OneByteReader(strings.NewReader(body)), formType, FormOptions{MaxParts: 4, MaxField: 100})
		if out, err := io.ReadAll(f); err != nil || string(out) != body {
			t.Errorf("%q: %v, handed on %q", body, err, out)
		}
	}
}

func TestNewForm_NeedsATypeThatAllServersReadAlike(t *testing.T) {
	long := strings.Repeat("b", 70)
	for _, value := range []string{
		"", "multipart/form-data", "multipart/form-data;", "multipart/form-data; boundary", "multipart/form-data; boundary=", `multipart/form-data; boundary=""`,
		"Multipart/form-data; boundary=a", "multipart/mixed; boundary=a", "multipart/form-data boundary=a", "multipart/form-data ; boundary=a",
		"multipart/form-data; boundary=a; boundary=b", "multipart/form-data; boundary=a; boundary=a", "multipart/form-data; Boundary=a", "multipart/form-data; boundary=a;",
		"multipart/form-data; boundary*=utf-8''a", "multipart/form-data; boundary*0=a", "multipart/form-data; boundary=a; x=y", "multipart/form-data; boundary=a, multipart/form-data; boundary=b",
		`multipart/form-data; boundary="a b"`, `multipart/form-data; boundary="a,b"`, `multipart/form-data; boundary="a\b"`, `multipart/form-data; boundary="a`, "multipart/form-data; boundary=a/b",
		"multipart/form-data; boundary=a\r\n", "multipart/form-data; boundary=é", "multipart/form-data; boundary='a'", "multipart/form-data; boundary=" + long + "b", "multipart/form-data; charset=utf-16; boundary=a",
		"multipart/form-data; charset=utf-8; charset=utf-8; boundary=a", "application/json", "multipart/form-data2; boundary=a", "multipart/form-data; boundary=a!",
	} {
		_, err := NewForm(strings.NewReader(""), value, FormOptions{MaxHead: 1})
		var refusal *FormError
		if !errors.As(err, &refusal) || refusal.Offset != -1 || !strings.HasPrefix(err.Error(), "the Content-Type header") {
			t.Errorf("%q: %v", value, err)
		}
	}
	for _, boundary := range []string{"a", long, "()+_-./:=?", "-"} {
		for _, value := range []string{"multipart/form-data; boundary=%q", "multipart/form-data;charset=\"UTF-8\";boundary=%q"} {
			f := newForm(t, strings.NewReader("--"+boundary+"--\r\n"), fmt.Sprintf(value, boundary), FormOptions{})
			if err := f.Scan(nil); err != nil {
				t.Errorf("%q: %v", boundary, err)
			}
		}
	}
}

// A reader that leaves the quotes on would find its delimiters in a file.
func TestForm_BoundaryInQuotesStandsNowhereElse(t *testing.T) {
	for _, where := range []string{"\r\n--\"" + boundary + "\"\r\n", boundary, "\r\n-" + boundary, "\n--" + boundary} {
		where = "\x89PNG" + where
		body := formOf(strings.TrimSuffix(filePart, "\x89PNG") + where + "more")
		f := newForm(t, strings.NewReader(body), `multipart/form-data; boundary="`+boundary+`"`, FormOptions{})
		if out, err := io.ReadAll(f); err == nil || strings.Contains(string(out), where) {
			t.Errorf("%q: %v, handed on %q", where, err, out)
		}
	}
}

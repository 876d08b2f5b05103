// SPDX-License-Identifier: MPL-2.0

package wire

import (
	"bytes"
	"fmt"
	"io"
	"mime/multipart"
	"slices"
	"strings"
	"testing"
)

// crlf makes CRLF of line ends.
func crlf(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }

// formBody is a form with what it says.
type formBody struct {
	name, contentType, body string
	fields                  []FormField
}

func formText(name, value string) FormField { return FormField{Name: name, Value: []byte(value)} }
func formFileOf(name string) FormField      { return FormField{Name: name, File: true} }

// show writes fields on a line.
func show(fields []FormField) string {
	var s strings.Builder
	for _, f := range fields {
		switch {
		case f.File && f.Value == nil:
			fmt.Fprintf(&s, "%q: file; ", f.Name)
		case !f.File && f.Value != nil:
			fmt.Fprintf(&s, "%q=%q; ", f.Name, f.Value)
		default:
			fmt.Fprintf(&s, "%q neither field nor file; ", f.Name)
		}
	}
	return s.String()
}

const picture = "\x89PNG\r\n\x1a\n--\r\n\r\n--\x00\xff\r\n-"

// clientForms are forms as clients write them, with all that they do in other
// ways than others.
func clientForms() []formBody {
	model := formText("model", "gpt-4o-transcribe")
	return []formBody{
		{"Python httpx 0.28 (openai)", "multipart/form-data; boundary=5b9d8145cf4f4575b6cf62113f0b4a1d", crlf(`--5b9d8145cf4f4575b6cf62113f0b4a1d
Content-Disposition: form-data; name="model"

gpt-4o-transcribe
--5b9d8145cf4f4575b6cf62113f0b4a1d
Content-Disposition: form-data; name="timestamp_granularities[]"

word
--5b9d8145cf4f4575b6cf62113f0b4a1d
Content-Disposition: form-data; name="timestamp_granularities[]"

segment
--5b9d8145cf4f4575b6cf62113f0b4a1d
Content-Disposition: form-data; name="image[]"; filename="a%22b\\é.png"
Content-Type: image/png

`) + picture + crlf(`
--5b9d8145cf4f4575b6cf62113f0b4a1d
Content-Disposition: form-data; name="image[]"; filename="b.png"
Content-Type: image/png


--5b9d8145cf4f4575b6cf62113f0b4a1d--
`), []FormField{model, formText("timestamp_granularities[]", "word"), formText("timestamp_granularities[]", "segment"), formFileOf("image[]"), formFileOf("image[]")}},
		{"Python requests 2.34", "multipart/form-data; boundary=7e14c2cf20a471676385312c2c32334e", crlf(`--7e14c2cf20a471676385312c2c32334e
Content-Disposition: form-data; name="model"

gpt-4o-transcribe
--7e14c2cf20a471676385312c2c32334e
Content-Disposition: form-data; name="file"; filename="é%22b\.png"
Content-Type: image/png

`) + picture + crlf(`
--7e14c2cf20a471676385312c2c32334e
Content-Disposition: form-data; name="mask"; filename="mask"

zz
--7e14c2cf20a471676385312c2c32334e--
`), []FormField{model, formFileOf("file"), formFileOf("mask")}},
		{"Python aiohttp 3", "multipart/form-data; boundary=f94a9f3dbf4244c2a2b284312c1a6be9", crlf(`--f94a9f3dbf4244c2a2b284312c1a6be9
Content-Type: text/plain; charset=utf-8
Content-Disposition: form-data; name="model"

gpt-4o-transcribe
--f94a9f3dbf4244c2a2b284312c1a6be9
Content-Type: audio/ogg;codecs="opus"
Content-Disposition: form-data; name="file"; filename="%C3%A9.ogg"

zz
--f94a9f3dbf4244c2a2b284312c1a6be9--
`), []FormField{model, formFileOf("file")}},
		{"Node fetch (undici)", "multipart/form-data; boundary=----formdata-undici-019166758065", crlf(`------formdata-undici-019166758065
Content-Disposition: form-data; name="model"

gpt-4o-transcribe
------formdata-undici-019166758065
Content-Disposition: form-data; name="prompt"

line
--next
------formdata-undici-019166758065
Content-Disposition: form-data; name="file"; filename="a%22b\é.png"
Content-Type: image/png

`) + picture + crlf(`
------formdata-undici-019166758065
Content-Disposition: form-data; name="x"; filename="blob"
Content-Type: application/octet-stream

q
------formdata-undici-019166758065--
`), []FormField{model, formText("prompt", "line\r\n--next"), formFileOf("file"), formFileOf("x")}},
		{"Node fetch, empty", "multipart/form-data; boundary=----formdata-undici-009804260673", "------formdata-undici-009804260673--\r\n", nil},
		{"curl", "multipart/form-data; boundary=------------------------6676a37d8309009e", crlf(`--------------------------6676a37d8309009e
Content-Disposition: form-data; name="model"

gpt-4o-transcribe
--------------------------6676a37d8309009e
Content-Disposition: form-data; name="file"; filename="q%22\b.png"
Content-Type: image/png

`) + picture + crlf(`
--------------------------6676a37d8309009e--
`), []FormField{model, formFileOf("file")}},
		{".NET HttpClient", `multipart/form-data; boundary="0f3f4ad5-9fcd-4be1-a3c8-6e42bd39a4ac"`, crlf(`--0f3f4ad5-9fcd-4be1-a3c8-6e42bd39a4ac
Content-Type: text/plain; charset=utf-8
Content-Disposition: form-data; name=model

gpt-4o-transcribe
--0f3f4ad5-9fcd-4be1-a3c8-6e42bd39a4ac
Content-Type: image/png
Content-Disposition: form-data; name=file; filename="=?utf-8?B?w6kucG5n?="; filename*=utf-8''%C3%A9.png

`) + picture + crlf(`
--0f3f4ad5-9fcd-4be1-a3c8-6e42bd39a4ac--
`), []FormField{model, formFileOf("file")}},
		{"PHP Guzzle", "multipart/form-data; boundary=6c8b4b5b2f0d4b5a", crlf(`--6c8b4b5b2f0d4b5a
Content-Disposition: form-data; name="model"
Content-Length: 17

gpt-4o-transcribe
--6c8b4b5b2f0d4b5a
Content-Disposition: form-data; name="file"; filename="a.wav"
Content-Length: 4
Content-Type: audio/x-wav

RIFF
--6c8b4b5b2f0d4b5a--
`), []FormField{model, formFileOf("file")}},
		{"Apache HttpClient", "multipart/form-data; charset=UTF-8; boundary=Qj-_7xZk", crlf(`--Qj-_7xZk
Content-Disposition: form-data; name="model"
Content-Type: text/plain; charset=UTF-8
Content-Transfer-Encoding: 8bit

gpt-4o-transcribe
--Qj-_7xZk
Content-Disposition: form-data; name="file"; filename="a.wav"
Content-Type: application/octet-stream
Content-Transfer-Encoding: binary

RIFF
--Qj-_7xZk--`), []FormField{model, formFileOf("file")}},
		{"Dart", "multipart/form-data; boundary=dart-http-boundary-+.x", crlf(`--dart-http-boundary-+.x
content-disposition: form-data; name="prompt"
content-type: text/plain; charset=utf-8
content-transfer-encoding: binary

é

--dart-http-boundary-+.x--
`), []FormField{formText("prompt", "é\r\n")}},
		goForm(),
	}
}

// goForm is a form by Go's own writer.
func goForm() formBody {
	var body bytes.Buffer
	w := multipart.NewWriter(&body)
	for _, f := range []FormField{formText("model", "gpt-4o-transcribe"), formText("expires_after[anchor]", ""), formText("expires_after[seconds]", "7")} {
		_ = w.WriteField(f.Name, string(f.Value)) // a buffer takes everything
	}
	for _, name := range []string{`C:\a.png`, "b.png"} {
		part, _ := w.CreateFormFile("file", name)
		_, _ = io.WriteString(part, picture)
	}
	_ = w.Close()
	return formBody{"Go", w.FormDataContentType(), body.String(), []FormField{
		formText("model", "gpt-4o-transcribe"), formText("expires_after[anchor]", ""), formText("expires_after[seconds]", "7"), formFileOf("file"), formFileOf("file"),
	}}
}

// newForm makes a form with room for it all.
func newForm(t testing.TB, body io.Reader, contentType string, o FormOptions) *Form {
	t.Helper()
	if o.MaxHead == 0 {
		o.MaxHead = 1 << 20
	}
	f, err := NewForm(body, contentType, o)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestForm_ReadsWhatClientsWriteAndPassesItThrough(t *testing.T) {
	for _, c := range clientForms() {
		t.Run(c.name, func(t *testing.T) {
			f := newForm(t, strings.NewReader(c.body), c.contentType, FormOptions{})
			if err := f.Scan(nil); err != nil {
				t.Fatal(err)
			}
			if got, want := show(f.Fields()), show(c.fields); got != want {
				t.Errorf("scanned\n%s\nwant\n%s", got, want)
			}
			if !f.Whole() || f.Kept() != int64(len(c.body)) {
				t.Errorf("whole %v, %d of %d bytes kept", f.Whole(), f.Kept(), len(c.body))
			}
			if out, err := io.ReadAll(f); err != nil || string(out) != c.body {
				t.Errorf("%v, handed on\n%q\nof\n%q", err, out, c.body)
			}
		})
	}
}

// What Scan leaves is told to Later, so that nothing is missed or told twice.
func TestForm_EachPartIsToldOnce(t *testing.T) {
	for _, c := range clientForms() {
		for scanned := range len(c.fields) + 2 { // the last: without a scan
			var later []FormField
			f := newForm(t, strings.NewReader(c.body), c.contentType, FormOptions{Later: func(p FormField) error {
				later = append(later, p)
				return nil
			}})
			if scanned < len(c.fields)+1 {
				if err := f.Scan(func(got []FormField) bool { return len(got) >= scanned }); err != nil {
					t.Fatal(err)
				}
				first := slices.IndexFunc(c.fields[min(len(c.fields), max(scanned, 1)-1):], func(p FormField) bool { return p.File })
				if whole := first < 0; whole != f.Whole() || !whole && len(f.Fields()) != max(scanned, 1)+first {
					t.Fatalf("%s: whole %v, %d scanned when %d were to be", c.name, f.Whole(), len(f.Fields()), scanned)
				}
			}
			out, err := io.ReadAll(f)
			if err != nil || string(out) != c.body {
				t.Fatalf("%s: %v, handed on\n%q", c.name, err, out)
			}
			if got, want := show(f.Fields())+show(later), show(c.fields); got != want {
				t.Fatalf("%s: scanned, then told\n%s\nwant\n%s", c.name, got, want)
			}
		}
	}
}

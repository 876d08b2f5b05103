// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
)

// TestGateway_UploadsArriveByteForByte: a form reaches the provider as it was sent,
// boundary, order and files; its model and its fields are judged all the same,
// wherever in the form they are.
func TestGateway_UploadsArriveByteForByte(t *testing.T) {
	t.Parallel()
	g := startGateway(t, gatewayOptions{})
	f := &formRig{gatewayRig: g, dice: jsonDice{Rand: rand.New(rand.NewPCG(seed(t), 4))}}
	f.provider = g.scripted(t, "forms", map[string]any{"models": "whisper-*,gpt-image-*"})
	g.vault.Policy(t, "forms", `
path "`+g.mount+`/proxy/forms/v1/*" {
  capabilities       = ["update"]
  allowed_parameters = { "model" = ["whisper-1", "gpt-image-1"], "*" = [] }
  denied_parameters  = { "prompt" = ["a forbidden prompt"], "user" = [] }
}`)
	f.from = g.exactly(t, g.vault.Token(t, "forms"))
	t.Run("AnyOrder", f.anyOrder)
	t.Run("LargeFiles", f.large)
	t.Run("ModelsAreHeld", f.models)
	t.Run("LateFieldsAreHeld", f.late)
	t.Run("HTTP2", func(t *testing.T) {
		f.from = g.overTLS(t, f.from.token)
		f.anyOrder(t)
		f.late(t)
	})
}

// formRig is a virtual key that allows some models, behind a policy that allows two
// of them and forbids fields.
type formRig struct {
	*gatewayRig
	dice     jsonDice
	provider *scripted
	from     *exactCaller
}

// formPart is one part of a form: a file if it has a type.
type formPart struct {
	name, contentType string
	content           []byte
}

const transcriptions, imageEdits = "v1/audio/transcriptions", "v1/images/edits"

// form is a body with these parts, and its media type, spelt as one of several
// clients does.
func (f *formRig) form(parts ...formPart) (contentType string, body []byte) {
	style := f.dice.IntN(3)
	boundary := []string{"----formdata-undici-0%011d", "%032x", "------------------------%022d"}[style]
	boundary = fmt.Sprintf(boundary, f.dice.Int64N(1e11))
	var b bytes.Buffer
	for _, p := range parts {
		disposition := `form-data; name="` + p.name + `"`
		if p.contentType != "" {
			disposition += `; filename="a file.bin"`
		}
		fmt.Fprintf(&b, "--%s\r\n%s: %s\r\n", boundary, []string{"Content-Disposition", "Content-Disposition", "content-disposition"}[style], disposition)
		if p.contentType != "" {
			fmt.Fprintf(&b, "Content-Type: %s\r\n", p.contentType)
		}
		b.WriteString("\r\n")
		b.Write(p.content)
		b.WriteString("\r\n")
	}
	fmt.Fprintf(&b, "--%s--%s", boundary, []string{"\r\n", "\r\n", ""}[style])
	return "multipart/form-data; boundary=" + boundary, b.Bytes()
}

// send sends a form, with or without its length.
func (f *formRig) send(t *testing.T, path, contentType string, body []byte, length bool) *exactAnswer {
	t.Helper()
	var reader io.Reader = bytes.NewReader(body)
	if !length {
		reader = io.MultiReader(reader)
	}
	return f.from.do(t, http.MethodPost, f.proxied("forms", path), http.Header{"Content-Type": {contentType}}, reader)
}

// arrives ends the test unless the form reaches the provider as it is, with and
// without its length.
func (f *formRig) arrives(t *testing.T, path string, parts ...formPart) {
	t.Helper()
	f.arrivesWith(t, true, path, parts...)
	f.arrivesWith(t, false, path, parts...)
}

func (f *formRig) arrivesWith(t *testing.T, length bool, path string, parts ...formPart) {
	t.Helper()
	contentType, body := f.form(parts...)
	f.send(t, path, contentType, body, length).wantBody(t, http.StatusOK, "{}")
	got := f.provider.one(t)
	wantBytes(t, "the provider received", got.Body, body)
	want := int64(-1)
	if length {
		want = int64(len(body))
	}
	if got.Header.Get("Content-Type") != contentType || got.Length != want {
		t.Fatalf("the form came as %q, of length %d, expected %q and %d", got.Header.Get("Content-Type"), got.Length, contentType, want)
	}
}

func (f *formRig) anyOrder(t *testing.T) {
	for range rounds(8, 300) {
		parts := []formPart{
			{name: "model", content: []byte("whisper-1")}, {name: "file", contentType: "audio/wav", content: f.content()},
			{name: "response_format", content: []byte("json")}, {name: "prompt", content: []byte("größte 👋\r\nzwei")},
			{name: "timestamp_granularities[]", content: []byte("word")}, {name: "timestamp_granularities[]", content: []byte("segment")},
		}
		f.dice.Shuffle(len(parts), func(a, b int) { parts[a], parts[b] = parts[b], parts[a] })
		f.arrives(t, transcriptions, parts...)

		images := []formPart{{name: "prompt", content: []byte("a cat")}, {name: "model", content: []byte("gpt-image-1")}, {name: "n", content: []byte("1")}}
		for range f.dice.IntN(5) {
			images = append(images, formPart{name: "image[]", contentType: "image/png", content: f.content()})
		}
		f.dice.Shuffle(len(images), func(a, b int) { images[a], images[b] = images[b], images[a] })
		f.arrives(t, imageEdits, images...)
	}
}

// content is a file's, with what looks a little like the end of a part.
func (f *formRig) content() []byte {
	content := f.dice.noise(f.dice.IntN(1 << []int{1, 8, 13, 17}[f.dice.IntN(4)]))
	for range f.dice.IntN(4) {
		at := f.dice.IntN(len(content) + 1)
		content = append(content[:at:at], append([]byte([]string{"\r\n--", "\r\n", "--\r\n", "\r\n----formdata-undici-", "name=\"model\"\r\n\r\nx", "\x00"}[f.dice.IntN(6)]), content[at:]...)...)
	}
	return content
}

func (f *formRig) large(t *testing.T) {
	file := formPart{name: "file", contentType: "audio/mpeg", content: f.dice.noise(20 << 20)}
	model := formPart{name: "model", content: []byte("whisper-1")}
	f.arrivesWith(t, true, transcriptions, model, file)
	f.arrivesWith(t, false, transcriptions, file, model)
}

// models: the virtual key's allow-list and the policy's, with the file before and
// after the model.
func (f *formRig) models(t *testing.T) {
	file := formPart{name: "file", contentType: "audio/wav", content: f.dice.noise(100_000)}
	for name, code := range map[string]string{"whisper-2": "permission_denied", "gpt-5": "permission_denied", "": "model_required"} {
		for _, parts := range [][]formPart{{{name: "model", content: []byte(name)}, file}, {file, {name: "model", content: []byte(name)}}, {file}} {
			if len(parts) == 1 {
				code = "model_required"
			}
			contentType, body := f.form(parts...)
			got := f.send(t, transcriptions, contentType, body, true)
			if got.Status < 400 || !strings.Contains(string(got.Body), code) {
				t.Errorf("model %q: status %d %.300s, expected %s", name, got.Status, got.Body, code)
			}
			if sent := f.provider.received(); len(sent) > 0 {
				t.Errorf("model %q: the provider received %d requests", name, len(sent))
			}
		}
	}
}

// late: a field that the policy forbids comes when the file before it is on its way
// to the provider, who then never has a whole form.
func (f *formRig) late(t *testing.T) {
	// After it, a whole form: nothing else is whole, even if it is noticed late.
	defer f.arrives(t, transcriptions, formPart{name: "model", content: []byte("whisper-1")})
	for _, size := range []int{10, 100_000, 2 << 20} {
		for _, last := range []formPart{
			{name: "prompt", content: []byte("a forbidden prompt")}, {name: "user", content: []byte("me")},
			{name: "user", contentType: "text/plain", content: []byte("me")}, {name: "gateway_nonce", content: []byte("x")}, {name: "model", content: []byte("whisper-2")},
		} {
			for _, length := range []bool{true, false} {
				contentType, body := f.form(formPart{name: "model", content: []byte("whisper-1")}, formPart{name: "file", contentType: "audio/wav", content: f.dice.noise(size)}, last)
				got := f.send(t, transcriptions, contentType, body, length)
				if want := map[bool]int{true: http.StatusBadRequest, false: http.StatusForbidden}[last.name == "model"]; got.Status != want {
					t.Errorf("%d bytes, then %s: status %d, expected %d: %.300s", size, last.name, got.Status, want, got.Body)
				}
				for _, sent := range f.provider.received() {
					if sent.Err == nil || bytes.Contains(sent.Body, last.content) && len(last.content) > 4 {
						t.Errorf("%d bytes, then %s: the provider received %d bytes (%v)", size, last.name, len(sent.Body), sent.Err)
					}
				}
			}
		}
	}
}

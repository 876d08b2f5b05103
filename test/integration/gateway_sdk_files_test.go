// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"math/rand/v2"
	"mime"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestGateway_SDKsUploadAndDownload: what the packages upload reaches the provider
// as the files are, and what they download is what the provider sent.
func TestGateway_SDKsUploadAndDownload(t *testing.T) {
	t.Parallel()
	g := startGateway(t, gatewayOptions{})
	provider := g.scripted(t, "files", map[string]any{"models": "whisper-1,gpt-image-1,tts-1"})
	g.vault.Policy(t, "files", `
path "`+g.mount+`/proxy/files/v1/*" {
  capabilities       = ["update"]
  allowed_parameters = { "model" = ["whisper-1", "gpt-image-1", "tts-1"], "*" = [] }
}`)
	f := newSDKFiles(t)
	provider.play(f.answer)
	token := g.vault.Token(t, "files")
	for _, language := range sdkLanguages {
		t.Run(language, func(t *testing.T) {
			var calls []sdkCall
			for i, door := range g.sdkDoors(language, "files", token)[:3] {
				calls = append(calls, f.calls(door, i == 0)...)
			}
			ends := runCalls(t, language, calls)
			arrived := arrivedForms(t, provider.received())
			for _, c := range calls {
				end, want := ends[c.Name], "heard"
				if c.Do == "speech" {
					want = base64.StdEncoding.EncodeToString(f.speech)
				}
				if end.Error != nil || end.Text != want {
					t.Errorf("%s: got %.100q, %+v", c.Name, end.Text, end.Error)
				}
				if c.Files != nil {
					f.check(t, &c, arrived[c.Name])
				}
			}
		})
	}
}

// TestGateway_SDKsGetAnAnswerThatComesBeforeTheirUpload: a provider may refuse a file
// before it has all of it, as it does for its size or a bad key.
func TestGateway_SDKsGetAnAnswerThatComesBeforeTheirUpload(t *testing.T) {
	t.Parallel()
	g := startGateway(t, gatewayOptions{})
	provider := g.scripted(t, "early", map[string]any{"models": "whisper-1"})
	const message = "the file is too large for this model"
	provider.playEarly(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		_, _ = io.WriteString(w, `{"error":{"message":"`+message+`","type":"invalid_request_error","param":null,"code":"too_large"}}`)
	})
	f := newSDKFiles(t)
	token := g.token(t, "early")
	for _, language := range sdkLanguages {
		t.Run(language, func(t *testing.T) {
			var calls []sdkCall
			for _, door := range g.sdkDoors(language, "early", token)[:3] {
				c := f.calls(door, true)[0]
				calls = append(calls, c)
			}
			for name, end := range runCalls(t, language, calls) {
				if end.Error == nil || end.Error.Status != http.StatusRequestEntityTooLarge || !strings.Contains(end.Error.Message, message) {
					t.Errorf("%s: got %q, %+v", name, end.Text, end.Error)
				}
			}
		})
	}
}

// sdkFiles are files on disk with what is in them, and a file of the provider's.
type sdkFiles struct {
	folder   string
	contents map[string][]byte
	speech   []byte
}

func newSDKFiles(t *testing.T) *sdkFiles {
	t.Helper()
	dice := jsonDice{Rand: rand.New(rand.NewPCG(seed(t), 5))}
	f := &sdkFiles{folder: t.TempDir(), speech: dice.noise(200_003), contents: map[string][]byte{
		"small.webm": dice.noise(300_001), "large.webm": dice.noise(20 << 20), "one.png": dice.noise(70_000), "two.png": dice.noise(1),
	}}
	for name, content := range f.contents {
		if err := os.WriteFile(filepath.Join(f.folder, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// answer is the provider's.
func (f *sdkFiles) answer(w http.ResponseWriter, r *http.Request) {
	if strings.HasSuffix(r.URL.Path, "/audio/speech") {
		w.Header().Set("Content-Type", "audio/mpeg")
		_, _ = w.Write(f.speech)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"text":"heard","created":1,"data":[{"b64_json":"heard"}]}`)
}

// calls are those that a door is tried with. Each has its name as prompt. Node's
// packages send a form's parts in the order of the parameters, Python's files last.
func (f *sdkFiles) calls(door sdkCall, large bool) []sdkCall {
	path := func(name string) string { return filepath.Join(f.folder, name) }
	recording := path("small.webm")
	if large {
		recording = path("large.webm")
	}
	calls := []sdkCall{
		{Name: "model, then file", Do: "transcribe", Params: json.RawMessage(`{"model":"whisper-1","prompt":"?","file":null}`), Files: map[string]any{"file": recording}},
		{Name: "file, then model", Do: "transcribe", Params: json.RawMessage(`{"file":null,"prompt":"?","model":"whisper-1"}`), Files: map[string]any{"file": recording}},
		{Name: "images", Do: "edit", Params: json.RawMessage(`{"image":null,"model":"gpt-image-1","prompt":"?"}`),
			Files: map[string]any{"image": []string{path("one.png"), path("two.png")}}},
		{Name: "speech", Do: "speech", Params: json.RawMessage(`{"model":"tts-1","input":"?","voice":"alloy"}`)},
	}
	for i := range calls {
		c := &calls[i]
		c.SDK, c.BaseURL, c.Key, c.VirtualKey, c.Headers = door.SDK, door.BaseURL, door.Key, door.VirtualKey, door.Headers
		c.Name = door.Name + ": " + c.Name
		c.Params = bytes.ReplaceAll(c.Params, []byte("?"), []byte(c.Name))
	}
	return calls
}

// arrivedForm is a form that reached the provider.
type arrivedForm struct {
	model string
	files [][]byte
}

// arrivedForms are the forms among what arrived, by their prompts.
func arrivedForms(t *testing.T, requests []sentRequest) map[string]arrivedForm {
	t.Helper()
	forms := map[string]arrivedForm{}
	for _, r := range requests {
		mediaType, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
		if err != nil || mediaType != "multipart/form-data" {
			continue
		}
		form, err := multipart.NewReader(bytes.NewReader(r.Body), params["boundary"]).ReadForm(64 << 20)
		if err != nil {
			t.Fatalf("a form that arrived can't be read: %v", err)
		}
		arrived := arrivedForm{model: strings.Join(form.Value["model"], "")}
		for _, headers := range form.File {
			for _, h := range headers {
				file, err := h.Open()
				if err != nil {
					t.Fatal(err)
				}
				content, err := io.ReadAll(file)
				if err != nil {
					t.Fatal(err)
				}
				arrived.files = append(arrived.files, content)
			}
		}
		forms[strings.Join(form.Value["prompt"], "")] = arrived
	}
	return forms
}

// check compares a form that arrived with the call that sent it.
func (f *sdkFiles) check(t *testing.T, c *sdkCall, got arrivedForm) {
	t.Helper()
	var sent [][]byte
	for _, paths := range c.Files {
		switch paths := paths.(type) {
		case string:
			sent = append(sent, f.contents[filepath.Base(paths)])
		case []string:
			for _, path := range paths {
				sent = append(sent, f.contents[filepath.Base(path)])
			}
		}
	}
	if !bytes.Contains(c.Params, []byte(`"`+got.model+`"`)) || got.model == "" || len(got.files) != len(sent) {
		t.Fatalf("%s: the provider received the model %q and %d files, expected %d", c.Name, got.model, len(got.files), len(sent))
	}
	// Node's packages send the files of a list in the order in which they were read.
	slices.SortFunc(sent, bytes.Compare)
	slices.SortFunc(got.files, bytes.Compare)
	for i := range sent {
		wantBytes(t, c.Name+": of a file the provider received", got.files[i], sent[i])
	}
}

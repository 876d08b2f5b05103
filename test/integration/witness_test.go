// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"vault-plugin-secrets-portkey/test/upstream"
)

// spellings returns what is contained in any text that holds word as it is,
// URL-escaped, JSON-escaped, in hex or in base64 (at any offset, in either
// alphabet). word is ASCII letters and digits, for which escapes change
// nothing; what else stands in a secret doesn't hide them.
func spellings(word string) [][]byte {
	forms := [][]byte{[]byte(word), []byte(hex.EncodeToString([]byte(word))), []byte(strings.ToUpper(hex.EncodeToString([]byte(word))))}
	for skip := range 3 {
		whole := word[skip:]
		whole = whole[:len(whole)-len(whole)%3]
		forms = append(forms, []byte(base64.StdEncoding.EncodeToString([]byte(whole))), []byte(base64.URLEncoding.EncodeToString([]byte(whole))))
	}
	return forms
}

// containsAny says whether text holds one of the forms.
func containsAny(text []byte, forms [][]byte) bool {
	return slices.ContainsFunc(forms, func(form []byte) bool { return bytes.Contains(text, form) })
}

// around returns what stands about the first of the forms in text, for the
// message of a test: the end of the secret is left out.
func around(text []byte, forms [][]byte) string {
	for _, form := range forms {
		if i := bytes.Index(text, form); i >= 0 {
			return fmt.Sprintf("…%s[%d bytes]…", text[max(0, i-200):i], len(form))
		}
	}
	return ""
}

// witness is the transport of every client of the tests. It reads each answer
// to its end and notes those that hold a provider key.
type witness struct {
	next  http.RoundTripper
	forms [][]byte

	mu      sync.Mutex
	answers int
	// usual counts the answers with the text that the imitated provider
	// usually gives: the proof that answers are looked into.
	usual int
	leaks []string
}

func newWitness(word string) *witness {
	return &witness{next: &http.Transport{MaxIdleConnsPerHost: 64}, forms: spellings(word)}
}

// RoundTrip implements http.RoundTripper.
func (w *witness) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := w.next.RoundTrip(req)
	if err != nil {
		w.note(req, []byte(err.Error()))
		return nil, err
	}
	var text bytes.Buffer
	_ = resp.Header.Write(&text) // a buffer takes all
	head := text.Len()
	_, err = text.ReadFrom(resp.Body)
	_ = resp.Body.Close() // it was read
	w.note(req, text.Bytes())
	body := io.Reader(bytes.NewReader(text.Bytes()[head:]))
	if err != nil {
		body = io.MultiReader(body, brokenReader{err})
	}
	resp.Body = io.NopCloser(body)
	return resp, nil
}

func (w *witness) note(req *http.Request, text []byte) {
	leak := containsAny(text, w.forms)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answers++
	if bytes.Contains(text, []byte(upstream.AnswerText)) {
		w.usual++
	}
	if leak {
		w.leaks = append(w.leaks, fmt.Sprintf("%s %s: %s", req.Method, req.URL.Path, around(text, w.forms)))
	}
}

type brokenReader struct{ err error }

func (r brokenReader) Read([]byte) (int, error) { return 0, r.err }

// The search is worth nothing if it can't find.
func TestWitness_FindsASecretInEverySpelling(t *testing.T) {
	const word = "cu0123456789"
	secret := word + "-1-ab+/=&<~"
	inJSON, err := json.Marshal(map[string]string{"key": `{"key":"` + secret + `"}`})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"as it is":              "x" + secret + "y",
		"alone":                 word,
		"in JSON in JSON":       string(inJSON),
		"in a query":            "?key=" + url.QueryEscape(secret),
		"in base64":             base64.StdEncoding.EncodeToString([]byte(secret)),
		"in base64, one later":  base64.StdEncoding.EncodeToString([]byte("x" + secret)),
		"in base64, two later":  base64.StdEncoding.EncodeToString([]byte("xy" + secret)),
		"in base64 of URLs":     base64.RawURLEncoding.EncodeToString([]byte("??" + secret)),
		"in hex":                hex.EncodeToString([]byte(secret)),
		"in hex, in capitals":   fmt.Sprintf("%X", secret),
		"in an Authorization":   "Authorization: Bearer " + secret,
		"in Basic credentials":  "Basic " + base64.StdEncoding.EncodeToString([]byte("user:"+secret)),
		"as Go's %q prints it":  fmt.Sprintf("%q", secret),
		"as Go's %+v prints it": fmt.Sprintf("%+v", struct{ Key string }{secret}),
	} {
		for _, inHeader := range []bool{false, true} {
			w := newWitness(word)
			server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
				if inHeader {
					rw.Header().Set("X-Some", text)
					return
				}
				_, _ = io.WriteString(rw, text)
			}))
			resp, err := (&http.Client{Transport: w}).Get(server.URL)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			server.Close()
			if len(w.leaks) != 1 {
				t.Errorf("%s (in a header: %t): not found in %q", name, inHeader, text)
			}
			if len(w.leaks) == 1 && strings.Contains(w.leaks[0], secret) {
				t.Errorf("%s: the message shows the secret", name)
			}
		}
	}
	if containsAny([]byte("cu0123456788 and other text"), spellings(word)) {
		t.Error("it finds what isn't there")
	}
}

// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf16"

	"vault-plugin-secrets-portkey/internal/apierror"
)

// A form as bytes.
const (
	boundary = "a-boundary"
	formType = "multipart/form-data; boundary=" + boundary
)

func field(name, value string) string {
	return fmt.Sprintf("--%s\r\nContent-Disposition: form-data; name=%q\r\n\r\n%s\r\n", boundary, name, value)
}

func file(name, content string) string {
	return fmt.Sprintf("--%s\r\nContent-Disposition: form-data; name=%q; filename=\"f.bin\"\r\nContent-Type: application/octet-stream\r\n\r\n%s\r\n",
		boundary, name, content)
}

func form(parts ...string) string { return strings.Join(parts, "") + "--" + boundary + "--\r\n" }

// upload is a request with a body of another type than JSON.
func upload(path, contentType, text string) *http.Request {
	return request("POST", "/v1/"+testMount+"proxy/team-a/"+path, "tok", text, "Content-Type", contentType)
}

// unannounced is a body whose length isn't known, as of a chunked request.
func unannounced(req *http.Request, text string) *http.Request {
	req.Body, req.ContentLength = io.NopCloser(iotest.OneByteReader(strings.NewReader(text))), -1
	return req
}

func TestBody_TypesThatAreTakenForJSON(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", nil)
	for _, contentType := range []string{
		"", "application/json", "application/json; charset=utf-8", "Application/JSON", "text/plain", "application/x-www-form-urlencoded",
		"application/vnd.api+json",
	} {
		req := chatRequest("tok", hello, "Content-Type", contentType)
		if contentType == "" {
			req.Header.Del("Content-Type")
		}
		if got := r.send(req); got.status != 200 {
			t.Errorf("%q: %d %s", contentType, got.status, got.body)
			continue
		}
		if got := r.provider.last(t); got.body != hello || got.header.Get("Content-Type") != "application/json" {
			t.Errorf("%q: the provider got %q as %q", contentType, got.body, got.header.Values("Content-Type"))
		}
	}
}

func TestBody_RefusesWhatItCannotReadAsTheProviderWould(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", nil)
	inUTF16 := "\xff\xfe"
	for _, unit := range utf16.Encode([]rune(hello)) {
		inUTF16 += string([]byte{byte(unit), byte(unit >> 8)})
	}
	for name, c := range map[string]struct {
		headers []string
		text    string
		status  int
		code    string
	}{
		"UTF-16":                  {[]string{"Content-Type", "application/json; charset=utf-16"}, inUTF16, 400, apierror.CodeInvalidRequest},
		"UTF-8 with a mark":       {nil, "\xef\xbb\xbf" + hello, 400, apierror.CodeInvalidRequest},
		"not UTF-8":               {nil, `{"model":"m","user":"` + "\xff" + `"}`, 400, apierror.CodeInvalidRequest},
		"gzip":                    {[]string{"Content-Encoding", "gzip"}, hello, 415, apierror.CodeUnsupportedMediaType},
		"two encodings":           {[]string{"Content-Encoding", "identity, br"}, hello, 415, apierror.CodeUnsupportedMediaType},
		"XML":                     {[]string{"Content-Type", "application/xml"}, "<a/>", 415, apierror.CodeUnsupportedMediaType},
		"a type that isn't one":   {[]string{"Content-Type", "application/json; ="}, hello, 415, apierror.CodeUnsupportedMediaType},
		"two types":               {[]string{"Content-Type", "application/json, multipart/form-data"}, hello, 415, apierror.CodeUnsupportedMediaType},
		"opaque on a chat":        {[]string{"Content-Type", "application/octet-stream"}, hello, 415, apierror.CodeUnsupportedMediaType},
		"a form without boundary": {[]string{"Content-Type", "multipart/form-data"}, form(field("model", "m")), 400, apierror.CodeInvalidRequest},
		"an urlencoded form":      {[]string{"Content-Type", "application/x-www-form-urlencoded"}, "model=m&x=y", 400, apierror.CodeInvalidRequest},
		"a list":                  {nil, `[1]`, 400, apierror.CodeInvalidRequest},
		"two objects":             {nil, `{"model":"m"}{"model":"n"}`, 400, apierror.CodeInvalidRequest},
		"half an object":          {nil, `{"model":"m"`, 400, apierror.CodeInvalidRequest},
		"a key twice":             {nil, `{"model":"m","x":1,"x":1}`, 400, apierror.CodeInvalidRequest},
		"a key twice, escaped":    {nil, `{"model":"m","x":1,"\u0078":2}`, 400, apierror.CodeInvalidRequest},
		"a key twice, far apart":  {nil, `{"model":"m","x":1,` + manyKeys(50) + `"x":2}`, 400, apierror.CodeInvalidRequest},
		"model twice":             {nil, `{"model":"m","Model":"n"}`, 400, apierror.CodeInvalidRequest},
		"model in capitals":       {nil, `{"MODEL":"m"}`, 400, apierror.CodeInvalidRequest},
		"model as a number":       {nil, `{"model":1}`, 400, apierror.CodeInvalidRequest},
		"model as a list":         {nil, `{"model":["m"]}`, 400, apierror.CodeInvalidRequest},
		"model as an object":      {nil, `{"model":{"a":"m"}}`, 400, apierror.CodeInvalidRequest},
		"a nonce":                 {nil, `{"model":"m","gateway_nonce":"x"}`, 403, apierror.CodeNonceInvalid},
		"a nonce, escaped":        {nil, `{"model":"m","gateway\u005fnonce":null}`, 403, apierror.CodeNonceInvalid},
		"a number past float64":   {nil, `{"model":"m","x":1e400}`, 400, apierror.CodeInvalidRequest},
		"a huge string":           {nil, `{"model":"m","x":"` + strings.Repeat("a", maxShown) + `"}`, 413, apierror.CodeRequestTooLarge},
	} {
		r.apply(t, func(s *Settings) { s.MaxBodyBytes = 4 << 20 })
		for _, announced := range []bool{true, false} {
			req := chatRequest("tok", c.text, c.headers...)
			if !announced {
				req = unannounced(req, c.text)
			}
			got := r.send(req)
			if got.status != c.status || got.code != c.code {
				t.Errorf("%s: got %d %.300s, want %d %s", name, got.status, got.body, c.status, c.code)
			}
		}
	}
	if n := len(r.provider.requests()); n != 0 || r.vault.count() != 0 {
		t.Errorf("%d requests reached the provider, and %d Vault", n, r.vault.count())
	}
}

func TestBody_OfARouteThatTakesJSONMayNotBeAForm(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", nil)
	wantRefusal(t, r.send(upload("v1/chat/completions", formType, form(field("model", "m")))), 400, apierror.CodeInvalidRequest)
	if n := len(r.provider.requests()); n != 0 {
		t.Errorf("%d requests reached the provider", n)
	}
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `"k%d":%d,`, i, i)
	}
	return b.String()
}

// Of two Content-Types, the provider may take the one that the gateway doesn't.
func TestBody_WithTwoContentTypesIsRefused(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", nil)
	for name, types := range map[string][]string{
		"two boundaries": {formType, "multipart/form-data; boundary=another"},
		"form and JSON":  {formType, "application/json"},
		"JSON and form":  {"application/json", formType},
		"opaque":         {"application/octet-stream", "application/json"},
	} {
		text := form(field("model", "m"))
		if strings.HasPrefix(types[0], "application/json") {
			text = hello
		}
		req := upload("v1/files", "", text)
		req.Header["Content-Type"] = types
		if got := r.send(req); got.status != 400 && got.status != 415 {
			t.Errorf("%s: got %d, and the provider the types %q", name, got.status, r.provider.last(t).header["Content-Type"])
		}
	}
}

func TestBody_SizeIsBoundedWhetherItIsAnnouncedOrNot(t *testing.T) {
	r := newRig(t, func(s *Settings) { s.MaxBodyBytes = 4096 })
	r.vault.token("tok", nil)
	exact := `{"model":"m","x":"` + strings.Repeat("a", 4096-20) + `"}`
	for _, c := range []struct {
		text   string
		status int
	}{{exact, 200}, {exact + " ", 413}, {strings.Repeat(" ", 1<<20), 413}} {
		for _, announced := range []bool{true, false} {
			req := chatRequest("tok", c.text)
			if !announced {
				req = unannounced(req, c.text)
			}
			got := r.send(req)
			if got.status != c.status || c.status == 413 && got.code != apierror.CodeRequestTooLarge {
				t.Errorf("%d bytes, announced %t: got %d %.200s", len(c.text), announced, got.status, got.body)
			}
		}
	}
	for name, req := range map[string]*http.Request{
		"a form":            upload("v1/files", formType, form(field("purpose", "x"), file("file", strings.Repeat("a", 8192)))),
		"an opaque body":    upload("v1/files", "application/octet-stream", strings.Repeat("a", 8192)),
		"a field in a form": upload("v1/files", formType, form(field("x", strings.Repeat("a", 8192)))),
	} {
		body, _ := io.ReadAll(req.Body)
		got := r.send(unannounced(req, string(body)))
		if got.status != 413 {
			t.Errorf("%s: got %d %.200s", name, got.status, got.body)
		}
	}
	for _, sent := range r.provider.requests() {
		if len(sent.body) > 4096 {
			t.Errorf("the provider got %d bytes (%v)", len(sent.body), sent.err)
		}
	}
}

func TestBody_OfAGetIsRefusedAndAnEmptyOneIsNone(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", nil)
	target := "/v1/" + testMount + "proxy/team-a/v1/models"
	for _, method := range []string{"GET", "DELETE"} {
		wantRefusal(t, r.send(request(method, target, "tok", "{}")), 400, apierror.CodeInvalidRequest, "no body")
		wantRefusal(t, r.send(unannounced(request(method, target, "tok", ""), "{}")), 400, apierror.CodeInvalidRequest)
	}
	for _, req := range []*http.Request{upload("v1/batches/b/cancel", "application/json", ""), unannounced(upload("v1/batches/b/cancel", "", ""), "")} {
		wantOK(t, r.send(req))
		if got := r.provider.last(t); got.body != "" {
			t.Errorf("the provider got %q", got.body)
		}
	}
	if a := r.vault.questions()[0]; len(a.fields) != 1 || a.nonce == "" {
		t.Errorf("Vault was shown %s", a.body)
	}
}

func TestBody_ThatBreaksOffIsRefused(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", nil)
	for _, length := range []int64{-1, int64(len(hello))} {
		req := chatRequest("tok", hello)
		req.Body = io.NopCloser(io.MultiReader(strings.NewReader(hello[:20]), iotest.ErrReader(io.ErrUnexpectedEOF)))
		req.ContentLength = length
		wantRefusal(t, r.send(req), 400, apierror.CodeInvalidRequest, "broke off")
	}
}

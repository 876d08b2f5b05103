// SPDX-License-Identifier: MPL-2.0

//go:build unix

package vaulttest

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// echo answers with what it was asked, the way Vault shapes data.
func echo(t *testing.T) *Client {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		switch r.URL.Path {
		case "/v1/redirect":
			http.Redirect(w, r, "/v1/elsewhere", http.StatusTemporaryRedirect)
		case "/v1/none":
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"errors":[]}`)
		case "/v1/list":
			fmt.Fprint(w, `{"data":{"keys":["a","b/"]}}`)
		default:
			fmt.Fprintf(w, `{"data":{"asked":%q},"warnings":["odd"]}`, strings.Join([]string{
				r.Method, r.URL.RequestURI(), r.Header.Get("X-Vault-Token"), r.Header.Get("Content-Type"), string(body)}, "|"))
		}
	}))
	t.Cleanup(server.Close)
	return &Client{Addr: server.URL, Token: "tok", HTTP: newHTTPClient()}
}

func TestClient_SendsBodiesAsTheyAreOrAsJSON(t *testing.T) {
	c := echo(t)
	for _, test := range []struct {
		method, path string
		body         any
		want         string
	}{
		{"GET", "a/b?x=y", nil, "GET|/v1/a/b?x=y|tok||"},
		{"LIST", "/a", nil, "LIST|/v1/a|tok||"},
		{"POST", "a", map[string]any{"k": 1}, `POST|/v1/a|tok|application/json|{"k":1}`},
		{"PUT", "a", []byte(`{"k": 1.0}`), `PUT|/v1/a|tok|application/json|{"k": 1.0}`},
		{"POST", "a", `{"k":"v"}`, `POST|/v1/a|tok|application/json|{"k":"v"}`},
		{"POST", "a", strings.NewReader("streamed"), `POST|/v1/a|tok|application/json|streamed`},
		{"PATCH", "a", map[string]any{"k": nil}, `PATCH|/v1/a|tok|application/merge-patch+json|{"k":null}`},
	} {
		resp, err := c.Do(t.Context(), test.method, test.path, test.body)
		if err != nil {
			t.Fatal(err)
		}
		if got := resp.Data()["asked"]; got != test.want {
			t.Errorf("asked %q, want %q", got, test.want)
		}
		if got := resp.Warnings(); !slices.Equal(got, []string{"odd"}) {
			t.Errorf("warnings %q", got)
		}
	}
}

func TestClient_FollowsNoRedirect(t *testing.T) {
	resp, err := echo(t).Do(t.Context(), "POST", "redirect", "{}")
	if err != nil || resp.Status != http.StatusTemporaryRedirect || resp.Header.Get("Location") != "/v1/elsewhere" {
		t.Errorf("%v, %v", resp, err)
	}
}

func TestClient_ListsNoneWhereVaultAnswers404(t *testing.T) {
	c := echo(t)
	if got := c.List(t, "none"); len(got) != 0 {
		t.Errorf("keys %q", got)
	}
	if got := c.List(t, "list"); !slices.Equal(got, []string{"a", "b/"}) {
		t.Errorf("keys %q", got)
	}
}

func TestResponse_ThatIsNoObjectHasNoData(t *testing.T) {
	for _, body := range []string{"", "[1]", "data: {}", `{"data":3}`} {
		r := &Response{Status: 200, Body: []byte(body)}
		if r.Data() != nil || r.Errors() != nil {
			t.Errorf("%q has data %v, errors %v", body, r.Data(), r.Errors())
		}
	}
}

func TestOptions_RefusesWhatCannotBe(t *testing.T) {
	for _, o := range []Options{{Nodes: 3}, {Mode: Raft, Nodes: 2}, {Mode: 7}, {Race: true, PluginBinary: "x"}, {Mode: Raft, Nodes: -1}} {
		if o.check() == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
	for _, o := range []Options{{}, {Nodes: 1}, {Mode: Raft}, {Mode: Raft, Nodes: 3}, {Race: true}} {
		if err := o.check(); err != nil {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestBase64Forms_AreInTheEncodingOfAnyTextAroundTheNeedle(t *testing.T) {
	needle := []byte("sk-\xfb\xff\xfe-a secret of some length")
	forms := base64Forms(needle)
	for before := range 7 {
		for after := range 4 {
			text := slices.Concat(make([]byte, before), needle, make([]byte, after))
			for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.RawURLEncoding} {
				encoded := encoding.EncodeToString(text)
				if !slices.ContainsFunc(forms, func(f []byte) bool { return strings.Contains(encoded, string(f)) }) {
					t.Errorf("%d bytes before, %d after: not found in %s", before, after, encoded)
				}
			}
		}
	}
}

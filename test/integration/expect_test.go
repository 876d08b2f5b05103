// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"vault-plugin-secrets-portkey/test/upstream"
	"vault-plugin-secrets-portkey/test/vaulttest"
)

// do sends a request and returns the answer, whatever its status.
func do(t *testing.T, c *vaulttest.Client, method, path string, body any) *vaulttest.Response {
	t.Helper()
	resp, err := c.Do(t.Context(), method, path, body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp
}

// post is do for what apps do most.
func post(t *testing.T, c *vaulttest.Client, path string, body any) *vaulttest.Response {
	t.Helper()
	return do(t, c, http.MethodPost, path, body)
}

// wantStatus ends the test unless the answer has that status.
func wantStatus(t *testing.T, resp *vaulttest.Response, status int) {
	t.Helper()
	if resp.Status != status {
		t.Fatalf("the answer is %.2000s, expected status %d", resp, status)
	}
}

// wantCompletion ends the test unless the answer is the imitated provider's
// usual one.
func wantCompletion(t *testing.T, resp *vaulttest.Response) {
	t.Helper()
	wantStatus(t, resp, http.StatusOK)
	var answer struct {
		Choices []struct {
			Message struct {
				Content string `json:"content"`
			} `json:"message"`
		} `json:"choices"`
	}
	if err := resp.Decode(&answer); err != nil || len(answer.Choices) != 1 || answer.Choices[0].Message.Content != upstream.AnswerText {
		t.Fatalf("the answer isn't the provider's: %s", resp)
	}
}

// wantError ends the test unless the answer is the plugin's own error with
// that status and code, in the shape that both SDKs and the Vault CLI read,
// and its message holds each of says.
func wantError(t *testing.T, resp *vaulttest.Response, status int, code string, says ...string) {
	t.Helper()
	wantStatus(t, resp, status)
	var answer struct {
		Error struct {
			Message, Type, Code string
		} `json:"error"`
		Errors []string `json:"errors"`
	}
	if err := resp.Decode(&answer); err != nil {
		t.Fatalf("the error isn't JSON: %s", resp)
	}
	if answer.Error.Code != code || answer.Error.Type == "" || answer.Error.Message == "" ||
		len(answer.Errors) != 1 || answer.Errors[0] != answer.Error.Message {
		t.Fatalf("the answer is %s, expected an error with the code %s for SDKs and for the CLI", resp, code)
	}
	for _, text := range says {
		if !strings.Contains(answer.Error.Message, text) {
			t.Errorf("the message %q doesn't say %q", answer.Error.Message, text)
		}
	}
	if got := resp.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("the error's content type is %q", got)
	}
}

// wantVaults403 ends the test unless Vault itself refused.
func wantVaults403(t *testing.T, resp *vaulttest.Response) {
	t.Helper()
	wantStatus(t, resp, http.StatusForbidden)
	if _, ours := resp.JSON()["error"]; ours || !strings.Contains(strings.Join(resp.Errors(), " "), "permission denied") {
		t.Fatalf("the answer is %s, expected Vault's own refusal", resp)
	}
}

// unasked runs ask and fails the test if up received anything meanwhile.
func unasked(t *testing.T, up *upstream.Server, ask func()) {
	t.Helper()
	before := up.Received()
	ask()
	if got := up.Received() - before; got != 0 {
		t.Errorf("the provider received %d requests, expected none", got)
	}
}

// lastRequest returns what up received last.
func lastRequest(t *testing.T, up *upstream.Server) upstream.Request {
	t.Helper()
	requests := up.Requests()
	if len(requests) == 0 {
		t.Fatal("the provider received nothing")
	}
	return requests[len(requests)-1]
}

// direct asks the provider itself, with the provider's key: what an app that
// has no Vault gets.
func direct(t *testing.T, up *upstream.Server, key, method, path string, body any) *vaulttest.Response {
	t.Helper()
	var text io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		text = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, strings.TrimSuffix(up.URL(), "/v1")+"/"+path, text)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return &vaulttest.Response{Status: resp.StatusCode, Header: resp.Header, Body: answer}
}

// wantSame fails the test unless the app got, byte for byte, what the provider
// answers to one that asks it directly.
func wantSame(t *testing.T, got, want *vaulttest.Response) {
	t.Helper()
	if got.Status != want.Status {
		t.Errorf("status %d, the provider's is %d", got.Status, want.Status)
	}
	if g, w := got.Header.Get("Content-Type"), want.Header.Get("Content-Type"); g != w {
		t.Errorf("content type %q, the provider's is %q", g, w)
	}
	if !bytes.Equal(got.Body, want.Body) {
		t.Errorf("the body is\n%.2000s\nthe provider's is\n%.2000s", got.Body, want.Body)
	}
}

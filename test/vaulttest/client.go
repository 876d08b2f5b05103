// SPDX-License-Identifier: MPL-2.0

//go:build unix

package vaulttest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// Client calls Vault's API with one token. It may be copied, and used by any
// number of goroutines.
type Client struct {
	// Addr is the base URL, without /v1.
	Addr string
	// Token is sent as X-Vault-Token unless empty.
	Token string
	// HTTP does the calls. It follows no redirects, uses no proxy and has no
	// timeout: contexts have.
	HTTP *http.Client
}

// Response is an answer that was read to its end.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
}

// NewRequest returns a request of path, which has no /v1/ and may have a
// query. For what Do can't: streamed bodies and answers, other headers, a
// call that is cancelled half-way. Send it with HTTP.Do.
func (c *Client) NewRequest(ctx context.Context, method, path string, body io.Reader) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.Addr+"/v1/"+strings.TrimPrefix(path, "/"), body)
	if err != nil {
		return nil, err
	}
	if c.Token != "" {
		req.Header.Set("X-Vault-Token", c.Token)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if method == http.MethodPatch {
		req.Header.Set("Content-Type", "application/merge-patch+json") // Vault takes no other
	}
	return req, nil
}

// Do sends a request and reads the answer, whatever its status. The method is
// one of HTTP's or LIST. The body is nil, sent as it is (a []byte, a string
// or an io.Reader), or turned into JSON.
func (c *Client) Do(ctx context.Context, method, path string, body any) (*Response, error) {
	reader, err := bodyReader(body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	req, err := c.NewRequest(ctx, method, path, reader)
	if err != nil {
		return nil, err
	}
	resp, err := c.HTTP.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: reading the answer: %w", method, path, err)
	}
	return &Response{Status: resp.StatusCode, Header: resp.Header, Body: text}, nil
}

func bodyReader(body any) (io.Reader, error) {
	switch b := body.(type) {
	case nil:
		return nil, nil
	case io.Reader:
		return b, nil
	case []byte:
		return bytes.NewReader(b), nil
	case string:
		return strings.NewReader(b), nil
	}
	text, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("the body as JSON: %w", err)
	}
	return bytes.NewReader(text), nil
}

// JSON returns the body as a JSON object, or nil if it is none. Numbers are
// float64: Decode keeps large ones exact.
func (r *Response) JSON() map[string]any {
	var object map[string]any
	if json.Unmarshal(r.Body, &object) != nil {
		return nil
	}
	return object
}

// Data returns the field `data` of a Vault-shaped answer, or nil if there is none.
func (r *Response) Data() map[string]any {
	data, _ := r.JSON()["data"].(map[string]any)
	return data
}

// Warnings returns the warnings of a Vault-shaped answer.
func (r *Response) Warnings() []string { return r.strings("warnings") }

// Errors returns the messages of an answer that is an error.
func (r *Response) Errors() []string { return r.strings("errors") }

func (r *Response) strings(field string) []string {
	list, _ := r.JSON()[field].([]any)
	return toStrings(list)
}

// Decode reads the body as JSON into what into points at.
func (r *Response) Decode(into any) error { return json.Unmarshal(r.Body, into) }

// String describes the answer, for messages of tests.
func (r *Response) String() string {
	return fmt.Sprintf("%d %s", r.Status, bytes.TrimSpace(r.Body))
}

// Read reads path and returns the answer. The test fails if it isn't a 200.
func (c *Client) Read(tb testing.TB, path string) *Response {
	tb.Helper()
	return c.expect(tb, http.MethodGet, path, nil, http.StatusOK)
}

// Write writes body to path and returns the answer. The test fails if it
// isn't a 200 or 204.
func (c *Client) Write(tb testing.TB, path string, body any) *Response {
	tb.Helper()
	return c.expect(tb, http.MethodPost, path, body, http.StatusOK, http.StatusNoContent)
}

// Patch sends body as a JSON merge patch of path and returns the answer. The
// test fails if it isn't a 200 or 204.
func (c *Client) Patch(tb testing.TB, path string, body any) *Response {
	tb.Helper()
	return c.expect(tb, http.MethodPatch, path, body, http.StatusOK, http.StatusNoContent)
}

// Delete deletes path and returns the answer. The test fails if it isn't a
// 200 or 204.
func (c *Client) Delete(tb testing.TB, path string) *Response {
	tb.Helper()
	return c.expect(tb, http.MethodDelete, path, nil, http.StatusOK, http.StatusNoContent)
}

// List returns the keys of path; none is an empty list (to which Vault
// answers 404). The test fails on any other answer than these.
func (c *Client) List(tb testing.TB, path string) []string {
	tb.Helper()
	resp := c.expect(tb, "LIST", path, nil, http.StatusOK, http.StatusNotFound)
	if len(resp.Errors()) > 0 {
		tb.Fatalf("LIST %s: %s", path, resp)
	}
	keys, _ := resp.Data()["keys"].([]any)
	return toStrings(keys)
}

// expect does a call whose status must be one of these.
func (c *Client) expect(tb testing.TB, method, path string, body any, statuses ...int) *Response {
	tb.Helper()
	resp, err := c.Do(tb.Context(), method, path, body)
	if err != nil {
		tb.Fatal(err)
	}
	if !slices.Contains(statuses, resp.Status) {
		tb.Fatalf("%s %s: %s, expected status %v", method, path, resp, statuses)
	}
	return resp
}

func toStrings(list []any) []string {
	var out []string
	for _, item := range list {
		if s, ok := item.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"fmt"
	"net/http"
	"sort"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

// exercises is one request for each operation of each path. What a request
// needs is made by those above it. The path is a real one; the harness holds
// each answer against the operation's schema.
func exercises() []struct {
	op   logical.Operation
	path string
	data map[string]any
} {
	return []struct {
		op   logical.Operation
		path string
		data map[string]any
	}{
		{logical.UpdateOperation, "config", map[string]any{"upstream_timeout": 5}},
		{logical.ReadOperation, "config", nil},
		{logical.DeleteOperation, "config", nil},
		{logical.ListOperation, "providers/", nil},
		{logical.ReadOperation, "providers/bedrock", nil},
		{logical.CreateOperation, "keys/k", map[string]any{"provider": "openai", "api_key": secretA + " ", "organization": "o", "headers": "X-A=b", "metadata": "a=b"}},
		{logical.UpdateOperation, "keys/k", map[string]any{"note": "n"}},
		{logical.PatchOperation, "keys/k", map[string]any{"note": nil, "api_key": "\n" + secretA}},
		{logical.ReadOperation, "keys/k", nil},
		{logical.ListOperation, "keys/", nil},
		{logical.UpdateOperation, "keys/k/verify", nil},
		{logical.UpdateOperation, "keys/k/rotate", map[string]any{"api_key": secretB}},
		{logical.CreateOperation, "roles/r", map[string]any{"key": "k", "default_params": map[string]any{"n": 1}, "forced_params": map[string]any{"n": 1}, "limits": []any{"requests=1000/month", "concurrent=9"}}},
		{logical.UpdateOperation, "roles/r", map[string]any{"expires_at": "2020-01-01T00:00:00Z"}},
		{logical.PatchOperation, "roles/r", map[string]any{"expires_at": nil, "metadata": map[string]any{"a": "b"}}},
		{logical.ReadOperation, "roles/r", nil},
		{logical.ListOperation, "roles/", nil},
		{logical.UpdateOperation, "proxy/r", map[string]any{"model": "m", "prompt": "Hello"}},
		{logical.UpdateOperation, "proxy/r/v1/chat/completions", chatBody("m")},
		{logical.ReadOperation, "proxy/r/v1/models", nil},
		{logical.CreateOperation, "prompts/p", with(greeting("Hi"), map[string]any{"parameters": map[string]any{"n": 1}, "locked": "model", "partials": "a=b", "metadata": "a=b", "note": "n"})},
		{logical.UpdateOperation, "prompts/p", map[string]any{"model": "m"}},
		{logical.PatchOperation, "prompts/p", map[string]any{"variables": []any{map[string]any{"name": "name", "default": 1}, "x"}, "locked": nil}},
		{logical.ReadOperation, "prompts/p", nil},
		{logical.ReadOperation, "prompts/p@1", nil},
		{logical.ListOperation, "prompts/", nil},
		{logical.ListOperation, "prompts/p/versions", nil},
		{logical.UpdateOperation, "prompts/p/publish", map[string]any{"version": 2}},
		{logical.UpdateOperation, "prompts/p/render", named("x")},
		{logical.UpdateOperation, "prompts/p/completions", named("x")},
		{logical.DeleteOperation, "prompts/p", nil},
		{logical.DeleteOperation, "proxy/r/v1/files/f", nil},
		{logical.UpdateOperation, "prices/openai/own*", map[string]any{"input": 1, "output": "2.5", "per_request": "0.01", "context_window": 4096, "note": "n"}},
		{logical.ReadOperation, "prices/openai/gpt-5", nil},
		{logical.ListOperation, "prices/", nil},
		{logical.ListOperation, "prices/openai/", nil},
		{logical.DeleteOperation, "prices/openai/own*", nil},
		{logical.ReadOperation, "usage/r", map[string]any{"from": "2020-01-01", "group_by": "day,model,entity"}},
		{logical.UpdateOperation, "usage/r/reset", map[string]any{"limit": "requests/month"}},
		{logical.UpdateOperation, "usage/r/write-off", map[string]any{"unconfirmed": true}},
		{logical.ReadOperation, "usage", map[string]any{"group_by": "role"}},
		{logical.ListOperation, "usage/", nil},
		{logical.ReadOperation, "creds/r", nil},
		{logical.UpdateOperation, "config/gateway", map[string]any{"address": "127.0.0.1:0", "vault_address": "http://127.0.0.1:1"}},
		{logical.ReadOperation, "config/gateway", nil},
		{logical.UpdateOperation, "config/gateway/drain", nil},
		{logical.DeleteOperation, "config/gateway", nil},
		{logical.ReadOperation, "metrics", nil},
		{logical.ReadOperation, "status", nil},
		{logical.ReadOperation, "healthz", nil},
		{logical.DeleteOperation, "roles/r", nil},
		{logical.DeleteOperation, "keys/k", nil},
	}
}

// operation is one operation of one path.
type operation struct {
	path *framework.Path
	op   logical.Operation
}

func (m *mount) operations() map[operation]bool {
	all := map[operation]bool{}
	for _, p := range m.Paths {
		for op := range p.Operations {
			all[operation{p, op}] = true
		}
	}
	return all
}

func TestSchema_EveryOperationAnswersAsItsSchemaSays(t *testing.T) {
	m := newMount(t, Options{Transport: &upstream{}})
	left := m.operations()
	for _, e := range exercises() {
		path := m.Route(e.path)
		if path == nil {
			t.Fatalf("there is no path for %s", e.path)
		}
		delete(left, operation{path, e.op})
		resp := m.must(e.op, e.path, e.data)
		if resp == nil {
			continue
		}
		if status, raw := resp.Data[logical.HTTPStatusCode]; raw && status != http.StatusOK {
			t.Errorf("%s %s answered %v: %s", e.op, e.path, status, resp.Data[logical.HTTPRawBody])
		}
	}
	for o := range left {
		t.Errorf("no exercise for %s %s: add one", o.op, o.path.Pattern)
	}
}

func TestSchema_EveryPathAndOperationIsDescribed(t *testing.T) {
	m := newMount(t, Options{})
	for _, p := range m.Paths {
		if strings.TrimSpace(p.HelpSynopsis) == "" || strings.TrimSpace(p.HelpDescription) == "" {
			t.Errorf("%s lacks a help text", p.Pattern)
		}
		for name, field := range p.Fields {
			if strings.TrimSpace(field.Description) == "" {
				t.Errorf("%s: field %s has no description", p.Pattern, name)
			}
		}
		if len(p.Operations) == 0 {
			t.Errorf("%s has no operations", p.Pattern)
		}
		for op, handler := range p.Operations {
			properties := handler.Properties()
			if properties.Summary == "" || len(properties.Responses) == 0 {
				t.Errorf("%s %s: summary %q, %d responses", op, p.Pattern, properties.Summary, len(properties.Responses))
			}
			if p.DisplayAttrs == nil && properties.DisplayAttrs == nil {
				t.Errorf("%s %s has no display attributes", op, p.Pattern)
			}
			for status, responses := range properties.Responses {
				checkResponses(t, fmt.Sprintf("%s %s %d", op, p.Pattern, status), responses)
			}
		}
		if _, drives := p.Operations[logical.CreateOperation]; drives != (p.ExistenceCheck != nil) {
			t.Errorf("%s: create without an existence check, or the other way round", p.Pattern)
		}
	}
}

func checkResponses(t *testing.T, where string, responses []framework.Response) {
	t.Helper()
	if len(responses) == 0 {
		t.Errorf("%s says nothing", where)
	}
	for _, r := range responses {
		if r.Description == "" {
			t.Errorf("%s has no description", where)
		}
		for name, field := range r.Fields {
			if field.Description == "" {
				t.Errorf("%s: answer field %s has no description", where, name)
			}
		}
	}
}

// Standbys run the plugin too; what admits requests or tells of this instance's
// state belongs on the active node.
func TestSchema_WhatOnlyTheActiveNodeMayAnswerIsForwarded(t *testing.T) {
	m := newMount(t, Options{})
	for _, path := range []string{"proxy/r", "proxy/r/v1/models", "status", "healthz", "keys/k/rotate", "keys/k/verify", "usage", "usage/r", "usage/r/reset", "usage/r/write-off", "metrics", "creds/r", "config/gateway/drain", "prompts/p/render", "prompts/p@1/completions"} {
		for op, handler := range m.Route(path).Operations {
			if !handler.Properties().ForwardPerformanceStandby {
				t.Errorf("%s %s is not forwarded by standbys", op, path)
			}
		}
	}
}

// openAPI is the document that `vault path-help` and generators read.
func (m *mount) openAPI() *framework.OASDocument {
	m.t.Helper()
	resp, err := m.HandleRequest(m.t.Context(), &logical.Request{
		Operation: logical.HelpOperation, Path: "", Data: map[string]any{"requestResponsePrefix": "portkey"}, Storage: m.storage,
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return resp.Data["openapi"].(*framework.OASDocument)
}

func TestSchema_OpenAPIOperationIDsAreUnique(t *testing.T) {
	m := newMount(t, Options{})
	doc := m.openAPI()
	at := map[string]string{}
	for path, item := range doc.Paths {
		for method, op := range map[string]*framework.OASOperation{"GET": item.Get, "POST": item.Post, "PATCH": item.Patch, "DELETE": item.Delete} {
			if op == nil {
				continue
			}
			where := method + " " + path
			if op.OperationID == "" || !strings.HasPrefix(op.OperationID, operationPrefix+"-") {
				t.Errorf("%s has the operation id %q", where, op.OperationID)
			}
			if other, taken := at[op.OperationID]; taken {
				t.Errorf("%s and %s are both called %s", where, other, op.OperationID)
			}
			at[op.OperationID] = where
		}
	}
	paths := make([]string, 0, len(doc.Paths))
	for path := range doc.Paths {
		paths = append(paths, path)
	}
	sort.Strings(paths)
	want := "/config /config/gateway /config/gateway/drain /creds/{role} /healthz /keys/ /keys/{name} /keys/{name}/rotate /keys/{name}/verify /metrics " +
		"/prices/ /prices/{provider}/ /prices/{provider}/{model} " +
		"/prompts/ /prompts/{name} /prompts/{name}/publish /prompts/{name}/versions/ /prompts/{name}@{version} /prompts/{prompt_ref}/completions /prompts/{prompt_ref}/render " +
		"/providers/ /providers/{id} " +
		"/proxy/{virtual_key} /proxy/{virtual_key}/{provider_path} /roles/ /roles/{name} /status /usage /usage/ /usage/{role} /usage/{role}/reset /usage/{role}/write-off"
	if got := strings.Join(paths, " "); got != want {
		t.Errorf("the paths are\n%s\nwant\n%s", got, want)
	}
}

func TestSchema_HelpReadsWellForEveryPath(t *testing.T) {
	m := newMount(t, Options{})
	for _, path := range append([]string{""}, func() (paths []string) {
		for _, e := range exercises() {
			paths = append(paths, e.path)
		}
		return
	}()...) {
		resp, err := m.HandleRequest(t.Context(), &logical.Request{Operation: logical.HelpOperation, Path: path, Storage: m.storage})
		if err != nil {
			t.Fatalf("help of %q: %v", path, err)
		}
		if help, _ := resp.Data["help"].(string); len(help) < 100 || strings.Contains(help, "%!") {
			t.Errorf("help of %q: %q", path, help)
		}
	}
}

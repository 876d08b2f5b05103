// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

// counting answers as the engine would, and counts how often.
type counting struct {
	logical.Backend
	calls  map[string]int
	status int
}

func (c *counting) HandleRequest(_ context.Context, req *logical.Request) (*logical.Response, error) {
	c.calls[req.Path]++
	return &logical.Response{Data: map[string]any{logical.HTTPStatusCode: c.status, "model": req.Data["model"]}}, nil
}

func (c *counting) HandleExistenceCheck(context.Context, *logical.Request) (bool, bool, error) {
	return true, true, nil
}

func TestNoop_RepeatsTheFirstGoodAnswerForEachRequest(t *testing.T) {
	engine := &counting{calls: make(map[string]int), status: 503}
	b, err := withNoop(func(context.Context, *logical.BackendConfig) (logical.Backend, error) { return engine, nil })(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(path, model string) any {
		t.Helper()
		resp, err := b.HandleRequest(t.Context(), &logical.Request{Path: path, Data: map[string]any{"model": model}})
		if err != nil {
			t.Fatal(err)
		}
		return resp.Data["model"]
	}
	ask("noop/x", "a") // fails, and is asked again
	engine.status = 200
	for range 3 {
		if ask("noop/x", "a") != "a" || ask("noop/x", "b") != "b" {
			t.Error("a request got another one's answer")
		}
	}
	if engine.calls["proxy/x"] != 3 || engine.calls["noop/x"] != 0 {
		t.Errorf("the engine was asked %v", engine.calls)
	}
	ask("proxy/x", "a")
	if engine.calls["proxy/x"] != 4 {
		t.Error("the engine's own path isn't the engine's any more")
	}
	if checked, _, _ := b.HandleExistenceCheck(t.Context(), &logical.Request{Path: "noop/x"}); checked {
		t.Error("noop/ has an existence check, proxy/ has none")
	}
	if checked, _, _ := b.HandleExistenceCheck(t.Context(), &logical.Request{Path: "keys/x"}); !checked {
		t.Error("the engine's existence checks are gone")
	}
}

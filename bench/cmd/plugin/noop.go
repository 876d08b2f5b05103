// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/hashicorp/vault/sdk/logical"
)

// The path that is answered at once, and the one whose answers it repeats.
const noopPrefix, proxyPrefix = "noop/", "proxy/"

// withNoop adds the path to every backend that factory makes.
func withNoop(factory logical.Factory) logical.Factory {
	return func(ctx context.Context, conf *logical.BackendConfig) (logical.Backend, error) {
		b, err := factory(ctx, conf)
		if err != nil {
			return nil, err
		}
		return &noop{Backend: b, answers: make(map[string]*logical.Response)}, nil
	}
}

// noop is the engine with one path more. noop/<rest> gives the answer that
// proxy/<rest> gave to the first such request, so that both carry the same bytes
// and headers.
type noop struct {
	logical.Backend

	mu      sync.RWMutex
	answers map[string]*logical.Response // by path, model and whether it is streamed
}

// HandleRequest implements logical.Backend.
func (n *noop) HandleRequest(ctx context.Context, req *logical.Request) (*logical.Response, error) {
	rest, ok := strings.CutPrefix(req.Path, noopPrefix)
	if !ok {
		return n.Backend.HandleRequest(ctx, req)
	}
	key := fmt.Sprint(rest, req.Data["model"], req.Data["stream"])
	n.mu.RLock()
	answer := n.answers[key]
	n.mu.RUnlock()
	if answer != nil {
		return answer, nil
	}
	req.Path = proxyPrefix + rest
	answer, err := n.Backend.HandleRequest(ctx, req)
	if err == nil && answer != nil && answer.Data[logical.HTTPStatusCode] == 200 {
		n.mu.Lock()
		n.answers[key] = answer
		n.mu.Unlock()
	}
	return answer, err
}

// HandleExistenceCheck implements logical.Backend: like the proxy path, this one
// has no check.
func (n *noop) HandleExistenceCheck(ctx context.Context, req *logical.Request) (bool, bool, error) {
	if strings.HasPrefix(req.Path, noopPrefix) {
		return false, false, nil
	}
	return n.Backend.HandleExistenceCheck(ctx, req)
}

// SPDX-License-Identifier: MPL-2.0

// Command notes is a secrets engine that keeps one note. The tests of
// vaulttest load it to see how plugins are started, reloaded and ended; it is
// small, and independent of the project's own plugin.
package main

import (
	"context"
	"os"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/plugin"
)

func main() {
	if err := plugin.Serve(&plugin.ServeOpts{BackendFactoryFunc: factory}); err != nil {
		os.Exit(1)
	}
}

func factory(ctx context.Context, conf *logical.BackendConfig) (logical.Backend, error) {
	b := &framework.Backend{BackendType: logical.TypeLogical}
	b.Paths = []*framework.Path{{
		Pattern: "note",
		Fields:  map[string]*framework.FieldSchema{"text": {Type: framework.TypeString}},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation:   &framework.PathOperation{Callback: readNote},
			logical.UpdateOperation: &framework.PathOperation{Callback: writeNote},
		},
	}, {
		Pattern: "environment/" + framework.GenericNameRegex("name"),
		Fields:  map[string]*framework.FieldSchema{"name": {Type: framework.TypeString}},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{Callback: readEnvironment},
		},
	}}
	if err := b.Setup(ctx, conf); err != nil {
		return nil, err
	}
	b.Logger().Info("the notes plugin is ready")
	return b, nil
}

func readNote(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	entry, err := req.Storage.Get(ctx, "note")
	if err != nil || entry == nil {
		return nil, err
	}
	return &logical.Response{Data: map[string]any{"text": string(entry.Value)}}, nil
}

func writeNote(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	return nil, req.Storage.Put(ctx, &logical.StorageEntry{Key: "note", Value: []byte(d.Get("text").(string))})
}

func readEnvironment(_ context.Context, _ *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	return &logical.Response{Data: map[string]any{"value": os.Getenv(d.Get("name").(string))}}, nil
}

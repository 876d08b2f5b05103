// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

// operationPrefix begins the operation ids of the OpenAPI document.
const operationPrefix = "portkey"

// errNoEntry says that what the path names doesn't exist.
var errNoEntry = errors.New("there is no such entry; create it first")

// respond decides whose fault an error is: storage's is the server's (500),
// that nothing is there is 404, anything else is the caller's (400).
func respond(err error) (*logical.Response, error) {
	var storage *storageError
	switch {
	case err == nil:
		return nil, nil
	case errors.As(err, &storage):
		return nil, err
	case errors.Is(err, errNoEntry):
		return nil, logical.CodedError(http.StatusNotFound, err.Error())
	}
	return logical.ErrorResponse(err.Error()), nil
}

// ok and noContent keep the schemas of the operations short.
func ok(description string, fields map[string]*framework.FieldSchema) map[int][]framework.Response {
	return map[int][]framework.Response{http.StatusOK: {{Description: description, Fields: fields}}}
}

func noContent() map[int][]framework.Response {
	return map[int][]framework.Response{http.StatusNoContent: {{Description: "Done."}}}
}

// listDetail is how many listed entries are shown in detail at most: each is
// read from storage.
const listDetail = 1000

// describe returns what a detailed list shows of the entry called name, nil
// when it has gone meanwhile.
type describe func(ctx context.Context, storage logical.Storage, name string) (map[string]any, error)

// listPath is the path that lists the entries under prefix.
func (b *backend) listPath(prefix, what string, attrs *framework.DisplayAttributes, detail describe) *framework.Path {
	list := func(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
		names, err := req.Storage.List(ctx, prefix)
		if err != nil {
			return nil, fmt.Errorf("listing %s: %w", prefix, err)
		}
		return b.listPage(ctx, req.Storage, page(names, d.Get("after").(string), d.Get("limit").(int)), what, detail)
	}
	return &framework.Path{
		Pattern: prefix + "?$",
		Fields: map[string]*framework.FieldSchema{
			"after": {Type: framework.TypeString, Query: true, Description: "List only the names behind this one."},
			"limit": {Type: framework.TypeInt, Query: true, Description: "List at most so many names; 0 lists all."},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ListOperation: &framework.PathOperation{
				Callback: list, Summary: "List the " + what + ".",
				Responses: ok("The names, with details.", map[string]*framework.FieldSchema{
					"keys":     {Type: framework.TypeStringSlice, Description: "The names, in order."},
					"key_info": {Type: framework.TypeMap, Description: "Details by name."},
				}),
			},
		},
		DisplayAttrs: &framework.DisplayAttributes{
			OperationPrefix: operationPrefix, OperationSuffix: attrs.OperationSuffix + "s", Navigation: true, ItemType: attrs.ItemType,
		},
		HelpSynopsis:    "List the " + what + ".",
		HelpDescription: fmt.Sprintf("`vault list -detailed` shows details of up to %d of them; page with after and limit.", listDetail),
	}
}

// page cuts the sorted names to at most limit (0 for all) behind after.
func page(names []string, after string, limit int) []string {
	for len(names) > 0 && names[0] <= after {
		names = names[1:]
	}
	if limit > 0 && len(names) > limit {
		names = names[:limit]
	}
	return names
}

func (b *backend) listPage(ctx context.Context, storage logical.Storage, names []string, what string, detail describe) (*logical.Response, error) {
	info := map[string]any{}
	var warnings []string
	for i, name := range names {
		if i == listDetail {
			warnings = append(warnings, fmt.Sprintf("details of the first %d %s are shown; page with after=%s and limit=%d for more", listDetail, what, names[i-1], listDetail))
			break
		}
		data, err := detail(ctx, storage, name)
		if err != nil {
			warnings = append(warnings, err.Error())
			continue
		}
		if data != nil {
			info[name] = data
		}
	}
	resp := logical.ListResponseWithInfo(names, info)
	for _, w := range warnings {
		resp.AddWarning(w)
	}
	return resp, nil
}

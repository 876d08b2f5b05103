// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"context"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-portkey/internal/provider"
)

func (b *backend) pathProviders() []*framework.Path {
	attrs := &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "provider", ItemType: "Provider"}
	return []*framework.Path{
		{
			Pattern: "providers/?$",
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.ListOperation: &framework.PathOperation{
					Callback: b.listProviders, Summary: "List the providers in the catalogue.",
					Responses: ok("The ids, with details.", map[string]*framework.FieldSchema{
						"keys":     {Type: framework.TypeStringSlice, Description: "The ids, in order."},
						"key_info": {Type: framework.TypeMap, Description: "Name and base URL by id."},
					}),
				},
			},
			DisplayAttrs:    &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "providers", Navigation: true},
			HelpSynopsis:    "List the providers in the catalogue.",
			HelpDescription: "Any other server that speaks OpenAI's API is provider=openai-compatible with a base_url.",
		},
		{
			Pattern: "providers/" + framework.GenericNameRegex("id"),
			Fields: map[string]*framework.FieldSchema{
				"id": {Type: framework.TypeString, Description: "The provider's id, as keys/ takes it."},
			},
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.ReadOperation: &framework.PathOperation{
					Callback: b.readProvider, Summary: "Read what the catalogue says of a provider.",
					Responses: ok("The provider.", map[string]*framework.FieldSchema{
						"id":            {Type: framework.TypeString, Required: true, Description: "The id."},
						"name":          {Type: framework.TypeString, Required: true, Description: "The provider's name."},
						"base_url":      {Type: framework.TypeString, Required: true, Description: "Its base URL; empty where every key must give one."},
						"base_url_help": {Type: framework.TypeString, Required: true, Description: "What a key gives as base_url where that is not like the provider's own; else empty."},
						"api_key":       {Type: framework.TypeString, Required: true, Description: "Whether a key has a secret: required, optional or none."},
						"auth":          {Type: framework.TypeString, Required: true, Description: "How the secret is sent."},
						"fields":        {Type: framework.TypeMap, Required: true, Description: "Further fields of its keys."},
						"routes":        {Type: framework.TypeMap, Required: true, Description: "Provider path prefixes, and where they lead below the base URL."},
						"formats":       {Type: framework.TypeStringSlice, Required: true, Description: "The wire formats that it speaks."},
						"docs_url":      {Type: framework.TypeString, Required: true, Description: "The provider's documentation."},
						"note":          {Type: framework.TypeString, Required: true, Description: "What is worth knowing."},
					}),
				},
			},
			DisplayAttrs:    attrs,
			HelpSynopsis:    "What the catalogue says of a provider.",
			HelpDescription: "The catalogue is built in. Its facts come from the providers' documentation.",
		},
	}
}

func (b *backend) listProviders(context.Context, *logical.Request, *framework.FieldData) (*logical.Response, error) {
	ids := b.catalogue.IDs()
	info := make(map[string]any, len(ids))
	for _, id := range ids {
		p, _ := b.catalogue.Get(id)
		info[id] = map[string]any{"name": p.Name, "base_url": p.BaseURL, "api_key": string(p.Secret)}
	}
	return logical.ListResponseWithInfo(ids, info), nil
}

func (b *backend) readProvider(_ context.Context, _ *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	p, ok := b.catalogue.Get(d.Get("id").(string))
	if !ok {
		return logical.ErrorResponse(b.unknownProvider(d.Get("id").(string)).Error()), nil
	}
	return &logical.Response{Data: providerData(p)}, nil
}

func providerData(p *provider.Provider) map[string]any {
	fields := make(map[string]any, len(p.Fields))
	for _, f := range p.Fields {
		fields[f.Name] = f.Description
	}
	routes := make(map[string]any, len(p.Routes))
	for _, r := range p.Routes {
		routes[r.Prefix] = r.To
	}
	auth := string(p.Auth.Scheme)
	if p.Auth.Header != "" {
		auth += " " + p.Auth.Header
	}
	return map[string]any{
		"id": p.ID, "name": p.Name, "base_url": p.BaseURL, "base_url_help": p.BaseURLHelp, "api_key": string(p.Secret), "auth": auth,
		"fields": fields, "routes": routes, "formats": p.Formats, "docs_url": p.DocsURL, "note": p.Note,
	}
}

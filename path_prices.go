// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-portkey/internal/price"
	"vault-plugin-secrets-portkey/internal/sandbox"
)

// pricePrefix holds the overrides, as prices/<provider>/<model, URL-escaped>.
const pricePrefix = "prices/"

// prices keeps the book that requests are priced by: the built-in table with
// the mount's overrides. It is safe for concurrent use.
type prices struct {
	table *price.Table
	extra []price.ProviderPrices

	mu      sync.Mutex
	book    *price.Book // nil when storage has changed since
	changes int         // counts changes; a book read before the last one is not kept
}

func newPrices() (*prices, error) {
	table, err := price.Load()
	if err != nil {
		return nil, err
	}
	return &prices{table: table, extra: []price.ProviderPrices{sandboxPrices()}}, nil
}

// sandboxPrices are the made-up prices of the built-in test provider. A model's
// modifiers ("sandbox-small:tokens=5") don't change its price.
func sandboxPrices() price.ProviderPrices {
	p := price.ProviderPrices{Provider: "sandbox", Source: "sandbox"}
	const perMillion = 1_000_000
	for _, m := range sandbox.Models() {
		for _, pattern := range []string{m.ID, m.ID + ":*"} {
			p.Entries = append(p.Entries, price.Override{
				Model: pattern, ContextWindow: m.ContextWindow,
				Prices: map[price.Unit]price.NanoUSD{
					price.Input:     price.NanoUSD(m.InputNanoUSD * perMillion),
					price.CacheRead: price.NanoUSD(m.CachedInputNanoUSD * perMillion),
					price.Output:    price.NanoUSD(m.OutputNanoUSD * perMillion),
				},
			})
		}
	}
	return p
}

// current returns the book, made anew where storage has changed.
func (p *prices) current(ctx context.Context, storage logical.Storage) (*price.Book, error) {
	p.mu.Lock()
	book, before := p.book, p.changes
	p.mu.Unlock()
	if book != nil {
		return book, nil
	}
	// Without the lock: completions must not wait for each other's storage.
	overrides, err := readOverrides(ctx, storage)
	if err != nil {
		return nil, err
	}
	book = price.NewBook(p.table, p.extra, overrides)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.changes == before {
		p.book = book
	}
	return book, nil
}

// change stores or deletes an override, and makes the next request ask storage,
// whether it succeeded or not: storage may have lost its answer only.
func (p *prices) change(write func() error) error {
	defer p.forget()
	return write()
}

func (p *prices) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.book, p.changes = nil, p.changes+1
}

func (p *prices) invalidate(key string) {
	if strings.HasPrefix(key, pricePrefix) {
		p.forget()
	}
}

func overrideKey(provider, model string) string {
	return pricePrefix + provider + "/" + url.PathEscape(model)
}

func readOverrides(ctx context.Context, storage logical.Storage) ([]price.Override, error) {
	keys, err := logical.CollectKeysWithPrefix(ctx, storage, pricePrefix)
	if err != nil {
		return nil, storageErrorf("listing price overrides: %w", err)
	}
	overrides := make([]price.Override, 0, len(keys))
	for _, key := range keys {
		o, err := readOverride(ctx, storage, key)
		if err != nil {
			return nil, err
		}
		if o != nil {
			overrides = append(overrides, *o)
		}
	}
	return overrides, nil
}

func readOverride(ctx context.Context, storage logical.Storage, key string) (*price.Override, error) {
	entry, err := storage.Get(ctx, key)
	if err != nil {
		return nil, storageErrorf("reading %s: %w", key, err)
	}
	if entry == nil {
		return nil, nil
	}
	o := &price.Override{}
	if err := json.Unmarshal(entry.Value, o); err != nil {
		return nil, storageErrorf("the stored price override %s is damaged: %w", key, err)
	}
	return o, nil
}

// priceUnits are the units in the order in which people read them.
func priceUnits() []price.Unit {
	units := make([]price.Unit, 0, price.NumUnits-1)
	for u := range price.NumUnits {
		if u != price.Requests {
			units = append(units, u)
		}
	}
	return units
}

func (b *backend) pathPrices() []*framework.Path {
	fields := map[string]*framework.FieldSchema{
		"provider":       {Type: framework.TypeString, Description: "The provider's id, or * for every provider."},
		"model":          {Type: framework.TypeString, Description: "The model's name; in an override * stands for any text."},
		"per_request":    {Type: framework.TypeString, Description: "USD per request, such as 0.005."},
		"context_window": {Type: framework.TypeInt64, Description: "The most tokens that the model takes; 0 leaves what the built-in table says."},
		"note":           {Type: framework.TypeString, Description: "Free text for people."},
	}
	shown := map[string]*framework.FieldSchema{
		"provider":       {Type: framework.TypeString, Required: true, Description: "The provider asked for."},
		"model":          {Type: framework.TypeString, Required: true, Description: "The model asked for."},
		"priced":         {Type: framework.TypeBool, Required: true, Description: "Whether its input and output have a price."},
		"matched":        {Type: framework.TypeString, Required: true, Description: "The entry that was found; empty if none was."},
		"source":         {Type: framework.TypeString, Required: true, Description: "override, builtin or sandbox."},
		"rule":           {Type: framework.TypeString, Required: true, Description: "Why that entry."},
		"usd_per_mtok":   {Type: framework.TypeMap, Required: true, Description: "USD per million tokens, by kind. A kind that isn't there costs what its whole costs."},
		"tiers":          {Type: framework.TypeMap, Required: true, Description: "Dearer rates for requests whose input exceeds so many tokens, by kind."},
		"per_request":    {Type: framework.TypeString, Required: true, Description: "USD per request; empty for none."},
		"context_window": {Type: framework.TypeInt64, Required: true, Description: "The most tokens that the model takes; 0 if unknown."},
		"unmetered":      {Type: framework.TypeStringSlice, Required: true, Description: "What the provider charges for beside that; no cost here includes it."},
		"since":          {Type: framework.TypeString, Required: true, Description: "Since when these prices hold; empty if always."},
		"table":          {Type: framework.TypeString, Required: true, Description: "Source, version and date of the built-in table."},
		"note":           {Type: framework.TypeString, Required: true, Description: "The override's note."},
	}
	for _, u := range priceUnits() {
		fields[u.String()] = &framework.FieldSchema{Type: framework.TypeString, Description: "USD per million tokens of this kind, such as 2.50. A price of zero must be said."}
	}
	attrs := &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "price", ItemType: "Price"}
	list := func(pattern, what, suffix string, callback framework.OperationFunc) *framework.Path {
		return &framework.Path{
			Pattern: pattern,
			Fields:  map[string]*framework.FieldSchema{"provider": fields["provider"]},
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.ListOperation: &framework.PathOperation{
					Callback: callback, Summary: "List the " + what + ".",
					Responses: ok("The names.", map[string]*framework.FieldSchema{"keys": {Type: framework.TypeStringSlice, Description: "The names, in order."}}),
				},
			},
			DisplayAttrs:    &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: suffix},
			HelpSynopsis:    "List the " + what + ".",
			HelpDescription: "The built-in table isn't listed; read prices/<provider>/<model> to see what it says of a model.",
		}
	}
	return []*framework.Path{
		list(pricePrefix+"?$", "providers with price overrides", "price-overrides", b.listPriceProviders),
		list(pricePrefix+`(?P<provider>[^/]+)/?$`, "price overrides of a provider", "price-overrides-of-provider", b.listPriceModels),
		{
			Pattern: pricePrefix + `(?P<provider>[^/]+)/(?P<model>.+)`,
			Fields:  fields,
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.ReadOperation:   &framework.PathOperation{Callback: b.readPrice, Summary: "See what a model costs, and why.", Responses: ok("The price in force.", shown)},
				logical.UpdateOperation: &framework.PathOperation{Callback: b.writePrice, Summary: "Set a price; what isn't named is left out.", Responses: ok("The price as it is now.", shown)},
				logical.DeleteOperation: &framework.PathOperation{Callback: b.deletePrice, Summary: "Delete an override.", Responses: noContent()},
			},
			DisplayAttrs:    attrs,
			HelpSynopsis:    "What a model costs.",
			HelpDescription: pricesHelp,
		},
	}
}

func (b *backend) listPriceProviders(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	names, err := req.Storage.List(ctx, pricePrefix)
	if err != nil {
		return nil, storageErrorf("listing price overrides: %w", err)
	}
	return logical.ListResponse(names), nil
}

func (b *backend) listPriceModels(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	names, err := req.Storage.List(ctx, pricePrefix+d.Get("provider").(string)+"/")
	if err != nil {
		return nil, storageErrorf("listing price overrides: %w", err)
	}
	for i := range names {
		if name, err := url.PathUnescape(names[i]); err == nil {
			names[i] = name
		}
	}
	return logical.ListResponse(names), nil
}

// priceTarget is the provider and model that the path names.
func (b *backend) priceTarget(d *framework.FieldData) (provider, model string, err error) {
	provider, model = d.Get("provider").(string), d.Get("model").(string)
	if _, known := b.catalogue.Get(provider); !known && provider != "*" {
		return "", "", b.unknownProvider(provider)
	}
	if strings.Contains(model, "..") {
		return "", "", fmt.Errorf("model: %.80q can't be stored, because it has two dots in a row; write * for them", model)
	}
	return provider, model, nil
}

func (b *backend) readPrice(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	provider, model, err := b.priceTarget(d)
	if err != nil {
		return respond(err)
	}
	book, err := b.prices.current(ctx, req.Storage)
	if err != nil {
		return respond(err)
	}
	override, err := readOverride(ctx, req.Storage, overrideKey(provider, model))
	if err != nil {
		return respond(err)
	}
	match, priced := book.Find(provider, model, b.now())
	data := priceData(match, priced)
	data["provider"], data["model"] = provider, model
	data["table"] = fmt.Sprintf("%s %s, %s", b.prices.table.Source(), b.prices.table.Version(), b.prices.table.Date().Format(time.DateOnly))
	if override != nil {
		data["note"] = override.Note
	}
	return &logical.Response{Data: data}, nil
}

// priceData is what people want to see of a match, nil for none.
func priceData(m *price.Match, priced bool) map[string]any {
	rates, tiers := map[string]any{}, map[string]any{}
	data := map[string]any{
		"priced": priced, "matched": "", "source": "", "rule": "no entry matches; set a price with `vault write <mount>/prices/<provider>/<model> input=… output=…`",
		"usd_per_mtok": rates, "tiers": tiers, "per_request": "", "context_window": int64(0), "unmetered": []string{}, "since": "", "note": "",
	}
	if m == nil {
		return data
	}
	data["matched"], data["source"], data["rule"] = m.Provider+"/"+m.Model, m.Source, m.Rule
	data["context_window"], data["unmetered"] = m.ContextWindow, orEmpty(m.Unmetered)
	if !m.Since.IsZero() {
		data["since"] = m.Since.Format(time.RFC3339)
	}
	for _, u := range priceUnits() {
		rate, ok := m.Rate(u)
		if !ok {
			continue
		}
		rates[u.String()] = rate.Base.String()
		steps := map[string]any{}
		for _, tier := range rate.Tiers {
			steps[fmt.Sprintf("above %d input tokens", tier.Above)] = tier.Price.String()
		}
		if len(steps) > 0 {
			tiers[u.String()] = steps
		}
	}
	if rate, ok := m.Rate(price.Requests); ok {
		data["per_request"] = rate.Base.String()
	}
	return data
}

func (b *backend) writePrice(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	provider, model, err := b.priceTarget(d)
	if err == nil {
		err = unknownFields(req, d)
	}
	if err != nil {
		return respond(err)
	}
	override, err := overrideOf(provider, model, d)
	if err != nil {
		return respond(err)
	}
	value, err := json.Marshal(override)
	if err != nil {
		return nil, fmt.Errorf("encoding the price: %w", err)
	}
	err = b.prices.change(func() error {
		return req.Storage.Put(ctx, &logical.StorageEntry{Key: overrideKey(provider, model), Value: value})
	})
	if err != nil {
		return nil, storageErrorf("storing the price: %w", err)
	}
	return b.readPrice(ctx, req, d)
}

// overrideOf makes an override of the fields.
func overrideOf(provider, model string, d *framework.FieldData) (*price.Override, error) {
	o := &price.Override{
		Provider: provider, Model: model, Prices: map[price.Unit]price.NanoUSD{},
		ContextWindow: d.Get("context_window").(int64), Note: d.Get("note").(string),
	}
	amount := func(field string) (*price.NanoUSD, error) {
		var text string
		if setString(d, field, &text); text == "" {
			return nil, nil
		}
		usd, err := price.ParseUSD(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", field, err)
		}
		return &usd, nil
	}
	for _, u := range priceUnits() {
		usd, err := amount(u.String())
		if err != nil {
			return nil, err
		}
		if usd != nil {
			o.Prices[u] = *usd
		}
	}
	var err error
	if o.PerRequest, err = amount("per_request"); err != nil {
		return nil, err
	}
	return o, o.Validate()
}

func (b *backend) deletePrice(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	key := overrideKey(d.Get("provider").(string), d.Get("model").(string))
	err := b.prices.change(func() error { return req.Storage.Delete(ctx, key) })
	if err != nil {
		return nil, storageErrorf("deleting the price: %w", err)
	}
	return nil, nil
}

const pricesHelp = `
A read answers with the price in force, the entry that matched and why: an
override of the mount, or else the built-in table. A write sets an override in
USD per million tokens; it replaces the one that was there. A request under way
is charged at the price at its beginning.

    vault read  <mount>/prices/openai/gpt-4o-mini
    vault write <mount>/prices/openai-compatible/llama-3* input=0 output=0
    vault write <mount>/prices/azure-openai/my-deployment input=2.50 cache_read=1.25 output=10
`

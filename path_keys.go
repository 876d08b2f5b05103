// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/helper/locksutil"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-portkey/internal/provider"
)

// keyPrefix holds the provider keys; it is seal-wrapped, and the only place
// where a secret is stored.
const keyPrefix = "keys/"

// providerKey is the real API key of a provider, with where it may be sent.
// A stored one is never changed in place.
type providerKey struct {
	Provider  string            `json:"provider"`
	BaseURL   string            `json:"base_url,omitempty"`
	APIKey    string            `json:"api_key,omitempty"`
	Fields    map[string]string `json:"fields,omitempty"` // those that the catalogue names
	Headers   map[string]string `json:"headers,omitempty"`
	Note      string            `json:"note,omitempty"`
	Metadata  map[string]string `json:"metadata,omitempty"`
	Version   int               `json:"version"`
	CreatedAt time.Time         `json:"created_at"`
	RotatedAt time.Time         `json:"rotated_at"`

	target *provider.Target // made by prepareKey
}

// prepareKey checks a key against the catalogue and resolves its target.
func (b *backend) prepareKey(k *providerKey) error {
	if k.APIKey != "" && strings.Contains(k.Provider, k.APIKey) {
		return errors.New("provider holds the api_key; it is the provider's id, such as openai")
	}
	p, ok := b.catalogue.Get(k.Provider)
	if !ok {
		return b.unknownProvider(k.Provider)
	}
	target, err := p.Resolve(provider.Config{BaseURL: k.BaseURL, Secret: k.APIKey, Fields: k.Fields, Headers: k.Headers})
	if err != nil {
		return err
	}
	k.target = target
	return nil
}

func (b *backend) unknownProvider(id string) error {
	ids := b.catalogue.IDs()
	if id == "" {
		return fmt.Errorf("provider is missing; it is one of %s", strings.Join(ids, ", "))
	}
	hint := ""
	if near := nearest(id, ids); near != "" {
		hint = fmt.Sprintf(" (did you mean %q?)", near)
	}
	return fmt.Errorf("unknown provider %q%s; known are %s; for any other server that speaks OpenAI's API use provider=openai-compatible base_url=…",
		id, hint, strings.Join(ids, ", "))
}

// destination is where the secret goes. Whoever changes it must bring the
// secret again, lest a stored one be led to a host of the changer's choice.
func (k *providerKey) destination() string { return k.Provider + " " + k.target.Base().String() }

// showsSecret says whether the API key stands in what reads show, beyond what
// the catalogue checks.
func (k *providerKey) showsSecret() bool {
	if k.APIKey == "" {
		return false
	}
	if strings.Contains(k.Note, k.APIKey) {
		return true
	}
	for name, value := range k.Metadata {
		if strings.Contains(name, k.APIKey) || strings.Contains(value, k.APIKey) {
			return true
		}
	}
	return false
}

// fingerprint lets people tell secrets apart without seeing them.
func (k *providerKey) fingerprint() string {
	if k.APIKey == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(k.APIKey))
	return hex.EncodeToString(sum[:4])
}

// state is what operators can set, but for the secret.
func (k *providerKey) state() map[string]any {
	s := map[string]any{
		"provider": k.Provider, "base_url": k.BaseURL, "note": k.Note,
		"headers": orEmptyMap(k.Headers), "metadata": orEmptyMap(k.Metadata),
	}
	for name, v := range k.Fields {
		s[name] = v
	}
	return s
}

func (k *providerKey) responseData() map[string]any {
	data := k.state()
	data["base_url"] = k.target.Base().String()
	data["fingerprint"] = k.fingerprint()
	data["version"] = k.Version
	data["created_at"] = k.CreatedAt.Format(time.RFC3339)
	data["rotated_at"] = k.RotatedAt.Format(time.RFC3339)
	return data
}

// orEmptyMap makes an absent map an empty one, for JSON.
func orEmptyMap(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

// keyFields are what operators can set; those of single providers come from
// the catalogue.
func (b *backend) keyFields() map[string]*framework.FieldSchema {
	fields := map[string]*framework.FieldSchema{
		"name":     {Type: framework.TypeString, Description: "Name of the provider key."},
		"provider": {Type: framework.TypeString, Description: "The provider's id; `vault list <mount>/providers` shows them."},
		"api_key": {
			Type: framework.TypeString, Description: "The provider's API key. It is stored and never shown again.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "API key", Sensitive: true},
		},
		"base_url": {
			Type: framework.TypeString,
			Description: "Where the provider's API is, such as https://llm.example.com/v1; `vault read <mount>/providers/<id>` says what to give. " +
				"Needed for openai-compatible, ollama and vllm, optional elsewhere. Must be https unless the host is loopback or config allows it.",
		},
		"headers": {
			Type:        framework.TypeKVPairs,
			Description: "Extra headers for the provider, as name=value. Not for secrets: they are shown.",
		},
		"note":     {Type: framework.TypeString, Description: "Free text for people."},
		"metadata": {Type: framework.TypeKVPairs, Description: "Free name=value pairs."},
	}
	for _, id := range b.catalogue.IDs() {
		p, _ := b.catalogue.Get(id)
		for _, f := range p.Fields {
			if known := fields[f.Name]; known != nil {
				known.Description += fmt.Sprintf(" %s: %s", id, f.Description)
				continue
			}
			fields[f.Name] = &framework.FieldSchema{Type: framework.TypeString, Description: fmt.Sprintf("%s: %s", id, f.Description)}
		}
	}
	return fields
}

// catalogueFields are the names of the fields that only some providers have.
func (b *backend) catalogueFields() []string {
	names := map[string]bool{}
	for _, id := range b.catalogue.IDs() {
		p, _ := b.catalogue.Get(id)
		for _, f := range p.Fields {
			names[f.Name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

func (b *backend) pathKeys() []*framework.Path {
	fields := b.keyFields()
	shown := map[string]*framework.FieldSchema{
		"fingerprint": {Type: framework.TypeString, Required: true, Description: "First 8 hex digits of the API key's SHA-256; empty if there is none."},
		"version":     {Type: framework.TypeInt, Required: true, Description: "Counts the API keys that this entry has had."},
		"created_at":  {Type: framework.TypeTime, Required: true, Description: "When the entry was made."},
		"rotated_at":  {Type: framework.TypeTime, Required: true, Description: "When the present API key came."},
	}
	for name, field := range fields {
		if name != "name" && name != "api_key" {
			shown[name] = field
		}
	}
	written := map[int][]framework.Response{
		http.StatusOK:        {{Description: "Stored, with what it is now.", Fields: shown}},
		http.StatusNoContent: {{Description: "Stored."}},
	}
	attrs := &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "provider-key", ItemType: "Provider key"}
	return []*framework.Path{
		b.listPath(keyPrefix, "provider keys", attrs, b.listKeys),
		{
			Pattern:        keyPrefix + framework.GenericNameRegex("name"),
			Fields:         fields,
			ExistenceCheck: b.keyExists,
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.CreateOperation: &framework.PathOperation{Callback: b.writeKey, Summary: "Store a provider key.", Responses: written},
				logical.UpdateOperation: &framework.PathOperation{Callback: b.writeKey, Summary: "Change a provider key; fields not named stay.", Responses: written},
				logical.PatchOperation:  &framework.PathOperation{Callback: b.patchKey, Summary: "Merge into a provider key; null removes.", Responses: written},
				logical.ReadOperation:   &framework.PathOperation{Callback: b.readKey, Summary: "Read a provider key, without its secret.", Responses: ok("The provider key.", shown)},
				logical.DeleteOperation: &framework.PathOperation{Callback: b.deleteKey, Summary: "Delete a provider key that no virtual key uses.", Responses: noContent()},
			},
			DisplayAttrs:    attrs,
			HelpSynopsis:    "A provider's API key: stored, never shown again.",
			HelpDescription: keysHelp,
		},
		b.pathKeyRotate(shown, attrs),
		b.pathKeyVerify(attrs),
	}
}

func (b *backend) keyExists(ctx context.Context, req *logical.Request, d *framework.FieldData) (bool, error) {
	k, err := b.keys.get(ctx, req.Storage, d.Get("name").(string))
	return k != nil, err
}

func (b *backend) readKey(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	k, err := b.keys.get(ctx, req.Storage, d.Get("name").(string))
	if err != nil || k == nil {
		return nil, err
	}
	return &logical.Response{Data: k.responseData()}, nil
}

func (b *backend) listKeys(ctx context.Context, storage logical.Storage, name string) (map[string]any, error) {
	k, err := b.keys.get(ctx, storage, name)
	if err != nil || k == nil {
		return nil, err
	}
	data := k.responseData()
	delete(data, "headers")
	delete(data, "metadata")
	return data, nil
}

func (b *backend) writeKey(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	return b.changeKey(ctx, req, d, func(old *providerKey) (*providerKey, error) {
		k := &providerKey{}
		if old != nil {
			*k = *old
		}
		return k, b.applyKey(k, d)
	})
}

func (b *backend) patchKey(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	return b.changeKey(ctx, req, d, func(old *providerKey) (*providerKey, error) {
		if old == nil {
			return nil, errNoEntry
		}
		merged, err := mergePatch(old.state(), d)
		if err != nil {
			return nil, err
		}
		k := &providerKey{APIKey: old.APIKey, Version: old.Version, CreatedAt: old.CreatedAt, RotatedAt: old.RotatedAt}
		if secret, given := d.Raw["api_key"]; given && secret == nil {
			k.APIKey = ""
		}
		return k, b.applyKey(k, merged)
	})
}

// changeKey stores what change makes of the key of that name, nil for none.
// An error of change is the user's.
func (b *backend) changeKey(ctx context.Context, req *logical.Request, d *framework.FieldData, change func(*providerKey) (*providerKey, error)) (*logical.Response, error) {
	if err := unknownFields(req, d); err != nil {
		return logical.ErrorResponse(err.Error()), nil
	}
	if secret, given := req.Data["api_key"].(string); given && strings.TrimSpace(secret) == "" {
		return logical.ErrorResponse("api_key is empty: leave it out to keep what is there; PATCH with null removes it"), nil
	}
	name := d.Get("name").(string)
	lock := locksutil.LockForKey(b.keyLocks, name)
	lock.Lock()
	defer lock.Unlock()

	old, err := b.keys.get(ctx, req.Storage, name)
	if err != nil {
		return nil, err
	}
	k, err := change(old)
	if err != nil {
		return respond(err)
	}
	if err := checkText(name, k.Note, k.Metadata); err != nil {
		return respond(err)
	}
	resp := &logical.Response{}
	if err := b.succeedKey(ctx, req, k, old, d, resp); err != nil {
		return respond(err)
	}
	if err := b.keys.put(ctx, req.Storage, name, k); err != nil {
		return nil, err
	}
	if len(resp.Warnings) == 0 {
		return nil, nil
	}
	resp.Data = k.responseData()
	return resp, nil
}

// applyKey sets the fields that d gives.
func (b *backend) applyKey(k *providerKey, d *framework.FieldData) error {
	setString(d, "provider", &k.Provider)
	setString(d, "base_url", &k.BaseURL)
	setString(d, "api_key", &k.APIKey)
	setString(d, "note", &k.Note)
	setMap(d, "headers", &k.Headers)
	setMap(d, "metadata", &k.Metadata)
	k.Fields = maps.Clone(k.Fields)
	for _, name := range b.catalogueFields() {
		if _, given := d.GetOk(name); !given {
			continue
		}
		var v string
		if setString(d, name, &v); v == "" {
			delete(k.Fields, name)
			continue
		}
		if k.Fields == nil {
			k.Fields = map[string]string{}
		}
		k.Fields[name] = v
	}
	return b.prepareKey(k)
}

// succeedKey completes k as the successor of old (nil for none): it guards the
// destination and keeps count of secrets.
func (b *backend) succeedKey(ctx context.Context, req *logical.Request, k, old *providerKey, d *framework.FieldData, resp *logical.Response) error {
	settings, err := b.readSettings(ctx, req.Storage)
	if err != nil {
		return err
	}
	if err := settings.permits(k.target.Base()); err != nil {
		return err
	}
	brought := strings.TrimSpace(d.Get("api_key").(string)) != ""
	if old != nil && k.APIKey != "" && !brought && k.destination() != old.destination() {
		return fmt.Errorf("this changes where the API key is sent (from %s to %s); give api_key again", old.target.Base(), k.target.Base())
	}
	if k.showsSecret() {
		return errors.New("note or metadata holds the api_key, and would be shown by reads: remove it there")
	}
	now := b.now().UTC().Truncate(time.Second)
	if old == nil {
		k.CreatedAt = now
	}
	if old == nil || k.APIKey != old.APIKey {
		k.Version++
		k.RotatedAt = now
	}
	if raw, _ := d.Raw["api_key"].(string); raw != strings.TrimSpace(raw) {
		resp.AddWarning("api_key had white space around it, which was removed")
	}
	return nil
}

func (b *backend) deleteKey(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	lock := locksutil.LockForKey(b.keyLocks, name)
	lock.Lock()
	defer lock.Unlock()
	users, err := b.rolesOfKey(ctx, req.Storage, name)
	if err != nil {
		return nil, err
	}
	if len(users) > 0 {
		return logical.ErrorResponse("provider key %q is used by virtual keys (%s); delete them or give them another key first",
			name, abridged(users)), nil
	}
	return nil, b.keys.delete(ctx, req.Storage, name)
}

// abridged lists names, the first twenty of many.
func abridged(names []string) string {
	const most = 20
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

const keysHelp = `
The secret is write-only: a read shows its fingerprint, version and times. Many
virtual keys can use one provider key; rotating it changes nothing for them.

Whatever changes where the secret is sent (provider, base_url, region and the
like) must bring api_key again. A key that a virtual key uses can't be deleted.

    vault write <mount>/keys/openai provider=openai api_key=-   # reads stdin
    vault write <mount>/keys/local provider=ollama base_url=http://localhost:11434/v1
    vault write <mount>/keys/test provider=sandbox
`

// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-uuid"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/helper/locksutil"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-portkey/internal/prompt"
)

func (b *backend) pathPrompts() []*framework.Path {
	name := framework.GenericNameRegex("name")
	shown := promptAnswer()
	written := ok("What is stored now, and which version it is.", shown)
	attrs := &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "prompt-template", ItemType: "Prompt template"}
	called := &framework.FieldSchema{Type: framework.TypeString, Description: "Name of the prompt template."}
	paths := []*framework.Path{
		b.listPath(promptPrefix, "prompt templates", attrs, b.describePrompt),
		{
			Pattern:        promptPrefix + name,
			Fields:         promptFields(),
			ExistenceCheck: b.promptExists,
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.CreateOperation: &framework.PathOperation{Callback: b.writePrompt, Summary: "Make a prompt template, whose first version is published.", Responses: written},
				logical.UpdateOperation: &framework.PathOperation{Callback: b.writePrompt, Summary: "Make a new version; fields not named are those of the latest.", Responses: written},
				logical.PatchOperation:  &framework.PathOperation{Callback: b.patchPrompt, Summary: "Make a new version by merging into the latest; null removes.", Responses: written},
				logical.ReadOperation:   &framework.PathOperation{Callback: b.readPrompt, Summary: "Read the published version.", Responses: ok("The version.", shown)},
				logical.DeleteOperation: &framework.PathOperation{Callback: b.deletePrompt, Summary: "Delete a prompt template with all its versions.", Responses: noContent()},
			},
			DisplayAttrs:    attrs,
			HelpSynopsis:    "A prompt template: messages with variables, and the virtual key to run on.",
			HelpDescription: promptsHelp,
		},
		{
			Pattern: promptPrefix + name + `@(?P<version>\w+)`,
			Fields: map[string]*framework.FieldSchema{
				"name": called, "version": {Type: framework.TypeString, Description: "Number of the version, or latest."},
			},
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.ReadOperation: &framework.PathOperation{Callback: b.readPrompt, Summary: "Read a version.", Responses: ok("The version.", shown)},
			},
			DisplayAttrs:    &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "prompt-template-version"},
			HelpSynopsis:    "One version of a prompt template. It never changes.",
			HelpDescription: promptsHelp,
		},
		{
			Pattern: promptPrefix + name + "/versions/?$",
			Fields:  map[string]*framework.FieldSchema{"name": called},
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.ListOperation: &framework.PathOperation{
					Callback: b.listPromptVersions, Summary: "List the versions of a prompt template.",
					Responses: ok("The numbers, the first version first.", map[string]*framework.FieldSchema{
						"keys":     {Type: framework.TypeStringSlice, Description: "The numbers, in order."},
						"key_info": {Type: framework.TypeMap, Description: "By number: when it was made, and whether it is published."},
					}),
				},
			},
			DisplayAttrs:    &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "prompt-template-versions"},
			HelpSynopsis:    "The versions of a prompt template.",
			HelpDescription: promptsHelp,
		},
		{
			Pattern: promptPrefix + name + "/publish",
			Fields: map[string]*framework.FieldSchema{
				"name": called, "version": {Type: framework.TypeString, Required: true, Description: "Number of the version that callers get who name none, or latest."},
			},
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.UpdateOperation: &framework.PathOperation{
					Callback: b.publishPrompt, Summary: "Publish a version.",
					Responses: ok("Which version is published.", map[string]*framework.FieldSchema{
						"published_version": {Type: framework.TypeInt, Required: true, Description: "The version that callers get."},
						"previous_version":  {Type: framework.TypeInt, Required: true, Description: "The one that they got before."},
						"latest_version":    shown["latest_version"],
					}),
				},
			},
			DisplayAttrs:    &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationVerb: "publish", OperationSuffix: "prompt-template"},
			HelpSynopsis:    "Publish a version of a prompt template.",
			HelpDescription: promptsHelp,
		},
	}
	return append(paths, b.pathPromptsRun()...)
}

// promptAnswer are the fields of a version as it is shown.
func promptAnswer() map[string]*framework.FieldSchema {
	shown := templateFields()
	maps.Copy(shown, map[string]*framework.FieldSchema{
		"name":              {Type: framework.TypeString, Required: true, Description: "Name of the prompt template."},
		"id":                {Type: framework.TypeString, Required: true, Description: "Tells this template from an earlier one of the same name."},
		"version":           {Type: framework.TypeInt, Required: true, Description: "Number of the version shown."},
		"published_version": {Type: framework.TypeInt, Required: true, Description: "The version that callers get who name none."},
		"latest_version":    {Type: framework.TypeInt, Required: true, Description: "The version that was made last."},
		"uses":              {Type: framework.TypeStringSlice, Required: true, Description: "The variables that the texts use."},
		"created_at":        {Type: framework.TypeTime, Required: true, Description: "When the version was made."},
		"updated_at":        {Type: framework.TypeTime, Required: true, Description: "When the template was last changed, or a version published."},
	})
	return shown
}

// responseData is what people see of a version.
func (f *foundPrompt) responseData() map[string]any {
	data := templateData(&f.Template)
	maps.Copy(data, map[string]any{
		"name": f.Name, "id": f.ID, "version": f.number, "published_version": f.Published, "latest_version": f.latest(),
		"uses": orEmpty(f.compiled.Names()), "note": f.Note, "metadata": orEmptyMap(f.Metadata),
		"created_at": f.Made[f.number-1].Format(time.RFC3339), "updated_at": f.UpdatedAt.Format(time.RFC3339),
	})
	return data
}

func (b *backend) promptExists(ctx context.Context, req *logical.Request, d *framework.FieldData) (bool, error) {
	h, err := b.prompts.heads.get(ctx, req.Storage, d.Get("name").(string))
	return h != nil, err
}

// readPrompt reads the published version, or that which the path names.
func (b *backend) readPrompt(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	found, err := b.prompts.find(ctx, req.Storage, strings.TrimPrefix(req.Path, promptPrefix))
	if err != nil || found == nil {
		return nil, err
	}
	return &logical.Response{Data: found.responseData()}, nil
}

func (b *backend) describePrompt(ctx context.Context, storage logical.Storage, name string) (map[string]any, error) {
	h, err := b.prompts.heads.get(ctx, storage, name)
	if err != nil || h == nil {
		return nil, err
	}
	// Not by the cache, from which a long list would push what is in use.
	v, err := b.prompts.versions.read(ctx, storage, versionName(name, h.Published))
	if err != nil || v == nil {
		return nil, err
	}
	return map[string]any{
		"published_version": h.Published, "latest_version": h.latest(), "virtual_key": v.VirtualKey, "model": v.Model,
		"note": h.Note, "updated_at": h.UpdatedAt.Format(time.RFC3339),
	}, nil
}

func (b *backend) listPromptVersions(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	h, err := b.prompts.heads.get(ctx, req.Storage, d.Get("name").(string))
	if err != nil {
		return nil, err
	}
	if h == nil {
		return logical.ListResponse(nil), nil
	}
	numbers, info := make([]string, h.latest()), make(map[string]any, h.latest())
	for i, made := range h.Made {
		numbers[i] = strconv.Itoa(i + 1)
		info[numbers[i]] = map[string]any{"created_at": made.Format(time.RFC3339), "published": i+1 == h.Published}
	}
	return logical.ListResponseWithInfo(numbers, info), nil
}

func (b *backend) writePrompt(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	return b.changePrompt(ctx, req, d, func(*foundPrompt) (*framework.FieldData, error) { return d, nil })
}

func (b *backend) patchPrompt(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	return b.changePrompt(ctx, req, d, func(old *foundPrompt) (*framework.FieldData, error) {
		if old == nil {
			return nil, errNoEntry
		}
		state := templateData(&old.Template)
		state["note"], state["metadata"] = old.Note, orEmptyMap(old.Metadata)
		return patchedFields(state, d)
	})
}

// changePrompt stores what fields, those of a write, make of the latest version, nil
// for none. An error of fields is the user's.
func (b *backend) changePrompt(ctx context.Context, req *logical.Request, d *framework.FieldData, fields func(latest *foundPrompt) (*framework.FieldData, error)) (*logical.Response, error) {
	if err := unknownFields(req, d); err != nil {
		return respond(err)
	}
	name := d.Get("name").(string)
	lock := locksutil.LockForKey(b.promptLocks, name)
	lock.Lock()
	defer lock.Unlock()

	old, err := b.prompts.find(ctx, req.Storage, name+"@"+promptLatest)
	if err != nil {
		return nil, err
	}
	if err := checkAndSet(d, old); err != nil {
		return respond(err)
	}
	changes, err := fields(old)
	if err != nil {
		return respond(err)
	}
	f, err := changed(old, name, changes)
	if err != nil {
		return respond(err)
	}
	now := b.now().UTC().Truncate(time.Second)
	f.UpdatedAt = now
	switch {
	case old == nil:
		f.Published = 1
		if f.ID, err = uuid.GenerateUUID(); err != nil {
			return nil, fmt.Errorf("making an id: %w", err)
		}
	case sameTemplate(&old.Template, &f.Template):
		return b.rewriteHead(ctx, req.Storage, f, old)
	case old.latest() >= maxPromptVersions:
		return respond(fmt.Errorf("prompt template %q has %d versions, the most that one can have; make another template, or delete this one and write it again", name, maxPromptVersions))
	}
	// Roles can be deleted while this is written, as afterwards: a call then says so.
	r, err := b.roles.get(ctx, req.Storage, f.VirtualKey)
	if err != nil {
		return nil, err
	}
	if r == nil {
		return respond(fmt.Errorf("there is no virtual key %q; `vault list <mount>/roles` shows those that there are", f.VirtualKey))
	}
	f.PromptID, f.Made, f.number = f.ID, append(slices.Clone(f.Made), now), f.number+1
	if err := b.prompts.add(ctx, req.Storage, f.promptHead, f.promptVersion); err != nil {
		return respond(err)
	}
	resp := &logical.Response{Data: f.responseData(), Warnings: f.compiled.Warnings()}
	if f.number != f.Published {
		resp.AddWarning(fmt.Sprintf("version %d is stored and not published: callers who name no version get version %d until you run `vault write <mount>/prompts/%s/publish version=%d`",
			f.number, f.Published, name, f.number))
	}
	return resp, nil
}

// checkAndSet refuses a write that was made with another version in mind.
func checkAndSet(d *framework.FieldData, old *foundPrompt) error {
	cas, given := d.GetOk("cas")
	latest := 0
	if old != nil {
		latest = old.number
	}
	if given && cas.(int) != latest {
		return fmt.Errorf("cas is %d and the latest version is %d: the template was changed meanwhile; read it again", cas, latest)
	}
	return nil
}

// changed is what fields make of old, the latest version, nil for none. Its version is
// compiled; its number is still that of old.
func changed(old *foundPrompt, name string, fields *framework.FieldData) (*foundPrompt, error) {
	f := &foundPrompt{promptHead: &promptHead{Name: name}, promptVersion: &promptVersion{}}
	if old != nil {
		*f.promptHead, f.Template, f.number = *old.promptHead, old.Template, old.number
	}
	setString(fields, "note", &f.Note)
	setMap(fields, "metadata", &f.Metadata)
	if err := checkText(name, f.Note, f.Metadata); err != nil {
		return nil, err
	}
	if err := applyTemplate(&f.Template, fields); err != nil {
		return nil, err
	}
	if f.VirtualKey == "" {
		return nil, errors.New("virtual_key is missing: name the virtual key that the template runs on; `vault list <mount>/roles` shows them")
	}
	err := f.promptVersion.prepare()
	var problem *prompt.Error
	if errors.As(err, &problem) { // the engine calls the field params
		return nil, errors.New(strings.ReplaceAll(problem.Message, "params.", "parameters."))
	}
	return f, err
}

// rewriteHead stores the note and the metadata where a write changes nothing else.
func (b *backend) rewriteHead(ctx context.Context, storage logical.Storage, f, old *foundPrompt) (*logical.Response, error) {
	what := "nothing changes"
	if f.Note != old.Note || !maps.Equal(f.Metadata, old.Metadata) {
		what = "note or metadata changed, and nothing else"
		if err := b.prompts.heads.put(ctx, storage, f.Name, f.promptHead); err != nil {
			return respond(err)
		}
	} else {
		f = old
	}
	resp := &logical.Response{Data: f.responseData()}
	resp.AddWarning(fmt.Sprintf("%s: no new version was made, the latest is still version %d", what, f.number))
	return resp, nil
}

func (b *backend) publishPrompt(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	if err := unknownFields(req, d); err != nil {
		return respond(err)
	}
	name := d.Get("name").(string)
	lock := locksutil.LockForKey(b.promptLocks, name)
	lock.Lock()
	defer lock.Unlock()
	version := strings.TrimSpace(d.Get("version").(string))
	if version == "" {
		return respond(errors.New("version is missing: version=2, or version=latest"))
	}
	h, err := b.prompts.heads.get(ctx, req.Storage, name)
	if err != nil {
		return nil, err
	}
	if h == nil {
		return respond(errNoEntry)
	}
	number := h.number(version)
	if number == 0 {
		return respond(fmt.Errorf("prompt template %q has no version %.40q; it has 1 to %d", name, version, h.latest()))
	}
	v, err := b.prompts.version(ctx, req.Storage, h, number)
	if err != nil {
		return nil, err
	}
	next := *h
	next.Published, next.UpdatedAt = number, b.now().UTC().Truncate(time.Second)
	if err := b.prompts.heads.put(ctx, req.Storage, name, &next); err != nil {
		return respond(err)
	}
	resp := &logical.Response{Data: map[string]any{"published_version": number, "previous_version": h.Published, "latest_version": h.latest()}}
	if r, err := b.roles.get(ctx, req.Storage, v.VirtualKey); err == nil && r == nil {
		resp.AddWarning(fmt.Sprintf("version %d runs on virtual key %q, which does not exist", number, v.VirtualKey))
	}
	return resp, nil
}

func (b *backend) deletePrompt(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	lock := locksutil.LockForKey(b.promptLocks, name)
	lock.Lock()
	defer lock.Unlock()
	there, left := b.prompts.remove(ctx, req.Storage, name)
	if left != nil {
		b.Logger().Warn("versions of a deleted prompt template stay in storage until a template of that name is written or deleted again", "prompt", name, "error", left)
	}
	return nil, there
}

const promptsHelp = `
A prompt template has messages (or the prompt of a plain completion) whose texts
are Mustache, a model, parameters, and the virtual key that it runs on. Apps call
prompts/<name>/completions with the variables, and need a policy on that path only.

    vault write <mount>/prompts/greeting virtual_key=team-a model=gpt-4o-mini variables=name \
      messages='[{"role":"user","content":"Say hello to {{name}}."}]'
    vault write <mount>/prompts/greeting model=gpt-4o
    vault write <mount>/prompts/greeting/publish version=2
    vault read <mount>/prompts/greeting@1

Each write that changes something makes a new version, which never changes and
isn't used until it is published; the first one is published at once. Whoever may
write a template may spend from any virtual key: narrow that down in the policy,
by allowed_parameters on virtual_key and required_parameters=["virtual_key"].
`

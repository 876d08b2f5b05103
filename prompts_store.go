// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-portkey/internal/gateway"
	"vault-plugin-secrets-portkey/internal/prompt"
)

// promptPrefix holds one entry for each prompt template, and promptVersionPrefix one
// for each version of it, as promptversions/<name>/<number>. A version is written
// before the entry that counts it, and is no version until then; on a deletion that
// entry goes first. So whatever breaks off half-way leaves at most versions that
// nothing counts. They are overwritten or deleted with the next template of the name.
const (
	promptPrefix        = "prompts/"
	promptVersionPrefix = "promptversions/"
)

// maxPromptVersions bounds the versions of one template.
const maxPromptVersions = 1000

// promptLatest stands for the number of the latest version.
const promptLatest = "latest"

// promptHead is what the versions of a prompt template have in common. A stored one
// is never changed in place.
type promptHead struct {
	// ID tells a template from one of the same name that was there before it.
	ID   string `json:"id"`
	Name string `json:"name"`
	// Published is the number of the version that callers get who name none.
	Published int `json:"published"`
	// Made says when each version was made, the first one first.
	Made      []time.Time       `json:"made"`
	Note      string            `json:"note,omitempty"`
	Metadata  map[string]string `json:"metadata,omitempty"`
	UpdatedAt time.Time         `json:"updated_at"`
}

// latest is the number of the latest version; they are counted from 1.
func (h *promptHead) latest() int { return len(h.Made) }

// prepare finds what can't have been stored.
func (h *promptHead) prepare() error {
	if h.Published < 1 || h.Published > h.latest() {
		return errors.New("its published version is none that it has")
	}
	return nil
}

// number is the version that a caller means: empty for the published one, a number,
// or "latest". It is 0 where there is none.
func (h *promptHead) number(version string) int {
	switch version {
	case "":
		return h.Published
	case promptLatest:
		return h.latest()
	}
	n, err := strconv.Atoi(version)
	if err != nil || n > h.latest() || strconv.Itoa(n) != version {
		return 0
	}
	return max(n, 0)
}

// promptVersion is one version. It never changes.
type promptVersion struct {
	PromptID string `json:"prompt_id"`
	prompt.Template

	compiled *prompt.Compiled // made by prepare
}

func (v *promptVersion) prepare() error {
	var err error
	v.compiled, err = v.Compile()
	return err
}

// promptTemplates keeps the prompt templates.
type promptTemplates struct {
	heads    *entryStore[promptHead]
	versions *entryStore[promptVersion]
}

// How many stay in memory. A compiled version takes a few times its size, which is
// some kilobytes as a rule, and 256 KiB at the most.
const (
	cachedPrompts        = 1024
	cachedPromptVersions = 256
)

func newPromptTemplates() (*promptTemplates, error) {
	heads, err := newEntryStore(promptPrefix, cachedPrompts, (*promptHead).prepare)
	if err != nil {
		return nil, err
	}
	versions, err := newEntryStore(promptVersionPrefix, cachedPromptVersions, (*promptVersion).prepare)
	return &promptTemplates{heads, versions}, err
}

func (p *promptTemplates) invalidate(key string) {
	p.heads.invalidate(key)
	p.versions.invalidate(key)
}

func versionName(name string, number int) string { return name + "/" + strconv.Itoa(number) }

// version returns one version of a template, which must have it.
func (p *promptTemplates) version(ctx context.Context, storage logical.Storage, h *promptHead, number int) (*promptVersion, error) {
	v, err := p.versions.get(ctx, storage, versionName(h.Name, number))
	if err != nil {
		return nil, err
	}
	if v == nil || v.PromptID != h.ID {
		return nil, storageErrorf("version %d of prompt template %s isn't in storage", number, h.Name)
	}
	return v, nil
}

// foundPrompt is a version of a template, with its number.
type foundPrompt struct {
	*promptHead
	*promptVersion
	number int
}

// find returns the version that ref, <name> or <name>@<version>, means; nil if there
// is none.
func (p *promptTemplates) find(ctx context.Context, storage logical.Storage, ref string) (*foundPrompt, error) {
	name, version, ok := gateway.SplitPromptRef(ref)
	if !ok {
		return nil, nil
	}
	h, err := p.heads.get(ctx, storage, name)
	if h == nil || err != nil {
		return nil, err
	}
	number := h.number(version)
	if number == 0 {
		return nil, nil
	}
	v, err := p.version(ctx, storage, h, number)
	if err != nil {
		return nil, err
	}
	return &foundPrompt{h, v, number}, nil
}

// add stores v as the next version, and h with it. h counts v already.
func (p *promptTemplates) add(ctx context.Context, storage logical.Storage, h *promptHead, v *promptVersion) error {
	if err := p.versions.put(ctx, storage, versionName(h.Name, h.latest()), v); err != nil {
		return err
	}
	return p.heads.put(ctx, storage, h.Name, h)
}

// remove deletes a template, and what there is of versions under its name. The first
// error says that the template is still there, the second that versions are.
func (p *promptTemplates) remove(ctx context.Context, storage logical.Storage, name string) (there, left error) {
	if err := p.heads.delete(ctx, storage, name); err != nil {
		return err, nil
	}
	numbers, err := storage.List(ctx, promptVersionPrefix+name+"/")
	if err != nil {
		return nil, fmt.Errorf("listing the versions: %w", err)
	}
	for _, number := range numbers {
		if err := p.versions.delete(ctx, storage, name+"/"+number); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// SPDX-License-Identifier: MPL-2.0

package provider

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Values of Provider.ChatCapField.
const (
	CapMaxTokens           = "max_tokens"
	CapMaxCompletionTokens = "max_completion_tokens"
)

// globs say which models a fact holds for: those that one of them matches,
// without those that one with a leading '!' matches. A '*' stands for any text.
// They are in lower case, and a model is matched in lower case, by its whole
// name and by what follows the last slash: resellers put the maker before it.
type globs []string

// Reasoning reports whether model spends output on reasoning unless told not
// to. A small cap would buy nothing but the beginning of its thoughts.
func (p *Provider) Reasoning(model string) bool { return p.ReasoningModels.hold(model) }

// OpenEnded reports whether model searches or runs tools at the provider by
// itself, for fees that no cap on tokens bounds.
func (p *Provider) OpenEnded(model string) bool { return p.OpenEndedModels.hold(model) }

// MaxOutput is the most output tokens that a request to model may ask for where
// it is known and small, and 0 otherwise.
func (p *Provider) MaxOutput(model string) int64 {
	for i := range p.MaxOutputs {
		if p.MaxOutputs[i].Models.hold(model) {
			return p.MaxOutputs[i].Tokens
		}
	}
	return 0
}

// OutputLimit is the most output tokens that some models allow. Of a list the
// first that holds for a model says it.
type OutputLimit struct {
	Tokens int64 `json:"tokens"`
	Models globs `json:"models"`
}

// largeOutput is a maximum that nobody needs to know: it is what a request
// without a cap gets unless the operator says otherwise.
const largeOutput = 16384

func (l *OutputLimit) check() error {
	if l.Tokens < 1 || l.Tokens >= largeOutput {
		return fmt.Errorf("max_output: %d must be from 1 to %d tokens", l.Tokens, largeOutput-1)
	}
	if len(l.Models) == 0 {
		return fmt.Errorf("max_output: %d tokens are of no model", l.Tokens)
	}
	return l.Models.check("max_output")
}

// WantsMaxTokens reports whether a chat request whose cap is
// max_completion_tokens alone must have it as max_tokens too: nothing says that
// the provider reads the former.
func (p *Provider) WantsMaxTokens() bool {
	return p.ChatCapField == CapMaxTokens && !p.ReadsMaxCompletionTokens
}

// Free reports whether calls of routes of this kind, such as "moderations", cost
// nothing at the provider.
func (p *Provider) Free(kind string) bool { return slices.Contains(p.FreeKinds, kind) }

func (g globs) hold(model string) bool {
	model = strings.ToLower(model)
	bare := model[strings.LastIndexByte(model, '/')+1:]
	held := false
	for _, glob := range g {
		pattern, except := strings.CutPrefix(glob, "!")
		if held && !except || !matches(pattern, model) && !matches(pattern, bare) {
			continue
		}
		if except {
			return false
		}
		held = true
	}
	return held
}

// matches reports whether name is pattern, in which '*' stands for any text.
// Unlike a glob library it allocates nothing: it runs for every request.
func matches(pattern, name string) bool {
	start, rest, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == name
	}
	name, ok := strings.CutPrefix(name, start)
	for ok {
		start, rest, star = strings.Cut(rest, "*")
		if !star {
			return strings.HasSuffix(name, start)
		}
		_, name, ok = strings.Cut(name, start)
	}
	return false
}

// check refuses globs that can't do what their writer meant.
func (g globs) check(name string) error {
	for i, glob := range g {
		pattern, except := strings.CutPrefix(glob, "!")
		switch {
		case strings.Trim(pattern, "*") == "" || strings.ContainsAny(pattern, "! \t\r\n"):
			return fmt.Errorf("%s: %q is no glob of model names", name, glob)
		case pattern != strings.ToLower(pattern):
			return fmt.Errorf("%s: %q must be in lower case", name, glob)
		case slices.Contains(g[:i], glob):
			return fmt.Errorf("%s: %q is there twice", name, glob)
		case except && i == 0:
			return fmt.Errorf("%s: %q is an exception to nothing", name, glob)
		}
	}
	return nil
}

func (p *Provider) checkModels() error {
	switch p.ChatCapField {
	case "":
		p.ChatCapField = CapMaxTokens
	case CapMaxTokens, CapMaxCompletionTokens:
	default:
		return fmt.Errorf("chat_cap_field %q must be %s or %s", p.ChatCapField, CapMaxTokens, CapMaxCompletionTokens)
	}
	if p.IgnoresMaxCompletionTokens && p.ChatCapField == CapMaxCompletionTokens {
		return errors.New("chat_cap_field is one that the provider ignores")
	}
	if p.ReadsMaxCompletionTokens && (p.IgnoresMaxCompletionTokens || p.ChatCapField == CapMaxCompletionTokens) {
		return errors.New("reads_max_completion_tokens says the same as chat_cap_field, or contradicts ignores_max_completion_tokens")
	}
	for i, kind := range p.FreeKinds {
		if !isName(kind, '-') || slices.Contains(p.FreeKinds[:i], kind) {
			return fmt.Errorf("free_kinds: %q must be the name of a kind of routes, given once", kind)
		}
	}
	if err := p.ReasoningModels.check("reasoning_models"); err != nil {
		return err
	}
	if err := p.OpenEndedModels.check("open_ended_models"); err != nil {
		return err
	}
	for i := range p.MaxOutputs {
		if err := p.MaxOutputs[i].check(); err != nil {
			return err
		}
	}
	return nil
}

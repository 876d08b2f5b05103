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
	if err := p.ReasoningModels.check("reasoning_models"); err != nil {
		return err
	}
	return p.OpenEndedModels.check("open_ended_models")
}

// SPDX-License-Identifier: MPL-2.0

package ledger

import "strings"

// Limit caps one unit in one window. It is immutable.
type Limit struct {
	Unit Unit
	// Max is in the unit of Amounts; 0 means that nothing is allowed.
	Max    int64
	Window Window
	// PerEntity counts each entity apart; callers without one share a count.
	PerEntity bool
	// Models is a glob in which * stands for any text; empty means every model.
	Models string
	// Anchor is when the first window of a fixed length began, in Unix seconds;
	// it means nothing for other windows.
	Anchor int64
}

// String is the limit's text form, such as "usd=100/month per entity on gpt-4*".
// ParseLimit reads it back to the same limit, without its Anchor.
func (l Limit) String() string {
	return l.Unit.String() + "=" + l.Unit.Format(l.Max) + l.window() + l.scope()
}

// ID is what makes it this limit whatever its Max: unit, window, scope and model
// glob, such as "usd/month per entity on gpt-4*" or "concurrent". No two limits
// of a role have the same.
func (l Limit) ID() string {
	return l.Unit.String() + l.window() + l.scope()
}

func (l Limit) window() string {
	if l.Window.Kind == Instant {
		return ""
	}
	return "/" + l.Window.String()
}

func (l Limit) scope() string {
	scope := ""
	if l.PerEntity {
		scope = " per entity"
	}
	if l.Models != "" {
		scope += " on " + l.Models
	}
	return scope
}

// Object is the limit for JSON: its text form as limit, its parts as unit, max
// (text for USD, in dollars; a whole number for others), window (empty for
// concurrent), per_entity and models. ParseLimits reads it back.
func (l Limit) Object() map[string]any {
	object := map[string]any{
		"limit":      l.String(),
		"unit":       l.Unit.String(),
		"max":        any(l.Max),
		"window":     l.Window.String(),
		"per_entity": l.PerEntity,
		"models":     l.Models,
	}
	if l.Unit == USD {
		object["max"] = l.Unit.Format(l.Max)
	}
	return object
}

// Applies says whether the limit is for that model, which must be in lower case:
// by its whole name, or by what follows the last slash, since many providers take
// a name with its maker or its kind before it.
func (l Limit) Applies(model string) bool {
	if l.Models == "" || globMatches(l.Models, model) {
		return true
	}
	slash := strings.LastIndexByte(model, '/')
	return slash >= 0 && globMatches(l.Models, model[slash+1:])
}

// globMatches says whether name is what glob says, in which * stands for any
// text, the empty one too. It takes each literal part at the first place where
// it is: a later one can't leave more for the parts behind it.
func globMatches(glob, name string) bool {
	part, glob, starred := strings.Cut(glob, "*")
	if !starred {
		return part == name
	}
	name, found := strings.CutPrefix(name, part)
	for found {
		if part, glob, starred = strings.Cut(glob, "*"); !starred {
			return strings.HasSuffix(name, part)
		}
		_, name, found = strings.Cut(name, part)
	}
	return false
}

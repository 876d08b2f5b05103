// SPDX-License-Identifier: MPL-2.0

package ledger

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"vault-plugin-secrets-portkey/internal/price"
)

// What a limit may be.
const (
	// MaxCount is the most that a limit of anything but USD may allow. JSON
	// numbers are exact up to it.
	MaxCount = 1_000_000_000_000_000
	// MaxUSD is the most that a limit of USD may allow, in nano-USD: a billion
	// dollars.
	MaxUSD = 1_000_000_000 * int64(price.USD)
	// MaxModels is the longest model glob, in bytes.
	MaxModels = 256

	maxText = 1000 // bytes of a limit
)

// ParseLimit reads the text form of a limit,
//
//	<unit>=<max>/<window>[ per entity][ on <model glob>]
//
// such as "usd=100/month", "tokens=200000/minute per entity on gpt-4o*" or
// "concurrent=8", which has no window. Words may be in either case and spaced
// freely, and the two last parts may change places. The Anchor is left 0. The
// error names the limit and the part that is wrong, and shows a right one.
func ParseLimit(text string) (Limit, error) {
	l, err := parseText(text)
	if err != nil {
		return Limit{}, fmt.Errorf("limit %s: %w", quoted(strings.TrimSpace(text)), err)
	}
	return l, nil
}

func parseText(text string) (Limit, error) {
	if len(text) > maxText {
		return Limit{}, fmt.Errorf("%d bytes are too long for a limit; at most %d", len(text), maxText)
	}
	unit, rest, found := strings.Cut(text, "=")
	if !found {
		return Limit{}, fmt.Errorf("there is no =; write a limit as <unit>=<max>/<window>, such as %s", USD.example())
	}
	var l Limit
	var err error
	if l.Unit, err = ParseUnit(unit); err != nil {
		return Limit{}, err
	}
	amount, rest := cutBefore(rest, func(r rune) bool { return r == '/' || unicode.IsSpace(r) })
	if l.Max, err = l.Unit.parseMax(amount); err != nil {
		return Limit{}, err
	}
	rest, hasWindow := strings.CutPrefix(rest, "/")
	window := ""
	if hasWindow {
		window, rest = cutBefore(rest, unicode.IsSpace)
	}
	if l.Window, err = l.Unit.parseWindow(window, hasWindow); err != nil {
		return Limit{}, err
	}
	err = l.parseScope(strings.Fields(rest))
	return l, err
}

// cutBefore splits text before the first rune that ends a word, and takes the
// spaces around both parts away.
func cutBefore(text string, ends func(rune) bool) (word, rest string) {
	text = strings.TrimSpace(text)
	if i := strings.IndexFunc(text, ends); i >= 0 {
		return text[:i], strings.TrimSpace(text[i:])
	}
	return text, ""
}

// parseMax reads how much of u a limit allows.
func (u Unit) parseMax(text string) (int64, error) {
	switch {
	case text == "":
		return 0, fmt.Errorf("the max is missing; write such as %s", u.example())
	case text[0] == '-':
		return 0, fmt.Errorf("max %s is negative; write 0 or more, such as %s", quoted(text), u.example())
	case u == USD:
		return parseUSD(text)
	case strings.Trim(text, "0123456789") != "":
		return 0, fmt.Errorf("max %s is no whole number of %s; write such as %s", quoted(text), u.counted(), u.example())
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n > MaxCount { // they are digits, so there are too many
		return 0, fmt.Errorf("max %s is too large; at most %d, such as %s", quoted(text), MaxCount, u.example())
	}
	return n, nil
}

// counted names what u counts, after a number.
func (u Unit) counted() string {
	if u == Concurrent {
		return "concurrent requests"
	}
	return strings.ReplaceAll(u.String(), "_", " ")
}

func parseUSD(text string) (int64, error) {
	// More digits than an int64 of nano-USD has would be "too large" to
	// price.ParseUSD too, but beyond another bound than that of limits.
	whole, fraction, _ := strings.Cut(text, ".")
	digits := strings.Trim(whole+fraction, "0123456789") == ""
	tooLarge := digits && len(strings.TrimLeft(whole, "0")) > len("1000000000")
	amount, err := price.ParseUSD(text)
	switch {
	case tooLarge, err == nil && int64(amount) > MaxUSD:
		return 0, fmt.Errorf("max %s is too large; at most %s USD, such as %s", quoted(text), USD.Format(MaxUSD), USD.example())
	case err != nil:
		return 0, fmt.Errorf("max %s: %w, as in %s", quoted(text), err, USD.example())
	}
	return int64(amount), nil
}

// parseWindow reads the window of a limit of u; given says whether there is one.
func (u Unit) parseWindow(text string, given bool) (Window, error) {
	switch {
	case u == Concurrent && given:
		return Window{}, fmt.Errorf("concurrent has no window, for it counts what runs at the same time; write %s", u.example())
	case u == Concurrent:
		return Window{}, nil
	case !given:
		return Window{}, fmt.Errorf("there is no window; add one, as in %s: %s", u.example(), windowForms)
	}
	w, err := ParseWindow(text)
	if err != nil {
		return Window{}, fmt.Errorf("%w, as in %s", err, u.example())
	}
	return w, nil
}

// parseScope reads what follows the window: "per entity" and "on <glob>".
func (l *Limit) parseScope(words []string) error {
	on := false
	for len(words) > 0 {
		switch lower(words[0]) {
		case "per":
			if len(words) == 1 || lower(words[1]) != "entity" {
				return fmt.Errorf("%s is no scope; write per entity to count each Vault entity apart, as in %s per entity, or leave it out",
					quoted(strings.Join(words[:min(2, len(words))], " ")), l.Unit.example())
			}
			if l.PerEntity {
				return fmt.Errorf("per entity is there twice; write it once, as in %s per entity", l.Unit.example())
			}
			l.PerEntity = true
		case "on":
			if len(words) == 1 {
				return fmt.Errorf("there is no model after on; write such as %s on gpt-4o*", l.Unit.example())
			}
			if on {
				return fmt.Errorf("on is there twice; write a limit for each model glob, as in %s on gpt-4o*", l.Unit.example())
			}
			models, err := parseModels(words[1])
			if err != nil {
				return fmt.Errorf("%w, as in %s on gpt-4o*", err, l.Unit.example())
			}
			l.Models, on = models, true
		default:
			return fmt.Errorf("unexpected %s; after the window there may be per entity and on <one model glob without spaces>, as in %s per entity on gpt-4o*",
				quoted(words[0]), l.Unit.example())
		}
		words = words[2:]
	}
	return nil
}

// parseModels checks a model glob and gives its shortest form, in which each *
// stands alone and a glob for every model is empty. It is in lower case, as models
// are when limits are looked for (Limit.Applies).
func parseModels(glob string) (string, error) {
	if !utf8.ValidString(glob) {
		return "", fmt.Errorf("model glob %s isn't UTF-8", quoted(glob))
	}
	if glob = strings.ToLower(glob); len(glob) > MaxModels {
		return "", fmt.Errorf("the model glob of %d bytes is too long; at most %d", len(glob), MaxModels)
	}
	if i := strings.IndexFunc(glob, noModelRune); i >= 0 {
		r, _ := utf8.DecodeRuneInString(glob[i:])
		return "", fmt.Errorf("model glob %s must not have %q in it; write one model's name, in which * stands for any text", quoted(glob), r)
	}
	for strings.Contains(glob, "**") {
		glob = strings.ReplaceAll(glob, "**", "*")
	}
	if glob == "*" {
		return "", nil
	}
	return glob, nil
}

// noModelRune says whether r is in no model's name. Quotes, and what has a
// meaning in other globs, would be a limit that silently never applies.
func noModelRune(r rune) bool {
	const otherGlobs, quotes = `?[]{}()|^$\,`, "\"'`" + `“”„‟‘’‚‛«»‹›`
	return !unicode.IsPrint(r) || unicode.IsSpace(r) || r == unicode.ReplacementChar || strings.ContainsRune(otherGlobs+quotes, r)
}

// SPDX-License-Identifier: MPL-2.0

package ledger

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// MaxLimits is how many limits a role may have.
const MaxLimits = 16

// maxDepth is how deep lists may be in lists, and JSON text in them.
const maxDepth = 4

// ParseLimits reads the limits of a role. Each item is the text form that
// ParseLimit reads; text that begins with [ or {, which is JSON; an object as
// decoded from JSON, such as
//
//	{"unit": "usd", "max": "100", "window": "month", "per_entity": true, "models": "gpt-4o*"}
//
// or a list of all these. "per": "entity" is the same as "per_entity": true. The
// max is a number or text; USD from a float64 is its shortest decimal form. A
// member limit, which holds the text form, may replace the others or say the
// same. Empty text and empty lists give no limit. The error names the limit, by
// its text or number, and the part that is wrong, and shows a right one.
func ParseLimits(raw []any) ([]Limit, error) {
	var list limitList
	if err := list.addAll(raw, 0); err != nil {
		return nil, err
	}
	return list.limits, nil
}

// limitList collects limits.
type limitList struct {
	limits []Limit
	number int // of the item that is read, counted from 1
}

func (list *limitList) addAll(items []any, depth int) error {
	if depth > maxDepth {
		return errors.New("limits: these lists are too deep; write one list of limits, such as " + exampleList)
	}
	for _, item := range items {
		if err := list.add(item, depth); err != nil {
			return err
		}
	}
	return nil
}

func (list *limitList) add(item any, depth int) error {
	switch item := item.(type) {
	case []any:
		return list.addAll(item, depth+1)
	case string:
		return list.addText(strings.TrimSpace(item), depth)
	}
	list.number++
	object, ok := item.(map[string]any)
	if !ok {
		return fmt.Errorf("limit %d is %s; write text such as %s, or an object such as %s", list.number, describe(item), USD.example(), exampleObject)
	}
	l, err := parseObject(object)
	if err != nil {
		return fmt.Errorf("limit %d: %w", list.number, err)
	}
	return list.append(l)
}

func (list *limitList) addText(text string, depth int) error {
	if text == "" {
		return nil
	}
	if text[0] == '[' || text[0] == '{' {
		value, err := decodeJSON(text)
		if err != nil {
			return fmt.Errorf("limits %s: %w", quoted(text), err)
		}
		return list.add(value, depth)
	}
	list.number++
	l, err := ParseLimit(text)
	if err != nil {
		return err
	}
	return list.append(l)
}

func (list *limitList) append(l Limit) error {
	if err := checkDistinct(list.limits, l); err != nil {
		return err
	}
	if len(list.limits) == MaxLimits {
		return fmt.Errorf("limit %s is one too many; a role has at most %d", quoted(l.String()), MaxLimits)
	}
	list.limits = append(list.limits, l)
	return nil
}

// checkDistinct refuses a limit that has the identity of one before it.
func checkDistinct(limits []Limit, l Limit) error {
	id := l.ID()
	if i := slices.IndexFunc(limits, func(other Limit) bool { return other.ID() == id }); i >= 0 {
		return fmt.Errorf("limits %s and %s are both for %s; keep one of them", quoted(limits[i].String()), quoted(l.String()), quoted(id))
	}
	return nil
}

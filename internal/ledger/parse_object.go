// SPDX-License-Identifier: MPL-2.0

package ledger

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

const (
	exampleObject = `{"unit":"usd","max":"100","window":"month"}`
	exampleList   = `["usd=100/month","requests=60/minute"]`
)

// members are those that an object may have.
var members = []string{"limit", "max", "models", "per", "per_entity", "unit", "window"}

// parseObject reads a limit of its parts, or of its text form.
func parseObject(object map[string]any) (Limit, error) {
	for _, name := range slices.Sorted(maps.Keys(object)) {
		if !slices.Contains(members, name) {
			return Limit{}, fmt.Errorf("unknown member %s%s; the members are unit, max, window, per_entity and models, as in %s",
				quoted(name), didYouMean(nearest(lower(name), members)), exampleObject)
		}
		if object[name] == nil {
			return Limit{}, fmt.Errorf("%s is null; leave it out or give it a value, as in %s", name, exampleObject)
		}
	}
	whole, ok := object["limit"]
	if !ok {
		return parseParts(object)
	}
	text, ok := whole.(string)
	if !ok {
		return Limit{}, fmt.Errorf("limit is %s; write text such as %s", describe(whole), quoted(USD.example()))
	}
	l, err := parseText(text)
	if err != nil || len(object) == 1 {
		return l, err
	}
	parts, err := parseParts(object)
	if err != nil {
		return Limit{}, err
	}
	if l != parts {
		return Limit{}, fmt.Errorf("the member limit says %s and the others say %s; leave limit out, or all others", quoted(l.String()), quoted(parts.String()))
	}
	return l, nil
}

func parseParts(object map[string]any) (Limit, error) {
	unit, err := textMember(object, "unit")
	if err != nil {
		return Limit{}, err
	}
	var l Limit
	if l.Unit, err = ParseUnit(unit); err != nil {
		return Limit{}, err
	}
	amount, err := amountText(object["max"])
	if err != nil {
		return Limit{}, err
	}
	if l.Max, err = l.Unit.parseMax(amount); err != nil {
		return Limit{}, err
	}
	window, err := textMember(object, "window")
	if err != nil {
		return Limit{}, err
	}
	if l.Window, err = l.Unit.parseWindow(window, window != ""); err != nil {
		return Limit{}, err
	}
	if l.PerEntity, err = perEntity(object); err != nil {
		return Limit{}, err
	}
	models, err := textMember(object, "models")
	if err != nil {
		return Limit{}, err
	}
	if l.Models, err = parseModels(models); err != nil {
		return Limit{}, fmt.Errorf(`%w, as in "models":"gpt-4o*"`, err)
	}
	return l, nil
}

// textMember is a member that is text, empty if it isn't there.
func textMember(object map[string]any, name string) (string, error) {
	value, ok := object[name]
	if !ok {
		return "", nil
	}
	text, ok := value.(string)
	switch {
	case !ok:
		return "", fmt.Errorf("%s is %s; write one text, as in %s", name, describe(value), `{"unit":"usd","max":"100","window":"month","models":"gpt-4o*"}`)
	case len(text) > maxText:
		return "", fmt.Errorf("%s: %d bytes are too long; at most %d", name, len(text), maxText)
	}
	return strings.TrimSpace(text), nil
}

// perEntity reads the two ways to say it.
func perEntity(object map[string]any) (bool, error) {
	flag, hasFlag := object["per_entity"]
	per, hasPer := object["per"]
	if hasFlag && hasPer {
		return false, errors.New(`give per_entity or per, not both; write "per_entity":true`)
	}
	if hasPer {
		if text, ok := per.(string); !ok || lower(strings.TrimSpace(text)) != "entity" {
			return false, fmt.Errorf(`per is %s; write "per":"entity" to count each Vault entity apart, or leave it out`, describe(per))
		}
		return true, nil
	}
	value, ok := flag.(bool)
	if hasFlag && !ok {
		return false, fmt.Errorf(`per_entity is %s; write "per_entity":true or false`, describe(flag))
	}
	return value, nil
}

// amountText is a max as the text form has it, "" if there is none.
func amountText(value any) (string, error) {
	switch value := value.(type) {
	case nil:
		return "", nil
	case string:
		return strings.TrimSpace(value), nil
	case float64:
		return strconv.FormatFloat(value, 'f', -1, 64), nil
	case json.Number:
		return numberText(value), nil
	case int:
		return strconv.Itoa(value), nil
	case int64:
		return strconv.FormatInt(value, 10), nil
	}
	return "", fmt.Errorf(`max is %s; write a number or text, as in %s`, describe(value), exampleObject)
}

// numberText is a JSON number without an exponent and without zeros at the end
// of a fraction, so that 60.0 and 6e1 are the whole number that they are as
// float64. Only one with an exponent goes through a float64.
func numberText(number json.Number) string {
	text := number.String()
	if strings.ContainsAny(text, "eE") {
		f, err := number.Float64()
		if err != nil {
			return text // beyond float64: parseMax refuses it
		}
		return strconv.FormatFloat(f, 'f', -1, 64)
	}
	if strings.Contains(text, ".") {
		text = strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
	}
	return text
}

// describe says what a value of a wrong type is.
func describe(value any) string {
	switch value := value.(type) {
	case nil:
		return "null"
	case string:
		return quoted(value)
	case bool:
		return strconv.FormatBool(value)
	case float64, int, int64, json.Number:
		return "a number"
	case []any:
		return "a list"
	case map[string]any:
		return "an object"
	}
	return fmt.Sprintf("a %T", value)
}

// SPDX-License-Identifier: MPL-2.0

package price

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// rule says which model names an entry is for. Exactly one field is set. Names
// are given in lower case, and so is the text of rules.
type rule struct {
	equals     string
	startsWith string
	endsWith   string
	contains   string
	regex      *regexp.Regexp
	any, all   []rule
	not        *rule
}

// UnmarshalJSON reads a string (the whole name), or an object with one of
// starts_with, ends_with, contains, regex, any, all, not.
func (r *rule) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '"' {
		if err := json.Unmarshal(data, &r.equals); err != nil {
			return err
		}
		return r.check()
	}
	var in struct {
		StartsWith string `json:"starts_with"`
		EndsWith   string `json:"ends_with"`
		Contains   string `json:"contains"`
		Regex      string `json:"regex"`
		Any        []rule `json:"any"`
		All        []rule `json:"all"`
		Not        *rule  `json:"not"`
	}
	if err := decodeStrict(data, &in); err != nil {
		return err
	}
	*r = rule{startsWith: in.StartsWith, endsWith: in.EndsWith, contains: in.Contains, any: in.Any, all: in.All, not: in.Not}
	if in.Regex != "" {
		compiled, err := regexp.Compile(in.Regex)
		if err != nil {
			return err
		}
		r.regex = compiled
	}
	return r.check()
}

// check requires exactly one kind, so that no rule matches by accident.
func (r *rule) check() error {
	kinds := 0
	for _, text := range []string{r.equals, r.startsWith, r.endsWith, r.contains} {
		if text == "" {
			continue
		}
		if text != strings.ToLower(text) {
			return fmt.Errorf("rule text %q must be in lower case", text)
		}
		kinds++
	}
	for _, set := range []bool{r.regex != nil, len(r.any) > 0, len(r.all) > 0, r.not != nil} {
		if set {
			kinds++
		}
	}
	if kinds != 1 {
		return errors.New("a rule must be of exactly one kind and not empty")
	}
	return nil
}

// match says whether the rule is for the name, and if so why, as the second
// half of a sentence about the name.
func (r *rule) match(name string) (why string, ok bool) {
	switch {
	case r.equals != "":
		return because(name == r.equals, "equals", r.equals)
	case r.startsWith != "":
		return because(strings.HasPrefix(name, r.startsWith), "starts with", r.startsWith)
	case r.endsWith != "":
		return because(strings.HasSuffix(name, r.endsWith), "ends with", r.endsWith)
	case r.contains != "":
		return because(strings.Contains(name, r.contains), "contains", r.contains)
	case r.regex != nil:
		return because(r.regex.MatchString(name), "matches", r.regex.String())
	case r.any != nil:
		return matchAny(r.any, name)
	case r.all != nil:
		return matchAll(r.all, name)
	default:
		_, ok := r.not.match(name)
		return "isn't an exception", !ok
	}
}

// because writes the reason only where there is something to say: hundreds of
// rules don't match for each that does.
func because(ok bool, verb, text string) (string, bool) {
	if !ok {
		return "", false
	}
	return verb + ` "` + text + `"`, true
}

func matchAny(rules []rule, name string) (string, bool) {
	for i := range rules {
		if why, ok := rules[i].match(name); ok {
			return why, true
		}
	}
	return "", false
}

func matchAll(rules []rule, name string) (string, bool) {
	var all []string
	for i := range rules {
		why, ok := rules[i].match(name)
		if !ok {
			return "", false
		}
		all = append(all, why)
	}
	return strings.Join(all, " and "), true
}

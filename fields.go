// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"sort"
	"strings"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

// prepareData does what the framework's own validation doesn't do, and has to
// come before it. A path whose input is the provider's is left alone.
func prepareData(data map[string]any, path *framework.Path) error {
	if path.TakesArbitraryInput {
		return nil
	}
	if err := decodeJSONText(data, path.Fields); err != nil {
		return err
	}
	return checkTypes(data, path.Fields)
}

// decodeJSONText turns the text of a JSON object into the object, for fields
// that are maps: the Vault CLI can send nothing but text there.
func decodeJSONText(data map[string]any, schema map[string]*framework.FieldSchema) error {
	for name, field := range schema {
		text, ok := data[name].(string)
		pairs := field.Type == framework.TypeKVPairs
		if !ok || field.Type != framework.TypeMap && !pairs {
			continue
		}
		text = strings.TrimSpace(text)
		if pairs && text != "" && text[0] != '{' {
			continue // name=value, which the framework reads
		}
		object := map[string]any{}
		if text != "" {
			if err := json.Unmarshal([]byte(text), &object); err != nil {
				return fmt.Errorf("%s must be %s", name, describeType(field.Type))
			}
		}
		data[name] = object
	}
	return nil
}

// checkTypes refuses values that are none of their field's type. The framework
// does that too, but its errors quote the value, to the caller and in Vault's
// log: a secret that was put into the wrong field must not end there.
func checkTypes(data map[string]any, schema map[string]*framework.FieldSchema) error {
	d := framework.FieldData{Raw: data, Schema: schema}
	for _, name := range slices.Sorted(maps.Keys(data)) {
		field := schema[name]
		if field == nil || data[name] == nil {
			continue
		}
		_, isText := data[name].(string)
		sensitive := field.DisplayAttrs != nil && field.DisplayAttrs.Sensitive
		if _, _, err := d.GetOkErr(name); err != nil || sensitive && !isText || !whole(field.Type, data[name]) {
			return fmt.Errorf("%s must be %s", name, describeType(field.Type))
		}
	}
	return nil
}

// whole says whether a number that was given for a whole one is one: the
// framework cuts the rest off in silence, which makes 0 of a threshold of 0.8.
func whole(t framework.FieldType, raw any) bool {
	if t != framework.TypeInt && t != framework.TypeCommaIntSlice {
		return true
	}
	switch v := raw.(type) {
	case float64:
		return v == math.Trunc(v)
	case []any:
		return !slices.ContainsFunc(v, func(item any) bool { return !whole(t, item) })
	}
	return true
}

// describeType says what a value of that type is to the one who writes it.
func describeType(t framework.FieldType) string {
	switch t {
	case framework.TypeString:
		return "text"
	case framework.TypeBool:
		return "true or false"
	case framework.TypeInt:
		return "a whole number"
	case framework.TypeFloat:
		return "a number"
	case framework.TypeDurationSecond, framework.TypeSignedDurationSecond:
		return "a duration such as 90s or 720h, or a number of seconds"
	case framework.TypeCommaStringSlice:
		return "a list of texts, or one text with commas"
	case framework.TypeSlice:
		return "a list"
	case framework.TypeCommaIntSlice:
		return "a list of whole numbers, or one text with commas"
	case framework.TypeKVPairs:
		return "name=value pairs, or a JSON object of texts"
	case framework.TypeMap:
		return "a JSON object"
	}
	return "of the type " + t.String()
}

// refuseNull refuses null outside PATCH, where it means something: elsewhere it
// would open a restriction silently.
func refuseNull(data map[string]any) error {
	for _, name := range slices.Sorted(maps.Keys(data)) {
		if data[name] == nil {
			return fmt.Errorf("%s is null; leave it out, or give the value that it shall have (PATCH takes null for the default)", name)
		}
	}
	return nil
}

// unknownFields refuses what the path has no field for: a misspelt
// restriction must never be ignored silently.
func unknownFields(req *logical.Request, d *framework.FieldData) error {
	var unknown []string
	for name := range req.Data {
		if _, ok := d.Schema[name]; !ok {
			unknown = append(unknown, name)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	sort.Strings(unknown)
	known := make([]string, 0, len(d.Schema))
	for name := range d.Schema {
		if name != "name" { // that one stands in the path
			known = append(known, name)
		}
	}
	sort.Strings(known)
	problems := make([]string, len(unknown))
	for i, name := range unknown {
		problems[i] = fmt.Sprintf("%q", name)
		if near := nearest(name, known); near != "" {
			problems[i] += fmt.Sprintf(" (did you mean %q?)", near)
		}
	}
	return fmt.Errorf("unknown field %s; the fields are %s", strings.Join(problems, ", "), strings.Join(known, ", "))
}

// nearest returns the one of known that name is most likely a misspelling of,
// "" if none comes near.
func nearest(name string, known []string) string {
	best, least := "", 1+max(1, min(len(name), comparedLen)/3)
	for _, k := range known {
		if d := editDistance(strings.ToLower(name), k); d < least {
			best, least = k, d
		}
	}
	return best
}

// comparedLen bounds what a misspelling costs, in bytes.
const comparedLen = 64

// editDistance is the Levenshtein distance of a and b in bytes, over the first
// comparedLen of each.
func editDistance(a, b string) int {
	a, b = a[:min(len(a), comparedLen)], b[:min(len(b), comparedLen)]
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			substitute := diagonal
			if a[i] != b[j] {
				substitute++
			}
			diagonal = row[j+1]
			row[j+1] = min(substitute, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}

// mergePatch applies a PATCH (RFC 7396) to state, the settable fields of an
// entry: members of objects merge, null removes. What it returns is the whole
// new state.
func mergePatch(state map[string]any, d *framework.FieldData) (*framework.FieldData, error) {
	patch := make(map[string]any, len(d.Raw))
	for name, raw := range d.Raw {
		if d.Schema[name] == nil {
			continue
		}
		switch raw.(type) {
		case nil, map[string]any:
			patch[name] = raw // as it is: nulls in it mean something
		default:
			patch[name] = d.Get(name) // parsed as the field's type
		}
	}
	old, err := json.Marshal(state)
	if err != nil {
		return nil, fmt.Errorf("encoding the entry: %w", err)
	}
	change, err := json.Marshal(patch)
	if err != nil {
		return nil, fmt.Errorf("encoding the patch: %w", err)
	}
	merged, err := jsonpatch.MergePatch(old, change)
	if err != nil {
		return nil, fmt.Errorf("merging the patch: %w", err)
	}
	raw := map[string]any{}
	if err := json.Unmarshal(merged, &raw); err != nil {
		return nil, fmt.Errorf("decoding the merged entry: %w", err)
	}
	result := &framework.FieldData{Raw: raw, Schema: d.Schema}
	return result, result.Validate()
}

// wholeSeconds refuses a duration below a second: the framework rounds it to
// 0, which means something else.
func wholeSeconds(d *framework.FieldData, name string) error {
	if v, ok := d.GetOk(name); ok && v.(int) == 0 && strings.ContainsAny(fmt.Sprint(d.Raw[name]), "123456789") {
		return fmt.Errorf("%s is shorter than a second: give whole seconds", name)
	}
	return nil
}

// setList, setString and setMap change *to where the request gave the field.
func setList(d *framework.FieldData, name string, to *[]string) {
	v, ok := d.GetOk(name)
	if !ok {
		return
	}
	list := make([]string, 0, len(v.([]string)))
	for _, item := range v.([]string) {
		if item = strings.TrimSpace(item); item != "" && !slices.Contains(list, item) {
			list = append(list, item)
		}
	}
	*to = list
}

func setString(d *framework.FieldData, name string, to *string) {
	if v, ok := d.GetOk(name); ok {
		*to = strings.TrimSpace(v.(string))
	}
}

func setMap(d *framework.FieldData, name string, to *map[string]string) {
	if v, ok := d.GetOk(name); ok {
		*to = v.(map[string]string)
	}
}

// Bounds on what operators may store, so that a slip can't fill storage.
const (
	maxNameLen     = 128
	maxNoteLen     = 1024
	maxListLen     = 1000
	maxMetadataLen = 64
	maxValueLen    = 1024
)

// checkText bounds the free text that keys and roles carry.
func checkText(name, note string, metadata map[string]string) error {
	if len(name) > maxNameLen {
		return fmt.Errorf("the name is %d characters long; the most is %d", len(name), maxNameLen)
	}
	if len(note) > maxNoteLen {
		return fmt.Errorf("note is %d bytes long; the most is %d", len(note), maxNoteLen)
	}
	if len(metadata) > maxMetadataLen {
		return fmt.Errorf("metadata has %d entries; the most is %d", len(metadata), maxMetadataLen)
	}
	for k, v := range metadata {
		if k == "" || len(k) > maxNameLen || len(v) > maxValueLen {
			return fmt.Errorf("metadata %.40q: a key has 1 to %d bytes and a value at most %d", k, maxNameLen, maxValueLen)
		}
	}
	return nil
}

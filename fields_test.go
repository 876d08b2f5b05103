// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

func TestNearest_FindsMisspellingsAndLeavesStrangersAlone(t *testing.T) {
	known := []string{"allowed_entity_ids", "base_url", "enabled", "key", "models", "ttl"}
	for name, want := range map[string]string{
		"modles": "models", "model": "models", "MODELS": "models", "base_ulr": "base_url", "baseurl": "base_url", "enable": "enabled",
		"allowed_entitiy_id": "allowed_entity_ids", "keys": "key", "kye": "", "ttls": "ttl",
		"budget": "", "x": "", "": "", "模型": "", strings.Repeat("models", 1000): "",
	} {
		if got := nearest(name, known); got != want {
			t.Errorf("nearest to %.20q is %q, want %q", name, got, want)
		}
	}
}

func TestEditDistance_CountsInsertionsDeletionsAndSubstitutions(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"", "abc", 3}, {"kitten", "sitting", 3}, {"abc", "abc", 0}, {"abc", "xabc", 1}, {"flaw", "lawn", 2}} {
		if got := editDistance(c.a, c.b); got != c.want {
			t.Errorf("%q to %q is %d, want %d", c.a, c.b, got, c.want)
		}
		if got := editDistance(c.b, c.a); got != c.want {
			t.Errorf("%q to %q is %d, want %d", c.b, c.a, got, c.want)
		}
	}
}

func TestDecodeJSONText_TouchesOnlyTextOfMapFields(t *testing.T) {
	schema := map[string]*framework.FieldSchema{"m": {Type: framework.TypeMap}, "n": {Type: framework.TypeMap}, "s": {Type: framework.TypeString}}
	data := map[string]any{"m": `{"a":{"b":1}}`, "n": map[string]any{"c": 2}, "s": `{"d":3}`, "unknown": `{"e":4}`}
	if err := decodeJSONText(data, schema); err != nil {
		t.Fatal(err)
	}
	got, _ := json.Marshal(data)
	if want := `{"m":{"a":{"b":1}},"n":{"c":2},"s":"{\"d\":3}","unknown":"{\"e\":4}"}`; string(got) != want {
		t.Errorf("decoded to %s", got)
	}
	if err := decodeJSONText(nil, schema); err != nil {
		t.Error(err)
	}
}

func TestPage_CutsBehindAfterAndAtLimit(t *testing.T) {
	names := []string{"a", "b", "c", "d"}
	for _, c := range []struct {
		after string
		limit int
		want  string
	}{{"", 0, "[a b c d]"}, {"", 2, "[a b]"}, {"b", 0, "[c d]"}, {"bb", 1, "[c]"}, {"z", 5, "[]"}, {"", -1, "[a b c d]"}, {"", 9, "[a b c d]"}} {
		if got := fmt.Sprint(page(names, c.after, c.limit)); got != c.want {
			t.Errorf("after %q limit %d: %s, want %s", c.after, c.limit, got, c.want)
		}
	}
}

// FuzzParseTime: a time that is taken can be stored, shown, and given back.
func FuzzParseTime(f *testing.F) {
	for _, seed := range []string{
		"", " ", "0", "-1", "1893456000", "34359738367", "34359738368", "99999999999999999999", "1e9", "2027-01-31T00:00:00Z", "2027-01-31t00:00:00z",
		"2027-01-31T00:00:00.999999999+14:00", "9999-12-31T23:59:59-01:00", "0000-01-01T00:00:00+01:00", "0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z",
		"2027-02-30T00:00:00Z", "2027-01-31", "soon", "２０２７", "\x00", "2027-01-31T24:00:00Z",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, given string) {
		parsed, err := parseTime(given)
		if err != nil {
			if !parsed.IsZero() || !strings.Contains(err.Error(), "expires_at") {
				t.Errorf("%q: %v with the error %v", given, parsed, err)
			}
			return
		}
		if parsed.IsZero() {
			if strings.TrimSpace(given) != "" {
				t.Errorf("%q is taken for never", given)
			}
			return
		}
		if _, err := json.Marshal(parsed); err != nil {
			t.Errorf("%q can't be stored: %v", given, err)
		}
		again, err := parseTime(parsed.Format(time.RFC3339))
		if err != nil || !again.Equal(parsed.Truncate(time.Second)) {
			t.Errorf("%q is shown as %s, which gives %v %v", given, parsed.Format(time.RFC3339), again, err)
		}
	})
}

// FuzzDecodeJSONText: what is accepted is an object, whatever the text.
func FuzzDecodeJSONText(f *testing.F) {
	for _, seed := range []string{"", " ", "{}", `{"a":1}`, `{"a":null}`, "null", "[]", "1", `"x"`, `{"a":1}{`, `{"a":1,"a":2}`, `{"\ud800":1}`, strings.Repeat(`{"a":`, 100), "{\"a\":1e999}", "\xff"} {
		f.Add(seed)
	}
	schema := map[string]*framework.FieldSchema{"params": {Type: framework.TypeMap}}
	f.Fuzz(func(t *testing.T, given string) {
		data := map[string]any{"params": given}
		err := decodeJSONText(data, schema)
		if _, isObject := data["params"].(map[string]any); isObject != (err == nil) {
			t.Errorf("%q became %#v with the error %v", given, data["params"], err)
		}
	})
}

// FuzzRole_AnyData: whatever is written to a role is taken and can be read
// back, by a process started afresh too, or is refused as the caller's fault.
func FuzzRole_AnyData(f *testing.F) {
	for _, seed := range []string{
		`{"key":"a"}`, `{}`, `null`, `{"key":null}`, `{"key":["a"]}`, `{"key":{"a":"a"}}`, `{"key":5}`, `{"key":"a","models":null}`,
		`{"key":"a","models":"x,y"}`, `{"key":"a","models":{"a":1}}`, `{"key":"a","models":{}}`, `{"key":"a","models":[["x"]]}`, `{"key":"a","models":[1,null,true]}`,
		`{"key":"a","ttl":1e300}`, `{"key":"a","ttl":-1e300}`, `{"key":"a","ttl":null}`, `{"key":"a","ttl":{}}`, `{"key":"a","ttl":"1d"}`, `{"key":"a","ttl":0.1}`,
		`{"key":"a","expires_at":1e300}`, `{"key":"a","expires_at":true}`, `{"key":"a","expires_at":"9999-12-31T23:59:59-01:00"}`, `{"key":"a","expires_at":[]}`,
		`{"key":"a","enabled":null}`, `{"key":"a","enabled":2}`, `{"key":"a","enabled":"false"}`, `{"key":"a","enabled":{}}`,
		`{"key":"a","default_params":{"model":null}}`, `{"key":"a","default_params":"{\"model\":\"\\ud800\"}"}`, `{"key":"a","default_params":{"":{"":null}}}`,
		`{"key":"a","default_params":[]}`, `{"key":"a","forced_params":[{"a":1}]}`, `{"key":"a","forced_params":{"n":1e300,"x":[null,{"y":null}]}}`, `{"key":"a","forced_params":"null"}`,
		`{"key":"a","metadata":{"a":{}}}`, `{"key":"a","metadata":{"a":null}}`, `{"key":"a","metadata":"a=b"}`, `{"key":"a","metadata":["a=b","c"]}`, `{"key":"a","note":"\u0000"}`,
		`{"key":"a","allowed_aliases":"/"}`, `{"key":"a","allowed_aliases":"x/y"}`, `{"key":"a","name":"other"}`, `{"key":"a","name":{}}`, `{"limits":[]}`, `{"ke":"a"}`, `{"key":"../a"}`, `{"key":"a/../a"}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, given string) {
		var data map[string]any
		if json.Unmarshal([]byte(given), &data) != nil {
			return // Vault hands over only JSON objects
		}
		m := newMount(t, Options{Now: newClock().now})
		m.write("keys/a", openaiKey(secretA))
		m.write("roles/there", map[string]any{"key": "a", "default_params": map[string]any{"n": 1}, "metadata": map[string]any{"a": "b"}, "ttl": "1h"})
		for _, c := range []struct {
			op   logical.Operation
			path string
		}{
			{logical.UpdateOperation, "roles/new"}, {logical.UpdateOperation, "roles/there"}, {logical.PatchOperation, "roles/there"},
		} {
			resp, err := m.call(c.op, c.path, data)
			if err == nil && !resp.IsError() && m.read(c.path) == nil {
				t.Errorf("%s %s %s was accepted, and is not there", c.op, c.path, given)
			}
			if coded, isCoded := err.(logical.HTTPCodedError); err != nil && !isUserError(err) && (!isCoded || coded.Code() >= 500) {
				t.Errorf("%s %s %s is taken for the server's fault: %v", c.op, c.path, given, err)
			}
		}
		fresh := newMountOn(t, Options{}, m.storage)
		if was, is := fmt.Sprint(m.everything()), fmt.Sprint(fresh.everything()); was != is {
			t.Errorf("%s: %s\nafter a restart %s", given, was, is)
		}
		checkReferences(t, m.storage)
	})
}

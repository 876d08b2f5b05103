// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"vault-plugin-secrets-portkey/internal/relay"
	"vault-plugin-secrets-portkey/internal/wire"
)

// bodyOf is a body as readJSON leaves it; nil for what it refuses.
func bodyOf(text []byte) *body {
	object, err := wire.ParseObject(text)
	if err != nil {
		return nil
	}
	if _, repeated := object.Repeated(); repeated || object.CheckKeys([]string{"model"}) != nil {
		return nil
	}
	b := &body{object: object}
	if b.model, _, err = object.String("model"); err != nil {
		return nil
	}
	if b.model == relay.DefaultModel {
		b.model = ""
	}
	return b
}

func TestShown_IsTheModelAndTheOtherFieldsWithoutWhatTheyHold(t *testing.T) {
	for _, c := range []struct {
		text, model string
		modelOnly   bool
		want        string
	}{
		{`{}`, "", false, `{}`},
		{`{}`, "m", false, `{"model":"m"}`},
		{`{"model":"m"}`, "m", false, `{"model":"m"}`},
		{`{"n":1,"model":"m"}`, "m", false, `{"model":"m","n":1}`},
		{`{"model":"m","s":"x\u0041","t":true,"f":false,"z":null,"n":-1.5e3}`, "m", false, `{"model":"m","s":"xA","t":true,"f":false,"z":null,"n":-1.5e3}`},
		{`{"model":"m","messages":[{"secret":1}],"o":{"secret":2},"e":[],"p":{}}`, "m", false, `{"model":"m","messages":null,"o":null,"e":null,"p":null}`},
		{`{"model":"m","n":1,"s":"x","messages":[]}`, "m", true, `{"model":"m","n":null,"s":null,"messages":null}`},
		{` { "a" : [ 1 ] , "b" : "c" } `, "m", false, `{"model":"m","a":null,"b":"c"}`},
		{`{"model":null,"a":1}`, "", false, `{"model":null,"a":1}`},
		{`{"model":null,"a":1}`, "from-the-path", false, `{"model":"from-the-path","a":1}`},
		{`{"model":"portkey-default","a":1}`, "", false, `{"a":1}`},
		{`{"model":"portkey\u002ddefault","a":1}`, "", false, `{"a":1}`},
		{`{"model":"portkey-default","a":1}`, "from-the-path", false, `{"model":"from-the-path","a":1}`},
		{`{"model":"models/m","a":1}`, "m", false, `{"model":"m","a":1}`},
		{`{"model":"m","k\u0065y":1,"\"\\\n":2,"é":3,"<":4}`, "m", false, `{"model":"m","key":1,"\"\\\n":2,"é":3,"<":4}`},
		{`{"model":"m\"<\u2028"}`, "m\"<\u2028", false, `{"model":"m\"\u003c\u2028"}`},
	} {
		got, err := bodyOf([]byte(c.text)).shown(c.model, c.modelOnly)
		if err != nil || string(got) != c.want {
			t.Errorf("%s with %q: Vault is shown %s (%v), want %s", c.text, c.model, got, err, c.want)
		}
	}
}

func TestShown_OfAForm(t *testing.T) {
	b := &body{model: "whisper-1"}
	var err error
	text := form(field("n", "1"), field("model", "whisper-1"), field("quote", "\"\\\x01<é"), field("tag[]", "a"), field("tag[]", "b"), file("file", "audio"), file("file", "audio"))
	if b.form, err = wire.NewForm(strings.NewReader(text), formType, wire.FormOptions{MaxHead: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	if err := b.form.Scan(nil); err != nil {
		t.Fatal(err)
	}
	b.later = []wire.FormField{{Name: "late", Value: []byte("x")}, {Name: "tag[]", Value: []byte("c")}, {Name: "late[]", Value: []byte{}}}
	for modelOnly, want := range map[bool]string{
		false: `{"model":"whisper-1","n":"1","quote":"\"\\\u0001\u003cé","tag[]":null,"file":null,"late":"x","late[]":""}`,
		true:  `{"model":"whisper-1","n":null,"quote":null,"tag[]":null,"file":null,"late":null,"late[]":null}`,
	} {
		if got, err := b.shown("whisper-1", modelOnly); err != nil || string(got) != want {
			t.Errorf("Vault is shown %s (%v), want %s", got, err, want)
		}
	}
}

func TestShown_OfNothingAndOfWhatIsOpaque(t *testing.T) {
	for _, b := range []*body{{}, {opaque: strings.NewReader("x")}} {
		if got, err := b.shown("", false); err != nil || string(got) != `{}` {
			t.Errorf("%s %v", got, err)
		}
		if got, err := b.shown("m", true); err != nil || string(got) != `{"model":"m"}` {
			t.Errorf("%s %v", got, err)
		}
	}
}

func TestShown_RefusesAValueThatVaultCannotTake(t *testing.T) {
	b := bodyOf([]byte(`{"model":"m","long":"` + strings.Repeat("a", maxShown-1) + `"}`))
	if _, err := b.shown("m", false); err == nil || err.Status != 413 || err.Param != "long" {
		t.Errorf("%v", err)
	}
	if got, err := b.shown("m", true); err != nil || string(got) != `{"model":"m","long":null}` {
		t.Errorf("%v", err)
	}
	b = bodyOf([]byte(`{"model":"m","long":["` + strings.Repeat("a", maxShown) + `"]}`))
	if _, err := b.shown("m", false); err != nil {
		t.Errorf("a long list is refused: %v", err)
	}
}

func TestWithMember_KeepsTheObjectOne(t *testing.T) {
	for object, want := range map[string]string{`{}`: `{"n":"v"}`, `{"a":1}`: `{"a":1,"n":"v"}`} {
		shown := []byte(object)
		if got := withMember(shown, "n", "v"); string(got) != want || string(shown) != object {
			t.Errorf("%s becomes %s", object, got)
		}
	}
}

// members decodes an object, and fails if it holds a key twice.
func members(t *testing.T, text []byte) map[string]json.RawMessage {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(text))
	if start, err := decoder.Token(); err != nil || start != json.Delim('{') {
		t.Fatalf("%q is no object: %v", text, err)
	}
	found := map[string]json.RawMessage{}
	for decoder.More() {
		key, err := decoder.Token()
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if _, twice := found[key.(string)]; twice {
			t.Fatalf("%q holds %q twice", text, key)
		}
		found[key.(string)] = value
	}
	if _, err := decoder.Token(); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	if _, err := decoder.Token(); err != io.EOF {
		t.Fatalf("%q goes on after its end: %v", text, err)
	}
	return found
}

// sameScalar compares two values after decoding.
func sameScalar(t *testing.T, a, b []byte) bool {
	t.Helper()
	decode := func(text []byte) (v any) {
		decoder := json.NewDecoder(bytes.NewReader(text))
		decoder.UseNumber()
		if err := decoder.Decode(&v); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		return v
	}
	return decode(a) == decode(b)
}

func FuzzShown(f *testing.F) {
	for _, seed := range []string{
		hello, `{}`, `{"model":"a/b","x":[{"model":"c"}],"y":{"z":[1,2]},"s":"[\"{"}`, `{"model":null}`, `{"model":"portkey-default","a":1e400}`,
		`{"\u006dodel":"x"}`, `{"a\u0000":"\ud800","é":-0}`, `{"model":"portkey\u002ddefault"}`, ` {"a" : "b" } `,
		`{"":"","a":{"b":"}"},"c":"\\\""}`,
	} {
		f.Add([]byte(seed), "", false)
		f.Add([]byte(seed), "from-the-path", true)
	}
	f.Fuzz(func(t *testing.T, text []byte, inPath string, modelOnly bool) {
		b := bodyOf(text)
		if b == nil {
			return
		}
		model := b.model
		if model == "" {
			model = inPath
		}
		got, err := b.shown(model, modelOnly)
		if err != nil {
			if err.Status != 413 || len(text) < maxShown {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		shown, sent := members(t, got), members(t, text)
		if model != "" {
			want, _ := json.Marshal(model)
			if !sameScalar(t, shown["model"], want) {
				t.Fatalf("%q is for %q, and Vault is shown %q", text, model, got)
			}
		} else if value, ok := shown["model"]; ok && string(value) != "null" && string(value) != `""` {
			t.Fatalf("%q is for no model, and Vault is shown %q", text, got)
		}
		delete(shown, "model")
		delete(sent, "model")
		if len(shown) != len(sent) {
			t.Fatalf("Vault is shown %q of %q", got, text)
		}
		for key, value := range sent {
			value = bytes.TrimSpace(value)
			hidden := modelOnly || value[0] == '{' || value[0] == '['
			switch v, ok := shown[key]; {
			case !ok:
				t.Fatalf("%q is missing in %q, which is shown of %q", key, got, text)
			case hidden && string(v) != "null", !hidden && !sameScalar(t, v, value):
				t.Fatalf("%q has %s, and Vault is shown %s", key, value, v)
			}
		}
	})
}

// FuzzCanonical proves that what the gateway compares is what reaches the plugin
// through Vault, which reads numbers as json.Number, and a transport, which reads
// them as float64.
func FuzzCanonical(f *testing.F) {
	for _, seed := range []string{
		hello, streamed, `{"a":-0,"b":-0.0,"c":0}`, `{"a":1e400}`, `{"a":1E+2,"b":100,"c":1e-7,"d":123456789012345678901234567890}`,
		`{"a":"<>&\u2028\ud83d\ude00\ud800"}`, `{"b":1,"a":{"d":[null,true],"c":{}}}`, `{"a":{"x":1,"x":2}}`, `{"\ud800":1}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if bodyOf(text) == nil {
			return
		}
		ours, oursErr := canonicalText(text)
		fields, theirsErr := vaultDecodes(text)
		if (oursErr == nil) != (theirsErr == nil) {
			t.Fatalf("%q: the gateway says %v, and Vault %v", text, oursErr, theirsErr)
		}
		if oursErr != nil {
			return
		}
		if theirs, err := canonical(fields); err != nil || theirs != ours {
			t.Fatalf("%q is another thing once Vault has read it (%v)", text, err)
		}
	})
}

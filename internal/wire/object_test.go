// SPDX-License-Identifier: MPL-2.0

package wire

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

func parse(t *testing.T, text string) *Object {
	t.Helper()
	o, err := ParseObject([]byte(text))
	if err != nil {
		t.Fatalf("ParseObject(%q): %v", text, err)
	}
	return o
}

func TestObject_EditsLeaveEveryOtherByteAlone(t *testing.T) {
	const text = "\n{ \"z\" : 9007199254740993 ,\"model\":\"a\\u0041\" , \"a\":[1,{\"model\":2}],\t\"x\":\"\\ud83d\\ude00\"} \n"
	o := parse(t, text)
	if got := string(o.Bytes()); got != text {
		t.Fatalf("without edits: %q", got)
	}
	if s, ok, err := o.String("model"); s != "aA" || !ok || err != nil {
		t.Fatalf("model: %q %v %v", s, ok, err)
	}
	o.Set("model", []byte(`"b"`))
	o.Set("new", []byte(`{"k":1}`))
	o.Set("new", []byte(`2`))
	want := strings.Replace(text, `"a\u0041"`, `"b"`, 1)
	want = strings.Replace(want, `"} `, `","new":2} `, 1)
	if got := string(o.Bytes()); got != want {
		t.Fatalf("got  %q\nwant %q", got, want)
	}
	if v, ok := o.Get("new"); !ok || string(v) != "2" {
		t.Fatalf("new: %s %v", v, ok)
	}
	if v, _ := o.Get("model"); string(v) != `"b"` {
		t.Fatalf("edited model: %s", v)
	}
}

func TestObject_SetOnAnEmptyObject(t *testing.T) {
	o := parse(t, " { } ")
	o.Set(`quote"d`, []byte("1"))
	if got := string(o.Bytes()); got != ` { "quote\"d":1} ` {
		t.Fatalf("got %q", got)
	}
}

func TestObject_RefusesWhatIsNotOneJSONObject(t *testing.T) {
	for _, text := range []string{
		"", " ", "[]", "null", `"a"`, "{", "}", "{}{}", "{} x", `{"a"}`, `{"a":}`, `{"a":1,}`, `{,"a":1}`,
		`{a:1}`, `{'a':1}`, `{"a":01}`, `{"a":1.}`, `{"a":.5}`, `{"a":+1}`, `{"a":1e}`, `{"a":-}`, `{"a":tru}`,
		`{"a":"` + "\n" + `"}`, `{"a":"\x"}`, `{"a":"\u12"}`, `{"a":"\u12g4"}`, `{"a":"x`, `{"a":"\`,
		"{\"a\":\"\xff\"}", "\xef\xbb\xbf{}", `{"a":[1,]}`, `{"a":[1 2]}`, `{"a":1 "b":2}`, `{"a" 1}`,
		`{"a":NaN}`, `{"a":1/*c*/}`, strings.Repeat(`{"a":`, 600) + "1" + strings.Repeat("}", 600),
	} {
		if o, err := ParseObject([]byte(text)); err == nil {
			t.Errorf("%.60q was accepted: %+v", text, o.members)
		}
	}
}

func TestObject_AmbiguousPolicyKeysAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		`{"model":"a","model":"b"}`:            "twice",
		`{"model":"a","\u006dodel":"b"}`:       "twice",
		`{"Model":"a"}`:                        `write it "model"`,
		`{"model":"a","MODEL":"b"}`:            `write it "model"`,
		`{"\u004dodel":"a"}`:                   `write it "model"`,
		`{"ſtream":true}`:                      `write it "stream"`,
		`{"max_toKens":1}`:                     `write it "max_tokens"`, // the Kelvin sign folds to k
		`{"stream":false,"x":1,"stream":true}`: "twice",
	} {
		err := parse(t, text).CheckKeys(PolicyKeys())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	for _, text := range []string{`{"model":"a","messages":[{"Model":1,"model":2,"model":3}]}`, `{"x":1,"x":2}`, `{}`} {
		if err := parse(t, text).CheckKeys(PolicyKeys()); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestObject_StringSaysWhenAMemberIsNoString(t *testing.T) {
	o := parse(t, `{"n":1,"null":null,"s":"x"}`)
	if _, _, err := o.String("n"); err == nil {
		t.Error("a number was taken for a string")
	}
	for _, key := range []string{"null", "absent"} {
		if _, ok, err := o.String(key); ok || err != nil {
			t.Errorf("%s: %v %v", key, ok, err)
		}
	}
}

// FuzzParseObject holds the scanner against encoding/json: the same texts are
// accepted, with the same members.
func FuzzParseObject(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"a":1}`, ` {"a" : [1,2,{"b":null}], "c":"d\n\u00e9"} `, `{"a":-0.5e+10,"b":true,"c":false}`,
		`{"a":"` + strings.Repeat("plain text ", 20) + `\""}`, `{"a":1,}`, `{"model":"x","messages":[{"role":"user","content":"hi"}]}`,
		"{\"a\":\"\u007f\u0080\"}", `{"":""}`, `{"a":"\ud800"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		o, err := ParseObject(text)
		var want map[string]json.RawMessage
		valid := json.Valid(text) && bytes.HasPrefix(bytes.TrimLeft(text, " \t\r\n"), []byte("{")) && json.Unmarshal(text, &want) == nil
		if err != nil {
			if valid && utf8Valid(text) && !strings.Contains(err.Error(), "too deeply") {
				t.Fatalf("refused valid %q: %v", text, err)
			}
			return
		}
		if !valid {
			t.Fatalf("accepted %q", text)
		}
		for key, raw := range want {
			last := lastOf(o, key)
			if !bytes.Equal(last, raw) {
				t.Fatalf("%q: member %q is %q, want %q", text, key, last, raw)
			}
		}
		o.Set("added by the test", []byte("[]"))
		if !json.Valid(o.Bytes()) {
			t.Fatalf("an edit broke %q: %q", text, o.Bytes())
		}
	})
}

func utf8Valid(text []byte) bool { return strings.ToValidUTF8(string(text), "") == string(text) }

// lastOf finds the member as encoding/json does: the last of duplicates.
func lastOf(o *Object, key string) (raw []byte) {
	for _, m := range o.members {
		if string(m.key) == key {
			raw = o.text[m.start:m.end]
		}
	}
	return raw
}

func BenchmarkParseObject4KiB(b *testing.B) {
	text := []byte(`{"model":"gpt-4o-mini","stream":true,"max_tokens":256,"messages":[{"role":"system","content":"` +
		strings.Repeat("You are a careful assistant. ", 60) + `"},{"role":"user","content":"` +
		strings.Repeat("What is the capital of France? ", 70) + `"}]}`)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseObject(text); err != nil {
			b.Fatal(err)
		}
	}
}

func TestObject_SetTakesAnyKey(t *testing.T) {
	for _, key := range []string{"plain", "", `quo"te`, `back\slash`, "new\nline", "ключ", "\u2028", "\x7f", "a\x00"} {
		o := parse(t, `{"a":1}`)
		o.Set(key, []byte("2"))
		var got map[string]int
		if err := json.Unmarshal(o.Bytes(), &got); err != nil || got[key] != 2 || len(got) != 2 && key != "a" {
			t.Errorf("%q: %s: %v", key, o.Bytes(), err)
		}
	}
}

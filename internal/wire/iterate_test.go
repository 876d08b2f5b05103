// SPDX-License-Identifier: MPL-2.0

package wire

import (
	"fmt"
	"strings"
	"testing"
)

func TestAll_YieldsEveryMemberAsEdited(t *testing.T) {
	o, err := ParseObject([]byte(`{"model": "m", "a\u0062": [1, 2], "n":1e400}`))
	if err != nil {
		t.Fatal(err)
	}
	o.Set("model", []byte(`"other"`))
	o.Set("added", []byte(`true`))
	var got []string
	for key, value := range o.All() {
		got = append(got, string(key)+"="+string(value))
	}
	if want := `model="other" ab=[1, 2] n=1e400 added=true`; strings.Join(got, " ") != want {
		t.Errorf("%v, want %s", got, want)
	}
	for range o.All() {
		break // it stops when it is told to
	}
}

func TestRepeated_FindsAKeyThatStandsTwice(t *testing.T) {
	many := func(extra string) string {
		var b strings.Builder
		b.WriteString("{")
		for i := range 50 {
			fmt.Fprintf(&b, `"k%d":%d,`, i, i)
		}
		return b.String() + extra + "}"
	}
	for text, want := range map[string]string{
		`{}`: "", `{"a":1}`: "", `{"a":1,"A":2}`: "", `{"a":{"b":1,"b":2}}`: "",
		`{"a":1,"b":2,"a":3}`: "a", `{"a":1,"\u0061":2}`: "a", `{"":1,"":2}`: "",
		many(`"x":1`): "", many(`"k7":1`): "k7", many(`"k\u0037":1`): "k7",
	} {
		o, err := ParseObject([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		key, repeated := o.Repeated()
		if key != want || repeated != (want != "" || text == `{"":1,"":2}`) {
			t.Errorf("%.60s: %q %v", text, key, repeated)
		}
	}
}

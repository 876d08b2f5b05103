// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
)

// vectors returns the embeddings of an answer, whatever their encoding.
func vectors(t *testing.T, body string) [][]float32 {
	t.Helper()
	var all [][]float32
	for _, d := range object(t, body)["data"].([]any) {
		var v []float32
		switch e := at(t, d, "embedding").(type) {
		case string:
			raw, err := base64.StdEncoding.DecodeString(e)
			if err != nil || len(raw)%4 != 0 {
				t.Fatalf("%v, %d bytes", err, len(raw))
			}
			for ; len(raw) > 0; raw = raw[4:] {
				v = append(v, math.Float32frombits(binary.LittleEndian.Uint32(raw)))
			}
		case []any:
			for _, f := range e {
				v = append(v, float32(f.(float64)))
			}
		}
		all = append(all, v)
	}
	return all
}

func TestEmbeddings_AreUnitVectorsAndTheSameInBothEncodings(t *testing.T) {
	s := New(Options{})
	for _, dimensions := range []int{1, 64, 1536} {
		ask := func(encoding string) string {
			return post(t, s, pathEmbeddings, minimal(pathEmbeddings, "sandbox-embedding", fmt.Sprintf(`,"dimensions":%d%s`, dimensions, encoding)))
		}
		floats := vectors(t, ask(""))
		if encoded := vectors(t, ask(`,"encoding_format":"base64"`)); !reflect.DeepEqual(floats, encoded) {
			t.Errorf("%d dimensions: floats and base64 differ", dimensions)
		}
		var square float64
		for _, f := range floats[0] {
			square += float64(f) * float64(f)
		}
		if len(floats[0]) != dimensions || math.Abs(square-1) > 1e-5 {
			t.Errorf("%d dimensions of %d, length %g", len(floats[0]), dimensions, math.Sqrt(square))
		}
	}
}

func TestEmbeddings_OfAllKindsOfInputInTheirOrder(t *testing.T) {
	s := New(Options{})
	ask := func(input string) ([][]float32, float64) {
		body := post(t, s, pathEmbeddings, `{"model":"sandbox-embedding","dimensions":8,"input":`+input+`}`)
		for i, d := range object(t, body)["data"].([]any) {
			if at(t, d, "index") != float64(i) {
				t.Errorf("%s: index %v at %d", input, at(t, d, "index"), i)
			}
		}
		return vectors(t, body), at(t, object(t, body), "usage", "prompt_tokens").(float64)
	}
	a, _ := ask(`"a"`)
	b, _ := ask(`["b"]`)
	both, tokens := ask(`["a","b"]`)
	if !reflect.DeepEqual(both, [][]float32{a[0], b[0]}) || reflect.DeepEqual(a, b) || tokens != 2 {
		t.Errorf("%v %v %v, %v tokens", a, b, both, tokens)
	}
	one, tokens := ask(`[1,2,3]`)
	if len(one) != 1 || tokens != 3 {
		t.Errorf("%d vectors, %v tokens", len(one), tokens)
	}
	lists, tokens := ask(`[[1,2,3],[4]]`)
	if len(lists) != 2 || tokens != 4 || !reflect.DeepEqual(lists[0], one[0]) {
		t.Errorf("%d vectors, %v tokens", len(lists), tokens)
	}
}

func TestEmbeddings_FewerDimensionsAreTheBeginningOfMore(t *testing.T) {
	few, many := unitVector("x", 4), unitVector("x", 1536)
	for i := range few {
		if math.Abs(float64(few[i]/few[0]-many[i]/many[0])) > 1e-5 {
			t.Errorf("dimension %d: %g of %g, %g of %g", i, few[i], few[0], many[i], many[0])
		}
	}
}

// The figures keep embeddings from changing between versions and machines.
func TestEmbeddings_StayTheSame(t *testing.T) {
	if got := unitVector("hello", 3); fmt.Sprint(got) != "[0.4631718 -0.21419576 -0.85999537]" {
		t.Errorf("%v", got)
	}
}

func TestEmbeddings_BoundsOfOneRequest(t *testing.T) {
	s := New(Options{})
	for input, status := range map[string]int{
		`["x"` + strings.Repeat(`,"x"`, 2047) + `]`:                             200,
		`["x"` + strings.Repeat(`,"x"`, 2048) + `]`:                             400,
		`["x"` + strings.Repeat(`,"`+strings.Repeat("x", 4*8192)+`"`, 37) + `]`: 400,
		`[]`: 400, `[[]]`: 400,
	} {
		got, _, body := do(t, s, request(t, "POST", pathEmbeddings, `{"model":"sandbox-embedding","dimensions":1,"input":`+input+`}`))
		if got != status {
			t.Errorf("%.20s, %d bytes: %d %.200s", input, len(input), got, body)
		}
	}
}

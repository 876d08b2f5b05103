// SPDX-License-Identifier: MPL-2.0

package relay

import (
	"bytes"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
)

// chunked returns text in reads of random length, sometimes with the error
// beside the last bytes.
type chunked struct {
	text []byte
	rng  *rand.Rand
}

func (c *chunked) Read(p []byte) (int, error) {
	if len(c.text) == 0 {
		return 0, io.EOF
	}
	n := min(len(p), len(c.text), c.rng.IntN(9))
	copy(p, c.text[:n])
	c.text = c.text[n:]
	if len(c.text) == 0 && c.rng.IntN(2) == 0 {
		return n, io.EOF
	}
	return n, nil
}

func TestMask_HoldsForEverySplitOfTheBytes(t *testing.T) {
	const seed = 1
	rng := rand.New(rand.NewPCG(seed, seed))
	secrets := []string{"abcabcabd", "ab/cd", `ab\/cd`}
	m := masked(secrets...)
	for range 5000 {
		var text strings.Builder
		for range rng.IntN(12) {
			switch rng.IntN(4) {
			case 0:
				text.WriteString(secrets[rng.IntN(len(secrets))])
			default:
				text.WriteByte(`abcd/\x`[rng.IntN(7)])
			}
		}
		// The reference: replace what stands in the whole text.
		want := []byte(text.String())
		m.bytes(want)
		got, err := io.ReadAll(m.reader(&chunked{[]byte(text.String()), rng}))
		if err != nil || len(got) != len(want) {
			t.Fatalf("%q: got %q, %v", text.String(), got, err)
		}
		for _, s := range secrets {
			if bytes.Contains(got, []byte(s)) {
				t.Fatalf("%q: %q is in %q", text.String(), s, got)
			}
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("%q: got %q, want %q", text.String(), got, want)
		}
	}
}

func TestMask_HoldsBackNothingButBeginningsOfASecret(t *testing.T) {
	pr, pw := io.Pipe()
	r := masked("secret").reader(pr)
	buf := make([]byte, 100)
	for _, c := range []struct {
		writes []string
		read   string
	}{
		{[]string{"data: x\n\n"}, "data: x\n\n"}, {[]string{"abc se"}, "abc "}, {[]string{"t"}, "set"}, {[]string{"sec", "retz"}, "******z"},
	} {
		go func() {
			for _, w := range c.writes {
				_, _ = io.WriteString(pw, w)
			}
		}()
		n, err := r.Read(buf)
		if err != nil || string(buf[:n]) != c.read {
			t.Fatalf("after %q: %q %v, want %q", c.writes, buf[:n], err, c.read)
		}
	}
}

func TestMask_ErrorsPassAndKeepWhatCameBefore(t *testing.T) {
	r := masked("secret").reader(io.MultiReader(strings.NewReader("abc sec"), iotest.ErrReader(io.ErrUnexpectedEOF)))
	got, err := io.ReadAll(r)
	if string(got) != "abc sec" || err != io.ErrUnexpectedEOF {
		t.Fatalf("%q %v", got, err)
	}
}

func FuzzMask(f *testing.F) {
	f.Add("secret-key", "xx secret-key yy secret-ke", uint64(3))
	f.Add("aaaaaaab", "aaaaaaaaaaaaab", uint64(4))
	f.Fuzz(func(t *testing.T, secret, text string, seed uint64) {
		if len(secret) < 8 || len(secret) > 400 || strings.Contains(secret, "*") {
			return
		}
		got, err := io.ReadAll(masked(secret).reader(&chunked{[]byte(text), rand.New(rand.NewPCG(seed, 1))}))
		if err != nil || len(got) != len(text) || strings.Contains(string(got), secret) {
			t.Fatalf("secret %q text %q: %q %v", secret, text, got, err)
		}
	})
}

// masked is a mask of texts.
func masked(secrets ...string) *mask {
	var list [][]byte
	for _, s := range secrets {
		if s != "" {
			list = append(list, []byte(s))
		}
	}
	m := newMask(list)
	return &m
}

// SPDX-License-Identifier: MPL-2.0

package relay

import (
	"bytes"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"

	"vault-plugin-secrets-portkey/internal/provider"
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

// The search finds what bytes.Index finds, wherever the rare byte stands and however
// often the answer has it.
func TestMask_SearchIsThatOfBytesIndex(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	random := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = "abZ"[rng.IntN(3)]
		}
		return b
	}
	found := 0
	for range 100_000 {
		text, secret := random(rng.IntN(60)), provider.NewMask(string(random(1+rng.IntN(6))))
		want := bytes.Index(text, secret.Text)
		if got := indexSecret(text, &secret); got != want {
			t.Fatalf("%q in %q: found at %d, expected %d", secret.Text, text, got, want)
		}
		if want >= 8 {
			found++
		}
	}
	if found < 1000 {
		t.Errorf("only %d were far enough inside", found)
	}
}

// masked is a mask of texts.
func masked(secrets ...string) *mask {
	var list []provider.Mask
	for _, s := range secrets {
		if s != "" {
			list = append(list, provider.NewMask(s))
		}
	}
	m := newMask(list)
	return &m
}

func BenchmarkMask(b *testing.B) {
	m := masked("sk-proj-Qm4fT9xLbV2nC7wRkJ8aZe1Hs5Yd3Gu6")
	text := bytes.Repeat([]byte("Whoever holds it may ask for completions until its limit is reached, and not for one more. "), 45)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		m.bytes(text)
	}
}

// What is held back is the longest end that begins a secret, whatever else is there.
func TestMask_HoldsTheLongestBeginningOfASecret(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	random := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = "ab"[rng.IntN(2)]
		}
		return string(b)
	}
	seen := map[int]int{}
	for range 100_000 {
		text, secrets := random(rng.IntN(10)), []string{random(1 + rng.IntN(6)), random(1 + rng.IntN(6))}
		want := 0
		for _, secret := range secrets {
			for n := range len(secret) {
				if strings.HasSuffix(text, secret[:n]) {
					want = max(want, n)
				}
			}
		}
		if got := masked(secrets...).held([]byte(text)); got != want {
			t.Fatalf("%q and %q: %d bytes held, expected %d", text, secrets, got, want)
		}
		seen[want]++
	}
	if len(seen) != 6 {
		t.Errorf("held: %v", seen)
	}
}

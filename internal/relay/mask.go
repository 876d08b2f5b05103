// SPDX-License-Identifier: MPL-2.0

package relay

import (
	"bytes"
	"io"
	"strings"

	"vault-plugin-secrets-portkey/internal/provider"
)

// mask overwrites secrets in what a provider answers. A masked secret keeps
// its length, so that nothing moves and Content-Length stays right.
type mask struct {
	secrets []provider.Mask
	longest int
}

// newMask returns a mask of secrets, which it keeps.
func newMask(secrets []provider.Mask) mask {
	m := mask{secrets: secrets}
	for i := range secrets {
		m.longest = max(m.longest, len(secrets[i].Text))
	}
	return m
}

func (m *mask) string(s string) string {
	for i := range m.secrets {
		if secret := m.secrets[i].Text; len(s) >= len(secret) && strings.Contains(s, string(secret)) {
			b := []byte(s)
			m.bytes(b)
			return string(b)
		}
	}
	return s
}

// bytes masks every secret that lies wholly in b.
func (m *mask) bytes(b []byte) {
	for i := range m.secrets {
		secret := &m.secrets[i]
		for rest := b; ; {
			at := indexSecret(rest, secret)
			if at < 0 {
				break
			}
			for j := range secret.Text {
				rest[at+j] = '*'
			}
			rest = rest[at+len(secret.Text):]
		}
	}
}

// indexSecret is bytes.Index, which looks for the first byte of what it searches: in
// an answer, that of a key is everywhere.
func indexSecret(b []byte, secret *provider.Mask) int {
	text, rare := secret.Text, secret.Rare
	for at, tries := 0, 8; len(b)-at >= len(text); tries-- {
		if tries == 0 { // it isn't rare here
			if i := bytes.Index(b[at:], text); i >= 0 {
				return at + i
			}
			return -1
		}
		i := bytes.IndexByte(b[at+rare:], text[rare])
		if i < 0 {
			return -1
		}
		at += i
		if bytes.HasPrefix(b[at:], text) {
			return at
		}
		at++
	}
	return -1
}

// held returns how many bytes at the end of b may be the beginning of a
// secret.
func (m *mask) held(b []byte) int {
	if len(b) == 0 {
		return 0
	}
	longest := 0
	for i := range m.secrets {
		secret := m.secrets[i].Text
		if bytes.IndexByte(secret, b[len(b)-1]) < 0 { // as after nearly every event
			continue
		}
		for rest := b[max(len(b)-len(secret)+1, 0):]; len(rest) > longest; rest = rest[1:] {
			at := bytes.IndexByte(rest, secret[0])
			if at < 0 {
				break
			}
			if rest = rest[at:]; bytes.HasPrefix(secret, rest) {
				longest = max(longest, len(rest))
				break
			}
		}
	}
	return longest
}

// reader returns r with secrets masked, however they are split over reads. It
// holds back only bytes that may be the beginning of a secret.
func (m *mask) reader(r io.Reader) io.Reader {
	if len(m.secrets) == 0 {
		return r
	}
	return &maskReader{mask: m, from: r}
}

type maskReader struct {
	mask  *mask
	from  io.Reader
	carry []byte // read, but not yet known to be no secret
	ended error
}

// Read implements io.Reader. p must be longer than the longest secret.
func (r *maskReader) Read(p []byte) (int, error) {
	if len(p) <= r.mask.longest {
		return 0, io.ErrShortBuffer
	}
	for r.ended == nil {
		n := copy(p, r.carry)
		m, err := r.from.Read(p[n:])
		n += m
		r.ended = err
		r.mask.bytes(p[:n])
		hold := 0
		if err == nil {
			hold = r.mask.held(p[:n])
		}
		r.carry = append(r.carry[:0], p[n-hold:n]...)
		if n -= hold; n > 0 {
			return n, r.ended
		}
	}
	return 0, r.ended
}

// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"
)

// smallestRSA is what NIST SP 800-131A allows for signatures at the least.
const smallestRSA = 2048

// tlsConfig is for TLS 1.2 or newer with Go's suites. certificate is asked at
// every handshake.
func tlsConfig(certificate func() *tls.Certificate) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return certificate(), nil
		},
	}
}

// checkValidity says whether the certificate is good at now.
func (s *listenSettings) checkValidity(now time.Time) error {
	if s.certificate == nil {
		return nil
	}
	leaf := s.certificate.Leaf
	if now.After(leaf.NotAfter) {
		return certificateExpired(leaf.NotAfter)
	}
	if now.Before(leaf.NotBefore) {
		return fmt.Errorf("tls_certificate: not valid before %s; look at this machine's clock too", leaf.NotBefore.UTC().Format(time.RFC3339))
	}
	return nil
}

func certificateExpired(at time.Time) error {
	return fmt.Errorf("tls_certificate: expired at %s; write a new one with its tls_key", at.UTC().Format(time.RFC3339))
}

// parsePair parses a certificate with its chain, and its private key. It is
// used instead of tls.X509KeyPair so that the error says which is at fault and
// quotes nothing of the key, and so that a key TLS can't use is found here and
// not at the first handshake.
func parsePair(certificate, key []byte) (*tls.Certificate, error) {
	chain, err := parseChain(certificate)
	if err != nil {
		return nil, err
	}
	private, err := parseKey(key)
	if err != nil {
		return nil, err
	}
	if err := checkKey(private.Public()); err != nil {
		return nil, err
	}
	public, ok := private.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(chain[0].PublicKey) {
		for _, other := range chain[1:] {
			if ok && public.Equal(other.PublicKey) {
				return nil, errors.New("tls_certificate: the certificate of tls_key must come first, before those that signed it")
			}
		}
		return nil, errors.New("tls_key: doesn't belong to tls_certificate")
	}
	pair := &tls.Certificate{PrivateKey: private, Leaf: chain[0]}
	for _, c := range chain {
		pair.Certificate = append(pair.Certificate, c.Raw)
	}
	return pair, nil
}

func parseChain(text []byte) ([]*x509.Certificate, error) {
	var chain []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			return nil, errors.New("tls_certificate: holds a private key, and this setting can be read; give the key as tls_key")
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("tls_certificate: certificate %d can't be parsed: %w", len(chain)+1, err)
		}
		chain = append(chain, c)
	}
	if len(chain) == 0 {
		return nil, errors.New("tls_certificate: holds no PEM block of a certificate (-----BEGIN CERTIFICATE-----)")
	}
	return chain, nil
}

func parseKey(text []byte) (crypto.Signer, error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			continue
		}
		if block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "" {
			return nil, errors.New("tls_key: is encrypted; decrypt it first, such as with openssl pkey")
		}
		if key := parseKeyBytes(block.Bytes); key != nil {
			return key, nil
		}
		return nil, errors.New("tls_key: can't be parsed; PKCS #8, PKCS #1 (RSA) and SEC 1 (EC) are understood")
	}
	return nil, errors.New("tls_key: holds no PEM block of a private key (-----BEGIN PRIVATE KEY-----)")
}

// parseKeyBytes tries the three encodings, since some programs name the wrong
// one. The errors are dropped: they could quote what was parsed.
func parseKeyBytes(der []byte) crypto.Signer {
	if key, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		signer, _ := key.(crypto.Signer)
		return signer
	}
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return key
	}
	return nil
}

// checkKey refuses what TLS doesn't know (RFC 8446 §4.2.3 and Go's crypto/tls)
// or is too weak.
func checkKey(public crypto.PublicKey) error {
	switch k := public.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() < smallestRSA {
			return fmt.Errorf("tls_key: an RSA key of %d bits is too weak; use %d or more, or ECDSA", k.N.BitLen(), smallestRSA)
		}
		return nil
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() || k.Curve == elliptic.P384() || k.Curve == elliptic.P521() {
			return nil
		}
	case ed25519.PublicKey:
		return nil
	}
	return errors.New("tls_key: must be RSA, ECDSA (P-256, P-384, P-521) or Ed25519")
}

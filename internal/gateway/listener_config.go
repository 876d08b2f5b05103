// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// ListenConfig says where and how the gateway listens. It is checked by Check.
type ListenConfig struct {
	// Address is host:port. The host is an IP address, a name that resolves to
	// one of this machine, or empty for all addresses; port 0 picks a free one.
	Address string
	// Certificate and Key are PEM: the server's certificate first, then the
	// intermediate ones. Both are empty for plain HTTP.
	Certificate, Key []byte
	// PlainHTTP allows plain HTTP on other than loopback addresses.
	PlainHTTP bool
	// MaxConnections is how many may be open, those of an address that was
	// left included; at least 1. One past it is closed at once, and counted.
	MaxConnections int
	// MaxHeaderBytes is the most that the header of a request may take; 64 KiB
	// if 0; net/http allows up to 4 KiB more. Past it the answer is 431; far
	// past it, or with one field past it, net/http ends an HTTP/2 connection.
	MaxHeaderBytes int
	// ReadHeaderTimeout is for a TLS handshake, and again for the header of
	// each HTTP/1 request; 10 s if 0. It doesn't bound a body.
	ReadHeaderTimeout time.Duration
	// KeepAlive is how long a connection without a request stays; 2 min if 0.
	KeepAlive time.Duration
}

const (
	defaultHeaderBytes = 64 << 10
	defaultReadHeader  = 10 * time.Second
	defaultKeepAlive   = 2 * time.Minute
)

// Check says what is wrong with c. The error begins with the name of the
// setting at fault: address, tls_certificate, tls_key, plain_http or
// max_connections. It shows nothing of the key. Whether the address can be
// bound, only Apply finds out.
func (c *ListenConfig) Check() error {
	s, err := c.settings()
	if err != nil {
		return err
	}
	return s.checkValidity(time.Now())
}

// listenLimits are what can't change within one http.Server.
type listenLimits struct {
	secure                bool
	headerBytes           int
	readHeader, keepAlive time.Duration
}

// listenSettings are a ListenConfig that was parsed and found good, but for the
// certificate's dates. They are never changed.
type listenSettings struct {
	listenLimits
	address        string
	host           string
	port           uint16
	plainAnywhere  bool
	maxConnections int64
	certificate    *tls.Certificate // nil for plain HTTP
}

func (c *ListenConfig) settings() (*listenSettings, error) {
	s := &listenSettings{
		address:        c.Address,
		plainAnywhere:  c.PlainHTTP,
		maxConnections: int64(c.MaxConnections),
		listenLimits: listenLimits{
			headerBytes: orDefault(c.MaxHeaderBytes, defaultHeaderBytes),
			readHeader:  orDefault(c.ReadHeaderTimeout, defaultReadHeader),
			keepAlive:   orDefault(c.KeepAlive, defaultKeepAlive),
		},
	}
	var err error
	if s.host, s.port, err = splitAddress(c.Address); err != nil {
		return nil, err
	}
	if c.MaxConnections < 1 {
		return nil, errors.New("max_connections: must be at least 1")
	}
	if c.MaxHeaderBytes < 0 || c.ReadHeaderTimeout < 0 || c.KeepAlive < 0 {
		return nil, errors.New("limits of the listener can't be negative")
	}
	switch {
	case len(c.Certificate) > 0 && len(c.Key) > 0:
		s.secure = true
		s.certificate, err = parsePair(c.Certificate, c.Key)
	case len(c.Certificate) > 0:
		err = errors.New("tls_key: missing; tls_certificate needs its private key")
	case len(c.Key) > 0:
		err = errors.New("tls_certificate: missing; tls_key needs its certificate")
	case !c.PlainHTTP && !isLoopback(s.host):
		err = errPlainHTTP(c.Address)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

func errPlainHTTP(address string) error {
	return fmt.Errorf("plain_http: other machines can reach address %s, and callers' credentials would cross the network in clear; "+
		"set tls_certificate and tls_key, listen on 127.0.0.1, or allow it with plain_http=true", address)
}

func orDefault[T int | time.Duration](v, otherwise T) T {
	if v == 0 {
		return otherwise
	}
	return v
}

func splitAddress(address string) (host string, port uint16, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, errors.New("address: this isn't host:port, such as 127.0.0.1:8300 or [::1]:8300") // not shown: it may be a secret in the wrong place
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, errors.New("address: the port isn't a number from 0 to 65535")
	}
	if _, err := netip.ParseAddr(host); err != nil && host != "" && !isHostName(host) {
		return "", 0, errors.New("address: the host is neither an IP address nor a name")
	}
	return host, uint16(n), nil
}

// isHostName holds host against RFC 1123 §2.1, with the underscore that
// container networks use.
func isHostName(host string) bool {
	if len(host) > 253 {
		return false
	}
	labels := strings.Split(strings.TrimSuffix(host, "."), ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, r := range label {
			letter := r|0x20 >= 'a' && r|0x20 <= 'z'
			if !letter && (r < '0' || r > '9') && r != '-' && r != '_' {
				return false
			}
		}
	}
	// A name whose last label is a number is a mistyped IPv4 address.
	last := labels[len(labels)-1]
	return strings.Trim(last, "0123456789") != ""
}

// isLoopback trusts the name localhost (RFC 6761 §6.3); what it was bound to is
// looked at again.
func isLoopback(host string) bool {
	if strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// sameAddress reports whether listening on a and on b is the same thing. Go
// listens on all addresses, IPv4 and IPv6, where the host is empty, 0.0.0.0
// or :: (documentation of net.Listen).
func sameAddress(a, b string) bool { return canonicalAddress(a) == canonicalAddress(b) }

func canonicalAddress(address string) string {
	host, port, err := splitAddress(address)
	if err != nil {
		return address
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		host = ip.Unmap().String()
		if ip.Unmap().IsUnspecified() {
			host = ""
		}
	}
	return net.JoinHostPort(strings.ToLower(host), strconv.Itoa(int(port)))
}

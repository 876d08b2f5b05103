// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/netip"
	"sync"

	"vault-plugin-secrets-portkey/internal/apierror"
)

// NonceField is the member of a request that brings a nonce of the gateway.
const NonceField = "gateway_nonce"

// nonces are the questions to Vault that are under way.
type nonces struct {
	mu      sync.Mutex
	pending map[digest]*pending
}

// pending is one question to Vault.
type pending struct {
	method, path, query string // path is that of the question

	fields    digest
	source    netip.Addr // the zero Addr accepts any
	wantLease bool
	since     uint64 // of sessions.count

	mu     sync.Mutex
	closed bool // nobody waits for the testimony any more
	testimony
}

// testimony is what came of a question.
type testimony struct {
	testified bool
	failure   *apierror.Error
	caller    Caller
	session   *session
	leased    bool
}

// end closes a question, and returns what came of it.
func (p *pending) end() testimony {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	return p.testimony
}

// open makes a nonce for p.
func (n *nonces) open(p *pending) (nonce string, key digest) {
	nonce, key = newSecret()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.pending == nil {
		n.pending = map[digest]*pending{}
	}
	n.pending[key] = p
	return nonce, key
}

// take returns what a nonce was made for, once.
func (n *nonces) take(nonce string) *pending {
	key := sha256.Sum256([]byte(nonce))
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.pending[key]
	delete(n.pending, key)
	return p
}

// close ends a nonce, whether or not it was used.
func (n *nonces) close(key digest) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.pending, key)
}

// Testimony is what reached the plugin through Vault with a nonce.
type Testimony struct {
	Nonce string
	// Method and Path say where it arrived; the method is GET, POST or DELETE, the
	// path is below the mount.
	Method, Path string
	// Fields are those of the body that Vault saw, and Query is the query string of
	// a GET or DELETE as url.Values encodes it, both without the nonce.
	Fields map[string]any
	Query  string
	// Remote is the address that Vault takes for the caller's.
	Remote string
	Caller
}

// Testify takes Vault's word for a question that the gateway asked: Vault has
// passed the caller's request on to the plugin. It says whether the answer must
// come with a lease, whose end is told to Revoke. The error is for the caller, whom
// Vault's answer reaches only by way of the gateway.
func (g *Gateway) Testify(t *Testimony) (lease bool, err *apierror.Error) {
	p := g.nonces.take(t.Nonce)
	if p == nil {
		return false, badNonce("this nonce was not made by the gateway just now, or has been used")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false, badNonce("the gateway has given up this question")
	}
	err = p.check(t)
	if err != nil {
		p.failure = err
	} else {
		p.caller = t.Caller
		p.session, p.leased = g.sessions.join(t.Token, p.wantLease, p.since, g.now())
	}
	p.testified = true
	return p.leased, err
}

// check compares what was asked with what arrived.
func (p *pending) check(t *Testimony) *apierror.Error {
	if t.Method != p.method || t.Path != p.path || t.Query != p.query {
		return badNonce("this nonce was made for another request")
	}
	if seen, err := canonical(t.Fields); err != nil || seen != p.fields {
		return badNonce("this nonce was made for another body")
	}
	if !p.source.IsValid() {
		return nil
	}
	remote, err := netip.ParseAddr(t.Remote)
	if err != nil || remote.Unmap().WithZone("") != p.source {
		return unknownAddress(p.source)
	}
	return nil
}

func badNonce(why string) *apierror.Error {
	return &apierror.Error{
		Status: http.StatusForbidden, Type: apierror.TypeInvalidRequest, Code: apierror.CodeNonceInvalid, Param: NonceField,
		Message: why + "; leave " + NonceField + " out, for only the gateway makes it",
	}
}

// unknownAddress says what the operator has to do so that Vault knows callers.
func unknownAddress(source netip.Addr) *apierror.Error {
	return &apierror.Error{
		Status: http.StatusForbidden, Type: apierror.TypeInvalidRequest, Code: apierror.CodeCallerAddress,
		Message: fmt.Sprintf("Vault doesn't know that this request comes from %s, since it doesn't believe the gateway's X-Forwarded-For. "+
			"Give the gateway a listener of Vault's own, and name that in vault_address of config/gateway:\n\n"+
			"listener \"tcp\" {\n  address = \"127.0.0.1:8210\"\n  tls_disable = true\n  x_forwarded_for_authorized_addrs = \"127.0.0.1\"\n}\n\n"+
			"or set caller_address=ignore, with which address-bound tokens, quotas and the audit log see the gateway's address", source),
	}
}

// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/sync/singleflight"

	"vault-plugin-secrets-portkey/internal/apierror"
)

// asking joins those who have the same question at the same time.
type asking struct{ group singleflight.Group }

// refusalTTL is how long a no of Vault's is kept, so that whoever asks the same again
// isn't guessing and no load on Vault. At a GrantTTL of 0, where a changed policy is to
// count at once, Vault is asked again all the same, but not more than maxFailures times.
const refusalTTL = 2 * time.Second

// authorise returns Vault's word on a question: a grant that is kept, or what Vault
// says now. The error is the caller's answer.
func (g *Gateway) authorise(ctx context.Context, live *live, q *question) (*grant, *apierror.Error) {
	key := live.key(q)
	found, known := g.grants.get(&key, g.now())
	if found != nil && (live.GrantTTL > 0 || found.again.Add(1) > maxFailures) {
		return found, found.refusal
	}
	if live.GrantTTL == 0 {
		granted, err := g.ask(ctx, live, q, &key, known)
		if err != nil {
			return nil, err
		}
		if granted.refusal == nil {
			// It has expired, and shows only that its caller is known.
			g.grants.put(&key, &grant{session: granted.session, expires: g.now()})
		}
		return granted, granted.refusal
	}
	began := g.sessions.count()
	for range 2 {
		granted, err := g.askTogether(ctx, live, q, &key, known)
		if err != nil {
			return nil, err
		}
		if !granted.over(began) {
			return granted, granted.refusal
		}
		// The token was revoked before this request began, which has joined a
		// question from before that.
	}
	return nil, denied(nil)
}

// askTogether is ask for all who have the same question at the same time, and
// keeps a yes too. It goes on when the first who asked has gone.
func (g *Gateway) askTogether(ctx context.Context, live *live, q *question, key *digest, known bool) (*grant, *apierror.Error) {
	type word struct {
		granted *grant
		err     *apierror.Error
	}
	result := g.asking.group.DoChan(string(key[:]), func() (any, error) {
		detached, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTimeout)
		defer cancel()
		granted, err := g.ask(detached, live, q, key, known)
		if err == nil && granted.kept && g.live.Load() == live {
			g.grants.put(key, granted)
		}
		return word{granted, err}, nil
	})
	select {
	case r := <-result:
		said := r.Val.(word)
		return said.granted, said.err
	case <-ctx.Done():
		return nil, gone(ctx)
	}
}

// ask asks Vault, for a caller who is known to be no guesser or may be one, and keeps a
// no under key: the same question again, at once, is no further guess. The error is what
// kept Vault from giving its word.
func (g *Gateway) ask(ctx context.Context, live *live, q *question, key *digest, known bool) (*grant, *apierror.Error) {
	end := func(bool) {}
	token := live.caller(q)
	if !known && !g.known.has(&token, g.now()) {
		var err *apierror.Error
		if end, err = g.failures.begin(q.source); err != nil {
			return nil, g.grants.refusedOr(key, err, g.now())
		}
	}
	failed := false
	defer func() { end(failed) }()
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()

	p := &pending{method: q.method, path: q.path, wantLease: live.GrantTTL > 0, since: g.sessions.count()}
	if !live.IgnoreCallerAddress {
		p.source = q.source
	}
	asked := g.now()
	a, err := g.put(ctx, live, q, p)
	said := p.end()
	var granted *grant
	if err == nil {
		granted, err = hear(a, &said, live, asked)
	}
	switch {
	case said.leased && (err != nil || granted.refusal != nil):
		g.sessions.end(said.caller.Token, g.now()) // the lease may not have been made
	case said.leased:
		g.sessions.watch(said.session)
	}
	if granted == nil {
		return nil, err
	}
	if granted.refusal != nil {
		failed = g.grants.refuse(key, granted, g.now())
	} else {
		granted.kept = g.sessions.watches(said.session, p.since)
	}
	g.known.learn(&token, granted.refusal == nil, granted.expires)
	return granted, nil
}

// put puts the question to Vault.
func (g *Gateway) put(ctx context.Context, live *live, q *question, p *pending) (*vaultAnswer, *apierror.Error) {
	mount := g.mount.Path()
	if mount == "" {
		return nil, vaultUnavailable("the path of the mount isn't known yet; read <mount>/healthz in Vault once")
	}
	path := vaultPath(mount, q.path)
	var body io.Reader
	var key digest
	if q.method == http.MethodPost {
		fields, err := canonicalText(q.shown)
		if err != nil {
			return nil, badRequest("", err.Error())
		}
		p.fields = fields
		var nonce string
		nonce, key = g.nonces.open(p)
		body = bytes.NewReader(withMember(q.shown, NonceField, nonce))
	} else {
		query, err := url.ParseQuery(q.query)
		if err != nil {
			return nil, badRequest("", "the query string can't be read: "+err.Error())
		}
		for _, own := range []string{"list", "help"} { // Vault would take it for another operation
			if query.Has(own) {
				return nil, badRequest(own, "a query parameter "+own+" means something of its own to Vault, which is asked with the same query; leave it out")
			}
		}
		p.fields, _ = canonical(nil)
		p.query = query.Encode()
		var nonce string
		nonce, key = g.nonces.open(p)
		query.Set(NonceField, nonce)
		path += "?" + query.Encode()
	}
	defer g.nonces.close(key)
	a, err := live.vault.ask(ctx, q.method, path, q.token, q.source, body)
	if err != nil {
		return nil, vaultUnavailable("Vault at vault_address can't be asked: " + err.Error())
	}
	return a, nil
}

// withMember adds a member to a JSON object whose text begins with { and ends
// with }.
func withMember(object []byte, name, value string) []byte {
	out := make([]byte, 0, len(object)+len(name)+len(value)+8)
	out = append(out, object[:len(object)-1]...)
	if len(object) > 2 {
		out = append(out, ',')
	}
	out = append(append(append(out, '"'), name...), `":"`...)
	return append(append(out, value...), `"}`...)
}

// hear makes a grant of Vault's answer. It takes both: that the plugin saw the nonce,
// and that Vault said yes to the caller.
func hear(a *vaultAnswer, p *testimony, live *live, asked time.Time) (*grant, *apierror.Error) {
	said := reasonsOf(a.errors)
	switch {
	case p.failure != nil:
		return nil, p.failure
	case a.status == http.StatusOK && p.testified:
		return &grant{caller: p.caller, session: p.session, expires: asked.Add(live.GrantTTL)}, nil
	case a.status == http.StatusOK:
		return nil, vaultUnavailable("Vault's answer didn't pass this plugin; vault_address of config/gateway must be that of the Vault that runs it")
	case p.testified && a.status == http.StatusBadRequest && p.leased:
		return nil, &apierror.Error{
			Status: http.StatusForbidden, Type: apierror.TypeInvalidRequest, Code: apierror.CodePermissionDenied,
			Message: "this token was on its last use, which is too few for the gateway; use it on Vault's own address, or make tokens with more uses (Vault says: " + said + ")",
		}
	case a.code == apierror.CodeNonceInvalid && !p.testified:
		return nil, vaultUnavailable("Vault's answer came from another instance of this plugin; this one is no longer the active one, or vault_address of config/gateway is another Vault's")
	case a.status == http.StatusForbidden || a.status == http.StatusUnauthorized:
		return &grant{expires: asked.Add(refusalTTL), refusal: denied(a.errors)}, nil
	case a.status == http.StatusTooManyRequests:
		return nil, &apierror.Error{
			Status: http.StatusTooManyRequests, Type: apierror.TypeRequests, Code: apierror.CodeRateLimitExceeded,
			RetryAfter: max(a.retryAfter, time.Second), Message: "a quota of Vault's is used up: " + said,
		}
	case a.status >= http.StatusInternalServerError || a.status < http.StatusBadRequest: // a redirect, or not Vault's
		return nil, vaultUnavailable(fmt.Sprintf("Vault at vault_address can't judge requests now (status %d): %s", a.status, said))
	}
	return nil, &apierror.Error{
		Status: http.StatusBadRequest, Type: apierror.TypeInvalidRequest, Code: apierror.CodeInvalidRequest,
		Message: fmt.Sprintf("Vault refused to judge the request (status %d): %s", a.status, said),
	}
}

// denied is the answer for whom Vault refuses.
func denied(said []string) *apierror.Error {
	message := "Vault refuses this token here"
	if reasons := reasonsOf(said); reasons != "" {
		message += " (" + reasons + ")"
	}
	return &apierror.Error{
		Status: http.StatusForbidden, Type: apierror.TypeInvalidRequest, Code: apierror.CodePermissionDenied,
		Message: message + ". Its policies must allow this method on <mount>/proxy/<virtual key>/<path>, " +
			"or update on <mount>/prompts/<prompt>/completions (or render) for a prompt; " +
			"one with allowed_parameters must list " + NonceField + ` or "*" there`,
	}
}

// reasonsOf is what Vault said in one line: it writes lists such as "1 error
// occurred:\n\t* permission denied\n\n".
func reasonsOf(said []string) string {
	var reasons []string
	for line := range strings.Lines(strings.Join(said, "\n")) {
		line = strings.TrimLeft(strings.TrimSpace(line), "* ")
		if line != "" && !strings.HasSuffix(line, "occurred:") {
			reasons = append(reasons, line)
		}
	}
	return strings.Join(reasons, ", ")
}

func vaultUnavailable(why string) *apierror.Error {
	return &apierror.Error{
		Status: http.StatusServiceUnavailable, Type: apierror.TypeAPI, Code: apierror.CodeVaultUnavailable, RetryAfter: time.Second, Message: why,
	}
}

// gone is why ctx has ended: the gateway's own verdict, or that the caller went away.
func gone(ctx context.Context) *apierror.Error {
	var verdict *apierror.Error
	if errors.As(context.Cause(ctx), &verdict) {
		return verdict
	}
	return &apierror.Error{Status: 499, Type: apierror.TypeAPI, Code: apierror.CodeCallerGone, Message: "the caller went away"}
}

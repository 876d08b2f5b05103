// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"context"
	"encoding/json"
	"net/http"

	"vault-plugin-secrets-portkey/internal/apierror"
)

// call is one request on its way to the relay.
type call struct {
	underway
	gateway *Gateway
	live    *live
	answer  *answer
	http    *http.Request
	route   route

	// What the caller brought to be known by: a ticket, a leased key, or a token that
	// Vault is to judge.
	ticket *ticket
	lease  *Lease
	token  string
	bearer digest // what the token's holder is known by

	query string // without credentials
	body  body
	share share  // of what bodies may take, the body's
	model string // the effective one, from wherever the request names it
	// role is the virtual key that the request is on. Of a call of a prompt, it is the
	// one that the request names, empty for none, and leased that of the caller's
	// leased key.
	role, leased string
}

// release gives back what the call held.
func (c *call) release() {
	if c.body.stop != nil {
		c.body.stop()
	}
	c.share.release()
}

func (c *call) serve(ctx context.Context) *apierror.Error {
	c.query = withoutCredentials(c.http.URL.RawQuery)
	if err := c.present(ctx); err != nil {
		return err
	}
	if err := c.read(); err != nil {
		return err
	}
	if c.route.prompt.ref != "" {
		return c.servePrompt(ctx)
	}
	caller, err := c.identify(ctx)
	if err != nil {
		return err
	}
	req, err := c.gateway.mount.Request(ctx, c.role, caller)
	if err != nil {
		return err
	}
	req.Method, req.Path, req.RawQuery, req.Header = c.http.Method, c.route.path, c.query, c.http.Header
	req.Object, req.Upload = c.body.object, c.body.upload()
	if req.Upload != nil {
		c.answer.upload = true
	}
	req.Timeout, req.Idle, req.Cancel = c.live.UpstreamTimeout, c.live.IdleTimeout, c.cancel
	c.live.cors.apply(c.answer.Header(), c.http)
	c.gateway.relay.Serve(ctx, c.answer, req)
	return nil
}

// present takes what the caller brings to be known by, before anything of the body is
// read: for whom no body could help, none is. A token can be judged only with the
// fields of the body; until then, its bearer is a stranger unless it is known.
func (c *call) present(ctx context.Context) (err *apierror.Error) {
	if c.route.ticket != "" {
		c.ticket, err = c.gateway.accept(c.route, c.http.Method, c.query)
		return err
	}
	credential, err := credentialOf(c.http)
	if err != nil {
		return err
	}
	if isLeasedKey(credential) {
		c.lease, err = c.gateway.lease(ctx, c.live, credential, sourceOf(c.http))
		return err
	}
	c.token = credential
	source := sourceOf(c.http)
	c.bearer = c.live.caller(&question{token: credential, source: source})
	if !c.gateway.known.has(&c.bearer, c.gateway.now()) {
		c.share.stranger, c.share.source, c.share.most = true, sourceBlock(source), c.live.MaxBodyBytes
	}
	return nil
}

// identify finds the caller and the virtual key, and has Vault's word that the one may
// use the other, or the prompt.
func (c *call) identify(ctx context.Context) (Caller, *apierror.Error) {
	switch {
	case c.ticket != nil:
		if err := c.ticket.match(&c.body); err != nil {
			return Caller{}, err
		}
		return c.ticket.caller, c.aim("")
	case c.lease != nil:
		return c.lease.Caller, c.aim(c.lease.Role)
	}
	if err := c.aim(""); err != nil {
		return Caller{}, err
	}
	g, err := c.granted(ctx, c.token)
	if err != nil {
		return Caller{}, err
	}
	if c.share.stranger {
		// Of a grant that is kept, Vault may have been asked before it refused the
		// token something else.
		c.gateway.known.learn(&c.bearer, true, g.expires)
		c.share.vouch()
	}
	return g.caller, nil
}

// aim finds the virtual key, for a caller whose leased key is for that called leased,
// empty for none.
func (c *call) aim(leased string) (err *apierror.Error) {
	if c.route.prompt.ref == "" {
		c.role, err = c.selectRole(leased)
		return err
	}
	c.leased = leased
	c.role, err = c.namedBeside()
	return err
}

// selectRole finds the virtual key, and takes its name out of the model.
func (c *call) selectRole(leased string) (string, *apierror.Error) {
	role, plain, err := selectRole(c.route, c.http.Header, c.body.model, leased)
	if err != nil {
		return "", err
	}
	if c.model, err = effectiveModel(c.route.path, c.query, plain); err != nil || plain == c.body.model {
		return role, err
	}
	if c.body.object == nil {
		return "", badRequest("model", "a form isn't changed on its way, so name the virtual key in the path or by x-portkey-virtual-key, and the model without it")
	}
	c.setModel(plain)
	return role, nil
}

// setModel changes the model of a JSON body.
func (c *call) setModel(model string) {
	value, _ := json.Marshal(model) // strings always marshal
	c.body.object.Set("model", value)
	c.body.model = model
}

// granted has Vault's word that the token may send this request.
func (c *call) granted(ctx context.Context, token string) (*grant, *apierror.Error) {
	q := &question{token: token, source: sourceOf(c.http), method: c.http.Method, path: c.route.below(c.role)}
	if q.method == http.MethodPost {
		var err *apierror.Error
		if q.shown, err = c.body.shown(c.model, c.live.ModelOnly); err != nil {
			return nil, err
		}
		if c.body.form != nil {
			c.askLater(ctx, q)
		}
	} else {
		q.query = c.query
	}
	return c.gateway.authorise(ctx, c.live, q)
}

// askLater has Vault judge fields of a form that come after those that it was shown.
func (c *call) askLater(ctx context.Context, q *question) {
	ctx, c.body.stop = context.WithCancel(ctx)
	c.body.ask = func() *apierror.Error {
		again := *q
		var err *apierror.Error
		if again.shown, err = c.body.shown(c.model, c.live.ModelOnly); err != nil {
			return err
		}
		_, err = c.gateway.authorise(ctx, c.live, &again)
		return err
	}
}

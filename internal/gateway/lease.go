// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"context"
	"net/http"
	"net/netip"
	"time"

	"vault-plugin-secrets-portkey/internal/apierror"
)

// deadKeyTTL is how long a leased key that isn't valid is refused without a look into
// storage: none that has been tried becomes valid later. So an app that goes on with
// an old key counts as one guess each deadKeyTTL, and leaves its address room for others.
const deadKeyTTL = time.Minute

// lease returns what a leased key stands for, or the caller's answer.
func (g *Gateway) lease(ctx context.Context, live *live, key string, source netip.Addr) (*Lease, *apierror.Error) {
	lease, err := g.mount.LeasedKey(ctx, key, false)
	if lease != nil || err != nil {
		return lease, err
	}
	tried := live.caller(&question{token: key, source: source})
	if found, _ := g.grants.get(&tried, g.now()); found != nil {
		return nil, found.refusal
	}
	end, err := g.failures.begin(source)
	if err != nil {
		return nil, g.grants.refusedOr(&tried, err, g.now())
	}
	failed := false
	defer func() { end(failed) }()
	if lease, err = g.mount.LeasedKey(ctx, key, true); lease != nil || err != nil {
		return lease, err
	}
	refusal := &apierror.Error{
		Status: http.StatusUnauthorized, Type: apierror.TypeInvalidRequest, Code: apierror.CodeCredentialInvalid,
		Message: "this leased key has expired, was revoked, or never was; `vault read <mount>/creds/<virtual key>` makes another",
	}
	failed = g.grants.refuse(&tried, &grant{expires: g.now().Add(deadKeyTTL), refusal: refusal}, g.now())
	return nil, refusal
}

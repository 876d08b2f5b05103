// SPDX-License-Identifier: MPL-2.0

package relay

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"

	"vault-plugin-secrets-portkey/internal/provider"
)

// ProbeResult says what a provider makes of a key.
type ProbeResult string

// The results of a probe.
const (
	// ProbeValid: accepted, and the same request without the key is refused.
	ProbeValid ProbeResult = "valid"
	// ProbeRefused: the provider answered as it does to a bad key, such as 401.
	ProbeRefused ProbeResult = "refused"
	// ProbeUnreachable: no answer, or one that says nothing about the key.
	ProbeUnreachable ProbeResult = "unreachable"
	// ProbeInconclusive: the endpoint accepts requests without a key too.
	ProbeInconclusive ProbeResult = "inconclusive"
)

// Verdict is what a probe found.
type Verdict struct {
	Result ProbeResult
	// Detail is for people and holds no secret.
	Detail string
	// Status is the provider's HTTP status; 0 if there was no answer.
	Status int
}

// Probe asks target's cheapest authenticated endpoint whether the key is
// accepted. ctx must bound it.
func (r *Relay) Probe(ctx context.Context, target *provider.Target) Verdict {
	method, endpoint, body, accepts := target.Probe()
	asked := fmt.Sprintf("%s %s", method, endpoint.URL.Redacted())
	status, err := r.ask(ctx, method, endpoint, body)
	switch {
	case err != nil:
		return Verdict{Result: ProbeUnreachable, Detail: fmt.Sprintf("%s: %s", asked, reason(err))}
	case target.Refused(status):
		return Verdict{ProbeRefused, fmt.Sprintf("%s answered %d", asked, status), status}
	case !accepts(status):
		return Verdict{ProbeUnreachable, fmt.Sprintf("%s answered %d, which says nothing about the key", asked, status), status}
	}
	control, err := r.ask(ctx, method, endpoint.WithoutSecret(), body)
	if err == nil && accepts(control) {
		return Verdict{ProbeInconclusive, fmt.Sprintf("%s answered %d, but answers %d without any key too", asked, status, control), status}
	}
	return Verdict{ProbeValid, fmt.Sprintf("%s answered %d", asked, status), status}
}

// ask sends the request of a probe and returns the status. The answer's text
// is thrown away unseen: it might echo the key.
func (r *Relay) ask(ctx context.Context, method string, endpoint *provider.Endpoint, body []byte) (int, error) {
	req, err := http.NewRequestWithContext(ctx, method, endpoint.URL.String(), bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	if len(body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	endpoint.Authenticate(req.Header)
	resp, err := r.transport.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	// What little there is is read, so that the connection can be kept.
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
	return resp.StatusCode, nil
}

// SPDX-License-Identifier: MPL-2.0

//go:build unix

package vaulttest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// ErrNoActiveNode says that a request of a Balanced client wasn't sent,
// because no node was active until its context ended.
var ErrNoActiveNode = errors.New("vaulttest: no node is active")

// activeHost stands in the URLs of Balanced clients for the active node. No
// resolver knows it, so that a request that went round the balancer fails.
const activeHost = "active.vault.invalid"

// Balanced returns a client whose calls go to the active node, as behind a
// load balancer that asks sys/health. timeout bounds one attempt, from sending
// it to the end of its answer; 0 is no bound.
//
// Nothing is ever sent twice, for a completion that is asked for again is paid
// for again: a call that fails is over, and the next one goes to whichever
// node is active then. While none is, calls wait for one, as long as their
// contexts let them and 90 s at most; they end with ErrNoActiveNode if they
// were never sent.
//
// The active node is looked for anew when an answer is a redirect or has a
// status of 500 or above, or when there is none. So it may be one that has
// become a standby and hands requests on, or one that was cut off and has not
// noticed: no load balancer knows better. All Balanced clients of a Vault
// share what they know.
func (v *Vault) Balanced(token string, timeout time.Duration) *Client {
	return &Client{
		Addr:  "http://" + activeHost,
		Token: token,
		HTTP:  &http.Client{Transport: &balancer{v: v, timeout: timeout}, CheckRedirect: v.http.CheckRedirect},
	}
}

// balancer sends requests to the active node.
type balancer struct {
	v       *Vault
	timeout time.Duration // of an attempt; 0 for none
}

// RoundTrip implements http.RoundTripper.
func (b *balancer) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Host != activeHost { // where a redirect led to
		return b.v.http.Transport.RoundTrip(req)
	}
	n, err := b.v.active.get(req.Context(), b.v.nodes)
	if err != nil {
		if req.Body != nil {
			_ = req.Body.Close() // as every RoundTripper has to; nobody reads it
		}
		return nil, err
	}
	ctx, cancel := req.Context(), context.CancelFunc(func() {})
	if b.timeout > 0 {
		ctx, cancel = context.WithTimeout(ctx, b.timeout)
	}
	to := req.Clone(ctx)
	to.URL.Host, to.Host = strings.TrimPrefix(n.Addr, "http://"), ""
	resp, err := b.v.http.Transport.RoundTrip(to)
	if err != nil {
		b.failed(req, n)
		cancel()
		return nil, err
	}
	if resp.StatusCode >= 500 || resp.StatusCode/100 == 3 {
		b.v.active.forget(n)
	}
	resp.Body = &balancedBody{ReadCloser: resp.Body, cancel: cancel, failed: func() { b.failed(req, n) }}
	return resp, nil
}

// failed has the active node looked for anew, unless it was the caller who
// ended the request.
func (b *balancer) failed(req *http.Request, n *Node) {
	if req.Context().Err() == nil {
		b.v.active.forget(n)
	}
}

// balancedBody is the body of an answer under the timeout of its attempt.
type balancedBody struct {
	io.ReadCloser
	cancel context.CancelFunc
	failed func()
}

// Read implements io.Reader.
func (b *balancedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		b.failed()
	}
	return n, err
}

// Close implements io.Closer.
func (b *balancedBody) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}

// activeNode is what Balanced clients know of the active node.
type activeNode struct {
	node    atomic.Pointer[Node] // nil: to be looked for
	looking chan struct{}        // holds a token while someone looks
}

func newActiveNode() *activeNode { return &activeNode{looking: make(chan struct{}, 1)} }

// forget has the active node looked for anew, if it still is taken for n.
func (a *activeNode) forget(n *Node) { a.node.CompareAndSwap(n, nil) }

// get returns the active node. While none is known, one caller looks for it
// and the others wait for what it finds.
func (a *activeNode) get(ctx context.Context, nodes []*Node) (*Node, error) {
	if n := a.node.Load(); n != nil {
		return n, nil
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	select {
	case a.looking <- struct{}{}:
		defer func() { <-a.looking }()
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrNoActiveNode, ctx.Err())
	}
	if n := a.node.Load(); n != nil { // another caller found it
		return n, nil
	}
	n := awaitActive(ctx, nodes)
	if n == nil {
		return nil, fmt.Errorf("%w: %w", ErrNoActiveNode, ctx.Err())
	}
	a.node.Store(n)
	return n, nil
}

// awaitActive returns the first node that says it is active, or nil if the
// context ends before. It asks each at its own pace, for some may hang.
func awaitActive(ctx context.Context, nodes []*Node) *Node {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	found := make(chan *Node, len(nodes))
	for _, n := range nodes {
		go func() {
			for !n.active(ctx) {
				select {
				case <-time.After(50 * time.Millisecond):
				case <-ctx.Done():
					return
				}
			}
			found <- n
		}()
	}
	select {
	case n := <-found:
		return n
	case <-ctx.Done():
		return nil
	}
}

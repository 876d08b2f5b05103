// SPDX-License-Identifier: MPL-2.0

package relay

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"sync/atomic"
	"time"

	"vault-plugin-secrets-portkey/internal/apierror"
)

// watch ends an exchange that takes too long, or whose provider is silent for too
// long once its answer has begun. It has one timer, which sets itself again: to note
// that a wait begins or ends costs no more than a look at the clock.
type watch struct {
	host     string
	started  time.Time
	deadline time.Duration // from started, as all times here
	idle     time.Duration // 0 means for ever
	since    atomic.Int64  // when the wait began that is on, and 1 ns; 0 if none is
	stopped  atomic.Bool
	timer    *time.Timer
	cancel   context.CancelCauseFunc
}

// start bounds the exchange with host to timeout, and each wait to idle, unless that
// is 0. cancel is called with the *apierror.Error that is then the answer. stop must
// follow.
func (w *watch) start(timeout, idle time.Duration, host string, cancel context.CancelCauseFunc) {
	w.host, w.started, w.deadline, w.idle, w.cancel = host, time.Now(), timeout, idle, cancel
	first := timeout
	if idle > 0 {
		first = min(first, idle)
	}
	w.timer = time.AfterFunc(math.MaxInt64, w.fire) // fire sets the timer, which must be there by then
	w.timer.Reset(first)
}

func (w *watch) stop() {
	w.stopped.Store(true)
	w.timer.Stop()
}

// wait begins a wait for the provider, and pause ends it: while the caller is
// slow to take what has come, it isn't the provider who is silent.
func (w *watch) wait() {
	if w.idle > 0 {
		w.since.Store(int64(time.Since(w.started)) + 1)
	}
}

func (w *watch) pause() { w.since.Store(0) }

func (w *watch) fire() {
	if w.stopped.Load() {
		return
	}
	now := time.Since(w.started)
	next := w.deadline - now
	if next <= 0 {
		w.cancel(tooSlow(w.host))
		return
	}
	if w.idle > 0 {
		left := w.idle
		if since := time.Duration(w.since.Load()); since > 0 {
			left -= now - (since - 1)
		}
		if left <= 0 {
			w.cancel(silent(w.host, w.idle))
			return
		}
		next = min(next, left)
	}
	w.timer.Reset(next)
}

func tooSlow(host string) *apierror.Error {
	return &apierror.Error{
		Status: http.StatusGatewayTimeout, Type: apierror.TypeAPI, Code: apierror.CodeTimeout,
		Message: fmt.Sprintf("the provider at %s did not finish its answer in time; ask for less output, or raise upstream_timeout (in config for Vault's own path, in config/gateway for the gateway)", host),
	}
}

func silent(host string, idle time.Duration) *apierror.Error {
	return &apierror.Error{
		Status: http.StatusGatewayTimeout, Type: apierror.TypeAPI, Code: apierror.CodeTimeout,
		Message: fmt.Sprintf("the provider at %s sent nothing more for %s, the idle_timeout of config/gateway", host, idle),
	}
}

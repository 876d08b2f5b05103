// SPDX-License-Identifier: MPL-2.0

package relay

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"vault-plugin-secrets-portkey/internal/apierror"
)

// idleWatch ends an exchange whose provider is silent for too long. A nil one
// watches nothing.
type idleWatch struct {
	after   time.Duration
	timer   *time.Timer
	expired atomic.Bool
}

// watchIdle returns a watch that calls cancel once a wait has lasted for after; 0
// means never.
func watchIdle(after time.Duration, cancel context.CancelFunc) *idleWatch {
	if after <= 0 {
		return nil
	}
	i := &idleWatch{after: after}
	i.timer = time.AfterFunc(after, func() {
		i.expired.Store(true)
		cancel()
	})
	return i
}

// wait begins a wait for the provider, and pause ends it: while the caller is
// slow to take what has come, it isn't the provider who is silent.
func (i *idleWatch) wait() {
	if i != nil {
		i.timer.Reset(i.after)
	}
}

func (i *idleWatch) pause() {
	if i != nil {
		i.timer.Stop()
	}
}

// verdict is err, unless silence is what ended the exchange.
func (i *idleWatch) verdict(err *apierror.Error, host string) *apierror.Error {
	if i == nil || err == nil || !i.expired.Load() {
		return err
	}
	return &apierror.Error{
		Status: http.StatusGatewayTimeout, Type: apierror.TypeAPI, Code: apierror.CodeTimeout,
		Message: fmt.Sprintf("the provider at %s sent nothing more for %s, the idle_timeout of config/gateway", host, i.after),
	}
}

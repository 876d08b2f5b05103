// SPDX-License-Identifier: MPL-2.0

package relay

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"vault-plugin-secrets-portkey/internal/apierror"
)

func TestWatch_EndsAnExchangeThatIsTooLongOrTooSilent(t *testing.T) {
	const never = -1
	type step struct {
		wait  bool
		lasts time.Duration
	}
	s := time.Second
	for name, c := range map[string]struct {
		timeout, idle time.Duration
		steps         []step
		ended         time.Duration
		by            string
	}{
		"nothing happens":                   {10 * s, 0, []step{{false, 20 * s}}, 10 * s, "upstream_timeout"},
		"it ends in time":                   {10 * s, 0, []step{{false, 9 * s}}, never, ""},
		"a long wait that nobody bounds":    {10 * s, 0, []step{{true, 9 * s}}, never, ""},
		"a silence":                         {100 * s, 3 * s, []step{{true, 20 * s}}, 3 * s, "idle_timeout"},
		"a silence later":                   {100 * s, 3 * s, []step{{false, 50 * s}, {true, 20 * s}}, 53 * s, "idle_timeout"},
		"waits that are short enough":       {100 * s, 3 * s, []step{{true, 2 * s}, {true, 2 * s}, {true, 2 * s}, {true, 2 * s}}, never, ""},
		"a slow caller is no silence":       {100 * s, 3 * s, []step{{true, 2 * s}, {false, 50 * s}, {true, 2 * s}}, never, ""},
		"one wait of several":               {100 * s, 3 * s, []step{{true, 2 * s}, {true, 1 * s}, {true, 4 * s}}, 6 * s, "idle_timeout"},
		"the end comes before the silence":  {4 * s, 3 * s, []step{{true, 2 * s}, {true, 3 * s}}, 4 * s, "upstream_timeout"},
		"the bound of a wait is the longer": {2 * s, 3 * s, []step{{true, 20 * s}}, 2 * s, "upstream_timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				began, ended := time.Now(), time.Duration(never)
				context.AfterFunc(ctx, func() { ended = time.Since(began) })
				var w watch
				w.start(c.timeout, c.idle, "host.example", cancel)
				for _, step := range c.steps {
					if step.wait {
						w.wait()
					}
					time.Sleep(step.lasts)
					w.pause()
				}
				w.stop()
				synctest.Wait()
				var verdict *apierror.Error
				if errors.As(context.Cause(ctx), &verdict); ended != c.ended {
					t.Errorf("ended after %s with %v, want %s", ended, verdict, c.ended)
				}
				if c.by != "" && (verdict == nil || verdict.Status != 504 || !strings.Contains(verdict.Message, c.by) || !strings.Contains(verdict.Message, "host.example")) {
					t.Errorf("ended with %+v", verdict)
				}
				time.Sleep(time.Hour) // a timer that is left ends nothing
			})
		})
	}
}

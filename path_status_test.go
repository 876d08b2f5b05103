// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"net/http"
	"testing"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
)

func (m *mount) health() inlineAnswer {
	m.t.Helper()
	answer, err := rawAnswer(m.must(logical.ReadOperation, "healthz", nil))
	if err != nil {
		m.t.Fatal(err)
	}
	return answer
}

func TestStatus_ShowsVersionStateAndSinceWhen(t *testing.T) {
	m := newMount(t, Options{Version: "v1.2.3", Now: newClock().now})
	wantFields(t, m.read("status"), map[string]any{
		"version": "v1.2.3", "state": "active", "problem": "", "state_since": "2026-05-01T12:00:00Z", "inline_calls": 0,
	})
}

func TestHealthz_SaysNoMoreThanWhetherRequestsAreTaken(t *testing.T) {
	m := newStandby(t, Options{}, consts.ReplicationUnknown, &logical.InmemStorage{})
	for _, want := range []struct {
		status int
		body   string
		next   func()
	}{
		{http.StatusServiceUnavailable, "unavailable\n", m.initialize},
		{http.StatusOK, "ok\n", func() { m.Cleanup(t.Context()) }},
		{http.StatusServiceUnavailable, "unavailable\n", func() {}},
	} {
		if got := m.health(); got.Status != want.status || got.Body != want.body || got.Type != "text/plain; charset=utf-8" || len(got.Header) != 0 {
			t.Errorf("answered %+v, want %d %q", got, want.status, want.body)
		}
		want.next()
	}
}

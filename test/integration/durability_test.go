// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"net/http"
	"reflect"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/test/vaulttest"
)

// allUsage is everything that a mount's record says.
func (s *suite) allUsage(t *testing.T, mount string) usageAnswer {
	t.Helper()
	return usageOf(t, s.root, mount+"/usage?group_by=role,day,model,entity&from=2020-01-01&to=2100-01-01")
}

// wantSameUsage fails the test unless the record says now what it said before.
func (s *suite) wantSameUsage(t *testing.T, mount string, before usageAnswer) {
	t.Helper()
	after := s.allUsage(t, mount)
	if before.Total.Requests == 0 || len(before.Rows) == 0 {
		t.Fatal("there was no usage, so this proves nothing")
	}
	if reflect.DeepEqual(before, after) {
		return
	}
	t.Errorf("the total was\n%+v\nand is\n%+v", before.Total, after.Total)
	for i := range before.Rows {
		if i >= len(after.Rows) || before.Rows[i] != after.Rows[i] {
			t.Fatalf("the first row that differs was\n%+v", before.Rows[i])
		}
	}
}

// usageDurability: what the record of usage outlives, and what a crash takes.
func (s *suite) usageDurability(t *testing.T) {
	app := s.app(t, mount, "durable", nil)
	ask := func(t *testing.T, n int) {
		t.Helper()
		for range n {
			wantCompletion(t, post(t, app, chatPath(mount, "durable"), s.chat("up-ok")))
		}
	}
	t.Run("AReloadRightAfterALotLosesNothing", func(t *testing.T) {
		for range 3 {
			ask(t, 20)
			before := s.allUsage(t, mount)
			s.renew(t, mount)
			s.wantSameUsage(t, mount, before)
		}
		before := s.allUsage(t, tuned)
		s.renew(t, tuned)
		s.wantSameUsage(t, tuned, before)
		if data := s.root.Read(t, mount+"/prices/openai-compatible/up-ok").Data(); data["source"] != "override" {
			t.Errorf("the override after a reload: %v", data)
		}
	})
	t.Run("ARequestUnderWayAtAReloadIsCountedOnce", func(t *testing.T) {
		up, _ := s.own(t, mount, "interrupted")
		caller := s.app(t, mount, "interrupted", map[string]any{"key": "interrupted"})
		ended := make(chan *vaulttest.Response, 1)
		go func() {
			resp, err := caller.Do(t.Context(), http.MethodPost, chatPath(mount, "interrupted"), s.chat("up-slow:1000"))
			if err != nil {
				t.Error(err)
			}
			ended <- resp
		}()
		up.WaitRequests(t, 1)
		s.renew(t, mount) // Vault lets the call end first
		if resp := <-ended; resp != nil {
			wantCompletion(t, resp)
		}
		s.wantUsage(t, mount, "interrupted", spent(1, s.promptTokens(), 5, completionUSD(s.promptTokens(), 5)))
	})
	t.Run("AKillLosesAtMostTheLastSecond", func(t *testing.T) {
		pid := s.renew(t, mount)
		ask(t, 20)
		before := s.allUsage(t, mount)
		// The promise is one second; the rest is for the write, on a busy machine.
		time.Sleep(2 * time.Second)
		s.kill(t, mount, pid)
		s.wantSameUsage(t, mount, before)
	})
	t.Run("AKillAtOnceLosesNoMoreAndTheRecordGoesOn", func(t *testing.T) {
		pid := s.renew(t, mount)
		before := usageOf(t, s.root, mount+"/usage/durable").Total.Requests
		ask(t, 5)
		s.kill(t, mount, pid)
		after := usageOf(t, s.root, mount+"/usage/durable").Total
		if after.Requests < before || after.Requests > before+5 {
			t.Errorf("%d requests before, 5 more, then %d", before, after.Requests)
		}
		ask(t, 1)
		after.add(spent(1, s.promptTokens(), 5, completionUSD(s.promptTokens(), 5)))
		s.wantUsage(t, mount, "durable", after)
	})
}

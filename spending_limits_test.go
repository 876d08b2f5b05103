// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-portkey/internal/ledger"
)

// eventually waits until ok says so.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s never happened", what)
		}
	}
}

// newEventMount is a limited mount on a server that takes events.
func newEventMount(t *testing.T, events logical.EventSender, limits ...any) *mount {
	t.Helper()
	m := newStandby(t, Options{Transport: &upstream{answer: usageAnswer(1000, 100)}, Now: newClock().now}, consts.ReplicationUnknown, &logical.InmemStorage{})
	config := &logical.BackendConfig{
		Logger: hclog.New(&hclog.LoggerOptions{Output: m.log, Level: hclog.Trace}), System: m.system, StorageView: m.storage, EventsSender: events,
	}
	if err := m.Setup(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	m.initialize()
	if err := m.activity.await(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.write("keys/a", openaiKey(secretA))
	m.write("prices/openai/m", map[string]any{"input": 1, "output": 10})
	m.write("roles/r", map[string]any{"key": "a", "limits": limits, "alert_thresholds": "50,80,100"})
	return m
}

func TestAlerts_ACrossedThresholdIsWarnedOfLoggedAndSentAsAnEventOnce(t *testing.T) {
	events := logical.NewMockEventSender()
	m := newEventMount(t, events, "usd=0.01/month", "requests=2/minute on x", "requests=10/day per entity")
	sent := func() (list []map[string]any) {
		events.Lock()
		defer events.Unlock()
		for _, e := range events.Events {
			metadata := e.Event.Metadata.AsMap()
			metadata["type"] = string(e.Type)
			list = append(list, metadata)
		}
		return list
	}
	for range 2 { // 40 percent
		m.capped("e-1", "r").want(t, http.StatusOK, "")
	}
	for _, path := range []string{"roles/r", "usage/r"} {
		if resp := m.must(logical.ReadOperation, path, nil); len(resp.Warnings) != 0 {
			t.Errorf("%s warns of %v", path, resp.Warnings)
		}
	}
	if len(sent()) != 0 {
		t.Errorf("sent %v", sent())
	}
	m.capped("e-1", "r").want(t, http.StatusOK, "")
	eventually(t, "the event", func() bool { return len(sent()) == 1 })
	event := overJSON(t, sent()[0])
	wantFields(t, event, map[string]any{
		"type": "portkey/limit-threshold", "role": "r", "entity": "", "limit": "usd=0.01/month", "percent": "50", "used": "0.006", "max": "0.01",
		"resets_at": "2026-06-01T00:00:00Z", "path": "usage/r", "data_path": "usage/r", "operation": "update",
	})
	for _, path := range []string{"roles/r", "usage/r"} {
		wantWarning(t, m.must(logical.ReadOperation, path, nil), "the limit usd=0.01/month is used to 60%: 0.006 of 0.01")
	}
	m.capped("e-1", "r").want(t, http.StatusOK, "") // 80
	m.capped("e-1", "r").want(t, http.StatusOK, "") // 100, and 50 of the entity's requests
	m.capped("e-1", "r").want(t, http.StatusPaymentRequired, "budget_exceeded")
	eventually(t, "the events", func() bool { return len(sent()) == 4 })
	seen := map[string]bool{}
	for _, e := range sent() {
		seen[fmt.Sprint(e["limit"], " ", e["entity"], " ", e["percent"])] = true
	}
	for _, want := range []string{"usd=0.01/month  50", "usd=0.01/month  80", "usd=0.01/month  100", "requests=10/day per entity e-1 50"} {
		if !seen[want] {
			t.Errorf("no event of %s, only %v", want, seen)
		}
	}
	wantWarning(t, m.must(logical.ReadOperation, "usage/r", map[string]any{"entity": "e-1"}), "requests=10/day per entity is used to 50% by entity e-1: 5 of 10")
	log := m.log.String()
	if n := strings.Count(log, "a limit has crossed a threshold"); n != 4 {
		t.Errorf("%d lines in the log", n)
	}
	for _, want := range []string{"role=r", "limit=usd=0.01/month", "percent=100", "used=0.01", "max=0.01", "resets_at=2026-06-01T00:00:00Z", "entity=e-1"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log doesn't say %s: %s", want, log)
		}
	}
}

// failingEvents is a server that has no events, or is slow to take them.
type failingEvents struct{ hang bool }

func (f failingEvents) SendEvent(ctx context.Context, _ logical.EventType, _ *logical.EventData) error {
	if f.hang {
		<-ctx.Done()
	}
	return fmt.Errorf("Unimplemented")
}

func TestAlerts_AServerWithoutEventsOrOneThatHangsHoldsNothingUp(t *testing.T) {
	for name, events := range map[string]logical.EventSender{"none": nil, "refused": failingEvents{}, "hangs": failingEvents{hang: true}} {
		t.Run(name, func(t *testing.T) {
			m := newEventMount(t, events, "usd=0.01/month")
			for range 5 {
				m.capped("", "r").want(t, http.StatusOK, "")
			}
			eventually(t, "the line in the log", func() bool { return strings.Contains(m.log.String(), "percent=50") })
			// The record of usage is written meanwhile.
			eventually(t, "the record", func() bool {
				for key := range entries(t, m.storage) {
					if strings.HasPrefix(key, usagePrefix) {
						return true
					}
				}
				return false
			})
			if told := strings.Contains(m.log.String(), "takes no event"); told != (name == "refused") && name != "hangs" {
				t.Errorf("the log says so: %v", told)
			}
			if name != "hangs" && strings.Contains(m.log.String(), "[ERROR]") {
				t.Errorf("the log: %s", m.log)
			}
			began := time.Now()
			soon(t, "Cleanup", func() { m.Cleanup(context.Background()) })
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("the end took %s", took)
			}
		})
	}
}

func TestAlerts_MoreThanFitAreDroppedAndBlockNobody(t *testing.T) {
	a := make(alerts, 2)
	soon(t, "add", func() {
		for range 10 {
			a.add(ledger.Alert{})
		}
	})
	if len(a) != 2 {
		t.Errorf("%d are kept", len(a))
	}
}

// 14. Shutdown loses buffered spend.
func TestOthersFail14_ACleanEndLeavesExactFiguresAndAdmitsNothingAfter(t *testing.T) {
	storage := &logical.InmemStorage{}
	m, up, _ := newLimitedMountOn(t, storage, "usd=1/month", "requests=100/day", "tokens=1000000/hour", "usd=1/total per entity")
	const calls, inFlight = 20, 4
	for i := range calls {
		m.capped(fmt.Sprint("e-", i%3), "r").want(t, http.StatusOK, "")
	}
	arrived := make(chan struct{})
	up.answer = func(r *http.Request) (*http.Response, error) {
		arrived <- struct{}{}
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	var all sync.WaitGroup
	for range inFlight {
		all.Go(func() { m.capped("", "r") })
		<-arrived
	}
	began := time.Now()
	soon(t, "Cleanup", func() { m.Cleanup(context.Background()) })
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("the end took %s", took)
	}
	all.Wait()
	m.capped("", "r").want(t, http.StatusServiceUnavailable, "not_active")
	request := ledger.Request{Amounts: ledger.Amounts{ledger.Requests: 1}}
	r, err := m.roles.get(t.Context(), storage, "r")
	if err != nil {
		t.Fatal(err)
	}
	if refusal := m.ledger.Load().Reserve(t.Context(), r.limits, &request, &ledger.Reservation{}); refusal == nil || refusal.Reason != ledger.Unavailable {
		t.Errorf("the ledger of an ended instance says %v", refusal)
	}
	fresh := newMountOn(t, Options{Now: m.now, Transport: &upstream{answer: usageAnswer(1000, 100)}}, storage)
	rows := fresh.limitRows("r", nil)
	// 20 at 0.002 USD, and the worst case of those under way.
	wantFields(t, rows[0], map[string]any{"used": "0.04646", "unconfirmed": "0.00646", "unattributed": "0", "reserved": "0"})
	wantFields(t, rows[1], map[string]any{"used": calls + inFlight, "unattributed": 0})
	wantFields(t, rows[2], map[string]any{"used": calls*1100 + inFlight*265, "unattributed": 0})
	total, _ := fresh.usageOf("usage/r", nil)
	wantFields(t, total, map[string]any{"cost_usd": "0.04646"})
	wantFields(t, fresh.limitRows("r", map[string]any{"entity": "none"})[3], map[string]any{"used": "0.00646", "unattributed": "0"})
	wantFields(t, fresh.limitRows("r", map[string]any{"entity": "e-0"})[3], map[string]any{"used": "0.014"})
}

func TestLimits_HoldAcrossARestart(t *testing.T) {
	storage := &logical.InmemStorage{}
	m, up, _ := newLimitedMountOn(t, storage, "requests=3/day", "usd=1/month")
	for range 2 {
		m.chat("r", "m").want(t, http.StatusOK, "")
	}
	m.Cleanup(context.Background())
	again := newMountOn(t, Options{Now: m.now, Transport: up}, storage)
	again.chat("r", "m").want(t, http.StatusOK, "")
	again.chat("r", "m").want(t, http.StatusPaymentRequired, "budget_exceeded")
	wantFields(t, again.limitRows("r", nil)[1], map[string]any{"used": "0.006", "unattributed": "0"})
}

// A crash is a mount that never gets to write anything more: what another one
// finds is a copy of storage as it was in that moment.
func TestLimits_AfterACrashNothingIsUndercountedAndTheRestIsWrittenOff(t *testing.T) {
	m, up, _ := newLimitedMount(t, "usd=1/month", "requests=100/day")
	for range 5 {
		m.capped("", "r").want(t, http.StatusOK, "")
	}
	arrived, release := make(chan struct{}), make(chan struct{})
	up.answer = func(*http.Request) (*http.Response, error) {
		close(arrived)
		<-release
		return nil, fmt.Errorf("reset")
	}
	done := make(chan struct{})
	go func() { defer close(done); m.capped("", "r") }()
	<-arrived
	left := copyOf(t, m.storage)
	close(release)
	<-done

	again := newMountOn(t, Options{Now: m.now, Transport: &upstream{answer: usageAnswer(1000, 100)}}, left)
	const settled, underWay, headroom = 10_000_000, 1_615_000, 1_000_000_000 / 64
	row := again.limitRows("r", nil)[0]
	used, lost := nano(t, row["used"]), nano(t, row["unattributed"])
	if used < settled+underWay || used > settled+underWay+headroom {
		t.Errorf("%d nano-USD are counted of %d settled and %d under way", used, settled, underWay)
	}
	if lost == 0 || used-lost > settled {
		t.Errorf("of %d used, %d are nobody's; at most %d were settled", used, lost, settled)
	}
	requests := again.limitRows("r", nil)[1]
	if n := requests["used"].(float64); n < 6 || n > 8 {
		t.Errorf("%v requests are counted of 6", n)
	}
	written := nano(t, rowsOf(t, again.write("usage/r/write-off", map[string]any{"limit": "usd/month"}))[0]["used"])
	if written != used-lost {
		t.Errorf("%d were written off, %d are left of %d", lost, written, used)
	}
	wantFields(t, again.limitRows("r", nil)[0], map[string]any{"unattributed": "0"})
	again.Cleanup(context.Background())
	third := newMountOn(t, Options{Now: m.now}, left)
	if now := nano(t, third.limitRows("r", nil)[0]["used"]); now != written {
		t.Errorf("after another restart %d are used, want %d", now, written)
	}
}

// nano reads an amount of USD as rows show it.
func nano(t *testing.T, text any) int64 {
	t.Helper()
	limit, err := ledger.ParseLimit(fmt.Sprintf("usd=%v/total", text))
	if err != nil {
		t.Fatal(err)
	}
	return limit.Max
}

func TestLimits_AnInstanceThatWasReplacedAdmitsNothingAndSaysSo(t *testing.T) {
	storage := &logical.InmemStorage{}
	old, up, _ := newLimitedMountOn(t, storage, "usd=1/month")
	old.write("roles/unlimited", map[string]any{"key": "a"})
	old.capped("", "r").want(t, http.StatusOK, "")
	fresh := newMountOn(t, Options{Now: old.now, Transport: up}, storage)
	fresh.capped("", "r").want(t, http.StatusOK, "")
	sent := len(up.requests())
	eventually(t, "the fence", func() bool { return old.capped("", "r").Status == http.StatusServiceUnavailable })
	if n := len(up.requests()) - sent; n > 5 {
		t.Errorf("%d requests passed before", n)
	}
	old.capped("", "r").want(t, http.StatusServiceUnavailable, "ledger_unavailable")
	old.chat("unlimited", "m").want(t, http.StatusOK, "")
	if problem, _ := old.read("status")["problem"].(string); !strings.Contains(problem, "another instance keeps the limits") {
		t.Errorf("status says %q", problem)
	}
	fresh.capped("", "r").want(t, http.StatusOK, "")
	wantFields(t, fresh.read("status"), map[string]any{"state": "active", "problem": ""})
}

func TestLimits_StorageThatTakesNoWritesClosesAdmission(t *testing.T) {
	inner := &logical.InmemStorage{}
	m, up, _ := newLimitedMountOn(t, inner, "usd=1/month")
	m.write("roles/unlimited", map[string]any{"key": "a"})
	inner.FailPut(true)
	answer := m.capped("", "r")
	answer.want(t, http.StatusServiceUnavailable, "ledger_unavailable")
	if answer.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	wantNothingSent(t, up)
	m.chat("unlimited", "m").want(t, http.StatusOK, "")
	inner.FailPut(false)
	m.capped("", "r").want(t, http.StatusOK, "")
	wantFields(t, m.limitRows("r", nil)[0], map[string]any{"used": "0.002", "reserved": "0"})
}

func TestLimits_ThatCannotBeReadAreAWarningOnTheRoleAndAnErrorOnUsage(t *testing.T) {
	inner := &logical.InmemStorage{}
	m, _, _ := newLimitedMountOn(t, inner, "usd=1/month")
	m.capped("", "r").want(t, http.StatusOK, "")
	m.Cleanup(context.Background())
	storage := &faultyStorage{Storage: inner}
	again := newMountOn(t, Options{Now: m.now}, storage)
	again.read("config") // in memory from here on
	if _, err := again.roles.get(t.Context(), storage, "r"); err != nil {
		t.Fatal(err)
	}
	storage.failReads(errFault)
	storage.failLists(errFault)
	wantWarning(t, again.must(logical.ReadOperation, "roles/r", nil), "can't be read", errFault.Error())
	for op, path := range map[logical.Operation]string{logical.ReadOperation: "usage/r", logical.UpdateOperation: "usage/r/reset"} {
		if resp, err := again.call(op, path, nil); err == nil || resp.IsError() {
			t.Errorf("%s answered %v %v", path, resp, err)
		}
	}
	storage.disarm()
	wantFields(t, again.limitRows("r", nil)[0], map[string]any{"used": "0.002"})
}

// 2. A key over its budget is still served.
func TestOthersFail02_AKeyOverItsBudgetIsRefusedOnEveryPath(t *testing.T) {
	m, up, _ := newLimitedMount(t, "usd=0.001/month")
	up.answer = usageAnswer(1000, 100) // costs twice the limit
	m.proxyAs("", "r", "v1/chat/completions", map[string]any{"model": "m", "max_tokens": 5, "messages": []any{}}).want(t, http.StatusOK, "")
	n := len(up.requests())
	answer := m.capped("", "r")
	answer.want(t, http.StatusForbidden, "request_exceeds_limit")
	m.proxyAs("", "r", "v1/chat/completions", map[string]any{"model": "m", "max_tokens": 5, "messages": []any{}}).want(t, http.StatusPaymentRequired, "budget_exceeded")
	m.proxyAs("", "r", "v1/embeddings", map[string]any{"model": "m", "input": "a"}).want(t, http.StatusPaymentRequired, "budget_exceeded")
	resp := m.must(logical.UpdateOperation, "proxy/r", map[string]any{"model": "m", "prompt": "Hello", "max_tokens": 5})
	cli, err := rawAnswer(resp)
	if err != nil {
		t.Fatal(err)
	}
	cli.want(t, http.StatusPaymentRequired, "budget_exceeded")
	if !strings.Contains(cli.Body, "it resets at 2026-06-01T00:00:00Z") {
		t.Errorf("the message doesn't say when: %s", cli.Body)
	}
	if len(up.requests()) != n {
		t.Error("a refused request was sent")
	}
}

func TestLimits_CountsOfADeletedRoleLeaveStorage(t *testing.T) {
	m, _, _ := newLimitedMount(t, "usd=1/month", "requests=5/day per entity")
	m.capped("e-1", "r").want(t, http.StatusOK, "")
	m.delete("roles/r")
	eventually(t, "the deletion", func() bool {
		for key := range entries(t, m.storage) {
			if strings.HasPrefix(key, ledgerPrefix) && key != ledgerPrefix+"epoch" {
				return false
			}
		}
		return true
	})
}

func TestLimits_CountsThatADeletionLeftAreDeletedAtTheNextStart(t *testing.T) {
	storage := &faultyStorage{Storage: &logical.InmemStorage{}}
	m, _, _ := newLimitedMountOn(t, storage, "usd=1/month")
	m.capped("", "r").want(t, http.StatusOK, "")
	id := m.read("roles/r")["id"].(string)
	m.Cleanup(context.Background())
	// As a crash leaves it: the role is gone, and noted that its counts are to go.
	again := newStandby(t, Options{Now: m.now}, consts.ReplicationUnknown, storage)
	if err := storage.Put(t.Context(), &logical.StorageEntry{Key: ledgerPrefix + "dropped/" + id, Value: []byte("{}")}); err != nil {
		t.Fatal(err)
	}
	again.initialize()
	eventually(t, "the deletion", func() bool {
		for key := range entries(t, storage) {
			if strings.HasPrefix(key, ledgerPrefix) && key != ledgerPrefix+"epoch" {
				return false
			}
		}
		return true
	})
}

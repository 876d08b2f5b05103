// SPDX-License-Identifier: MPL-2.0

package ledger

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// manyAccounts is storage with the counts of so many virtual keys.
func manyAccounts(t *testing.T, n int) logical.Storage {
	t.Helper()
	disk := newDisk()
	for i := range n {
		key := fmt.Sprintf("ledger/accounts/account-%d/shared/1-before", i)
		value := []byte(`{"name":"team","counters":[{"limit":"usd/month","start":1772323200,"end":1775001600,"used":40,"mark":50}]}`)
		if err := disk.Put(t.Context(), &logical.StorageEntry{Key: key, Value: value}); err != nil {
			t.Fatal(err)
		}
	}
	if err := disk.Put(t.Context(), &logical.StorageEntry{Key: "ledger/epoch", Value: []byte(`{"epoch":1,"owner":"before"}`)}); err != nil {
		t.Fatal(err)
	}
	return disk
}

func TestSize_StartAndMemoryDontDependOnHowManyAccountsAreStored(t *testing.T) {
	v := newView(manyAccounts(t, 100_000))
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	l, err := Open(t.Context(), Options{Storage: v, Prefix: "ledger/", Owner: "now", Clock: newFakeClock(noon)})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := v.total(); n > 4 {
		t.Errorf("%d operations to start, want no more than 4", n)
	}
	if grown := heap() - before; grown > 1<<20 {
		t.Errorf("%d bytes for stored accounts", grown)
	}
	p := NewPolicy(PolicyOptions{Account: "account-7", Limits: mustLimits(t, "usd=0.0000001/month")})
	s := standing(t, l, p, Selection{})[0]
	if s.Used != 50 || s.Unattributed != 10 || len(l.all()) != 1 {
		t.Errorf("%+v, with %d accounts in memory", s, len(l.all()))
	}
	if n := v.total(); n > 6 {
		t.Errorf("%d operations to load an account", n-4)
	}
}

// inMemory counts what is in memory.
func inMemory(l *Ledger) (accounts, scopes int) {
	for _, a := range l.all() {
		accounts++
		a.mu.Lock()
		a.each(func(*scope) { scopes++ })
		a.mu.Unlock()
	}
	return accounts, scopes
}

func TestSize_AWriteTouchesOneOfManyEntities(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=1/month per entity")
		const entities = 10_000
		for i := range entities {
			b.admit(p, entityCosts(i, 1000)).Settle(cost(900))
		}
		if _, scopes := inMemory(b.Ledger); scopes != entities+1 {
			t.Errorf("%d scopes in memory", scopes)
		}
		before := len(b.view.written())
		b.admit(p, entityCosts(5000, 100_000)).Settle(cost(1000))
		if keys := b.view.written()[before:]; len(keys) != 1 || keys[0] != "ledger/accounts/"+testAccount+"/entity/entity-5000/1-process-1" {
			t.Errorf("%v were written", keys)
		}

		b.sweepFor(2 * time.Second)
		b.pass(time.Minute)
		b.Sweep() // writes exact figures
		synctest.Wait()
		b.pass(5 * time.Minute)
		b.Sweep() // and forgets
		if accounts, scopes := inMemory(b.Ledger); accounts != 0 || scopes != 0 {
			t.Errorf("%d accounts and %d scopes stay in memory", accounts, scopes)
		}
		if s := b.status(p, "entity-5000"); s.Used != 1900 || s.Unattributed != 0 || s.Reserved != 0 {
			t.Errorf("it came back as %+v", s)
		}
		if s := b.status(p, "entity-1"); s.Used != 900 {
			t.Errorf("it came back as %+v", s)
		}
		if _, scopes := inMemory(b.Ledger); scopes != 3 {
			t.Errorf("%d scopes in memory, want 3", scopes)
		}
	})
}

func entityCosts(i int, amount int64) *Request {
	return &Request{Entity: fmt.Sprint("entity-", i), Amounts: Amounts{USD: amount, Requests: 1}}
}

func TestSize_WhatIsntInStorageStaysInMemoryWhileItCounts(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("tokens=100/30m")
		b.clock.set(at(t, "2026-03-11T12:00:01Z"))
		b.spend(p, tokens(100))
		b.sweepFor(29 * time.Minute)
		b.refuse(p, tokens(1), Rate)
		b.sweepFor(40 * time.Minute)
		if accounts, _ := inMemory(b.Ledger); accounts != 0 {
			t.Errorf("%d accounts stay in memory", accounts)
		}
		hour := b.policy("tokens=100/hour")
		b.spend(hour, tokens(100))
		b.sweepFor(10 * time.Minute)
		b.clock.set(b.clock.now().Add(5 * time.Hour)) // sliding ones go by the monotonic clock
		b.refuse(hour, tokens(1), Rate)
	})
}

// slowSize is a request whose tokens take long to count.
type slowSize struct{ started, counted chan struct{} }

func (s slowSize) Refine() (Amounts, bool) {
	close(s.started)
	<-s.counted
	return Amounts{USD: 10}, true
}

func (s slowSize) Lower(Unit, int64, bool) (Amounts, bool) { return Amounts{}, false }

func TestSize_ARequestUnderWayKeepsItsScopeInMemory(t *testing.T) {
	onBench(t, func(_ *testing.T, b *bench) {
		p := b.policy("usd=0.0000001/month", "usd=0.0000001/month per entity")
		free := b.admit(p, usd(0)) // of nothing, which may still cost something
		s := slowSize{make(chan struct{}), make(chan struct{})}
		req := usd(101)
		req.Size = s
		x := b.begin(p, req)
		<-s.started
		b.sweepFor(20 * time.Minute)
		close(s.counted)
		b.pass(0)
		r := b.admitted(x)
		b.wantUsed(p, 0, 10)
		r.Settle(cost(10))
		b.sweepFor(20 * time.Minute)
		free.Settle(cost(3))
		b.wantUsed(p, 13, 0)
		b.sweepFor(20 * time.Minute)
		b.wantUsed(p, 13, 0)
	})
}

func TestSize_AnAccountThatCouldntBeLoadedLeavesMemory(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=1/month per entity")
		b.view.only(opList, refused)
		for i := range 100 {
			b.refuse(p, entityCosts(i, 1), Unavailable)
		}
		b.sweepFor(6 * time.Minute)
		if accounts, scopes := inMemory(b.Ledger); accounts != 0 || scopes != 0 {
			t.Errorf("%d accounts and %d scopes stay in memory", accounts, scopes)
		}
	})
}

func TestAdmitAndSettle_DontAllocate(t *testing.T) {
	for _, limits := range [][]string{
		{"usd=1000000/month"},
		{"usd=1000000/month", "tokens=1000000000000/day", "concurrent=8"},
		{"usd=1000000/month per entity on gpt-4*", "tokens=1000000000000/minute", "requests=100000000/hour"},
	} {
		l := realLedger(t, newDisk(), "one")
		p := NewPolicy(PolicyOptions{Account: testAccount, Limits: mustLimits(t, limits...), Thresholds: []int{50, 80, 100}})
		req := &Request{Model: "gpt-4o", Entity: "entity-1", Amounts: Amounts{USD: 1000, Requests: 1, Tokens: 300, Concurrent: 1}}
		charge := Charge{Amounts: Amounts{USD: 1, Requests: 1, Tokens: 30}}
		var r Reservation
		once := func() {
			if refusal := l.Reserve(context.Background(), p, req, &r); refusal != nil {
				t.Fatal(refusal)
			}
			r.Settle(charge)
		}
		for range 10_000 {
			once()
		}
		// A write now and then allocates, but that isn't one request in a hundred.
		if n := testing.AllocsPerRun(10_000, once); n != 0 {
			t.Errorf("%v: %v allocations", limits, n)
		}
	}
}

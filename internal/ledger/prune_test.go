// SPDX-License-Identifier: MPL-2.0

package ledger

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func (b *bench) prune() {
	b.t.Helper()
	if err := b.Prune(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	synctest.Wait()
}

func (b *bench) entities() int {
	b.t.Helper()
	list, err := b.Entities(b.t.Context(), testAccount)
	if err != nil {
		b.t.Fatal(err)
	}
	return len(list)
}

func of(entity string, req *Request) *Request {
	req.Entity = entity
	return req
}

func TestPrune_EntitiesThatDontComeBackLeaveStorageOnceTheirWindowsEndedLongAgo(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=1/day per entity")
		for i := range 20 {
			b.spend(p, of(fmt.Sprintf("entity-%d", i), usd(1000)))
		}
		b.pass(40 * time.Hour) // the day's end, and 28 h
		b.prune()
		if n := b.entities(); n != 20 {
			t.Fatalf("%d entities are stored while a clock may step back", n)
		}
		b.crash()
		b.prune()
		if n := b.entities(); n != 20 {
			t.Fatalf("%d entities are stored while a clock may step back, after a crash", n)
		}
		b.pass(48 * time.Hour)
		b.spend(p, of("entity-7", usd(1000)))
		b.prune()
		if n := b.entities(); n != 1 {
			t.Errorf("%d entities are stored, want the one that came back", n)
		}
		b.crash()
		if s := standing(t, b.Ledger, p, Selection{PerEntity: true, Entity: "entity-7"})[0]; s.Used < 1000 {
			t.Errorf("%+v", s)
		}
		b.Sweep()
		if n := len(b.all()); n != 1 {
			t.Errorf("%d accounts stay in memory", n)
		}
	})
}

func TestPrune_CountsThatNeverEndStay(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=1/total per entity", "usd=1/day per entity")
		b.spend(p, of("entity-1", usd(1000)))
		b.crash()
		b.pass(1000 * time.Hour)
		b.prune()
		if s := standing(t, b.Ledger, p, Selection{PerEntity: true, Entity: "entity-1"})[0]; s.Used < 1000 {
			t.Errorf("%+v", s)
		}
	})
}

func TestPrune_DeletesNothingOfAProcessThatTakesOverMeanwhile(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=1/day per entity")
		b.spend(p, of("entity-1", usd(1000)))
		b.crash()
		b.pass(100 * time.Hour)
		old, oldView := b.Ledger, b.view
		lists := 0
		oldView.weather(func(op operation, key string) fault { // before it deletes, should it look again
			if op == opList && strings.HasSuffix(key, "/entity-1/") {
				if lists++; lists == 2 {
					return hangs
				}
			}
			return works
		})
		done := make(chan error, 1)
		go func() { done <- old.Prune(context.Background()) }()
		synctest.Wait()
		b.open()
		b.spend(p, of("entity-1", usd(5000)))
		oldView.weather(nil)
		oldView.free(works)
		if err := <-done; err != nil {
			t.Log(err) // it was fenced, or came first
		}
		b.crash()
		if s := standing(t, b.Ledger, p, Selection{PerEntity: true, Entity: "entity-1"})[0]; s.Used < 5000 {
			t.Errorf("%+v", s)
		}
	})
}

func TestPrune_ARequestMeanwhileWaitsAndIsCounted(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=1/day per entity")
		b.spend(p, of("entity-1", usd(1000)))
		b.crash()
		b.pass(100 * time.Hour)
		b.Sweep()
		synctest.Wait()
		pruned := make(chan error, 1)
		go func() { pruned <- b.Prune(context.Background()) }()
		var held [8]Reservation
		done := make(chan *Refusal, len(held))
		for i := range held {
			go func() { done <- b.Reserve(context.Background(), p, of("entity-1", usd(500)), &held[i]) }()
		}
		for range held {
			if refusal := <-done; refusal != nil {
				t.Error(refusal)
			}
		}
		if err := <-pruned; err != nil {
			t.Error(err)
		}
		for i := range held {
			held[i].Settle(cost(500))
		}
		b.crash()
		if s := standing(t, b.Ledger, p, Selection{PerEntity: true, Entity: "entity-1"})[0]; s.Used < 8*500 {
			t.Errorf("%+v", s)
		}
	})
}

// panicky is a size that panics.
type panicky struct{ early bool }

func (p panicky) Refine() (Amounts, bool) {
	if p.early {
		panic("secret")
	}
	return Amounts{}, false
}

func (panicky) Lower(Unit, int64, bool) (Amounts, bool) { panic("secret") }

func TestReserve_ASizeThatPanicsLocksNothing(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=0.000001/month")
		b.spend(p, usd(400))
		for _, early := range []bool{false, true} {
			req := usd(900)
			req.Size = panicky{early}
			if refusal := b.Reserve(t.Context(), p, req, &Reservation{}); refusal == nil || refusal.Reason != Spent {
				t.Errorf("refused with %v", refusal)
			}
		}
		b.spend(p, usd(600))
		b.sweepFor(10 * time.Minute)
		if accounts, _ := inMemory(b.Ledger); accounts != 0 {
			t.Errorf("%d accounts stay in memory", accounts)
		}
	})
}

// oneSize is a size that can be refined and lowered to one figure.
type oneSize struct {
	to      int64
	refined int
}

func (f *oneSize) Refine() (Amounts, bool) { f.refined++; return Amounts{}, false }
func (f *oneSize) Lower(_ Unit, most int64, _ bool) (Amounts, bool) {
	a := Amounts{Requests: 1, Concurrent: 1, USD: f.to}
	return a, f.to <= most
}

func TestReserve_WhatIsRefusedAnywayIsNotRefined(t *testing.T) {
	for name, limit := range map[string]string{"rate": "requests=1/minute", "budget": "requests=1/day", "slot": "concurrent=1"} {
		t.Run(name, func(t *testing.T) {
			onBench(t, func(t *testing.T, b *bench) {
				p := b.policy("usd=0.000001/month", limit)
				held := b.admit(p, usd(400))
				if name != "slot" {
					held.Settle(cost(400))
				}
				size := &oneSize{to: 100}
				req := usd(900)
				req.Size = size
				refusal := b.Reserve(t.Context(), p, req, &Reservation{})
				if refusal == nil || refusal.Limit.String() != limit {
					t.Errorf("refused with %v, want the limit that no smaller request passes", refusal)
				}
				if size.refined != 0 {
					t.Error("it was refined")
				}
				held.Settle(cost(400))
			})
		})
	}
}

func TestLimit_IsNotPassedByAMakersNameBeforeTheModels(t *testing.T) {
	limit := mustLimits(t, "usd=1/day on gemini-2.5*")[0]
	for model, applies := range map[string]bool{
		"gemini-2.5-pro": true, "models/gemini-2.5-pro": true, "google/gemini-2.5-pro": true, "a/b/gemini-2.5-pro": true,
		"gemini-1.5-pro": false, "models/gemini-1.5-pro": false, "gemini-2.5-pro/other": true,
	} {
		if limit.Applies(model) != applies {
			t.Errorf("%s: applies is %t", model, !applies)
		}
	}
}

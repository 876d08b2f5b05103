// SPDX-License-Identifier: MPL-2.0

package ledger

import (
	"context"
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"
)

// on makes another of the bench's ledgers the one that it works with.
func (b *bench) on(l *Ledger, v *view) { b.Ledger, b.view = l, v }

func TestTakeover_TheOldProcessIsFencedByItsFirstRoundTrip(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=0.000001/month", "requests=1000/minute")
		b.spend(p, usd(100))
		under := b.admit(p, usd(100))
		old, oldView := b.Ledger, b.view
		b.open()
		b.spend(p, usd(100))
		b.on(old, oldView)
		b.pass(1100 * time.Millisecond)
		b.spend(p, usd(0)) // asks in the background
		synctest.Wait()
		if !old.Fenced() {
			t.Fatal("not fenced")
		}
		puts := oldView.count(opPut)
		b.refuse(p, usd(1), Unavailable)
		under.Settle(cost(500_000)) // above what was reserved
		b.Sweep()
		synctest.Wait()
		if n := oldView.count(opPut) - puts; n != 0 {
			t.Errorf("a fenced process makes %d writes", n)
		}
	})
}

func TestTakeover_WhatTheOldProcessMayStillAdmitIsCounted(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=0.0001/month", "usd=0.0001/minute", "usd=0.0001/hour")
		b.spend(p, usd(1000)) // leaves headroom
		old, oldView := b.Ledger, b.view
		b.open()
		taken := int64(0)
		for { // the new one takes all that it can
			x := b.begin(p, usd(1000))
			if x.refusal != nil {
				break
			}
			taken += 1000
			x.Settle(cost(1000))
		}
		b.on(old, oldView)
		for range 50 { // and the old one, until it finds out
			x := b.begin(p, usd(100))
			if x.refusal != nil {
				break
			}
			taken += 100
			x.Settle(cost(100))
		}
		if taken == 0 || taken+1000 > 100_000 {
			t.Errorf("%d used of 100000", taken+1000)
		}
		if !old.Fenced() {
			t.Error("not fenced")
		}
	})
}

// In a sliding window, what the old process may still use counts from when it
// can't any more.
func TestTakeover_SlidingWindowsCountWhatTheOldProcessUsesLast(t *testing.T) {
	onBench(t, func(_ *testing.T, b *bench) {
		p := b.policy("usd=0.0000128/minute") // 12,800, of which headroom is 200
		b.spend(p, usd(200))
		old, oldView := b.Ledger, b.view
		oldView.all(hangs) // so that it doesn't find out
		b.open()
		b.spend(p, usd(0))
		b.pass(4900 * time.Millisecond)
		current, view := b.Ledger, b.view
		b.on(old, oldView)
		b.spend(p, usd(200)) // at 4.9 s, the last that it can
		b.on(current, view)
		b.pass(59 * time.Second)       // it is at 63.9 s, so that that still counts
		b.refuse(p, usd(12_401), Rate) // 200 that it used, and 200 that it might have
		b.spend(p, usd(12_400))
	})
}

func TestTakeover_SlidingWindowsForgetNothingEarly(t *testing.T) {
	onBench(t, func(_ *testing.T, b *bench) {
		p := b.policy("usd=0.0000064/minute")
		b.spend(p, usd(6000))
		b.pass(30 * time.Second)
		b.spend(p, usd(50)) // stores what is known of the first
		b.pass(28 * time.Second)
		b.admit(p, usd(200))
		b.crash()
		b.pass(time.Second)
		b.refuse(p, usd(500), Rate) // a second before the first leaves
		b.pass(9 * time.Second)
		b.spend(p, usd(500))
	})
}

func TestTakeover_AWriteThatLandsLateTakesNothingFromTheNewProcess(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=0.00001/month")
		b.spend(p, usd(1000))
		b.view.puts(hangs)
		b.begin(p, usd(500))
		b.view.mu.Lock()
		late := b.view.hung[0]
		b.view.mu.Unlock()
		b.view.kill()
		b.open()
		b.spend(p, usd(8000))
		late.land(b.disk)
		b.crash()
		if s := b.status(p, ""); s.Used < 9000 {
			t.Errorf("%d used, want at least 9000", s.Used)
		}
		b.refuse(p, usd(1500), Spent)
	})
}

// Two processes that read the same epoch take the same number. The one whose
// write came last is the active one, and takes the other's entries for what
// they are: a foreign process's.
func TestTakeover_TwoProcessesMayTakeTheSameEpoch(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=0.000001/month", "tokens=1000/hour")
		v := newView(b.disk)
		v.only(opPut, hangs) // it has read, and writes later
		opened := make(chan *Ledger, 1)
		b.opened = 7
		go func() {
			l, err := b.tryOpen(v)
			if err != nil {
				t.Error(err)
			}
			opened <- l
		}()
		synctest.Wait()
		b.open()
		first, firstView := b.Ledger, b.view
		b.spend(p, usd(640))
		v.weather(nil)
		v.free(works)
		second := <-opened
		if first.epoch != second.epoch {
			t.Fatalf("epochs %d and %d", first.epoch, second.epoch)
		}
		b.on(second, v)
		b.refuse(p, usd(500), Spent)
		b.spend(p, usd(300))
		b.on(first, firstView)
		b.refuse(p, usd(300), Unavailable)
		b.crash()
		if s := b.status(p, ""); s.Used < 940 {
			t.Errorf("%d used, want at least 940", s.Used)
		}
	})
}

func TestTakeover_OfTwoEntriesOfOneEpochTheHigherCounts(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		dir := "ledger/accounts/" + testAccount + "/shared/"
		entryOf := func(used, mark int64) string {
			e := entry{Counters: []counterEntry{
				{Limit: "usd/month", Start: at(t, "2026-03-01T00:00:00Z").Unix(), End: at(t, "2026-04-01T00:00:00Z").Unix(), Used: used, Mark: mark},
				{Limit: "usd/hour", Sliding: 3600, Used: used, Mark: mark, Buckets: []bucketEntry{{noon.UnixMilli(), used}}},
			}}
			value, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			return string(value)
		}
		put(t, b.disk, "ledger/epoch", `{"epoch":9,"owner":"b"}`)
		put(t, b.disk, dir+"9-a", entryOf(700, 800))
		put(t, b.disk, dir+"9-b", entryOf(740, 750))
		put(t, b.disk, dir+"8-c", entryOf(990, 990)) // of one before
		b.open()
		for _, limit := range []string{"usd=0.000001/month", "usd=0.000001/hour"} {
			if s := b.status(b.policy(limit), ""); s.Used != 800 {
				t.Errorf("%s: %+v, want 800 used", limit, s)
			}
		}
		b.spend(b.policy("usd=0.000001/month"), usd(10))
		n := 0
		walk(t, b.disk, dir, func(string, []byte) { n++ })
		if n != 1 {
			t.Errorf("%d entries are left, want 1", n)
		}
	})
}

func TestTakeover_AProcessThatLoadsFindsANewerOnesEntryAndIsFenced(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=1/month")
		old, oldView := b.Ledger, b.view
		b.open()
		b.spend(p, usd(1))
		b.on(old, oldView)
		b.refuse(p, usd(1), Unavailable)
		if !old.Fenced() {
			t.Error("not fenced")
		}
	})
}

func TestTakeover_AFencedProcessEndsCleanly(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=1/month")
		old := b.Ledger
		r := b.admit(p, usd(1000))
		b.open()
		r.Settle(cost(1))
		r.Settle(cost(1))
		if err := old.Close(context.Background(), time.Second); err == nil {
			t.Error("it says that it has written its figures")
		}
		if sum := holdings(old); sum != 0 {
			t.Errorf("%d stay reserved", sum)
		}
	})
}

// SPDX-License-Identifier: MPL-2.0

package usage

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

const prefix = "local/usage/"

func event(role, day, model, caller string, requests int64) Event {
	return Event{Role: role, Day: day, Model: model, Caller: caller, Counts: Counts{Requests: requests, Cost: requests * 1000}}
}

func total(t testing.TB, l *Log, storage logical.Storage, role string) Counts {
	t.Helper()
	_, sum, err := l.Query(t.Context(), storage, Query{Role: role})
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// TestLog_HoldsAgainstAReference drives random histories of recording, writing,
// failing writes, restarts and crashes against a map.
func TestLog_HoldsAgainstAReference(t *testing.T) {
	for seed := range uint64(12) {
		rng := rand.New(rand.NewPCG(seed, 1))
		storage := &logical.InmemStorage{}
		log := New(Options{Prefix: prefix})
		recorded, durable := map[Row]int64{}, map[Row]int64{}
		for range 200 {
			switch n := rng.IntN(20); {
			case n < 15:
				e := event("r", fmt.Sprintf("2026-01-0%d", 1+rng.IntN(3)), fmt.Sprintf("m%d", rng.IntN(3)), fmt.Sprintf("e%d", rng.IntN(5)), 1+rng.Int64N(5))
				log.Record(e)
				recorded[Row{Day: e.Day, Model: e.Model, Caller: e.Caller}] += e.Counts.Requests
			case n < 17:
				if err := log.Flush(t.Context(), storage); err != nil {
					t.Fatal(err)
				}
				durable = clone(recorded)
			case n == 17: // a failing write drops nothing
				storage.Underlying().FailPut(true)
				_ = log.Flush(t.Context(), storage)
				storage.Underlying().FailPut(false)
			case n == 18: // a failing read neither; shards that need none are written
				storage.Underlying().FailGet(true)
				_ = log.Flush(t.Context(), storage)
				storage.Underlying().FailGet(false)
				check(t, seed, log, storage, recorded)
				if err := log.Flush(t.Context(), storage); err != nil {
					t.Fatal(err)
				}
				durable = clone(recorded)
			default: // a crash loses what was not written, and nothing else
				log = New(Options{Prefix: prefix})
				recorded = clone(durable)
			}
			check(t, seed, log, storage, recorded)
		}
	}
}

func clone(m map[Row]int64) map[Row]int64 {
	c := make(map[Row]int64, len(m))
	for k, v := range m {
		c[k] = v
	}
	return c
}

func check(t *testing.T, seed uint64, log *Log, storage logical.Storage, want map[Row]int64) {
	t.Helper()
	rows, sum, err := log.Query(t.Context(), storage, Query{Role: "r", GroupBy: []Dimension{ByDay, ByModel, ByCaller}})
	if err != nil {
		t.Fatal(err)
	}
	got, all := map[Row]int64{}, int64(0)
	for _, r := range rows {
		got[Row{Day: r.Day, Model: r.Model, Caller: r.Caller}] = r.Requests
		all += r.Requests
	}
	if !reflect.DeepEqual(got, want) && len(got)+len(want) > 0 {
		t.Fatalf("seed %d: got %v, want %v", seed, got, want)
	}
	if all != sum.Requests {
		t.Fatalf("seed %d: the total is %d, the rows add up to %d", seed, sum.Requests, all)
	}
}

func TestLog_QueryCutsDaysAndGroups(t *testing.T) {
	storage := &logical.InmemStorage{}
	log := New(Options{Prefix: prefix})
	for _, day := range []string{"2026-01-30", "2026-01-31", "2026-02-01"} {
		log.Record(event("a", day, "m1", "e1", 1))
		log.Record(event("a", day, "m2", "e2", 2))
		log.Record(event("ab", day, "m1", "e1", 100))
	}
	if err := log.Flush(t.Context(), storage); err != nil {
		t.Fatal(err)
	}
	rows, sum, err := log.Query(t.Context(), storage, Query{Role: "a", From: "2026-01-31", To: "2026-02-01", GroupBy: []Dimension{ByModel}})
	if err != nil || len(rows) != 2 || rows[0].Model != "m1" || rows[0].Requests != 2 || rows[1].Requests != 4 || sum.Requests != 6 || rows[0].Day != "" {
		t.Errorf("rows %+v total %+v %v", rows, sum, err)
	}
	roles, err := log.Roles(t.Context(), storage)
	if err != nil || !reflect.DeepEqual(roles, []string{"a", "ab"}) {
		t.Errorf("roles %v %v", roles, err)
	}
	if err := log.Prune(t.Context(), storage, "a", "2026-02-01"); err != nil {
		t.Fatal(err)
	}
	if got := total(t, log, storage, "a"); got.Requests != 3 {
		t.Errorf("after pruning: %+v", got)
	}
	if got := total(t, log, storage, "ab"); got.Requests != 300 {
		t.Errorf("pruning a touched ab: %+v", got)
	}
}

// What versions before prompt templates have stored goes on to count.
func TestLog_RowsWithoutAPromptAreReadAndAddedTo(t *testing.T) {
	storage, log := &logical.InmemStorage{}, New(Options{Prefix: prefix})
	plain := event("r", "2026-01-01", "m", "", 1)
	log.Record(plain)
	if err := log.Flush(t.Context(), storage); err != nil {
		t.Fatal(err)
	}
	stored := false
	err := logical.ScanView(t.Context(), storage, func(key string) {
		entry, err := storage.Get(t.Context(), key)
		if err != nil || strings.Contains(string(entry.Value), "prompt") {
			t.Errorf("%s: %s, %v", key, entry.Value, err)
		}
		stored = true
	})
	if err != nil || !stored {
		t.Fatal(stored, err)
	}
	log = New(Options{Prefix: prefix})
	log.Record(plain)
	for _, prompt := range []string{"p", "q", "p"} {
		e := plain
		e.Prompt = prompt
		log.Record(e)
	}
	for _, flushed := range []bool{false, true} {
		rows, sum, err := log.Query(t.Context(), storage, Query{Role: "r", GroupBy: []Dimension{ByPrompt}})
		want := []Row{{Counts: Counts{Requests: 2, Cost: 2000}}, {Prompt: "p", Counts: Counts{Requests: 2, Cost: 2000}}, {Prompt: "q", Counts: Counts{Requests: 1, Cost: 1000}}}
		if err != nil || sum.Requests != 5 || !reflect.DeepEqual(rows, want) {
			t.Errorf("flushed %t: %v, %v, %v", flushed, rows, sum, err)
		}
		_, sum, err = log.Query(t.Context(), storage, Query{Role: "r", Prompt: "p"})
		if err != nil || sum.Requests != 2 {
			t.Errorf("flushed %t: of p alone: %v, %v", flushed, sum, err)
		}
		// The next process reads what is stored, writes it again with its own, and so on.
		if flushed {
			log.Record(Event{Role: "r", Day: "2026-01-01"})
		}
		if err := log.Flush(t.Context(), storage); err != nil {
			t.Fatal(err)
		}
		log = New(Options{Prefix: prefix})
	}
	if _, sum, err := log.Query(t.Context(), storage, Query{Role: "r", Prompt: "p"}); err != nil || sum.Requests != 2 {
		t.Errorf("written again: of p alone: %v, %v", sum, err)
	}
}

func TestLog_WhatCallersNameIsBounded(t *testing.T) {
	log := New(Options{Prefix: prefix})
	storage := &logical.InmemStorage{}
	for i := range maxRows + 500 {
		log.Record(event("a", "2026-01-01", fmt.Sprintf("%d-%s", i, strings.Repeat("ü", 500)), "", 1))
	}
	if err := log.Flush(t.Context(), storage); err != nil {
		t.Fatal(err)
	}
	rows, sum, err := log.Query(t.Context(), storage, Query{Role: "a", GroupBy: []Dimension{ByModel}})
	if err != nil || sum.Requests != maxRows+500 || len(rows) != maxRows+1 {
		t.Errorf("%d rows, %+v, %v", len(rows), sum, err)
	}
	keys, err := logical.CollectKeys(t.Context(), storage)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		entry, err := storage.Get(t.Context(), key)
		if err != nil || len(entry.Value) > 1<<20 {
			t.Errorf("%s has %d bytes, more than Vault's storage takes: %v", key, len(entry.Value), err)
		}
	}
}

func TestLog_ConcurrentRecordsAndBatchesLoseNothing(t *testing.T) {
	storage := &logical.InmemStorage{}
	var writes int
	log := New(Options{Prefix: prefix, Wrote: func() { writes++ }})
	var recorders sync.WaitGroup
	for n := range 8 {
		recorders.Add(1)
		go func() {
			defer recorders.Done()
			for i := range 500 {
				log.Record(event("a", "2026-01-01", "m", fmt.Sprintf("e%d", (n+i)%7), 1))
			}
		}()
	}
	done := make(chan struct{})
	go func() { recorders.Wait(); close(done) }()
	for open := true; open; {
		select {
		case <-done:
			open = false
		default:
		}
		if err := log.Flush(context.Background(), storage); err != nil {
			t.Error(err)
		}
	}
	if got := total(t, New(Options{Prefix: prefix}), storage, "a"); got.Requests != 4000 {
		t.Errorf("stored %+v", got)
	}
	if writes == 0 {
		t.Error("no write was counted")
	}
}

func TestLog_AnUnchangedLogWritesNothingAndIsForgotten(t *testing.T) {
	now := time.Unix(0, 0)
	storage := &logical.InmemStorage{}
	writes := 0
	log := New(Options{Prefix: prefix, Now: func() time.Time { return now }, Wrote: func() { writes++ }})
	log.Record(event("a", "2026-01-01", "m", "", 1))
	for range 3 {
		if err := log.Flush(t.Context(), storage); err != nil {
			t.Fatal(err)
		}
	}
	if writes != 1 {
		t.Errorf("%d writes for one change", writes)
	}
	now = now.Add(2 * idleAfter)
	if err := log.Flush(t.Context(), storage); err != nil || len(log.shards) != 0 {
		t.Errorf("%d shards stay in memory, %v", len(log.shards), err)
	}
	if got := total(t, log, storage, "a"); got.Requests != 1 {
		t.Errorf("forgotten for good: %+v", got)
	}
}

func TestLog_ADamagedEntryIsNamedAndNotOverwritten(t *testing.T) {
	storage := &logical.InmemStorage{}
	log := New(Options{Prefix: prefix})
	log.Record(event("a", "2026-01-01", "m", "", 1))
	if err := log.Flush(t.Context(), storage); err != nil {
		t.Fatal(err)
	}
	keys, err := logical.CollectKeys(t.Context(), storage)
	if err != nil || len(keys) != 1 {
		t.Fatal(keys, err)
	}
	damaged := &logical.StorageEntry{Key: keys[0], Value: []byte("{")}
	if err := storage.Put(t.Context(), damaged); err != nil {
		t.Fatal(err)
	}
	log = New(Options{Prefix: prefix})
	log.Record(event("a", "2026-01-01", "m", "", 1))
	log.Record(event("b", "2026-01-01", "m", "", 1))
	if err := log.Flush(t.Context(), storage); err == nil || !strings.Contains(err.Error(), "damaged") || errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if got := total(t, log, storage, "b"); got.Requests != 1 {
		t.Errorf("b: %+v", got)
	}
	entry, err := storage.Get(t.Context(), keys[0])
	if err != nil || string(entry.Value) != "{" {
		t.Errorf("the damaged entry is now %s, %v", entry.Value, err)
	}
}

func BenchmarkRecord(b *testing.B) {
	log := New(Options{Prefix: prefix})
	e := event("a", "2026-01-01", "gpt-4o-mini", "8d3b0f3e-2e5c-4a52-9b5e-0d6a3c5a1f10", 1)
	b.ReportAllocs()
	for b.Loop() {
		log.Record(e)
	}
}

// SPDX-License-Identifier: MPL-2.0

package ledger

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

func TestFaults_OpenFailsCleanly(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=0.0000001/month")
		b.spend(p, usd(60))
		for _, f := range []func(*view){
			func(v *view) { v.only(opGet, refused) },
			func(v *view) { v.only(opPut, refused) },
			func(v *view) { v.only(opPut, answered) },
			func(v *view) { // the second read, which verifies
				reads := 0
				v.weather(func(op operation, _ string) fault {
					if op == opGet {
						reads++
					}
					return fault(reads / 2)
				})
			},
		} {
			v := newView(b.disk)
			f(v)
			if l, err := b.tryOpen(v); err == nil || l != nil {
				t.Errorf("opened: %v, %v", l, err)
			}
		}
		b.open()
		b.spend(p, usd(39))
	})
}

func TestFaults_OpenRefusesAnOwnerThatKeysCantHave(t *testing.T) {
	for _, owner := range []string{"", "a/b"} {
		if _, err := Open(t.Context(), Options{Storage: newDisk(), Owner: owner}); err == nil {
			t.Errorf("owner %q was taken", owner)
		}
	}
}

func TestFaults_ALoadThatFailsIsTriedAgain(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=0.0000001/month")
		b.spend(p, usd(60))
		b.crash()
		for _, op := range []operation{opList, opGet} {
			b.view.only(op, refused)
			if refusal := b.refusalOf(p, usd(1), Unavailable); !errors.Is(refusal.Cause, errRefused) {
				t.Errorf("%v", refusal.Cause)
			}
			if _, err := b.Status(t.Context(), p, Selection{}); !errors.Is(err, errRefused) {
				t.Errorf("status: %v", err)
			}
		}
		b.view.weather(nil)
		b.refuse(p, usd(41), Spent)
		b.spend(p, usd(39))
	})
}

func TestFaults_ALoadThatHangsEndsAfterStorageWait(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=0.0000001/month")
		b.view.only(opList, hangs)
		x, y := b.begin(p, usd(1)), b.begin(p, usd(2))
		if b.view.hanging() != 1 {
			t.Errorf("%d loads of one scope at once", b.view.hanging())
		}
		if b.pass(b.storageWait - 1); !x.pending() || !y.pending() {
			t.Error("decided too early")
		}
		b.pass(1)
		if refusal := b.refusalIn(x, Unavailable); !errors.Is(refusal.Cause, errSlow) {
			t.Errorf("%v", refusal.Cause)
		}
		b.refused(y, Unavailable)
		b.view.weather(nil)
		z := b.begin(p, usd(3))
		b.view.free(works)
		b.admitted(z).Settle(cost(3))
		b.wantUsed(p, 3, 0)
	})
}

func TestFaults_ADamagedEntryFailsClosedAndIsNamed(t *testing.T) {
	const key = "ledger/accounts/" + testAccount + "/shared/1-process-1"
	for _, damage := range []string{
		"", "{", "null x", `[]`, `{"counters":[{"limit":"usd/month"}]}`,
		`{"counters":[{"limit":"usd/month","start":1,"end":2,"used":5,"mark":4}]}`,
		`{"counters":[{"limit":"usd/month","start":1,"end":2,"used":-5,"mark":4}]}`,
		`{"counters":[{"limit":"usd/month","start":1,"end":2,"mark":9223372036854775807}]}`,
		`{"counters":[{"limit":"usd/month","start":2,"end":2}]}`,
		`{"counters":[{"limit":"usd/month","start":1,"end":3},{"limit":"usd/month","start":2,"end":4}]}`,
		`{"counters":[{"limit":"usd/month","start":1,"end":3,"sliding":60}]}`,
		`{"counters":[{"limit":"usd/hour","sliding":60}]}`,
		`{"counters":[{"limit":"usd/hour","sliding":3600,"buckets":[[1,-1]]}]}`,
		`{"counters":[{"limit":"usd/hour","sliding":3600,"buckets":[[1,2000000000000000000],[1,2000000000000000000]]}]}`,
		`{"counters":[{"limit":"usd/hour"}]}`, `{"counters":[{"limit":"usd/fortnight","start":1,"end":2}]}`, `{"counters":[{"limit":"euro/month","start":1,"end":2}]}`,
		`{"counters":[{"limit":"concurrent","start":1,"end":2}]}`,
	} {
		onBench(t, func(t *testing.T, b *bench) {
			p := b.policy("usd=1/month", "usd=1/hour")
			b.spend(p, usd(60))
			put(t, b.disk, key, damage)
			b.crash()
			refusal := b.refusalOf(p, usd(1), Unavailable)
			if !strings.Contains(refusal.Error(), key) || !strings.Contains(refusal.Error(), "damaged") {
				t.Errorf("%s: %v", damage, refusal)
			}
			if sum := holdings(b.Ledger); sum != 0 {
				t.Errorf("%d stay reserved", sum)
			}
		})
	}
}

func put(t *testing.T, disk logical.Storage, key, value string) {
	t.Helper()
	if err := disk.Put(t.Context(), &logical.StorageEntry{Key: key, Value: []byte(value)}); err != nil {
		t.Fatal(err)
	}
}

func TestFaults_AStrangeKeyAmongTheEntriesFailsClosed(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		put(t, b.disk, "ledger/accounts/"+testAccount+"/shared/strange", "{}")
		if refusal := b.refusalOf(b.policy("usd=1/month"), usd(1), Unavailable); !strings.Contains(refusal.Error(), "strange") {
			t.Errorf("%v", refusal)
		}
	})
}

func TestFaults_AWriteThatFailsHoldsNothingAndTheNextIsNoLower(t *testing.T) {
	for _, f := range []fault{refused, answered} {
		onBench(t, func(t *testing.T, b *bench) {
			p := b.policy("usd=0.00001/month")
			b.spend(p, usd(10))
			b.view.puts(f)
			refusal := b.refusalOf(p, usd(5000), Unavailable)
			if !strings.Contains(refusal.Error(), "/shared/1-process-1") {
				t.Errorf("the error doesn't name the key: %v", refusal)
			}
			b.wantUsed(p, 10, 0)
			b.pass(3 * time.Second) // so that the peak is none of late
			b.view.weather(nil)
			b.spend(p, usd(500))
			if mark, _ := b.storedMark("usd/month"); mark < 5010 {
				t.Errorf("the next write has a mark of %d, want at least the 5010 of the one that failed", mark)
			}
			b.spend(p, usd(9_490)) // nothing is lost of the budget
			b.wantUsed(p, 10_000, 0)
		})
	}
}

// The failed write may have lowered the watermark, or not: the lower one holds.
func TestFaults_AWriteThatFailsMayHaveLoweredTheMark(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=0.00001/month")
		b.admit(p, usd(9000)).Settle(cost(10))
		b.view.puts(answered)
		b.sweepFor(4 * time.Second) // lowers the mark, and isn't told that it did
		if mark, _ := b.storedMark("usd/month"); mark > 1000 {
			t.Fatalf("a mark of %d", mark)
		}
		b.view.puts(refused)
		b.refuse(p, usd(5000), Unavailable)
	})
}

func TestFaults_AWriteThatHangsRefusesAfterStorageWaitAndRecovers(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=0.00001/month", "requests=100/day")
		b.spend(p, usd(10))
		b.view.puts(hangs)
		x := b.begin(p, usd(1000))
		if b.pass(b.storageWait - 1); !x.pending() {
			t.Error("decided too early")
		}
		b.pass(1)
		if refusal := b.refusalIn(x, Unavailable); !errors.Is(refusal.Cause, errSlow) {
			t.Errorf("%v", refusal.Cause)
		}
		b.wantUsed(p, 10, 0)
		if b.view.hanging() != 1 {
			t.Errorf("%d writes at once, want one that isn't abandoned", b.view.hanging())
		}
		y := b.begin(p, usd(2000)) // it waits for the same write, and the one after it
		b.view.weather(nil)
		b.view.free(works)
		b.admitted(y).Settle(cost(2000))
		b.wantUsed(p, 2010, 0)
	})
}

// goneContext is that of a caller who went away when nobody looked.
type goneContext struct{ context.Context }

func (goneContext) Err() error { return context.Canceled }

func TestFaults_ACallerThatWentAwayDuringAWriteHoldsNothing(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=1/month")
		refusal := b.Reserve(goneContext{context.Background()}, p, usd(1000), &Reservation{})
		if refusal == nil || refusal.Reason != Gone {
			t.Errorf("%v", refusal)
		}
		b.wantUsed(p, 0, 0)
	})
}

func TestFaults_AProcessThatStorageHasntConfirmedAsksFirst(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("requests=1000/minute") // which needs no storage
		b.spend(p, usd(1))
		b.pass(900 * time.Millisecond)
		reads := b.view.count(opGet)
		b.spend(p, usd(1))
		if n := b.view.count(opGet) - reads; n != 0 {
			t.Errorf("asked %d times within a second", n)
		}
		b.view.all(hangs)
		b.pass(4 * time.Second)
		b.spend(p, usd(1)) // asked in the background
		b.spend(p, usd(1))
		if b.view.hanging() != 1 {
			t.Errorf("%d questions at once", b.view.hanging())
		}
		b.pass(200 * time.Millisecond)
		x := b.begin(p, usd(1))
		if !x.pending() {
			t.Error("admitted after 5 s without an answer")
		}
		b.pass(b.storageWait)
		b.refused(x, Unavailable)

		// The answer to a question of long ago says nothing of now.
		b.view.all(refused)
		y := b.begin(p, usd(1))
		b.view.free(works)
		b.refused(y, Unavailable)
		b.view.weather(nil)
		b.spend(p, usd(1))
		b.view.all(hangs)
		b.pass(2 * time.Second)
		b.spend(p, usd(1))
		b.pass(10 * time.Second)
		z := b.begin(p, usd(1))
		b.view.weather(nil)
		b.view.free(works) // so it is asked again
		b.admitted(z).Settle(cost(1))
		b.view.all(refused)
		b.pass(10 * time.Second)
		b.refuse(p, usd(1), Unavailable)
	})
}

func TestFaults_WhoeverWaitsIsntAdmittedByAStaleProcess(t *testing.T) {
	onBench(t, func(_ *testing.T, b *bench) {
		b.queueWait = time.Minute
		p := b.policy("tokens=100/minute")
		first := b.admit(p, tokens(100))
		x := b.begin(p, tokens(50))
		b.view.all(hangs)
		b.pass(6 * time.Second)
		first.Settle(Charge{})
		b.refused(x, Unavailable)
	})
}

func TestFaults_UseAboveAReservationIsCoveredOnceStorageWorks(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=0.0001/month")
		r := b.admit(p, usd(10))
		b.view.puts(refused)
		if !r.Settle(cost(70_000)) {
			t.Error("nobody is told")
		}
		synctest.Wait()
		b.view.weather(nil)
		b.sweepFor(3 * time.Second) // without any request
		b.crash()
		if s := b.status(p, ""); s.Used < 70_000 || s.Exceeded != 69_990 {
			t.Errorf("%+v", s)
		}
	})
}

func TestFaults_UseAboveAReservationIsWrittenAtOnce(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=0.0001/month")
		b.admit(p, usd(10)).Settle(cost(70_000))
		synctest.Wait()
		b.crash()
		if s := b.status(p, ""); s.Used < 70_000 {
			t.Errorf("%+v", s)
		}
	})
}

func TestFaults_UseAboveAReservationDuringAWriteIsInTheNext(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=0.0001/month")
		r := b.admit(p, usd(10))
		b.view.puts(hangs)
		x := b.begin(p, usd(20_000))
		r.Settle(cost(70_000))
		b.view.weather(nil)
		b.view.free(works)
		b.admitted(x)
		b.crash()
		if s := b.status(p, ""); s.Used < 90_000 {
			t.Errorf("%+v", s)
		}
	})
}

func TestFaults_CloseSaysWhatCouldntBeWritten(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=1/month")
		b.admit(p, usd(1000)).Settle(cost(1))
		b.view.puts(hangs)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		started := time.Now()
		if err := b.Close(ctx, time.Second); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		if took := time.Since(started); took > 2*time.Second {
			t.Errorf("took %s", took)
		}
	})
}

func TestFaults_CloseCoversWhatHasntEnded(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=1/month")
		b.spend(p, usd(500))
		r := b.admit(p, usd(1000))
		if err := b.Close(t.Context(), 100*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		r.Settle(cost(7))
		b.refuse(p, usd(1), Unavailable)
		b.open()
		if s := b.status(p, ""); s.Used != 1500 || s.Unattributed != 1000 {
			t.Errorf("%+v", s)
		}
	})
}

func TestFaults_DropWaitsForTheWriteUnderWay(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=1/month")
		b.view.puts(hangs)
		x := b.begin(p, usd(1000))
		if err := b.Drop(t.Context(), testAccount); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		b.view.weather(nil)
		b.view.free(works)
		b.refused(x, Unavailable)
		walk(t, b.disk, "ledger/accounts/", func(key string, _ []byte) { t.Errorf("%s is left", key) })
	})
}

func TestFaults_ResumeDeletesWhatDropLeft(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=1/month", "usd=1/month per entity")
		for _, entity := range []string{"", "entity-1", "entity-2"} {
			b.spend(p, &Request{Entity: entity, Amounts: Amounts{USD: 1}})
		}
		b.view.only(opDelete, refused)
		if err := b.Drop(t.Context(), testAccount); err != nil {
			t.Fatal(err)
		}
		b.crash()
		if err := b.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		walk(t, b.disk, "ledger/", func(key string, _ []byte) {
			if key != "ledger/epoch" {
				t.Errorf("%s is left", key)
			}
		})
	})
}

func TestFaults_ResetAndWriteOffThatCantBeWrittenSaySo(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		p := b.policy("usd=0.0000001/month")
		b.spend(p, usd(100))
		b.view.puts(refused)
		if err := b.Reset(t.Context(), p, Selection{}); !errors.Is(err, errRefused) {
			t.Errorf("%v", err)
		}
		b.wantUsed(p, 0, 0)
		if x := b.begin(p, usd(1)); x.refusal == nil {
			x.Settle(Charge{}) // under the old mark, or
		}
		b.view.weather(nil)
		if err := b.Reset(t.Context(), p, Selection{}); err != nil {
			t.Error(err)
		}
		b.crash()
		b.wantUsed(p, 0, 0)
	})
}

// SPDX-License-Identifier: MPL-2.0

package ledger

import (
	"context"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

// FuzzEntry proves that whatever is stored, a request is admitted or refused,
// that what it was charged is counted, and that what is written then is read.
func FuzzEntry(f *testing.F) {
	for _, seed := range []string{
		`{"name":"team-a","counters":[{"limit":"usd/month","start":1772323200,"end":1775001600,"used":40,"mark":50}]}`,
		`{"counters":[{"limit":"usd/month","start":1769904000,"end":1772323200,"used":1,"mark":1},{"limit":"usd/month","start":1772323200,"end":1775001600}]}`,
		`{"counters":[{"limit":"tokens/hour","used":70,"mark":80,"unattributed":5,"alerted":1,"sliding":3600,"buckets":[[1773230400000,30],[1773229400000,40]]}]}`,
		`{"counters":[{"limit":"usd/total","start":-9223372036854775808,"end":9223372036854775807,"used":2305843009213693951,"mark":2305843009213693951}]}`,
		`{"counters":[{"limit":"requests/36h on gpt-*","start":1773000000,"end":1773400000,"exceeded":4,"unconfirmed":4}]}`,
		`{"counters":[{"limit":"tokens/hour","sliding":3600,"buckets":[[9223372036854775807,1],[-9223372036854775808,1]]}]}`,
		`{"counters":[{"limit":"usd/minute","start":1,"end":9}]}`, `{}`, `null`, ``, `[`, `{"counters":[{}]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		disk := newDisk()
		key := "ledger/accounts/" + testAccount + "/shared/0-before"
		if err := disk.Put(t.Context(), &logical.StorageEntry{Key: key, Value: value}); err != nil {
			t.Fatal(err)
		}
		o := Options{Storage: disk, Prefix: "ledger/", Owner: "now", Clock: newFakeClock(noon), QueueWait: -1}
		l, err := Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		p := NewPolicy(PolicyOptions{Account: testAccount, Thresholds: []int{50, 100}, Limits: mustLimits(t,
			"usd=1/month", "tokens=1000/hour", "usd=1/minute", "usd=1/total", "requests=100/36h on gpt-*", "requests=5/week")})
		before, err := l.Status(t.Context(), p, Selection{})
		if _, damaged := decodeEntry(value); (damaged == nil) != (err == nil) {
			t.Fatalf("loaded: %v, decoded: %v", err, damaged)
		}
		var r Reservation
		req := &Request{Model: "gpt-4o", Amounts: Amounts{USD: 10, Tokens: 10, Requests: 1}}
		refusal := l.Reserve(context.Background(), p, req, &r)
		r.Settle(Charge{Amounts: req.Amounts})
		if err != nil {
			if refusal == nil || refusal.Reason != Unavailable {
				t.Fatalf("a damaged entry, and %v", refusal)
			}
			return
		}
		checkCharged(t, l, p, before, refusal, req)
		if err := l.Close(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		o.Owner = "next"
		next, err := Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := next.Status(t.Context(), p, Selection{}); err != nil {
			t.Fatalf("what was written can't be read: %v", err)
		}
	})
}

// checkCharged checks that each limit counts the request, unless it was refused.
func checkCharged(t *testing.T, l *Ledger, p *Policy, before []Status, refusal *Refusal, req *Request) {
	after := standing(t, l, p, Selection{})
	for i := range after {
		want := before[i].Used
		if refusal == nil {
			want = min(want+req.Amounts[after[i].Limit.Unit], most)
		}
		if after[i].Used != want || after[i].Reserved != 0 || after[i].Used < 0 {
			t.Fatalf("%s: %+v became %+v, refused: %v", after[i].Limit, before[i], after[i], refusal)
		}
	}
}

// SPDX-License-Identifier: MPL-2.0

package ledger

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

func mustLimits(tb testing.TB, texts ...string) []Limit {
	tb.Helper()
	list := make([]Limit, len(texts))
	for i, text := range texts {
		var err error
		if list[i], err = ParseLimit(text); err != nil {
			tb.Fatal(err)
		}
	}
	return list
}

func benchmarkAdmit(b *testing.B, limits ...string) {
	l, err := Open(b.Context(), Options{Storage: &logical.InmemStorage{}, Prefix: "ledger/", Owner: "bench"})
	if err != nil {
		b.Fatal(err)
	}
	p := NewPolicy(PolicyOptions{Account: "6f9619ff-8b86-d011-b42d-00cf4fc964ff", Name: "bench", Limits: mustLimits(b, limits...)})
	req := &Request{Model: "gpt-4o", Entity: "8e0e2c4f-1f51-4b7a-8c0e-9c2f8ad3a111", Amounts: Amounts{USD: 1000, Requests: 1, Tokens: 300, InputTokens: 100, OutputTokens: 200, Concurrent: 1}}
	charge := Charge{Amounts: Amounts{USD: 1, Requests: 0, Tokens: 30}}
	b.ReportAllocs()
	var r Reservation
	for b.Loop() {
		if refusal := l.Reserve(context.Background(), p, req, &r); refusal != nil {
			b.Fatal(refusal)
		}
		r.Settle(charge)
	}
}

func BenchmarkAdmitSettle_OneLimit(b *testing.B) { benchmarkAdmit(b, "usd=1000000/month") }

func BenchmarkAdmitSettle_ThreeLimits(b *testing.B) {
	benchmarkAdmit(b, "usd=1000000/month", "tokens=1000000000000/day", "concurrent=8")
}

func BenchmarkAdmitSettle_PerEntityAndModel(b *testing.B) {
	benchmarkAdmit(b, "usd=1000000/month per entity on gpt-4*", "tokens=1000000000000/minute")
}

func BenchmarkAdmitSettle_ParallelRoles(b *testing.B) {
	l, err := Open(b.Context(), Options{Storage: &logical.InmemStorage{}, Prefix: "ledger/", Owner: "bench"})
	if err != nil {
		b.Fatal(err)
	}
	var n atomic.Int64
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		id := fmt.Sprintf("%08d-8b86-d011-b42d-00cf4fc964ff", n.Add(1))
		p := NewPolicy(PolicyOptions{Account: id, Name: id, Limits: mustLimits(b, "usd=1000000/month")})
		req := &Request{Amounts: Amounts{USD: 1000, Requests: 1}}
		var r Reservation
		for pb.Next() {
			if refusal := l.Reserve(context.Background(), p, req, &r); refusal != nil {
				b.Error(refusal)
				return
			}
			r.Settle(Charge{Amounts: Amounts{USD: 1}})
		}
	})
}

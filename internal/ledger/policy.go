// SPDX-License-Identifier: MPL-2.0

package ledger

import "math/bits"

// Policy is what one virtual key says of limits. It is immutable and may be
// shared; of two for the same account, each request is judged by the one that
// it came with.
type Policy struct {
	account    string
	name       string
	limits     []Limit
	ids        []string
	soft       bool
	thresholds []int
	crossings  [][]int64 // per limit and threshold, the amount that crosses it
	perEntity  bool
}

// PolicyOptions are what a Policy is made of.
type PolicyOptions struct {
	// Account identifies the virtual key for good: its UUID. It is a part of
	// storage keys. Name is the virtual key's, for people.
	Account, Name string
	// Limits have different identities (Limit.ID), and are at most MaxLimits.
	Limits []Limit
	// Soft limits never alter or delay a request, and admit while used < max.
	Soft bool
	// Thresholds are percentages of a limit, ascending, whose crossing is told.
	Thresholds []int
}

// NewPolicy makes a policy. It keeps the slices of o.
func NewPolicy(o PolicyOptions) *Policy {
	p := &Policy{account: o.Account, name: o.Name, limits: o.Limits, soft: o.Soft, thresholds: o.Thresholds}
	p.ids = make([]string, len(p.limits))
	p.crossings = make([][]int64, len(p.limits))
	for i := range p.limits {
		limit := &p.limits[i]
		p.ids[i] = limit.ID()
		p.perEntity = p.perEntity || limit.PerEntity
		if limit.Unit == Concurrent || limit.Window.Short() || limit.Max == 0 {
			continue // rates are crossed all the time
		}
		for _, percent := range p.thresholds {
			p.crossings[i] = append(p.crossings[i], share(limit.Max, int64(percent)))
		}
	}
	return p
}

// Limits returns the limits. The caller must not change them.
func (p *Policy) Limits() []Limit { return p.limits }

// Soft says whether the limits only count.
func (p *Policy) Soft() bool { return p.soft }

// Counts says whether a limit on this unit applies to the model.
func (p *Policy) Counts(unit Unit, model string) bool {
	for i := range p.limits {
		if p.limits[i].Unit == unit && p.limits[i].Applies(model) {
			return true
		}
	}
	return false
}

// share is percent of amount, rounded up.
func share(amount, percent int64) int64 {
	hi, lo := bits.Mul64(uint64(amount), uint64(percent)) //nolint:gosec // neither is negative
	lo, carry := bits.Add64(lo, 99, 0)
	q, _ := bits.Div64(hi+carry, lo, 100)
	return int64(q) //nolint:gosec // percentages are small, so that it is no more than a few times amount
}

// crossed returns how many thresholds of limit i that so much has crossed.
func (p *Policy) crossed(i int, used int64) (n int) {
	for _, at := range p.crossings[i] {
		if used >= at {
			n++
		}
	}
	return n
}

// PerEntity says whether a limit counts entities apart.
func (p *Policy) PerEntity() bool { return p.perEntity }

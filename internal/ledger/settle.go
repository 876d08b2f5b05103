// SPDX-License-Identifier: MPL-2.0

package ledger

// Charge is what a request used.
type Charge struct {
	Amounts Amounts
	// Unconfirmed means that the outcome is unknown and the worst case charged.
	Unconfirmed bool
}

// Settle ends the reservation: what it held is given back, and what was used is
// counted in the windows of its admission. Only the first call counts. It says
// whether more was used than reserved, of any unit.
//
// A reservation of a policy without limits, or one that was refused, has
// nothing to settle.
func (r *Reservation) Settle(charge Charge) (exceeded bool) {
	a := r.account
	if a == nil {
		return false
	}
	mono := r.ledger.mono()
	a.mu.Lock()
	if !r.open {
		a.mu.Unlock()
		return false
	}
	charge.Amounts = clamp(charge.Amounts)
	exceeded = r.release(mono, charge)
	alerts := r.alerts()
	a.mu.Unlock()
	for i := range alerts {
		r.ledger.alerted(alerts[i])
	}
	return exceeded
}

// release gives back what is held and counts the charge.
func (r *Reservation) release(mono int64, charge Charge) (exceeded bool) {
	a := r.account
	r.open = false
	a.open--
	for i := range r.n {
		h := &r.holds[i]
		c := h.counter
		c.reserved -= h.amount
		h.scope.release()
		h.scope.use(mono)
		h.scope.version++
		h.scope.clean = false
		if h.unit == Concurrent {
			continue
		}
		amount := charge.Amounts[h.unit]
		if c.ring != nil {
			c.ring.advance(mono)
		}
		c.add(amount, h.tick)
		c.tide.settle(amount, mono)
		if charge.Unconfirmed {
			c.unconfirmed = min(c.unconfirmed+amount, most)
		}
		if amount > h.amount {
			exceeded = true
			c.exceeded = min(c.exceeded+amount-h.amount, most)
			if c.durable && c.total() > c.mark {
				c.want = c.total()
				h.scope.kick()
			}
		}
	}
	a.serve()
	return exceeded
}

// alerts returns the thresholds that were crossed.
func (r *Reservation) alerts() (list []Alert) {
	for i := range r.n {
		h := &r.holds[i]
		if alert, ok := h.counter.alert(r.account, r.policy, h.index, h.scope); ok {
			list = append(list, alert)
		}
	}
	return list
}

// alert notes how many thresholds are crossed, and returns the highest if that
// is more than before.
func (c *counter) alert(a *account, p *Policy, i int, sc *scope) (Alert, bool) {
	if len(p.crossings[i]) == 0 {
		return Alert{}, false
	}
	n := p.crossed(i, c.inUse())
	before := c.alerted
	c.alerted = n
	if n <= before {
		return Alert{}, false
	}
	return Alert{
		Account: a.id, Name: a.name, Entity: sc.entity, Limit: p.limits[i],
		Percent: p.thresholds[n-1], Used: c.inUse(), ResetsAt: endOf(c),
	}, true
}

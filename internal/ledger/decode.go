// SPDX-License-Identifier: MPL-2.0

package ledger

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// decodeEntry reads a stored entry. It refuses what snapshot can't have written:
// whatever made it so, the counts in it can't be trusted.
func decodeEntry(value []byte) (*entry, error) {
	e := &entry{}
	if err := json.Unmarshal(value, e); err != nil {
		return nil, err
	}
	for i := range e.Counters {
		c := &e.Counters[i]
		if err := c.check(); err != nil {
			return nil, fmt.Errorf("counter %d, %s: %w", i+1, quoted(c.Limit), err)
		}
		if i == 0 || e.Counters[i-1].Limit != c.Limit {
			continue
		}
		if before := &e.Counters[i-1]; c.Sliding != 0 || before.End > c.Start {
			return nil, fmt.Errorf("counter %d, %s: its window begins before that of another has ended", i+1, quoted(c.Limit))
		}
	}
	return e, nil
}

// check says what is impossible in a counter.
func (e *counterEntry) check() error {
	window, err := windowOf(e.Limit)
	if err != nil {
		return err
	}
	for _, amount := range [...]int64{e.Used, e.Mark, e.Unconfirmed, e.Unattributed, e.Exceeded} {
		if amount < 0 || amount > 2*most {
			return fmt.Errorf("%d is no amount", amount)
		}
	}
	switch {
	case e.Used > most:
		return fmt.Errorf("%d is no amount", e.Used)
	case e.Mark < e.Used:
		return fmt.Errorf("mark %d is below used %d", e.Mark, e.Used)
	case window.Sliding():
		return e.checkBuckets(window)
	case e.Sliding != 0 || len(e.Buckets) > 0:
		return fmt.Errorf("it doesn't slide")
	case e.Start >= e.End:
		return fmt.Errorf("window %d to %d is empty", e.Start, e.End)
	}
	return nil
}

func (e *counterEntry) checkBuckets(window Window) error {
	if time.Duration(e.Sliding) != window.Width()/time.Second {
		return fmt.Errorf("%d seconds aren't a %s", e.Sliding, window)
	}
	sum := int64(0)
	for _, b := range e.Buckets {
		if b[1] < 0 || b[1] > most-sum {
			return fmt.Errorf("%d is no amount", b[1])
		}
		sum += b[1]
	}
	return nil
}

// windowOf is the window in the identity of a limit that is stored.
func windowOf(id string) (Window, error) {
	head, _, _ := strings.Cut(id, " ")
	unit, window, _ := strings.Cut(head, "/")
	if _, err := ParseUnit(unit); err != nil {
		return Window{}, err
	}
	return ParseWindow(window)
}

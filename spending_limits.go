// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-portkey/internal/ledger"
)

// ledgerPrefix holds what limits count. It belongs to this cluster alone.
const ledgerPrefix = localPrefix + "ledger/"

// thresholdEvent is the type of the Vault event that is sent when a limit
// crosses a threshold.
const thresholdEvent = "portkey/limit-threshold"

// ledgerClock is the engine's clock as the ledger reads it.
type ledgerClock struct {
	ledger.Clock
	wall func() time.Time
}

// Read implements ledger.Clock.
func (c ledgerClock) Read() (time.Time, time.Duration) {
	_, mono := c.Clock.Read()
	return c.wall(), mono
}

// openLedger takes over the limits of this mount, for good.
func (b *backend) openLedger(ctx context.Context, storage logical.Storage, owner string) error {
	var clock ledger.Clock
	if b.wallClock {
		clock = ledgerClock{ledger.SystemClock(), b.now}
	}
	l, err := ledger.Open(ctx, ledger.Options{
		Storage: countedStorage{storage, b.metrics.writes}, Prefix: ledgerPrefix, Clock: clock, Owner: owner,
		Alerted: b.alerts.add,
		Warn:    func(message string, err error) { b.Logger().Warn(message, "error", err) },
	})
	if err != nil {
		return err
	}
	b.ledger.Store(l)
	return nil
}

// alerts are the crossed thresholds that haven't been told yet. More than fit
// are dropped: warnings on reads show them too.
type alerts chan ledger.Alert

func (a alerts) add(alert ledger.Alert) {
	select {
	case a <- alert:
	default:
	}
}

// tellAlerts tells crossed thresholds until ctx ends. It does nothing else: a
// server may be slow to take an event.
func (b *backend) tellAlerts(ctx context.Context) {
	for {
		select {
		case alert := <-b.alerts:
			b.tell(ctx, alert)
		case <-ctx.Done():
			return
		}
	}
}

// tell logs a crossed threshold, and sends it as an event to whoever has
// subscribed. Servers without events answer with an error, which is no news.
func (b *backend) tell(ctx context.Context, alert ledger.Alert) {
	unit := alert.Limit.Unit
	used, most := unit.Format(alert.Used), unit.Format(alert.Limit.Max)
	b.Logger().Warn("a limit has crossed a threshold", "role", alert.Name, "entity", alert.Entity, "limit", alert.Limit.String(),
		"percent", alert.Percent, "used", used, "max", most, "resets_at", timeText(alert.ResetsAt))
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	path := "usage/" + alert.Name
	err := logical.SendEvent(ctx, b, thresholdEvent,
		logical.EventMetadataPath, path, logical.EventMetadataDataPath, path, logical.EventMetadataOperation, "update",
		"role", alert.Name, "entity", alert.Entity, "limit", alert.Limit.String(), "percent", fmt.Sprint(alert.Percent),
		"used", used, "max", most, "resets_at", timeText(alert.ResetsAt))
	if err != nil && !errors.Is(err, framework.ErrNoEvents) {
		b.Logger().Debug("the server takes no event of a crossed threshold", "error", err)
	}
}

// timeText is a time as people read it, empty for none.
func timeText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// closeLedger writes exact figures of what limits count, and admits nothing
// from then on.
func (b *backend) closeLedger(ctx context.Context) {
	l := b.ledger.Load()
	if l == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, drainTimeout+flushTimeout)
	defer cancel()
	if err := l.Close(ctx, drainTimeout); err != nil {
		b.Logger().Warn("what limits count could not be written exactly; what is above it counts as used until it is written off", "error", err)
	}
}

// resumeDrops deletes what is left of the counts of deleted virtual keys.
func (b *backend) resumeDrops(ctx context.Context) {
	if err := b.ledger.Load().Resume(ctx); err != nil && ctx.Err() == nil {
		b.Logger().Warn("counts of deleted virtual keys could not be deleted; it will be tried again", "error", err)
	}
}

// pruneLedger deletes what limits counted for entities that haven't come back
// since their windows ended.
func (b *backend) pruneLedger(ctx context.Context) {
	if err := b.ledger.Load().Prune(ctx); err != nil && ctx.Err() == nil {
		b.Logger().Warn("old counts of limits could not be deleted; it will be tried again", "error", err)
	}
}

// dropCounts forgets what the limits of a deleted virtual key counted.
func (b *backend) dropCounts(ctx context.Context, id string) {
	l := b.ledger.Load()
	if l == nil {
		return
	}
	if err := l.Drop(ctx, id); err != nil {
		b.Logger().Warn("the counts of a deleted virtual key stay in storage; nothing uses them", "error", err)
	}
}

// limitStatus returns what stands on the limits of a role that are counted for
// all callers together; nothing where this instance keeps no ledger.
func (b *backend) limitStatus(ctx context.Context, storage logical.Storage, r *role) ([]ledger.Status, error) {
	l := b.ledger.Load()
	if l == nil || len(r.Limits) == 0 {
		return nil, nil
	}
	settings, err := b.readSettings(ctx, storage)
	if err != nil {
		return nil, err
	}
	return l.Status(ctx, r.limits, ledger.Selection{Zone: settings.location()})
}

// addThresholdWarnings warns of limits that are nearly used up.
func addThresholdWarnings(resp *logical.Response, statuses []ledger.Status) {
	for _, s := range statuses {
		if s.Threshold == 0 {
			continue
		}
		whose := ""
		if s.Limit.PerEntity {
			whose = " by entity " + s.Entity
			if s.Entity == "" {
				whose = " by callers without an entity"
			}
		}
		resp.AddWarning(fmt.Sprintf("the limit %s is used to %s%s: %s of %s", s.Limit, percentOf(s), whose,
			s.Limit.Unit.Format(s.Used), s.Limit.Unit.Format(s.Limit.Max)))
	}
}

// nearestLimit names the limit of which the largest part is used.
func nearestLimit(statuses []ledger.Status) string {
	nearest, share := "", -1.0
	for _, s := range statuses {
		part := 1.0
		if s.Limit.Max > 0 {
			part = float64(s.Used) / float64(s.Limit.Max)
		}
		if s.Limit.Unit != ledger.Concurrent && part > share {
			nearest, share = fmt.Sprintf("%s: %s used", s.Limit, percentOf(s)), part
		}
	}
	return nearest
}

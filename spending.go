// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-portkey/internal/price"
	"vault-plugin-secrets-portkey/internal/relay"
	"vault-plugin-secrets-portkey/internal/usage"
)

// flushEvery is how often the record of usage is written: a crash loses no
// more than that of it.
const flushEvery = time.Second

// spend records one outcome. The request counts on the day of its admission.
func (b *backend) spend(settings *settings, from payer, o relay.Outcome) {
	b.metrics.observe(&o)
	b.usage.Record(usage.Event{
		Role: o.VirtualKey, Day: o.Started.In(settings.location()).Format(time.DateOnly),
		Model: o.Model, Caller: from.entity, Prompt: from.prompt, Counts: countsOf(o),
	})
}

func countsOf(o relay.Outcome) usage.Counts {
	if o.Result == relay.Refused {
		return usage.Counts{Refused: 1}
	}
	c := usage.Counts{
		Requests:    1,
		InputTokens: o.Usage[price.Input], CachedTokens: o.Usage[price.CacheRead],
		OutputTokens: o.Usage[price.Output], ReasoningTokens: o.Usage[price.OutputReasoning],
		Cost: int64(o.Cost.Total),
	}
	if o.Result == relay.Failed {
		c.Failed = 1
	}
	if o.Unpriced {
		c.Unpriced = 1
	}
	switch o.Basis {
	case relay.Unconfirmed:
		c.Unconfirmed, c.UnconfirmedCost = 1, c.Cost
	case relay.Estimated:
		c.Estimated, c.EstimatedCost = 1, c.Cost
	case relay.Free, relay.Reported:
	}
	return c
}

// work is the active instance's background work. It ends with ctx, after a
// last write that makes the record exact.
func (b *backend) work(ctx context.Context, storage logical.Storage) {
	storage = countedStorage{storage, b.metrics.writes}
	b.inBackground(func() { b.resumeDrops(ctx) })
	b.inBackground(func() { b.tellAlerts(ctx) })
	keepPath := b.door.open(ctx, storage)
	started := b.startGateway(ctx, storage)
	memory := newCollector()
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	prune := time.NewTicker(pruneEvery)
	defer prune.Stop()
	for {
		select {
		case <-prune.C:
			b.inBackground(func() {
				b.pruneUsage(ctx, storage)
				b.pruneLeasedKeys(ctx, storage)
				b.resumeDrops(ctx)
				b.pruneLedger(ctx)
			})
		case <-ctx.Done():
			b.finish(context.WithoutCancel(ctx), storage)
			return
		case <-tick.C:
			b.flushUsage(ctx, storage)
			b.ledger.Load().Sweep()
			b.gateway.Sweep()
			memory.adapt(b.gateway.Status().Streams)
			keepPath(ctx)
			started = started || b.startGateway(ctx, storage)
		}
	}
}

// inBackground runs f, which ends with the instance; the end waits for it.
func (b *backend) inBackground(f func()) {
	b.activity.working.Add(1)
	go func() {
		defer b.activity.working.Done()
		f()
	}()
}

// finish makes the last writes: the calls under way, which the end cancels, are
// settled first.
func (b *backend) finish(ctx context.Context, storage logical.Storage) {
	var writes sync.WaitGroup
	writes.Go(func() { b.closeLedger(ctx) })
	ending, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	b.gateway.Close(ending)
	b.inline.drain(ending)
	b.flushUsage(ctx, storage)
	writes.Wait()
}

// A clean end takes no longer than Vault can wait: the calls under way, which
// the end cancels, have drainTimeout to settle, and the last write has
// flushTimeout.
const (
	drainTimeout = 400 * time.Millisecond
	flushTimeout = 1500 * time.Millisecond
)

func (b *backend) flushUsage(ctx context.Context, storage logical.Storage) {
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	if err := b.usage.Flush(ctx, storage); err != nil {
		b.Logger().Warn("usage could not be written and is kept in memory", "error", err)
	}
}

// The record of usage is kept for over a year, so that a month can be compared
// with the same month before; what is older is looked for now and then.
const (
	usageRetentionDays = 400
	pruneEvery         = 6 * time.Hour
)

// pruneUsage deletes what is older than the retention.
func (b *backend) pruneUsage(ctx context.Context, storage logical.Storage) {
	oldest := b.now().UTC().AddDate(0, 0, -usageRetentionDays).Format(time.DateOnly)
	roles, err := b.usage.Roles(ctx, storage)
	for _, role := range roles {
		if err == nil {
			err = b.usage.Prune(ctx, storage, role, oldest)
		}
	}
	if err != nil {
		b.Logger().Warn("old usage could not be deleted; it will be tried again", "error", err)
	}
}

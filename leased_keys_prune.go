// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// Bounds on the search for keys whose revocation never arrived. It goes on next
// time where it stopped.
const (
	// leasedGrace is how long after its end a key stays stored: Vault may be
	// late in revoking it, when it was sealed say.
	leasedGrace = 48 * time.Hour
	// leasedPruneReads and leasedPruneFaults end one run.
	leasedPruneReads  = 10_000
	leasedPruneFaults = 10
)

// pruneLeasedKeys deletes keys that were to be revoked and weren't.
func (b *backend) pruneLeasedKeys(ctx context.Context, storage logical.Storage) {
	if err := b.leased.prune(ctx, storage, b.now().Add(-leasedGrace)); err != nil {
		b.Logger().Warn("old leased keys could not be deleted; it will be tried again", "error", err)
	}
}

// prune deletes the revoked keys that storage wouldn't let go, and of the others
// those that had expired at the time given.
func (l *leasedKeys) prune(ctx context.Context, storage logical.Storage, at time.Time) error {
	var faults []error
	try := func(err error) bool {
		if err != nil {
			faults = append(faults, err)
		}
		return len(faults) < leasedPruneFaults && ctx.Err() == nil
	}
	for _, hash := range l.stillStored() {
		if !try(l.remove(ctx, storage, hash)) {
			return errors.Join(faults...)
		}
	}
	hashes, err := l.entries.list(ctx, storage)
	if err != nil {
		return errors.Join(append(faults, err)...)
	}
	for _, hash := range l.turn(hashes) {
		// Not through the cache, which is for those that are used.
		k, err := l.entries.read(ctx, storage, hash)
		if err == nil && k != nil && k.expired(at) {
			err = l.remove(ctx, storage, hash)
		}
		if !try(err) {
			break
		}
	}
	return errors.Join(faults...)
}

// stillStored returns the hashes of the revoked keys that storage may hold.
func (l *leasedKeys) stillStored() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	hashes := make([]string, 0, len(l.revoked))
	for hash := range l.revoked {
		hashes = append(hashes, hash)
	}
	return hashes
}

// turn returns those of the sorted hashes whose turn it is.
func (l *leasedKeys) turn(hashes []string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	start, found := slices.BinarySearch(hashes, l.pruned)
	if found {
		start++
	}
	hashes = hashes[start:]
	if len(hashes) <= leasedPruneReads {
		l.pruned = ""
		return hashes
	}
	hashes = hashes[:leasedPruneReads]
	l.pruned = hashes[len(hashes)-1]
	return hashes
}

// SPDX-License-Identifier: MPL-2.0

// Package ledger keeps limits on what virtual keys spend, so that a hard limit
// is never overspent: not by concurrent requests, not across a crash, not by
// two processes that both think that they are the active one.
//
// Before a request is sent, its worst case is reserved against every limit that
// applies, all or nothing (Ledger.Reserve). Afterwards the reservation is
// settled, once, with what the request really used (Reservation.Settle).
//
// Counters live in memory. Of those that must outlive a crash, storage holds a
// watermark: an amount at or above all that is used and reserved. Admission
// that fits under it touches memory only; it is raised ahead of need, by about
// what the last second spent. After a crash the watermark counts as used. What
// it counts too much is shown as unattributed, and can be written off.
//
// Every process takes a newer epoch than any before it, and an older one finds
// out before it uses a watermark that the newer one doesn't know of: it reads
// the epoch after each write, and the newer process bumps it before it reads.
// Each writes entries of its own, so that a write of an older one that lands
// late, whenever that is, takes nothing from a newer one.
//
// The package knows storage only as logical.Storage and time only as a Clock.
// It knows nothing of HTTP, of prices, or of how the worst case is found.
package ledger

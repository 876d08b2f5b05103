// SPDX-License-Identifier: MPL-2.0

package process

import "time"

// Usage is what processes use together.
type Usage struct {
	CPU time.Duration
	RSS int64 // bytes
}

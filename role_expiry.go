// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
)

// maxTTL keeps times within what RFC 3339 can write.
const maxTTL = 100 * 365 * 24 * time.Hour

func (b *backend) applyExpiry(r *role, d *framework.FieldData) error {
	ttl, hasTTL := d.GetOk("ttl")
	at, hasTime := d.GetOk("expires_at")
	switch {
	case hasTTL && hasTime:
		return fmt.Errorf("ttl and expires_at both say when the virtual key expires; give one of them")
	case hasTTL:
		seconds := ttl.(int)
		if seconds < 0 || seconds > int(maxTTL/time.Second) {
			return fmt.Errorf("ttl is %ds; it must be between 0 (never expires) and 100 years", seconds)
		}
		r.ExpiresAt = time.Time{}
		if seconds > 0 {
			r.ExpiresAt = b.now().Add(time.Duration(seconds) * time.Second).UTC().Truncate(time.Second)
		}
	case hasTime:
		expires, err := parseTime(at.(string))
		if err != nil {
			return err
		}
		r.ExpiresAt = expires
	}
	return nil
}

// parseTime reads RFC 3339 or Unix seconds; empty is the zero time.
func parseTime(text string) (time.Time, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return time.Time{}, nil
	}
	// The zero time would mean never, and a year of five digits can't be stored.
	if t, err := time.Parse(time.RFC3339, text); err == nil && t.Unix() > 0 && t.UTC().Year() < 10000 {
		return t.UTC(), nil
	}
	if seconds, err := strconv.ParseInt(text, 10, 64); err == nil && seconds > 0 && seconds < 1<<35 {
		return time.Unix(seconds, 0).UTC(), nil
	}
	return time.Time{}, fmt.Errorf("expires_at: %.40q is no time; write it like 2027-01-31T00:00:00Z, or as Unix seconds", text)
}

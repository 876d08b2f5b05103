// SPDX-License-Identifier: MPL-2.0

package price

import (
	"strings"
	"time"
)

// dashDates writes every whole date of this century in a name with dashes:
// gpt-4o-20240806 becomes gpt-4o-2024-08-06. Some providers take both, and the
// table knows one of them. A date is eight digits after a dash and before a
// dash, a colon or the end; digits that are no date of the calendar stay.
func dashDates(name string) string {
	const digits = 8
	var out strings.Builder
	rest := name
	for {
		dash := strings.IndexByte(rest, '-')
		if dash < 0 || len(rest) < dash+1+digits {
			break
		}
		after := dash + 1 + digits
		date := rest[dash+1 : after]
		ends := after == len(rest) || rest[after] == '-' || rest[after] == ':'
		if _, err := time.Parse("20060102", date); err != nil || !ends || !strings.HasPrefix(date, "20") {
			out.WriteString(rest[:dash+1])
			rest = rest[dash+1:]
			continue
		}
		out.WriteString(rest[:dash+1] + date[:4] + "-" + date[4:6] + "-" + date[6:])
		rest = rest[after:]
	}
	return out.String() + rest
}

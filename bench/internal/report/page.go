// SPDX-License-Identifier: MPL-2.0

package report

import "strings"

// The lines between which a page has the figures.
const (
	begin = "<!-- bench:begin -->"
	end   = "<!-- bench:end -->"
)

// Replace puts content between the markers of a page. ok is false, and the page
// as it was, if the markers aren't there, once and in order.
func Replace(page, content string) (replaced string, ok bool) {
	before, rest, _ := strings.Cut(page, begin)
	_, after, inOrder := strings.Cut(rest, end)
	if !inOrder || strings.Count(page, begin) != 1 || strings.Count(page, end) != 1 {
		return page, false
	}
	return before + begin + "\n" + strings.TrimSpace(content) + "\n" + end + after, true
}

// SPDX-License-Identifier: MPL-2.0

//go:build unix && !linux

package process

import "errors"

// Measurable says whether ReadUsage works here.
const Measurable = false

// ReadUsage needs Linux.
func ReadUsage([]int) (Usage, error) {
	return Usage{}, errors.New("what a process uses is read from Linux's /proc only")
}

// Tree returns the process alone: it needs Linux.
func Tree(root int) []int { return []int{root} }

// Program needs Linux.
func Program(int) string { return "" }

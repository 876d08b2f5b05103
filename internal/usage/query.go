// SPDX-License-Identifier: MPL-2.0

package usage

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/hashicorp/vault/sdk/logical"
)

// Dimension is what rows of an answer are told apart by.
type Dimension string

// The dimensions.
const (
	ByDay    Dimension = "day"
	ByModel  Dimension = "model"
	ByCaller Dimension = "entity"
	ByPrompt Dimension = "prompt"
)

// Query asks for the usage of one virtual key.
type Query struct {
	Role string
	// From and To are days, 2006-01-02, both included; empty for no bound.
	From, To string
	// Prompt counts only the requests on this prompt template; empty counts all.
	Prompt string
	// GroupBy are the dimensions of the rows; none gives the total alone.
	GroupBy []Dimension
}

// Row is one row of an answer; the dimensions that were not asked for are
// empty.
type Row struct {
	Day, Model, Caller, Prompt string
	Counts
}

// Query returns the rows, sorted by day, model, caller and prompt, and their total. It
// includes what is not written yet.
func (l *Log) Query(ctx context.Context, storage logical.Storage, q Query) ([]Row, Counts, error) {
	// No batch may run meanwhile: it moves counts from memory to storage.
	l.flushing.Lock()
	defer l.flushing.Unlock()
	days, err := l.days(ctx, storage, q.Role)
	if err != nil {
		return nil, Counts{}, err
	}
	groups := map[Row]*Counts{}
	var total Counts
	for _, day := range days {
		if q.From != "" && day < q.From || q.To != "" && day > q.To {
			continue
		}
		err := l.eachRow(ctx, storage, q.Role, day, func(r row) {
			if q.Prompt != "" && r.Prompt != q.Prompt {
				return
			}
			total.Add(r.Counts)
			id := groupOf(q.GroupBy, day, r)
			if groups[id] == nil {
				groups[id] = &Counts{}
			}
			groups[id].Add(r.Counts)
		})
		if err != nil {
			return nil, Counts{}, err
		}
	}
	return sortGroups(q.GroupBy, groups), total, nil
}

func groupOf(by []Dimension, day string, r row) Row {
	var id Row
	if slices.Contains(by, ByDay) {
		id.Day = day
	}
	if slices.Contains(by, ByModel) {
		id.Model = r.Model
	}
	if slices.Contains(by, ByCaller) {
		id.Caller = r.Caller
	}
	if slices.Contains(by, ByPrompt) {
		id.Prompt = r.Prompt
	}
	return id
}

func sortGroups(by []Dimension, groups map[Row]*Counts) []Row {
	if len(by) == 0 {
		return nil
	}
	rows := make([]Row, 0, len(groups))
	for id, c := range groups {
		id.Counts = *c
		rows = append(rows, id)
	}
	sort.Slice(rows, func(i, j int) bool {
		a, b := rows[i], rows[j]
		if a.Day != b.Day {
			return a.Day < b.Day
		}
		if a.Model != b.Model {
			return a.Model < b.Model
		}
		if a.Caller != b.Caller {
			return a.Caller < b.Caller
		}
		return a.Prompt < b.Prompt
	})
	return rows
}

// Roles returns the names of the virtual keys that have usage, in order.
func (l *Log) Roles(ctx context.Context, storage logical.Storage) ([]string, error) {
	names, err := storage.List(ctx, l.prefix)
	if err != nil {
		return nil, fmt.Errorf("listing usage: %w", err)
	}
	for i := range names {
		names[i] = strings.TrimSuffix(names[i], "/")
	}
	l.mu.Lock()
	for id := range l.shards {
		names = append(names, id.role)
	}
	l.mu.Unlock()
	sort.Strings(names)
	return slices.Compact(names), nil
}

// days returns the days on which the role has usage, in order.
func (l *Log) days(ctx context.Context, storage logical.Storage, role string) ([]string, error) {
	days, err := storage.List(ctx, l.prefix+role+"/")
	if err != nil {
		return nil, fmt.Errorf("listing usage of %s: %w", role, err)
	}
	for i := range days {
		days[i] = strings.TrimSuffix(days[i], "/")
	}
	l.mu.Lock()
	for id := range l.shards {
		if id.role == role {
			days = append(days, id.day)
		}
	}
	l.mu.Unlock()
	sort.Strings(days)
	return slices.Compact(days), nil
}

// eachRow calls f for every row of a day, from memory where that is whole, and
// from both where it isn't.
func (l *Log) eachRow(ctx context.Context, storage logical.Storage, role, day string, f func(row)) error {
	for n := range shardCount {
		id := shardID{role, day, n}
		l.mu.Lock()
		var rows []row
		whole := false
		if s := l.shards[id]; s != nil {
			rows, whole = sortedRows(s.rows), s.whole
		}
		l.mu.Unlock()
		if !whole {
			stored, err := l.readStored(ctx, storage, id)
			if err != nil {
				return err
			}
			rows = append(rows, stored...)
		}
		for _, r := range rows {
			f(r)
		}
	}
	return nil
}

// Prune deletes the days before day (2006-01-02) of one role.
func (l *Log) Prune(ctx context.Context, storage logical.Storage, role, day string) error {
	l.flushing.Lock()
	defer l.flushing.Unlock()
	days, err := l.days(ctx, storage, role)
	if err != nil {
		return err
	}
	for _, d := range days {
		if d >= day {
			break
		}
		for n := range shardCount {
			id := shardID{role, d, n}
			if err := storage.Delete(ctx, l.prefix+role+"/"+d+"/"+strconv.Itoa(n)); err != nil {
				return fmt.Errorf("deleting usage of %s on %s: %w", role, d, err)
			}
			l.mu.Lock()
			delete(l.shards, id)
			l.mu.Unlock()
		}
	}
	return nil
}

// SPDX-License-Identifier: MPL-2.0

// Package usage keeps what was spent, per virtual key, day, model, caller and prompt
// template, for people to look at.
//
// Recording touches memory only. What changed is written in batches (Flush),
// and nothing that a failed write held is dropped: it goes with the next. A
// crash loses what was recorded since the last batch; limits don't rest on
// this package.
//
// It knows storage only as logical.Storage, and assumes that no other process
// writes below its prefix: only a cluster's active node records.
package usage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// Counts are what was counted. All are at least 0.
type Counts struct {
	// Requests are all that were admitted; Failed of them ended in an error
	// (the provider's, a timeout, a caller that went away). Refused requests
	// were not admitted, and are in no other count.
	Requests int64 `json:"requests,omitempty"`
	Failed   int64 `json:"failed,omitempty"`
	Refused  int64 `json:"refused,omitempty"`
	// Tokens as the provider reports them, or as they were charged where it
	// reported none. CachedTokens are part of InputTokens, ReasoningTokens of
	// OutputTokens.
	InputTokens     int64 `json:"input_tokens,omitempty"`
	CachedTokens    int64 `json:"cached_tokens,omitempty"`
	OutputTokens    int64 `json:"output_tokens,omitempty"`
	ReasoningTokens int64 `json:"reasoning_tokens,omitempty"`
	// Cost is in nano-USD (1e-9 USD). UnconfirmedCost is the part of it that
	// was charged at its worst case because the outcome is unknown, and
	// EstimatedCost the part that was counted from what was streamed.
	Cost            int64 `json:"cost,omitempty"`
	UnconfirmedCost int64 `json:"unconfirmed_cost,omitempty"`
	EstimatedCost   int64 `json:"estimated_cost,omitempty"`
	// Unconfirmed, Estimated and Unpriced count requests: those with such a
	// cost, and those of a model whose price isn't known.
	Unconfirmed int64 `json:"unconfirmed,omitempty"`
	Estimated   int64 `json:"estimated,omitempty"`
	Unpriced    int64 `json:"unpriced,omitempty"`
}

// Add adds o to c.
func (c *Counts) Add(o Counts) {
	c.Requests += o.Requests
	c.Failed += o.Failed
	c.Refused += o.Refused
	c.InputTokens += o.InputTokens
	c.CachedTokens += o.CachedTokens
	c.OutputTokens += o.OutputTokens
	c.ReasoningTokens += o.ReasoningTokens
	c.Cost += o.Cost
	c.UnconfirmedCost += o.UnconfirmedCost
	c.EstimatedCost += o.EstimatedCost
	c.Unconfirmed += o.Unconfirmed
	c.Estimated += o.Estimated
	c.Unpriced += o.Unpriced
}

// Event is one request's share.
type Event struct {
	// Role is the virtual key's name.
	Role string
	// Day is the calendar day of the request's admission, as 2006-01-02.
	Day string
	// Model is as the request named it; empty if it named none.
	Model string
	// Caller is the Vault entity, or empty.
	Caller string
	// Prompt is the prompt template's name; empty if the request was on none.
	Prompt string
	Counts Counts
}

// Bounds on what callers can make us remember: model names come from them.
const (
	// shardCount spreads one day of one role over several entries, because
	// Vault's storage refuses entries over 1 MiB.
	shardCount = 16
	maxRows    = 2000 // per shard
	maxModel   = 200  // bytes of a model's name
	// Other stands for the models, callers and prompts beyond those bounds.
	Other = "(other)"
)

// shardID names one stored entry.
type shardID struct {
	role, day string
	shard     int
}

func (id shardID) key(prefix string) string {
	return prefix + id.role + "/" + id.day + "/" + strconv.Itoa(id.shard)
}

// rowID names one row of a shard.
type rowID struct{ model, caller, prompt string }

// shard is one stored entry in memory.
type shard struct {
	rows map[rowID]*Counts
	// whole says that rows hold all that is stored; else they hold only what
	// was recorded since the process started, and storage has more.
	whole bool
	dirty bool
	used  time.Time
}

// row is a row as it is stored.
type row struct {
	Model  string `json:"model,omitempty"`
	Caller string `json:"caller,omitempty"`
	Prompt string `json:"prompt,omitempty"` // none in what earlier versions stored
	Counts
}

// Log is the record of usage. It is safe for concurrent use.
type Log struct {
	prefix string
	now    func() time.Time
	wrote  func()

	flushing sync.Mutex // one batch at a time

	mu     sync.Mutex
	shards map[shardID]*shard
}

// Options are the log's parameters.
type Options struct {
	// Prefix of the storage entries; it ends in a slash.
	Prefix string
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Wrote, if given, is called for each entry written.
	Wrote func()
}

// New returns an empty log over what is stored.
func New(o Options) *Log {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Wrote == nil {
		o.Wrote = func() {}
	}
	return &Log{prefix: o.Prefix, now: o.Now, wrote: o.Wrote, shards: map[shardID]*shard{}}
}

// Record counts one event, in memory.
func (l *Log) Record(e Event) {
	h := fnv.New32a()
	_, _ = h.Write([]byte(e.Caller))
	id := shardID{e.Role, e.Day, int(h.Sum32() % shardCount)}
	model := strings.ToValidUTF8(e.Model[:min(len(e.Model), maxModel)], "")

	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.shards[id]
	if s == nil {
		s = &shard{rows: map[rowID]*Counts{}}
		l.shards[id] = s
	}
	s.dirty, s.used = true, l.now()
	s.row(rowID{model, e.Caller, e.Prompt}).Add(e.Counts)
}

// row returns the row called id, or the one that stands for those beyond the
// bound.
func (s *shard) row(id rowID) *Counts {
	c := s.rows[id]
	if c == nil && len(s.rows) >= maxRows {
		id = rowID{Other, Other, Other}
		c = s.rows[id]
	}
	if c == nil {
		c = &Counts{}
		s.rows[id] = c
	}
	return c
}

// idleAfter is how long a shard that is written stays in memory unused.
const idleAfter = 5 * time.Minute

// Flush writes what was recorded since the last batch. What can't be written
// is kept for the next; the error joins all that went wrong.
func (l *Log) Flush(ctx context.Context, storage logical.Storage) error {
	l.flushing.Lock()
	defer l.flushing.Unlock()
	var errs []error
	for _, id := range l.dirty() {
		if err := l.flush(ctx, storage, id); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// dirty returns the shards that want writing, and forgets idle ones.
func (l *Log) dirty() []shardID {
	l.mu.Lock()
	defer l.mu.Unlock()
	var ids []shardID
	for id, s := range l.shards {
		switch {
		case s.dirty:
			ids = append(ids, id)
		case l.now().Sub(s.used) > idleAfter:
			delete(l.shards, id)
		}
	}
	return ids
}

func (l *Log) flush(ctx context.Context, storage logical.Storage, id shardID) error {
	if err := l.complete(ctx, storage, id); err != nil {
		return err
	}
	l.mu.Lock()
	s := l.shards[id]
	value, err := json.Marshal(sortedRows(s.rows))
	s.dirty = false
	l.mu.Unlock()
	if err == nil {
		err = storage.Put(ctx, &logical.StorageEntry{Key: id.key(l.prefix), Value: value})
	}
	if err != nil {
		l.mu.Lock()
		s.dirty = true
		l.mu.Unlock()
		return fmt.Errorf("writing usage of %s on %s: %w", id.role, id.day, err)
	}
	l.wrote()
	return nil
}

// complete adds what is stored to a shard that began empty in this process.
// Only Flush calls it, one at a time.
func (l *Log) complete(ctx context.Context, storage logical.Storage, id shardID) error {
	l.mu.Lock()
	whole := l.shards[id].whole
	l.mu.Unlock()
	if whole {
		return nil
	}
	stored, err := l.readStored(ctx, storage, id)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.shards[id]
	for _, r := range stored {
		s.row(rowID{r.Model, r.Caller, r.Prompt}).Add(r.Counts)
	}
	s.whole = true
	return nil
}

func (l *Log) readStored(ctx context.Context, storage logical.Storage, id shardID) ([]row, error) {
	entry, err := storage.Get(ctx, id.key(l.prefix))
	if err != nil {
		return nil, fmt.Errorf("reading usage of %s on %s: %w", id.role, id.day, err)
	}
	if entry == nil {
		return nil, nil
	}
	var rows []row
	if err := json.Unmarshal(entry.Value, &rows); err != nil {
		return nil, fmt.Errorf("the stored usage of %s on %s is damaged: %w", id.role, id.day, err)
	}
	return rows, nil
}

func sortedRows(rows map[rowID]*Counts) []row {
	out := make([]row, 0, len(rows))
	for id, c := range rows {
		out = append(out, row{id.model, id.caller, id.prompt, *c})
	}
	sort.Slice(out, func(i, j int) bool {
		if out[i].Model != out[j].Model {
			return out[i].Model < out[j].Model
		}
		if out[i].Caller != out[j].Caller {
			return out[i].Caller < out[j].Caller
		}
		return out[i].Prompt < out[j].Prompt
	})
	return out
}

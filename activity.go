// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-uuid"
	"github.com/hashicorp/vault/sdk/logical"
)

// localPrefix holds what belongs to this cluster alone and is not replicated.
const localPrefix = "local/"

// The states of an instance, as `status` shows them.
const (
	stateStandby  = "standby"
	stateStarting = "starting"
	stateActive   = "active"
	stateEnded    = "ended"
)

// activity knows whether this process is the one that may act for the mount.
// Standbys run the plugin too; an instance admits requests only if Vault
// initialised it where storage is writable and its first write succeeded.
// It is safe for concurrent use.
type activity struct {
	b       *backend
	retry   time.Duration
	ctx     context.Context // ends with the instance
	cancel  context.CancelFunc
	working sync.WaitGroup

	mu      sync.Mutex
	state   string
	problem string        // why it isn't active yet
	since   time.Time     // when the state began
	settled chan struct{} // closed once the state is active or ended
	settle  sync.Once
}

func newActivity(b *backend) *activity {
	ctx, cancel := context.WithCancel(context.Background())
	return &activity{
		b: b, retry: time.Second, ctx: ctx, cancel: cancel,
		state: stateStandby, since: b.now(), settled: make(chan struct{}),
	}
}

// initialize is called by Vault when the mount is ready. It neither fails nor
// blocks: its context ends when it returns, and an error would leave a broken
// mount behind. What can't be done now is retried in the background.
func (a *activity) initialize(_ context.Context, req *logical.InitializationRequest) error {
	if !a.b.WriteSafeReplicationState() || !a.begin() {
		return nil
	}
	go func() {
		defer a.working.Done()
		a.start(req.Storage)
	}()
	return nil
}

// begin moves from standby to starting, and counts the background work in. It
// says whether it did: an instance starts once, and not after its end.
func (a *activity) begin() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.state != stateStandby {
		return false
	}
	a.state, a.since = stateStarting, a.b.now()
	a.working.Add(1)
	return true
}

// instanceEntry is the first write of a process: it proves that storage takes
// writes from here.
type instanceEntry struct {
	ID      string    `json:"id"`
	Version string    `json:"version"`
	Started time.Time `json:"started"`
}

func (a *activity) start(storage logical.Storage) {
	for {
		err := a.takeOver(storage)
		if err == nil {
			a.b.view.remember()
			a.enter(stateActive, "")
			a.b.work(a.ctx, storage)
			return
		}
		a.enter(stateStarting, "storage refuses writes: "+err.Error())
		a.b.Logger().Warn("storage refuses writes; requests are refused until it takes them", "error", err)
		select {
		case <-a.ctx.Done():
			return
		case <-time.After(a.retry):
		}
	}
}

// takeOver makes the first write, and the limits this process's own.
func (a *activity) takeOver(storage logical.Storage) error {
	id, err := uuid.GenerateUUID()
	if err != nil {
		return fmt.Errorf("making an instance id: %w", err)
	}
	value, err := json.Marshal(instanceEntry{ID: id, Version: a.b.version, Started: a.b.now().UTC()})
	if err != nil {
		return fmt.Errorf("encoding the instance entry: %w", err)
	}
	ctx, cancel := context.WithTimeout(a.ctx, 10*time.Second)
	defer cancel()
	if err := storage.Put(ctx, &logical.StorageEntry{Key: localPrefix + "instance", Value: value}); err != nil {
		return err
	}
	return a.b.openLedger(ctx, storage, id)
}

// enter moves to state, unless the instance has ended.
func (a *activity) enter(state, problem string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.state == stateEnded {
		return
	}
	if a.state != state {
		a.since = a.b.now()
	}
	a.state, a.problem = state, problem
	if state == stateActive || state == stateEnded {
		a.settle.Do(func() { close(a.settled) })
	}
}

// end stops the instance for good and waits for its background work.
func (a *activity) end() {
	a.enter(stateEnded, "the mount was unloaded here")
	a.b.view.forget()
	a.cancel()
	a.working.Wait()
}

// status returns the state, why it is not active, and since when it lasts.
func (a *activity) status() (state, problem string, since time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.state, a.problem, a.since
}

// startupWait is how long a request waits for an instance that is starting:
// the first request after a crash is what makes Vault start the plugin.
const startupWait = 3 * time.Second

// await returns nil once the instance may act, or says why it may not.
func (a *activity) await(ctx context.Context) error {
	state, problem, _ := a.status()
	if state == stateStarting {
		wait := time.NewTimer(startupWait)
		defer wait.Stop()
		select {
		case <-a.settled:
		case <-wait.C:
		case <-ctx.Done():
		}
		state, problem, _ = a.status()
	}
	switch {
	case state == stateActive:
		return nil
	case problem != "":
		return fmt.Errorf("this instance is not active (%s): %s", state, problem)
	}
	return fmt.Errorf("this instance is not active (%s); ask the active Vault node", state)
}

// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
)

// countingView counts how often Vault is asked for its replication state.
type countingView struct {
	logical.SystemView
	asked atomic.Int64
}

func (v *countingView) ReplicationState() consts.ReplicationState {
	v.asked.Add(1)
	return v.SystemView.ReplicationState()
}

// readCounter counts reads of storage.
type readCounter struct {
	logical.Storage
	reads atomic.Int64
}

func (s *readCounter) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	s.reads.Add(1)
	return s.Storage.Get(ctx, key)
}

// A completion on a virtual key that is in use calls nothing in Vault's process.
func TestProxy_RequestAsksVaultNothing(t *testing.T) {
	m, _, _ := newProxyMount(t, nil)
	view := &countingView{SystemView: m.view.SystemView}
	m.view.SystemView = view
	storage := &readCounter{Storage: m.storage}
	m.storage = storage
	ask := func() {
		t.Helper()
		if answer, err := m.proxyRequest(logical.UpdateOperation, "", "r/v1/chat/completions", chatBody("m")); err != nil || answer.Status != 200 {
			t.Fatalf("%+v %v", answer, err)
		}
	}
	ask() // which fills caches
	view.asked.Store(0)
	storage.reads.Store(0)
	for range 10 {
		ask()
	}
	if asked, reads := view.asked.Load(), storage.reads.Load(); asked != 0 || reads != 0 {
		t.Errorf("ten requests asked for the replication state %d times and read storage %d times", asked, reads)
	}
}

func TestSystemView_AsksAgainOnceTheInstanceHasEnded(t *testing.T) {
	m := newMount(t, Options{})
	view := &countingView{SystemView: m.view.SystemView}
	m.view.SystemView = view
	m.System().ReplicationState()
	if view.asked.Load() != 0 {
		t.Error("an active instance asks")
	}
	m.activity.end()
	m.System().ReplicationState()
	if view.asked.Load() != 1 {
		t.Error("one that has ended doesn't")
	}
}

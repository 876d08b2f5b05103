// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"sync/atomic"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
)

// systemView is Vault's view of itself, which remembers the replication state of an
// active instance: the framework asks for it on every request that standbys forward,
// which is a call to Vault's process. An instance that isn't active any more was
// ended, and doesn't become active again.
type systemView struct {
	logical.SystemView
	state atomic.Pointer[consts.ReplicationState]
}

// ReplicationState implements logical.SystemView.
func (v *systemView) ReplicationState() consts.ReplicationState {
	if s := v.state.Load(); s != nil {
		return *s
	}
	return v.SystemView.ReplicationState()
}

// remember keeps the state from now on, and forget asks for it again.
func (v *systemView) remember() {
	s := v.SystemView.ReplicationState()
	v.state.Store(&s)
}

func (v *systemView) forget() { v.state.Store(nil) }

// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"testing"

	"vault-plugin-secrets-portkey/test/vaulttest"
)

// Under load an orphan would also end by writing to a log that nobody reads. This one
// has nothing to write.
func TestCrash_AnIdlePluginEndsWithItsVault(t *testing.T) {
	t.Parallel()
	r := startRig(t, vaulttest.Options{Mode: vaulttest.Raft})
	if len(r.vault.PluginPIDs()) == 0 {
		t.Fatal("no plugin runs")
	}
	r.vault.Kill()
	eventually(t, "the orphaned plugin to end itself", func() bool { return len(r.vault.PluginPIDs()) == 0 })
}

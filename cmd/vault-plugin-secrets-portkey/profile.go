// SPDX-License-Identifier: MPL-2.0

//go:build profile

package main

import (
	"net/http"
	_ "net/http/pprof" //nolint:gosec // on loopback, in builds that scripts/profile.sh makes
	"os"
	"time"
)

// A build with the tag "profile" can be asked for profiles on loopback. It is for
// scripts/profile.sh, and nothing that is released has it.
func init() {
	if os.Getenv("VAULT_PLUGIN_METADATA_MODE") == "true" { // Vault asks for the version, and ends it
		return
	}
	go func() {
		for { // an earlier process, which Vault asked something, may still have the port
			_ = http.ListenAndServe("127.0.0.1:16061", nil) //nolint:gosec // no timeouts: it lasts as long as the profile
			time.Sleep(100 * time.Millisecond)
		}
	}()
}

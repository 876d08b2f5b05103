// SPDX-License-Identifier: MPL-2.0

//go:build unix

// Package vaulttest runs a real Vault for integration tests: it starts a
// server, loads the plugin into it, and ends both, whatever becomes of the
// test.
//
//	v := vaulttest.Start(t, vaulttest.Options{})
//	v.Enable(t, "portkey", nil)
//	app := v.Client(v.Token(t, "team-a"))
//	answer, err := app.Do(ctx, "POST", "portkey/proxy/team-a/v1/chat/completions", body)
//
// What it promises:
//
//   - Nothing survives. A test that passes, fails or panics, a go test that
//     times out, ctrl-C and kill -9 all end the Vault processes and those of
//     its plugins, and remove their files.
//   - Nothing leaks in. Vault gets none of the caller's environment but PATH
//     (and what the race detector and coverage need), so that a developer's
//     VAULT_ADDR, proxy settings or token helper change no test.
//   - Instances don't meet. Each has its own folder and ports; any number can
//     run at the same time.
//
// What it can do to a Vault that tests are about: seal it, have it step down,
// kill it or its plugins, stop it for a while (Node.Pause), and part a node
// from its cluster (Vault.CutOff). A client of Vault.Balanced goes to whichever
// node is active, and sends nothing twice.
//
// The vault binary is the one that scripts/vault.sh names, which may build it
// the first time. Servers listen on 127.0.0.1 without TLS.
//
// The methods that take a testing.TB end the test when they fail, and so are
// called from its goroutine. All others, and everything of Client, may be
// called from any goroutine.
package vaulttest

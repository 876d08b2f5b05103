// SPDX-License-Identifier: MPL-2.0

//go:build unix

package vaulttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// Mode is the kind of server that Start runs.
type Mode int

const (
	// Dev is `vault server -dev`: one node, storage in memory, unsealed.
	Dev Mode = iota
	// Raft is a server, or three, with Vault's integrated storage on disk and
	// a real seal.
	Raft
)

const (
	// startTimeout is how long a server may take for each step of its start.
	// Long, because a machine that is busy compiling is no failure.
	startTimeout = 90 * time.Second
	// stopTimeout is how long a server may take to end cleanly before it is
	// killed. Sealing runs every plugin's clean-up.
	stopTimeout = 15 * time.Second
	// healthTimeout is how long a node has to say how it is. Those that ask
	// ask again.
	healthTimeout = 3 * time.Second
	// startTries is how often a start is tried anew when another program took
	// one of the ports in the meantime.
	startTries = 5
)

// Options say what Start runs. The zero value is a dev server.
type Options struct {
	// PluginBinary is the path of the plugin that Enable loads, which is also
	// its name in Vault's catalogue. Empty: the project's own, built from the
	// module that the test belongs to, once per test process.
	PluginBinary string
	// Race builds the project's plugin with the race detector (needs cgo).
	// Reports of races are in Log. Not used with PluginBinary.
	Race bool
	// Mode is the kind of server.
	Mode Mode
	// Nodes is how many servers form the cluster with Mode Raft: 1 (also 0)
	// or 3. All of them vote when Start returns.
	Nodes int
	// Env is added to the environment of Vault, which plugins inherit, as
	// NAME=value.
	Env []string
	// Config is HCL that is added to the configuration of every server, such
	// as a second listener; FreeAddr finds addresses for it.
	Config string
	// LogLevel is trace, debug, info (also ""), warn or error.
	LogLevel string
}

// check says what is wrong with o.
func (o Options) check() error {
	switch {
	case o.Mode != Dev && o.Mode != Raft:
		return fmt.Errorf("unknown mode %d: use vaulttest.Dev or vaulttest.Raft", o.Mode)
	case o.Mode == Dev && o.Nodes > 1:
		return fmt.Errorf("a dev server is one node, not %d: use Mode: vaulttest.Raft", o.Nodes)
	case o.Nodes != 0 && o.Nodes != 1 && o.Nodes != 3:
		return fmt.Errorf("%d nodes: use 1 or 3", o.Nodes)
	case o.Race && o.PluginBinary != "":
		return errors.New("a PluginBinary is built already, so that Race has no effect: set one of the two")
	}
	return nil
}

// Vault is a running server, or a cluster of them.
type Vault struct {
	// Addr is the base URL of the first node, such as http://127.0.0.1:21000.
	// It stays the same when the node is restarted.
	Addr string
	// RootToken has the policy root.
	RootToken string

	opts      Options
	bin       string // the vault binary
	dir       string // all files, with symbolic links resolved
	guard     *guard
	http      *http.Client
	nodes     []*Node
	network   *network // between the nodes of a cluster; nil for one node, or where there is no CutOff
	active    *activeNode
	unsealKey string

	pluginMu sync.Mutex // held while a plugin is put into the plugin folder
}

// Start runs a Vault with a file audit device and ends it, with its plugins
// and files, when the test is over. The test fails, with the end of Vault's
// log, if it can't be started.
func Start(tb testing.TB, o Options) *Vault {
	tb.Helper()
	if err := o.check(); err != nil {
		tb.Fatalf("vaulttest: %v", err)
	}
	bin, err := vaultBinary(tb.Context())
	if err != nil {
		tb.Fatalf("vaulttest: no vault to test with: %v", err)
	}
	for try := 1; ; try++ {
		v, err := launch(tb.Context(), bin, o)
		if err == nil {
			tb.Cleanup(func() { v.end(tb) })
			return v
		}
		tail := v.logTail()
		v.destroy()
		if !errors.Is(err, errPortTaken) || try == startTries {
			tb.Fatalf("vaulttest: Vault didn't start: %v\nThe end of its log:\n%s", err, tail)
		}
	}
}

// launch starts everything once. What it returns is to be destroyed even when
// there is an error.
func launch(ctx context.Context, bin string, o Options) (*Vault, error) {
	v := &Vault{opts: o, bin: bin, http: newHTTPClient(), active: newActiveNode()}
	if err := v.makeDir(); err != nil {
		return v, err
	}
	if err := v.makeNodes(max(1, o.Nodes)); err != nil {
		return v, err
	}
	v.Addr = v.nodes[0].Addr
	var err error
	if o.Mode == Dev {
		err = v.startDev(ctx)
	} else {
		err = v.startRaft(ctx)
	}
	if err != nil {
		return v, err
	}
	leader, err := v.awaitLeader(ctx, nil)
	if err != nil {
		return v, err
	}
	return v, v.api(ctx, leader.Addr, "PUT", "sys/audit/file", map[string]any{
		"type":    "file",
		"options": map[string]any{"file_path": v.auditPath()},
	}, nil)
}

// newHTTPClient returns the client of one Vault: a shared one would keep
// connections to servers that are gone. It uses no proxy, because all of this
// is on loopback.
func newHTTPClient() *http.Client {
	return &http.Client{
		// As many as a test has clients at once: one that is closed for want of
		// room must be opened again for the next call.
		Transport: &http.Transport{MaxIdleConnsPerHost: 256},
		// A redirect is an answer that tests want to see.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// makeDir makes the folder for everything, and what guards it.
func (v *Vault) makeDir() error {
	dir, err := os.MkdirTemp(tempBase(), "vt")
	if err != nil {
		return err
	}
	// Vault refuses a plugin folder behind a symbolic link, as /tmp is on macOS.
	if v.dir, err = filepath.EvalSymlinks(dir); err != nil {
		return err
	}
	if v.guard, err = startGuard(v.dir); err != nil {
		return err
	}
	for _, sub := range []string{"plugins", "tmp", "home"} {
		if err := os.Mkdir(filepath.Join(v.dir, sub), 0o700); err != nil {
			return err
		}
	}
	return nil
}

// tempBase is where instances have their folders. Plugins have their sockets
// in there, and a socket's path holds some 100 bytes on every system: too few
// for some TMPDIRs, and for tb.TempDir.
func tempBase() string {
	if dir := os.TempDir(); len(dir) <= 48 {
		return dir
	}
	return "/tmp"
}

func (v *Vault) pluginDir() string { return filepath.Join(v.dir, "plugins") }
func (v *Vault) auditPath() string { return filepath.Join(v.dir, "audit.log") }

// AuditLog returns what the file audit device wrote so far: one JSON object a
// line, with Vault's default HMACs, of all nodes. It is on from before Start
// returns.
func (v *Vault) AuditLog() []byte {
	log, err := os.ReadFile(v.auditPath())
	if err != nil {
		return nil // nothing was audited yet
	}
	return log
}

// Log returns what all nodes and their plugins wrote to their standard output
// and error so far, node after node.
func (v *Vault) Log() []byte {
	var log []byte
	for _, n := range v.nodes {
		log = append(log, n.Log()...)
	}
	return log
}

// logTail returns the last lines of every node's log.
func (v *Vault) logTail() []byte {
	const lines = 40
	var tail []byte
	for _, n := range v.nodes {
		log := bytes.Split(bytes.TrimSpace(n.Log()), []byte("\n"))
		log = log[max(0, len(log)-lines):]
		tail = fmt.Appendf(tail, "--- %s\n%s\n", n.Name, bytes.Join(log, []byte("\n")))
	}
	return tail
}

// PluginPIDs returns the processes of plugins, of all nodes, also of those
// whose Vault has ended.
func (v *Vault) PluginPIDs() []int {
	var pids []int
	for _, n := range v.nodes {
		pids = append(pids, n.PluginPIDs()...)
	}
	return pids
}

// end is called when the test is over.
func (v *Vault) end(tb testing.TB) {
	if tb.Failed() {
		tb.Logf("vaulttest: the end of Vault's log:\n%s", v.logTail())
	}
	if v.network != nil {
		v.network.heal() // so that nodes which end needn't wait for answers
	}
	var ending sync.WaitGroup
	for _, n := range v.nodes {
		ending.Go(n.stop)
	}
	ending.Wait()
	v.destroy()
}

// destroy kills what is left and removes the files.
func (v *Vault) destroy() {
	for _, n := range v.nodes {
		n.killAll()
	}
	if v.network != nil {
		v.network.close()
	}
	v.http.CloseIdleConnections()
	if v.guard != nil {
		v.guard.dismiss()
	}
	if v.dir != "" {
		os.RemoveAll(v.dir)
	}
}

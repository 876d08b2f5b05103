// SPDX-License-Identifier: MPL-2.0

//go:build unix

package vaulttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// errPortTaken says that a server could not listen: another program was given
// the port between our choice and the server's start.
var errPortTaken = errors.New("an address is in use")

// Node is one server. Its name, address and files stay when it is restarted.
type Node struct {
	// Name is the id of the node in Raft: node0, node1, node2.
	Name string
	// Addr is the node's base URL.
	Addr string

	v       *Vault
	host    string // host:port of Addr
	cluster string // host:port listened on for the other nodes; a dev server has that too
	peer    string // host:port that the other nodes are told: cluster, or a proxy before it

	mu      sync.Mutex
	runs    []*process // of Vault; only the last may be running
	logFrom int        // where in the log the last run begins
}

// makeNodes chooses addresses and writes configurations.
func (v *Vault) makeNodes(count int) error {
	if count > 1 && tellsDialers {
		v.network = newNetwork(v.dialer)
	}
	for i := range count {
		n := &Node{Name: fmt.Sprintf("node%d", i), v: v}
		var err error
		if n.host, n.cluster, err = freePair(); err != nil {
			return err
		}
		n.Addr, n.peer = "http://"+n.host, n.cluster
		if v.network != nil {
			if n.peer, err = v.network.listen(n); err != nil {
				return err
			}
		}
		v.nodes = append(v.nodes, n)
		if err := os.WriteFile(n.file("hcl"), []byte(n.config()), 0o600); err != nil {
			return err
		}
		if err := os.Mkdir(n.file("raft"), 0o700); err != nil {
			return err
		}
	}
	return nil
}

// file returns the path of one of the node's files.
func (n *Node) file(suffix string) string {
	return filepath.Join(n.v.dir, n.Name+"."+suffix)
}

// config returns the server's configuration.
func (n *Node) config() string {
	var c strings.Builder
	fmt.Fprintf(&c, "disable_mlock = true\nraw_storage_endpoint = true\nui = false\nplugin_directory = %q\n", n.v.pluginDir())
	if filepath.Base(n.v.bin) == "bao" {
		// From 2.3.2 on OpenBao refuses sys/audit without it (its pull request
		// 1634); Vault doesn't know the setting and would warn.
		c.WriteString("unsafe_allow_api_audit_creation = true\n")
	}
	if n.v.opts.Mode == Raft {
		fmt.Fprintf(&c, "api_addr = %q\ncluster_addr = %q\n", n.Addr, "https://"+n.peer)
		fmt.Fprintf(&c, "listener \"tcp\" {\n  address = %q\n  cluster_address = %q\n  tls_disable = true\n}\n", n.host, n.cluster)
		fmt.Fprintf(&c, "storage \"raft\" {\n  path = %q\n  node_id = %q\n  performance_multiplier = %d\n}\n",
			n.file("raft"), n.Name, n.v.raftPace())
	}
	return c.String() + n.v.opts.Config + "\n"
}

// raftPace returns Raft's performance_multiplier. 1 is the fastest. A leader
// then gives up when it hears nothing from the others for half a second, which
// happens on a machine that is busy compiling; alone it waits for nobody.
func (v *Vault) raftPace() int {
	if v.opts.Nodes > 1 {
		return 3
	}
	return 1
}

// command returns how the server is run.
func (n *Node) command() *exec.Cmd {
	level := n.v.opts.LogLevel
	if level == "" {
		level = "info"
	}
	args := []string{"server", "-config=" + n.file("hcl"), "-log-level=" + level}
	if n.v.opts.Mode == Dev {
		args = append(args, "-dev", "-dev-listen-address="+n.host, "-dev-no-store-token",
			"-dev-root-token-id="+n.v.RootToken)
	}
	cmd := exec.Command(n.v.bin, args...)
	cmd.Dir = n.v.dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"),
		"HOME=" + filepath.Join(n.v.dir, "home"),
		// Plugins' sockets and whatever a killed one leaves behind.
		"TMPDIR=" + filepath.Join(n.v.dir, "tmp"),
	}
	for _, name := range []string{"GORACE", "GOCOVERDIR"} {
		if value, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	cmd.Env = append(cmd.Env, n.v.opts.Env...)
	return cmd
}

// start runs the server and waits until it listens.
func (n *Node) start(ctx context.Context) error {
	log, err := os.OpenFile(n.file("log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // the process has its own
	before, err := log.Stat()
	if err != nil {
		return err
	}
	cmd := n.command()
	cmd.Stdout, cmd.Stderr = log, log
	run, err := startProcess(cmd, n.v.guard)
	if err != nil {
		return err
	}
	n.mu.Lock()
	n.runs, n.logFrom = append(n.runs, run), int(before.Size())
	n.mu.Unlock()
	// Vault says so once it listens. To ask at the address alone could reach
	// another program that took the port.
	return n.await(ctx, "listen", func(context.Context) bool {
		return bytes.Contains(n.lastLog(), []byte(" server started!"))
	})
}

// await asks until ok says true, every 50 ms, for at most startTimeout. It
// gives up when the server ends.
func (n *Node) await(ctx context.Context, what string, ok func(context.Context) bool) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	run := n.current()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok(ctx) {
		// Looked for in the log, for Vault goes on without its cluster's port.
		if n.portTaken() {
			return fmt.Errorf("%s: %w", n.Name, errPortTaken)
		}
		select {
		case <-run.done:
			if n.portTaken() { // said just before it ended
				return fmt.Errorf("%s: %w", n.Name, errPortTaken)
			}
			return fmt.Errorf("%s: vault ended before it could %s: %v", n.Name, what, run.state())
		case <-ctx.Done():
			return fmt.Errorf("%s: waiting for vault to %s: %w", n.Name, what, ctx.Err())
		case <-tick.C:
		}
	}
	return nil
}

// portTaken says whether the last run couldn't bind one of its addresses.
func (n *Node) portTaken() bool {
	log := n.lastLog()
	for _, addr := range []string{n.host, n.cluster} {
		if bytes.Contains(log, []byte(addr+": bind: address already in use")) {
			return true
		}
	}
	return false
}

// servesCluster says whether the server has its cluster's port, which it takes
// only after it became active. It says so in the log, unless that is kept from
// telling.
func (n *Node) servesCluster(context.Context) bool {
	level := n.v.opts.LogLevel
	return level == "warn" || level == "error" || bytes.Contains(n.lastLog(), []byte("serving cluster requests: cluster_listen_address="+n.cluster))
}

// current returns the latest run.
func (n *Node) current() *process {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.runs) == 0 {
		return nil
	}
	return n.runs[len(n.runs)-1]
}

// running says whether the node's Vault is a running process.
func (n *Node) running() bool {
	run := n.current()
	return run != nil && run.running()
}

// Client returns a client of this node with a token, which may be empty.
func (n *Node) Client(token string) *Client {
	return &Client{Addr: n.Addr, Token: token, HTTP: n.v.http}
}

// Log returns what the node and its plugins wrote so far, over all its runs.
func (n *Node) Log() []byte {
	log, err := os.ReadFile(n.file("log"))
	if err != nil {
		return nil // it never ran
	}
	return log
}

// lastLog returns the log of the last run.
func (n *Node) lastLog() []byte {
	n.mu.Lock()
	from := n.logFrom
	n.mu.Unlock()
	log := n.Log()
	return log[min(from, len(log)):]
}

// PluginPIDs returns the processes of the node's plugins, also of those whose
// Vault has ended.
func (n *Node) PluginPIDs() []int {
	n.mu.Lock()
	defer n.mu.Unlock()
	var pids []int
	for _, run := range n.runs {
		pids = append(pids, run.others()...)
	}
	return pids
}

// KillPlugins ends all plugins of the node with SIGKILL, waits until they are
// gone, and returns what processes they were. Vault starts them again when it
// is asked for something. The test fails if there is none.
func (n *Node) KillPlugins(tb testing.TB) []int {
	tb.Helper()
	pids := n.PluginPIDs()
	if len(pids) == 0 {
		tb.Fatalf("vaulttest: %s has no plugin processes to kill: mount one, and kill those of the leader", n.Name)
	}
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may just have ended
	}
	// It takes effect in a moment; the bound is for a process that hangs in
	// the kernel.
	for range 500 {
		left := n.PluginPIDs()
		if !slices.ContainsFunc(pids, func(pid int) bool { return slices.Contains(left, pid) }) {
			return pids
		}
		time.Sleep(10 * time.Millisecond)
	}
	tb.Fatalf("vaulttest: of the killed plugins %v of %s some are still there", pids, n.Name)
	return nil
}

// Pause stops the node's Vault with SIGSTOP, as a machine does that is
// suspended or starved, and returns when it has stopped. Its plugins run on,
// and connections to it stay open. Leader takes no notice of the node until
// Continue.
func (n *Node) Pause(tb testing.TB) {
	tb.Helper()
	run := n.current()
	if run == nil || !run.running() {
		tb.Fatalf("vaulttest: pause: the Vault of %s isn't running", n.Name)
	}
	if err := run.pause(); err != nil {
		tb.Fatalf("vaulttest: pause: %s: %v", n.Name, err)
	}
}

// Continue ends Pause. It doesn't wait for what comes of it.
func (n *Node) Continue(tb testing.TB) {
	tb.Helper()
	run := n.current()
	if run == nil || !run.paused.Load() {
		tb.Fatalf("vaulttest: continue: %s isn't paused", n.Name)
	}
	run.resume()
}

// present says whether the node's Vault runs and can lead the cluster.
func (n *Node) present() bool {
	return n.running() && !n.current().paused.Load() && !n.cutOff()
}

// Kill ends the node's Vault with SIGKILL and waits until it is gone. Its
// plugins are left to themselves, as in a real crash, until the test is over.
func (n *Node) Kill() {
	if run := n.current(); run != nil {
		run.signal(syscall.SIGKILL)
		<-run.done
	}
}

// stop ends the node's Vault as an operator would, and kills it if it doesn't
// end in time.
func (n *Node) stop() {
	run := n.current()
	if run == nil {
		return
	}
	run.resume() // or it would never learn that it is to end
	run.signal(syscall.SIGTERM)
	select {
	case <-run.done:
	case <-time.After(stopTimeout):
		n.Kill()
	}
}

// killAll kills the node's Vault and its plugins, of all its runs.
func (n *Node) killAll() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, run := range n.runs {
		run.killGroup()
	}
}

// Restart ends the node's Vault if it runs, starts it again on the same
// storage, and unseals it. It doesn't wait for an election: Vault.Leader does.
func (n *Node) Restart(tb testing.TB) {
	tb.Helper()
	if n.v.opts.Mode == Dev {
		tb.Fatal("vaulttest: a dev server keeps nothing over a restart: use Mode: vaulttest.Raft")
	}
	n.stop()
	if err := n.start(tb.Context()); err != nil {
		tb.Fatalf("vaulttest: restart: %v\n%s", err, n.v.logTail())
	}
	n.Unseal(tb)
}

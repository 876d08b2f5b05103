// SPDX-License-Identifier: MPL-2.0

//go:build integration && linux

package integration_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/test/vaulttest"
)

// cluster is three nodes, each with a gateway address of its own, which callers know.
//
// config/gateway holds one address for all nodes; here its port is 0, so that each
// node's gateway opens at a port of its own and two can be open at the same time, as on
// two machines. A front is a node's address that stays.
//
// What that shows is the product's: which nodes' plugins listen, since the kernel says
// so, and what each lets through. What it doesn't show is a port that stays: that a
// gateway waits for one that is still taken is a test of its own (addressInUse).
type cluster struct {
	*rig
	fronts map[*vaulttest.Node]*front
}

// startCluster starts a rig of three nodes. Its callers know three addresses.
func startCluster(t *testing.T) *cluster {
	t.Helper()
	r := startGatewayRig(t, vaulttest.Options{Mode: vaulttest.Raft, Nodes: 3}, map[string]any{"address": "127.0.0.1:0"})
	c := &cluster{rig: r, fronts: map[*vaulttest.Node]*front{}}
	apps := &threeAddresses{to: r.gateway.told.to}
	for _, n := range r.vault.Nodes() {
		c.fronts[n] = startFront(t, n)
		apps.hosts = append(apps.hosts, c.fronts[n].host)
	}
	r.gateway.url, r.gateway.told.to = "http://"+threeHosts, apps
	return c
}

// at returns a client that knows one node's address only, with the credential of c.
func (c *cluster) at(n *vaulttest.Node, app *vaulttest.Client) *vaulttest.Client {
	return &vaulttest.Client{Addr: "http://" + c.fronts[n].host, Token: app.Token, HTTP: &http.Client{Transport: c.fronts[n].http, Timeout: attempt}}
}

// threeHosts stands in URLs for three addresses. No resolver knows it.
const threeHosts = "gateways.invalid"

// threeAddresses sends each request to one of several addresses, and none twice. After
// a failure the same caller's next request goes to the next address, as of an app that
// tries again. It is safe for concurrent use.
type threeAddresses struct {
	hosts []string
	now   sync.Map // *atomic.Int64, by the caller's credential
	to    http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (a *threeAddresses) RoundTrip(req *http.Request) (*http.Response, error) {
	kept, _ := a.now.LoadOrStore(req.Header.Get("X-Vault-Token"), new(atomic.Int64))
	now := kept.(*atomic.Int64)
	at := now.Load()
	to := req.Clone(req.Context())
	to.URL.Host, to.Host = a.hosts[at%int64(len(a.hosts))], ""
	resp, err := a.to.RoundTrip(to)
	if err != nil || resp.StatusCode >= http.StatusInternalServerError {
		now.CompareAndSwap(at, at+1)
	}
	return resp, err
}

// front is the address of a node's gateway. It hands connections on, byte for byte, to
// where the node's plugin listens, and refuses them while that listens nowhere.
type front struct {
	node *vaulttest.Node
	host string // host:port
	http *http.Transport

	mu    sync.Mutex
	asked time.Time
	port  int // 0 for none
}

// startFront opens a front until the test ends.
func startFront(t *testing.T, n *vaulttest.Node) *front {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &front{node: n, host: l.Addr().String(), http: &http.Transport{MaxIdleConnsPerHost: 256}}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // closed
			}
			running.Go(func() { f.handOn(ctx, conn.(*net.TCPConn)) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		stop()
		running.Wait()
		f.http.CloseIdleConnections()
	})
	return f
}

// handOn joins a connection to the node's gateway.
func (f *front) handOn(ctx context.Context, from *net.TCPConn) {
	defer func() { _ = from.Close() }()
	conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(f.listens())))
	if err != nil {
		_ = from.SetLinger(0) // a reset: the nearest to a refusal
		return
	}
	to := conn.(*net.TCPConn)
	defer func() { _ = to.Close() }()
	defer context.AfterFunc(ctx, func() { _, _ = from.Close(), to.Close() })()
	var back sync.WaitGroup
	back.Go(func() { handOnOneWay(from, to) })
	handOnOneWay(to, from)
	back.Wait()
}

// handOnOneWay copies to the end of one direction, and hands on how it ended.
func handOnOneWay(to, from *net.TCPConn) {
	if _, err := io.Copy(to, from); err == nil {
		_ = to.CloseWrite()
		return
	}
	for _, c := range []*net.TCPConn{to, from} {
		_ = c.SetLinger(0)
		_ = c.Close()
	}
}

// listens is where the node's gateway listens, as it was a moment ago; 0 for nowhere.
func (f *front) listens() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.asked) > 50*time.Millisecond {
		f.port, f.asked = 0, time.Now()
		if ports, _ := gatewayPorts(f.node); len(ports) > 0 {
			f.port = ports[0]
		}
	}
	return f.port
}

// gatewayPorts are the TCP ports at which plugins of a node listen, those of a Vault
// that ended included: one if its gateway is open. To Vault a plugin speaks by Unix
// sockets.
func gatewayPorts(n *vaulttest.Node) ([]int, error) {
	var ports []int
	pids := n.PluginPIDs()
	if len(pids) == 0 {
		return nil, nil
	}
	sockets, err := listening()
	if err != nil {
		return nil, err
	}
	for _, pid := range pids {
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid)) // none, if it has just ended
		for _, file := range files {
			to, _ := os.Readlink(file)
			if port, ok := sockets[to]; ok && !slices.Contains(ports, port) {
				ports = append(ports, port)
			}
		}
	}
	return ports, nil
}

// listening returns the ports of the sockets that listen, by what links in
// /proc/<pid>/fd call these. The kernel lists them first
// (https://docs.kernel.org/networking/proc_net_tcp.html).
func listening() (map[string]int, error) {
	sockets := map[string]int{}
	for _, name := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		file, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		lines := bufio.NewScanner(file)
		lines.Scan() // the heading
		for lines.Scan() {
			// "sl local_address rem_address st queues timer retrnsmt uid timeout inode …"
			f := strings.Fields(lines.Text())
			if len(f) < 10 || f[3] != "0A" {
				break
			}
			port, err := strconv.ParseInt(f[1][strings.LastIndexByte(f[1], ':')+1:], 16, 32)
			if err != nil {
				return nil, errors.Join(fmt.Errorf("%s: %w", name, err), file.Close())
			}
			sockets["socket:["+f[9]+"]"] = int(port)
		}
		if err := errors.Join(lines.Err(), file.Close()); err != nil {
			return nil, err
		}
	}
	return sockets, nil
}

// SPDX-License-Identifier: MPL-2.0

//go:build unix

package vaulttest

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
)

// network is what the nodes of a cluster reach each other by: in front of each
// node's cluster address there is a TCP proxy, whose address is the one that
// the node advertises. It carries Raft and the requests that standbys hand on;
// the API doesn't go through it.
//
// Between nodes that are cut off from each other it behaves as a network that
// loses every packet: connections, also new ones, stay open, and nothing comes
// through them, not even their end. What was sent meanwhile arrives later, if
// both sides still wait for it, as TCP would send it again.
type network struct {
	// dialer returns the node that opened a connection to a proxy, or nil if
	// that can't be told. Called once for each, when it is accepted.
	dialer func(net.Conn) *Node

	mu        sync.Mutex
	cut       map[*Node]bool
	changed   chan struct{} // closed and replaced when cut or closed change
	closed    bool
	listeners []net.Listener
	conns     map[net.Conn]struct{}
	running   sync.WaitGroup
}

// link is the way of a connection. from is nil if it isn't known.
type link struct{ from, to *Node }

func newNetwork(dialer func(net.Conn) *Node) *network {
	return &network{dialer: dialer, cut: map[*Node]bool{}, changed: make(chan struct{}), conns: map[net.Conn]struct{}{}}
}

// listen puts a proxy in front of a node and returns its address, which is the
// proxy's until the network is closed.
func (w *network) listen(to *Node) (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.listeners = append(w.listeners, l)
	w.running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // closed: nothing else ends a listener on loopback
			}
			if !w.track(conn) {
				return
			}
			w.running.Go(func() {
				defer w.drop(conn)
				w.connect(conn.(*net.TCPConn), to)
			})
		}
	})
	return l.Addr().String(), nil
}

// connect joins a connection to the node that it is for.
func (w *network) connect(conn *net.TCPConn, to *Node) {
	l := link{w.dialer(conn), to}
	if !w.pass(l) {
		return
	}
	target, err := net.Dial("tcp", to.cluster)
	if err != nil {
		// The node is down, and the connection refused: the nearest to that.
		_ = conn.SetLinger(0) // it only fails when the connection is gone
		return
	}
	defer w.drop(target)
	if !w.track(target) {
		return
	}
	var back sync.WaitGroup
	back.Go(func() { w.carry(l, conn, target.(*net.TCPConn)) })
	w.carry(l, target.(*net.TCPConn), conn)
	back.Wait()
}

// carry copies one direction of a connection until its end, which it hands on.
func (w *network) carry(l link, to, from *net.TCPConn) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if !w.pass(l) {
			return
		}
		if n > 0 {
			if _, failed := to.Write(buffer[:n]); failed != nil {
				err = failed
			}
		}
		if errors.Is(err, io.EOF) {
			_ = to.CloseWrite() // it only fails when the connection is gone
			return
		}
		if err != nil {
			// Broken off, which breaks the other direction off too.
			for _, c := range []*net.TCPConn{to, from} {
				_ = c.SetLinger(0)
				_ = c.Close()
			}
			return
		}
	}
}

// pass returns when packets can go that way, and false if they never will.
func (w *network) pass(l link) bool {
	for {
		w.mu.Lock()
		severed, closed, changed := w.severed(l), w.closed, w.changed
		w.mu.Unlock()
		if closed {
			return false
		}
		if !severed {
			return true
		}
		<-changed
	}
}

// severed says whether packets are lost on that way. A connection of nobody
// knows whom could be one of those to cut. Needs mu.
func (w *network) severed(l link) bool {
	if l.from == nil {
		return len(w.cut) > 0
	}
	return l.from != l.to && (w.cut[l.from] || w.cut[l.to])
}

// track has close end the connection. It says false if that was called.
func (w *network) track(conn net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		_ = conn.Close()
		return false
	}
	w.conns[conn] = struct{}{}
	return true
}

func (w *network) drop(conn net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = conn.Close() // at worst it is closed already
	delete(w.conns, conn)
}

// setCut cuts a node off, or ends that.
func (w *network) setCut(n *Node, cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if cut {
		w.cut[n] = true
	} else {
		delete(w.cut, n)
	}
	w.wake()
}

// heal ends all cuts.
func (w *network) heal() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.cut)
	w.wake()
}

// wake has everyone look again. Needs mu.
func (w *network) wake() {
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *network) isCut(n *Node) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cut[n]
}

// close ends all connections and waits for them.
func (w *network) close() {
	w.mu.Lock()
	w.closed = true
	for _, l := range w.listeners {
		_ = l.Close()
	}
	for c := range w.conns {
		_ = c.Close()
	}
	w.wake()
	w.mu.Unlock()
	w.running.Wait()
}

// CutOff parts a node from the rest of its cluster of three, in both
// directions, from now on: neither Raft's messages nor requests that standbys
// hand on come through. The others still reach each other, and clients still
// reach the API of every node. Nothing is refused or closed; packets are lost.
//
// It needs Linux, which can tell the nodes' connections apart; elsewhere the
// test is skipped. So it is if that isn't allowed, as with a vault binary that
// has file capabilities, unless the tests run as root.
func (v *Vault) CutOff(tb testing.TB, n *Node) {
	tb.Helper()
	v.needNetwork(tb)
	v.network.setCut(n, true)
}

// Rejoin ends CutOff of a node. It doesn't wait for what comes of it.
func (v *Vault) Rejoin(tb testing.TB, n *Node) {
	tb.Helper()
	v.needNetwork(tb)
	v.network.setCut(n, false)
}

// needNetwork ends a test that asks for what there is not.
func (v *Vault) needNetwork(tb testing.TB) {
	tb.Helper()
	if len(v.nodes) < 3 {
		tb.Fatalf("vaulttest: CutOff needs a cluster of three: use Mode: vaulttest.Raft, Nodes: 3")
	}
	if !tellsDialers {
		tb.Skip("vaulttest: CutOff needs Linux: other systems don't say which process a connection belongs to")
	}
	for _, n := range v.nodes {
		if !n.running() {
			continue
		}
		if _, err := holdsSocket(n.current().pid, "0"); err != nil {
			tb.Skipf("vaulttest: CutOff must see which connections are %s's: %v. A vault binary without file capabilities (VAULT_BIN) or root will do", n.Name, err)
		}
	}
}

// cutOff says whether the node is cut off from the others.
func (n *Node) cutOff() bool { return n.v.network != nil && n.v.network.isCut(n) }

// dialer returns the node whose Vault opened a connection to a proxy, or nil.
func (v *Vault) dialer(conn net.Conn) *Node {
	inode, err := socketInode(port(conn.RemoteAddr()), port(conn.LocalAddr()))
	if err != nil {
		return nil // it is closed already, or /proc is hidden
	}
	for _, n := range v.nodes {
		run := n.current()
		if run == nil || !run.running() {
			continue
		}
		if holds, err := holdsSocket(run.pid, inode); holds && err == nil {
			return n
		}
	}
	return nil
}

func port(addr net.Addr) int { return addr.(*net.TCPAddr).Port }

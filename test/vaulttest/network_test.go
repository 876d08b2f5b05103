// SPDX-License-Identifier: MPL-2.0

//go:build unix

package vaulttest

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"
)

// wires is a network of nodes that only echo, and the connections dialled to
// them.
type wires struct {
	t       *testing.T
	network *network
	nodes   []*Node

	mu     sync.Mutex
	dialed map[int]*Node // by local port
}

func newWires(t *testing.T) *wires {
	w := &wires{t: t, dialed: map[int]*Node{}}
	w.network = newNetwork(func(conn net.Conn) *Node {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.dialed[port(conn.RemoteAddr())]
	})
	t.Cleanup(w.network.close)
	for range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go echoAll(l)
		n := &Node{cluster: l.Addr().String()}
		if n.peer, err = w.network.listen(n); err != nil {
			t.Fatal(err)
		}
		w.nodes = append(w.nodes, n)
	}
	return w
}

func echoAll(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			_, _ = io.Copy(conn, conn)
		}()
	}
}

// dial connects one node to another; from is -1 for somebody else.
func (w *wires) dial(from, to int) net.Conn {
	w.t.Helper()
	// The proxy must not look before the port is known.
	w.mu.Lock()
	defer w.mu.Unlock()
	conn, err := net.Dial("tcp", w.nodes[to].peer)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.Close() })
	if from >= 0 {
		w.dialed[port(conn.LocalAddr())] = w.nodes[from]
	}
	return conn
}

func (w *wires) send(conn net.Conn, text string) {
	w.t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		w.t.Error(err)
	}
}

// wantEcho fails the test unless text comes back.
func (w *wires) wantEcho(what string, conn net.Conn, text string) {
	w.t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	got := make([]byte, len(text))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != text {
		w.t.Errorf("%s: %q, %v", what, got, err)
	}
}

// wantSilence fails the test unless nothing comes, not even the end.
func (w *wires) wantSilence(what string, conn net.Conn) {
	w.t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	got := make([]byte, 1)
	if n, err := conn.Read(got); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		w.t.Errorf("%s: %q, %v", what, got[:n], err)
	}
}

func TestNetwork_LosesWhatGoesToAndFromANodeThatIsCutOff(t *testing.T) {
	w := newWires(t)
	to, from, between := w.dial(1, 0), w.dial(0, 1), w.dial(1, 2)
	for _, conn := range []net.Conn{to, from, between} {
		w.send(conn, "before")
		w.wantEcho("before the cut", conn, "before")
	}
	w.network.setCut(w.nodes[0], true)
	newTo, newFrom, newBetween, unknown := w.dial(2, 0), w.dial(0, 2), w.dial(2, 1), w.dial(-1, 2)
	cut := map[string]net.Conn{"old to it": to, "old from it": from, "new to it": newTo, "new from it": newFrom, "of somebody else": unknown}
	whole := map[string]net.Conn{"old between the others": between, "new between the others": newBetween}
	for _, conns := range []map[string]net.Conn{cut, whole} {
		for _, conn := range conns {
			w.send(conn, "meanwhile")
		}
	}
	for name, conn := range whole {
		w.wantEcho(name, conn, "meanwhile")
	}
	for name, conn := range cut {
		w.wantSilence(name, conn)
	}
	w.network.setCut(w.nodes[0], false)
	for name, conn := range cut {
		w.wantEcho(name+", after it joined again", conn, "meanwhile")
	}
}

func TestNetwork_LosesTheEndOfAConnectionToo(t *testing.T) {
	w := newWires(t)
	conn := w.dial(1, 0)
	w.send(conn, "x")
	w.wantEcho("before the cut", conn, "x")
	w.network.setCut(w.nodes[0], true)
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	w.wantSilence("while cut", conn)
	w.network.setCut(w.nodes[0], false)
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if rest, err := io.ReadAll(conn); len(rest) != 0 || err != nil {
		t.Errorf("after it joined again: %q, %v", rest, err)
	}
}

func TestNetwork_CutsOffSeveralNodesFromEachOther(t *testing.T) {
	w := newWires(t)
	for _, n := range w.nodes[:2] {
		w.network.setCut(n, true)
	}
	conn, own := w.dial(0, 1), w.dial(0, 0)
	w.send(conn, "x")
	w.wantSilence("between two that are cut off", conn)
	w.send(own, "x")
	w.wantEcho("to itself", own, "x")
	w.network.setCut(w.nodes[1], false)
	w.wantSilence("with one still cut off", conn)
	w.network.heal()
	w.wantEcho("with none", conn, "x")
}

func TestNetwork_RefusesWhereTheNodeIsDown(t *testing.T) {
	w := newWires(t)
	w.nodes[0].cluster = "127.0.0.1:1"
	conn := w.dial(1, 0)
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d bytes, %v", n, err)
	}
}

func TestNetwork_CloseEndsWhatIsCutToo(t *testing.T) {
	w := newWires(t)
	open, cut := w.dial(1, 2), w.dial(1, 0)
	w.send(open, "x")
	w.wantEcho("open", open, "x")
	w.network.setCut(w.nodes[0], true)
	w.send(cut, "x")
	w.wantSilence("cut", cut)
	w.network.close()
	for _, conn := range []net.Conn{open, cut} {
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%d bytes, %v", n, err)
		}
	}
}

func TestHoldsSocket_TellsTheProcessThatDialed(t *testing.T) {
	if !tellsDialers {
		t.Skip("this system can't tell")
	}
	other := exec.Command("/bin/sleep", "600")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = other.Process.Kill()
		_ = other.Wait()
	})
	for _, network := range []string{"tcp4", "tcp6"} {
		l, err := net.Listen(network, "localhost:0")
		if err != nil {
			t.Logf("%s: %v", network, err) // a machine without IPv6
			continue
		}
		defer l.Close()
		conn, err := net.Dial(network, l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		inode, err := socketInode(port(conn.LocalAddr()), port(conn.RemoteAddr()))
		if err != nil {
			t.Fatal(err)
		}
		var holds []bool
		for _, pid := range []int{os.Getpid(), other.Process.Pid} {
			h, err := holdsSocket(pid, inode)
			if err != nil {
				t.Error(err)
			}
			holds = append(holds, h)
		}
		if !slices.Equal(holds, []bool{true, false}) {
			t.Errorf("%s: held by the dialer and by another process: %v", network, holds)
		}
		if inode, err := socketInode(port(conn.LocalAddr()), 1); err == nil {
			t.Errorf("%s: a connection that isn't there has the inode %s", network, inode)
		}
	}
}

// SPDX-License-Identifier: MPL-2.0

//go:build unix

package vaulttest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
)

// Ports are chosen below those that Linux (from 32768) and macOS (from 49152)
// give to outgoing connections: with a port of that range any connection on
// the machine could take it while a server restarts.
const firstPort, lastPort = 20000, 32000

// FreeAddr returns a host:port of the loopback interface on which nothing
// listens, for a listener in Options.Config or a gateway of the plugin.
// Nothing keeps others from taking it before it is used.
func FreeAddr(tb testing.TB) string {
	tb.Helper()
	addr, _, err := freePair()
	if err != nil {
		tb.Fatalf("vaulttest: %v", err)
	}
	return addr
}

// freePair returns two addresses on which nothing listens, the second with
// the port after that of the first: where Vault, when it isn't told, talks
// to its cluster.
func freePair() (first, second string, err error) {
	for range 200 {
		// At random, so that tests that run side by side seldom agree.
		port := firstPort + rand.IntN(lastPort-firstPort)
		first, err = probe(port)
		if err != nil {
			continue
		}
		if second, err = probe(port + 1); err == nil {
			return first, second, nil
		}
	}
	return "", "", fmt.Errorf("no free ports between %d and %d on 127.0.0.1: %w", firstPort, lastPort, err)
}

// probe returns the address of a port if it can be listened on.
func probe(port int) (string, error) {
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return "", err
	}
	return addr, l.Close()
}

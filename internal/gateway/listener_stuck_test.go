// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"context"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"
)

// stuck is a connection whose peer stops reading: a Write then takes as long as
// its deadline allows.
type stuck struct {
	net.Conn
	full     *atomic.Bool
	deadline atomic.Pointer[time.Time]
}

func (s *stuck) SetWriteDeadline(t time.Time) error {
	s.deadline.Store(&t)
	return s.Conn.SetWriteDeadline(t)
}

func (s *stuck) Write(b []byte) (int, error) {
	if s.full.Load() {
		time.Sleep(time.Until(*s.deadline.Load()))
		return 0, os.ErrDeadlineExceeded
	}
	return s.Conn.Write(b)
}

type stuckSocket struct {
	net.Listener
	full *atomic.Bool
}

func (s stuckSocket) Accept() (net.Conn, error) {
	c, err := s.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &stuck{Conn: c, full: s.full}, nil
}

// A closing TLS connection tells the peer, for which crypto/tls takes up to
// 5 s if the peer doesn't read. Vault stands still meanwhile.
func TestListener_CloseIsNotHeldUpByCallersThatDoNotRead(t *testing.T) {
	pair := issue(t, 1, nil)
	full := new(atomic.Bool)
	l := openListener(t, sayOK, func(o *ListenerOptions) {
		o.Listen = func(network, address string) (net.Listener, error) {
			k, err := net.Listen(network, address)
			return stuckSocket{k, full}, err
		}
	})
	apply(t, l, listenConfig(pair.in))
	for _, h2 := range []bool{false, false, true} {
		getFrom(t, newClient(t, h2, pair), "https://"+l.Status().Address)
	}
	full.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	began := time.Now()
	l.Close(ctx)
	if took := time.Since(began); took > 4*time.Second || l.Status().Connections != 0 {
		t.Errorf("Close took %v; status %+v", took, l.Status())
	}
}

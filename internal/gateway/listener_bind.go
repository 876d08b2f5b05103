// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"syscall"
)

// install makes l be as s says. applying is held, mu isn't.
func (l *Listener) install(s *listenSettings) error {
	l.mu.Lock()
	old, closed := l.socket, l.closed
	l.mu.Unlock()
	if closed {
		return ErrListenerClosed
	}
	if old != nil && old.serves(s.address) {
		if err := s.checkBound(old.Addr()); err != nil {
			return err
		}
		return l.replace(s)
	}
	opened, err := l.bind(s, old)
	if err != nil {
		return err
	}
	return l.move(s, opened)
}

// replace changes what the socket serves with.
func (l *Listener) replace(s *listenSettings) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrListenerClosed
	}
	l.record(s)
	old := l.socket.server.Load()
	if s.secure && old.secure {
		// Even if it is about to go: handshakes may be under way.
		old.certificate.Store(s.certificate)
	}
	if old.listenLimits == s.listenLimits {
		return nil
	}
	l.socket.server.Store(l.startServer(s))
	if old.secure == s.secure {
		old.retire()
	} else {
		l.depart(old)
	}
	return nil
}

// move puts a new socket in the place of the old one.
func (l *Listener) move(s *listenSettings, opened net.Listener) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		_ = opened.Close()
		return ErrListenerClosed
	}
	l.record(s)
	l.leave()
	l.openSocket(opened, s.address, l.startServer(s))
	return nil
}

// turnOff leaves the address. applying is held.
func (l *Listener) turnOff() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrListenerClosed
	}
	l.endRetries()
	l.leave()
	l.installed = nil
	return nil
}

// record notes s as what l is now. mu is held.
func (l *Listener) record(s *listenSettings) {
	l.endRetries()
	l.installed = s
	l.maxConnections.Store(s.maxConnections)
	l.servers = slices.DeleteFunc(l.servers, func(s *server) bool {
		return s.ended.Load() && s.open.Load() == 0
	})
}

// leave stops accepting and lets what is open finish. mu is held.
func (l *Listener) leave() {
	if l.socket != nil {
		l.socket.close()
		l.socket = nil
	}
	for _, s := range l.servers {
		l.depart(s)
	}
}

// depart shuts a server down in the background. mu is held.
func (l *Listener) depart(s *server) {
	if s.departing {
		return
	}
	s.departing = true
	s.retire()
	l.background.Go(func() {
		ctx, cancel := context.WithTimeout(l.ctx, l.options.Leave)
		defer cancel()
		if s.http.Shutdown(ctx) != nil {
			_ = s.http.Close()
		}
	})
}

// bind opens the address of s. Where l's own socket, old, is in the way, it is
// closed first, and opened again if that didn't help.
func (l *Listener) bind(s *listenSettings, old *socket) (net.Listener, error) {
	opened, err := l.listen(s)
	if err == nil {
		return opened, nil
	}
	if old == nil || !errors.Is(err, syscall.EADDRINUSE) || old.port() != int(s.port) {
		return nil, explainBind(s, err)
	}
	old.close()
	if opened, err = l.listen(s); err == nil {
		return opened, nil
	}
	l.reopen(old)
	return nil, explainBind(s, err)
}

// listen opens the address of s and makes sure that it isn't plain HTTP where
// others hear it: the host may be a name that resolves to anything.
func (l *Listener) listen(s *listenSettings) (net.Listener, error) {
	opened, err := l.options.Listen("tcp", s.address)
	if err != nil {
		return nil, err
	}
	if err := s.checkBound(opened.Addr()); err != nil {
		_ = opened.Close()
		return nil, err
	}
	return opened, nil
}

func (s *listenSettings) checkBound(bound net.Addr) error {
	tcp, ok := bound.(*net.TCPAddr)
	if ok && !s.secure && !s.plainAnywhere && !tcp.IP.IsLoopback() {
		return errPlainHTTP(bound.String())
	}
	return nil
}

// reopen undoes the closing of old. If another program was quicker, it goes on
// trying as Start does.
func (l *Listener) reopen(old *socket) {
	opened, err := l.options.Listen("tcp", old.Addr().String())
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		if err == nil {
			_ = opened.Close()
		}
		return
	}
	if err == nil {
		l.openSocket(opened, old.configured, old.server.Load())
		return
	}
	l.socket = nil
	l.startTrying(l.installed)
}

// explainBind says what an operator can do about err.
func explainBind(s *listenSettings, err error) error {
	var dns *net.DNSError
	var op *net.OpError
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("address %s is already in use by another program; choose another with address=… or stop it", s.address)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("address %s isn't one of this machine's; choose another with address=…", s.address)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("address %s may not be used by this process; choose a port of 1024 or above with address=…", s.address)
	case errors.As(err, &dns):
		return fmt.Errorf("address %s: the name can't be resolved; use an IP address", s.address)
	case errors.As(err, &op):
		return fmt.Errorf("address %s can't be bound: %w", s.address, op.Err)
	}
	return err
}

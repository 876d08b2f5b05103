// SPDX-License-Identifier: MPL-2.0

//go:build unix

package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"vault-plugin-secrets-portkey/bench/internal/chat"
	"vault-plugin-secrets-portkey/bench/internal/process"
)

// stage is what a run has started, and where.
type stage struct {
	options  options
	root     string // of the repository
	bin, dir string // the bench's programs; files of this run
	upstream string // base URL
	http     *http.Client
	running  []*process.Process
	vault    *vault            // once a target needed one
	gateways map[string]string // host:port of those that are on, by plugin
	notes    []string
	versions []string
	began    time.Time
}

// newStage takes the current folder for the repository's root.
func newStage(bin string, o options) (*stage, error) {
	root, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	if bin, err = filepath.Abs(bin); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return nil, err
	}
	// Vault refuses a plugin folder behind a symbolic link, as /tmp is on macOS.
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, err
	}
	// All of this is on loopback, so that no proxy is used.
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{}}
	return &stage{options: o, root: root, bin: bin, dir: dir, http: client, gateways: make(map[string]string), began: time.Now()}, nil
}

// close ends everything, the last started first.
func (s *stage) close() {
	for _, p := range slices.Backward(s.running) {
		p.Stop()
	}
	s.http.CloseIdleConnections()
	os.RemoveAll(s.dir)
}

// say shows progress.
func (s *stage) say(format string, args ...any) {
	elapsed := time.Since(s.began).Round(time.Second)
	fmt.Printf("%6s  %s\n", elapsed, fmt.Sprintf(format, args...))
}

// run starts a program that ends with the stage.
func (s *stage) run(name string, cmd *exec.Cmd) (*process.Process, error) {
	p, err := process.Start(s.dir, name, cmd)
	if err == nil {
		s.running = append(s.running, p)
	}
	return p, err
}

// runOurs starts one of the bench's own programs, which says its base URL first.
func (s *stage) runOurs(ctx context.Context, name string, args ...string) (*process.Process, string, error) {
	p, err := s.run(name, exec.Command(filepath.Join(s.bin, name), args...)) //nolint:gosec,noctx // a program of the bench, which Stop ends
	if err != nil {
		return nil, "", err
	}
	base, err := p.FirstLine(ctx)
	return p, base, err
}

// answers waits until a GET is answered with 200.
func (s *stage) answers(ctx context.Context, p *process.Process, url string, limit time.Duration) error {
	return p.Await(ctx, limit, func() bool {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return false
		}
		resp, err := s.http.Do(req)
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

// freeAddr is a loopback address on which nobody listens just now.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // nothing waits
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func (s *stage) startUpstream(ctx context.Context) error {
	_, base, err := s.runOurs(ctx, "upstream")
	s.upstream = base
	return err
}

// upstreamAddr is the upstream's host:port.
func (s *stage) upstreamAddr() string { return strings.TrimPrefix(s.upstream, "http://") }

func (s *stage) startDirect(context.Context) (endpoint, error) {
	return endpoint{addr: s.upstreamAddr(), path: chat.Path, processes: func() []int { return nil }}, nil
}

func (s *stage) startReverseProxy(ctx context.Context) (endpoint, error) {
	p, base, err := s.runOurs(ctx, "reverseproxy", "-to", s.upstream)
	if err != nil {
		return endpoint{}, err
	}
	return endpoint{addr: strings.TrimPrefix(base, "http://"), path: chat.Path, processes: treeOf(p)}, nil
}

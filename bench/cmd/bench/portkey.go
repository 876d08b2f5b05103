// SPDX-License-Identifier: MPL-2.0

//go:build unix

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"vault-plugin-secrets-portkey/bench/internal/chat"
)

// startPortkey starts Portkey's open-source gateway as its package ships it: one
// process. It has no virtual keys and no limits; the caller brings the
// provider's key. It holds back a stream's first event by 25 ms itself.
func (s *stage) startPortkey(ctx context.Context) (endpoint, error) {
	if _, err := exec.LookPath("npm"); err != nil {
		return endpoint{}, errors.New("npm isn't installed, with which it would be")
	}
	node, err := exec.CommandContext(ctx, "node", "--version").Output()
	if err != nil {
		return endpoint{}, errors.New("node isn't installed, which runs it")
	}
	from := filepath.Join(s.root, "bench", "portkey-gateway")
	dir, err := s.installed(ctx, "portkey-gateway", string(node),
		[]string{filepath.Join(from, "package.json"), filepath.Join(from, "package-lock.json")},
		[][]string{{"npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"}})
	if err != nil {
		return endpoint{}, err
	}
	addr, err := freeAddr()
	if err != nil {
		return endpoint{}, err
	}
	_, port, _ := net.SplitHostPort(addr)
	folder := filepath.Join(dir, "node_modules", "@portkey-ai", "gateway")
	cmd := exec.Command("node", filepath.Join(folder, "build", "start-server.js"), "--port="+port, "--headless") //nolint:gosec,noctx // what was installed, which Stop ends
	cmd.Env = append(os.Environ(), "NODE_ENV=production")
	p, err := s.run("portkey-gateway", cmd)
	if err != nil {
		return endpoint{}, err
	}
	var about struct{ Version string }
	if text, err := os.ReadFile(filepath.Join(folder, "package.json")); err == nil && json.Unmarshal(text, &about) == nil { //nolint:gosec // what was installed
		s.versions = append(s.versions, "@portkey-ai/gateway "+about.Version+" on Node "+strings.TrimPrefix(string(bytes.TrimSpace(node)), "v"))
	}
	e := endpoint{addr: addr, path: chat.Path, processes: treeOf(p), header: []string{
		"x-portkey-provider: openai", "x-portkey-custom-host: " + s.upstream + "/v1", "Authorization: Bearer " + upstreamKey,
	}}
	return e, s.answers(ctx, p, "http://"+addr+"/", 60*time.Second)
}

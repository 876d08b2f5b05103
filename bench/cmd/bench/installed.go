// SPDX-License-Identifier: MPL-2.0

//go:build unix

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
)

// listens says whether somebody accepts connections at addr.
func listens(ctx context.Context, addr string) bool {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// cacheFolder is where this project keeps what it installs; see scripts/clients.sh.
func cacheFolder() (string, error) {
	if dir := os.Getenv("PORTKEY_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir := os.Getenv("XDG_CACHE_HOME")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(home, ".cache")
	}
	return filepath.Join(dir, "vault-plugin-secrets-portkey"), nil
}

// installed returns a folder of the cache in which the packages are that files
// pin, and runs install in it if they aren't yet. The folder has copies of the
// files. Other files, or another version of what installs, give another folder.
func (s *stage) installed(ctx context.Context, name, version string, files []string, install [][]string) (string, error) {
	cache, err := cacheFolder()
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	fmt.Fprintln(sum, version, install)
	var texts [][]byte
	for _, file := range files {
		text, err := os.ReadFile(file) //nolint:gosec // a file of this repository
		if err != nil {
			return "", err
		}
		texts = append(texts, text)
		sum.Write(text)
	}
	dir := filepath.Join(cache, "bench", name+"-"+hex.EncodeToString(sum.Sum(nil))[:16])
	mark := filepath.Join(dir, ".complete")
	if _, err := os.Stat(mark); err == nil {
		return dir, nil
	}
	s.say("installing %s, once, into %s", name, dir)
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o750)); err != nil {
		return "", err
	}
	for i, text := range texts {
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(files[i])), text, 0o600); err != nil { //nolint:gosec // a folder of our own
			return "", err
		}
	}
	for _, command := range install {
		cmd := exec.CommandContext(ctx, command[0], command[1:]...) //nolint:gosec // commands of the bench
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("installing %s: %v: %w\n%s", name, command, err, out[max(0, len(out)-1500):])
		}
	}
	return dir, os.WriteFile(mark, nil, 0o600)
}

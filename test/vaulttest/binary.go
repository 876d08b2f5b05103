// SPDX-License-Identifier: MPL-2.0

//go:build unix

package vaulttest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

const (
	modulePath = "vault-plugin-secrets-portkey"
	pluginName = "vault-plugin-secrets-portkey"
)

// moduleRoot returns the folder of the project's go.mod. go test runs a test
// in the folder of its package, so it is that or one above.
func moduleRoot() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && bytes.HasPrefix(mod, []byte("module "+modulePath+"\n")) {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("%s is in no folder of the module %s", start, modulePath)
		}
	}
}

// vaultBinary asks scripts/vault.sh for a vault, whose progress is shown.
func vaultBinary(ctx context.Context) (string, error) {
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join(root, "scripts", "vault.sh"))
	cmd.Stderr = io.MultiWriter(&stderr, os.Stderr)
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("scripts/vault.sh: %w\n%s", err, stderr.Bytes())
	}
	return strings.TrimSpace(string(out)), nil
}

// builtPlugin is a plugin in a folder that goes when the test process ends.
type builtPlugin struct {
	path  string
	guard *guard // removes the folder when the pipe to it is closed, at the end
}

// The project's plugin is linked once for all tests of a process. These are
// written once and then only read.
var (
	plugin     = sync.OnceValues(func() (builtPlugin, error) { return build("./cmd/"+pluginName, false) })
	racePlugin = sync.OnceValues(func() (builtPlugin, error) { return build("./cmd/"+pluginName, true) })
)

// build builds a command of the module, whose last path element is its name.
func build(pkg string, race bool) (builtPlugin, error) {
	root, err := moduleRoot()
	if err != nil {
		return builtPlugin{}, err
	}
	dir, err := os.MkdirTemp("", "vaulttest-plugin")
	if err != nil {
		return builtPlugin{}, err
	}
	g, err := startGuard(dir)
	if err != nil {
		return builtPlugin{}, errors.Join(err, os.RemoveAll(dir))
	}
	built := builtPlugin{path: filepath.Join(dir, filepath.Base(pkg)), guard: g}
	args, cgo := []string{"build", "-o", built.path}, "CGO_ENABLED=0"
	if race {
		args, cgo = append(args, "-race"), "CGO_ENABLED=1"
	}
	cmd := exec.Command("go", append(args, pkg)...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), cgo)
	if out, err := cmd.CombinedOutput(); err != nil {
		return built, fmt.Errorf("building %s: %w\n%s", pkg, err, out)
	}
	return built, nil
}

// pluginBinary returns the plugin that the options ask for.
func (o Options) pluginBinary() (string, error) {
	if o.PluginBinary != "" {
		return o.PluginBinary, nil
	}
	build := plugin
	if o.Race {
		build = racePlugin
	}
	built, err := build()
	return built.path, err
}

// installPlugin copies the plugin into Vault's plugin folder, once, and
// returns its name and SHA-256 in hex. A copy, for Vault refuses links that
// lead out of the folder.
func (v *Vault) installPlugin() (name, sum string, err error) {
	v.pluginMu.Lock()
	defer v.pluginMu.Unlock()
	from, err := v.opts.pluginBinary()
	if err != nil {
		return "", "", err
	}
	name = filepath.Base(from)
	to := filepath.Join(v.pluginDir(), name)
	binary, err := os.ReadFile(to)
	if errors.Is(err, os.ErrNotExist) {
		if binary, err = os.ReadFile(from); err == nil {
			err = writeProgram(to, binary)
		}
	}
	if err != nil {
		return "", "", fmt.Errorf("the plugin: %w", err)
	}
	digest := sha256.Sum256(binary)
	return name, hex.EncodeToString(digest[:]), nil
}

// writeProgram writes an executable file. No process is forked meanwhile: it
// would have the file open for writing until it is itself replaced, and the
// system runs no program that is being written.
func writeProgram(path string, binary []byte) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return os.WriteFile(path, binary, 0o700)
}

// SPDX-License-Identifier: MPL-2.0

//go:build unix

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"vault-plugin-secrets-portkey/bench/internal/process"
)

// The plugin runs three times in one Vault, each with settings of its own, under
// names by which their processes can be told apart.
const (
	pluginGateway = "gateway"
	pluginAsk     = "gateway-ask"
	pluginInline  = "inline"
)

const rootToken = "root"

// vault is a dev server: one node, storage in memory, no audit device.
type vault struct {
	stage   *stage
	addr    string // host:port
	process *process.Process
	token   string // of an app that may use the virtual keys
	err     error  // why there is none
}

// theVault starts Vault when the first target needs it.
func (s *stage) theVault(ctx context.Context) (*vault, error) {
	if s.vault == nil {
		s.vault = &vault{stage: s}
		s.vault.err = s.vault.start(ctx)
	}
	return s.vault, s.vault.err
}

func (v *vault) start(ctx context.Context) error {
	s := v.stage
	find := exec.CommandContext(ctx, filepath.Join(s.root, "scripts", "vault.sh")) //nolint:gosec // a script of this repository
	find.Stderr = os.Stderr
	out, err := find.Output()
	if err != nil {
		return fmt.Errorf("no vault: %w", err)
	}
	binary := strings.TrimSpace(string(out))
	if out, err := exec.CommandContext(ctx, binary, "version").Output(); err == nil { //nolint:gosec // as above
		s.versions = append(s.versions, strings.Trim(strings.Join(strings.Fields(string(out))[:2], " "), ","))
	}
	plugins := filepath.Join(s.dir, "plugins")
	if err := v.installPlugins(plugins); err != nil {
		return err
	}
	if v.addr, err = freeAddr(); err != nil {
		return err
	}
	cmd := exec.Command(binary, "server", "-dev", "-dev-no-store-token", "-dev-root-token-id="+rootToken, //nolint:gosec,noctx // as above; Stop ends it
		"-dev-listen-address="+v.addr, "-dev-plugin-dir="+plugins)
	cmd.Env = append(os.Environ(), "VAULT_LOG_LEVEL=warn")
	if v.process, err = s.run("vault", cmd); err != nil {
		return err
	}
	if err := s.answers(ctx, v.process, "http://"+v.addr+"/v1/sys/health", time.Minute); err != nil {
		return err
	}
	return v.makeToken(ctx)
}

// installPlugins copies the product, and the program that adds the no-op path.
func (v *vault) installPlugins(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	product := filepath.Join(v.stage.root, "bin", "vault-plugin-secrets-portkey")
	for name, from := range map[string]string{
		pluginGateway: product, pluginAsk: product, pluginInline: filepath.Join(v.stage.bin, "plugin"),
	} {
		binary, err := os.ReadFile(from) //nolint:gosec // what was built
		if err != nil {
			return fmt.Errorf("the plugin isn't built: %w", err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), binary, 0o700); err != nil { //nolint:gosec // a program
			return err
		}
	}
	return nil
}

// makeToken makes the app's token: Vault doesn't ask policies for root's.
func (v *vault) makeToken(ctx context.Context) error {
	policy := `path "+/proxy/+/*" { capabilities = ["update"] }
path "+/noop/+/*" { capabilities = ["update"] }`
	if err := v.call(ctx, http.MethodPut, "sys/policies/acl/bench", map[string]any{"policy": policy}, nil); err != nil {
		return err
	}
	var made struct {
		Auth struct {
			ClientToken string `json:"client_token"`
		}
	}
	err := v.call(ctx, http.MethodPost, "auth/token/create", map[string]any{"policies": []string{"bench"}, "ttl": "24h"}, &made)
	v.token = made.Auth.ClientToken
	return err
}

// call asks Vault's API as root. answer may be nil.
func (v *vault) call(ctx context.Context, method, path string, body map[string]any, answer any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+v.addr+"/v1/"+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	req.Header.Set("X-Vault-Token", rootToken)
	resp, err := v.stage.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, bytes.TrimSpace(said))
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(said, answer)
}

// plugin are the processes that run a plugin.
func (v *vault) plugin(name string) []int {
	var pids []int
	for _, pid := range process.Tree(v.process.PID()) {
		if filepath.Base(process.Program(pid)) == name {
			pids = append(pids, pid)
		}
	}
	return pids
}

// withPlugin are Vault's process and those of a plugin.
func (v *vault) withPlugin(name string) []int {
	return append(v.plugin(name), v.process.PID())
}

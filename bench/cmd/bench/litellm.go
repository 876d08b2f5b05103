// SPDX-License-Identifier: MPL-2.0

//go:build unix

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"vault-plugin-secrets-portkey/bench/internal/chat"
)

// liteLLMDatabase is the environment variable with the URL of a PostgreSQL, in
// which LiteLLM keeps its virtual keys; without it there are none.
const liteLLMDatabase = "BENCH_LITELLM_DATABASE_URL"

// liteLLMMaster is the credential of LiteLLM's own administrator.
const liteLLMMaster = "sk-bench-master"

// startLiteLLM starts LiteLLM's proxy with a worker for each core, as its
// documentation advises for production.
func (s *stage) startLiteLLM(ctx context.Context) (endpoint, error) {
	venv, err := s.installLiteLLM(ctx)
	if err != nil {
		return endpoint{}, err
	}
	database := os.Getenv(liteLLMDatabase)
	if database != "" {
		if err := generatePrisma(ctx, venv); err != nil {
			return endpoint{}, err
		}
	}
	config := filepath.Join(s.dir, "litellm.yaml")
	if err := os.WriteFile(config, s.liteLLMConfig(), 0o600); err != nil {
		return endpoint{}, err
	}
	addr, err := freeAddr()
	if err != nil {
		return endpoint{}, err
	}
	_, port, _ := net.SplitHostPort(addr)
	cmd := exec.Command(filepath.Join(venv, "bin", "litellm"), "--config", config, //nolint:gosec,noctx // what was installed, which Stop ends
		"--host", "127.0.0.1", "--port", port, "--num_workers", strconv.Itoa(runtime.NumCPU()))
	cmd.Env = append(withoutDatabase(os.Environ()), "PATH="+filepath.Join(venv, "bin")+":"+os.Getenv("PATH"),
		"LITELLM_MODE=PRODUCTION", "LITELLM_LOG=ERROR", "LITELLM_LOCAL_MODEL_COST_MAP=True")
	if database != "" {
		cmd.Env = append(cmd.Env, "DATABASE_URL="+database)
	}
	p, err := s.run(litellmName, cmd)
	if err != nil {
		return endpoint{}, err
	}
	if err := s.answers(ctx, p, "http://"+addr+"/health/liveliness", 3*time.Minute); err != nil {
		return endpoint{}, err
	}
	key := liteLLMMaster
	if database != "" {
		if key, err = s.liteLLMKey(ctx, addr); err != nil {
			return endpoint{}, err
		}
	} else {
		note := "LiteLLM ran with its master key alone: its virtual keys need a PostgreSQL, whose URL goes into `" + liteLLMDatabase + "`."
		s.say("%s", note)
		s.notes = append(s.notes, note)
	}
	return endpoint{addr: addr, path: chat.Path, processes: treeOf(p), header: []string{"Authorization: Bearer " + key}}, nil
}

// withoutDatabase keeps LiteLLM from a database that is there for something else.
func withoutDatabase(env []string) []string {
	return slices.DeleteFunc(env, func(v string) bool { return strings.HasPrefix(v, "DATABASE_URL=") })
}

// installLiteLLM returns the folder of a Python environment with LiteLLM.
func (s *stage) installLiteLLM(ctx context.Context) (string, error) {
	version, err := exec.CommandContext(ctx, "python3", "-c", "import sys; print(sys.version)").Output()
	if err != nil {
		return "", errors.New("python3 isn't installed, which runs it")
	}
	dir, err := s.installed(ctx, litellmName, string(version),
		[]string{filepath.Join(s.root, "bench", litellmName, "requirements.txt")},
		[][]string{
			{"python3", "-m", "venv", "venv"},
			{"venv/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r", "requirements.txt"},
		})
	if err != nil {
		return "", err
	}
	venv := filepath.Join(dir, "venv")
	v, err := exec.CommandContext(ctx, filepath.Join(venv, "bin", "python"), "-c", //nolint:gosec // what was installed
		"import importlib.metadata as m; print(m.version('litellm'))").Output()
	if err == nil {
		s.versions = append(s.versions, "LiteLLM "+strings.TrimSpace(string(v)))
	}
	return venv, err
}

// generatePrisma makes LiteLLM's database client, which fetches a program for
// this machine from its maker's servers.
func generatePrisma(ctx context.Context, venv string) error {
	schemas, _ := filepath.Glob(filepath.Join(venv, "lib", "python3*", "site-packages", "litellm_proxy_extras", "schema.prisma"))
	if len(schemas) == 0 {
		return errors.New("LiteLLM has no database schema where it is looked for")
	}
	cmd := exec.CommandContext(ctx, filepath.Join(venv, "bin", "prisma"), "generate", "--schema", schemas[0]) //nolint:gosec // what was installed
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(venv, "bin")+":"+os.Getenv("PATH"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("LiteLLM's virtual keys can't be had, prisma generate: %w: %s", err, out[max(0, len(out)-500):])
	}
	return nil
}

func (s *stage) liteLLMConfig() []byte {
	config := fmt.Appendf(nil, "general_settings: {master_key: %q}\nlitellm_settings: {telemetry: false}\nmodel_list:\n", liteLLMMaster)
	for _, kib := range s.options.bodies {
		config = fmt.Appendf(config, "  - {model_name: %q, litellm_params: {model: %q, api_base: %q, api_key: %q}}\n",
			chat.Model(kib), "openai/"+chat.Model(kib), s.upstream+"/v1", upstreamKey)
	}
	return config
}

// liteLLMKey makes a virtual key with limits that aren't reached.
func (s *stage) liteLLMKey(ctx context.Context, addr string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+"/key/generate",
		bytes.NewReader([]byte(`{"max_budget": 1000000, "rpm_limit": 1000000000, "tpm_limit": 1000000000000}`)))
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+liteLLMMaster)
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.http.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var made struct{ Key string }
	if err := json.NewDecoder(resp.Body).Decode(&made); err != nil || made.Key == "" {
		return "", fmt.Errorf("LiteLLM made no virtual key: %s, %w", resp.Status, err)
	}
	return made.Key, nil
}

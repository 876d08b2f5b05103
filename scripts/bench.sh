#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
#
# Measures the gateway beside other proxies; bench/cmd/bench/main.go says what
# and how, and which environment variables change it. nginx is measured if it is
# installed, Portkey's gateway if npm is; LiteLLM only if BENCH_TARGETS names it.
# The plugin is bin/vault-plugin-secrets-portkey, as `make build` left it.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v go >/dev/null || { echo "make bench: Go is missing; install Go 1.26 or later from https://go.dev/dl/" >&2; exit 1; }
bin=${PORTKEY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vault-plugin-secrets-portkey}/bench/bin
mkdir -p "$bin"
# Static, as the plugin itself is built.
CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$bin/" ./bench/cmd/...
exec "$bin/bench" -bin "$bin"

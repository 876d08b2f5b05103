#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
#
# Makes cmd/vault-plugin-secrets-portkey/cpu.pgo anew, the profile of the plugin under
# the load of `make bench` that `make build` optimises for. The compiler matches it
# by function and line, so it stays useful for a while; make it anew after larger
# changes to what a request runs through. It takes about two minutes, and needs perl.
set -euo pipefail
cd "$(dirname "$0")/.."

profile=cmd/vault-plugin-secrets-portkey/cpu.pgo
work=$(mktemp -d)
bench=
cleanup() {
  [ -z "$bench" ] || kill "$bench" 2>/dev/null || true
  wait
  rm -rf "$work"
  rm -f bin/vault-plugin-secrets-portkey # it has the tag; make builds the other again
}
trap cleanup EXIT

mkdir -p bin
CGO_ENABLED=0 go build -trimpath -buildvcs=false -pgo=off -tags profile -o bin/vault-plugin-secrets-portkey ./cmd/vault-plugin-secrets-portkey
for target in gateway gateway-leased; do
  echo "profile: $target …"
  BENCH_TARGETS=$target BENCH_CONNECTIONS=32 BENCH_SECONDS=12 BENCH_ROUNDS=1 scripts/bench.sh >"$work/bench.log" 2>&1 &
  bench=$!
  until grep -q measuring "$work/bench.log"; do
    kill -0 "$bench" 2>/dev/null || { cat "$work/bench.log" >&2; exit 1; }
    sleep 0.2
  done
  sleep 1
  PPROF_TMPDIR=$work go tool pprof -proto -seconds 22 -output "$work/$target.pprof" http://127.0.0.1:16061/debug/pprof/profile >/dev/null 2>"$work/pprof.log" ||
    { cat "$work/pprof.log" >&2; exit 1; }
  wait "$bench"
  bench=
done
go tool pprof -proto -output "$work/cpu.pgo" "$work"/gateway.pprof "$work"/gateway-leased.pprof >/dev/null 2>&1
# Where the program was is nobody's business; its length must stay.
gzip -dc "$work/cpu.pgo" | perl -0777 -pe 's{/[\w./-]*/plugins/gateway[a-z-]*}{"x" x length $&}ge' | gzip -9n >"$profile"
ls -l "$profile"

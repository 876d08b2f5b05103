#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
#
# Prints the path of a vault binary on standard output, and nothing else there;
# progress and errors go to standard error. In this order:
#
#   1. $VAULT_BIN (HashiCorp Vault or OpenBao), which must be executable
#   2. vault on PATH, the community edition, from 1.16 on
#   3. one built from tools/vault, once, into
#      ${PORTKEY_CACHE:-${XDG_CACHE_HOME:-~/.cache}/vault-plugin-secrets-portkey}
set -euo pipefail

readonly min_major=1 min_minor=16
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root src=$root/tools/vault
# The flags are part of the cache key: other flags make another binary.
readonly tags=minimal ldflags='-s -w'

say() { printf 'vault.sh: %s\n' "$*" >&2; }
die() {
  say "$@"
  exit 1
}

is_program() { [[ -f $1 && -x $1 ]]; }

# from_env prints $VAULT_BIN as an absolute path: whoever asked may be in
# another folder by the time it runs it.
from_env() {
  is_program "$VAULT_BIN" ||
    die "VAULT_BIN=$VAULT_BIN isn't an executable file (looked from $PWD). Set it to the full path of a vault or bao binary, or unset it."
  printf '%s/%s\n' "$(cd "$(dirname "$VAULT_BIN")" && pwd)" "$(basename "$VAULT_BIN")"
}

# from_path prints the vault on PATH if it will do; else says why not.
from_path() {
  local bin said re='^Vault v([0-9]+)\.([0-9]+)\.[0-9]+([^ ,]*)'
  bin=$(type -P vault) || return 1
  # A broken binary on PATH is no reason to stop: one can still be built.
  said=$("$bin" version 2>/dev/null) || said=
  said=${said%%$'\n'*}
  if ! [[ $said =~ $re ]]; then
    say "$bin says it is '$said', not a Vault release: not using it (VAULT_BIN=$bin forces it)"
    return 1
  fi
  local major=${BASH_REMATCH[1]} minor=${BASH_REMATCH[2]} suffix=${BASH_REMATCH[3]}
  if [[ $suffix == *+ent* ]]; then
    say "$bin is Vault Enterprise, which needs a licence to start: not using it (VAULT_BIN=$bin forces it)"
    return 1
  fi
  if ((major < min_major || (major == min_major && minor < min_minor))); then
    say "$bin is $major.$minor, older than $min_major.$min_minor: not using it"
    return 1
  fi
  [[ $bin == /* ]] || bin=$PWD/$bin
  printf '%s\n' "$bin"
}

# fingerprint prints 16 hex digits that change with whatever the binary is made of.
fingerprint() {
  local sum=(sha256sum)
  command -v sha256sum >/dev/null || sum=(shasum -a 256)
  { cat "$src/main.go" "$src/go.mod" "$src/go.sum" && echo "$tags $ldflags $(uname -sm)"; } |
    "${sum[@]}" | cut -c1-16
}

# locked DIR COMMAND... runs the command while no other process holds DIR's
# lock. It waits as long as that takes.
locked() {
  local dir=$1 shown=
  shift
  if command -v flock >/dev/null; then
    exec 9>"$dir/lock" # released by the kernel when this process ends, however it ends
    until flock -w 10 9; do
      say "another process is building Vault (log: $dir/build.log); waiting, ${SECONDS} s"
    done
    "$@"
    return
  fi
  until mkdir "$dir/lock.d" 2>/dev/null; do
    local owner
    owner=$(cat "$dir/lock.d/pid" 2>/dev/null) || owner=
    if [[ -n $owner ]] && ! kill -0 "$owner" 2>/dev/null; then
      # Left by a process that was killed. Renaming is atomic, so that only
      # one of several that notice it takes it away.
      mv "$dir/lock.d" "$dir/lock.stale.$$" 2>/dev/null && rm -rf "$dir/lock.stale.$$"
      continue
    fi
    if [[ -z $shown ]]; then
      say "another process is building Vault (log: $dir/build.log); waiting. If none is, remove $dir/lock.d"
      shown=1
    fi
    sleep 1
  done
  echo $$ >"$dir/lock.d/pid"
  lock_dir=$dir/lock.d # leave removes it
  "$@"
}

lock_dir='' unfinished='' child=''
leave() {
  [[ -z $child ]] || kill "$child" 2>/dev/null || true
  [[ -z $unfinished ]] || rm -f "$unfinished"
  [[ -z $lock_dir ]] || rm -rf "$lock_dir"
}

# watched LOG WHAT COMMAND... runs the command with its standard error in LOG,
# its output thrown away, and says every 10 s how far it is.
watched() {
  local log=$1 what=$2 start=$SECONDS next=10 ok=0
  shift 2
  "$@" >/dev/null 2>>"$log" 9>&- &
  child=$!
  while kill -0 "$child" 2>/dev/null; do
    sleep 1
    if ((SECONDS - start >= next)); then
      say "$what: $((SECONDS - start)) s, $(progress "$log")"
      next=$((next + 10))
    fi
  done
  wait "$child" || ok=$?
  child=''
  return "$ok"
}

# progress counts the lines of LOG: the go command writes one for every
# module it downloads and one for every package it compiles.
progress() {
  local modules packages
  modules=$(grep -c '^go: downloading ' "$1") || true
  packages=$(grep -vc '^go: ' "$1") || true
  printf '%s modules downloaded, %s packages compiled' "$modules" "$packages"
}

# released prints when the Vault release that tools/vault names was made, for
# `vault version`. Without it Vault would make up a date, another one at each
# start.
released() {
  go list -m -f '{{with .Time}}{{.UTC.Format "2006-01-02T15:04:05Z"}}{{end}}' \
    github.com/hashicorp/vault 2>/dev/null || true
}

failed() {
  say "$1. The end of $2:"
  tail -n 20 "$2" >&2
  say "The whole log is $2. Instead of building, VAULT_BIN can name a vault binary."
  exit 1
}

build() {
  local dir=$1 bin=$1/vault log=$1/build.log date said version
  ! is_program "$bin" || return 0 # another process was faster
  command -v go >/dev/null ||
    die "no vault found, and no go to build one with. Install Go ($(sed -n 's/^go //p' "$src/go.mod") or later), or set VAULT_BIN to a vault binary."
  cd "$src"
  export CGO_ENABLED=0 GOWORK=off GOFLAGS='' GOOS='' GOARCH=''
  version=$(sed -n 's/^require github.com\/hashicorp\/vault v//p' go.mod)
  say "building Vault $version from source, once: some 5 minutes on 2 cores. Into $dir"
  : >"$log"
  unfinished=$dir/vault.tmp.$$
  # Listing the packages downloads their modules, and unlike `go mod download`
  # only those that are needed, each with a line.
  watched "$log" 'downloading' go list -deps -tags "$tags" . || failed 'downloading what Vault is made of failed' "$log"
  date=$(released)
  watched "$log" 'compiling and linking' go build -v -tags "$tags" -trimpath \
    -ldflags "$ldflags${date:+ -X github.com/hashicorp/vault/version.BuildDate=$date}" \
    -o "$unfinished" . || failed 'building Vault failed' "$log"
  said=$("$unfinished" version 2>>"$log") || failed 'the Vault that was built does not run' "$log"
  [[ $said == "Vault v$version"* ]] || die "the Vault that was built says it is '$said', not $version"
  mv "$unfinished" "$bin" # the same folder, so that nobody ever sees half a binary
  unfinished=''
  say "built $said in $SECONDS s"
}

main() {
  if [[ -n ${VAULT_BIN:-} ]]; then
    from_env
    return
  fi
  if from_path; then
    return
  fi
  local cache dir
  cache=${PORTKEY_CACHE:-${XDG_CACHE_HOME:-${HOME:?is not set: set PORTKEY_CACHE to a folder for the Vault that is built}/.cache}/vault-plugin-secrets-portkey}
  [[ $cache == /* ]] || cache=$PWD/$cache
  dir=$cache/vault-$(fingerprint)
  if ! is_program "$dir/vault"; then
    mkdir -p "$dir" || die "can't make $dir: set PORTKEY_CACHE to a folder that can be written"
    trap leave EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    locked "$dir" build "$dir"
  fi
  printf '%s\n' "$dir/vault"
}

main "$@"

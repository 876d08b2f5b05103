#!/usr/bin/env bash
# Checks that what `make test` needs is here, and says what is missing.
set -euo pipefail

fail() { echo "make test: $*" >&2; exit 1; }

command -v go >/dev/null || fail "Go is missing; install Go 1.26 or later from https://go.dev/dl/"
command -v node >/dev/null || fail "Node.js is missing; install Node 20 or later from https://nodejs.org/"
command -v npm >/dev/null || fail "npm is missing; it comes with Node.js"
command -v python3 >/dev/null || fail "Python is missing; install Python 3.11 or later from https://www.python.org/"

node_major=$(node -p 'process.versions.node.split(".")[0]')
[ "$node_major" -ge 20 ] || fail "Node $(node --version) is too old; install Node 20 or later"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
	fail "$(python3 --version) is too old; install Python 3.11 or later"
python3 -c 'import venv, ensurepip' 2>/dev/null ||
	fail "Python's venv module is missing; on Debian and Ubuntu: apt-get install python3-venv"

#!/usr/bin/env bash
# Runs every fuzz test of the repository for FUZZTIME each (10m).
set -euo pipefail
cd "$(dirname "$0")/.."

time=${FUZZTIME:-10m}
grep -rlE --include='*_test.go' '^func Fuzz' . | sort | while read -r file; do
	package=./$(dirname "$file")
	sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$file" | while read -r name; do
		echo "== $package $name for $time"
		go test -run '^$' -fuzz "^$name\$" -fuzztime "$time" -fuzzminimizetime 20x "$package"
	done
done

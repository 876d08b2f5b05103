#!/usr/bin/env bash
# gofmt, go vet and golangci-lint (a pinned release, built once by Go into its
# own cache).
set -euo pipefail
cd "$(dirname "$0")/.."

unformatted=$(git ls-files '*.go' | xargs gofmt -l)
if [ -n "$unformatted" ]; then
	echo "Not formatted (make fmt):" >&2
	echo "$unformatted" >&2
	exit 1
fi
go vet ./... && go vet -tags integration ./...
go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0 run --build-tags integration ./...

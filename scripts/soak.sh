#!/usr/bin/env bash
# The long versions of the tests of limits and of the gateway: many histories of the
# ledger's model, many crashes and failovers of a real Vault under load, through
# Vault and through the gateway (with a plugin that the race detector watches, where
# the race detector can be), and every fuzz test.
# Progress is shown as it comes. Each run prints its seed; PORTKEY_SEED repeats it.
#
#   SOAK_FUZZTIME    for each fuzz test (10m); 0 for none
#   LEDGER_HISTORIES how many random histories the ledger's model runs (20000)
#   SOAK_RUN         which integration tests: a pattern as of go test -run
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s  %s\n' "$(date +%H:%M:%S)" "$*"; }

step "The ledger's model: ${LEDGER_HISTORIES:=20000} histories"
LEDGER_HISTORIES=$LEDGER_HISTORIES go test -count=1 -timeout 4h -v -run TestModel ./internal/ledger | grep -vE '^=== (RUN|PAUSE|CONT|NAME)'

step "Limits and the gateway in a real Vault, with crashes and failovers"
VAULT_BIN=$(scripts/vault.sh)
PYTHON_CLIENTS=$(scripts/clients.sh)
export VAULT_BIN PYTHON_CLIENTS
PORTKEY_SOAK=1 go test -race -tags integration -count=1 -timeout 4h -v \
	-run "${SOAK_RUN:-TestLimits|TestCrash|TestFailover|TestCleanEnd|TestOthersFail|TestGateway}" ./test/integration | grep -vE '^=== (PAUSE|CONT|NAME)'

if [ "${SOAK_FUZZTIME:=10m}" != 0 ]; then
	step "Every fuzz test for $SOAK_FUZZTIME"
	FUZZTIME=$SOAK_FUZZTIME scripts/fuzz.sh
fi
step "Done"

#!/usr/bin/env bash
# A dev Vault in the foreground, with the plugin mounted at portkey/, a sandbox
# key and a virtual key. Everything is in memory and gone on ctrl-C.
set -euo pipefail
cd "$(dirname "$0")/.."

VAULT_BIN=$(scripts/vault.sh)
export VAULT_ADDR=${VAULT_DEV_ADDR:-http://127.0.0.1:8200} VAULT_TOKEN=root
work=$(mktemp -d)
server=
finish() {
	[ -z "$server" ] || { kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; }
	rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

"$VAULT_BIN" server -dev -dev-no-store-token -dev-root-token-id=root -dev-listen-address="${VAULT_ADDR#http://}" \
	-dev-plugin-dir="$PWD/bin" >"$work/vault.log" 2>&1 &
server=$!
for _ in $(seq 150); do
	# Not another Vault's answer, if this one could not get the port.
	kill -0 "$server" 2>/dev/null && "$VAULT_BIN" status >/dev/null 2>&1 && break
	kill -0 "$server" 2>/dev/null || { tail -20 "$work/vault.log" >&2; exit 1; }
	sleep 0.2
done

v() { "$VAULT_BIN" "$@" >/dev/null; }
v secrets enable -path=portkey vault-plugin-secrets-portkey
v write portkey/keys/sandbox provider=sandbox
v write portkey/roles/demo key=sandbox
printf 'path "portkey/proxy/demo/*" { capabilities = ["read", "update"] }\npath "portkey/proxy/demo" { capabilities = ["update"] }\n' |
	"$VAULT_BIN" policy write demo - >/dev/null
token=$("$VAULT_BIN" token create -policy=demo -field=token)

cat <<END

Vault is at $VAULT_ADDR, its root token is "root", and the plugin is mounted at portkey/.

As an operator, in another terminal:

  export VAULT_ADDR=$VAULT_ADDR VAULT_TOKEN=root
  $VAULT_BIN read portkey/roles/demo
  $VAULT_BIN path-help portkey/

As an app, with a token that may do nothing but use the virtual key "demo":

  export TOKEN=$token
  curl -s $VAULT_ADDR/v1/portkey/proxy/demo/v1/chat/completions -H "Authorization: Bearer \$TOKEN" \\
    -d '{"model":"sandbox-small","messages":[{"role":"user","content":"Hello"}]}'

  OpenAI(base_url="$VAULT_ADDR/v1/portkey/proxy/demo/v1", api_key="$token")

The sandbox provider is no LLM; docs/sandbox.md says what it can do. The log is in $work/vault.log.
Ctrl-C ends everything.
END
wait "$server"

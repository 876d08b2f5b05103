#!/usr/bin/env bash
# Shows the main job end to end on a Vault of its own, and ends by itself.
# Every step prints the command that a person would type, and its real answer.
# With OPENAI_API_KEY in the environment it talks to OpenAI, else to the
# built-in sandbox provider.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v curl >/dev/null || { echo "make demo: curl is missing; install it to see what an app sees" >&2; exit 1; }
VAULT_BIN=$(scripts/vault.sh)
work=$(mktemp -d)
server= acme= app=
finish() {
	for process in $app $acme $server; do
		kill "$process" 2>/dev/null || true
		wait "$process" 2>/dev/null || true
	done
	rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

vault() { "$VAULT_BIN" "$@"; }
bold= plain=
[ ! -t 1 ] || { bold=$(printf '\033[1m') plain=$(printf '\033[0m'); }
say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
die() { echo "make demo: $*" >&2; exit 1; }

# run prints a command as a person would type it, runs it, and shows its answer
# indented. The command's own exit code is kept.
run() {
	local code=0
	printf '  $ %s\n' "$1"
	eval "$1" >"$work/answer" 2>&1 || code=$?
	sed 's/^/    /' "$work/answer"
	grep -q . "$work/answer" && [ -z "$(tail -c1 "$work/answer")" ] || echo
	return "$code"
}
# refused is run for what must fail, with what the answer must say.
refused() { ! run "$1" || die "that should have been refused"; expect "$2"; }
expect() { grep -q -- "$1" "$work/answer" || die "the answer does not say: $1"; }

say "Starting a Vault in memory, with the plugin"
for port in $(seq 18200 18260); do
	(exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
done
export VAULT_ADDR=http://127.0.0.1:$port VAULT_TOKEN=root
VAULT_LOG_LEVEL=warn "$VAULT_BIN" server -dev -dev-no-store-token -dev-root-token-id=root -dev-listen-address="127.0.0.1:$port" \
	-dev-plugin-dir="$PWD/bin" >"$work/vault.log" 2>&1 &
server=$!
for _ in $(seq 150); do
	vault status >/dev/null 2>&1 && break
	kill -0 "$server" 2>/dev/null || { tail -20 "$work/vault.log" >&2; die "Vault did not start"; }
	sleep 0.2
done
run 'vault secrets enable -path=portkey vault-plugin-secrets-portkey'

if [ -n "${OPENAI_API_KEY:-}" ]; then
	say "1. The operator stores the provider key; nobody can read it back"
	model=${DEMO_MODEL:-gpt-4o-mini} other=${DEMO_OTHER_MODEL:-gpt-4o}
	# shellcheck disable=SC2016 # shown as typed
	run 'printf %s "$OPENAI_API_KEY" | vault write portkey/keys/llm provider=openai api_key=-'
else
	say "1. The operator stores a provider key (the built-in sandbox: it needs no secret, and is no LLM)"
	model=sandbox-small other=sandbox-large
	run 'vault write portkey/keys/llm provider=sandbox'
fi
run 'vault read portkey/keys/llm'

say "2. Two virtual keys on that one provider key, for two teams"
run "vault write portkey/roles/team-a key=llm models='$model'"
run "vault write portkey/roles/team-b key=llm"

say "3. A policy lets team A's app use its virtual key and nothing else; the app gets a token"
run "vault policy write team-a-app - <<'END'
path \"portkey/proxy/team-a\"   { capabilities = [\"update\"] }
path \"portkey/proxy/team-a/*\" { capabilities = [\"read\", \"update\"] }
END"
run 'vault token create -policy=team-a-app -ttl=1h -field=token'
APP_TOKEN=$(cat "$work/answer")
run 'vault token create -policy=default -ttl=1h -field=token   # another app, without the policy'
OTHER_TOKEN=$(cat "$work/answer")
export APP_TOKEN OTHER_TOKEN

say "4. The app gets a completion with nothing but its Vault token"
ask() { # token, virtual key, model
	# shellcheck disable=SC2016 # shown as typed
	printf 'curl -s $VAULT_ADDR/v1/portkey/proxy/%s/v1/chat/completions -H "Authorization: Bearer $%s" -d '\''{"model":"%s","max_tokens":40,"messages":[{"role":"user","content":"What is a virtual key?"}]}'\' "$2" "$1" "$3"
}
run "$(ask APP_TOKEN team-a "$model")"
expect '"chat.completion"'

say "5. The same from the command line"
# shellcheck disable=SC2016 # shown as typed
run 'VAULT_TOKEN=$APP_TOKEN vault write portkey/proxy/team-a model='"$model"' max_tokens=40 prompt="What is a virtual key?"'
expect content

say "6. A model that the virtual key doesn't allow"
run "$(ask APP_TOKEN team-a "$other")"
expect model_not_allowed

say "7. A token without the policy: Vault itself refuses"
run "$(ask OTHER_TOKEN team-a "$model")"
expect 'permission denied'

say "8. A provider key changes under a running app (the provider here is a program that imitates one, and checks keys)"
old_key=sk-acme-old-0123456789 new_key=sk-acme-new-0123456789
go build -o "$work/upstream" ./test/upstream/cmd/upstream
"$work/upstream" -keys "$old_key,$new_key" >"$work/acme" &
acme=$!
for _ in $(seq 100); do [ -s "$work/acme" ] && break; sleep 0.1; done
ACME=$(head -1 "$work/acme")
export ACME
run "vault write portkey/keys/acme provider=openai-compatible base_url=$ACME api_key=$old_key"
run 'vault write portkey/roles/team-a-acme key=acme'
printf 'path "portkey/proxy/team-a-acme/*" { capabilities = ["update"] }\n' | vault policy write acme-app - >/dev/null
APP_TOKEN=$(vault token create -policy=acme-app -ttl=1h -field=token)
: >"$work/statuses"
(while [ ! -e "$work/stop" ]; do
	curl -s -o /dev/null -w '%{http_code}\n' "$VAULT_ADDR/v1/portkey/proxy/team-a-acme/v1/chat/completions" \
		-H "Authorization: Bearer $APP_TOKEN" -d '{"model":"up-ok","messages":[{"role":"user","content":"Hi"}]}' >>"$work/statuses"
done) &
app=$!
while [ "$(wc -l <"$work/statuses")" -lt 20 ]; do sleep 0.1; done
run 'vault read -field=fingerprint portkey/keys/acme'
run "vault write -field=fingerprint portkey/keys/acme/rotate api_key=$new_key verify=true"
before=$(wc -l <"$work/statuses")
while [ "$(wc -l <"$work/statuses")" -lt $((before + 20)) ]; do sleep 0.1; done
touch "$work/stop"
wait "$app"
printf '  the app meanwhile: %s requests, of which %s answered 200\n' "$(wc -l <"$work/statuses" | tr -d ' ')" "$(grep -c '^200$' "$work/statuses")"
[ "$(grep -vc '^200$' "$work/statuses")" = 0 ] || die "a request failed during the rotation"

say "9. What it cost, to the nano-dollar"
run 'vault read -field=total portkey/usage/team-a'
run 'vault read -field=rows portkey/usage/team-a'

say "10. A limit that can't be overspent: the virtual key has 0.00008 USD a month left to spend"
run "vault write portkey/roles/team-c key=llm models='$model' limits='usd=0.00008/month' limits='requests=100/minute' min_output_tokens=16"
vault policy write team-c-app - >/dev/null <<'END'
path "portkey/proxy/team-c/*" { capabilities = ["update"] }
END
APP_TOKEN=$(vault token create -policy=team-c-app -ttl=1h -field=token)
for _ in $(seq 20); do
	curl -s "$VAULT_ADDR/v1/portkey/proxy/team-c/v1/chat/completions" -H "Authorization: Bearer $APP_TOKEN" \
		-d "{\"model\":\"$model\",\"max_tokens\":40,\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}" >"$work/answer"
	grep -q budget_exceeded "$work/answer" && break
done
run "$(ask APP_TOKEN team-c "$model")" || true
expect budget_exceeded
run 'vault read -format=json -field=limits portkey/usage/team-c'

say "11. The gateway: a stream arrives token by token (the imitated provider takes 200 ms for each)"
for gateway in $(seq 18300 18360); do
	(exec 3<>"/dev/tcp/127.0.0.1/$gateway") 2>/dev/null || break
done
run "vault write portkey/config/gateway address=127.0.0.1:$gateway vault_address=\$VAULT_ADDR"
run 'vault write portkey/roles/team-d key=acme'
vault policy write team-d-app - >/dev/null <<'END'
path "portkey/proxy/team-d/*" { capabilities = ["update"] }
END
APP_TOKEN=$(vault token create -policy=team-d-app -ttl=1h -field=token)
GATEWAY=http://127.0.0.1:$gateway
export GATEWAY
# shellcheck disable=SC2016 # shown as typed
STREAM='-H "Authorization: Bearer $APP_TOKEN" -d '\''{"model":"up-stream:8:200","stream":true,"messages":[{"role":"user","content":"Count"}]}'\'
now() { echo "${EPOCHREALTIME:-$(date +%s).000000}" | sed 's/[.,]//; s/...$//'; } # in ms
# watch shows when each token of a stream arrives; they must not come all at once.
watch() {
	local began first='' last='' line token
	printf '  $ %s\n' "$1"
	began=$(now)
	while IFS= read -r line; do
		token=$(printf %s "$line" | sed -n 's/^data: .*"content":"\([^"]\{1,\}\)".*/\1/p')
		[ -n "$token" ] || continue
		last=$(now)
		first=${first:-$last}
		printf '    %5d ms  %s\n' $((last - began)) "$token"
	done < <(eval "$1")
	[ -n "$first" ] && [ $((last - first)) -ge 1000 ] || die "the stream did not arrive token by token"
}
watch "curl -sN \$GATEWAY/v1/portkey/proxy/team-d/v1/chat/completions $STREAM"

say "12. The same through Vault's own address: Vault sends the app on to the gateway, with a ticket for this one request"
watch "curl -sNL \$VAULT_ADDR/v1/portkey/proxy/team-d/v1/chat/completions $STREAM"

say "13. A leased key, for an app that can't hold a Vault token; revoked, it stops at once"
run 'vault read -format=json portkey/creds/team-a'
LEASED_KEY=$(sed -n 's/.*"api_key": "\(.*\)".*/\1/p' "$work/answer")
LEASE=$(sed -n 's/.*"lease_id": "\(.*\)".*/\1/p' "$work/answer")
export LEASED_KEY LEASE
# shellcheck disable=SC2016 # shown as typed
leased='curl -s $GATEWAY/v1/chat/completions -H "Authorization: Bearer $LEASED_KEY" -d '\''{"model":"'"$model"'","max_tokens":40,"messages":[{"role":"user","content":"Hi"}]}'\'
run "$leased"
expect '"chat.completion"'
# shellcheck disable=SC2016 # shown as typed
run 'vault lease revoke $LEASE'
for _ in $(seq 100); do # Vault revokes in the background
	eval "$leased" | grep -q credential_invalid && break
	sleep 0.1
done
run "$leased"
expect credential_invalid

say "14. A prompt template, on team B's virtual key: the app needs a policy on the template alone"
run "vault write portkey/prompts/greeting virtual_key=team-b model='$model' variables=name messages='[{\"role\":\"user\",\"content\":\"Say hello to {{name}}.\"}]'"
vault policy write greeting-app - >/dev/null <<'END'
path "portkey/prompts/greeting/completions" { capabilities = ["update"] }
END
APP_TOKEN=$(vault token create -policy=greeting-app -ttl=1h -field=token)
# shellcheck disable=SC2016 # shown as typed
run 'curl -s $GATEWAY/v1/prompts/greeting/completions -H "Authorization: Bearer $APP_TOKEN" -d '\''{"variables":{"name":"Ann"},"max_tokens":40}'\'
expect '"chat.completion"'
run "$(ask APP_TOKEN team-b "$model")"
expect 'permission denied'
run 'vault read -field=rows portkey/usage prompt=greeting group_by=prompt,model'

say "15. A provider key in use can't be deleted by accident"
refused 'vault delete portkey/keys/llm' 'team-a, team-b'

say "That was all. Next: make dev, and the tour in README.md"

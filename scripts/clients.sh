#!/usr/bin/env bash
# Installs the SDKs and packages that the tests use, pinned by the lock files:
# Node's beside its tests (Node finds packages no other way), Python's in a cache
# outside the repository. Prints the Python to use, and progress on stderr. The
# packages that want version 2 of openai have an environment inside the other:
# openai2/bin/python in the folder that has bin/python.
set -euo pipefail
cd "$(dirname "$0")/.."

cache=${PORTKEY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vault-plugin-secrets-portkey}/clients
# A change of a lock file gives a new place, so that an old one is never used.
hash_of() { cat "$@" | cksum | cut -d' ' -f1; }

for dir in test/clients/node test/prices; do
	node_hash=$(node --version)-$(hash_of "$dir/package.json" "$dir/package-lock.json")
	mark=$dir/node_modules/.complete
	if [ "$(cat "$mark" 2>/dev/null)" != "$node_hash" ]; then
		echo "Installing the Node packages of $dir …" >&2
		(cd "$dir" && npm ci --no-audit --no-fund --loglevel=error >&2)
		echo "$node_hash" >"$mark"
	fi
done

python=$cache/python-$(python3 -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])')-$(hash_of test/clients/python/requirements*.txt)
if [ ! -e "$python/.complete" ]; then
	echo "Installing the Python SDKs (once) …" >&2
	rm -rf "$python"
	for venv in "$python requirements.txt" "$python/openai2 requirements-openai2.txt"; do
		python3 -m venv "${venv% *}"
		"${venv% *}/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes \
			-r "test/clients/python/${venv##* }" >&2
	done
	touch "$python/.complete"
fi
echo "$python/bin/python"

#!/usr/bin/env bash
# Brings the servers that the tests start themselves: Azurite from npm into .cache/azurite, and Debian's OpenSSH,
# PostgreSQL 15 and Redis servers, and Prometheus's promtool. Installs what is missing, says what it does, and is done at
# once when all is there. None of them is left running, and none is started by the machine later.
set -euo pipefail
cd "$(dirname "$0")/.."

AZURITE=3.37.0
AZURITE_HOME=.cache/azurite

say() { echo "test servers: $*" >&2; }
missing=()

azurite_version() {
    sed -n 's/^ *"version": *"\([^"]*\)".*/\1/p' "$AZURITE_HOME/node_modules/azurite/package.json" 2>/dev/null | head -n 1
}

if [ "$(azurite_version)" != "$AZURITE" ]; then
    if command -v npm >/dev/null && command -v node >/dev/null; then
        say "installing azurite $AZURITE into $AZURITE_HOME"
        rm -rf "$AZURITE_HOME"
        mkdir -p "$AZURITE_HOME"
        npm install --prefix "$AZURITE_HOME" --no-save --no-package-lock --no-audit --no-fund --loglevel=error \
            "azurite@$AZURITE" >&2 || missing+=("azurite $AZURITE (npm failed)")
    else
        missing+=("azurite $AZURITE (needs Node.js with npm)")
    fi
fi

packages=()
[ -x /usr/sbin/sshd ] || command -v sshd >/dev/null || packages+=(openssh-server)
[ -x /usr/lib/postgresql/15/bin/postgres ] || packages+=(postgresql-15)
command -v redis-server >/dev/null || packages+=(redis-server)
command -v promtool >/dev/null || packages+=(prometheus)

if [ "${#packages[@]}" -gt 0 ]; then
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        missing+=("${packages[@]}")
    else
        say "installing ${packages[*]}"
        export DEBIAN_FRONTEND=noninteractive
        # The packages would start their services, now and at every boot: the tests start servers of their own.
        policy=/usr/sbin/policy-rc.d
        if [ ! -e "$policy" ]; then
            trap 'rm -f "$policy"' EXIT
            printf '#!/bin/sh\nexit 101\n' >"$policy"
            chmod 755 "$policy"
        fi
        apt-get update -qq >&2 || say "apt-get update failed; trying with the lists that are there"
        for package in "${packages[@]}"; do
            apt-get install -y -qq --no-install-recommends -o Dpkg::Options::=--force-confold "$package" >&2 ||
                missing+=("$package (apt-get failed)")
            unit=${package%-15}
            if command -v systemctl >/dev/null; then systemctl disable --quiet "${unit/openssh-server/ssh}" 2>/dev/null || true; fi
        done
    fi
fi

if [ "${#missing[@]}" -gt 0 ]; then
    for one in "${missing[@]}"; do say "missing: $one"; done
    say "install them by hand; without them their tests are skipped, and in CI (CI=true) they fail"
    if [ "${CI:-}" = true ]; then exit 1; fi
fi

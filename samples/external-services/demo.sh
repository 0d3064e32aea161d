#!/usr/bin/env bash
# Runs the mesh of this folder with stand-ins for its two sites, until Ctrl-C.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
lateen=${LATEEN:-$here/../../bin/lateen}
state=${STATE:-${TMPDIR:-/tmp}/lateen-demo-$(id -u)}
mkdir -p -m 0700 "$state"

pids=()
finish() {
  "$lateen" down --state "$state" >/dev/null 2>&1 || true
  [ "${#pids[@]}" -eq 0 ] || kill "${pids[@]}" 2>/dev/null || true
}
trap finish EXIT
trap 'exit 0' INT TERM

# httpbin.org has two addresses, as the real one.
"$lateen" sample httpbin --listen 127.0.80.1:80 --listen 127.0.80.2:80 & pids+=($!)
"$lateen" sample site --title 'CNN International - Breaking News, US News, World News and Video' \
  --tls-listen 127.0.80.3:443 --tls-name edition.cnn.com --ca "$state" & pids+=($!)

# The gateway looks for free ports once the stand-ins have theirs.
for address in 127.0.80.1/80 127.0.80.2/80 127.0.80.3/443; do
  for _ in $(seq 50); do
    (exec 3<>"/dev/tcp/$address") 2>/dev/null && break
    kill -0 "${pids[@]}" 2>/dev/null || exit 1
    sleep 0.1
  done
done

"$lateen" up --detach --state "$state" \
  --resolve httpbin.org=127.0.80.1,127.0.80.2 --resolve edition.cnn.com=127.0.80.3 \
  --set meshConfig.accessLogFile=/dev/stdout "$here"

port() { "$lateen" status --state "$state" -o json | tr -d ' \n' | sed -n "s/.*\"port\":$1,\"hostPort\":\([0-9]*\).*/\1/p"; }
http=$(port 80) https=$(port 443)
cat <<EOF

try:
  curl -i -H 'Host: httpbin.org' http://127.0.0.1:$http/status/418
  curl -s --cacert $state/testca.crt --resolve edition.cnn.com:$https:127.0.0.1 https://edition.cnn.com:$https | grep -o '<title>.*</title>'
  $lateen status --state $state

Ctrl-C ends the demo.
EOF
wait "${pids[0]}"

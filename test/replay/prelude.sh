# What several scenarios need. Each function brings about a state, whatever was before.

# bookinfo: namespace default is labelled and Bookinfo's six pods are ready.
bookinfo() {
  kubectl label namespace default istio-injection=enabled --overwrite &&
    kubectl apply -f samples/bookinfo/platform/kube/bookinfo.yaml &&
    kubectl wait deploy/{productpage-v1,details-v1,ratings-v1,reviews-v1,reviews-v2,reviews-v3} --for=condition=Available --timeout=25s
}

# ingress: Bookinfo is behind the gateway, whose address is in INGRESS_HOST, INGRESS_PORT and SECURE_INGRESS_PORT.
ingress() {
  kubectl apply -f samples/bookinfo/networking/bookinfo-gateway.yaml && address
}

address() {
  local service="kubectl -n istio-system get service istio-ingressgateway -o"
  export INGRESS_HOST=$($service jsonpath='{.status.loadBalancer.ingress[0].ip}')
  export INGRESS_PORT=$($service jsonpath='{.spec.ports[?(@.name=="http2")].port}')
  export SECURE_INGRESS_PORT=$($service jsonpath='{.spec.ports[?(@.name=="https")].port}')
  [ -n "$INGRESS_HOST" ]
}

# policy MODE: the mesh writes its access log, and sends what it does not know where MODE says.
policy() {
  istioctl install -y --set meshConfig.accessLogFile=/dev/stdout --set meshConfig.outboundTrafficPolicy.mode="$1"
}

# client: the pod in which the third article works.
client() {
  kubectl label namespace default istio-injection=enabled --overwrite &&
    kubectl apply -f client.yaml && kubectl rollout status deploy/ubuntu-deployment --timeout=25s
}
inside() { kubectl exec deploy/ubuntu-deployment -c ubuntu -- "$@"; }

# pages N [OPTION…]: N product pages, counted by what they show of the stars.
pages() {
  local n=$1
  shift
  curl -sS "$@" -w '\ncode %{http_code}\n' "http://$INGRESS_HOST:$INGRESS_PORT/productpage?[1-$n]" |
    awk '/color="red"/ { s = s "red" } /color="black"/ { s = s "black" } /product reviews are currently|Ratings service is/ { s = s "failed" }
      /^code / { sub(/(red)+/, "red", s); sub(/(black)+/, "black", s); n[$2 " " (s ? s : "no") " stars"]++; s = "" } END { for (k in n) print n[k], k }'
}

# load: pages are asked for until unload, which counts the status codes.
load() {
  rm -f stop
  for _ in $(seq 500); do
    [ -e stop ] && break
    curl -s -m 10 -o /dev/null -w '%{http_code}\n' "http://$INGRESS_HOST:$INGRESS_PORT/productpage?[1-5]"
  done >during 2>&1 </dev/null &
  echo $! >load.pid
}
unload() {
  touch stop
  while kill -0 "$(cat load.pid)" 2>/dev/null; do sleep 0.05; done
  sort during | uniq -c
}

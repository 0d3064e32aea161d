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
      /^code / { sub(/(red)+/, "red", s); sub(/(black)+/, "black", s); sub(/(failed)+/, "failed", s); n[$2 " " (s ? s : "no") " stars"]++; s = "" } END { for (k in n) print n[k], k }'
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

# once [OPTION…]: one product page: its status, what it shows of the stars, the seconds it took.
once() {
  curl -sS "$@" -w '\ncode %{http_code} %{time_total}\n' "http://$INGRESS_HOST:$INGRESS_PORT/productpage" |
    awk '/color="red"/ { s = "red" } /color="black"/ { s = "black" } /product reviews are currently|Ratings service is/ { s = "failed" }
      /^code / { print $2, s ? s : "no", "stars", $3 }'
}

# login NAME JAR: the product page knows who asks with the cookies of the jar.
login() {
  curl -sS -o /dev/null -w '%{http_code}\n' -c "$2" -d "username=$1&passwd=" "http://$INGRESS_HOST:$INGRESS_PORT/login"
}

# asked: how often reviews were asked for since mark, by version and by the name that was asked for.
asked() {
  for v in v1 v2; do
    kubectl logs -l app=reviews,version=$v -c istio-proxy --tail=-1 | grep -F 'inbound|9080||' | tail -n +$(($(cat "mark.$v" 2>/dev/null || echo 0) + 1)) |
      grep -oE '"reviews[^"]*:9080"' | tr -d '"' | sort | uniq -c | awk -v v=$v '{ print $1, v, $2 }'
  done
}
# mark: from now on. The proxies write their logs once a second, so it waits until none grows.
mark() {
  local v before
  for v in v1 v2; do
    touch mark.$v
    until before=$(cat mark.$v) && inbound $v >mark.$v && [ "$before" = "$(cat mark.$v)" ]; do sleep 1.5; done
  done
}
inbound() { kubectl logs -l app=reviews,version=$1 -c istio-proxy --tail=-1 | grep -cF 'inbound|9080||' || true; }

# overflows: how many requests the proxy of $FORTIO_POD has refused to let wait.
overflows() {
  kubectl exec "$FORTIO_POD" -c istio-proxy -- pilot-agent request GET stats |
    sed -n 's/^cluster\.outbound|9080|v1|productpage.*upstream_rq_pending_overflow: //p'
}
# share: how many of a hundred calls of the last command of fortio were answered with 503.
share() { sed -n 's/^Code 503 : [0-9]* (\([0-9]*\).*/\1/p' printed; }
# counted: whether the proxy has counted each of them since BEFORE.
counted() {
  local saw=$(sed -n 's/^Code 503 : \([0-9]*\) .*/\1/p' printed) grew=$(($(overflows) - BEFORE))
  echo "$saw of 503, $grew counted"
  [ "$saw" = "$grew" ] && echo as many
}

# egress: the gateways, routes and policies of the second article for the host my.example.com, whose
# certificate is in my.crt; the egress gateway is its own Deployment, by manifest generate, and
# trusts the authority of the sites.
egress() {
  kubectl create namespace httpbin --dry-run=client -o yaml | kubectl apply -f - &&
    openssl req -x509 -sha256 -nodes -days 365 -newkey rsa:2048 -subj /CN=my.example.com -addext subjectAltName=DNS:my.example.com -keyout my.key -out my.crt &&
    kubectl create -n istio-system secret tls my-credential --key=my.key --cert=my.crt --dry-run=client -o yaml | kubectl apply -f - &&
    kubectl create secret generic -n httpbin istio-egressgateway-ca-certs --from-file="$CA" --dry-run=client -o yaml | kubectl apply -f - &&
    istioctl manifest generate -f "$SCENARIOS/38-egress-gateway-manifest-generate/egress.yaml" | kubectl apply -f - &&
    kubectl patch deployment -n httpbin httpbin-egress --type=json -p '[{"op":"replace","path":"/spec/template/spec/containers/0/readinessProbe","value":{"httpGet":{"path":"/healthz/ready","port":15021},"periodSeconds":1}},
      {"op":"add","path":"/spec/template/spec/containers/0/env/-","value":{"name":"SSL_CERT_FILE","value":"/etc/istio/egressgateway-ca-certs/testca.crt"}}]' &&
    kubectl rollout status deployment -n httpbin httpbin-egress --timeout=40s &&
    my "$SCENARIOS/40-tls-secret-and-ingress-gateway/my-ingressgateway.yaml" | kubectl apply -f - &&
    for file in egress-gateway virtualservice serviceentry destinationrule peerauthentication; do
      my "$SCENARIOS/41-egress-gateway-routing/$file.yaml" | kubectl apply -f - || return
    done
}
# my FILE: with the names of this machine.
my() { sed 's/<my-proxied-service-hostname>/my.example.com/; s/<my-secret-name>/my-credential/' "$1"; }
noegress() {
  kubectl delete namespace httpbin --ignore-not-found
  my "$SCENARIOS/40-tls-secret-and-ingress-gateway/my-ingressgateway.yaml" | kubectl delete -f - --ignore-not-found
  kubectl delete secret -n istio-system my-credential --ignore-not-found
}

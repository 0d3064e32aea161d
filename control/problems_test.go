package control_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lateen-mesh/lateen/control"
	"github.com/lateen-mesh/lateen/wellknown"
)

// certificate makes a self-signed certificate that is valid until a time, and its key.
func certificate(t *testing.T, until time.Time) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: until.Add(-time.Hour), NotAfter: until, DNSNames: []string{"shop.test"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
}

func secret(name, cert, key string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: %s, namespace: istio-system}\ntype: kubernetes.io/tls\nstringData: {tls.crt: %q, tls.key: %q}\n", name, cert, key)
}

const tlsGateway = `
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: web, namespace: default}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 443, name: missing, protocol: HTTPS}
    tls: {mode: SIMPLE, credentialName: missing}
    hosts: [missing.test]
  - port: {number: 443, name: mismatch, protocol: HTTPS}
    tls: {mode: SIMPLE, credentialName: mismatch}
    hosts: [mismatch.test]
  - port: {number: 443, name: expired, protocol: HTTPS}
    tls: {mode: SIMPLE, credentialName: expired}
    hosts: [expired.test]
  - port: {number: 443, name: good, protocol: HTTPS}
    tls: {mode: SIMPLE, credentialName: good}
    hosts: [good.test]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: elsewhere, namespace: default}
spec:
  selector: {istio: egressgateway}
  servers:
  - port: {number: 443, name: missing, protocol: HTTPS}
    tls: {mode: SIMPLE, credentialName: missing}
    hosts: [missing.test]
`

func TestSecretProblems(t *testing.T) {
	expiry := time.Now().Add(-24 * time.Hour).Truncate(time.Second).UTC()
	good, goodKey := certificate(t, time.Now().Add(time.Hour))
	_, otherKey := certificate(t, time.Now().Add(time.Hour))
	expired, expiredKey := certificate(t, expiry)
	p := start(t, map[string]string{"gateway.yaml": tlsGateway, "secrets.yaml": secret("good", good, goodKey) + "---\n" +
		secret("mismatch", good, otherKey) + "---\n" + secret("expired", expired, expiredKey)}, nil)
	c := p.connect(wellknown.SecretType, nil, "kubernetes://missing", "kubernetes://mismatch", "kubernetes://expired", "kubernetes://good")
	given := text(t, c.next(""))
	for name, want := range map[string]bool{"missing": false, "mismatch": false, "expired": true, "good": true} {
		if got := strings.Contains(given, `"name":"kubernetes://`+name+`"`); got != want {
			t.Errorf("secret %s is given: %v, want %v", name, got, want)
		}
	}
	const hint = "the proxy gw reads Secrets of its own namespace, istio-system"
	place := filepath.Join(p.dir, "gateway.yaml") + ":2"
	want := []control.Problem{
		{Place: place, Object: "Gateway default/web", Field: "servers[0].tls.credentialName", Severity: "error",
			Message: "Secret istio-system/missing: not found", Hint: hint},
		{Place: place, Object: "Gateway default/web", Field: "servers[1].tls.credentialName", Severity: "error",
			Message: "Secret istio-system/mismatch: tls.crt and tls.key do not make a key pair: tls: private key does not match public key"},
		{Place: place, Object: "Gateway default/web", Field: "servers[2].tls.credentialName", Severity: "warning",
			Message: "secret kubernetes://expired: certificate expired on " + expiry.Format(time.RFC3339)},
	}
	t.Run("GW-014 status says which Gateway names a secret that is missing, does not match or is expired", func(t *testing.T) {
		if diff := cmp.Diff(want, p.server.Status().Problems); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("each is logged once", func(t *testing.T) {
		for _, pr := range want {
			wait(t, func() bool { return strings.Contains(p.log.String(), pr.Field) })
		}
		again := p.connect(wellknown.SecretType, nil, "kubernetes://missing")
		again.next("")
		p.write("secrets.yaml", secret("good", good, goodKey)) // now the others are missing
		wait(t, func() bool { return strings.Count(p.log.String(), "Secret istio-system/mismatch: not found") > 0 })
		if n := strings.Count(p.log.String(), want[0].Message); n != 1 {
			t.Errorf("%d lines for one problem", n)
		}
	})
	t.Run("a problem that is solved is shown no more", func(t *testing.T) {
		p.write("secrets.yaml", strings.Join([]string{secret("good", good, goodKey), secret("missing", good, goodKey),
			secret("mismatch", good, goodKey), secret("expired", good, goodKey)}, "---\n"))
		wait(t, func() bool { return len(p.server.Status().Problems) == 0 })
	})
}

func TestRuleProblems(t *testing.T) {
	const rules = `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: default}
spec:
  hosts: [httpbin.org]
  gateways: [web]
  http:
  - match: [{uri: {prefix: /a}}, {uri: {prefix: /b}}]
    headers: {response: {set: {x-a: "%NO_SUCH_COMMAND%"}}}
    directResponse: {status: 200}
  - match: [{uri: {prefix: /c}}]
    rewrite: {uriRegexRewrite: {match: "/(c)", rewrite: '/\2'}}
    route: [{destination: {host: c.test}}]
  - directResponse: {status: 200}
`
	service := strings.NewReplacer("name: b,", "name: c,", "b.example", "c.test").Replace(cluster)
	p := start(t, map[string]string{"gateway.yaml": gateway, "routes.yaml": rules, "service.yaml": service}, nil)
	has(t, "RDS", text(t, p.connect(wellknown.RouteType, nil, "http.80").next("")), `"directResponse":{"status":500}`)
	const prefix = "the rule cannot be used, requests that it matches are answered 500: "
	place := filepath.Join(p.dir, "routes.yaml") + ":2"
	want := []control.Problem{
		{Place: place, Object: "VirtualService default/web", Field: "http[0]", Severity: "error",
			Message: prefix + `header "x-a": "%NO_SUCH_COMMAND%" is not a format that proxies have: write a plain % as %%`},
		{Place: place, Object: "VirtualService default/web", Field: "http[1]", Severity: "error",
			Message: prefix + `rewrite "/\\2" names a group that "/(c)" does not have`},
	}
	if diff := cmp.Diff(want, p.server.Status().Problems); diff != "" {
		t.Error(diff)
	}
	wait(t, func() bool { return strings.Contains(p.log.String(), "http[1]") })
	p.write("routes.yaml", strings.Replace(rules, "NO_SUCH_COMMAND", "PROTOCOL", 1))
	wait(t, func() bool { return slices.Equal(p.server.Status().Problems, want[1:]) })
	p.write("routes.yaml", routes)
	wait(t, func() bool { return len(p.server.Status().Problems) == 0 })
	for _, pr := range want {
		if n := strings.Count(p.log.String(), pr.Field); n != 1 {
			t.Errorf("%d lines for %s", n, pr.Field)
		}
	}
}

func TestServersLeftOut(t *testing.T) {
	server := func(name string, servers ...string) string {
		return "---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: " + name + ", namespace: default}\n" +
			"spec:\n  selector: {istio: ingressgateway}\n  servers:\n  - " + strings.Join(servers, "\n  - ") + "\n"
	}
	p := start(t, map[string]string{"gateways.yaml": server("a", "{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}") +
		server("b", "{port: {number: 80, name: more, protocol: HTTP2}, hosts: [b.test]}", "{port: {number: 80, name: tcp, protocol: TCP}, hosts: ['*']}") +
		server("c", "{port: {number: 443, name: https, protocol: HTTPS}, tls: {mode: SIMPLE, credentialName: c}, hosts: [c.test]}") +
		server("d", "{port: {number: 443, name: https, protocol: HTTPS}, tls: {mode: SIMPLE, credentialName: d}, hosts: [d.test, c.test]}",
			"{port: {number: 443, name: plain, protocol: HTTP}, hosts: [d.test]}") +
		strings.Replace(server("e", "{port: {number: 80, name: tcp, protocol: TCP}, hosts: ['*']}"), "ingress", "egress", 1)}, nil)
	p.connect(wellknown.ListenerType, nil).next("")
	var got []string
	for _, pr := range p.server.Status().Problems {
		got = append(got, strings.ReplaceAll(pr.String(), p.dir+"/", ""))
	}
	want := []string{
		"warning: gateways.yaml:10: Gateway default/b: servers[1]: left out because of servers[0] of Gateway default/a: it has port 80 for HTTP",
		"warning: gateways.yaml:27: Gateway default/d: servers[0]: left out because of servers[0] of Gateway default/c: it has the host c.test of port 443 already",
		"warning: gateways.yaml:27: Gateway default/d: servers[1]: left out because of servers[0] of Gateway default/c: it has port 443 for HTTPS",
	}
	t.Run("GW-002 a server that cannot share its port is left out, and said to be", func(t *testing.T) {
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

package analyze_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lateen-mesh/lateen/control/analyze"
)

// pair is a certificate with its key, both PEM.
func pair(t *testing.T, template x509.Certificate) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(1)
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
}

// gatewayWith is a Gateway with one server, its secret, and more keys in it.
func gatewayWith(hosts, tls string, cert, key []byte, more string) string {
	encode := base64.StdEncoding.EncodeToString
	return fmt.Sprintf(`
apiVersion: v1
kind: Secret
metadata: {name: cred, namespace: istio-system}
type: kubernetes.io/tls
data: {tls.crt: %s, tls.key: %s%s}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front, namespace: one}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 443, name: https, protocol: HTTPS}
    hosts: %s
    tls: {%s}
`, encode(cert), encode(key), more, hosts, tls)
}

// TestCertificates judges what gateways show to clients.
func TestCertificates(t *testing.T) {
	now := time.Now()
	shop := x509.Certificate{DNSNames: []string{"shop.example.com", "*.shop.example.com"}}
	const secret = "mode: SIMPLE, credentialName: cred"
	for _, c := range []struct {
		name             string
		of               x509.Certificate
		hosts, tls, more string
		want             string // a part of the only message, "" is none
	}{
		{"SEC-001 of the hosts", shop, "[shop.example.com, one/a.shop.example.com, '*.shop.example.com']", secret, "", ""},
		{"every host", shop, "['*', './*']", secret, "", ""},
		{"a common name alone", x509.Certificate{Subject: pkix.Name{CommonName: "shop.example.com"}}, "[shop.example.com]", secret, "", ""},
		{"an address", x509.Certificate{IPAddresses: []net.IP{net.IPv4(192, 0, 2, 1)}}, "[192.0.2.1]", secret, "", ""},
		{"LAT0003 another host", shop, "[shop.example.com, cart.example.com]", secret, "",
			`Warning [LAT0003] (Gateway one/front in.yaml:15) servers[0].hosts[1]: no certificate of secret istio-system/cred is for the host "cart.example.com", but for *.shop.example.com, shop.example.com: `},
		{"LAT0003 a common name beside names", x509.Certificate{Subject: pkix.Name{CommonName: "a.example.com"}, DNSNames: []string{"b.example.com"}},
			"[a.example.com]", secret, "", `is for the host "a.example.com", but for b.example.com: `},
		{"LAT0003 a wildcard is one name deep", shop, "[a.b.shop.example.com]", secret, "", `is for the host "a.b.shop.example.com"`},
		{"LAT0003 a wildcard of one name", x509.Certificate{DNSNames: []string{"a.example.com"}}, "['*.example.com']", secret, "", `is for the host "*.example.com"`},
		{"LAT0004 too old", x509.Certificate{DNSNames: shop.DNSNames, NotBefore: now.Add(-48 * time.Hour), NotAfter: now.Add(-24 * time.Hour)}, "[shop.example.com]", secret, "",
			"Error [LAT0004] (Gateway one/front in.yaml:16) servers[0].tls: the certificate of secret istio-system/cred ended on "},
		{"LAT0004 too young", x509.Certificate{DNSNames: shop.DNSNames, NotBefore: now.Add(24 * time.Hour), NotAfter: now.Add(48 * time.Hour)}, "[shop.example.com]", secret, "", "begins on "},
		{"LAT0006 nobody to verify clients", shop, "[shop.example.com]", "mode: MUTUAL, credentialName: cred", "",
			"Error [LAT0006] (Gateway one/front in.yaml:16) servers[0].tls: mode MUTUAL has nothing to verify clients with: neither ca.crt or cacert in the secret istio-system/cred nor a secret cred-cacert."},
		{"clients are verified", shop, "[shop.example.com]", "mode: MUTUAL, credentialName: cred", ", ca.crt: YQ==", ""},
		{"nothing is read of a server that passes on", shop, "[a.example.com]", "mode: PASSTHROUGH", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			cert, key := pair(t, c.of)
			m := analyze.NewMesh(analyze.Options{Files: true})
			if problems := m.AddText("in.yaml", []byte(gatewayWith(c.hosts, c.tls, cert, key, c.more))); len(problems) > 0 {
				t.Fatal(problems)
			}
			var said []string
			for _, f := range m.Messages(analyze.Selection{Analyzers: []string{"gateway.CertificateFitAnalyzer"}}) {
				said = append(said, f.String())
			}
			if got := strings.Join(said, "\n"); c.want == "" && got != "" || !strings.Contains(got, c.want) || len(said) > 1 {
				t.Errorf("says:\n%s\nwant:\n%s", got, c.want)
			}
		})
	}
}

// TestCertificateFiles judges files as those of secrets, and pairs that are none.
func TestCertificateFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cert, key := pair(t, x509.Certificate{DNSNames: []string{"shop.example.com"}})
	_, other := pair(t, x509.Certificate{})
	certFile, keyFile, otherFile := write("cert.pem", cert), write("key.pem", key), write("other.pem", other)
	for _, c := range []struct{ name, host, key, want string }{
		{"a pair", "shop.example.com", keyFile, ""},
		{"LAT0003 another host", "cart.example.com", keyFile, `no certificate of ` + certFile + ` is for the host "cart.example.com", but for shop.example.com: `},
		{"LAT0005 another key", "shop.example.com", otherFile, "Error [LAT0005] (Gateway one/front in.yaml:16) servers[0].tls: " + certFile + " and " + otherFile + " are no pair of certificate and key: "},
		{"a file of another machine", "shop.example.com", filepath.Join(dir, "away.pem"), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := analyze.NewMesh(analyze.Options{Files: true, Partial: true, ReadFile: os.ReadFile})
			m.AddText("in.yaml", []byte(gatewayWith("["+c.host+"]", "mode: SIMPLE, serverCertificate: "+certFile+", privateKey: "+c.key, nil, nil, "")))
			var got string
			for _, f := range m.Messages(analyze.Selection{}) {
				got += f.String() + "\n"
			}
			if c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Errorf("says:\n%s\nwant:\n%s", got, c.want)
			}
		})
	}
}

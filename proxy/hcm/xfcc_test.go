package hcm

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"math/big"
	"net/url"
	"strings"
	"testing"
)

// TestClientCertElement: a client's certificate as x-forwarded-client-cert describes it.
func TestClientCertElement(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, _ := url.Parse("spiffe://cluster.local/ns/a/sa/b")
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "c", Organization: []string{"o\r\nx"}},
		URIs: []*url.URL{id}, DNSNames: []string{"d.test", "e.test\n"}}, &x509.Certificate{}, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	state := &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}
	sum := sha256.Sum256(der)
	hash := "Hash=" + hex.EncodeToString(sum[:])
	for _, c := range []struct {
		name  string
		x     xfcc
		local []string
		want  string
	}{
		{"the hash alone", xfcc{}, nil, hash},
		{"as Istio's sidecars", xfcc{subject: true, uri: true, dns: true}, []string{"spiffe://me"},
			"By=spiffe://me;" + hash + `;Subject="CN=c,O=o\0D\0Ax";URI=spiffe://cluster.local/ns/a/sa/b;DNS=d.test;DNS=e.test\0A`},
		{"the certificate itself", xfcc{cert: true}, nil, hash + `;Cert="` + escapedPEM(der) + `"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.x.element(state, c.local); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
	if text := escapedPEM(der); !strings.HasPrefix(text, "-----BEGIN%20CERTIFICATE-----%0A") || strings.ContainsAny(text, "+ /=\n") {
		t.Errorf("not escaped as Envoy does: %s", text)
	}
}

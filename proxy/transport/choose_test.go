package transport

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
)

// made issues a leaf with the key and extensions that a test needs.
func (a *authority) made(t testing.TB, public, private any, change func(*x509.Certificate)) (*x509.Certificate, *tlsv3.TlsCertificate) {
	t.Helper()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "leaf"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	change(tmpl)
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, public, a.key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return leaf, &tlsv3.TlsCertificate{
		CertificateChain: inline(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		PrivateKey:       inline(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})),
	}
}

func TestCertificateByNameAndKey(t *testing.T) {
	ca := newAuthority(t, "ca")
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, rsaA := ca.made(t, &key.PublicKey, key, func(c *x509.Certificate) { c.DNSNames = []string{"a.test"} })
	ecdsaA, wild := ca.issue(t, time.Hour, "a.test"), ca.issue(t, time.Hour, "*.wild.test")
	context := downstream(rsaA, nil)
	context.CommonTlsContext.TlsCertificates = append(context.CommonTlsContext.TlsCertificates, ecdsaA, wild)
	s := serverSocket(t, context)
	full := downstream(rsaA, nil)
	full.CommonTlsContext.TlsCertificates = append(full.CommonTlsContext.TlsCertificates, ecdsaA)
	full.FullScanCertsOnSniMismatch = wrapTrue
	scans := serverSocket(t, full)
	onlyRSA := []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	for _, c := range []struct {
		name, sni string
		socket    ServerSocket
		ciphers   []uint16
		ecdsa     bool
		dns       string
	}{
		{"a client that can check both gets ECDSA", "a.test", s, nil, true, "a.test"},
		{"names have no case", "A.test", s, nil, true, "a.test"},
		{"a client that knows RSA alone gets RSA", "a.test", s, onlyRSA, false, "a.test"},
		{"a wildcard", "one.wild.test", s, nil, true, "*.wild.test"},
		{"a wildcard covers one label", "one.two.wild.test", s, nil, false, "a.test"},
		{"a name that nobody has gets the first", "b.test", s, nil, false, "a.test"},
		{"no name gets the first", "", s, nil, false, "a.test"},
		{"no name where all are looked at gets the best key", "", scans, nil, true, "a.test"},
	} {
		t.Run(c.name, func(t *testing.T) {
			rawC, rawS := sockets(t)
			go func() {
				if conn, err := c.socket.Accept(t.Context(), rawS, nil); err == nil {
					_ = conn.Close()
				}
			}()
			config := &tls.Config{ServerName: c.sni, InsecureSkipVerify: true, CipherSuites: c.ciphers}
			if c.ciphers != nil {
				config.MaxVersion = tls.VersionTLS12
			}
			conn := tls.Client(rawC, config)
			if err := conn.Handshake(); err != nil {
				t.Fatal(err)
			}
			leaf := conn.ConnectionState().PeerCertificates[0]
			if _, ok := leaf.PublicKey.(*ecdsa.PublicKey); ok != c.ecdsa || leaf.DNSNames[0] != c.dns {
				t.Errorf("got %T of %v", leaf.PublicKey, leaf.DNSNames)
			}
		})
	}
}

// ocspFor is an unsigned OCSP response: what is looked at is the peer's to check.
func ocspFor(t testing.TB, leaf *x509.Certificate, next time.Time) []byte {
	t.Helper()
	at := time.Now().UTC().Truncate(time.Second)
	sum := pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}}
	basic, err := asn1.Marshal(ocspBasic{
		Data: ocspData{
			Responder: asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 2, IsCompound: true, Bytes: []byte{4, 1, 0}}, At: at,
			Responses: []ocspSingle{{ID: ocspID{Hash: sum, IssuerName: []byte{1}, Issue: []byte{1}, Serial: leaf.SerialNumber},
				Status: asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0}, ThisUpdate: at, NextUpdate: next.UTC().Truncate(time.Second)}},
		},
		Algorithm: sum, Signature: asn1.BitString{Bytes: []byte{0}, BitLength: 8},
	})
	if err != nil {
		t.Fatal(err)
	}
	der, err := asn1.Marshal(ocspResponse{Bytes: ocspBytes{Kind: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 1}, Response: basic}})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestStaples(t *testing.T) {
	ca := newAuthority(t, "ca")
	must := pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}, Value: []byte{0x30, 3, 2, 1, 5}}
	issue := func(next time.Duration, must ...pkix.Extension) *tlsv3.TlsCertificate {
		leaf, cert := ca.made(t, &ca.key.PublicKey, ca.key, func(c *x509.Certificate) { c.DNSNames, c.ExtraExtensions = []string{"a.test"}, must })
		if next != 0 {
			cert.OcspStaple = inline(ocspFor(t, leaf, time.Now().Add(next)))
		}
		return cert
	}
	const lenient, strict, always = tlsv3.DownstreamTlsContext_LENIENT_STAPLING, tlsv3.DownstreamTlsContext_STRICT_STAPLING, tlsv3.DownstreamTlsContext_MUST_STAPLE
	for _, c := range []struct {
		name   string
		cert   *tlsv3.TlsCertificate
		policy tlsv3.DownstreamTlsContext_OcspStaplePolicy
		refuse string // of the configuration
		fails  bool   // the handshake
		staple bool
	}{
		{"a staple is shown", issue(time.Hour), lenient, "", false, true},
		{"one that has expired is not", issue(-time.Hour), lenient, "", false, false},
		{"no staple", issue(0), strict, "", false, false},
		{"one that has expired does not serve where strictness is asked for", issue(-time.Hour), strict, "", true, false},
		{"no staple where there must be one", issue(0), always, "common_tls_context.tls_certificates: required OCSP response is missing from TLS context", false, false},
		{"a certificate that must have one", issue(0, must), lenient, "common_tls_context.tls_certificates[0]: ocsp_staple: OCSP response is required for must-staple certificate", false, false},
		{"and has", issue(time.Hour, must), lenient, "", false, true},
		{"and has one that has expired", issue(-time.Hour, must), lenient, "", true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			context := downstream(c.cert, nil)
			context.OcspStaplePolicy = c.policy
			s, err := DecodeDownstreamTLS(context, Env{})
			if err != nil || c.refuse != "" {
				if err == nil || err.Error() != c.refuse {
					t.Errorf("got %v, want %s", err, c.refuse)
				}
				return
			}
			defer s.Close()
			client, _, clientErr, _ := shake(t, s, clientSocket(t, upstreamTLS(nil, nil)), Target{SNI: "a.test"})
			if (clientErr != nil) != c.fails {
				t.Fatal(clientErr)
			}
			if clientErr == nil && (len(client.TLS().OCSPResponse) > 0) != c.staple {
				t.Errorf("staple of %d bytes", len(client.TLS().OCSPResponse))
			}
		})
	}
}

func FuzzStaple(f *testing.F) {
	ca := newAuthority(f, "ca")
	f.Add(ocspFor(f, ca.cert, time.Now()))
	f.Fuzz(func(t *testing.T, der []byte) {
		if s, err := compileStaple(der, ca.cert); err == nil && s.action(0, true, s.expires.Add(time.Second)) == stapled && !s.expires.IsZero() {
			t.Errorf("%x is shown after its end", der)
		}
	})
}

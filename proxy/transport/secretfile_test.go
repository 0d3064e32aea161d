package transport

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
)

// TestSecretOfFiles: a certificate that is renewed in its files serves the next handshake
// and leaves open connections alone.
func TestSecretOfFiles(t *testing.T) {
	ca, dir := newAuthority(t, "ca"), t.TempDir()
	put := func(name string, data []byte) {
		t.Helper()
		next := filepath.Join(dir, name+".next")
		if err := os.WriteFile(next, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	renew := func(name string) {
		cert := ca.issue(t, time.Hour, name)
		put("key.pem", cert.GetPrivateKey().GetInlineBytes())
		put("cert.pem", cert.GetCertificateChain().GetInlineBytes())
	}
	renew("old.test")
	file := func(name string) *corev3.DataSource {
		return &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: filepath.Join(dir, name)}}
	}
	secrets, srv := sds(t)
	srv.Set("default", certificate("default", &tlsv3.TlsCertificate{CertificateChain: file("cert.pem"), PrivateKey: file("key.pem")}))
	s := sdsServer(t, secrets)
	<-s.Ready()
	up := clientSocket(t, upstreamTLS(nil, nil))
	shown := func() (string, Conn, Conn) {
		client, server, err, _ := shake(t, s, up, Target{SNI: "a.test"})
		if err != nil {
			t.Fatal(err)
		}
		return client.TLS().PeerCertificates[0].DNSNames[0], client, server
	}
	name, client, server := shown()
	if name != "old.test" {
		t.Error(name)
	}
	renew("new.test")
	for end := time.Now().Add(10 * time.Second); name != "new.test"; name, _, _ = shown() {
		if time.Now().After(end) {
			t.Fatal("still shows", name)
		}
	}
	go func() { _, _ = server.Write([]byte("x")) }()
	if _, err := client.Read(make([]byte, 1)); err != nil {
		t.Error("the open connection:", err)
	}
}

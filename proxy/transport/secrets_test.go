package transport

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lateen-mesh/lateen/proxy/xds"
	"github.com/lateen-mesh/lateen/proxy/xds/xdstest"
	"github.com/lateen-mesh/lateen/wellknown"
)

// sds returns a store that asks a management server of the test.
func sds(t *testing.T) (*Secrets, *xdstest.Server) {
	t.Helper()
	srv := xdstest.New(t)
	client := xds.New(xds.Options{Dial: srv.Dial, Service: xds.Secrets, Delta: true, Logger: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); client.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return NewSecrets(func(*corev3.ConfigSource) (*xds.Client, error) { return client, nil }), srv
}

func byName(name string) *tlsv3.SdsSecretConfig {
	return &tlsv3.SdsSecretConfig{Name: name, SdsConfig: &corev3.ConfigSource{InitialFetchTimeout: durationpb.New(0)}}
}

func certificate(name string, c *tlsv3.TlsCertificate) *tlsv3.Secret {
	return &tlsv3.Secret{Name: name, Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: c}}
}

func rootSecret(name string, a *authority) *tlsv3.Secret {
	return &tlsv3.Secret{Name: name, Type: &tlsv3.Secret_ValidationContext{ValidationContext: roots(a)}}
}

func sdsServer(t *testing.T, s *Secrets) ServerSocket {
	t.Helper()
	socket, err := DecodeDownstreamTLS(&tlsv3.DownstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{
		TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{byName("default")}}}, Env{Secrets: s})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(socket.Close)
	return socket
}

func sdsClient(t *testing.T, s *Secrets, san string) ClientSocket {
	t.Helper()
	base := &tlsv3.CertificateValidationContext{}
	if san != "" {
		base.MatchTypedSubjectAltNames = []*tlsv3.SubjectAltNameMatcher{exactSAN(tlsv3.SubjectAltNameMatcher_DNS, san)}
	}
	socket, err := DecodeUpstreamTLS(&tlsv3.UpstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{
		ValidationContextType: &tlsv3.CommonTlsContext_CombinedValidationContext{CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
			DefaultValidationContext: base, ValidationContextSdsSecretConfig: byName("ROOTCA")}}}}, Env{Secrets: s})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(socket.Close)
	return socket
}

// A socket is ready when its secrets have come; a new certificate and a new root serve
// the next handshake, and connections live on.
func TestRotation(t *testing.T) {
	store, srv := sds(t)
	old, fresh := newAuthority(t, "old"), newAuthority(t, "fresh")
	server, client := sdsServer(t, store), sdsClient(t, store, "a")
	select {
	case <-server.Ready():
		t.Fatal("ready without its certificate")
	default:
	}
	_, rawS := sockets(t)
	if _, err := server.Accept(t.Context(), rawS, nil); err == nil || !strings.Contains(err.Error(), "secret is not supplied by SDS: default") {
		t.Fatalf("accepted without a certificate: %v", err)
	}
	srv.Set("default", certificate("default", old.issue(t, time.Hour, "a")))
	srv.Set("ROOTCA", rootSecret("ROOTCA", old))
	<-server.Ready()
	<-client.Ready()
	c1, s1, cerr, serr := shake(t, server, client, Target{})
	if cerr != nil || serr != nil {
		t.Fatal(cerr, serr)
	}
	n := len(srv.Requests(wellknown.SecretType))
	srv.Set("default", certificate("default", fresh.issue(t, time.Hour, "a")))
	srv.Await(t, wellknown.SecretType, n, func(r xdstest.Request) bool { return r.Nonce != "" && r.Error == nil })
	if _, _, cerr, _ := shake(t, server, client, Target{}); cerr == nil {
		t.Error("the old root vouches for the new certificate")
	}
	n = len(srv.Requests(wellknown.SecretType))
	srv.Set("ROOTCA", rootSecret("ROOTCA", fresh))
	srv.Await(t, wellknown.SecretType, n, func(r xdstest.Request) bool { return r.Nonce != "" && r.Error == nil })
	if _, _, cerr, serr := shake(t, server, client, Target{}); cerr != nil || serr != nil {
		t.Errorf("with the new root: %v, %v", cerr, serr)
	}
	go func() { _, _ = s1.Write([]byte("x")) }()
	if _, err := c1.Read(make([]byte, 1)); err != nil {
		t.Errorf("the first connection: %v", err)
	}
}

// A root comes while a handshake is under way, and with it the peer's certificate of that root.
func TestRotationMeanwhile(t *testing.T) {
	old, fresh := newAuthority(t, "old"), newAuthority(t, "fresh")
	shown, err := compileCertificate(fresh.issue(t, time.Hour, "a"))
	if err != nil {
		t.Fatal(err)
	}
	// start returns a store that trusts the old root, and what has it trust the new one.
	start := func(t *testing.T) (*Secrets, func() (*tls.Certificate, error)) {
		store, srv := sds(t)
		srv.Set("ROOTCA", rootSecret("ROOTCA", old))
		return store, func() (*tls.Certificate, error) {
			srv.Set("ROOTCA", rootSecret("ROOTCA", fresh))
			srv.Settle(t, wellknown.SecretType)
			return shown, nil
		}
	}
	t.Run("of a server", func(t *testing.T) {
		store, next := start(t)
		client := sdsClient(t, store, "a")
		<-client.Ready()
		rawC, rawS := sockets(t)
		peer := tls.Server(rawS, &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return next() }, MinVersion: tls.VersionTLS12})
		go func() { _ = peer.HandshakeContext(t.Context()) }()
		if _, err := client.Connect(t.Context(), rawC, Target{}); err != nil {
			t.Error(err)
		}
	})
	t.Run("of a client", func(t *testing.T) {
		store, next := start(t)
		server, err := DecodeDownstreamTLS(&tlsv3.DownstreamTlsContext{RequireClientCertificate: wrapperspb.Bool(true), CommonTlsContext: &tlsv3.CommonTlsContext{
			TlsCertificates:       []*tlsv3.TlsCertificate{old.issue(t, time.Hour, "b")},
			ValidationContextType: &tlsv3.CommonTlsContext_ValidationContextSdsSecretConfig{ValidationContextSdsSecretConfig: byName("ROOTCA")}}}, Env{Secrets: store})
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		<-server.Ready()
		rawC, rawS := sockets(t)
		peer := tls.Client(rawC, &tls.Config{GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return next() },
			InsecureSkipVerify: true, MinVersion: tls.VersionTLS12})
		go func() { _ = peer.HandshakeContext(t.Context()) }()
		if _, err := server.Accept(t.Context(), rawS, nil); err != nil {
			t.Error(err)
		}
	})
}

// Names of the default context and roots of the secret are checked together.
func TestCombinedValidation(t *testing.T) {
	store, srv := sds(t)
	ca := newAuthority(t, "ca")
	srv.Set("default", certificate("default", ca.issue(t, time.Hour, "a")))
	srv.Set("ROOTCA", rootSecret("ROOTCA", ca))
	server, client := sdsServer(t, store), sdsClient(t, store, "b")
	<-server.Ready()
	<-client.Ready()
	if _, _, err, _ := shake(t, server, client, Target{}); err == nil || !strings.Contains(err.Error(), "SAN matcher, certificate SANs are [a]") {
		t.Errorf("another name is accepted: %v", err)
	}
}

// A certificate that does not match its key is refused by name; what was in force stays.
func TestRefusedSecret(t *testing.T) {
	store, srv := sds(t)
	ca := newAuthority(t, "ca")
	good, other := ca.issue(t, time.Hour, "a"), ca.issue(t, time.Hour, "a")
	srv.Set("default", certificate("default", good))
	server := sdsServer(t, store)
	<-server.Ready()
	srv.Set("default", certificate("default", &tlsv3.TlsCertificate{CertificateChain: good.CertificateChain, PrivateKey: other.PrivateKey}))
	nack := srv.Await(t, wellknown.SecretType, 0, func(r xdstest.Request) bool { return r.Error != nil })
	if m := nack.Error.GetMessage(); !strings.HasPrefix(m, "default: tls_certificate: failed to load certificate chain") {
		t.Errorf("NACK %q", m)
	}
	if _, _, cerr, serr := shake(t, server, clientSocket(t, upstreamTLS(nil, roots(ca))), Target{}); cerr != nil || serr != nil {
		t.Errorf("the last good certificate does not serve: %v, %v", cerr, serr)
	}
}

// One secret is asked for once, and given up with its last socket.
func TestShared(t *testing.T) {
	store, srv := sds(t)
	ca := newAuthority(t, "ca")
	srv.Set("ROOTCA", rootSecret("ROOTCA", ca))
	a, b := sdsClient(t, store, "a"), sdsClient(t, store, "b")
	<-a.Ready()
	<-b.Ready()
	if v := store.View(); len(v) != 1 || !v[0].Ready || !v[0].Dynamic || !v[0].Validation {
		t.Errorf("view is %+v", v)
	}
	a.Close()
	a.Close()
	b.Close()
	srv.Await(t, wellknown.SecretType, 0, func(r xdstest.Request) bool { return len(r.Unsubscribe) == 1 })
	if v := store.View(); len(v) != 0 {
		t.Errorf("after the last socket: %+v", v)
	}
}

func TestStaticSecret(t *testing.T) {
	store := NewSecrets(nil)
	ca := newAuthority(t, "ca")
	if err := store.AddStatic(certificate("server", ca.issue(t, time.Hour, "a"))); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"server": "<nil>", "other": "common_tls_context.tls_certificate_sds_secret_configs[0]: unknown static secret: other"} {
		s, err := DecodeDownstreamTLS(&tlsv3.DownstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{
			TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{{Name: name}}}}, Env{Secrets: store})
		if fmt.Sprint(err) != want {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
		if err == nil {
			<-s.Ready()
			s.Close()
		}
	}
}

// TestSecretsShown: pages see chains and roots, and never a key.
func TestSecretsShown(t *testing.T) {
	store := NewSecrets(nil)
	ca := newAuthority(t, "ca")
	given := certificate("server", ca.issue(t, time.Hour, "a"))
	tickets := &tlsv3.Secret{Name: "tickets", Type: &tlsv3.Secret_SessionTicketKeys{SessionTicketKeys: &tlsv3.TlsSessionTicketKeys{
		Keys: []*corev3.DataSource{{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: make([]byte, 80)}}}}}}
	for _, s := range []*tlsv3.Secret{given, rootSecret("trusted", ca), tickets} {
		if err := store.AddStatic(s); err != nil {
			t.Fatal(err)
		}
	}
	views := map[string]SecretView{}
	for _, v := range store.View() {
		views[v.Name] = v
	}
	server, trusted := views["server"], views["trusted"]
	if len(server.Certificates) != 1 || server.Certificates[0].Issuer.CommonName != "ca" || server.Validation {
		t.Errorf("server: %+v", server)
	}
	if len(trusted.Certificates) != 1 || trusted.Certificates[0].Subject.CommonName != "ca" || !trusted.Validation || trusted.Source.GetValidationContext().GetTrustedCa() == nil {
		t.Errorf("trusted: %+v", trusted)
	}
	if got := string(server.Source.GetTlsCertificate().GetPrivateKey().GetInlineBytes()); got != "[redacted]" {
		t.Errorf("the key is shown as %q", got)
	}
	if got := string(views["tickets"].Source.GetSessionTicketKeys().GetKeys()[0].GetInlineBytes()); got != "[redacted]" {
		t.Errorf("the key of tickets is shown as %q", got)
	}
	if strings.Contains(given.GetTlsCertificate().GetPrivateKey().String(), "redacted") {
		t.Error("the secret itself has lost its key")
	}
}

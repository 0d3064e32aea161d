package transport

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/url"
	"slices"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// authority is a certificate authority of a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// issue returns chain and key of a leaf; names with "://" are URIs. A negative life is expired.
func (a *authority) issue(t testing.TB, life time.Duration, names ...string) *tlsv3.TlsCertificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: new(big.Int).SetInt64(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "leaf"},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(life),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, n := range names {
		if u, err := url.Parse(n); err == nil && u.Scheme != "" {
			tmpl.URIs = append(tmpl.URIs, u)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return &tlsv3.TlsCertificate{
		CertificateChain: inline(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		PrivateKey:       inline(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})),
	}
}

func inline(b []byte) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: b}}
}

func roots(a *authority) *tlsv3.CertificateValidationContext {
	return &tlsv3.CertificateValidationContext{TrustedCa: inline(a.pem)}
}

func exactSAN(kind tlsv3.SubjectAltNameMatcher_SanType, value string) *tlsv3.SubjectAltNameMatcher {
	return &tlsv3.SubjectAltNameMatcher{SanType: kind, Matcher: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: value}}}
}

func downstream(cert *tlsv3.TlsCertificate, v *tlsv3.CertificateValidationContext) *tlsv3.DownstreamTlsContext {
	c := &tlsv3.DownstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{TlsCertificates: []*tlsv3.TlsCertificate{cert}}}
	if v != nil {
		c.CommonTlsContext.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: v}
	}
	return c
}

func upstreamTLS(cert *tlsv3.TlsCertificate, v *tlsv3.CertificateValidationContext) *tlsv3.UpstreamTlsContext {
	c := &tlsv3.UpstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{
		TlsParams: &tlsv3.TlsParameters{TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3}}}
	if cert != nil {
		c.CommonTlsContext.TlsCertificates = []*tlsv3.TlsCertificate{cert}
	}
	if v != nil {
		c.CommonTlsContext.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: v}
	}
	return c
}

func serverSocket(t testing.TB, c *tlsv3.DownstreamTlsContext) ServerSocket {
	t.Helper()
	s, err := DecodeDownstreamTLS(c, Env{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func clientSocket(t testing.TB, c *tlsv3.UpstreamTlsContext) ClientSocket {
	t.Helper()
	s, err := DecodeUpstreamTLS(c, Env{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// sockets returns both ends of a TCP connection.
func sockets(t testing.TB) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

// shake does both sides of a handshake and one byte each way: in TLS 1.3 the client is
// ready before the server has judged its certificate.
func shake(t testing.TB, s ServerSocket, c ClientSocket, target Target) (client, server Conn, clientErr, serverErr error) {
	t.Helper()
	rawC, rawS := sockets(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if server, serverErr = s.Accept(t.Context(), rawS, nil); serverErr == nil {
			_, _ = server.Write([]byte{1})
		}
	}()
	if client, clientErr = c.Connect(t.Context(), rawC, target); clientErr == nil {
		if _, err := io.ReadFull(client, make([]byte, 1)); err != nil {
			clientErr = handshakeError(err)
		}
	}
	<-done
	return client, server, clientErr, serverErr
}

func TestHandshake(t *testing.T) {
	ca, other := newAuthority(t, "ca"), newAuthority(t, "other")
	const id = "spiffe://cluster.local/ns/a/sa/b"
	cert, expired := ca.issue(t, time.Hour, "www.example.com", "*.wild.example", id), ca.issue(t, -time.Hour, "www.example.com")
	withRoot := ca.issue(t, time.Hour, "www.example.com")
	withRoot.CertificateChain = inline(append(withRoot.GetCertificateChain().GetInlineBytes(), ca.pem...))
	pkcs8, err := x509.MarshalPKCS8PrivateKey(ca.key)
	if err != nil {
		t.Fatal(err)
	}
	itself := &tlsv3.TlsCertificate{CertificateChain: inline(ca.pem), PrivateKey: inline(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))}
	const uri, dnsName = tlsv3.SubjectAltNameMatcher_URI, tlsv3.SubjectAltNameMatcher_DNS
	with := func(v *tlsv3.CertificateValidationContext, sans ...*tlsv3.SubjectAltNameMatcher) *tlsv3.CertificateValidationContext {
		v.MatchTypedSubjectAltNames = sans
		return v
	}
	require := func(c *tlsv3.DownstreamTlsContext) *tlsv3.DownstreamTlsContext {
		c.RequireClientCertificate = wrapperspb.Bool(true)
		return c
	}
	const verify = "TLS_error:|268435581:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:"
	for _, c := range []struct {
		name   string
		server *tlsv3.DownstreamTlsContext
		client *tlsv3.UpstreamTlsContext
		target Target
		reason string // of the client's failure, "" when the handshake succeeds
	}{
		{"no validation context verifies nothing", downstream(expired, nil), upstreamTLS(nil, nil), Target{}, ""},
		{"trusted root", downstream(cert, nil), upstreamTLS(nil, roots(ca)), Target{}, ""},
		{"unknown root", downstream(cert, nil), upstreamTLS(nil, roots(other)), Target{},
			verify + "verify cert failed: X509_verify_cert: certificate verification error at depth 0: unable to get local issuer certificate:TLS_error_end"},
		{"unknown root that comes along", downstream(withRoot, nil), upstreamTLS(nil, roots(other)), Target{},
			verify + "verify cert failed: X509_verify_cert: certificate verification error at depth 1: self signed certificate in certificate chain:TLS_error_end"},
		{"a certificate that nobody signed", downstream(itself, nil), upstreamTLS(nil, roots(other)), Target{},
			verify + "verify cert failed: X509_verify_cert: certificate verification error at depth 0: self signed certificate:TLS_error_end"},
		{"expired", downstream(expired, nil), upstreamTLS(nil, roots(ca)), Target{},
			verify + "verify cert failed: X509_verify_cert: certificate verification error at depth 0: certificate has expired:TLS_error_end"},
		{"expired but allowed", downstream(expired, nil), upstreamTLS(nil, &tlsv3.CertificateValidationContext{TrustedCa: inline(ca.pem), AllowExpiredCertificate: true}), Target{}, ""},
		{"untrusted but accepted", downstream(cert, nil), upstreamTLS(nil, &tlsv3.CertificateValidationContext{
			TrustedCa: inline(other.pem), TrustChainVerification: tlsv3.CertificateValidationContext_ACCEPT_UNTRUSTED}), Target{}, ""},
		{"SX-015 the identity of the server", downstream(cert, nil), upstreamTLS(nil, with(roots(ca), exactSAN(uri, id))), Target{}, ""},
		{"SX-015 another identity", downstream(cert, nil), upstreamTLS(nil, with(roots(ca), exactSAN(uri, id+"c"))), Target{},
			verify + "verify cert failed: SAN matcher, certificate SANs are [www.example.com, *.wild.example, spiffe://cluster.local/ns/a/sa/b]:TLS_error_end"},
		{"one of several names", downstream(cert, nil), upstreamTLS(nil, with(roots(ca), exactSAN(uri, "x"), exactSAN(dnsName, "www.example.com"))), Target{}, ""},
		{"a wildcard certificate", downstream(cert, nil), upstreamTLS(nil, with(roots(ca), exactSAN(dnsName, "a.wild.example"))), Target{}, ""},
		{"a URI where DNS is asked", downstream(cert, nil), upstreamTLS(nil, with(roots(ca), exactSAN(dnsName, id))), Target{},
			verify + "verify cert failed: SAN matcher, certificate SANs are [www.example.com, *.wild.example, spiffe://cluster.local/ns/a/sa/b]:TLS_error_end"},
		{"the name that was asked for", downstream(cert, nil), upstreamTLS(nil, roots(ca)), Target{SNI: "www.example.com", VerifySNI: true}, ""},
		{"not the name that was asked for", downstream(cert, nil), upstreamTLS(nil, roots(ca)), Target{SNI: "api.example.com", VerifySNI: true},
			verify + "verify cert failed: verify SAN list, expected SANs: [api.example.com], certificate SANs: [www.example.com, *.wild.example, spiffe://cluster.local/ns/a/sa/b]:TLS_error_end"},
		{"mutual", require(downstream(cert, with(roots(ca), exactSAN(uri, id)))), upstreamTLS(cert, roots(ca)), Target{}, ""},
		{"no client certificate", require(downstream(cert, roots(ca))), upstreamTLS(nil, roots(ca)), Target{},
			"TLS_error:|268436572:SSL routines:OPENSSL_internal:TLSV1_ALERT_CERTIFICATE_REQUIRED:TLS_error_end"},
		{"client certificate of another root", require(downstream(cert, roots(other))), upstreamTLS(cert, roots(ca)), Target{},
			"TLS_error:|268436498:SSL routines:OPENSSL_internal:SSLV3_ALERT_BAD_CERTIFICATE:TLS_error_end"},
		{"client certificate not required", downstream(cert, roots(other)), upstreamTLS(nil, roots(ca)), Target{}, ""},
		{"versions that do not meet", downstream(cert, nil), &tlsv3.UpstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{
			TlsParams: &tlsv3.TlsParameters{TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_1, TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_1}}}, Target{},
			"TLS_error:|268436526:SSL routines:OPENSSL_internal:TLSV1_ALERT_PROTOCOL_VERSION:TLS_error_end"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err, _ := shake(t, serverSocket(t, c.server), clientSocket(t, c.client), c.target)
			var failed *Error
			switch {
			case c.reason == "" && err != nil:
				t.Fatalf("failed: %v (%v)", err, errors.Unwrap(err))
			case c.reason != "" && (!errors.As(err, &failed) || failed.Reason != c.reason):
				t.Fatalf("reason %v, want %s", err, c.reason)
			}
		})
	}
}

func TestALPN(t *testing.T) {
	ca := newAuthority(t, "ca")
	for _, c := range []struct {
		name                     string
		server, unspoken, client []string
		want                     string
	}{
		{"the first of the server's that the client has", []string{"h2", "http/1.1"}, nil, []string{"http/1.1", "h2"}, "h2"},
		{"without what is not spoken", []string{"h2", "http/1.1"}, []string{"h2"}, []string{"h2", "http/1.1"}, "http/1.1"},
		{"none in common is no failure", []string{"h2", "http/1.1"}, nil, []string{"istio"}, ""},
		{"client without", []string{"h2"}, nil, nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := downstream(ca.issue(t, time.Hour, "a"), nil)
			d.CommonTlsContext.AlpnProtocols = c.server
			s, err := DecodeDownstreamTLS(d, Env{Unspoken: c.unspoken})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			u := upstreamTLS(nil, nil)
			u.CommonTlsContext.AlpnProtocols = c.client
			client, server, cerr, serr := shake(t, s, clientSocket(t, u), Target{})
			if cerr != nil || serr != nil {
				t.Fatal(cerr, serr)
			}
			if got := client.TLS().NegotiatedProtocol; got != c.want || server.TLS().NegotiatedProtocol != c.want {
				t.Errorf("negotiated %q, want %q", got, c.want)
			}
		})
	}
}

// TestKeyExchange: two proxies of ours agree on keys that a later quantum computer does not find
// (X25519MLKEM768), unless the configuration says otherwise; those that lack it agree on another.
func TestKeyExchange(t *testing.T) {
	ca := newAuthority(t, "ca")
	cert := ca.issue(t, time.Hour, "a")
	for _, c := range []struct {
		name           string
		client, server []string
		want           tls.CurveID
	}{
		{"our own", nil, nil, tls.X25519MLKEM768},
		{"MC-056 a server whose configuration has others", nil, []string{"X25519", "P-256"}, tls.X25519},
		{"MC-056 a client whose configuration has others", []string{"P-256"}, nil, tls.CurveP256},
		{"an older proxy that calls", []string{"X25519", "P-256"}, nil, tls.X25519},
		{"SX-024 nothing else is taken", []string{"X25519MLKEM768"}, []string{"X25519MLKEM768"}, tls.X25519MLKEM768},
		{"SX-024 nothing else is taken, there is nothing else", []string{"X25519MLKEM768"}, []string{"X25519"}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, u := downstream(cert, nil), upstreamTLS(nil, roots(ca))
			d.CommonTlsContext.TlsParams = &tlsv3.TlsParameters{EcdhCurves: c.server}
			u.CommonTlsContext.TlsParams = &tlsv3.TlsParameters{EcdhCurves: c.client, TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3}
			client, server, cerr, serr := shake(t, serverSocket(t, d), clientSocket(t, u), Target{})
			if c.want == 0 {
				if cerr == nil || serr == nil {
					t.Error("they agree")
				}
				return
			}
			if cerr != nil || serr != nil {
				t.Fatal(cerr, serr)
			}
			if got := client.TLS().CurveID; got != c.want || server.TLS().CurveID != c.want {
				t.Errorf("agreed on %s, want %s", got, c.want)
			}
		})
	}
}

// The bytes that the TLS inspector took are part of the stream.
func TestAhead(t *testing.T) {
	ca := newAuthority(t, "ca")
	s, c := serverSocket(t, downstream(ca.issue(t, time.Hour, "a"), nil)), clientSocket(t, upstreamTLS(nil, nil))
	rawC, rawS := sockets(t)
	got := make(chan error, 1)
	go func() {
		ahead := make([]byte, 200)
		if _, err := io.ReadFull(rawS, ahead); err != nil {
			got <- err
			return
		}
		conn, err := s.Accept(t.Context(), rawS, ahead)
		if err == nil {
			_, err = io.Copy(conn, conn)
		}
		got <- err
	}()
	conn, err := c.Connect(t.Context(), rawC, Target{SNI: "a"})
	if err != nil {
		t.Fatal(err)
	}
	echo(t, conn, 100_000)
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Fatal(err)
	}
}

// echo writes n bytes and reads them back.
func echo(t *testing.T, c Conn, n int) {
	t.Helper()
	out := make([]byte, n)
	for i := range out {
		out[i] = byte(i * 7)
	}
	go func() {
		bufs := net.Buffers{out[:n/3], out[n/3 : n/2], out[n/2:]}
		_, _ = c.WriteBuffers(&bufs)
	}()
	in := make([]byte, n)
	if _, err := io.ReadFull(c, in); err != nil {
		t.Fatal(err)
	}
	if string(in) != string(out) {
		t.Fatal("echo differs")
	}
}

// pairs are connections of every kind, socketPairs those over sockets.
func pairs(t *testing.T, f func(t *testing.T, client, server Conn)) {
	socketPairs(t, f)
	t.Run("no descriptor", func(t *testing.T) {
		c, s := net.Pipe()
		t.Cleanup(func() { c.Close(); s.Close() })
		f(t, NewConn(c), NewConn(s))
	})
}

func socketPairs(t *testing.T, f func(t *testing.T, client, server Conn)) {
	t.Run("raw", func(t *testing.T) {
		c, s := sockets(t)
		f(t, NewConn(c), NewConn(s))
	})
	t.Run("tls", func(t *testing.T) {
		ca := newAuthority(t, "ca")
		c, s, cerr, serr := shake(t, serverSocket(t, downstream(ca.issue(t, time.Hour, "a"), nil)), clientSocket(t, upstreamTLS(nil, nil)), Target{})
		if cerr != nil || serr != nil {
			t.Fatal(cerr, serr)
		}
		f(t, c, s)
	})
}

// WaitReadable waits for bytes of the stream, takes none, and holds no buffer.
func TestWaitReadable(t *testing.T) {
	pairs(t, func(t *testing.T, client, server Conn) {
		ready := make(chan error, 1)
		go func() { ready <- client.WaitReadable() }()
		go func() { _, _ = server.Write([]byte("hello")) }()
		if err := <-ready; err != nil {
			t.Fatal(err)
		}
		if err := client.WaitReadable(); err != nil { // still there
			t.Fatal(err)
		}
		got := make([]byte, 5)
		if _, err := io.ReadFull(client, got); err != nil || string(got) != "hello" {
			t.Fatalf("%q %v", got, err)
		}
		if s, ok := client.(*secure); ok && (s.aheadBuf != nil || s.records.buf != nil) {
			t.Error("an idle connection holds a buffer")
		}
		if err := client.SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
			t.Fatal(err)
		}
		var timeout net.Error
		if err := client.WaitReadable(); !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Fatalf("past the deadline: %v", err)
		}
		if err := client.SetReadDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		go server.Close()
		if err := client.WaitReadable(); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Read(got); !errors.Is(err, io.EOF) {
			t.Fatalf("after the end: %v", err)
		}
		if err := errors.Join(client.Close(), client.Close(), client.Reset()); err != nil {
			t.Errorf("closed twice: %v", err)
		}
	})
}

// A TLS stream survives any cut of its bytes into reads.
func TestRecords(t *testing.T) {
	ca := newAuthority(t, "ca")
	s, c := serverSocket(t, downstream(ca.issue(t, time.Hour, "a"), nil)), clientSocket(t, upstreamTLS(nil, nil))
	for _, cut := range []int{1, 3, 5, 7, 1000, 5000} {
		rawC, rawS := sockets(t)
		done := make(chan error, 1)
		go func() {
			conn, err := s.Accept(t.Context(), slow{rawS, cut}, nil)
			if err == nil {
				_, err = io.Copy(conn, conn)
			}
			done <- err
		}()
		conn, err := c.Connect(t.Context(), slow{rawC, cut}, Target{})
		if err != nil {
			t.Fatal(cut, err)
		}
		echo(t, conn, 50_000)
		if err := conn.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(cut, err)
		}
	}
}

// slow reads at most n bytes at a time.
type slow struct {
	net.Conn
	n int
}

func (s slow) Read(p []byte) (int, error) { return s.Conn.Read(p[:min(len(p), s.n)]) }

// Garbage instead of a handshake.
func TestNotTLS(t *testing.T) {
	ca := newAuthority(t, "ca")
	s, c := serverSocket(t, downstream(ca.issue(t, time.Hour, "a"), nil)), clientSocket(t, upstreamTLS(nil, nil))
	t.Run("server", func(t *testing.T) {
		rawC, rawS := sockets(t)
		if _, err := rawC.Write([]byte("GET / HTTP/1.1\r\nhost: a\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Accept(t.Context(), rawS, nil); err == nil {
			t.Fatal("accepted")
		}
	})
	t.Run("client", func(t *testing.T) {
		rawC, rawS := sockets(t)
		if _, err := rawS.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		_, err := c.Connect(t.Context(), rawC, Target{})
		var failed *Error
		if want := "TLS_error:|268435703:SSL routines:OPENSSL_internal:WRONG_VERSION_NUMBER:TLS_error_end"; !errors.As(err, &failed) || failed.Reason != want {
			t.Fatalf("got %v, want %s", err, want)
		}
	})
}

func TestRefusedConfigurations(t *testing.T) {
	ca, other := newAuthority(t, "ca"), newAuthority(t, "other")
	good := ca.issue(t, time.Hour, "a")
	mixed := &tlsv3.TlsCertificate{CertificateChain: good.CertificateChain, PrivateKey: other.issue(t, time.Hour, "a").PrivateKey}
	server := func(change func(*tlsv3.DownstreamTlsContext)) *tlsv3.DownstreamTlsContext {
		c := downstream(good, nil)
		change(c)
		return c
	}
	for _, c := range []struct {
		name string
		in   *tlsv3.DownstreamTlsContext
		want string
	}{
		{"key of another certificate", downstream(mixed, nil),
			"common_tls_context.tls_certificates[0]: failed to load certificate chain from <inline> and private key from <inline>: tls: private key does not match public key"},
		{"no certificate", &tlsv3.DownstreamTlsContext{}, "common_tls_context: no TLS certificates found for server context"},
		{"no root", downstream(good, &tlsv3.CertificateValidationContext{TrustedCa: inline([]byte("x"))}),
			"common_tls_context.validation_context.trusted_ca: failed to load trusted CA certificates from <inline>"},
		{"revocation list", downstream(good, &tlsv3.CertificateValidationContext{TrustedCa: inline(ca.pem), Crl: inline([]byte("x"))}),
			"common_tls_context.validation_context.crl: failed to load CRL from <inline>"},
		{"cipher", server(func(c *tlsv3.DownstreamTlsContext) {
			c.CommonTlsContext.TlsParams = &tlsv3.TlsParameters{CipherSuites: []string{"ROT13"}}
		}), "common_tls_context.tls_params.cipher_suites: failed to initialize cipher suites ROT13"},
		{"version", server(func(c *tlsv3.DownstreamTlsContext) {
			c.CommonTlsContext.TlsParams = &tlsv3.TlsParameters{TlsMaximumProtocolVersion: 5}
		}), "common_tls_context.tls_params.tls_maximum_protocol_version: unknown value 5"},
		{"a short ticket key", server(func(c *tlsv3.DownstreamTlsContext) {
			keys := &tlsv3.TlsSessionTicketKeys{Keys: []*corev3.DataSource{inline(make([]byte, 79))}}
			c.SessionTicketKeysType = &tlsv3.DownstreamTlsContext_SessionTicketKeys{SessionTicketKeys: keys}
		}), "session_ticket_keys.keys[0]: incorrect TLS session ticket key length in <inline>: length 79, expected length 80"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := DecodeDownstreamTLS(c.in, Env{}); err == nil || err.Error() != c.want {
				t.Fatalf("error %v, want %s", err, c.want)
			}
		})
	}
}

func TestTheServerSaysWhyAClientFailed(t *testing.T) {
	ca := newAuthority(t, "ca")
	config := downstream(ca.issue(t, time.Hour, "a"), roots(ca))
	config.RequireClientCertificate = wrapperspb.Bool(true)
	_, _, _, err := shake(t, serverSocket(t, config), clientSocket(t, upstreamTLS(nil, roots(ca))), Target{})
	failure, ok := errors.AsType[*Error](err)
	if !ok || failure.TLS == nil {
		t.Fatalf("got %v", err)
	}
	const want = "TLS_error:|268435648:SSL routines:OPENSSL_internal:PEER_DID_NOT_RETURN_A_CERTIFICATE:peer did not provide required client certificate:TLS_error_end"
	if failure.Reason != want {
		t.Errorf("reason %s\nwant   %s", failure.Reason, want)
	}
	if name := CipherName(failure.TLS.CipherSuite); name != "TLS_AES_128_GCM_SHA256" {
		t.Errorf("cipher %s", name)
	}
	if name := CipherName(tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384); name != "ECDHE-ECDSA-AES256-GCM-SHA384" {
		t.Errorf("TLS 1.2's cipher %s", name)
	}
}

// TestOwner: a server's socket knows whose certificate it shows.
func TestOwner(t *testing.T) {
	ca := newAuthority(t, "ca")
	const id = "spiffe://cluster.local/ns/a/sa/b"
	s := serverSocket(t, downstream(ca.issue(t, time.Hour, "a.test", id), nil))
	if _, _, err, _ := shake(t, s, clientSocket(t, upstreamTLS(nil, nil)), Target{}); err != nil {
		t.Fatal(err)
	}
	if o, ok := s.(Owner); !ok || !slices.Equal(o.URIs(), []string{id}) {
		t.Errorf("not the owner's names: %v", o)
	}
}

func TestVisible(t *testing.T) {
	for in, want := range map[string]string{"CN=a b,O=ü": "CN=a b,O=ü", "CN=a\r\nX: 1": `CN=a\0D\0AX: 1`, "\x00\x7f": `\00\7F`} {
		if got := Visible(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}

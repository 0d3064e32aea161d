package transport

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	proxyprotocolv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/proxy_protocol/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

var wrapTrue = wrapperspb.Bool(true)

func TestSessions(t *testing.T) {
	ca := newAuthority(t, "ca")
	cert := ca.issue(t, time.Hour, "a.test")
	key := func(b byte) *corev3.DataSource { return inline(bytes.Repeat([]byte{b}, ticketKeySize)) }
	with := func(change func(*tlsv3.DownstreamTlsContext), keys ...*corev3.DataSource) ServerSocket {
		c := downstream(cert, nil)
		if len(keys) > 0 {
			c.SessionTicketKeysType = &tlsv3.DownstreamTlsContext_SessionTicketKeys{SessionTicketKeys: &tlsv3.TlsSessionTicketKeys{Keys: keys}}
		}
		if change != nil {
			change(c)
		}
		return serverSocket(t, c)
	}
	one := with(nil)
	for _, c := range []struct {
		name          string
		first, second ServerSocket
		want          bool
	}{
		{"with the same socket", one, one, true},
		{"with another socket", one, with(nil), false},
		{"with another socket of the same keys", with(nil, key(1)), with(nil, key(1)), true},
		{"with keys that have been rotated", with(nil, key(1)), with(nil, key(2), key(1)), true},
		{"with a key that is gone", with(nil, key(1)), with(nil, key(2)), false},
		{"without tickets", one, with(func(c *tlsv3.DownstreamTlsContext) {
			c.SessionTicketKeysType = &tlsv3.DownstreamTlsContext_DisableStatelessSessionResumption{DisableStatelessSessionResumption: true}
		}), false},
		{"that has lived too long", with(nil, key(1)), with(func(c *tlsv3.DownstreamTlsContext) { c.SessionTimeout = durationpb.New(0) }, key(1)), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, version := range []tlsv3.TlsParameters_TlsProtocol{tlsv3.TlsParameters_TLSv1_2, tlsv3.TlsParameters_TLSv1_3} {
				up := upstreamTLS(nil, nil)
				up.CommonTlsContext.TlsParams.TlsMaximumProtocolVersion = version
				client := clientSocket(t, up)
				for i, s := range []ServerSocket{c.first, c.second} {
					conn, _, err, _ := shake(t, s, client, Target{SNI: "a.test"})
					if err != nil {
						t.Fatal(err)
					}
					if resumed := conn.TLS().DidResume; resumed != (i == 1 && c.want) {
						t.Errorf("%s, handshake %d: resumed %v", version, i, resumed)
					}
				}
			}
		})
	}
}

func TestRevokedCertificates(t *testing.T) {
	ca := newAuthority(t, "ca")
	good, goodCert := ca.made(t, &ca.key.PublicKey, ca.key, func(c *x509.Certificate) { c.DNSNames = []string{"good.test"} })
	bad, badCert := ca.made(t, &ca.key.PublicKey, ca.key, func(c *x509.Certificate) { c.DNSNames = []string{"bad.test"} })
	list := func(life time.Duration, revoked ...*x509.Certificate) []byte {
		tmpl := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-2 * time.Hour), NextUpdate: time.Now().Add(life)}
		for _, c := range revoked {
			tmpl.RevokedCertificateEntries = append(tmpl.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: time.Now()})
		}
		der, err := x509.CreateRevocationList(rand.Reader, tmpl, ca.cert, ca.key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
	}
	other := newAuthority(t, "other")
	zero := wrapperspb.UInt32(0)
	for _, c := range []struct {
		name string
		cert *tlsv3.TlsCertificate
		leaf *x509.Certificate
		v    *tlsv3.CertificateValidationContext
		want string
	}{
		{"not revoked", goodCert, good, &tlsv3.CertificateValidationContext{Crl: inline(list(time.Hour, bad)), OnlyVerifyLeafCertCrl: true}, ""},
		{"revoked", badCert, bad, &tlsv3.CertificateValidationContext{Crl: inline(list(time.Hour, bad)), OnlyVerifyLeafCertCrl: true}, "0: certificate revoked"},
		{"revoked beside the roots", badCert, bad, &tlsv3.CertificateValidationContext{TrustedCa: inline(append(list(time.Hour, bad), ca.pem...))}, "0: certificate revoked"},
		{"a list that has expired", goodCert, good, &tlsv3.CertificateValidationContext{Crl: inline(list(-time.Hour))}, "0: CRL has expired"},
		{"no list of the issuer", other.issue(t, time.Hour, "x.test"), nil, &tlsv3.CertificateValidationContext{TrustedCa: inline(other.pem), Crl: inline(list(time.Hour))}, "0: unable to get certificate CRL"},
		{"a chain that is too long", goodCert, good, &tlsv3.CertificateValidationContext{MaxVerifyDepth: zero}, "1: certificate chain too long"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.v.TrustedCa == nil {
				c.v.TrustedCa = inline(ca.pem)
			}
			context := downstream(ca.issue(t, time.Hour, "server.test"), c.v)
			context.RequireClientCertificate = wrapTrue
			_, _, _, err := shake(t, serverSocket(t, context), clientSocket(t, upstreamTLS(c.cert, nil)), Target{})
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), "at depth "+c.want+":")) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

func TestOtherNames(t *testing.T) {
	ca := newAuthority(t, "ca")
	upn := asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 20, 2, 3}
	value := func(v any, tag string) []byte {
		oid, err := asn1.Marshal(upn)
		if err != nil {
			t.Fatal(err)
		}
		inner, err := asn1.MarshalWithParams(v, tag)
		if err != nil {
			t.Fatal(err)
		}
		outer, err := asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: inner})
		if err != nil {
			t.Fatal(err)
		}
		name, err := asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tagOther, IsCompound: true, Bytes: append(oid, outer...)})
		if err != nil {
			t.Fatal(err)
		}
		all, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: name})
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	for _, c := range []struct {
		san              []byte
		oid, exact       string
		compiles, passes bool
	}{
		{value("user@a.test", "utf8"), upn.String(), "user@a.test", true, true},
		{value("user@a.test", "utf8"), upn.String(), "other@a.test", true, false},
		{value("user@a.test", "utf8"), "1.2.3", "user@a.test", true, false},
		{value(-5, ""), upn.String(), "-5", true, true},
		{value(true, ""), upn.String(), "true", true, true},
		{value(asn1.ObjectIdentifier{1, 2, 3}, ""), upn.String(), "1.2.3", true, true},
		{nil, "", "x", false, false},
		{nil, "1.x", "x", false, false},
	} {
		exact := &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: c.exact}}
		m, err := compileSAN(tlsv3.SubjectAltNameMatcher_OTHER_NAME, exact, c.oid)
		if (err == nil) != c.compiles {
			t.Errorf("%+v: %v", c, err)
		}
		if err != nil {
			continue
		}
		leaf, _ := ca.made(t, &ca.key.PublicKey, ca.key, func(x *x509.Certificate) {
			x.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: c.san}}
		})
		if m.matches(leaf) != c.passes {
			t.Errorf("%s for %x", c.exact, c.san)
		}
	}
}

func TestTrustBundles(t *testing.T) {
	ca, other := newAuthority(t, "ca"), newAuthority(t, "other")
	bundle := fmt.Sprintf(`{"trust_domains": {"cluster.local": {"keys": [{"kty": "EC", "use": "x509-svid", "x5c": [%q]}]}}}`, base64.StdEncoding.EncodeToString(ca.cert.Raw))
	context := func(text string) *tlsv3.DownstreamTlsContext {
		config, err := anypb.New(&tlsv3.SPIFFECertValidatorConfig{TrustBundles: inline([]byte(text))})
		if err != nil {
			t.Fatal(err)
		}
		return downstream(ca.issue(t, time.Hour, "server.test"),
			&tlsv3.CertificateValidationContext{CustomValidatorConfig: &corev3.TypedExtensionConfig{Name: "envoy.tls.cert_validator.spiffe", TypedConfig: config}})
	}
	s := serverSocket(t, context(bundle))
	for _, c := range []struct {
		name string
		cert *tlsv3.TlsCertificate
		ok   bool
	}{
		{"a workload of the domain", ca.issue(t, time.Hour, "spiffe://cluster.local/ns/a"), true},
		{"one of another domain", ca.issue(t, time.Hour, "spiffe://elsewhere/ns/a"), false},
		{"one of another authority", other.issue(t, time.Hour, "spiffe://cluster.local/ns/a"), false},
		{"one with two names", ca.issue(t, time.Hour, "spiffe://cluster.local/ns/a", "spiffe://cluster.local/ns/b"), false},
		{"none", nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, _, _, err := shake(t, s, clientSocket(t, upstreamTLS(c.cert, nil)), Target{}); (err == nil) != c.ok {
				t.Error(err)
			}
		})
	}
	for _, text := range []string{"", "{}", `{"trust_domains": {"a": {"keys": [{"use": "x509-svid", "x5c": ["!"]}]}}}`} {
		if _, err := DecodeDownstreamTLS(context(text), Env{}); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

func TestProxySender(t *testing.T) {
	four := &Proxied{From: netip.MustParseAddrPort("192.0.2.1:4000"), To: netip.MustParseAddrPort("10.0.0.1:80"), TLVs: []TLV{{5, []byte("id")}, {6, []byte("no")}}}
	six := &Proxied{From: netip.MustParseAddrPort("[2001:db8::1]:4000"), To: netip.MustParseAddrPort("[2001:db8::2]:80")}
	v1, v2 := corev3.ProxyProtocolConfig_V1, corev3.ProxyProtocolConfig_V2
	pass := &corev3.ProxyProtocolPassThroughTLVs{MatchType: corev3.ProxyProtocolPassThroughTLVs_INCLUDE, TlvType: []uint32{5}}
	for _, c := range []struct {
		name string
		cfg  *corev3.ProxyProtocolConfig
		who  *Proxied
		want string
	}{
		{"version 1", &corev3.ProxyProtocolConfig{Version: v1}, four, "PROXY TCP4 192.0.2.1 10.0.0.1 4000 80\r\n"},
		{"version 1 of IPv6", &corev3.ProxyProtocolConfig{Version: v1}, six, "PROXY TCP6 2001:db8::1 2001:db8::2 4000 80\r\n"},
		{"version 1 of a unix socket", &corev3.ProxyProtocolConfig{Version: v1}, &Proxied{}, "PROXY UNKNOWN\r\n"},
		{"version 2 for the proxy itself", &corev3.ProxyProtocolConfig{Version: v2}, nil, signatureV2 + "\x20\x00\x00\x00"},
		{"version 2", &corev3.ProxyProtocolConfig{Version: v2, PassThroughTlvs: pass}, four, signatureV2 + "\x21\x11\x00\x11\xc0\x00\x02\x01\x0a\x00\x00\x01\x0f\xa0\x00\x50\x05\x00\x02id"},
		{"version 2 with an entry that takes the place of one that would pass", &corev3.ProxyProtocolConfig{Version: v2, PassThroughTlvs: pass,
			AddedTlvs: []*corev3.TlvEntry{{Type: 5, Value: []byte("my")}}}, four, signatureV2 + "\x21\x11\x00\x11\xc0\x00\x02\x01\x0a\x00\x00\x01\x0f\xa0\x00\x50\x05\x00\x02my"},
		{"version 2 with more than fits", &corev3.ProxyProtocolConfig{Version: v2, AddedTlvs: []*corev3.TlvEntry{{Type: 1, Value: make([]byte, 65000)}, {Type: 2, Value: make([]byte, 1000)}}},
			four, signatureV2 + "\x21\x11\x00\x0c\xc0\x00\x02\x01\x0a\x00\x00\x01\x0f\xa0\x00\x50"},
	} {
		t.Run(c.name, func(t *testing.T) {
			config, err := anypb.New(&proxyprotocolv3.ProxyProtocolUpstreamTransport{Config: c.cfg, TransportSocket: &corev3.TransportSocket{Name: "envoy.transport_sockets.raw_buffer"}})
			if err != nil {
				t.Fatal(err)
			}
			s, err := DecodeClient(&corev3.TransportSocket{Name: "pp", ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: config}}, Env{})
			if err != nil {
				t.Fatal(err)
			}
			rawC, rawS := sockets(t)
			conn, err := s.Connect(context.Background(), rawC, Target{Proxied: c.who})
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.Close()
			if got := drain(t, rawS); got != c.want {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

func drain(t *testing.T, c net.Conn) string {
	t.Helper()
	var b bytes.Buffer
	if _, err := b.ReadFrom(c); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestHostileNames: whatever a client says in its hello, the handshake ends.
func TestHostileNames(t *testing.T) {
	s := serverSocket(t, downstream(newAuthority(t, "ca").issue(t, time.Hour, "a.test"), nil))
	for _, name := range []string{strings.Repeat("a", 255), strings.Repeat("a.", 120) + "test", "a\x00b.test", "*.test", "..", "\xff\xfe"} {
		rawC, rawS := sockets(t)
		done := make(chan struct{})
		go func() {
			defer close(done)
			if c, err := s.Accept(t.Context(), rawS, nil); err == nil {
				_ = c.Close()
			}
		}()
		protocols := []string{strings.Repeat("p", 255), "\x00", "h2\x00"}
		_ = tls.Client(rawC, &tls.Config{ServerName: name, NextProtos: protocols, InsecureSkipVerify: true}).Handshake()
		_ = rawC.Close()
		<-done
	}
}
